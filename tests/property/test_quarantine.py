"""A version is quarantined only after evidence of harm, or by a person's word: over every state of a live rollout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ModelRolloutSpec, ModelRolloutStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core import approvals, commands
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.pod_failures import PodFailure
from modelwright.core.revision import Revision
from modelwright.core.rollout import machine
from modelwright.core.rollout.observation import Observation, RevisionView, RolloutInput, ServingRevision, TrafficView
from modelwright.core.rollout.record import TERMINAL_STATES, RolloutRecord
from modelwright.core.rollout.steps import compile_steps
from scripts.docgen.rollout_transitions import _NO as REJECTION

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = Revision("v1", "aaaa"), Revision("v2", "bbbb")
LIVE = [state for state in State if state not in TERMINAL_STATES and state is not State.ROLLING_BACK]
GATES = {"evaluation": {"template": {}, "metrics": [{"name": "accuracy", "min": "0.9"}]}}
METRICS = {"metrics": [{"name": "errors", "builtin": "error-rate", "margin": "0.02", "max": "0.5"}]}
STEPS: dict[str, Any] = {"steps": [{"weight": 10, "hold": "1m"}, {"approval": {"timeout": "30m"}}, {"weight": 100}]}
TEST: dict[str, Any] = {
    "abTest": {"duration": "1m", "weight": 50, "sticky": False, "winner": {"metric": "errors", "better": "Lower"}}
}
RECREATE: dict[str, Any] = {"recreate": {"timeout": "1m"}}
HOLD_OVER, LATE = timedelta(minutes=40), timedelta(hours=2)
FAULTS = [Reason.MODEL_LOAD_FAILED, Reason.CONTAINER_OOM_KILLED, Reason.DIGEST_MISMATCH, Reason.UNSAFE_ARCHIVE]
NO_FAULTS = [Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED, Reason.PODS_FORBIDDEN, Reason.STORE_UNREACHABLE]


@dataclass(frozen=True)
class Scene:
    """A rollout in the middle, and what is observed of it."""

    state: State = State.PROGRESSING
    strategy: dict[str, Any] = field(default_factory=lambda: STEPS)
    gates: bool = False
    undecided: str = "Hold"
    fails: str = "Rollback"
    step: int | None = 0
    confirmed: bool = True
    ago: timedelta = timedelta(seconds=10)
    """How long its clock has run, and its state and step last. The deadline is an hour."""
    weight: int = 10
    ready: int = 1
    served_ready: int = 1
    fault: Reason | None = None
    outcome: Outcome | None = None
    gate: Outcome | None = None
    noted: bool = False
    """The gate's result is in the record already."""
    people: approvals.ApprovalDecision | None = None
    abort: bool = False
    wins: bool | None = None

    def observed(self) -> Observation:
        wire = {"strategy": self.strategy, "onFailure": self.fails, "onInconclusive": self.undecided, "deadline": "1h"}
        wire |= {"gates": GATES} if self.gates else {}
        wire |= {} if self.strategy is RECREATE else {"analysis": METRICS}
        policy = RolloutPolicySpec.model_validate(wire)
        steps = compile_steps(policy.strategy)
        status: dict[str, Any] = {
            "state": self.state,
            "reason": "r",
            "message": "m",
            "since": NOW - self.ago,
            "from": {"version": "v1", "revision": OLD.hash},
            "to": {"version": "v2", "revision": NEW.hash},
            "clock": {"elapsedSeconds": 0, "runningSince": NOW - self.ago},
        }
        if self.step is not None:
            entry = {
                "index": self.step,
                "kind": steps[self.step].kind,
                "weight": self.weight,
                "startedAt": NOW - self.ago,
            }
            status |= {
                "step": self.step,
                "steps": [entry | ({"confirmedAt": NOW - self.ago} if self.confirmed else {})],
            }
        result = None
        if self.gate is not None:
            result = GateResult(self.gate, "r", "60 examples")
        if result is not None and self.noted:
            status["gates"] = [
                {"name": "evaluation", "outcome": result.outcome, "reason": "r", "message": "60 examples", "at": NOW}
            ]
        spec: dict[str, Any] = {"modelRef": {"name": "m"}, "target": {"version": "v2", "revision": "bbbb"}, "number": 2}
        if self.abort:
            spec["command"] = {"name": "abort", "token": "1", "by": "a", "reason": "b"}
        record = RolloutRecord(
            "m-2",
            "uid",
            1,
            NOW - timedelta(hours=3),
            ModelRolloutSpec.model_validate(spec),
            ModelRolloutStatus.model_validate(status),
        )
        command = commands.CommandAccepted(record.spec.command) if record.spec.command is not None else None
        own = self.state is not State.PROMOTING and self.confirmed and self.step is not None
        rolling = RolloutInput(
            policy,
            steps,
            record,
            2,
            outcome=self.outcome if own else None,
            earlier_outcome=None if own else self.outcome,
            gates={"evaluation": result} if result is not None and not self.noted else {},
            approval=self.people,
            command=command,
            ab_test_won=self.wins,
        )
        failure = PodFailure(self.fault, "why") if self.fault is not None else None
        views = {
            OLD.hash: RevisionView(OLD, 1, 1, self.served_ready, self.served_ready),
            NEW.hash: RevisionView(NEW, 1, 1, self.ready, self.ready, failure=failure),
        }
        weights = {key: share for key, share in ((OLD.hash, 100 - self.weight), (NEW.hash, self.weight)) if share}
        return Observation(
            NOW,
            NEW,
            revisions=views,
            traffic=TrafficView(frozenset({*weights, OLD.hash}), True, weights=weights),
            serving=ServingRevision(OLD, NOW - timedelta(days=1)),
            rollout=rolling,
        )

    @property
    def harm(self) -> bool:
        """Something was found against the candidate, or a person has spoken against it."""
        lost = self.weight > 0 and not self.ready and bool(self.served_ready) and self.step is not None
        return (
            self.outcome is Outcome.FAIL
            or self.gate is Outcome.FAIL
            or self.fault in FAULTS
            or lost
            or isinstance(self.people, approvals.Rejected)
            or self.abort
        )


def ending(scene: Scene) -> tuple[State, str] | None:
    """The state in which the rollout ends by what is observed now, with the reason; None while it goes on."""
    record = machine.apply_transitions(scene.observed()).record
    assert record is not None
    if record.state in TERMINAL_STATES:
        return record.state, record.status.reason or ""
    if record.state is not State.ROLLING_BACK:
        return None
    return State(record.status.ending or ""), record.status.reason or ""


def is_quarantined(end: tuple[State, str]) -> bool:
    state, reason = end
    record = Scene().observed().record
    assert record is not None
    ended = record.with_status(state=state, reason=reason)
    return ended.waits_for_retry and not ended.ended_undecided


REJECTED = approvals.Rejected(REJECTION, "no")
WAITING = approvals.ApprovalsMissing((), 1, Reason.AWAITING_APPROVAL, "no approvals yet")


@st.composite
def scenes(draw: st.DrawFn, state: State) -> Scene:
    gating = state in (State.PENDING, State.GATING) or (state is State.HOLDING and draw(st.booleans()))
    strategy = draw(st.sampled_from([STEPS, TEST, RECREATE]))
    steps = compile_steps(RolloutPolicySpec.model_validate({"strategy": strategy, "analysis": METRICS}).strategy)
    stepless = gating or strategy is RECREATE
    step = None if stepless else draw(st.integers(0, len(steps) - 1))
    return Scene(
        state=state,
        strategy=strategy,
        gates=gating and strategy is not RECREATE,
        undecided=draw(st.sampled_from(["Hold", "Rollback"])),
        fails=draw(st.sampled_from(["Hold", "Rollback"])),
        step=step,
        confirmed=draw(st.booleans()),
        ago=draw(st.sampled_from([timedelta(seconds=10), HOLD_OVER, LATE, LATE])),
        weight=0 if stepless else draw(st.sampled_from([0, 10, 50, 100])),
        ready=draw(st.sampled_from([0, 1])),
        served_ready=draw(st.sampled_from([0, 1, 1])),
        fault=draw(st.sampled_from([None, None, None, *FAULTS, *NO_FAULTS])),
        outcome=None if stepless else draw(st.sampled_from([None, *Outcome])),
        gate=draw(st.sampled_from([None, *Outcome])) if gating and strategy is not RECREATE else None,
        noted=draw(st.booleans()),
        people=draw(st.sampled_from([None, None, REJECTED, WAITING, approvals.Approved(())])),
        abort=draw(st.sampled_from([False, False, False, True])),
        wins=draw(st.sampled_from([None, True, False])),
    )


@pytest.mark.parametrize("state", LIVE)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_version_is_quarantined_only_after_evidence_of_harm(state: State, data: st.DataObject) -> None:
    scene = data.draw(scenes(state))
    end = ending(scene)
    if end is not None and is_quarantined(end):
        assert scene.harm, end


GATING = Scene(State.GATING, gates=True, step=None, weight=0)
UNREADY = Scene(confirmed=False, weight=0, ready=0)
RECREATED = Scene(strategy=RECREATE, step=None, weight=0, ready=0, ago=HOLD_OVER)
TESTED = Scene(strategy=TEST, weight=50, ago=HOLD_OVER)
NOT_BY = Scene(State.AWAITING_APPROVAL, step=1, outcome=Outcome.PASS, ago=HOLD_OVER)
QUARANTINED = [
    ("a metric that fails", Scene(outcome=Outcome.FAIL), "AnalysisFailed"),
    (
        "a metric that has failed, held for a person until the deadline",
        Scene(State.HOLDING, outcome=Outcome.FAIL, fails="Hold", ago=LATE),
        "DeadlineExceeded",
    ),
    ("a gate that refuses", replace(GATING, gate=Outcome.FAIL), "GateFailed"),
    ("a gate that has refused when the deadline passes", replace(GATING, gate=Outcome.FAIL, ago=LATE), "GateFailed"),
    ("lost pods", Scene(ready=0), "CandidateUnavailable"),
    ("lost pods in Promoting", Scene(State.PROMOTING, step=2, ready=0), "CandidateUnavailable"),
    (
        "pods that fail until the deadline",
        replace(UNREADY, fault=Reason.MODEL_LOAD_FAILED, ago=LATE),
        "DeadlineExceeded",
    ),
    ("recreate: pods that fail", replace(RECREATED, fault=Reason.CONTAINER_OOM_KILLED), "StartTimeout"),
    ("an approval that is refused", replace(NOT_BY, people=REJECTED), "ApprovalRejected"),
    ("a person's abort", Scene(abort=True), "AbortedByCommand"),
]
UNDECIDED = [
    (
        "metrics that have decided nothing by the deadline",
        Scene(State.HOLDING, outcome=Outcome.INCONCLUSIVE, ago=LATE),
        "Inconclusive",
    ),
    (
        "metrics that could not be measured until the deadline",
        Scene(State.HOLDING, outcome=Outcome.ERROR, ago=LATE),
        "Inconclusive",
    ),
    (
        "metrics that have decided nothing when the hold is over, and onInconclusive is Rollback",
        Scene(outcome=Outcome.INCONCLUSIVE, undecided="Rollback", ago=HOLD_OVER),
        "Inconclusive",
    ),
    ("a gate that still runs at the deadline", replace(GATING, ago=LATE), "DeadlineExceeded"),
    (
        "a gate that has decided nothing by the deadline",
        replace(GATING, gate=Outcome.INCONCLUSIVE, ago=LATE),
        "Inconclusive",
    ),
    (
        "a gate that could not be looked at, and onInconclusive is Rollback",
        replace(GATING, gate=Outcome.ERROR, undecided="Rollback"),
        "Inconclusive",
    ),
    (
        "pods that have no room until the deadline",
        replace(UNREADY, fault=Reason.UNSCHEDULABLE, ago=LATE),
        "DeadlineExceeded",
    ),
    ("the deadline in Promoting", Scene(State.PROMOTING, step=2, ago=LATE), "DeadlineExceeded"),
    (
        "pods that are lost with those of what served",
        Scene(ready=0, served_ready=0),
        "CandidateUnavailable",
    ),
    ("an approval that nobody gives", replace(NOT_BY, people=WAITING), "ApprovalTimeout"),
    (
        "an A/B test that proves nothing",
        replace(TESTED, outcome=Outcome.PASS, wins=False),
        "ABTestLost",
    ),
    ("recreate: pods that have no room", replace(RECREATED, fault=Reason.UNSCHEDULABLE), "StartTimeout"),
    ("recreate: pods that are not ready yet", RECREATED, "StartTimeout"),
]


def _ids(rows: list[tuple[str, Scene, str]]) -> list[str]:
    return [name for name, _, _ in rows]


@pytest.mark.parametrize(("name", "scene", "reason"), QUARANTINED, ids=_ids(QUARANTINED))
def test_it_is_quarantined_by(name: str, scene: Scene, reason: str) -> None:
    state = State.ABORTED if scene.abort else State.ROLLED_BACK
    assert ending(scene) == (state, reason), name
    assert is_quarantined((state, reason))


@pytest.mark.parametrize(("name", "scene", "reason"), UNDECIDED, ids=_ids(UNDECIDED))
def test_it_ends_undecided_by(name: str, scene: Scene, reason: str) -> None:
    assert ending(scene) == (State.ABORTED, reason), name
    assert not is_quarantined((State.ABORTED, reason))


def test_a_step_that_ends_undecided_has_not_failed() -> None:
    record = machine.apply_transitions(Scene(ready=0, served_ready=0).observed()).record
    assert record is not None
    assert [entry.outcome for entry in record.status.steps] == ["Ended"]
