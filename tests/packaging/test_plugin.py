"""The plugin's archive for krew: it runs with nothing but a Python, and its manifest is what krew wants."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml

from scripts import plugin

ROOT = Path(__file__).resolve().parents[2]
MODEL = """\
apiVersion: modelwright.dev/v1alpha1
kind: Model
metadata: {name: digits}
spec: {version: {name: digits-v1}}
"""


def installed(folder: Path) -> Path:
    """The libraries of this Python and machine, as they are installed here: the same versions, without a registry."""
    site = Path(sysconfig.get_path("purelib"))
    for name in plugin.libraries():
        for file in distribution(name).files or ():
            source = Path(str(distribution(name).locate_file(file)))
            if source.is_file() and site in source.parents:
                target = folder / source.relative_to(site)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The archive for this machine and its SHA-256."""
    folder = tmp_path_factory.mktemp("archive")
    file = folder / "kubectl-modelwright.tar.gz"
    return file, plugin.pack([installed(folder / "site")], file)


class Machine:
    """A user's machine with a bare Python 3.11, on which krew has unpacked the archive and linked it."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self.store, self.bin = folder / "store", folder / "bin"
        self.bin.mkdir()
        with tarfile.open(archive) as tar:
            tar.extractall(self.store, filter="data")
        self.link("kubectl-modelwright")
        # Without what is installed beside the interpreter, and without this process' environment.
        python = self.bin / "python3"
        python.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -E -S "$@"\n')
        python.chmod(0o755)

    def link(self, name: str) -> None:
        (self.bin / name).symlink_to(self.store / "kubectl-modelwright")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.store)}
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            env=environment,
            cwd=self.store,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path, archive: tuple[Path, str]) -> Machine:
    return Machine(tmp_path, archive[0])


def test_doctor_has_all_that_it_imports(machine: Machine) -> None:
    """It imports its checks before it asks kubectl, which isn't there."""
    found = machine.run("kubectl-modelwright", "doctor")
    assert found.returncode == 1
    assert "kubectl is not on the PATH" in found.stderr


def test_it_runs_with_nothing_but_a_python(machine: Machine) -> None:
    assert "No module named 'pydantic'" in machine.run("python3", "-c", "import pydantic").stderr
    result = machine.run("kubectl-modelwright", "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: kubectl modelwright" in result.stdout
    (machine.store / "model.yaml").write_text(MODEL)
    judged = machine.run("kubectl-modelwright", "lint", "--offline", "model.yaml")
    assert "no findings" in judged.stdout, judged.stderr
    assert "kubectl is not on the PATH" in machine.run("kubectl-modelwright", "status", "digits").stderr


def test_by_its_other_name_it_completes(machine: Machine) -> None:
    machine.link("kubectl_complete-modelwright")
    assert machine.run("kubectl_complete-modelwright", "roll").stdout == "rollback\n:4\n"


def test_an_unsupported_python_is_refused_without_another(machine: Machine) -> None:
    (built,) = (machine.store / "lib/pydantic_core").glob("_pydantic_core.cpython-*")
    ours = f"cpython-3{sys.version_info.minor}-"
    built.rename(built.with_name(built.name.replace(ours, "cpython-399-")))
    refused = machine.run("kubectl-modelwright", "--help")
    assert refused.returncode == 1
    assert f"python3 is 3.{sys.version_info.minor}, and this archive" in refused.stderr
    assert "for Python 3.99 only" in refused.stderr
    other = machine.bin / "python3.99"
    other.write_text('#!/bin/sh\necho "$@"\n')
    other.chmod(0o755)
    assert machine.run("kubectl-modelwright", "--help").stdout.split()[1:] == ["--help"]


def test_the_same_content_is_the_same_archive(archive: tuple[Path, str], tmp_path: Path) -> None:
    again = plugin.pack([installed(tmp_path / "site")], tmp_path / "again.tar.gz")
    assert again == archive[1] == hashlib.sha256(archive[0].read_bytes()).hexdigest()


def test_libraries_are_asked_for_as_they_are_locked() -> None:
    asked = plugin.locked(plugin.libraries())
    packages = {line.split("==")[0] for line in asked.splitlines() if "==" in line}
    assert packages >= {"pydantic", "pydantic-core", "pyyaml", "cronsim", "typer", "rich"}
    assert packages == set(plugin.libraries())
    assert not {"kopf", "kubernetes", "matplotlib"} & packages
    assert all("--hash=sha256:" in part for part in asked.split("==")[1:])


def test_the_manifest_has_an_archive_for_each_platform() -> None:
    archives = {platform: (f"https://example.com/{platform}.tar.gz", "a" * 64) for platform in plugin.PLATFORMS}
    manifest = yaml.safe_load(plugin.manifest("1.2.3", archives))
    assert (manifest["kind"], manifest["metadata"]["name"], manifest["spec"]["version"]) == (
        "Plugin",
        "modelwright",
        "v1.2.3",
    )
    found = {
        f"{p['selector']['matchLabels']['os']}/{p['selector']['matchLabels']['arch']}": p
        for p in manifest["spec"]["platforms"]
    }
    assert {platform: (p["uri"], p["sha256"]) for platform, p in found.items()} == archives
    assert {p["bin"] for p in found.values()} == {"kubectl-modelwright"}
    assert 0 < len(manifest["spec"]["shortDescription"]) <= 80
    assert f"{plugin.PYTHONS[0]} to {plugin.PYTHONS[-1]}" in manifest["spec"]["caveats"]
