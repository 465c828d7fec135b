"""How many pods: PodDisruptionBudgets, autoscalers, and who may say how many."""

from modelwright.kube import kinds
from tests.controlplane.scenarios import Space, scenario
from tests.lib import objects
from tests.lib.kstatus import is_ready


@scenario
async def a_disruption_budget_is_there_only_with_more_than_one_pod(space: Space) -> None:
    await space.serve()
    assert await space.children(kinds.POD_DISRUPTION_BUDGET) == []
    await space.apply(space.model(serving={"replicas": 2}))
    await space.ready(replicas=2)
    await space.only(kinds.POD_DISRUPTION_BUDGET, 1)
    await space.apply(space.model(serving={"replicas": 1}))
    await space.ready(replicas=1)
    await space.only(kinds.POD_DISRUPTION_BUDGET, 0)
    await space.apply(space.model(serving={"replicas": 0}))
    model = await space.ready(replicas=0)
    assert (await space.child(kinds.DEPLOYMENT))["spec"]["replicas"] == 0
    reasons = {c["type"]: c["reason"] for c in model["status"]["conditions"]}
    assert reasons["Available"] == "ScaledToZero"


@scenario
async def a_model_may_begin_without_pods(space: Space) -> None:
    await space.serve(serving={"replicas": 0})
    await space.apply(space.model(serving={"replicas": 1}))
    await space.ready(replicas=1)


@scenario
async def an_autoscaler_appears_when_it_serves_and_its_number_is_never_rewritten(space: Space) -> None:
    auto = {"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}
    await space.apply(
        objects.runtime(
            "huge", "huge", namespace=space.namespace, container={"resources": {"requests": {"cpu": "100000"}}}
        ),
        space.version("v0", fmt="huge"),
        space.model(version="v0", serving=auto),
    )
    await space.stalls("Unschedulable")
    assert await space.children(kinds.HORIZONTAL_POD_AUTOSCALER) == []
    await space.serve(serving=auto)
    (scaler,) = await space.only(kinds.HORIZONTAL_POD_AUTOSCALER, 1)
    (deployment,) = await space.only(kinds.DEPLOYMENT, 1)
    name = deployment["metadata"]["name"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == name
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 6)
    await space.api.patch(kinds.DEPLOYMENT, space.namespace, name, {"spec": {"replicas": 4}}, "scale")
    await space.until(kinds.MODEL, "digits", lambda m: is_ready(m) and m["status"]["replicas"] == 4, "four pods")
    await space.pass_over()
    assert (await space.child(kinds.DEPLOYMENT))["spec"]["replicas"] == 4
    # The next revision begins with as many as serve now, so that it isn't overrun.
    await space.apply(space.version("v2"), space.model(version="v2", serving=auto))
    await space.ready(version="v2")
    await space.only(kinds.DEPLOYMENT, 1)
    (scaler,) = await space.only(kinds.HORIZONTAL_POD_AUTOSCALER, 1)
    assert (await space.child(kinds.DEPLOYMENT))["spec"]["replicas"] == 4
    edited = {"autoscaling": {"minReplicas": 3, "maxReplicas": 5, "metrics": [_cpu(60)]}}
    await space.apply(space.model(version="v2", serving=edited))
    await space.until(
        kinds.HORIZONTAL_POD_AUTOSCALER,
        scaler["metadata"]["name"],
        lambda h: h["spec"]["minReplicas"] == 3 and h["spec"]["metrics"] == [_cpu(60)],
        "edited",
    )
    await space.apply(space.model(version="v2", serving={"replicas": 1}))
    await space.ready(version="v2", replicas=1)
    await space.only(kinds.HORIZONTAL_POD_AUTOSCALER, 0)
    assert (await space.child(kinds.DEPLOYMENT))["spec"]["replicas"] == 1


def _cpu(percent: int) -> dict:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}
