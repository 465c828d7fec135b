"""Images to sign, and a registry in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner

from scripts import provenance, registry, signing
from scripts.registry import Image, Registry, digest_of

CONTENT = b'{"schemaVersion":2,"layers":[]}'


OPERATOR = Image("registry.example.com", "modelwright/operator", digest_of(CONTENT))


BUILD = provenance.Build(
    "operator",
    "0.1.0",
    provenance.Source("c0ffee" * 6 + "c0ff", False, "https://git.example.com/modelwright"),
    "docker.io/library/python@sha256:" + "ab" * 32,
    "sha256:" + "ab" * 32,
    {"requirements/operator.txt": "cd" * 32},
    "https://ci.example.com/runs/7",
    datetime(2026, 12, 1, 1, tzinfo=UTC),
    datetime(2026, 12, 1, 2, tzinfo=UTC),
)


class Memory(Registry):
    """A repository that keeps what it is given."""

    def __init__(self, *contents: bytes) -> None:
        self.manifests = {digest_of(each): each for each in contents}
        self.blobs: dict[str, bytes] = {}

    def manifest(self, reference: str) -> bytes | None:
        found = self.manifests.get(reference)
        return None if found is None else registry._checked_content(found, reference)

    def blob(self, digest: str) -> bytes:
        return registry._checked_content(self.blobs[digest], digest)

    def put_blob(self, data: bytes) -> str:
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def put_manifest(self, reference: str, data: bytes, kind: str = registry.MANIFEST) -> None:
        self.manifests[reference] = data

    def layers(self, what: str, image: Image = OPERATOR) -> list[dict]:
        return json.loads(self.manifests[signing._tag(image, what)])["layers"]

    def put_layers(self, what: str, layers: list[dict], image: Image = OPERATOR) -> None:
        tag = signing._tag(image, what)
        self.manifests[tag] = json.dumps({**json.loads(self.manifests[tag]), "layers": layers}).encode()

    def change(self, what: str, of: Callable[[bytes], bytes], place: int = 0) -> None:
        """Another content for one signature or statement, with all else as it was."""
        layers = self.layers(what)
        data = of(self.blobs[layers[place]["digest"]])
        layers[place] |= {"digest": self.put_blob(data), "size": len(data)}
        self.put_layers(what, layers)


def new_signer() -> CryptoSigner:
    key = ec.generate_private_key(ec.SECP256R1())
    return CryptoSigner(key, signing._known(key.public_key()))


def pem(key: object, password: bytes = b"") -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)  # type: ignore[attr-defined]
