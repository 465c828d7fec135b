"""A Model with a cache on a PersistentVolumeClaim: its pods start again while the store is down."""

import pytest

from tests.e2e.lib.space import Space, eventually
from tests.e2e.lib.store import start_store


@pytest.fixture
def store(space: Space) -> str:
    """Address of an artifact in a store that the test may take down."""
    return f"{start_store(space)}/ok/model.json"


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
