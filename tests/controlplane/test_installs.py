"""What the charts and kustomize render is accepted, field by field, by a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lib.control_plane import Server
from tests.packaging.render import CRDS_CHART, INSTALL, NAMESPACE, Object, kustomize, template

pytestmark = pytest.mark.controlplane

EVERYTHING: dict[str, Any] = {
    "labels": {"team": "platform"},
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 6443, "protocol": "TCP"}]}],
    },
    "connections": [{"name": "default", "type": "Prometheus", "url": "http://prometheus.monitoring.svc:9090"}],
    "connectionSecrets": ["prometheus"],
    "imagePullSecrets": ["pull"],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "training": {"kinds": [{"group": "jobset.x-k8s.io", "version": "v1alpha2", "kind": "JobSet", "plural": "jobsets"}]},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
}
RENDERED = {
    "the chart as it is": template,
    "the chart with all its parts": lambda: template(**EVERYTHING),
    "the chart for one namespace": lambda: template(watchNamespaces=["default"]),
    "the chart of CRDs": lambda: template(CRDS_CHART),
    "kustomize for a cluster": lambda: kustomize(INSTALL / "cluster"),
    "kustomize for one namespace": lambda: kustomize(INSTALL / "namespaced"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_an_install_is_accepted_as_it_is_rendered(crd_server: Server, name: str) -> None:
    namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    crd_server.ok("apply", "-f", "-", objects=namespace)
    found = [obj for obj in RENDERED[name]() if obj["kind"] != "Namespace"]
    assert found
    # A namespace that a manifest leaves open is the one that a user would apply it to.
    told = crd_server.run(
        "apply", "--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-", objects=found
    )
    assert told.returncode == 0, told.stderr
    assert "unknown" not in told.stderr
    assert len(told.stdout.splitlines()) == len(found)
