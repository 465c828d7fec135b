"""Artifact URIs: parsed, refused, and printed without secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from modelwright.agents.fetcher import uri
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.sources import SOURCES
from modelwright.api.v1alpha1.version import ArtifactUri

READ: list[tuple[str, str, str, dict[str, object]]] = [
    ("s3://models/digits/v1", "models", "digits/v1", {}),
    ("s3://models/digits/v1/", "models", "digits/v1", {"prefix": True}),
    ("s3://models/a b/ü%20?x#y", "models", "a b/ü%20?x#y", {}),
    ("gs://models/m.zip", "models", "m.zip", {}),
    ("az://account1/models/m", "account1", "m", {"container": "models"}),
    ("pvc://claim/models/m", "claim", "models/m", {}),
    ("pvc://claim/", "claim", "", {"prefix": True}),
    ("pvc://claim", "claim", "", {"prefix": True}),
    ("hf://org/name", "org", "name", {"reference": "main"}),
    ("hf://org/name@refs/pr/1", "org", "name", {"reference": "refs/pr/1"}),
    ("oci://reg.io/a/b", "reg.io", "a/b", {"reference": "latest"}),
    ("oci://localhost:5000/a:v1", "localhost:5000", "a", {"reference": "v1"}),
    (f"oci://reg.io/a:v1@sha256:{'a' * 64}", "reg.io", "a", {"reference": f"sha256:{'a' * 64}"}),
    ("https://host/a/m.onnx", "host", "a/m.onnx", {}),
    ("http://[::1]:80/m", "[::1]:80", "m", {}),
]


@pytest.mark.parametrize(("text", "authority", "path", "rest"), READ)
def test_each_scheme_is_taken_apart(text: str, authority: str, path: str, rest: dict[str, object]) -> None:
    parsed = uri.parse_uri(text)
    assert (parsed.authority, parsed.path) == (authority, path)
    assert {name: getattr(parsed, name) for name in rest} == rest


PRINTABLE = [text for text, *_ in READ if " " not in text]
"""The API takes no blanks and no other alphabets."""


@pytest.mark.parametrize("text", PRINTABLE)
def test_api_admits_exactly_the_valid_uris(text: str) -> None:
    assert TypeAdapter(ArtifactUri).validate_python(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no known scheme"),
        ("models/m", "no known scheme"),
        ("ftp://host/m", "'ftp'"),
        ("S3://bucket/m", "'S3'"),
        ("s3://bucket", "no object"),
        ("s3:///key", "bucket"),
        ("s3://user:hunter2@bucket/key", "bucket"),
        ("s3://bucket/a//b", "segment"),
        ("s3://bucket/../b", "segment"),
        ("s3://bucket/a\nb", "control character"),
        ("gs://bucket/./b", "segment"),
        ("az://account/container", "no object"),
        ("az://Account/container/b", "account"),
        ("pvc://Claim/x", "PersistentVolumeClaim"),
        ("pvc://claim/../../etc", "segment"),
        ("hf://name", "organisation"),
        ("hf://org/name/sub", "organisation"),
        ("hf://org/name@", "revision"),
        ("hf://org/name@a..b", "revision"),
        ("oci://user:hunter2@reg.io/a", ".dockerconfigjson"),
        ("oci://reg.io/UPPER", "repository"),
        ("oci://reg.io/a@sha256:123", "digest"),
        ("oci://reg.io/a:", "tag"),
        ("https://host/", "one file"),
        ("https://host/dir/", "one file"),
        ("https:///m", "host"),
        ("https://host/m#part", "fragment"),
        ("https://host/..", "file name"),
        ("https://host/%2e%2e", "file name"),
        ("https://host/a%5Cb", "file name"),
        ("https://host:99999/m", "port"),
        ("https://host/a b", "blank"),
        ("s3://b/" + "x" * 5000, "longer"),
    ],
)
def test_invalid_uri_is_named(text: str, says: str) -> None:
    with pytest.raises(FetchError) as caught:
        uri.parse_uri(text)
    assert caught.value.reason is FetchReason.INVALID_URI
    assert says in caught.value.message
    assert "hunter2" not in caught.value.message


def test_user_password_and_query_are_never_shown() -> None:
    parsed = uri.parse_uri("https://user:hunter2@host:8443/m.zip?X-Amz-Signature=abc&sig=def")
    for shown in (str(parsed), parsed.safe, repr(parsed)):
        assert "hunter2" not in shown
        assert "abc" not in shown
        assert "user" not in shown
    assert parsed.basename == "m.zip"


def test_every_scheme_has_a_source_and_every_source_a_scheme() -> None:
    assert set(SOURCES) == set(uri.SCHEMES)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    refusals = set()
    for candidate in (text, *(f"{scheme}://{text}" for scheme in uri.SCHEMES)):
        try:
            parsed = uri.parse_uri(candidate)
        except FetchError as error:
            refusals.add(error.reason)
            continue
        assert ".." not in parsed.path.split("/")
        assert "/" not in parsed.basename
        assert "\0" not in parsed.basename
    assert refusals <= {FetchReason.INVALID_URI}


_SEGMENT = st.text(st.characters(categories=["L", "N"], include_characters="-_. %?#"), min_size=1).filter(
    lambda text: text not in (".", "..")
)


@given(st.lists(_SEGMENT, min_size=1, max_size=5))
def test_keys_of_objects_are_taken_literally(segments: list[str]) -> None:
    key = "/".join(segments)
    assert uri.parse_uri(f"s3://bucket/{key}").path == key
