"""The example repository for GitOps: kustomize renders it, and what it renders is what the API accepts."""

from __future__ import annotations

import re

import pytest
import yaml

from modelwright.cli.manifest_lint import lint_files
from tests.packaging.render import ROOT, kustomize, objects, only

pytestmark = pytest.mark.chart

EXAMPLE = ROOT / "examples" / "gitops"
ENVIRONMENTS = ("staging", "production")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_is_accepted_as_it_is_rendered(environment: str) -> None:
    found = kustomize(EXAMPLE / "environments" / environment)
    findings = lint_files([(environment, yaml.safe_dump_all(found))], None)
    assert [finding for finding in findings if finding.is_error] == []
    assert {obj["metadata"].get("namespace") for obj in found} == {None, f"digits-{environment}"}
    model, policy = only(found, "Model"), only(found, "RolloutPolicy")
    assert model["spec"]["rolloutPolicyRef"]["name"] == policy["metadata"]["name"]
    for version in (obj for obj in found if obj["kind"] == "ModelVersion"):
        assert version["spec"]["modelRef"]["name"] == model["metadata"]["name"]


def test_staging_follows_and_production_pins_an_existing_version() -> None:
    staging, production = (kustomize(EXAMPLE / "environments" / each) for each in ENVIRONMENTS)
    assert only(staging, "Model")["spec"]["version"] == {"follow": {}}
    wanted = only(production, "Model")["spec"]["version"]["name"]
    assert only(production, "ModelVersion", wanted)
    assert only(production, "RolloutPolicy")["spec"]["gates"] == {"approval": {"required": 1, "timeout": "48h"}}


def test_the_tools_are_pointed_at_what_is_there() -> None:
    (applications,) = objects((EXAMPLE / "argocd" / "applications.yaml").read_text())
    (project,) = objects((EXAMPLE / "argocd" / "project.yaml").read_text())
    (generator,) = applications["spec"]["generators"]
    source = applications["spec"]["template"]["spec"]["source"]
    assert project["spec"]["sourceRepos"] == [source["repoURL"]]
    environments = [element["environment"] for element in generator["list"]["elements"]]
    assert sorted(environments) == sorted(path.name for path in (EXAMPLE / "environments").iterdir())
    assert source["path"].replace("{{.environment}}", "staging") == "environments/staging"
    assert {d["namespace"] for d in project["spec"]["destinations"]} == {f"digits-{each}" for each in environments}
    checks = yaml.safe_load((EXAMPLE / "flux" / "health-checks.yaml").read_text())["spec"]["healthCheckExprs"]
    kustomizations = [obj for obj in kustomize(EXAMPLE / "flux") if obj["kind"] == "Kustomization"]
    assert sorted(k["spec"]["path"] for k in kustomizations) == sorted(
        f"./environments/{each}" for each in environments
    )
    for kustomization in kustomizations:
        assert kustomization["spec"]["healthCheckExprs"] == checks


def test_argo_cd_may_apply_the_environments_and_no_approval() -> None:
    (project,) = objects((EXAMPLE / "argocd" / "project.yaml").read_text())
    allowed = {entry["kind"] for entry in project["spec"]["namespaceResourceWhitelist"]}
    rendered = {obj["kind"] for each in ENVIRONMENTS for obj in kustomize(EXAMPLE / "environments" / each)}
    assert rendered - {"Namespace"} <= allowed
    assert "Approval" not in allowed


def test_flux_may_apply_the_environments_and_no_approval() -> None:
    rendered = kustomize(EXAMPLE / "flux")
    account = only(rendered, "ServiceAccount")["metadata"]
    for kustomization in (obj for obj in rendered if obj["kind"] == "Kustomization"):
        assert kustomization["spec"]["serviceAccountName"] == account["name"]
        assert kustomization["metadata"]["namespace"] == account["namespace"]
    bindings = [obj for obj in rendered if obj["kind"] == "RoleBinding"]
    found = {(each["metadata"]["namespace"], each["roleRef"]["name"]) for each in bindings}
    roles = ("modelwright-view", "modelwright-edit", "flux-names")
    assert found == {(f"digits-{each}", role) for each in ENVIRONMENTS for role in roles}
    subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    assert all(each["subjects"] == [subject] for each in bindings)
    for each in ENVIRONMENTS:
        (role,) = [
            obj for obj in rendered if obj["kind"] == "Role" and obj["metadata"]["namespace"] == f"digits-{each}"
        ]
        named = set(
            re.findall(r"credentialsSecretRef.*?'name': '([^']+)'", str(kustomize(EXAMPLE / "environments" / each)))
        )
        assert named == set(role["rules"][0]["resourceNames"])
    namespaces = only(rendered, "ClusterRole")["rules"][0]["resourceNames"]
    assert sorted(namespaces) == sorted(f"digits-{each}" for each in ENVIRONMENTS)


def test_who_may_press_an_action_presses_one_that_is_there() -> None:
    (project,) = objects((EXAMPLE / "argocd" / "project.yaml").read_text())
    (role,) = project["spec"]["roles"]
    actions = [text.split(", ")[3] for text in role["policies"] if ", action/" in text]
    assert actions
    for action in actions:
        _, group, kind, name = action.split("/")
        assert (ROOT / "manifests" / "argocd" / group / kind / "actions" / name / "action.lua").exists()


@pytest.mark.parametrize("path", sorted(EXAMPLE.rglob("*.yaml")), ids=lambda path: str(path.relative_to(EXAMPLE)))
def test_each_file_says_what_it_is_for(path) -> None:
    assert path.read_text().startswith("# ")
