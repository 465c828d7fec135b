"""Which other versions of Python are found, and what is said of those that are not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from scripts import pythons

OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_a_python_is_found_on_the_path_or_among_pyenvs(tmp_path: Path) -> None:
    assert pythons.find(OURS, {"PATH": str(tmp_path), "HOME": str(tmp_path)}) is None
    place = tmp_path / f".pyenv/versions/{OURS}.1/bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(os.path.realpath(sys.executable))
    assert pythons.find(OURS, {"PATH": str(tmp_path), "HOME": str(tmp_path)}) == place / "python"
    (tmp_path / f"python{OURS}").symlink_to(os.path.realpath(sys.executable))
    assert pythons.find(OURS, {"PATH": str(tmp_path), "HOME": str(tmp_path)}) == tmp_path / f"python{OURS}"


def test_a_name_without_a_python_behind_it_is_passed_over(tmp_path: Path) -> None:
    """As the shims of pyenv are, for versions that aren't chosen."""
    shim = tmp_path / f"python{OURS}"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert pythons.find(OURS, {"PATH": str(tmp_path), "HOME": str(tmp_path)}) is None


def test_a_version_that_is_not_here_is_skipped_and_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pythons, "find", lambda _: None)
    assert pythons.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"    Python {version}: skipped, there is none on this machine" for version in pythons.VERSIONS
    ]


def test_one_that_fails_does_not_hide_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(python: Path, *_: object) -> None:
        if python.name == pythons.VERSIONS[0]:
            raise pythons.subprocess.CalledProcessError(1, "pytest")

    monkeypatch.setattr(pythons, "find", Path)

    def fetched(_: str, folder: Path) -> list[Path]:
        for python in pythons.plugin.PYTHONS:
            (folder / python).mkdir()
        return []

    monkeypatch.setattr(pythons.plugin, "fetched", fetched)
    monkeypatch.setattr(pythons.plugin, "pack", lambda _, archive: archive.touch())
    monkeypatch.setattr(pythons, "try_plugin", refuse)
    monkeypatch.setattr(pythons, "try_development", lambda *_: None)
    assert pythons.main([]) == 1
    said = capsys.readouterr()
    assert f"Python {pythons.VERSIONS[0]}: FAILED" in said.err
    assert f"Python {pythons.VERSIONS[1]}: the unit tests pass" in said.out
