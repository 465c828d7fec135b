"""Signatures of model_signing for the tests: key pairs, and what they sign."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import hashing, signing


class Signer:
    """A key pair, and signatures by it."""

    def __init__(self, folder: Path, curve: ec.EllipticCurve | None = None) -> None:
        self._folder = folder
        folder.mkdir()
        key = ec.generate_private_key(curve or ec.SECP256R1())
        self.private = folder / "key"
        self.private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.pem = pem(key.public_key())

    def _sign(self, place: Path, config: hashing.Config | None) -> bytes:
        target = self._folder / "signature"
        (
            signing.Config()
            .use_elliptic_key_signer(private_key=self.private)
            .set_hashing_config(config or hashing.Config())
            .sign(place, target)
        )
        return target.read_bytes()

    def folder(self, files: Mapping[str, bytes], config: hashing.Config | None = None) -> bytes:
        """The signature of a folder."""
        place = Path(self._folder / "artifact")
        for path, body in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(body)
        try:
            return self._sign(place, config)
        finally:
            for path in files:
                (place / path).unlink()

    def file(self, name: str, body: bytes) -> bytes:
        """The signature of a single file."""
        (self._folder / name).write_bytes(body)
        return self._sign(self._folder / name, None)


def pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()
