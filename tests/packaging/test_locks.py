"""The lock files: complete, hashed, agreeing where they must, and without any registry's address."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lib.locks import FOLDER, ROOT, pins

NAMES = sorted(path.stem for path in FOLDER.glob("*.in"))


def asked(name: str) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in (FOLDER / f"{name}.in").read_text().splitlines()]
    result = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    for line in lines:
        if line.startswith("-r "):
            result += asked(line[3:].removesuffix(".in"))
    return result


def test_the_locks_are_these() -> None:
    assert NAMES == ["cli", "datacheck", "dev", "fetch", "mlserver", "operator", "trainer"]


@pytest.mark.parametrize("name", NAMES)
def test_everything_asked_for_is_pinned(name: str) -> None:
    locked = pins(name)
    for requirement in asked(name):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} isn't in {name}.txt: run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: run `make lock`"


def test_the_images_dependencies_are_the_packages() -> None:
    """pyproject's extras and the locks' inputs must not drift apart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("operator", "fetch", "cli"):
        packages = {*map(Requirement, project["optional-dependencies"][name])}
        assert set(asked(name)) - {*map(Requirement, project["dependencies"])} == packages


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_no_address_is_written(path: Path) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", path.read_text())


def test_tests_run_what_the_images_hold() -> None:
    tested = pins("dev")
    for name in ("operator", "fetch", "datacheck", "cli"):
        different = {p: v for p, v in pins(name).items() if tested.get(p) != v}
        assert not different, name


def test_serving_reads_what_training_writes() -> None:
    serving, training, tested = pins("mlserver"), pins("trainer"), pins("dev")
    for package in ("scikit-learn", "numpy", "scipy", "joblib"):
        assert serving[package] == training[package] == tested[package], package
    assert training["optuna"] == tested["optuna"]


def test_mlserver_brings_no_cuda() -> None:
    locked = pins("mlserver")
    assert "xgboost" not in locked
    assert "xgboost-cpu" in locked
    assert not [package for package in locked if package.startswith("nvidia")]


def test_the_operator_has_no_library_of_fetch() -> None:
    assert not {"obstore", "huggingface-hub", "oras", "pandas", "pandera", "numpy"} & set(pins("operator"))
    assert not {"kopf", "kubernetes"} & set(pins("fetch"))


@pytest.mark.parametrize(
    ("age", "youngest"), [("", 7), ("3", 3), ("0", None)], ids=["a week", "as many days as are said", "no bound"]
)
def test_a_lock_takes_nothing_that_was_published_just_now(tmp_path: Path, age: str, youngest: int | None) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "lock").write_bytes((ROOT / "scripts" / "lock").read_bytes())
    uv = tmp_path / ".venv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "$@" >> calls\n')
    uv.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "AGE_DAYS": age}
    before = datetime.now(UTC)
    subprocess.run(["bash", str(tmp_path / "scripts" / "lock")], env=environment, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(NAMES)
    for call in calls:
        bounds = re.findall(r"--exclude-newer=(\S+)", call)
        if youngest is None:
            assert bounds == []
        else:
            age_found = before - datetime.fromisoformat(bounds[0])
            assert abs(age_found - timedelta(days=youngest)) < timedelta(minutes=10)


def test_an_age_that_is_no_number_is_refused() -> None:
    script = ["bash", str(ROOT / "scripts" / "lock")]
    done = subprocess.run(
        script, env={"PATH": os.environ["PATH"], "AGE_DAYS": "a week"}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "AGE_DAYS must be a number of days" in done.stderr
