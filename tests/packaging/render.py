"""Renders charts and kustomize installs for the tests of this folder."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from devcluster import parts

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
    return str(parts.path(name))


def helm(*arguments: str, values: Object | None = None) -> str:
    """Helm's standard output; raises Refused."""
    command = [tool("helm"), *arguments]
    if values is not None:
        command += ["--values", "-"]
    done = subprocess.run(
        command, input=yaml.safe_dump(values or {}), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def template(
    chart: Path = CHART, *, release: str = "modelwright", namespace: str = NAMESPACE, **values: Any
) -> list[Object]:
    """The objects a chart renders with these values."""
    text = helm("template", release, str(chart), "-n", namespace, "--kube-version", "1.34.4", values=values)
    return objects(text)


def kustomize(folder: Path) -> list[Object]:
    """The objects a kustomize folder renders."""
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    return objects(done.stdout)


def objects(text: str) -> list[Object]:
    """The objects of a text of YAML documents."""
    return [found for found in yaml.safe_load_all(text) if found]


def only(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind (and name)."""
    (result,) = [o for o in found if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return result
