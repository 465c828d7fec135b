"""`make release`: what it refuses, what it writes, and that an interrupted one goes on. The registry is in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from scripts import changelog, provenance, publish, release, sbom
from scripts.images import Signing
from scripts.registry import Image, digest_of
from tests.lib.image_signing import BUILD, Memory, new_signer, pem

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- A field.

## [0.1.0] - 2026-10-01

### Added

- Everything.
"""
DAY = date(2026, 12, 1)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project in a commit."""
    for key in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(key, "a@example.com")
    root = tmp_path / "tree"
    (root / "charts" / "modelwright").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\ndependencies = ["other==0.1.0"]\n')
    (root / "charts/modelwright/Chart.yaml").write_text("name: modelwright\nversion: 0.1.0\nappVersion: 0.1.0\n")
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    (root / ".gitignore").write_text("dist/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


@pytest.fixture
def registry() -> Memory:
    return Memory()


@pytest.fixture
def planned(tree: Path, registry: Memory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., release.Release]:
    monkeypatch.setattr(release, "Registry", lambda *_, **__: registry)

    def make(version: str = "0.2.0", **more: Any) -> release.Release:
        return release.Release(
            version,
            "registry.example.com/modelwright",
            "https://example.com/0.2.0",
            Signing(new_signer(), provenance.Source("c0ffee", False), "me"),
            root=tree,
            day=DAY,
            **more,
        )

    return make


REFUSED: dict[str, tuple[str, Callable[[Path, Memory], object], str]] = {
    "a version that is none": ("2.0", lambda *_: None, "isn't a version"),
    "a version with a v": ("v2.0.0", lambda *_: None, "isn't a version"),
    "a version with build metadata": ("2.0.0+1", lambda *_: None, "isn't a version"),
    "a version with leading zeros": ("2.01.0", lambda *_: None, "isn't a version"),
    "a file that is changed": ("0.2.0", lambda tree, _: (tree / "pyproject.toml").write_text("x"), "no commit"),
    "a file that is new": ("0.2.0", lambda tree, _: (tree / "new").write_text("x"), "no commit"),
    "a version of the changelog": ("0.1.0", lambda *_: None, "has a section of 0.1.0 already"),
    "a version that has a tag": ("0.2.0", lambda tree, _: git(tree, "tag", "v0.2.0"), "a tag v0.2.0 already"),
    "a version in the registry": (
        "0.2.0",
        lambda _, registry: registry.put_manifest("0.2.0", b"{}"),
        "is in the registry already",
    ),
    "a changelog without Unreleased": (
        "0.2.0",
        lambda tree, _: commit(tree, CHANGELOG.replace("[Unreleased]", "[0.0.9]")),
        "no section",
    ),
    "nothing that is new": (
        "0.2.0",
        lambda tree, _: commit(tree, CHANGELOG.replace("- A field.", "")),
        "nothing to release",
    ),
}


def commit(tree: Path, text: str) -> None:
    (tree / "CHANGELOG.md").write_text(text)
    git(tree, "commit", "-qam", "changelog")


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_anything_is_done(
    what: str, tree: Path, registry: Memory, planned: Callable[..., release.Release]
) -> None:
    version, change, text = REFUSED[what]
    change(tree, registry)
    before = git(tree, "rev-parse", "HEAD"), git(tree, "status", "--porcelain")
    with pytest.raises((release.Refused, changelog.NoSection), match=text):
        release.play(planned(version), say=lambda _: None)
    assert (git(tree, "rev-parse", "HEAD"), git(tree, "status", "--porcelain")) == before


@pytest.mark.parametrize("version", ["0.2.0", "1.0.0-rc.1", "10.20.30-alpha-1.0"])
def test_a_semantic_version_is_taken(version: str, planned: Callable[..., release.Release]) -> None:
    release.check(planned(version))


def test_one_tagged_commit_writes_the_version_everywhere(tree: Path, planned: Callable[..., release.Release]) -> None:
    release.write_version(planned())
    assert (
        "## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n\n- A field.\n" in (tree / "CHANGELOG.md").read_text()
    )
    assert (tree / "pyproject.toml").read_text() == '[project]\nversion = "0.2.0"\ndependencies = ["other==0.1.0"]\n'
    chart = yaml.safe_load((tree / "charts/modelwright/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == ("0.2.0", "0.2.0")
    assert git(tree, "status", "--porcelain") == ""
    assert git(tree, "rev-parse", "v0.2.0^{commit}") == git(tree, "rev-parse", "HEAD")
    assert git(tree, "log", "-1", "--format=%s") == "Release 0.2.0"


def test_every_file_that_contains_the_version_is_changed(tmp_path: Path) -> None:
    """But those where the version is an example or belongs to something else."""
    listed = git(
        ROOT, "ls-files", "pyproject.toml", "operator/modelwright/__init__.py", "charts", "manifests", "docs/how-to"
    ).splitlines()
    for name in listed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    old = release.plugin.project()["version"]
    changed = {str(file.relative_to(tmp_path)) for file in release.set_version(tmp_path, "9.8.7")}
    assert changed >= {"pyproject.toml", "charts/modelwright/Chart.yaml", "charts/modelwright-crds/Chart.yaml"}
    assert "operator/modelwright/__init__.py" in changed
    assert changed >= {"manifests/install/base/deployment.yaml", "docs/how-to/install.md", "docs/how-to/kubectl.md"}
    assert not [name for name in listed if f"{old}" in (tmp_path / name).read_text(errors="ignore")]
    assert release.set_version(tmp_path, "9.8.7") == []


def test_a_release_that_was_interrupted_goes_on_where_it_was(planned: Callable[..., release.Release]) -> None:
    done: list[str] = []

    def fail(_: release.Release) -> None:
        done.append("second")
        if done.count("second") == 1:
            raise release.Refused("the registry is away")

    steps = (
        release.STEPS[0],
        release.Step("first", "", lambda _: done.append("first")),
        release.Step("second", "", fail),
        release.Step("third", "", lambda _: done.append("third")),
    )
    with pytest.raises(release.Refused, match="away"):
        release.play(planned(), steps, say=lambda _: None)
    release.play(planned(), steps, say=lambda _: None)
    assert done == ["first", "second", "second", "third"]


def test_a_record_of_another_commit_is_not_gone_on_with(tree: Path, planned: Callable[..., release.Release]) -> None:
    release.play(planned(), release.STEPS[:1], say=lambda _: None)
    commit(tree, CHANGELOG + "\n")
    with pytest.raises(release.Refused, match=r"a tag v0\.2\.0 already"):
        release.play(planned(), release.STEPS[:1], say=lambda _: None)


def test_people_get_notes_and_signed_checksums(tree: Path, planned: Callable[..., release.Release]) -> None:
    made = planned()
    release.write_version(made)
    made.out.mkdir(parents=True)
    (made.out / "modelwright.whl").write_bytes(b"wheel")
    made.keep(made.out / "modelwright.whl")
    made.state.images["operator"] = {release.INDEX: OPERATOR.digest}
    made.state.charts["modelwright"] = OPERATOR.digest
    release.write_notes(made)
    release.sign_files(made)
    digest = hashlib.sha256(b"wheel").hexdigest()
    notes = (made.out / "RELEASE_NOTES.md").read_text()
    assert notes.startswith("# Modelwright 0.2.0\n\n### Added\n\n- A field.\n\n## Installing\n")
    assert f"| `registry.example.com/modelwright/operator@{OPERATOR.digest}` | amd64, arm64 |" in notes
    assert "helm install modelwright oci://registry.example.com/modelwright/charts/modelwright --version 0.2.0" in notes
    assert "Everything" not in notes
    assert f"| [modelwright.whl](https://example.com/0.2.0/modelwright.whl) | `{digest}` |" in notes
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=made.out, check=True)
    signature = base64.b64decode((made.out / "SHA256SUMS.sig").read_text())
    key = made.signing.signer._private_key.public_key()  # type: ignore[attr-defined]
    key.verify(signature, (made.out / "SHA256SUMS").read_bytes(), ec.ECDSA(SHA256()))


def test_the_wheel_of_a_commit_is_the_same_each_time(tree: Path, planned: Callable[..., release.Release]) -> None:
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    (tree / "operator/modelwright").mkdir(parents=True)
    shutil.copy(ROOT / "operator/modelwright/__init__.py", tree / "operator/modelwright")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "sources")
    digests = []
    for _ in range(2):
        made = planned()
        release.build_wheel(made)
        digests.append(made.state.files)
        (tree / "operator/modelwright/__init__.py").touch()
    assert digests[0] == digests[1]
    assert list(digests[0]) == [f"modelwright-{release.plugin.project()['version']}-py3-none-any.whl"]


MANIFESTS = {
    architecture: f'{{"mediaType": "application/vnd.oci.image.manifest.v1+json", "n": "{architecture}"}}'.encode()
    for architecture in release.ARCHITECTURES
}
OPERATOR = Image("registry.example.com", "modelwright/operator", "sha256:" + "ab" * 32)


def test_an_index_names_the_image_of_each_architecture() -> None:
    place = Memory(*MANIFESTS.values())
    digests = {architecture: digest_of(data) for architecture, data in MANIFESTS.items()}
    digest = publish.put_index(place, "0.2.0", digests)
    assert digest == digest_of(place.manifests["0.2.0"])
    index = json.loads(place.manifests["0.2.0"])
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [(each["platform"], each["digest"], each["size"]) for each in index["manifests"]] == [
        ({"architecture": architecture, "os": "linux"}, digests[architecture], len(MANIFESTS[architecture]))
        for architecture in ("amd64", "arm64")
    ]
    with pytest.raises(publish.BadRelease, match="no manifest"):
        publish.put_index(Memory(), "0.2.0", digests)


def built(architecture: str) -> tuple[bytes, bytes]:
    """A manifest and its config."""
    config = json.dumps({"architecture": architecture, "n": 1}).encode()
    return json.dumps({"config": {"digest": digest_of(config)}}).encode(), config


@pytest.mark.parametrize(
    ("what", "images", "tag", "text"),
    [
        ("all is there", ("amd64", "arm64"), "0.2.0", ""),
        ("an image is for another architecture", ("amd64", "amd64"), "0.2.0", "for arm64 says that it is for amd64"),
        ("the tag is not there", ("amd64", "arm64"), "0.3.0", "not there"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_an_index_is_read_back(what: str, images: tuple[str, str], tag: str, text: str) -> None:
    place, digests = Memory(), {}
    for architecture, says in zip(release.ARCHITECTURES, images, strict=True):
        manifest, config = built(says)
        place.put_blob(config)
        place.put_manifest(digest_of(manifest), manifest)
        digests[architecture] = digest_of(manifest)
    digest = publish.put_index(place, "0.2.0", digests)
    image = Image(OPERATOR.registry, OPERATOR.repository, digest)
    if not text:
        publish.verify_index(place, image, tag, digests)
        return
    with pytest.raises(publish.BadRelease, match=text):
        publish.verify_index(place, image, tag, digests)


def test_chart_defaults_are_the_released_images() -> None:
    references = {
        name: f"registry.example.com/modelwright/{name}@sha256:{name}" for name in ("operator", "fetch", "mlserver")
    }
    before = (ROOT / "charts/modelwright/values.yaml").read_text()
    after = publish.chart_values(before, references)
    old, new = yaml.safe_load(before), yaml.safe_load(after)
    assert new["image"] == old["image"] | {
        "repository": "registry.example.com/modelwright/operator",
        "digest": "sha256:operator",
    }
    assert new["fetchImage"] == old["fetchImage"] | {
        "repository": "registry.example.com/modelwright/fetch",
        "digest": "sha256:fetch",
    }
    assert new["runtimes"].pop("images") == {"mlserver": references["mlserver"]}
    old["runtimes"].pop("images")
    for field in ("image", "fetchImage"):
        del old[field], new[field]
    assert new == old
    assert after.count("#") == before.count("#")
    with pytest.raises(publish.BadRelease, match=r"values\.yaml has no image"):
        publish.chart_values(before.replace("\nfetchImage:", "\nother: {}\nfetchImage: {}\nx:"), references)


def test_the_provenance_of_an_index_names_its_images_and_no_base() -> None:
    images = dict.fromkeys(release.ARCHITECTURES, OPERATOR)
    predicate = provenance.of_index(provenance.provenance(BUILD), images)
    dependencies = predicate["buildDefinition"]["resolvedDependencies"]
    assert [each["name"] for each in dependencies] == ["source", "image linux/amd64", "image linux/arm64"]
    assert dependencies[1]["uri"] == "oci://registry.example.com/modelwright/operator"
    assert predicate["buildDefinition"]["externalParameters"] == {"image": "operator", "tag": "0.1.0"}


def test_an_index_bill_of_materials_lists_each_image_once() -> None:
    one, other = ({"bom-ref": f"pkg:deb/debian/libc6?arch={name}"} for name in release.ARCHITECTURES)
    kopf = {"bom-ref": "pkg:pypi/kopf"}
    found = sbom.merged([{"version": 1, "components": [kopf, one]}, {"version": 1, "components": [kopf, other]}])
    assert found == {"version": 1, "components": [kopf, one, other]}


def test_each_image_is_started_by_what_it_is_there_for() -> None:
    assert set(publish.STARTS) == set(release.NAMES)


class TestCommand:
    """`make release`, up to its steps."""

    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        (tmp_path / "release.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
        return tmp_path / "release.key"

    @pytest.fixture(autouse=True)
    def place(self, tree: Path, registry: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(release, "ROOT", tree)
        monkeypatch.setattr("scripts.images.ROOT", tree)
        monkeypatch.setattr(release, "Registry", lambda *_, **__: registry)

    @pytest.mark.parametrize(
        ("left_out", "text"),
        [("--registry", "REGISTRY is missing"), ("--url", "URL is missing"), ("SIGN_KEY", "SIGN_KEY is missing")],
    )
    def test_what_is_needed_is_asked_for(
        self, left_out: str, text: str, key: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = {"--registry": "registry.example.com/modelwright", "--url": "https://example.com"}
        given.pop(left_out, None)
        environment = {} if left_out == "SIGN_KEY" else {"SIGN_KEY": str(key)}
        arguments = [each for pair in given.items() for each in pair]
        assert release.main(["0.2.0", *arguments, "--dry-run"], environment) == 1
        assert text in capsys.readouterr().err

    def test_a_dry_run_lists_the_steps_and_changes_nothing(
        self, tree: Path, registry: Memory, key: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = git(tree, "rev-parse", "HEAD")
        arguments = ["--registry", "registry.example.com/modelwright", "--url", "https://example.com", "--dry-run"]
        assert release.main(["0.2.0", *arguments], {"SIGN_KEY": str(key)}) == 0
        said = capsys.readouterr().out
        assert [line.split()[0] for line in said.splitlines()] == [step.name for step in release.STEPS]
        assert (git(tree, "rev-parse", "HEAD"), git(tree, "status", "--porcelain")) == (before, "")
        assert not (tree / "dist").exists()
        assert registry.manifests == {}
