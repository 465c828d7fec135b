"""Conditions follow kstatus in every state: exactly one of ready, on its way, and stalled."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.conditions import Condition, find_condition, is_true
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import ModelStatus
from modelwright.core.pod_failures import PodFailure
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.machine import determine_state
from modelwright.core.rollout.observation import Observation, RevisionView, ServingRevision, TrafficView
from modelwright.core.status import readiness
from modelwright.core.status.readiness import (
    MISSING_REFERENCE_TIMEOUT,
    ConditionSummary,
    assess_availability,
    assess_readiness,
    build_conditions,
    escalate_problem,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ONE = Revision("v1", "one")
SERVES = Observation(
    now=NOW,
    target=ONE,
    revisions={"one": RevisionView(ONE, replicas=2, ready=2, available=2)},
    traffic=TrafficView(frozenset({"one"}), confirmed=True),
    serving=ServingRevision(ONE, NOW - timedelta(hours=1)),
)


def pods(observed: Observation, **more: Any) -> Observation:
    return replace(observed, revisions={"one": replace(observed.revisions["one"], **more)})


VERDICTS = [
    ("it serves", SERVES, Reason.SERVING, False, False),
    ("it serves and a pod is missing", pods(SERVES, available=1), Reason.WAITING_FOR_PODS, False, True),
    ("it serves and its Deployment isn't seen yet", pods(SERVES, current=False), Reason.WAITING_FOR_PODS, False, True),
    (
        "it serves and all pods fail",
        pods(SERVES, available=0, failure=PodFailure(Reason.MODEL_LOAD_FAILED, "boom")),
        Reason.MODEL_LOAD_FAILED,
        True,
        False,
    ),
    (
        "it serves and one pod fails",
        pods(SERVES, available=1, failure=PodFailure(Reason.MODEL_LOAD_FAILED, "boom")),
        Reason.WAITING_FOR_PODS,
        False,
        True,
    ),
    ("it waits for its version", replace(SERVES, target=None), Reason.WAITING_FOR_VERSION, False, True),
    (
        "what it wants can't be had",
        replace(SERVES, target=None, problem=Problem(Reason.NAME_TAKEN, "taken", True)),
        Reason.NAME_TAKEN,
        True,
        False,
    ),
    ("it is suspended while it serves what is wanted", replace(SERVES, suspended=True), Reason.SUSPENDED, False, False),
    (
        "it is suspended while something is wanted",
        replace(SERVES, suspended=True, target=Revision("v2", "two")),
        Reason.SUSPENDED,
        True,
        False,
    ),
]


@pytest.mark.parametrize(
    ("observed", "reason", "stalled", "reconciling"), [c[1:] for c in VERDICTS], ids=[c[0] for c in VERDICTS]
)
def test_verdicts(observed: Observation, reason: Reason, stalled: bool, reconciling: bool) -> None:
    verdict = assess_readiness(observed, determine_state(observed))
    assert (verdict.reason, verdict.stalled, verdict.reconciling) == (reason, stalled, reconciling)


AVAILABLE = [
    ("a ready pod", SERVES, True, Reason.REVISION_AVAILABLE),
    ("one of two", pods(SERVES, available=1), True, Reason.REVISION_AVAILABLE),
    ("no ready pod", pods(SERVES, available=0), False, Reason.NO_READY_PODS),
    ("nothing has ever served", replace(pods(SERVES, available=0), serving=None), False, Reason.NOTHING_SERVING),
    ("traffic goes nowhere", replace(SERVES, traffic=TrafficView()), False, Reason.NOTHING_SERVING),
    ("traffic goes to nobody", replace(SERVES, traffic=TrafficView(frozenset({"x"}))), False, Reason.NO_READY_PODS),
    (
        "one of two that take traffic has no pod",
        replace(
            SERVES,
            revisions={**SERVES.revisions, "two": RevisionView(Revision("v2", "two"), replicas=1)},
            traffic=TrafficView(frozenset({"one", "two"}), True),
        ),
        False,
        Reason.NO_READY_PODS,
    ),
    ("no pods are wanted", replace(pods(SERVES, replicas=0, available=0), replicas=0), False, Reason.SCALED_TO_ZERO),
    (
        "a candidate that fails changes nothing",
        replace(
            SERVES,
            target=Revision("v2", "two"),
            revisions={**SERVES.revisions, "two": RevisionView(Revision("v2", "two"), replicas=1)},
        ),
        True,
        Reason.REVISION_AVAILABLE,
    ),
]


@pytest.mark.parametrize(("observed", "expected", "reason"), [c[1:] for c in AVAILABLE], ids=[c[0] for c in AVAILABLE])
def test_available(observed: Observation, expected: bool, reason: Reason) -> None:
    assert assess_availability(observed)[:2] == (expected, reason)


WAITS = [
    ("a missing version", Reason.WAITING_FOR_VERSION, Reason.VERSION_NOT_FOUND),
    ("a missing runtime", Reason.WAITING_FOR_RUNTIME, Reason.RUNTIME_NOT_FOUND),
]


@pytest.mark.parametrize(("reason", "final"), [c[1:] for c in WAITS], ids=[c[0] for c in WAITS])
def test_a_missing_reference_is_waited_for_and_then_stalled(reason: Reason, final: Reason) -> None:
    problem = Problem(reason, "spec.x: there is no y")
    assert escalate_problem(problem, NOW, NOW + MISSING_REFERENCE_TIMEOUT - timedelta(seconds=1)) == problem
    assert escalate_problem(problem, NOW, NOW + MISSING_REFERENCE_TIMEOUT) == Problem(
        final, "spec.x: there is no y", stalled=True
    )


@pytest.mark.parametrize("reason", [Reason.WAITING_FOR_PODS, Reason.WAITING_FOR_ROUTE, "SomethingOfANewerOperator"])
def test_slow_progress_is_waited_for_without_end(reason: str) -> None:
    problem = Problem(reason, "text")
    assert escalate_problem(problem, NOW, NOW + 100 * MISSING_REFERENCE_TIMEOUT) == problem


STEPS = st.builds(
    lambda state, reason, serves, later: (
        ConditionSummary(reason, "text", stalled=state == "stalled", reconciling=state == "reconciling"),
        serves,
        later,
    ),
    st.sampled_from(["ready", "reconciling", "stalled"]),
    st.sampled_from([Reason.SERVING, Reason.WAITING_FOR_PODS, Reason.NAME_TAKEN]),
    st.none() | st.tuples(st.booleans(), st.just(Reason.REVISION_AVAILABLE), st.just("text")),
    st.integers(0, 100),
)


@given(st.lists(STEPS, min_size=1, max_size=6))
def test_one_of_three_holds_and_times_change_with_a_status(steps: list[Any]) -> None:
    old: tuple[Condition, ...] = ()
    now = NOW
    for generation, (verdict, serves, later) in enumerate(steps, 1):
        now += timedelta(seconds=later)
        new = build_conditions(old, verdict, serves, generation=generation, now=now)
        held = [type_ for type_ in ("Ready", "Reconciling", "Stalled") if is_true(new, type_)]
        assert len(held) == 1
        for condition in new:
            if condition.type != "Available" or serves is not None:
                assert condition.observed_generation == generation
            before = find_condition(old, condition.type)
            moved = before is None or before.status != condition.status
            assert condition.last_transition_time == (now if moved else before.last_transition_time)  # type: ignore[union-attr]
        ready = find_condition(new, "Ready")
        assert ready is not None
        assert ready.reason == verdict.reason
        old = new


def _status(
    state: str = "Progressing",
    *,
    reason: str = "WaitingForPods",
    serving: str = "v1",
    ready: str = "False",
    rollout: str | None = None,
    generation: int = 2,
    **more: Any,
) -> ModelStatus:
    condition = {"reason": reason, "message": reason, "lastTransitionTime": NOW, "observedGeneration": generation}
    reconciling = "True" if ready == "False" else "False"
    return ModelStatus.model_validate(
        {
            "observedGeneration": generation,
            "serving": {"version": serving, "revision": serving},
            "rollout": {"name": rollout, "state": state, "reason": reason},
            "conditions": [
                {"type": "Ready", "status": ready, **condition},
                {"type": "Reconciling", "status": reconciling, **condition},
                {"type": "Stalled", "status": "False", **condition},
            ],
            **more,
        }
    )


WEIGHTS = {"traffic": [{"version": "v2", "revision": "v2", "weight": 10}]}
FAILURE = {"failure": {"reason": "CrashLoop", "message": "exit code 1"}}
PROGRESS = [
    ("nothing has changed", _status(), False),
    ("another reason for which it goes on", _status(reason="StepInProgress"), True),
    ("the next state of a move", _status("Promoting", reason="WaitingForRoute"), True),
    ("other weights", _status(**WEIGHTS), True),
    ("more pods", _status(replicas=2, readyReplicas=1), True),
    ("another version is on its way", _status(target={"version": "v3"}), True),
    ("an edit was seen", _status(generation=3), False),
    ("another version serves", _status(serving="v2"), False),
    ("it is ready", _status("Succeeded", reason="Serving", ready="True"), False),
    ("it goes back", _status("RollingBack", reason="AnalysisFailed"), False),
    ("it holds", _status("Holding", reason="InsufficientEvidence"), False),
    ("people are asked", _status("AwaitingApproval", reason="AwaitingApproval"), False),
    ("something is wrong", _status(**FAILURE), False),
    ("another ModelRollout", _status(rollout="digits-2"), False),
]


@pytest.mark.parametrize(("new", "expected"), [c[1:] for c in PROGRESS], ids=[c[0] for c in PROGRESS])
def test_a_status_that_only_reports_progress(new: ModelStatus, expected: bool) -> None:
    assert readiness.reports_progress_only(_status(), new) is expected


def test_a_status_after_an_acknowledgement_is_progress() -> None:
    acknowledged = _status("Succeeded", reason="NewGeneration")
    assert readiness.reports_progress_only(acknowledged, _status())


def test_leaving_a_hold_is_no_progress() -> None:
    held = _status("Holding", reason="InsufficientEvidence")
    assert not readiness.reports_progress_only(held, _status())
