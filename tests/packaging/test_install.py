"""The kustomize installs and the chart mean the same."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml

from tests.packaging.render import CRDS_CHART, INSTALL, NAMESPACE, ROOT, Object, kustomize, only, template

pytestmark = pytest.mark.chart

DIGEST = "sha256:" + "a" * 64
NO_RUNTIMES = {"enabled": False}


def without_hash(name: str) -> str:
    """The name of a ConfigMap without the hash that kustomize ends it with."""
    return re.sub(r"-[a-z0-9]{10}$", "", name) if name.startswith("modelwright-connections-") else name


def meaning(found: list[Object]) -> dict[tuple[str, str, str], Object]:
    """Objects by kind, namespace and name, without what says only who installed them."""
    result = {}
    for original in found:
        if original["kind"] == "Namespace" or "helm.sh/hook" in original["metadata"].get("annotations", {}):
            continue
        obj = copy.deepcopy(original)
        metadata = obj["metadata"]
        if obj["kind"] == "ConfigMap":
            metadata["name"] = without_hash(metadata["name"])
            obj["data"] = {name: yaml.safe_load(text) for name, text in obj["data"].items()}
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            metadata["labels"].pop(label, None)
        if obj["kind"] == "Deployment":
            pod = obj["spec"]["template"]
            # Both restart the operator when its connections change: kustomize by the name, the chart by an annotation.
            pod["metadata"]["annotations"].pop("modelwright.dev/connections", None)
            for volume in pod["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = without_hash(volume["configMap"]["name"])
            (container,) = pod["spec"]["containers"]
            variables = {}
            for variable in container["env"]:
                name = variable.pop("name")
                # Both installs of a namespaced operator watch the namespace they are in; the chart names it.
                if name == "MODELWRIGHT_WATCH_NAMESPACES" and "valueFrom" in variable:
                    variable = {"value": metadata["namespace"]}
                variables[name] = variable
            container["env"] = variables
        result[obj["kind"], metadata.get("namespace", ""), metadata["name"]] = obj
    return result


def test_cluster_install() -> None:
    assert meaning(kustomize(INSTALL / "cluster")) == meaning(template(runtimes=NO_RUNTIMES))


def test_namespaced_install() -> None:
    chart = template(watchNamespaces=[NAMESPACE], runtimes=NO_RUNTIMES)
    assert meaning(kustomize(INSTALL / "namespaced")) == meaning(chart)


def overlay(folder: Path, base: str, **content: object) -> list[Object]:
    """What a user's own kustomization on top of an install renders."""
    # kustomize takes bases by relative path only.
    up = "../" * (len(folder.resolve().parts) - 1)
    text = yaml.safe_dump({"resources": [up + str(INSTALL / base)[1:]], **content})
    (folder / "kustomization.yaml").write_text(text)
    return kustomize(folder)


def test_an_overlay_moves_the_whole_namespaced_install(tmp_path: Path) -> None:
    found = overlay(tmp_path, "namespaced", namespace="team-a")
    assert {o["metadata"]["namespace"] for o in found} == {"team-a"}
    subjects = [s for o in found if o["kind"] == "RoleBinding" for s in o["subjects"]]
    assert {s["namespace"] for s in subjects} == {"team-a"}


def test_an_overlay_renames_both_images(tmp_path: Path) -> None:
    images = [
        {"name": f"modelwright/{n}", "newName": f"r.example.com/{n}", "digest": DIGEST} for n in ("operator", "fetch")
    ]
    deployment = only(overlay(tmp_path, "cluster", images=images), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"r.example.com/operator@{DIGEST}"
    variables = {v["name"]: v.get("value") for v in container["env"]}
    assert variables["MODELWRIGHT_FETCH_IMAGE"] == f"r.example.com/fetch@{DIGEST}"
    assert variables["MODELWRIGHT_OPERATOR_IMAGE"] == container["image"]
    assert variables["MODELWRIGHT_LEASE_NAME"] == "modelwright-operator"


def test_an_overlay_sets_connections_and_renames_their_mounts(tmp_path: Path) -> None:
    before = only(kustomize(INSTALL / "cluster"), "ConfigMap")["metadata"]["name"]
    text = yaml.safe_dump({"connections": [{"name": "default", "type": "Prometheus", "url": "http://p:9090"}]})
    (tmp_path / "connections.yaml").write_text(text)
    generated = {"name": "modelwright-connections", "behavior": "replace", "files": ["connections.yaml"]}
    found = overlay(tmp_path, "cluster", namespace="modelwright-system", configMapGenerator=[generated])
    config = only(found, "ConfigMap")
    assert config["data"] == {"connections.yaml": text}
    assert config["metadata"]["name"] != before
    volumes = only(found, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "connections", "configMap": {"name": config["metadata"]["name"]}} in volumes


def test_the_namespace_enforces_the_restricted_level() -> None:
    (namespace,) = [o for o in kustomize(INSTALL / "cluster") if o["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_template_is_missing_from_the_comparison() -> None:
    templates = {path.stem for path in (ROOT / "charts" / "modelwright" / "templates").glob("*.yaml")}
    compared = {"connections", "deployment", "poddisruptionbudget", "rbac", "service", "serviceaccount"}
    assert templates - compared == {
        "dashboards",
        "modelnetworkpolicies",
        "networkpolicy",
        "podmonitor",
        "prometheusrule",
        "runtimes",
        "servicemonitor",
        "test",
    }


def test_the_administrators_part() -> None:
    found, chart = (
        {(o["kind"], o["metadata"]["name"]): o for o in rendered}
        for rendered in (kustomize(INSTALL / "crds"), template(CRDS_CHART, keep=False))
    )
    assert found == chart
