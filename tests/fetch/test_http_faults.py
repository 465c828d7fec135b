"""A web server that misbehaves in every known way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.agents.fetcher import store_http
from tests.fetch.harness import Container, random_bytes, sha256, tree
from tests.servers.http_faults import FaultServer, Page

pytestmark = pytest.mark.fetch

BODY = random_bytes(2_000_000)
DIGEST = sha256(BODY)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[FaultServer]:
    """Another origin."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def page(server: FaultServer) -> Page:
    server.requests.clear()
    server.pages["/m.bin"] = Page(BODY)
    return server.pages["/m.bin"]


def _get(container: Container, server: FaultServer, **extra: str) -> tuple[str, str]:
    outcome = container.get(f"{server.url}/m.bin", DIGEST, **extra)
    return outcome.reason, outcome.message.get("message", "")


@pytest.mark.parametrize("etag", [True, False])
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_with_or_without_ranges_lengths_and_etags(
    container: Container, server: FaultServer, page: Page, ranges: bool, length: bool, etag: bool
) -> None:
    page.ranges, page.length, page.etag = ranges, length, etag
    assert container.resolve(f"{server.url}/m.bin").message["digest"] == DIGEST
    assert _get(container, server)[0] == "Success"
    assert tree(container.dest) == {"m.bin": BODY}


def test_with_ranges_parts_come_side_by_side(container: Container, server: FaultServer, page: Page) -> None:
    assert _get(container, server)[0] == "Success"
    requests = [requests for _, requests, _ in server.requests if requests != "bytes=0-0"]
    assert len(requests) == 8


def test_broken_download_without_ranges_starts_again(container: Container, server: FaultServer, page: Page) -> None:
    page.ranges, page.cut_after, page.cuts = False, 700_000, 3
    # one of the three is the look at the beginning
    assert _get(container, server)[0] == "Success"
    assert tree(container.dest) == {"m.bin": BODY}


def test_dying_again_and_again_is_unreachable(container: Container, server: FaultServer, page: Page) -> None:
    page.cut_after, page.cuts = 100, 1000
    reason, message = _get(container, server)
    assert reason == "StoreUnreachable"
    assert "connection" in message
    assert "tries" in message


@pytest.mark.parametrize("ranges", [True, False])
def test_a_trickle_of_bytes_is_a_stall(container: Container, server: FaultServer, page: Page, ranges: bool) -> None:
    page.ranges, page.stall_after, page.trickle = ranges, 10_000, 0.05
    reason, message = _get(container, server, MODELWRIGHT_FETCH_STALL_SECONDS="0.4", MODELWRIGHT_FETCH_ATTEMPTS="2")
    assert reason == "DownloadStalled"
    assert "m.bin" in message


def test_a_body_shorter_than_announced_is_no_artifact(container: Container, server: FaultServer, page: Page) -> None:
    page.ranges, page.claim_length = False, len(BODY) + 1000
    assert _get(container, server)[0] == "StoreUnreachable"
    assert not (container.dest / "m.bin").exists()


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "ArtifactNotFound"), (403, "AccessDenied"), (401, "AccessDenied")]
)
def test_refusal_is_reported_without_a_retry(
    container: Container, server: FaultServer, page: Page, status: int, reason: str
) -> None:
    page.status = [status] * 10
    assert _get(container, server)[0] == reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_passing_troubles_are_tried_again(container: Container, server: FaultServer, page: Page, status: int) -> None:
    page.status = [status, 200, status]
    assert _get(container, server)[0] == "Success"


def test_the_wait_that_a_server_asks_for_is_kept(container: Container, server: FaultServer, page: Page) -> None:
    page.status, page.headers = [429], {"Retry-After": "1"}
    outcome = container.get(f"{server.url}/m.bin", DIGEST)
    assert outcome.code == 0
    assert outcome.message["seconds"] >= 1


def test_a_server_that_stays_broken_is_unreachable(container: Container, server: FaultServer, page: Page) -> None:
    page.status = [503] * 100
    reason, message = _get(container, server)
    assert reason == "StoreUnreachable"
    assert "503" in message


def test_artifact_changed_between_two_pods_is_refused(container: Container, server: FaultServer, page: Page) -> None:
    assert container.resolve(f"{server.url}/m.bin").message["digest"] == DIGEST
    page.body = random_bytes(2_000_000, 99)
    reason, message = _get(container, server)
    assert reason == "DigestMismatch"
    assert DIGEST in message
    assert sha256(page.body) in message


def test_artifact_changed_during_the_read_is_read_again(container: Container, server: FaultServer, page: Page) -> None:
    new = random_bytes(2_000_000, 5)
    page.body, page.next_body = BODY, new
    outcome = container.resolve(f"{server.url}/m.bin")
    assert outcome.message["digest"] == sha256(new), outcome.text


def test_a_beginning_of_another_version_is_not_gone_on_with(
    container: Container, server: FaultServer, page: Page
) -> None:
    old = random_bytes(2_000_000, 7)
    page.body, page.cut_after, page.cuts = old, 100_000, 10_000
    container.get(f"{server.url}/m.bin", sha256(old))
    page.body, page.cut_after = BODY, -1
    assert _get(container, server)[0] == "Success"
    assert tree(container.dest) == {"m.bin": BODY}


def test_damaged_leftovers_do_not_fail_the_download(container: Container, server: FaultServer, page: Page) -> None:
    page.stall_after = 100_000
    parts = {"MODELWRIGHT_FETCH_STALL_SECONDS": "0.3", "MODELWRIGHT_FETCH_ATTEMPTS": "1"}
    # the last part is shorter than what stalls: only a beginning stays
    assert _get(container, server, **parts)[0] == "DownloadStalled"
    page.stall_after = -1
    staging = container.dest / ".modelwright" / "partial"
    for part in staging.iterdir():
        part.write_bytes(b"\0" * 300_000)
    outcome = container.get(f"{server.url}/m.bin", DIGEST)
    assert outcome.code == 0, outcome.text
    assert outcome.events("restart")
    assert tree(container.dest) == {"m.bin": BODY}


def test_redirects_are_followed_but_credentials_stay_behind(
    container: Container, server: FaultServer, elsewhere: FaultServer, page: Page
) -> None:
    elsewhere.pages["/far/m.bin"] = Page(BODY)
    elsewhere.requests.clear()
    server.pages["/m.bin"] = Page(redirect=f"{elsewhere.url}/far/m.bin?X-Amz-Signature=tell-no-one")
    container.give({"HTTP_AUTHORIZATION": "Bearer Canary-Token", "HTTP_HOSTS": f"{server.url} {elsewhere.url}"})
    outcome = container.get(f"{server.url}/m.bin", DIGEST)
    assert outcome.code == 0, outcome.text
    assert all(authorization == "Bearer Canary-Token" for _, _, authorization in server.requests)
    assert all(authorization == "" for _, _, authorization in elsewhere.requests)
    assert "tell-no-one" not in outcome.text
    assert tree(container.dest) == {"m.bin": BODY}


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://[fd00:ec2::254]/x",
    ],
)
def test_metadata_addresses_are_refused_also_after_a_redirect(
    container: Container, server: FaultServer, page: Page, target: str
) -> None:
    outcome = container.resolve(f"{target}m.bin")
    assert outcome.reason == "InvalidURI", outcome.text
    server.pages["/m.bin"] = Page(redirect=target)
    reason, message = _get(container, server)
    assert reason == "InvalidURI"
    assert "metadata" in message


def test_a_name_that_resolves_to_a_metadata_address_is_refused(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(host: object, port: object, *arguments: object, **options: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    outcome = container.resolve("http://harmless.example/m.bin")
    assert outcome.reason == "InvalidURI", outcome.text
    assert "harmless.example" in outcome.message["message"]


def test_a_redirect_loop_ends(container: Container, server: FaultServer, page: Page) -> None:
    server.pages["/m.bin"] = Page(redirect="/m.bin")
    reason, message = _get(container, server)
    assert reason == "StoreUnreachable"
    assert "redirects" in message


def test_redirects_to_other_schemes_are_refused(container: Container, server: FaultServer, page: Page) -> None:
    server.pages["/m.bin"] = Page(redirect="file:///etc/passwd")
    assert _get(container, server)[0] == "InvalidURI"


def test_secrets_in_the_uri_work_and_are_never_shown(container: Container, server: FaultServer, page: Page) -> None:
    page.authorization = "Basic dXNlcjpDYW5hcnlQYXNz"
    host = server.url.removeprefix("http://")
    for password, code in (("CanaryWrong", 1), ("CanaryPass", 0)):
        outcome = container.get(f"http://user:{password}@{host}/m.bin?sig=CanarySignature", DIGEST)
        assert outcome.code == code, outcome.text
        for secret in ("CanaryPass", "CanaryWrong", "CanarySignature", "dXNlcjpDYW5hcnlQYXNz"):
            assert secret not in outcome.text
            assert secret not in outcome.termination


def test_an_empty_file_is_a_file(container: Container, server: FaultServer, page: Page) -> None:
    page.body = b""
    assert container.get(f"{server.url}/m.bin", sha256(b"")).code == 0
    assert tree(container.dest) == {"m.bin": b""}


def test_a_name_that_no_dns_knows_is_unreachable(container: Container) -> None:
    outcome = container.resolve("http://no-such-host.invalid/m.bin", MODELWRIGHT_FETCH_ATTEMPTS="1")
    assert outcome.reason == "StoreUnreachable"
    assert "no-such-host.invalid" in outcome.message["message"]


def test_a_bad_authority_certificate_is_named(container: Container, server: FaultServer, page: Page) -> None:
    container.give({"ca.crt": "not a certificate"})
    outcome = container.resolve(f"{server.url}/m.bin")
    assert outcome.reason == "AccessDenied"
    assert "ca.crt" in outcome.message["message"]


def test_urls_are_shown_without_their_secrets() -> None:
    assert store_http.strip_url_secrets("https://u:p@h:1/x?sig=1") == "https://h:1/x"


def test_size_limit_holds_without_an_announced_length(
    container: Container, server: FaultServer, page: Page, tmp_path: Path
) -> None:
    for ranges, length in ((True, True), (False, False)):
        page.ranges, page.length = ranges, length
        reason, message = _get(container, server, MODELWRIGHT_FETCH_MAX_BYTES="1000000")
        assert reason == "ArtifactTooLarge"
        assert "MODELWRIGHT_FETCH_MAX_BYTES" in message
    assert not (container.dest / ".modelwright").exists()
