"""Signs images by digest, attaches statements, verifies both: `make push SIGN_KEY=...`, `make verify-images`.

The format is cosign's (SIGNATURE_SPEC and ATTESTATION_SPEC), read by cosign, Kyverno, policy-controller and
Podman: signatures are an OCI manifest with the tag `sha256-HEX.sig` beside the image, statements one with `.att`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from scripts import provenance
from scripts.registry import MANIFEST, Image, Registry, RegistryError, digest_of, find_login

NEEDED = (provenance.SLSA, provenance.CYCLONEDX)
"""The kinds of statement of each of our images."""
IN_TOTO = "application/vnd.in-toto+json"
_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_ENVELOPE = "application/vnd.dsse.envelope.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"

Json = dict[str, Any]


class BadKey(Exception):
    """The key is unusable; the text says why."""


class NotSigned(Exception):
    """The image has no such signature by that key."""


@dataclass(frozen=True)
class Layer:
    """One signature or statement: its bytes, and its annotations in the manifest."""

    kind: str
    data: bytes
    annotations: Mapping[str, str]

    @property
    def descriptor(self) -> Json:
        size, digest = len(self.data), digest_of(self.data)
        return {"mediaType": self.kind, "size": size, "digest": digest, "annotations": dict(self.annotations)}


def private_key(file: Path, password: str) -> CryptoSigner:
    """Load a signer from a PEM key, which may have a password. Raises BadKey."""
    try:
        key = load_pem_private_key(file.read_bytes(), password.encode() or None)
    except OSError as error:
        raise BadKey(f"SIGN_KEY: {file} can't be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise BadKey(
            f"SIGN_KEY: {file} isn't read as a private key in PEM: {error}. One with a password needs SIGN_PASSWORD. "
            "Keys of `cosign generate-key-pair` have a form of cosign's own: make one with openssl"
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise BadKey(f"SIGN_KEY: {file} is no key on the curve P-256, the one that cosign makes and assumes")
    return CryptoSigner(key, _known(key.public_key()))


def public_key(file: Path) -> SSlibKey:
    """Load a public key on P-256 in PEM. Raises BadKey."""
    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BadKey(f"PUBLIC_KEY: {file} can't be read as a public key in PEM: {error}") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise BadKey(f"PUBLIC_KEY: {file} is no key on the curve P-256")
    return _known(key)


def _known(key: EllipticCurvePublicKey) -> SSlibKey:
    found = SSlibKey.from_crypto(key)
    # cosign's envelopes name no key, and some readers compare names.
    return SSlibKey("", found.keytype, found.scheme, found.keyval)


def sign(registry: Registry, image: Image, signer: CryptoSigner, statements: Sequence[Json]) -> None:
    """Write the signature and the statements beside the image. Other signers' entries stay; ours are replaced."""
    key = signer.public_key
    payload = _canonical(_claim(image))
    signature = sign_blob(signer, payload)
    _attach(
        registry, _tag(image, "sig"), [Layer(_PAYLOAD, payload, {_SIGNATURE: signature})], lambda old: _is_by(key, old)
    )
    if not statements:
        return
    layers = [_enveloped(signer, each) for each in statements]
    kinds = {each["predicateType"] for each in statements}
    _attach(registry, _tag(image, "att"), layers, lambda old: _statement_of(key, old).get("predicateType") in kinds)


def sign_blob(signer: CryptoSigner, data: bytes) -> str:
    """Return the signature of a file's bytes in base64, like `cosign sign-blob`."""
    return base64.b64encode(bytes.fromhex(signer.sign(data).signature)).decode()


def verify(registry: Registry, image: Image, key: SSlibKey, needed: Iterable[str] = NEEDED) -> dict[str, Json]:
    """Return the statements about the image that the key has signed, by type. Raises NotSigned, and RegistryError."""
    if registry.manifest(image.digest) is None:
        raise NotSigned(f"{image}: the registry has no such image")
    signed = [layer for layer in _layers(registry, _tag(image, "sig")) if _is_by(key, layer)]
    if not any(_claims(layer.data, image) for layer in signed):
        raise NotSigned(f"{image}: no signature of this key")
    statements: dict[str, Json] = {}
    for layer in _layers(registry, _tag(image, "att")):
        statement = _statement_of(key, layer)
        if statement.get("_type") == provenance.STATEMENT and _is_about(statement, image):
            statements[statement["predicateType"]] = statement["predicate"]
    missing = [kind for kind in needed if kind not in statements]
    if missing:
        raise NotSigned(f"{image}: no statement of this key of the type {', '.join(missing)}")
    return statements


def _tag(image: Image, what: str) -> str:
    return f"{image.digest.replace(':', '-')}.{what}"


def _claim(image: Image) -> Json:
    of = {
        "identity": {"docker-reference": image.name},
        "image": {"docker-manifest-digest": image.digest},
        "type": _TYPE,
    }
    return {"critical": of, "optional": None}


def _claims(payload: bytes, image: Image) -> bool:
    """Return whether a payload is about the image, by digest like cosign: copies in other registries are equal."""
    try:
        critical = json.loads(payload)["critical"]
        return bool(critical["type"] == _TYPE and critical["image"] == {"docker-manifest-digest": image.digest})
    except (ValueError, KeyError, TypeError):
        return False


def _is_about(statement: Json, image: Image) -> bool:
    digest = {"sha256": image.digest.removeprefix("sha256:")}
    try:
        return any(each["digest"] == digest for each in statement["subject"])
    except (KeyError, TypeError):
        return False


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _enveloped(signer: CryptoSigner, statement: Json) -> Layer:
    envelope = Envelope(_canonical(statement), IN_TOTO, {})
    envelope.sign(signer)
    annotations = {_SIGNATURE: "", "predicateType": statement["predicateType"]}
    return Layer(_ENVELOPE, _canonical(envelope.to_dict()), annotations)


def _is_by(key: SSlibKey, layer: Layer) -> bool:
    """Return whether the key has signed a signature's layer."""
    try:
        raw = base64.b64decode(layer.annotations.get(_SIGNATURE, ""), validate=True)
        key.verify_signature(Signature("", raw.hex()), layer.data)
    except (ValueError, UnverifiedSignatureError, VerificationError):
        return False
    return layer.kind == _PAYLOAD


def _statement_of(key: SSlibKey, layer: Layer) -> Json:
    """Return the statement in a layer, empty unless the key has signed it."""
    try:
        document = json.loads(layer.data)
        for each in document["signatures"]:
            # Only a hint, which other tools may set differently.
            each["keyid"] = ""
        envelope = Envelope.from_dict(document)
        envelope.verify([key], 1)
        statement = json.loads(envelope.payload)
    except (ValueError, KeyError, TypeError, UnverifiedSignatureError, VerificationError):
        return {}
    is_statement = envelope.payload_type == IN_TOTO and isinstance(statement, dict)
    return statement if is_statement and {"predicateType", "predicate", "subject"} <= set(statement) else {}


def _layers(registry: Registry, tag: str) -> list[Layer]:
    """Return the layers of a manifest of signatures, empty when it does not exist."""
    data = registry.manifest(tag)
    if data is None:
        return []
    try:
        listed = json.loads(data)["layers"]
        descriptors = [(each["mediaType"], each["digest"], each.get("annotations") or {}) for each in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{tag}: the registry holds no manifest of signatures there") from error
    return [Layer(kind, registry.blob(digest), annotations) for kind, digest, annotations in descriptors]


def _attach(registry: Registry, tag: str, layers: Sequence[Layer], is_replaced: Callable[[Layer], bool]) -> None:
    kept = [old for old in _layers(registry, tag) if not is_replaced(old)]
    listed = [*kept, *layers]
    for layer in layers:
        registry.put_blob(layer.data)
    config = _canonical(_config([layer.descriptor["digest"] for layer in listed]))
    described = {"mediaType": _CONFIG, "size": len(config), "digest": registry.put_blob(config)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described,
        "layers": [layer.descriptor for layer in listed],
    }
    registry.put_manifest(tag, _canonical(manifest))


def _config(digests: Sequence[str]) -> Json:
    return {
        "architecture": "",
        "os": "",
        "created": "0001-01-01T00:00:00Z",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(digests)},
    }


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Verify images by a public key. Exit status 1: an image isn't signed like ours; 2: unknown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--key", type=Path, required=True, help="public key, PEM")
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks no TLS")
    parser.add_argument("images", nargs="+", help="registry/name@sha256:...")
    options = parser.parse_args(arguments)
    try:
        key, images = public_key(options.key), [Image.parse(reference) for reference in options.images]
        for image in images:
            registry = Registry(image, find_login(image, environment), plain_http=options.plain_http)
            print(describe(image, verify(registry, image, key)))
    except NotSigned as error:
        print(f"not verified: {error}", file=sys.stderr)
        return 1
    except (BadKey, RegistryError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def describe(image: Image, statements: Mapping[str, Json]) -> str:
    """Describe the source of a verified image, and which of ours it is: the signature covers that, unlike a name."""
    definition = statements[provenance.SLSA]["buildDefinition"]
    of = definition["externalParameters"]
    commit = next(
        each["digest"]["gitCommit"] for each in definition["resolvedDependencies"] if each["name"] == "source"
    )
    dirty = " with changes that were not committed" if definition["internalParameters"]["dirty"] else ""
    builder = statements[provenance.SLSA]["runDetails"]["builder"]["id"]
    return f"{image}: signed as {of['image']} {of['tag']}; commit {commit}{dirty}, built by {builder}"


if __name__ == "__main__":
    sys.exit(main())
