"""A release in a real registry, with a login: indexes, charts and signatures as users get them.

`make test-all` makes a whole one, by the command itself."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster import parts
from scripts import provenance, publish, release, signing
from scripts.images import NAMES, Signing
from scripts.registry import Image, Login, Registry
from tests.lib.image_signatures import PASSWORD, openssl, push
from tests.lib.image_signing import BUILD

pytestmark = pytest.mark.fetch
ROOT = Path(__file__).resolve().parents[2]
BILL = {"bomFormat": "CycloneDX", "components": []}


@pytest.fixture
def login(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """As Buildah keeps it."""
    known = Login("reader", PASSWORD)
    entry = {"auth": known.basic.removeprefix("Basic ")}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {host: entry}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    return known


@pytest.fixture
def key(tmp_path: Path) -> Path:
    openssl(tmp_path, "ecparam -name prime256v1 -genkey -noout -out release.key")
    openssl(tmp_path, "ec -in release.key -pubout -out release.pub")
    return tmp_path / "release.key"


@pytest.fixture
def made(host: str, login: Login, key: Path, tmp_path: Path) -> release.Release:
    """Small images behind an index, signed, and the charts of this tree that name them."""
    sealed = Signing(signing.private_key(key, ""), provenance.Source("c0ffee", False), "me")
    result = release.Release(
        release.plugin.project()["version"],
        f"{host}/team",
        "https://example.com",
        sealed,
        ROOT,
        plain_http=True,
        folder=tmp_path / "dist",
    )
    result.out.mkdir(parents=True)
    for name in ("operator", "fetch", "mlserver"):
        digests = {}
        for architecture in release.ARCHITECTURES:
            registry, image = push(host, f"team/{name}", f"{name} {architecture}".encode(), architecture)
            digests[architecture] = image.digest
        index = publish.put_index(registry, result.version, digests)
        result.state.images[name] = {**digests, release.INDEX: index}
        predicates = dict.fromkeys(digests, provenance.provenance(BUILD))
        release.sign_index(result, name, predicates, dict.fromkeys(digests, BILL))
    return result


def test_a_release_is_read_back_by_its_tags_with_the_public_key(
    made: release.Release, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.push_charts(made)
    release.verify(made)
    output = capsys.readouterr().out
    assert f"{made.reference('operator')}: amd64, arm64, signed" in output
    assert f"oci://{made.place}/charts/modelwright@{made.state.charts['modelwright']}: signed" in output
    arguments = ["--plain-http", "--key", str(key.with_suffix(".pub")), made.reference("operator")]
    assert signing.main(arguments) == 0
    rendered = subprocess.run(
        [
            parts.binary_path("helm"),
            "template",
            "x",
            "--kube-version=1.34.4",
            made.out / f"modelwright-{made.version}.tgz",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f'image: "{made.reference("operator")}"' in rendered
    assert made.reference("fetch") in rendered
    assert made.reference("mlserver") in rendered


def test_difference_from_the_release_is_found(made: release.Release) -> None:
    registry, index = made.registry("operator", made.state.images["operator"][release.INDEX])
    with pytest.raises(publish.BadRelease, match="its images are"):
        publish.verify_index(registry, index, made.version, {"amd64": index.digest})
    publish.put_index(registry, made.version, {"amd64": made.state.images["operator"]["amd64"]})
    with pytest.raises(publish.BadRelease, match=f"and not {index.digest}"):
        release.verify(made)
    unsigned = replace(index, digest=push(index.registry, "team/operator", b"theirs")[1].digest)
    with pytest.raises(signing.NotSigned):
        signing.verify(registry, unsigned, made.signing.signer.public_key)


@pytest.mark.skipif(not os.environ.get("MODELWRIGHT_FULL_MATRIX"), reason="builds ten images: make test-all")
@pytest.mark.timeout(3600)
def test_make_release_makes_a_whole_one(host: str, login: Login, key: Path, tmp_path: Path) -> None:
    """In a clone of this tree's commit, since a release commits and tags."""
    tree = tmp_path / "tree"
    identity = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **identity, "SIGN_KEY": str(key)}

    def run(*command: str, folder: Path = tree) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        print(done.stdout[-6000:], done.stderr[-6000:])
        assert done.returncode == 0, command
        return done.stdout

    run("git", "clone", "--quiet", "--shared", str(ROOT), str(tree), folder=tmp_path)
    changes = tree / "CHANGELOG.md"
    changes.write_text(changes.read_text().replace("## [Unreleased]\n", "## [Unreleased]\n\n- A test.\n", 1))
    run("git", "commit", "--quiet", "--all", "--message", "Add an entry")
    requests = ["VERSION=9.9.9", f"REGISTRY={host}/whole", "URL=https://example.com/9.9.9", "PLAIN_HTTP=1"]
    run("make", "release", *requests)

    state = json.loads((tree / "dist/9.9.9/release.json").read_text())
    assert state["done"] == [step.name for step in release.STEPS]
    assert set(state["images"]) == set(NAMES)
    assert run("git", "describe", "--exact-match").strip() == "v9.9.9"
    assert run("git", "status", "--porcelain") == ""
    files = {path.name for path in (tree / "dist/9.9.9").iterdir()}
    assert {f"{name}-{each}.cdx.json" for name in NAMES for each in release.ARCHITECTURES} <= files
    assert {
        "RELEASE_NOTES.md",
        "SHA256SUMS.sig",
        "modelwright-9.9.9-py3-none-any.whl",
        "modelwright-9.9.9.tgz",
    } <= files
    run("sha256sum", "--check", "--quiet", "SHA256SUMS", folder=tree / "dist/9.9.9")
    registry = Registry(Image(host, "whole/operator", ""), login, plain_http=True)
    assert registry.manifest("9.9.9") is not None
    # Again, it has nothing left to do.
    assert run("make", "release", *requests).count("done before") == len(release.STEPS)
