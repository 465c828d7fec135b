"""A store of a test's own, in a pod, so that it can be slow, break off or be taken down without harm to other tests."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.lib.space import Space

SERVER = Path(__file__).parents[2] / "servers" / "store" / "server.py"


def start_store(space: Space) -> str:
    """Starts pod and Service ``store``; returns its address. What it offers stands in tests/servers/store/server.py."""
    labels, metadata = {"app": "store"}, {"name": "store", "namespace": space.name}
    space.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"server.py": SERVER.read_text()}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata | {"labels": labels},
            "spec": {
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "store",
                        "image": space.world.images["v2-test"],
                        "command": ["python3", "/srv/server.py"],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        "readinessProbe": {"httpGet": {"path": "/ok/model.json", "port": 8080}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "server", "mountPath": "/srv"}],
                    }
                ],
                "volumes": [{"name": "server", "configMap": {"name": "store"}}],
            },
        },
    )
    space.kubectl.run("wait", "-n", space.name, "--for=condition=Ready", "pod/store", "--timeout=60s")
    return f"http://store.{space.name}.svc.cluster.local"
