"""What is left after a Model, or its namespace, is deleted: nothing of ours."""

from modelwright.kube import kinds
from tests.controlplane.scenarios import CHILDREN, Space, scenario
from tests.lib import objects
from tests.lib.api import NAMESPACE, eventually
from tests.lib.kstatus import is_ready


async def _all(space: Space) -> list[str]:
    return [f"{kind} {c['metadata']['name']}" for kind in CHILDREN for c in await space.children(kind)]


@scenario
async def deleting_a_model_takes_its_children_and_leaves_its_versions(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    await space.serve(serving={"replicas": 2}, endpoint=objects.endpoint(space.namespace))
    assert len(await _all(space)) == 6
    await space.api.delete(kinds.MODEL, space.namespace, "digits")
    await eventually(lambda: _all(space), lambda left: not left, "no child is left")
    version = await space.api.get(kinds.MODEL_VERSION, space.namespace, "v1")
    assert version is not None
    assert is_ready(version)


@scenario
async def deleting_a_model_in_the_middle_of_a_rollout_leaves_nothing(space: Space) -> None:
    await space.serve()
    await space.apply(space.version("v2"), space.model(version="v2"))
    await space.only(kinds.DEPLOYMENT, 2)
    await space.api.delete(kinds.MODEL, space.namespace, "digits")
    await eventually(lambda: _all(space), lambda left: not left, "no child is left")


@scenario
async def a_model_made_again_at_once_serves_and_takes_over_nothing(space: Space) -> None:
    first = await space.serve()
    await space.api.delete(kinds.MODEL, space.namespace, "digits")
    await space.apply(space.model())
    second = await space.ready(version="v1")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONTROLLER_REVISION):
        owners = (await space.child(kind))["metadata"]["ownerReferences"]
        assert [o["uid"] for o in owners] == [second["metadata"]["uid"]]
    assert [event for event in await space.events() if event[0] == "Warning"] == []


@scenario
async def deleting_a_model_but_not_its_children_leaves_them_running_without_an_owner(space: Space) -> None:
    await space.serve()
    path = kinds.MODEL.path(space.namespace, "digits")
    await space.api.call("DELETE", path, {"propagationPolicy": "Orphan"})
    await space.gone(kinds.MODEL, "digits")
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONTROLLER_REVISION):
        assert "ownerReferences" not in (await space.child(kind))["metadata"]


@scenario
async def deleting_the_namespace_takes_everything(space: Space) -> None:
    await space.serve(serving={"replicas": 2})
    await space.api.delete(NAMESPACE, None, space.namespace)
    await eventually(
        lambda: space.api.get(NAMESPACE, None, space.namespace), lambda seen: seen is None, "the namespace is gone"
    )
