"""The Containerfiles keep to their rules; building and running them is for the demo and the end-to-end tests."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

from tests.lib.containerfiles import IMAGES

ROOT = Path(__file__).resolve().parents[2]
BASE = "ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm"


def instructions(name: str) -> list[str]:
    """One line for each instruction, without comments."""
    text = (ROOT / "images" / name / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def test_each_image_has_a_containerfile() -> None:
    assert sorted(path.parent.name for path in (ROOT / "images").glob("*/Containerfile")) == list(IMAGES)


@pytest.mark.parametrize("name", IMAGES)
def test_containerfiles_start_with_the_same_lines(name: str) -> None:
    """A Containerfile can't include another, so a change of the build stage has to be made in all of them."""
    heads = []
    for image in (name, IMAGES[0]):
        title, *lines = (ROOT / "images" / image / "Containerfile").read_text().splitlines()
        assert title.startswith("# The "), title
        head = lines[: lines.index("COPY images/install /build/install") + 1]
        heads.append(head)
    assert heads[0] == heads[1]
    assert len(heads[0]) > 10


@pytest.mark.parametrize("name", IMAGES)
def test_the_base_is_an_argument_with_a_public_default(name: str) -> None:
    found = instructions(name)
    assert found[:2] == [BASE, "ARG BUILD_IMAGE=${BASE_IMAGE}"]


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_run_while_it_is_built_is_of_this_machine(name: str) -> None:
    """So that images for another architecture need no emulation."""
    stages = [line.split()[1:3] for line in instructions(name) if line.startswith("FROM ")]
    assert stages == [
        ["--platform=${BUILDPLATFORM}", "${BUILD_IMAGE}"],
        ["--platform=${TARGETPLATFORM}", "${BASE_IMAGE}"],
    ]


@pytest.mark.parametrize("name", IMAGES)
def test_it_runs_as_an_unprivileged_number(name: str) -> None:
    users = [line for line in instructions(name) if line.startswith("USER ")]
    assert users == ["USER 65532:65532"]
    last_stage = "\n".join(instructions(name)).rpartition("\nFROM ")[2]
    # Nothing is executed in the last stage: it works on a base without a shell too.
    assert "\nRUN " not in last_stage
    assert re.search(r"^ENTRYPOINT \[", last_stage, re.MULTILINE)


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_installed_is_locked(name: str) -> None:
    assert any(line.startswith("RUN sh /build/install ${TARGETARCH}") for line in instructions(name))
    assert not any("pip" in line.split() for line in instructions(name))
    assert f"COPY requirements/{name}.txt /build/requirements.txt" in instructions(name)
    words = set(shlex.split((ROOT / "images/install").read_text(), comments=True))
    assert {"--require-hashes", "--no-deps", "--only-binary", "--no-cache-dir"} <= words


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_copied_exists_and_is_in_the_build_context(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for line in instructions(name):
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, k) or source.startswith(k) for k in kept), source


def test_the_operator_and_fetch_images_share_no_program() -> None:
    assert any("rm -rf /opt/modelwright/modelwright/agents/fetcher" in line for line in instructions("operator"))
    sources = {
        source for line in instructions("fetch") if line.startswith("COPY operator") for source in line.split()[1:-1]
    }
    ours = {
        "__init__.py",
        "untrusted_json.py",
        "net/__init__.py",
        "net/addresses.py",
        "agents/__init__.py",
        "agents/fetcher",
    }
    assert sources == {f"operator/modelwright/{name}" for name in ours}
