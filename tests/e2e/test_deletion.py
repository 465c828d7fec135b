"""What deleting does: the Model's children go in order, and what serves outlives the objects it was made from."""

import time

import pytest
import yaml

from demo.kubectl import KubectlError
from devcluster.load import BackgroundLoad
from tests.e2e.conftest import RUNTIME
from tests.e2e.lib.space import CHILDREN, MODELS, ROUTES, VERSIONS, Space, eventually


@pytest.fixture
def served(space: Space) -> Space:
    space.apply(space.version("digits-1"), space.model("digits-1"))
    space.wait_ready("digits-1")
    space.asks("digits-1")
    return space


def test_deleting_a_model_deletes_children_and_keeps_versions(served: Space):
    before = served.children()
    assert all(before[kind] for kind in ("deployments.apps", "services", "controllerrevisions.apps", ROUTES))
    served.delete(MODELS, "digits", wait=True)
    eventually(lambda: not any(served.children().values()), "no child is left", timeout=90)
    eventually(lambda: not served.pods(), "no pod is left", timeout=90)
    assert served.get(VERSIONS, "digits-1"), "a version belongs to the user"


def test_requests_under_way_are_answered_while_a_model_is_deleted(space: Space):
    slow = {"latency": {"distribution": "constant", "seconds": 3}}
    space.apply(space.version("digits-1", behaviour=slow), space.model("digits-1"))
    space.wait_ready("digits-1")
    space.asks("digits-1", timeout=60)
    with BackgroundLoad(space.target(), rate=5) as load:
        time.sleep(2.5)
        load.send_no_more()
        space.delete(MODELS, "digits")
    assert load.report.lost == [], "\n".join(load.report.lines())
    assert load.report.answered >= 10


def test_what_serves_outlives_its_version(served: Space):
    pods = {pod["metadata"]["uid"] for pod in served.pods()}
    served.delete(VERSIONS, "digits-1", wait=True)
    model = served.wait("said to miss its version", lambda obj: _mentions(obj, "digits-1"), timeout=60)
    assert model["status"]["serving"]["version"] == "digits-1"
    time.sleep(5)
    served.asks("digits-1")
    assert {pod["metadata"]["uid"] for pod in served.pods()} == pods, "no pod was restarted"


def _mentions(obj: dict, version: str) -> bool:
    return any(
        condition["status"] != "False"
        and condition["reason"] in ("WaitingForVersion", "VersionNotFound")
        and version in condition["message"]
        for condition in obj["status"]["conditions"]
    )


def test_what_serves_outlives_its_runtime(space: Space, world):
    runtime = yaml.safe_load(RUNTIME.read_text())
    runtime["kind"] = "ModelRuntime"
    runtime["metadata"] = {"name": "own", "namespace": space.name}
    runtime["spec"]["container"]["image"] = world.images["v2-test"]
    space.apply(
        runtime, space.version("digits-1"), space.model("digits-1", runtimeRef={"kind": "ModelRuntime", "name": "own"})
    )
    space.wait_ready("digits-1")
    pods = {pod["metadata"]["uid"] for pod in space.pods()}
    space.delete("modelruntimes.modelwright.dev", "own", wait=True)
    time.sleep(5)
    space.asks("digits-1")
    # Drift repair works from the stored template, though nothing could render it now.
    deployment = space.children()["deployments.apps"][0]
    space.delete("deployments.apps", deployment, wait=True)
    eventually(lambda: space.get("deployments.apps", deployment), "the Deployment is back", timeout=60)
    eventually(lambda: {pod["metadata"]["uid"] for pod in space.pods()} - pods, "it has pods again", timeout=60)
    space.asks("digits-1", timeout=90)


def test_a_deleted_child_comes_back(served: Space):
    for kind in (*CHILDREN[:2], ROUTES):
        name = served.children()[kind][0]
        uid = served.get(kind, name)["metadata"]["uid"]
        served.delete(kind, name, wait=True)
        eventually(
            lambda kind=kind, name=name, uid=uid: (
                served.get(kind, name)["metadata"]["uid"] != uid if served.get(kind, name) else False
            ),
            f"{kind} {name} is back",
            timeout=60,
        )
    served.wait_ready("digits-1")
    served.asks("digits-1", timeout=60)


def test_a_namespace_goes_without_help(served: Space):
    served.kubectl.delete("namespace", served.name)
    eventually(lambda: served.kubectl.get("namespace", served.name) is None, "the namespace is gone", timeout=120)


def test_an_immutable_field_is_refused_and_serving_goes_on(served: Space):
    version = served.get(VERSIONS, "digits-1")
    version["spec"]["artifact"]["uri"] = "s3://models/elsewhere"
    with pytest.raises(KubectlError, match=r"spec\.artifact.* is immutable"):
        served.apply(version)
    served.asks("digits-1")
