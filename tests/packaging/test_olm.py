"""The bundle for the Operator Lifecycle Manager: what the chart says, in the forms that OLM takes."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from devcluster import parts
from modelwright.api.crd.definition import KINDS
from modelwright.cli.manifest_lint import lint_files
from scripts import olm
from tests.packaging.render import Object, template, tool

pytestmark = pytest.mark.chart

CSV = "manifests/modelwright.clusterserviceversion.yaml"


@cache
def files() -> dict[str, str]:
    return olm.bundle()


def objects() -> dict[str, Object]:
    return {name: yaml.safe_load(text) for name, text in files().items() if name.startswith("manifests/")}


def written(folder: Path, bundle: dict[str, str]) -> Path:
    for name, text in bundle.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "manifests"


def verified(manifests: Path) -> str:
    """What OLM's own validators say; nothing when all is well. Their exit code says nothing."""
    command = [tool("operator-verify"), "manifests", "--object_validate", str(manifests)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr


def closed(node: Any) -> Any:
    """A structural schema that also refuses what the API server would drop."""
    if isinstance(node, list):
        return [closed(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    found = {key: closed(value) for key, value in node.items()}
    is_open = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not is_open:
        found["additionalProperties"] = False
    return found


def faults(version: Object) -> list[str]:
    """What the CRD of ClusterServiceVersions says of one."""
    (path,) = parts.olm_crds().iterdir()
    (served,) = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]["versions"]
    schema = closed(served["schema"]["openAPIV3Schema"])
    # The schema leaves these to the API server.
    schema["properties"]["metadata"] = {"type": "object"}
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(version)]


def test_olms_own_validators_find_nothing(tmp_path: Path) -> None:
    assert verified(written(tmp_path, files())) == ""


def test_olms_own_validators_would_find_something(tmp_path: Path) -> None:
    wrong = files()[CSV].replace('"kind": "ModelRuntime"', '"kind": "Runtime"')
    assert "Kind=Runtime" in verified(written(tmp_path, {**files(), CSV: wrong}))


def test_the_version_is_what_its_crd_takes() -> None:
    version = objects()[CSV]
    assert faults(version) == []
    assert "'instalModes' was unexpected" in faults({**version, "spec": {**version["spec"], "instalModes": []}})[0]


def test_rights_and_pods_are_the_charts() -> None:
    chart = {(obj["kind"], obj["metadata"]["name"]): obj for obj in template(podSecurity="Platform")}
    install = objects()[CSV]["spec"]["install"]["spec"]
    for entry, kind, name in (
        ("clusterPermissions", "ClusterRole", "modelwright"),
        ("permissions", "Role", "modelwright-lease"),
    ):
        assert install[entry] == [{"serviceAccountName": "modelwright", "rules": chart[kind, name]["rules"]}]
    (deployment,) = install["deployments"]
    assert deployment["spec"] == chart["Deployment", "modelwright"]["spec"]
    # OpenShift gives each namespace users of its own.
    assert "runAsUser" not in str(deployment)


def test_what_the_chart_has_besides_is_in_the_bundle() -> None:
    bundled = {(obj["kind"], obj["metadata"]["name"]) for obj in objects().values()}
    for obj in template(runtimes={"enabled": False}):
        name = obj["metadata"]["name"]
        if obj["kind"] not in olm.FROM_CSV and (obj["kind"], name) not in {
            ("ClusterRole", "modelwright"),
            ("Role", "modelwright-lease"),
            ("Pod", "modelwright-test"),
        }:
            assert (obj["kind"], name) in bundled
    assert {f"modelwright-{role}" for role in ("view", "edit", "command", "approve", "admin")} <= {
        name for kind, name in bundled if kind == "ClusterRole"
    }


def test_nothing_is_in_a_namespace_or_says_that_it_is_helms() -> None:
    for name, obj in objects().items():
        assert "namespace" not in obj["metadata"], name
        assert not set(olm.HELM_LABELS) & obj["metadata"].get("labels", {}).keys(), name


def test_every_kind_is_owned_and_has_a_valid_example() -> None:
    version = objects()[CSV]
    kinds = [kind.__name__ for kind in KINDS]
    assert [owned["kind"] for owned in version["spec"]["customresourcedefinitions"]["owned"]] == kinds
    examples = json.loads(version["metadata"]["annotations"]["alm-examples"])
    assert sorted(obj["kind"] for obj in examples) == sorted(kinds)
    found = lint_files([(obj["kind"], json.dumps(obj)) for obj in examples], None)
    assert [finding for finding in found if finding.is_error] == []


def test_pushed_images_come_by_the_charts_values(tmp_path: Path) -> None:
    values = tmp_path / "images.yaml"
    digest = "sha256:" + "0" * 64
    values.write_text(yaml.safe_dump({"image": {"repository": "r.example.com/operator", "digest": digest}}))
    version = yaml.safe_load(olm.bundle([values])[CSV])
    assert version["metadata"]["annotations"]["containerImage"] == f"r.example.com/operator@{digest}"
    assert {"name": "operator", "image": f"r.example.com/operator@{digest}"} in version["spec"]["relatedImages"]


def test_the_image_of_the_bundle_says_what_its_metadata_say() -> None:
    said = yaml.safe_load(files()["metadata/annotations.yaml"])["annotations"]
    labels = [line.removeprefix("LABEL ") for line in files()["bundle.Dockerfile"].splitlines() if "LABEL" in line]
    assert dict(label.split("=", 1) for label in labels) == said
