"""A gate that decides nothing is no finding about a version: over every state in which gates are looked at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ModelRolloutSpec, ModelRolloutStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core import approvals
from modelwright.core.revision import Revision
from modelwright.core.rollout import machine
from modelwright.core.rollout.actions import SetTraffic, StartRollout
from modelwright.core.rollout.observation import Observation, RevisionView, RolloutInput, ServingRevision, TrafficView
from modelwright.core.rollout.record import TERMINAL_STATES, RolloutRecord
from modelwright.core.rollout.steps import compile_steps

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = Revision("v1", "aaaa"), Revision("v2", "bbbb")
EVALUATION = {"template": {}, "metrics": [{"name": "accuracy", "min": "0.9"}]}
GATES: tuple[dict[str, Any], ...] = (
    {"evaluation": EVALUATION},
    {"infra": {}},
    {"evaluation": EVALUATION, "infra": {}, "approval": {}},
)
BEFORE_STEPS = [State.GATING, State.HOLDING]


def policy(gates: dict[str, Any], undecided: str) -> RolloutPolicySpec:
    wire = {"strategy": {"preset": "Canary"}, "gates": gates, "onInconclusive": undecided, "deadline": "1h"}
    return RolloutPolicySpec.model_validate(wire)


@st.composite
def observations(draw: st.DrawFn, state: State, outcome: str, *, late: bool | None = None) -> Observation:
    """A Model whose rollout waits at its first gate, which has come to `outcome`. `late`: the deadline has passed."""
    gates = draw(st.sampled_from(GATES))
    rules = policy(gates, draw(st.sampled_from(["Hold", "Rollback"])))
    over = draw(st.booleans()) if late is None else late
    status: dict[str, Any] = {
        "state": state,
        "reason": "GateFailed",
        "message": "m",
        "since": NOW - timedelta(seconds=200),
        "from": {"version": OLD.version, "revision": OLD.hash},
        "to": {"version": NEW.version, "revision": NEW.hash},
        "paused": draw(st.sampled_from([None, None, True])),
        "clock": {"elapsedSeconds": 7200 if over else 10, "runningSince": NOW - timedelta(seconds=100)},
        "gates": [{"name": next(iter(gates)), "outcome": outcome, "reason": "r", "message": "60 examples", "at": NOW}],
    }
    spec = {"modelRef": {"name": "m"}, "target": {"version": "v2", "revision": NEW.hash}, "number": 2}
    record = RolloutRecord(
        "m-2",
        "uid",
        1,
        NOW - timedelta(hours=3),
        ModelRolloutSpec.model_validate(spec),
        ModelRolloutStatus.model_validate(status),
    )
    rolling = RolloutInput(
        rules,
        compile_steps(rules.strategy),
        record,
        2,
        frozen_until=NOW + timedelta(hours=1) if draw(st.sampled_from([False, False, True])) else None,
        approval=draw(st.sampled_from([None, approvals.Approved(())])),
    )
    ready = draw(st.sampled_from([0, 1]))
    views = {
        OLD.hash: RevisionView(OLD, 1, 1, 1, 1),
        NEW.hash: RevisionView(NEW, 1, 1, ready, ready),
    }
    return Observation(
        NOW,
        NEW,
        replicas=1,
        revisions=views,
        traffic=TrafficView(frozenset({OLD.hash}), True, weights={OLD.hash: 100}),
        serving=ServingRevision(OLD, NOW - timedelta(days=1)),
        rollout=rolling,
    )


def settled(observed: Observation) -> RolloutRecord:
    record = machine.apply_transitions(observed).record
    assert record is not None
    return record


def with_record(observed: Observation, record: RolloutRecord) -> Observation:
    assert observed.rollout is not None
    return replace(observed, rollout=replace(observed.rollout, record=record))


@pytest.mark.parametrize("state", BEFORE_STEPS)
@pytest.mark.parametrize("outcome", ["Inconclusive", "Error"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_gate_that_decides_nothing_puts_nothing_in_quarantine(
    state: State, outcome: str, data: st.DataObject
) -> None:
    record = settled(data.draw(observations(state, outcome)))
    if record.is_active:
        assert record.state is State.HOLDING
        return
    assert (record.state, record.status.reason) == (State.ABORTED, Reason.INCONCLUSIVE)
    assert record.ended_undecided
    assert "60 examples" in (record.status.message or "")


@pytest.mark.parametrize("state", BEFORE_STEPS)
@pytest.mark.parametrize("outcome", ["Inconclusive", "Error"])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_it_ends_at_the_deadline_and_is_not_begun_again_by_itself(
    state: State, outcome: str, data: st.DataObject
) -> None:
    observed = data.draw(observations(state, outcome, late=True))
    record = settled(observed)
    assert record.state in TERMINAL_STATES
    decision = machine.decide_actions(with_record(observed, record))
    assert not [action for action in decision.actions if isinstance(action, StartRollout)]
    sent = [action.split for action in decision.actions if isinstance(action, SetTraffic)]
    assert all(share.revision == OLD for routing in sent for share in routing.shares)
    retried = machine.decide_actions(with_record(observed, record.with_status(retried=True)))
    assert [action for action in retried.actions if isinstance(action, StartRollout)]


@pytest.mark.parametrize("state", BEFORE_STEPS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_gate_that_refuses_does(state: State, data: st.DataObject) -> None:
    record = settled(data.draw(observations(state, "Fail", late=False)))
    if record.state is State.HOLDING:
        return
    assert record.state is State.ROLLED_BACK
    assert not record.ended_undecided
