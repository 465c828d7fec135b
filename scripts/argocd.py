"""Generates Argo CD's configuration from the Lua files below manifests/argocd: entries of argocd-cm, and values of
its chart.

`--check` only reports differences. One health script serves all kinds; its copies are where Argo CD expects them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "manifests" / "argocd"
GROUP = "modelwright.dev"
KINDS = ("Model", "ModelRollout", "ModelVersion", "RetrainingPolicy", "RolloutPolicy", "TrainingRun")
GENERATED_HEADER = "# Made by scripts/argocd.py; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump(value: object) -> str:
    """Dump `value` as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def render_entries() -> dict[str, str]:
    """Render the data of argocd-cm."""
    script = (HERE / "health.lua").read_text()
    rendered = {f"resource.customizations.health.{GROUP}_{kind}": script for kind in KINDS}
    for discovery in sorted((HERE / GROUP).glob("*/actions/discovery.lua")):
        folder = discovery.parent
        definitions = [
            {"name": action.parent.name, "action.lua": action.read_text()}
            for action in sorted(folder.glob("*/action.lua"))
        ]
        rendered[f"resource.customizations.actions.{GROUP}_{folder.parent.name}"] = dump(
            {"discovery.lua": discovery.read_text(), "definitions": definitions}
        )
    return rendered


def render_files() -> dict[Path, str]:
    """Render every generated file with its text."""
    script, data = (HERE / "health.lua").read_text(), render_entries()
    files = {HERE / GROUP / kind / "health.lua": script for kind in KINDS}
    # Argo CD finds its ConfigMap only by this label.
    labels = {"app.kubernetes.io/part-of": "argocd"}
    metadata = {"name": "argocd-cm", "namespace": "argocd", "labels": labels}
    files[HERE / "argocd-cm.yaml"] = (
        "# Health and actions of Modelwright's kinds, added to Argo CD's ConfigMap by\n"
        "# kubectl apply --server-side --field-manager=modelwright -f argocd-cm.yaml\n"
        + GENERATED_HEADER
        + dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    )
    files[HERE / "argo-cd-values.yaml"] = (
        "# The same as values of the chart argo-cd.\n" + GENERATED_HEADER + dump({"configs": {"cm": data}})
    )
    return files


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds a difference."""
    different = [path for path, text in render_files().items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in different:
            print(f"{path.relative_to(ROOT)} differs from what its Lua files make: run `make generate`")
        return 1 if different else 0
    for path in different:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_files()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
