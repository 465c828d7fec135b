"""Signatures of our images in a real registry, with a login; openssl, and cosign where it is, read them too."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import provenance, signing
from scripts.registry import Image, Login, Registry, RegistryError
from tests.lib.image_signatures import PASSWORD, openssl, push
from tests.lib.image_signing import BUILD

pytestmark = pytest.mark.fetch
COSIGN = os.environ.get("COSIGN") or shutil.which("cosign") or ""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key in PEM, as openssl makes it; the public one lies beside it."""
    openssl(tmp_path, "ecparam -name prime256v1 -genkey -noout -out release.key")
    openssl(tmp_path, "ec -in release.key -pubout -out release.pub")
    return tmp_path / "release.key"


def sign(registry: Registry, image: Image, key: Path) -> None:
    statements = [
        provenance.statement(image, provenance.SLSA, provenance.provenance(BUILD)),
        provenance.statement(image, provenance.CYCLONEDX, {"bomFormat": "CycloneDX"}),
    ]
    signing.sign(registry, image, signing.private_key(key, ""), statements)


def verify_images(image: Image, key: Path, folder: Path) -> int:
    """`make verify-images`, with a login as Docker keeps it."""
    auth = Login("reader", PASSWORD).basic.removeprefix("Basic ")
    (folder / "config.json").write_text(json.dumps({"auths": {image.registry: {"auth": auth}}}))
    arguments = ["--plain-http", "--key", str(key.with_suffix(".pub")), str(image)]
    return signing.main(arguments, {"DOCKER_CONFIG": str(folder), "XDG_RUNTIME_DIR": str(folder)})


def test_signed_image_verifies_with_the_public_key(
    host: str, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, image = push(host, "team/signed")
    assert verify_images(image, key, tmp_path) == 1
    assert "no signature of this key" in capsys.readouterr().err
    for _ in range(2):
        sign(registry, image, key)
        assert verify_images(image, key, tmp_path) == 0
    assert f"commit {BUILD.source.commit}" in capsys.readouterr().out


def test_image_after_tampering_is_refused(host: str, key: Path, tmp_path: Path) -> None:
    """Somebody who may push, but has no key, moves signatures and statements to an image of theirs."""
    registry, image = push(host, "team/tampered")
    sign(registry, image, key)
    _, theirs = push(host, "team/tampered", b"theirs")
    for what in ("sig", "att"):
        registry.put_manifest(signing._tag(theirs, what), registry.manifest(signing._tag(image, what)) or b"")
    assert verify_images(theirs, key, tmp_path) == 1
    # Envelopes with another signature.
    layers = signing._layers(registry, signing._tag(image, "att"))
    changed = [replace(each, data=each.data.replace(b'"sig":"M', b'"sig":"N')) for each in layers]
    assert changed != layers
    signing._attach(registry, signing._tag(image, "att"), changed, lambda _: True)
    assert verify_images(image, key, tmp_path) == 1


def test_openssl_verifies_signature_and_statements(host: str, key: Path, tmp_path: Path) -> None:
    """With the public key alone, over what the specs say is signed."""
    registry, image = push(host, "team/openssl")
    sign(registry, image, key)
    (signature,) = signing._layers(registry, signing._tag(image, "sig"))
    signed = [(signature.annotations["dev.cosignproject.cosign/signature"], signature.data)]
    for each in signing._layers(registry, signing._tag(image, "att")):
        envelope = json.loads(each.data)
        kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
        text = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        signed.append((envelope["signatures"][0]["sig"], text))
    assert len(signed) == 3
    for encoded, text in signed:
        (tmp_path / "text").write_bytes(text)
        (tmp_path / "signature").write_bytes(base64.b64decode(encoded))
        openssl(tmp_path, "dgst -sha256 -verify release.pub -signature signature text")


def test_without_the_login_it_is_an_error_and_not_a_verdict(host: str, key: Path, tmp_path: Path) -> None:
    registry, image = push(host, "team/closed")
    sign(registry, image, key)
    with pytest.raises(RegistryError, match="401"):
        Registry(image, Login("reader", "wrong"), plain_http=True).manifest(image.digest)
    arguments = ["--plain-http", "--key", str(key.with_suffix(".pub")), str(image)]
    assert signing.main(arguments, {"DOCKER_CONFIG": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}) == 2


@pytest.mark.skipif(not COSIGN, reason="no cosign: name one, COSIGN=...")
def test_cosign_verifies_our_signatures(host: str, key: Path, tmp_path: Path) -> None:
    registry, image = push(host, "team/cosign")
    sign(registry, image, key)
    _, unsigned = push(host, "team/cosign", b"unsigned")
    for what in (["verify"], *(["verify-attestation", f"--type={kind}"] for kind in ("slsaprovenance1", "cyclonedx"))):
        assert cosign(*what, image=image, key=key, folder=tmp_path).returncode == 0
        assert cosign(*what, image=unsigned, key=key, folder=tmp_path).returncode != 0


def cosign(*what: str, image: Image, key: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """As docs/how-to/install.md has it."""
    login = Login("reader", PASSWORD).basic.removeprefix("Basic ")
    (folder / "config.json").write_text(json.dumps({"auths": {image.registry: {"auth": login}}}))
    command = [COSIGN, *what, f"--key={key.with_suffix('.pub')}", "--insecure-ignore-tlog", "--allow-http-registry"]
    environment = {**os.environ, "DOCKER_CONFIG": str(folder), "HOME": str(folder)}
    done = subprocess.run([*command, str(image)], capture_output=True, text=True, check=False, env=environment)
    print(done.stdout[-2000:], done.stderr[-2000:])
    return done
