"""Renders charts and kustomize installs for the tests of this folder."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from devcluster import parts
from tests.lib.documents import read_all

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "modelwright"
CRDS_CHART = ROOT / "charts" / "modelwright-crds"
INSTALL = ROOT / "manifests" / "install"
NAMESPACE = "modelwright-system"

Object = dict[str, Any]


class Refused(Exception):
    """Helm said no; the text is what it said."""


def tool(name: str) -> str:
    """The path of helm or kubectl, built into devcluster's cache when it isn't there."""
    parts.build([name])
    return str(parts.binary_path(name))


def _run(command: tuple[str, ...], text: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


_run_once = cache(_run)


def helm(*arguments: str, values: Object | None = None) -> str:
    """Helm's standard output; raises Refused."""
    given = ("--values", "-") if values is not None else ()
    # What is committed renders to the same again; a folder of a test may have changed.
    run = _run_once if any(str(ROOT) in word for word in arguments) else _run
    code, told, error = run((tool("helm"), *arguments, *given), yaml.safe_dump(values or {}))
    if code:
        raise Refused(told + error)
    return told


def template(
    chart: Path = CHART, *, release: str = "modelwright", namespace: str = NAMESPACE, **values: Any
) -> list[Object]:
    """The objects a chart renders with these values."""
    text = helm("template", release, str(chart), "-n", namespace, "--kube-version", "1.34.4", values=values)
    return objects(text)


def kustomize(folder: Path) -> list[Object]:
    """The objects a kustomize folder renders."""
    run = _run_once if folder.is_relative_to(ROOT) else _run
    code, told, error = run((tool("kubectl"), "kustomize", str(folder)), "")
    assert code == 0, error
    return objects(told)


def objects(text: str) -> list[Object]:
    """The objects of a text of YAML documents."""
    return read_all(text)


def only(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind (and name)."""
    (result,) = [o for o in found if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return result
