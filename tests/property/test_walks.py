"""A Model's spec goes from A by other valid specs back to A: it ends each time as that spec says, by A as at first.

Random valid specs, each waited for until it is at rest, against the real reconcilers on a simulated cluster.
"""

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.v1alpha1.model import Model
from modelwright.kube import kinds
from tests.lib.kstatus import faults, is_ready
from tests.lib.rollout_harness import CANARY, GATEWAY, NS, RolloutHarness

Object = dict[str, Any]
PATIENCE = 80
CHILDREN = (
    kinds.DEPLOYMENT,
    kinds.SERVICE,
    kinds.POD_DISRUPTION_BUDGET,
    kinds.HORIZONTAL_POD_AUTOSCALER,
    kinds.HTTP_ROUTE,
)
NO_IDENTITY = ("uid", "resourceVersion", "generation", "creationTimestamp")


def _only_given(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries({}, optional=members)


QUANTITIES = _only_given(cpu=st.sampled_from(["1", "500m", "2"]), memory=st.sampled_from(["1Gi", "512Mi"]))
AUTOSCALING = st.builds(
    lambda least, more: {"minReplicas": least, "maxReplicas": least + more}, st.integers(1, 3), st.integers(0, 2)
)
POD_TEMPLATES = _only_given(
    metadata=_only_given(labels=st.just({"team": "vision"}), annotations=st.just({"note": "x"})),
    spec=_only_given(nodeSelector=st.just({"disk": "ssd"}), priorityClassName=st.just("high")),
)
SHAPES = _only_given(
    resources=_only_given(requests=QUANTITIES),
    podTemplate=POD_TEMPLATES,
    drainSeconds=st.integers(0, 60),
    maxRequestSeconds=st.sampled_from([10, 600]),
    startTimeout=st.sampled_from(["1m", "20m"]),
    restartedAt=st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
)
SIZES = st.one_of(
    st.just({}),
    st.builds(lambda count: {"replicas": count}, st.integers(1, 4)),
    st.builds(lambda scaling: {"autoscaling": scaling}, AUTOSCALING),
)
ENDPOINTS = st.builds(
    lambda more: {**GATEWAY, **more},
    _only_given(
        hostnames=st.just(["digits.example.com"]),
        pathPrefix=st.sampled_from(["/", "/digits"]),
    ),
)
SPECS = st.builds(
    lambda version, shape, size, more: {"version": {"name": version}, "serving": {**shape, **size}, **more},
    st.sampled_from(["v1", "v2", "v3"]),
    SHAPES,
    SIZES,
    _only_given(endpoint=ENDPOINTS, owner=st.just({"team": "vision"})),
)


@given(first=SPECS, others=st.lists(SPECS, min_size=1, max_size=3))
@settings(max_examples=25)
def test_a_walk_that_comes_back_ends_as_it_began(first: Object, others: list[Object]) -> None:
    world = RolloutHarness(None)
    began = _at_rest(world, first)
    for other in others:
        _at_rest(world, other)
    assert _at_rest(world, first) == began


@given(first=SPECS, other=SPECS)
@settings(max_examples=10)
def test_so_does_one_whose_versions_change_by_a_canary(first: Object, other: Object) -> None:
    world = RolloutHarness(CANARY)
    first, other = ({**spec, "endpoint": GATEWAY, "rolloutPolicyRef": {"name": "steps"}} for spec in (first, other))
    began = _at_rest(world, first)
    _at_rest(world, other)
    assert _at_rest(world, first) == began


def _at_rest(world: RolloutHarness, spec: Object) -> str:
    """The Model with this spec, once it is ready and nothing is written any more: its children and its status."""
    live = world.model
    Model.parse({**live, "spec": spec})
    gone = {key: None for key in live["spec"] if key != "version"}
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": gone})
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": spec})
    for _ in range(PATIENCE):
        _look(world)
        if world.serving == spec["version"]["name"] and is_ready(world.model):
            break
    assert is_ready(world.model), world.model["status"]
    writes = -1
    while writes != len(world.api.writes):
        writes = len(world.api.writes)
        for _ in range(10):
            _look(world)
    assert faults(world.model) == []
    return _picture(world)


def _look(world: RolloutHarness) -> None:
    """One look, after autoscalers that have nothing to do have scaled to their least."""
    for (kind, namespace, name), scaler in list(world.api.objects.items()):
        if kind == kinds.HORIZONTAL_POD_AUTOSCALER:
            least = {"spec": {"replicas": scaler["spec"]["minReplicas"]}}
            world.api.user_patch(kinds.DEPLOYMENT, namespace, name, least)
    world.look()


def _picture(world: RolloutHarness) -> str:
    result = []
    for (kind, _, name), obj in sorted(world.api.objects.items(), key=lambda item: (item[0][0].kind, item[0][2])):
        if kind in CHILDREN:
            plain = copy.deepcopy({key: value for key, value in obj.items() if key != "status"})
            plain["metadata"] = {k: v for k, v in plain["metadata"].items() if k not in NO_IDENTITY}
            result.append((kind.kind, name, plain))
    status = world.model["status"]
    told = [(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]]
    said = {key: status.get(key) for key in ("url", "target", "runtime", "replicas", "readyReplicas")}
    serving = {key: value for key, value in status["serving"].items() if key != "since"}
    return json.dumps([result, told, said, serving, status["traffic"]], indent=1, sort_keys=True)
