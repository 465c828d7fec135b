"""Output of a fetch and its message for the kubelet: short, and without secrets."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.agents.fetcher.redact import Redactor
from modelwright.agents.fetcher.report import TERMINATION_BYTES, FetchReport, TransferMeter, format_failure, format_size
from modelwright.agents.fetcher.store_credentials import StoreCredentials


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("GET http://user:hunter2@host/x failed", "hunter2"),
        ("https://host/m?X-Amz-Signature=deadbeef&X-Amz-Date=1 is gone", "deadbeef"),
        ("az://a/c/b?sig=abc%2F", "abc%2F"),
        ("Authorization: Bearer abcdefgh.ijk", "abcdefgh.ijk"),
        ("Basic dXNlcjpwYXNz sent", "dXNlcjpwYXNz"),
        ("SharedKey acc:AbCdEf012345=", "AbCdEf012345"),
        ("AWS4-HMAC-SHA256 Credential=k/20261121/x, Signature=1a2b", "1a2b"),
        ("token hf_abcDEF12345678 was refused", "hf_abcDEF12345678"),
        ("it said: known-value.", "known-value"),
        ("-----BEGIN\nfirst line of key\nsecond line of key", "second line of key"),
    ],
)
def test_secrets_are_masked(text: str, hidden: str) -> None:
    redact = Redactor(["known-value", "first line of key\nsecond line of key"])
    assert hidden not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/name@main: not found",
        f"oci://reg.io:5000/a/b@sha256:{'a' * 64}",
        "s3://bucket/key: no connection to 10.0.0.1:443",
        "Is this a question? Yes.",
    ],
)
def test_addresses_without_secrets_stay_readable(text: str) -> None:
    assert Redactor([])(text) == text


def test_a_short_or_empty_secret_does_not_garble_everything() -> None:
    assert Redactor(["", " ", "a"])("a plain message") == "a plain message"


@given(st.text(max_size=9000), st.sampled_from(["ArtifactNotFound", "StoreUnreachable"]))
def test_a_failure_fits_the_termination_message(message: str, reason: str) -> None:
    text = format_failure(reason, message)
    assert len(text.encode()) <= TERMINATION_BYTES
    assert json.loads(text)["reason"] == reason


def test_a_failure_full_of_characters_that_grow_in_json_fits_too() -> None:
    assert len(format_failure("InternalError", '"\n\x01' * 4000).encode()) <= TERMINATION_BYTES


def test_log_lines_are_redacted_json_and_survive_a_closed_stdout() -> None:
    out = io.StringIO()
    report = FetchReport(Redactor(["tell-no-one"]), stream=out)
    report.log_event("start", 'say "tell-no-one"', uri="x tell-no-one")
    meter = TransferMeter()
    meter.total_bytes, meter.bytes, meter.total_files = 2000, 1000, 3
    report.log_progress(meter)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert "tell-no-one" not in out.getvalue()
    assert first["event"] == "start"
    assert (second["bytes"], second["totalBytes"]) == (1000, 2000)
    assert "50 %" in second["message"]
    out.close()
    report.log_event("more", "nobody listens")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_400_000_000, "3.4 GB")])
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


def test_mounted_secret_precedes_environment_in_all_its_forms(tmp_path: Path) -> None:
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("from-file\n")
    auth = "dXNlcjpyZWdpc3RyeS1wYXNz"  # user:registry-pass
    (tmp_path / ".dockerconfigjson").write_text(json.dumps({"auths": {"r": {"auth": auth}}}))
    (tmp_path / "GOOGLE_APPLICATION_CREDENTIALS_JSON").write_text(json.dumps({"private_key": "line-one\nline-two"}))
    environment = {"AWS_SECRET_ACCESS_KEY": "from-environment", "HTTP_AUTHORIZATION": "Token only-this"}
    credentials = StoreCredentials(tmp_path, environment)
    assert credentials.get("AWS_SECRET_ACCESS_KEY") == "from-file"
    assert credentials.get("NOTHING") == ""
    redact = Redactor(credentials.list_secrets())
    for canary in ("from-file", auth, "registry-pass", "line-two", "only-this"):
        assert canary not in redact(f"<{canary}>")
    assert "from-file" not in repr(credentials)
