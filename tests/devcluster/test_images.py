"""An image is built again when, and only when, something that goes into it has changed."""

import subprocess
from pathlib import Path

import pytest

from devcluster import images
from devcluster.errors import ClusterError

TEXT = """ARG BASE_IMAGE=docker.io/library/python:3.11
FROM ${BASE_IMAGE} AS build
COPY --chown=1:1 a.txt \\
     folder /there/
FROM ${BASE_IMAGE}
COPY --from=build /x /x
ADD b.txt /
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for name in ("a.txt", "b.txt", "folder/c.txt", "unused.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_copied_paths_are_those_of_the_context() -> None:
    assert images.copied_paths(TEXT) == ["a.txt", "folder", "b.txt"]


@pytest.mark.parametrize("name", ["a.txt", "b.txt", "folder/c.txt", "folder/new.txt"])
def test_a_changed_input_changes_the_hash(context: Path, name: str) -> None:
    before = images.input_hash(TEXT, {}, context)
    (context / name).write_text("changed")
    assert images.input_hash(TEXT, {}, context) != before


def test_what_is_not_copied_does_not_matter(context: Path) -> None:
    before = images.input_hash(TEXT, {}, context)
    (context / "unused.txt").write_text("changed")
    (context / "folder" / "__pycache__").mkdir()
    (context / "folder" / "__pycache__" / "c.pyc").write_text("x")
    assert images.input_hash(TEXT, {}, context) == before


def test_arguments_and_recipe_matter(context: Path) -> None:
    before = images.input_hash(TEXT, {}, context)
    assert images.input_hash(TEXT, {"A": "1"}, context) != before
    assert images.input_hash(TEXT + "USER 1\n", {}, context) != before


def test_build_commands(monkeypatch: pytest.MonkeyPatch, context: Path) -> None:
    file, arguments, id_file = context / "Containerfile", {"B": "2", "A": "1"}, context / "id"
    monkeypatch.setattr(images, "docker_answers", lambda: True)
    with_docker = images.build_command(file, "x:1", arguments, context, id_file)
    native = f"--platform=linux/{images.NATIVE}"
    assert with_docker[:7] == ["docker", "build", native, "--build-arg", "A=1", "--build-arg", "B=2"]
    monkeypatch.setattr(images, "docker_answers", lambda: False)
    with_buildah = images.build_command(file, "x:1", arguments, context, id_file)
    assert "buildah" in with_buildah
    assert with_buildah[-1] == str(context)
    assert {native, f"--build-arg=BUILDPLATFORM=linux/{images.NATIVE}"} <= set(with_buildah)
    foreign = images.build_command(file, "x:1", arguments, context, id_file, "other")
    assert {"--platform=linux/other", f"--build-arg=BUILDPLATFORM=linux/{images.NATIVE}"} <= set(foreign)


def test_another_architecture_is_built_by_this_machines_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own base is what the image holds; nothing of that can run here."""
    monkeypatch.delenv("BASE_IMAGE", raising=False)
    monkeypatch.setattr(images, "docker_answers", lambda: False)
    monkeypatch.setattr(
        images, "ensure_base_image", lambda _, architecture=images.NATIVE: images.base_image(architecture)
    )
    text = "ARG BASE_IMAGE=x\nARG BUILD_IMAGE=${BASE_IMAGE}\n"
    assert images._usual_arguments(text, images.NoProgress()) == {"BASE_IMAGE": images.BASE_IMAGE}
    assert images._usual_arguments(text, images.NoProgress(), "other") == {
        "BASE_IMAGE": f"{images.BASE_IMAGE}-other",
        "BUILD_IMAGE": images.BASE_IMAGE,
    }
    monkeypatch.setenv("BASE_IMAGE", "registry.example.com/python:3.11")
    assert images._usual_arguments(text, images.NoProgress(), "other") == {
        "BASE_IMAGE": "registry.example.com/python:3.11"
    }


def test_another_architectures_base_is_unpacked_and_not_run() -> None:
    assert images.base_archive("other") != images.base_archive()
    assert "--variant=extract" in images._bootstrap("other")
    assert "--variant=extract" not in images._bootstrap(images.NATIVE)


def test_a_file_and_a_command_are_of_the_image_that_is_mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "docker_answers", lambda: False)
    monkeypatch.setattr(images.host, "install", lambda *_: None)
    monkeypatch.setattr(images, "_said", lambda command, environment: ran.append((command, environment)) or "text")
    assert images.read_file("localhost/x:dev", "/etc/os-release", "arm64") == "text"
    assert images.run_command("localhost/x:dev", ["python", "-V"], "arm64") == "text"
    assert ran[0][0][-2:] == ["sh", "/etc/os-release"]
    emulated = [] if images.NATIVE == "arm64" else ["/qemu-aarch64-static"]
    assert ran[1][0][-2 - len(emulated) :] == [*emulated, "python", "-V"]
    assert ran[1][1] == {"STORE": str(tmp_path / "buildah"), "IMAGE": "localhost/x:dev", "ARCHITECTURE": "arm64"}


def test_the_digest_of_the_same_repository_is_used() -> None:
    known = ["localhost:5000/x@sha256:a", "registry.example.com/team/x@sha256:b", "user/x@sha256:c"]
    assert images.digest_in(known, "registry.example.com/team/x") == "sha256:b"
    assert images.digest_in(known[2:], "docker.io/user/x") == "sha256:c"


def test_a_pushed_image_is_named_by_its_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def pushed(command: list[str], name: str, failure: str) -> None:
        del name, failure
        ran.append(command)
        file = next(word for word in command if word.startswith("--digestfile="))
        Path(file.partition("=")[2]).write_text("sha256:abc\n")

    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "docker_answers", lambda: False)
    monkeypatch.setattr(images, "_logged", pushed)
    assert images.publish("localhost/x:dev", "registry:5000/a/x:1") == "registry:5000/a/x@sha256:abc"
    assert "--tls-verify=false" not in ran[0]
    images.publish("localhost/x:dev", "registry:5000/a/x:1", plain_http=True)
    assert "--tls-verify=false" in ran[1]
    assert ran[1][-2:] == ["localhost/x:dev", "docker://registry:5000/a/x:1"]


DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Containerfile, where Docker answers."""
    monkeypatch.setattr(images, "docker_answers", lambda: True)
    monkeypatch.delenv("BASE_IMAGE", raising=False)
    (tmp_path / "Containerfile").write_text(TEXT)
    return tmp_path / "Containerfile"


def test_the_environments_base_is_used_and_has_a_digest(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"docker.io/library/python@{DIGEST}"
    monkeypatch.setenv("BASE_IMAGE", base)
    assert images._usual_arguments(TEXT, images.NoProgress())["BASE_IMAGE"] == base
    assert images.base_of(recipe) == (base, DIGEST)


@pytest.mark.parametrize("known", [f"docker.io/library/python@{DIGEST}\n", ""])
def test_the_usual_base_has_the_digest_that_the_engine_knows(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[-1] == "docker.io/library/python:3.11"
        return subprocess.CompletedProcess(command, 0, known, "")

    monkeypatch.setattr(images.subprocess, "run", run)
    if known:
        assert images.base_of(recipe) == ("docker.io/library/python:3.11", DIGEST)
    else:
        with pytest.raises(ClusterError, match=r"BASE_IMAGE=docker.io/library/python@sha256:"):
            images.base_of(recipe)
