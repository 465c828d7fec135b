"""Stores that take a bucket in the host name only: the addresses of requests, and the message without the Secret's
key."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.sources.s3 import add_bucket_to_host
from tests.fetch.harness import Container, sha256, tree
from tests.servers.threaded import ThreadedServer, send_body

NOW = {"Last-Modified": "Tue, 01 Dec 2026 03:00:00 GMT", "ETag": '"1"'}
HOST = "store.example"


@pytest.mark.parametrize(
    ("endpoint", "bucket", "expected"),
    [
        ("https://oss-eu-central-1.aliyuncs.com", "models", "https://models.oss-eu-central-1.aliyuncs.com"),
        ("https://models.oss-eu-central-1.aliyuncs.com", "models", "https://models.oss-eu-central-1.aliyuncs.com"),
        ("http://store.example:9000/s3", "a.b", "http://a.b.store.example:9000/s3"),
        ("https://models-2.example", "models", "https://models.models-2.example"),
    ],
)
def test_the_bucket_comes_in_front_of_the_host(endpoint: str, bucket: str, expected: str) -> None:
    assert add_bucket_to_host(endpoint, bucket) == expected


@pytest.mark.parametrize(
    ("endpoint", "bucket", "says"),
    [
        ("https://store.example", "My_Models", "'My_Models' can't be a part"),
        ("https://store.example", "a..b", "can't be a part"),
        ("https://store.example", "b" * 64, "can't be a part"),
        ("https://10.0.0.7:9000", "models", "an address in place of a host name"),
        ("https://[fd00::7]:9000", "models", "an address in place of a host name"),
    ],
)
def test_bucket_that_makes_no_host_name_is_refused(endpoint: str, bucket: str, says: str) -> None:
    with pytest.raises(FetchError) as caught:
        add_bucket_to_host(endpoint, bucket)
    assert caught.value.reason is FetchReason.INVALID_URI
    assert says in caught.value.message


@given(bucket=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", fullmatch=True))
def test_host_stays_below_the_endpoints_for_any_bucket(bucket: str) -> None:
    try:
        result = add_bucket_to_host("https://store.example:8443/x", bucket)
    except FetchError:
        return
    assert result == f"https://{bucket}.store.example:8443/x"


class Proxy(ThreadedServer):
    """A store that is reached through a proxy, so that no name is looked up. Takes the bucket in the host only."""

    def __init__(self) -> None:
        super().__init__(0)
        self.asked: list[tuple[str, str]] = []
        self.code = "SecondLevelDomainForbidden"

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/{path:.*}", self._get)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.host, request.path))
        if request.host != f"models.{HOST}":
            return web.Response(status=403, text=f"<Error><Code>{self.code}</Code></Error>")
        if request.path != "/digits/m.bin":
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        return send_body(request, b"weights", NOW)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    def unknown(*_: object, **__: object) -> list[object]:
        raise OSError("no name is looked up in tests")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Proxy() as result:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, result.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield result


def secret(**more: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-of-the-key"}
    return {"AWS_ENDPOINT_URL": f"http://{HOST}", **keys, **more}


@pytest.mark.parametrize("endpoint", [f"http://{HOST}", f"http://models.{HOST}"])
def test_with_the_key_requests_go_to_the_buckets_host(tmp_path: Path, proxy: Proxy, endpoint: str) -> None:
    container = Container(tmp_path)
    container.give(secret(AWS_VIRTUAL_HOSTED_STYLE_REQUEST="true", AWS_ENDPOINT_URL=endpoint))
    result = container.get("s3://models/digits/m.bin", sha256(b"weights"))
    assert result.code == 0, result.text
    assert tree(container.dest) == {"m.bin": b"weights"}
    assert set(proxy.asked) == {(f"models.{HOST}", "/digits/m.bin")}


def test_without_it_the_message_names_the_key(tmp_path: Path, proxy: Proxy) -> None:
    container = Container(tmp_path)
    container.give(secret())
    for uri in ("s3://models/digits/m.bin", "s3://models/digits/"):
        result = container.resolve(uri)
        assert result.reason == "InvalidURI", result.text
        assert "AWS_VIRTUAL_HOSTED_STYLE_REQUEST" in result.message["message"]
        assert "SecondLevelDomainForbidden" in result.message["message"]


def test_stores_reason_of_a_denied_request_is_reported(tmp_path: Path, proxy: Proxy) -> None:
    container = Container(tmp_path)
    container.give(secret())
    proxy.code = "SignatureDoesNotMatch"
    result = container.resolve("s3://models/digits/m.bin")
    assert result.reason == "AccessDenied"
    assert "The store says SignatureDoesNotMatch" in result.message["message"]
