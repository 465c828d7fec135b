"""Stores behind TLS with a private authority: trusted when the Secret says so, and only then."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fetch.harness import Container, folder_digest, sha256
from tests.fetch.stores import Store
from tests.servers.http_faults import FaultProxy

pytestmark = pytest.mark.fetch


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.crt, and the key and certificate of 127.0.0.1 that it signed."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test-authority",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile extensions",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secure(remote: Store, authority: Path) -> Iterator[FaultProxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.crt", authority / "server.key")
    with FaultProxy(remote.address, tls=context) as proxy:
        yield proxy


def test_a_private_authority_is_trusted_when_the_secret_has_it(
    remote: Store, secure: FaultProxy, container: Container, authority: Path
) -> None:
    files = {"m.bin": b"over TLS"}
    remote.put("over-tls", files)
    secret = {name: value for name, value in remote.secret(secure.url).items() if name != "REGISTRY_INSECURE"}
    uri = remote.uri("over-tls", "" if remote.folders else "m.bin", url=secure.url)
    container.give(secret)
    outcome = container.resolve(uri, MODELWRIGHT_FETCH_ATTEMPTS="1")
    assert outcome.reason == "StoreUnreachable", outcome.text
    assert "ca.crt" in outcome.message["message"], outcome.text
    container.give({**secret, "ca.crt": (authority / "ca.crt").read_text()})
    outcome = container.resolve(uri)
    assert outcome.code == 0, outcome.text
    if not remote.pinned:
        assert outcome.message["digest"] == (folder_digest(files) if remote.folders else sha256(files["m.bin"]))
