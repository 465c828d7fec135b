"""Which runtime serves, and what becomes of a Model when its runtime is late, edited, bad or gone."""

from modelwright.kube import kinds
from tests.controlplane.scenarios import Space, scenario
from tests.lib import objects
from tests.lib.api import eventually
from tests.lib.kstatus import conditions


def _own(space: Space, name: str = "own", fmt: str = "own", **spec: object) -> dict:
    return objects.runtime(name, fmt, namespace=space.namespace, **spec)


@scenario
async def an_edited_runtime_restarts_nothing_until_asked(space: Space) -> None:
    await space.apply(_own(space), space.version("v1", fmt="own"), space.model())
    first = await space.ready()
    before = await space.child(kinds.DEPLOYMENT)
    await space.apply(_own(space, container={"image": "example.com/server:2"}))
    model = await space.until(kinds.MODEL, "digits", lambda m: bool(m["status"].get("outdated")), "outdated")
    assert "ModelRuntime own was edited" in model["status"]["outdated"]
    assert conditions(model)["Ready"]["status"] == "True"
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["generation"] == before["metadata"]["generation"]
    asked = space.model(serving={"restartedAt": "2026-11-21T03:00:00Z"})
    await space.apply(asked)
    second = await space.until(
        kinds.MODEL,
        "digits",
        lambda m: m["status"]["serving"]["revision"] != first["status"]["serving"]["revision"],
        "a new revision",
    )
    await space.only(kinds.DEPLOYMENT, 1)
    container = (await space.child(kinds.DEPLOYMENT))["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "example.com/server:2"
    second = await space.ready()
    assert "outdated" not in second["status"]


@scenario
async def a_runtime_deleted_while_it_serves_restarts_nothing(space: Space) -> None:
    await space.apply(_own(space), space.version("v1", fmt="own"), space.model(serving={"runtimeRef": _ref("own")}))
    await space.ready()
    before = await space.child(kinds.DEPLOYMENT)
    await space.api.delete(kinds.MODEL_RUNTIME, space.namespace, "own")
    model = await space.waits("WaitingForRuntime")
    assert conditions(model)["Available"]["status"] == "True"
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["generation"] == before["metadata"]["generation"]
    await space.api.delete(kinds.DEPLOYMENT, space.namespace, before["metadata"]["name"])
    await eventually(
        lambda: space.children(kinds.DEPLOYMENT),
        lambda seen: [d for d in seen if d["metadata"]["uid"] != before["metadata"]["uid"]],
        "the Deployment is back from its stored template",
    )
    await space.apply(_own(space))
    await space.ready()


@scenario
async def a_bad_runtime_that_is_mended_before_the_revision_ever_worked_is_taken_up(space: Space) -> None:
    bad = {
        "args": ["--wrong"],
        "env": [{"name": "WRONG", "value": "1"}, {"name": "KEPT", "value": "1"}],
        "resources": {"requests": {"cpu": "100000"}},
    }
    await space.apply(_own(space, container=bad, ports={"http": 8080, "grpc": 9000}))
    await space.apply(space.version("v1", fmt="own"), space.model())
    await space.stalls("Unschedulable")
    await space.apply(_own(space, container={"env": [{"name": "KEPT", "value": "1"}]}))
    await space.ready()
    container = (await space.child(kinds.DEPLOYMENT))["spec"]["template"]["spec"]["containers"][0]
    assert "args" not in container
    assert "WRONG" not in [e["name"] for e in container["env"]]
    assert "cpu" not in container["resources"]["requests"] or container["resources"]["requests"]["cpu"] == "1m"
    assert [p["containerPort"] for p in container["ports"]] == [8080]


@scenario
async def an_explicit_runtime_is_waited_for(space: Space) -> None:
    await space.apply(space.version("v1", fmt="own"), space.model(serving={"runtimeRef": _ref("own")}))
    model = await space.waits("WaitingForRuntime")
    assert "spec.serving.runtimeRef" in conditions(model)["Reconciling"]["message"]
    await space.apply(_own(space))
    model = await space.ready()
    assert model["status"]["runtime"] == {
        "kind": "ModelRuntime",
        "name": "own",
        "reason": "ModelRuntime own: named by spec.serving.runtimeRef",
    }


@scenario
async def of_two_runtimes_equal_in_priority_the_name_decides_and_is_said_to(space: Space) -> None:
    await space.apply(_own(space, "zulu"), _own(space, "alpha"), space.version("v1", fmt="own"), space.model())
    model = await space.ready()
    assert model["status"]["runtime"]["name"] == "alpha"
    reason = model["status"]["runtime"]["reason"]
    assert "also matched: zulu (priority 0); equal in priority, so the name decided" in reason


@scenario
async def a_format_that_nothing_serves_is_said_with_what_is_on_offer(space: Space) -> None:
    await space.apply(space.version("v1", fmt="exotic"), space.model())
    await space.stalls("NoSupportingRuntime", says="no runtime serves format exotic")
    await space.apply(_own(space, fmt="exotic"))
    await space.ready()


@scenario
async def a_disabled_runtime_is_not_used_and_enabling_it_goes_on(space: Space) -> None:
    await space.apply(_own(space, disabled=True), space.version("v1", fmt="own"))
    await space.apply(space.model(serving={"runtimeRef": _ref("own")}))
    await space.stalls("RuntimeDisabled", says="spec.disabled")
    await space.apply(_own(space, disabled=False))
    await space.ready()


@scenario
async def a_runtime_without_the_grpc_port_of_the_one_before_takes_it_from_the_service(space: Space) -> None:
    await space.apply(_own(space, "both", "both", ports={"http": 8080, "grpc": 9000}), space.version("v1", fmt="both"))
    await space.apply(space.model())
    await space.ready(version="v1")
    assert [p["name"] for p in (await space.child(kinds.SERVICE))["spec"]["ports"]] == ["http", "grpc"]
    await space.apply(_own(space), space.version("v2", fmt="own"), space.model(version="v2"))
    await space.ready(version="v2")
    assert [p["name"] for p in (await space.child(kinds.SERVICE))["spec"]["ports"]] == ["http"]


def _ref(name: str) -> dict:
    return {"kind": "ModelRuntime", "name": name}
