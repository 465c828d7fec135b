"""Copies CRDs, admission policies, user roles and runtimes into the charts, and lists them for Artifact Hub.

`--check` only says what differs.

The files below crds/ and manifests/ are the source. The copies are text, not parsed and printed again: Helm writes
numbers from a million on in a form that the API server refuses for integers.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from modelwright.api.crd.definition import KINDS
from modelwright.api.names import GROUP, VERSION

ROOT = Path(__file__).resolve().parent.parent
CRDS_CHART = ROOT / "charts" / "modelwright-crds" / "templates"
RUNTIMES = ROOT / "charts" / "modelwright" / "files" / "runtimes"
OPERATOR, CRDS = (ROOT / "charts" / name / "Chart.yaml" for name in ("modelwright", "modelwright-crds"))
SAMPLES = ROOT / "manifests" / "samples"
EDITOR_COMMENT = re.compile(r"^# yaml-language-server: .*\n", re.MULTILINE)
"""What tells editors where the JSON Schema is: by a path that leads nowhere from a chart."""
KEEP_POLICY = "    {{- if .Values.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n"


def escape_braces(text: str) -> str:
    """Text that Helm prints as it is."""
    return re.sub(r"\{\{|\}\}", lambda found: '{{ "' + found[0] + '" }}', text)


def add_keep_policy(text: str) -> str:
    """Objects as templates: the same, with the policy that keeps each of them when the release goes."""
    return "\n---\n".join(_keep_document(document) for document in escape_braces(text).split("\n---\n"))


def _keep_document(text: str) -> str:
    if re.search(r"^  annotations:\n", text, re.MULTILINE):
        return re.sub(r"^  annotations:\n", lambda found: found[0] + KEEP_POLICY, text, count=1, flags=re.MULTILINE)
    block = "  {{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    changed, count = re.subn(r"^metadata:\n", lambda found: found[0] + block, text, count=1, flags=re.MULTILINE)
    if not count:
        raise SystemExit(f"charts/sync.py: an object without a metadata block:\n{text}")
    return changed


def list_manifests(folder: str) -> list[Path]:
    """The files of a folder that hold objects, by name."""
    return [path for path in sorted((ROOT / folder).glob("*.yaml")) if path.name != "kustomization.yaml"]


def render_copies() -> dict[Path, str]:
    """Every copied file and the text it should hold."""
    files: dict[Path, str] = {}
    for source in list_manifests("crds"):
        files[CRDS_CHART / f"crd-{source.name}"] = add_keep_policy(source.read_text())
    for source in list_manifests("manifests/policies"):
        # A kind that stays without its policy would be open to what the policy refuses.
        files[CRDS_CHART / f"policy-{source.name}"] = add_keep_policy(source.read_text())
    for source in list_manifests("manifests/rbac"):
        files[CRDS_CHART / source.name] = (
            "{{- if .Values.userRoles }}\n" + escape_braces(source.read_text()) + "{{- end }}\n"
        )
    for source in list_manifests("manifests/runtimes"):
        files[RUNTIMES / source.name] = EDITOR_COMMENT.sub("", source.read_text())
    files[OPERATOR] = with_annotations(OPERATOR, {"images": list_images()})
    files[CRDS] = with_annotations(CRDS, {"crds": list_crds(), "crdsExamples": load_samples()})
    return files


def with_annotations(chart: Path, lists: dict[str, list[Any]]) -> str:
    """The text of a Chart.yaml with these lists as annotations of Artifact Hub, which are texts of YAML."""
    text = chart.read_text()
    for name, entries in lists.items():
        listed = yaml.safe_dump(entries, sort_keys=False, width=110, allow_unicode=True)
        block = "".join(f"    {line}\n" for line in listed.splitlines())
        found = re.compile(rf"^(  artifacthub\.io/{name}: \|\n)(?:    .*\n)*", re.MULTILINE)
        text, count = found.subn(lambda match, block=block: match[1] + block, text)
        if count != 1:
            raise SystemExit(f"charts/sync.py: {chart.relative_to(ROOT)} needs one annotation artifacthub.io/{name}")
    return text


def list_images() -> list[dict[str, str]]:
    """Images that the operator's chart runs: its own, and those of the runtimes that it installs."""
    values = yaml.safe_load((OPERATOR.parent / "values.yaml").read_text())
    version = yaml.safe_load(OPERATOR.read_text())["appVersion"]
    found = {name: values[key]["repository"] for name, key in (("operator", "image"), ("fetch", "fetchImage"))}
    for source in list_manifests("manifests/runtimes"):
        runtime = yaml.safe_load(source.read_text())
        found[runtime["metadata"]["name"]] = runtime["spec"]["container"]["image"]
    return [{"name": name, "image": image if ":" in image else f"{image}:{version}"} for name, image in found.items()]


def list_crds() -> list[dict[str, str]]:
    """Name and description of each kind."""
    return [
        {
            "kind": kind.__name__,
            "version": VERSION,
            "name": f"{kind.__crd__.plural}.{GROUP}",
            "displayName": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__),
            "description": kind.__crd__.description,
        }
        for kind in KINDS
    ]


def load_samples() -> list[Any]:
    """The quickstart's objects of our kinds."""
    found = [yaml.safe_load(path.read_text()) for path in list_manifests("manifests/samples")]
    return [obj for obj in found if obj["apiVersion"].startswith(f"{GROUP}/")]


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds a difference."""
    files = render_copies()
    present = {path for folder in (CRDS_CHART, RUNTIMES) for path in folder.glob("*.yaml")}
    stale = sorted(present - files.keys())
    changed = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in [*changed, *stale]:
            print(f"{path.relative_to(ROOT)} differs from its source: run `make generate`", file=sys.stderr)
        return 1 if changed or stale else 0
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    for path in stale:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
