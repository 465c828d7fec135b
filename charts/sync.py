"""Copy CRDs, admission policies, user roles and runtimes into the charts, and list them for Artifact Hub.

`--check` only reports differences.

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
"""Comment that names the JSON Schema for editors, by a path that doesn't exist in a chart."""
KEEP_POLICY = "    {{- if .Values.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n"


def escape_braces(text: str) -> str:
    """Escape braces so that Helm prints the text unchanged."""
    return re.sub(r"\{\{|\}\}", lambda match: '{{ "' + match[0] + '" }}', text)


def add_keep_policy(text: str) -> str:
    """Return objects as templates, with the policy that keeps each of them when the release is removed."""
    return "\n---\n".join(_keep_document(document) for document in escape_braces(text).split("\n---\n"))


def _keep_document(text: str) -> str:
    if re.search(r"^  annotations:\n", text, re.MULTILINE):
        return re.sub(r"^  annotations:\n", lambda match: match[0] + KEEP_POLICY, text, count=1, flags=re.MULTILINE)
    block = "  {{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    changed, count = re.subn(r"^metadata:\n", lambda match: match[0] + block, text, count=1, flags=re.MULTILINE)
    if not count:
        raise SystemExit(f"charts/sync.py: an object without a metadata block:\n{text}")
    return changed


def list_manifests(folder: str) -> list[Path]:
    """List the files with objects in a folder, by name."""
    return [path for path in sorted((ROOT / folder).glob("*.yaml")) if path.name != "kustomization.yaml"]


def render_copies() -> dict[Path, str]:
    """Render every copied file: its path and its text."""
    files: dict[Path, str] = {}
    for source in list_manifests("crds"):
        files[CRDS_CHART / f"crd-{source.name}"] = add_keep_policy(source.read_text())
    for source in list_manifests("manifests/policies"):
        # A kind that is kept without its policy would accept objects that the policy refuses.
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
    """Return the text of a Chart.yaml with these lists as annotations of Artifact Hub, which are YAML texts."""
    text = chart.read_text()
    for name, entries in lists.items():
        listed = yaml.safe_dump(entries, sort_keys=False, width=110, allow_unicode=True)
        block = "".join(f"    {line}\n" for line in listed.splitlines())
        annotation = re.compile(rf"^(  artifacthub\.io/{name}: \|\n)(?:    .*\n)*", re.MULTILINE)
        text, count = annotation.subn(lambda match, block=block: match[1] + block, text)
        if count != 1:
            raise SystemExit(f"charts/sync.py: {chart.relative_to(ROOT)} needs one annotation artifacthub.io/{name}")
    return text


def list_images() -> list[dict[str, str]]:
    """List the images that the operator's chart runs: its own, and those of the runtimes that it installs."""
    values = yaml.safe_load((OPERATOR.parent / "values.yaml").read_text())
    version = yaml.safe_load(OPERATOR.read_text())["appVersion"]
    images = {name: values[key]["repository"] for name, key in (("operator", "image"), ("fetch", "fetchImage"))}
    for source in list_manifests("manifests/runtimes"):
        runtime = yaml.safe_load(source.read_text())
        images[runtime["metadata"]["name"]] = runtime["spec"]["container"]["image"]
    return [{"name": name, "image": image if ":" in image else f"{image}:{version}"} for name, image in images.items()]


def list_crds() -> list[dict[str, str]]:
    """List the name and description of each kind."""
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
    """Load the sample objects of Modelwright's kinds."""
    objects = [yaml.safe_load(path.read_text()) for path in list_manifests("manifests/samples")]
    return [obj for obj in objects if obj["apiVersion"].startswith(f"{GROUP}/")]


def main(arguments: list[str]) -> int:
    """Write the copies; with `--check`, return 1 if one differs."""
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
