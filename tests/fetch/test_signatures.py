"""Signatures made by model_signing, read from each store: exactly the signed files are verified."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import hashing

from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.signature import judge_signature
from tests.fetch.harness import Container, Outcome, folder_digest, sha256
from tests.fetch.stores import Store
from tests.lib.signing import Signer, pem
from tests.servers.http_faults import FaultServer, Page

pytestmark = pytest.mark.fetch

FILES = {"model.bin": b"weights" * 50_000, "config/settings.json": b"{}", "empty": b""}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("ours") / "keys")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("theirs") / "keys")


def _verify(container: Container, uri: str, *signers: Signer, digest: str = "") -> Outcome:
    keys = [part for i, signer in enumerate(signers) for part in ("--trusted-key", f"key-{i}={signer.pem}")]
    return container.run("resolve", "--uri", uri, *(["--digest", digest] if digest else []), *keys)


def _finding(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.text
    message = outcome.message["signature"]
    assert message["message"]
    assert ("key" in message) == (message["reason"] == "SignatureVerified")
    return str(message["reason"])


@pytest.fixture
def claim(container: Container) -> Callable[[Mapping[str, bytes]], str]:
    """Puts files on a claim; the uri of their folder."""
    root = container.folder / "source"
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(root)

    def put(files: Mapping[str, bytes]) -> str:
        for path, body in files.items():
            (root / "claim" / "digits" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "claim" / "digits" / path).write_bytes(body)
        return "pvc://claim/digits"

    return put


def test_a_signed_folder_is_verified_in_every_store(store: Store, container: Container, ours: Signer) -> None:
    container.give(store.secret(store.url))
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
    if store.folders:
        files = {**FILES, "model.sig": ours.folder(FILES)}
        store.put("signed", files)
        uri = store.uri("signed")
    else:
        files = {"model.bin": FILES["model.bin"], "model.bin.sig": ours.file("model.bin", FILES["model.bin"])}
        store.put("signed", files)
        uri = store.uri("signed", "model.bin")
    outcome = _verify(container, uri, ours)
    assert _finding(outcome) == "SignatureVerified", outcome.text
    assert outcome.message["signature"]["key"] == "key-0"
    expected = sha256(FILES["model.bin"]) if not store.folders else folder_digest(files)
    # of a commit its files are pinned: what it holds is the Hub's word alone
    assert outcome.message["digest"] == (store.digest(files, uri) if store.scheme == "oci" else expected)
    # ... and what is pinned so is what a serving pod asks for
    assert container.get(uri, outcome.message["digest"]).code == 0


def test_a_changed_file_is_found_out_in_every_store(store: Store, container: Container, ours: Signer) -> None:
    container.give(store.secret(store.url))
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
    body = b"W" + FILES["model.bin"][1:]
    if store.folders:
        store.put("changed", {**FILES, "model.bin": body, "model.sig": ours.folder(FILES)})
        uri = store.uri("changed")
    else:
        store.put("changed", {"model.bin": body, "model.bin.sig": ours.file("model.bin", FILES["model.bin"])})
        uri = store.uri("changed", "model.bin")
    outcome = _verify(container, uri, ours)
    assert _finding(outcome) == "SignatureInvalid"
    assert "is not what key key-0 has signed" in outcome.message["signature"]["message"]


def test_a_single_file_is_verified_by_the_signature_beside_it(store: Store, container: Container, ours: Signer) -> None:
    if store.scheme in ("hf", "oci"):
        pytest.skip("an artifact of a Hub or registry is always a folder: no file lies beside it")
    container.give(store.secret(store.url))
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
    body = FILES["model.bin"]
    store.put("alone", {"model.bin": body})
    uri = store.uri("alone", "model.bin")
    assert _finding(_verify(container, uri, ours)) == "SignatureMissing"
    store.put("alone", {"model.bin": body, "model.bin.sig": ours.file("model.bin", body)})
    assert _finding(_verify(container, uri, ours)) == "SignatureVerified"


CASES: dict[str, tuple[Callable[[dict[str, bytes]], object], str, str]] = {
    "a file that was added": (lambda files: files.update({"extra.py": b"x"}), "SignatureInvalid", "extra.py"),
    "a file that is gone": (lambda files: files.pop("empty"), "SignatureInvalid", "empty"),
    "a file that was renamed": (
        lambda files: files.update({"void": files.pop("empty")}),
        "SignatureInvalid",
        "void",
    ),
    "a file added where git keeps its own": (
        lambda files: files.update({".git/hooks.py": b"x"}),
        "SignatureInvalid",
        "hooks.py",
    ),
    "no signature": (lambda files: files.pop("model.sig"), "SignatureMissing", "holds no model.sig"),
    "an empty signature": (lambda files: files.update({"model.sig": b""}), "SignatureInvalid", "can't be read"),
    "a signature that is no bundle": (
        lambda files: files.update({"model.sig": b'{"dsseEnvelope": []}'}),
        "SignatureInvalid",
        "can't be read",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_content_other_than_the_signed_is_found(
    name: str, claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer
) -> None:
    change, finding, says = CASES[name]
    strict = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    files = {**FILES, "model.sig": ours.folder(FILES, strict)}
    change(files)
    outcome = _verify(container, claim(files), ours)
    assert _finding(outcome) == finding, outcome.text
    assert says in outcome.message["signature"]["message"]
    assert outcome.message["digest"] == folder_digest(files)


def test_a_payload_that_was_rewritten_is_no_longer_signed(
    claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer, theirs: Signer
) -> None:
    bundle = json.loads(ours.folder(FILES))
    forged = {**FILES, "model.bin": b"other weights"}
    bundle["dsseEnvelope"]["payload"] = json.loads(theirs.folder(forged))["dsseEnvelope"]["payload"]
    outcome = _verify(container, claim({**forged, "model.sig": json.dumps(bundle).encode()}), ours)
    assert _finding(outcome) == "SignatureInvalid"


def test_only_a_key_that_is_trusted_counts(
    claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer, theirs: Signer
) -> None:
    uri = claim({**FILES, "model.sig": ours.folder(FILES)})
    outcome = _verify(container, uri, theirs)
    assert _finding(outcome) == "SignatureInvalid"
    assert "None of the Model's keys" in outcome.message["signature"]["message"]
    outcome = _verify(container, uri, theirs, ours)
    assert _finding(outcome) == "SignatureVerified"
    assert outcome.message["signature"]["key"] == "key-1"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_keys_on_three_curves_are_understood(
    curve: ec.EllipticCurve, claim: Callable[[Mapping[str, bytes]], str], container: Container, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / "signer", curve)
    uri = claim({**FILES, "model.sig": signer.folder(FILES)})
    assert _finding(_verify(container, uri, signer)) == "SignatureVerified"


def test_keys_of_another_kind_are_named(
    claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer
) -> None:
    keys = {"rsa": pem(rsa.generate_private_key(65537, 2048).public_key()), "koblitz": "", "torn": "-----BEGIN"}
    keys["koblitz"] = pem(ec.generate_private_key(ec.SECP256K1()).public_key())
    uri = claim({**FILES, "model.sig": ours.folder(FILES)})
    arguments = [part for name, key in keys.items() for part in ("--trusted-key", f"{name}={key}")]
    outcome = container.run("resolve", "--uri", uri, *arguments)
    assert _finding(outcome) == "SignatureInvalid"
    for name in keys:
        assert f"{name}: is no public key on P-256" in outcome.message["signature"]["message"]


def test_files_left_out_by_the_signer_are_reported(
    claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer
) -> None:
    config = hashing.Config().set_ignored_paths(paths=["README.md"])
    bundle = ours.folder(FILES, config)
    uri = claim({**FILES, "README.md": b"changed", ".gitattributes": b"", "model.sig": bundle})
    outcome = _verify(container, uri, ours)
    assert _finding(outcome) == "SignatureVerified"
    assert outcome.message["signature"]["message"].endswith("which leaves out .gitattributes, README.md")


def test_a_signature_that_leaves_out_every_file_is_none(ours: Signer) -> None:
    bundle = ours.folder({}, hashing.Config().set_ignored_paths(paths=["."]))
    entry = FileEntry("model.bin", 1, hashlib.sha256(b"x").hexdigest())
    assert judge_signature(bundle, [entry], {"key": ours.pem}, single=False).finding == "SignatureInvalid"


@pytest.mark.parametrize(
    "config",
    [
        hashing.Config().use_shard_serialization(),
        hashing.Config().use_file_serialization(hashing_algorithm="blake2"),
    ],
    ids=["shards", "blake2"],
)
def test_signatures_over_other_hashes_are_named(
    config: hashing.Config, claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer
) -> None:
    outcome = _verify(container, claim({**FILES, "model.sig": ours.folder(FILES, config)}), ours)
    assert _finding(outcome) == "SignatureInvalid"
    assert "only files and sha256" in outcome.message["signature"]["message"]


def test_an_archive_is_signed_as_it_is_packed(
    claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer
) -> None:
    packed = b"no need to be one"
    uri = claim({"model.tar.gz": packed, "model.tar.gz.sig": ours.file("model.tar.gz", packed)})
    outcome = _verify(container, f"{uri}/model.tar.gz", ours)
    assert _finding(outcome) == "SignatureVerified"
    assert outcome.message["digest"] == sha256(packed)


def test_a_digest_that_is_pinned_must_be_found(
    claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer
) -> None:
    files = {**FILES, "model.sig": ours.folder(FILES)}
    uri = claim(files)
    assert _finding(_verify(container, uri, ours, digest=folder_digest(files))) == "SignatureVerified"
    outcome = _verify(container, uri, ours, digest=folder_digest(FILES))
    assert (outcome.code, outcome.reason) == (1, "DigestMismatch")


def test_a_store_that_fails_is_no_missing_signature(container: Container, ours: Signer) -> None:
    with FaultServer() as server:
        server.pages["/model.bin"] = Page(b"x" * 1000)
        server.pages["/model.bin.sig"] = Page(b"", status=503)
        outcome = _verify(container, f"{server.url}/model.bin", ours)
        assert (outcome.code, outcome.reason) == (1, "StoreUnreachable")


def test_the_signature_is_asked_for_with_the_query_of_the_file(container: Container, ours: Signer) -> None:
    with FaultServer() as server:
        server.pages["/model.bin"] = Page(b"weights")
        server.pages["/model.bin.sig"] = Page(ours.file("model.bin", b"weights"))
        assert _finding(_verify(container, f"{server.url}/model.bin?version=12345678", ours)) == "SignatureVerified"


def test_a_folder_signed_on_the_command_line_is_verified(
    claim: Callable[[Mapping[str, bytes]], str], container: Container, ours: Signer
) -> None:
    uri = claim(FILES)
    folder = container.folder / "source" / "claim" / "digits"
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(folder), "--private_key", str(ours.private)]
    subprocess.run([*command, "--signature", str(folder / "model.sig")], check=True, capture_output=True)
    assert _finding(_verify(container, uri, ours)) == "SignatureVerified"


def test_a_fetch_without_keys_never_imports_the_library(container: Container) -> None:
    code = "import sys, modelwright.agents.fetcher.command; sys.exit('model_signing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "operator"}, check=False).returncode == 0
