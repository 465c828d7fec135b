"""No source contacts a link-local or metadata address, in any notation: in the uri, a Secret or a redirect."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fetch.harness import Container
from tests.servers.http_faults import FaultServer, Page

ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL", "s3://bucket/m.bin"),
    "gs": ("GOOGLE_ENDPOINT_URL", "gs://bucket/m.bin"),
    "az": ("AZURE_ENDPOINT_URL", "az://account1/container/m.bin"),
    "hf": ("HF_ENDPOINT", "hf://org/name"),
}
SPELLINGS = ("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]")


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path, {"MODELWRIGHT_FETCH_ATTEMPTS": "1"})


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as result:
        yield result


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every connection that Python code tries to make, refused."""
    tried: list[object] = []

    def connect(_: socket.socket, address: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tried


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_an_http_artifact_is_asked(container: Container, host: str, connections: list[object]) -> None:
    outcome = container.resolve(f"http://{host}/latest/meta-data/m.bin")
    assert outcome.reason == "InvalidURI", outcome.text
    assert "metadata" in outcome.message["message"]
    assert not connections


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_in_a_redirect_is_asked(container: Container, server: FaultServer, host: str) -> None:
    server.pages["/m.bin"] = Page(redirect=f"http://{host}/latest/meta-data/")
    outcome = container.resolve(f"{server.url}/m.bin")
    assert outcome.reason == "InvalidURI", outcome.text


@pytest.mark.parametrize("scheme", ENDPOINTS)
@pytest.mark.parametrize("host", [*SPELLINGS, "metadata.google.internal"])
def test_no_endpoint_of_a_secret_is_asked(
    container: Container, scheme: str, host: str, connections: list[object]
) -> None:
    name, uri = ENDPOINTS[scheme]
    container.give({name: f"http://{host}"})
    outcome = container.resolve(uri)
    assert outcome.reason == "InvalidURI", outcome.text
    assert "metadata" in outcome.message["message"]
    assert not connections


@pytest.mark.parametrize("scheme", ENDPOINTS)
def test_no_endpoint_that_leads_there_by_name_is_asked(
    container: Container, scheme: str, connections: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    name, uri = ENDPOINTS[scheme]
    container.give({name: "http://harmless.example"})
    outcome = container.resolve(uri)
    assert outcome.reason == "InvalidURI", outcome.text
    assert "harmless.example" in outcome.message["message"]
    assert not connections


def test_a_hub_that_redirects_there_is_not_followed(container: Container, server: FaultServer) -> None:
    server.pages["/api/models/org/name/revision/main"] = Page(redirect="http://169.254.169.254/latest/meta-data/")
    container.give({"HF_ENDPOINT": server.url})
    outcome = container.resolve("hf://org/name")
    assert outcome.reason == "InvalidURI", outcome.text


def test_a_registry_is_held_to_the_same(container: Container, connections: list[object]) -> None:
    container.give({"REGISTRY_INSECURE": "true"})
    outcome = container.resolve("oci://169.254.169.254/models/m:1")
    assert outcome.reason == "InvalidURI", outcome.text
    assert not connections


@pytest.mark.parametrize("endpoint", ["http://0177.0.0.1:1", "http://[::1", "http://1.2.3.4.5:1"])
def test_an_endpoint_that_is_no_address_is_a_refusal_and_no_bug(container: Container, endpoint: str) -> None:
    container.give({"HF_ENDPOINT": endpoint})
    outcome = container.resolve("hf://org/name")
    assert outcome.reason in ("InvalidURI", "StoreUnreachable"), outcome.text


@pytest.mark.parametrize(
    "location", ["http://[::1/m.bin", "http://host:99999/m.bin", "http://a b/", "//", "http://", "\x7f"]
)
def test_a_redirect_to_no_url_is_a_refusal_and_no_bug(container: Container, server: FaultServer, location: str) -> None:
    server.pages["/m.bin"] = Page(redirect=location)
    outcome = container.resolve(f"{server.url}/m.bin")
    assert outcome.reason in ("InvalidURI", "StoreUnreachable"), outcome.text
