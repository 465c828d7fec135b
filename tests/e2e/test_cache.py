"""A Model with a cache on a PersistentVolumeClaim: its pods start again while the store is down."""

import base64
import json

import pytest

from tests.e2e.lib.space import Space, eventually

STORE = """
import http.server, os
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
os.chdir("/srv/models")
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


@pytest.fixture
def store(space: Space) -> str:
    """A store in a pod of this test's own, since it is going to be taken down; returns the artifact's address."""
    model = json.dumps({"behaviour": {}})
    labels = {"app": "store"}
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "store", "namespace": space.name},
            "data": {"serve.py": STORE},
            "binaryData": {"model.json": base64.b64encode(model.encode()).decode()},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "store", "namespace": space.name},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "store", "namespace": space.name, "labels": labels},
            "spec": {
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "store",
                        "image": space.world.images["v2-test"],
                        "command": ["python3", "/srv/models/serve.py"],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        "readinessProbe": {"httpGet": {"path": "/model.json", "port": 8080}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "models", "mountPath": "/srv/models"}],
                    }
                ],
                "volumes": [{"name": "models", "configMap": {"name": "store"}}],
            },
        },
    )
    space.kubectl.run("wait", "-n", space.name, "--for=condition=Ready", "pod/store", "--timeout=60s")
    return f"http://store.{space.name}.svc.cluster.local/model.json"


def test_a_pod_starts_again_while_the_store_is_down(space: Space, store: str):
    space.world.cluster.volumes(1)
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": space.name},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "local",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        space.version("digits-1", uri=store, secret=None),
        space.model("digits-1", replicas=2, cache={"persistentVolumeClaim": "models"}),
    )
    space.wait_ready("digits-1")
    space.asks("digits-1")

    space.delete("pods", "store", wait=True)
    before = {pod["metadata"]["uid"] for pod in space.pods()}
    space.kubectl.run("delete", "pods", "-n", space.name, "-l", "modelwright.dev/role=serving", "--wait=true")
    eventually(lambda: before.isdisjoint(pod["metadata"]["uid"] for pod in space.pods()), "other pods", timeout=60)
    space.wait("two ready pods", lambda obj: obj["status"].get("readyReplicas") == 2)
    space.asks("digits-1")


def test_two_models_share_one_copy(space: Space, store: str):
    space.world.cluster.volumes(1)
    claim = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    metadata = {"name": "models", "namespace": space.name}
    space.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
        space.version("digits-1", uri=store, secret=None),
        space.model("digits-1", cache={"persistentVolumeClaim": "models"}),
    )
    space.wait_ready("digits-1")
    digest = space.get("modelversions.modelwright.dev", "digits-1")["status"]["artifact"]["digest"]
    space.delete("pods", "store", wait=True)
    # The digest is stated, so nothing has to be resolved; the content comes from the volume alone.
    space.apply(
        space.version("other-1", "other", uri=store, secret=None, digest=digest),
        space.model("other-1", "other", cache={"persistentVolumeClaim": "models"}),
    )
    space.wait_ready("other-1", "other")
    space.asks("other-1", "other")
