"""Stories of the crash matrix: what there is before, what people do, and how it must end whatever dies meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from modelwright.kube import kinds
from tests.controlplane.scenarios import Object, Space
from tests.controlplane.scenarios.retraining import begin as begin_retraining
from tests.controlplane.scenarios.retraining import by_hand, play
from tests.controlplane.scenarios.rollouts import (
    APPROVED,
    ERRORS,
    QUICK,
    approval,
    back_by_hand,
    begin,
    by_alice,
    is_held,
    led,
    long_policy,
    newest,
    policy,
    record,
    set_up,
    tell,
    weights,
)
from tests.lib import objects
from tests.lib.api import eventually
from tests.lib.kstatus import is_ready, stalled

Act = Callable[[Space], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """`prepare` happens before, with an operator that doesn't die; `people` act while one dies, and wait as people do.

    `says`: whether what objects say in words is the same each time; measured numbers are in the words of others.
    """

    prepare: Act
    people: Act
    ended: Callable[[Space], Awaitable[bool]]
    says: bool = False


async def nothing(_: Space) -> None:
    """Nothing is there before."""


def model(space: Space, number: int) -> Object:
    """A Model without a policy, whose version is stamped from its template."""
    content = {"artifact": {"uri": f"s3://models/{number}", "format": {"name": "plain"}}}
    spec = {
        "version": {"template": content},
        "serving": {"replicas": 2},
        "endpoint": objects.endpoint(space.namespace, hostnames=[f"{space.namespace}.example.com"]),
    }
    return space.model(version=None) | {"spec": spec}


def _applies(number: int) -> Act:
    async def act(space: Space) -> None:
        await space.apply(model(space, number))

    return act


async def _serves_the_first(space: Space) -> None:
    await space.apply(model(space, 1))
    await space.ready()
    await space.only(kinds.DEPLOYMENT, 1)


async def _deletes(space: Space) -> None:
    await space.api.delete(kinds.MODEL, space.namespace, "digits")


def _serves(versions: int) -> Callable[[Space], Awaitable[bool]]:
    """The Model serves what it wants with one revision, there are so many versions, and none was refused."""

    async def ended(space: Space) -> bool:
        found = await space.api.get(kinds.MODEL, space.namespace, "digits")
        if (
            found is None
            or not is_ready(found)
            or found["status"]["serving"] | {"since": None} != (found["status"]["target"] | {"since": None})
        ):
            return False
        seen = [v.get("status", {}).get("stage") for v in await space.api.list(kinds.MODEL_VERSION, space.namespace)]
        return seen == [None] * versions and await _deployments(space) == 1

    return ended


async def _all_gone(space: Space) -> bool:
    found = await space.api.get(kinds.MODEL, space.namespace, "digits")
    versions = await space.api.list(kinds.MODEL_VERSION, space.namespace)
    return found is None and not versions and not await _deployments(space)


async def _deployments(space: Space) -> int:
    return len(await space.api.list(kinds.DEPLOYMENT, space.namespace))


def _prepared(make: Callable[[Space], Object], versions: int = 2, **spec: Any) -> Act:
    async def prepare(space: Space) -> None:
        await begin(space, make(space), versions=versions, **spec)

    return prepare


def _wants(version: str, **spec: Any) -> Act:
    async def people(space: Space) -> None:
        await space.apply(led(space, version, **spec))

    return people


def _ends(
    version: str, state: str, reason: str, deployments: int = 1, good: Callable[[Object], bool] = is_ready
) -> Callable[[Space], Awaitable[bool]]:
    """The last rollout to a version has ended so, and the Model is as it must be then."""

    async def ended(space: Space) -> bool:
        last = await newest(space, version)
        found = await space.api.get(kinds.MODEL, space.namespace, "digits")
        status = (last or {}).get("status", {})
        told = (status.get("state"), status.get("reason")) == (state, reason)
        return told and found is not None and good(found) and await _deployments(space) == deployments

    return ended


async def _bad_candidate(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]))
    space.metrics.answers(space.namespace, "v2", bad=0.3)


async def _without_a_model(space: Space) -> None:
    await set_up(space)


async def _led_by_a_long_policy(space: Space) -> None:
    await space.apply(long_policy(space), led(space, "v1"))
    await space.ready(version="v1")
    await space.apply(led(space, "v2"))


async def _supersede(space: Space) -> None:
    # v2 answers nobody, so that it holds until v3 is wanted; that it was measured stays in its record.
    await space.apply(led(space, "v2"))
    await eventually(
        lambda: newest(space, "v2"), lambda v2: bool(v2 and v2.get("status", {}).get("verdicts")), "v2 was measured"
    )
    await space.apply(led(space, "v3"))


async def _without_v2(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]), versions=3)
    del space.metrics.versions[space.namespace, "v2"]


async def _abort(space: Space) -> None:
    await space.apply(led(space, "v2"))
    await space.until(kinds.HTTP_ROUTE, "digits", lambda route: len(weights(route)) == 2, "at 10 %")
    await tell(space, await record(space, "v2", "Progressing", step=0), "abort")


async def _pause_and_resume(space: Space) -> None:
    await space.apply(led(space, "v2"))
    rollout = await record(space, "v2", "Progressing", step=0)
    await tell(space, rollout, "pause")
    await record(space, "v2", "Holding", reason="Paused")
    await tell(space, rollout, "resume")


def _at_v2(**spec: Any) -> Act:
    async def prepare(space: Space) -> None:
        await begin(space, policy(space, **spec))
        await space.apply(led(space, "v2"))
        await record(space, "v2", "Succeeded")
        await space.ready(version="v2")
        await space.only(kinds.DEPLOYMENT, 2 if spec else 1)

    return prepare


async def _go_back_by_hand(space: Space) -> None:
    await space.apply(back_by_hand(space, "v1"))


async def _by_alice(space: Space) -> None:
    await begin(space, policy(space, steps=APPROVED), versions=1)
    await space.apply(by_alice(space, "v2"))


async def _approve(space: Space) -> None:
    await space.apply(led(space, "v2"))
    await space.apply(approval(space, await record(space, "v2", "AwaitingApproval")))


async def _retrain(space: Space) -> None:
    await space.apply(by_hand(space))
    await play(space)


async def _retrained(space: Space) -> bool:
    run = await space.api.get(kinds.TRAINING_RUN, space.namespace, "now")
    status = (run or {}).get("status", {})
    jobs = await space.api.list(kinds.JOB, space.namespace)
    told = (status.get("state"), status.get("outcome"), len(jobs)) == ("Succeeded", "Serving", 3)
    return told and await _serves(2)(space)


def _recreate(space: Space) -> Object:
    careful = policy(space)
    careful["spec"]["strategy"] = {"recreate": {}}
    return careful


ALONE: dict[str, Any] = {"endpoint": None, "serving": {"replicas": 4}}
FOR_GOOD = [{"weight": 10, "hold": "1h"}, {"weight": 100}]
BLUE_GREEN = [{"weight": 0, "hold": "1s"}, {"weight": 100, "hold": "1s"}]
ROLLING = [{"weight": 25}, {"weight": 50}, {"weight": 75}, {"weight": 100}]

STORIES: dict[str, Story] = {
    "create": Story(nothing, _applies(1), _serves(1), says=True),
    "change": Story(_serves_the_first, _applies(2), _serves(2), says=True),
    "delete": Story(_serves_the_first, _deletes, _all_gone, says=True),
    "canary": Story(_prepared(policy), _wants("v2"), _ends("v2", "Succeeded", "Promoted")),
    "evidence": Story(
        _prepared(lambda space: policy(space, metrics=[ERRORS])), _wants("v2"), _ends("v2", "Succeeded", "Promoted")
    ),
    "longpolicy": Story(_without_a_model, _led_by_a_long_policy, _ends("v2", "Succeeded", "Promoted")),
    "rollback": Story(
        _bad_candidate,
        _wants("v2"),
        _ends("v2", "RolledBack", "AnalysisFailed", good=lambda m: stalled(m, "AnalysisFailed")),
    ),
    "bluegreen": Story(
        _prepared(lambda space: policy(space, BLUE_GREEN)), _wants("v2"), _ends("v2", "Succeeded", "Promoted")
    ),
    "rolling": Story(
        _prepared(lambda space: policy(space, ROLLING), **ALONE),
        _wants("v2", **ALONE),
        _ends("v2", "Succeeded", "Promoted"),
    ),
    "recreate": Story(_prepared(_recreate), _wants("v2"), _ends("v2", "Succeeded", "Promoted")),
    "supersede": Story(_without_v2, _supersede, _ends("v3", "Succeeded", "Promoted")),
    "abort": Story(
        _prepared(lambda space: policy(space, FOR_GOOD)),
        _abort,
        _ends("v2", "Aborted", "AbortedByCommand", good=lambda m: stalled(m, "AbortedByCommand")),
    ),
    "pause": Story(
        _prepared(lambda space: policy(space, [{"weight": 10, "hold": "3s"}, *QUICK[1:]])),
        _pause_and_resume,
        _ends("v2", "Succeeded", "Promoted"),
    ),
    "byhand": Story(_at_v2(), _go_back_by_hand, _ends("v1", "Succeeded", "RolledBackByHand", good=is_held)),
    "fast": Story(_at_v2(keepPrevious="1h"), _wants("v1"), _ends("v1", "Succeeded", "FastRollback", deployments=2)),
    "retrain": Story(begin_retraining, _retrain, _retrained),
    "approve": Story(_by_alice, _approve, _ends("v2", "Succeeded", "Promoted")),
}

SLOW = Story(
    _prepared(lambda space: policy(space, [{"weight": 10, "hold": "8s"}, *QUICK[1:]])),
    _wants("v2"),
    _ends("v2", "Succeeded", "Promoted"),
)
"""A canary that takes long enough for something to happen to the cluster meanwhile."""
