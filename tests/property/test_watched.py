"""A candidate that callers' requests reach is always judged, and can always be rolled back: over every state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ModelRolloutSpec, ModelRolloutStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.revision import Revision
from modelwright.core.rollout import machine
from modelwright.core.rollout.actions import SetTraffic
from modelwright.core.rollout.measured_step import select_measured_step
from modelwright.core.rollout.observation import Observation, RevisionView, RolloutInput, ServingRevision, TrafficView
from modelwright.core.rollout.record import DEADLINE_STATES, TERMINAL_STATES, RolloutRecord
from modelwright.core.rollout.steps import compile_steps

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = Revision("v1", "aaaa"), Revision("v2", "bbbb")
ALL: tuple[Outcome | None, ...] = (*Outcome, None)
LIVE = [state for state in State if state not in TERMINAL_STATES]
STEPPED = [State.PROGRESSING, State.HOLDING, State.AWAITING_APPROVAL, State.PROMOTING]
HEADER = {"headers": [{"name": "x-beta", "value": "yes"}]}
STRATEGIES: tuple[dict[str, Any], ...] = (
    {"steps": [{"weight": 10, "hold": "2m"}, {"weight": 50, "hold": "2m"}, {"weight": 100}]},
    {"steps": [{"mirror": {"percent": 20}}, {"weight": 50, "hold": "1m"}, {"approval": {}}, {"weight": 100}]},
    {"steps": [{"match": HEADER}, {"weight": 10}, {"hold": "1m"}, {"weight": 100, "hold": "1m"}]},
    {"preset": "Rolling"},
    {"preset": "BlueGreen"},
    {"abTest": {"duration": "1h", "winner": {"metric": "errors", "better": "Lower"}}},
)
METRICS = [{"name": "errors", "builtin": "error-rate", "margin": "0.02", "max": "0.5"}]


def policies() -> list[RolloutPolicySpec]:
    wire = [
        {"strategy": strategy, "analysis": {"metrics": METRICS}, "onFailure": fails, "onInconclusive": undecided}
        for strategy in STRATEGIES
        for fails in ("Rollback", "Hold")
        for undecided in ("Rollback", "Hold")
    ]
    return [RolloutPolicySpec.model_validate(one) for one in wire]


POLICIES = policies()


@dataclass(frozen=True)
class DrawnObservation:
    """What is observed, and what was drawn for it."""

    observed: Observation
    weight: int

    @property
    def record(self) -> RolloutRecord:
        assert self.observed.record is not None
        return self.observed.record


@st.composite
def observations(
    draw: st.DrawFn,
    state: State,
    *,
    exposed: bool = False,
    dead: bool = False,
    outcomes: Sequence[Outcome | None] = ALL,
) -> DrawnObservation:
    """A Model in the middle of a rollout. `exposed`: requests reach the candidate. `dead`: it has no ready pod, and
    what serves has. `outcomes`: what the metrics come to."""
    policy = draw(st.sampled_from(POLICIES))
    steps = compile_steps(policy.strategy)
    index = draw(st.integers(0, len(steps) - 1))
    weight = draw(st.sampled_from([0, steps[index].weight, steps[max(0, index - 1)].weight, 50, 100]))
    matched = (draw(st.booleans()) or (exposed and weight == 0)) and weight < 100
    status: dict[str, Any] = {
        "state": state,
        "reason": "Paused",
        "message": "m",
        "since": NOW - timedelta(seconds=200),
        "from": {"version": OLD.version, "revision": OLD.hash},
        "to": {"version": NEW.version, "revision": NEW.hash},
        "paused": draw(st.sampled_from([None, None, True])),
        "clock": {"elapsedSeconds": draw(st.sampled_from([0, 10, 3000])), "runningSince": NOW - timedelta(seconds=100)},
    }
    if state in STEPPED:
        status["step"] = index
        status["steps"] = [
            {
                "index": n,
                "kind": steps[n].kind,
                "weight": steps[n].weight,
                "outcome": "Pass",
                "startedAt": NOW - timedelta(seconds=900 - n),
                "confirmedAt": NOW - timedelta(seconds=900 - n),
            }
            for n in range(index)
        ]
        last: dict[str, Any] = {"index": index, "kind": steps[index].kind, "weight": steps[index].weight}
        last["startedAt"] = NOW - timedelta(seconds=300)
        ago = draw(st.sampled_from([None, 0, 1, 60, 119, 120, 155, 299]))
        if ago is not None:
            last["confirmedAt"] = NOW - timedelta(seconds=ago)
        status["steps"].append(last)
    if state is State.ROLLING_BACK:
        status["ending"] = State.ROLLED_BACK
    spec = {"modelRef": {"name": "m"}, "target": {"version": "v2", "revision": NEW.hash}, "number": 2}
    record = RolloutRecord(
        "m-2",
        "uid",
        1,
        NOW - timedelta(hours=1),
        ModelRolloutSpec.model_validate(spec),
        ModelRolloutStatus.model_validate(status),
    )
    full = draw(st.sampled_from([1, 4]))
    available = 0 if dead else draw(st.sampled_from([0, 1, full]))
    shares = {key: share for key, share in ((OLD.hash, 100 - weight), (NEW.hash, weight)) if share}
    outcome = draw(st.sampled_from(outcomes))
    own = state is not State.PROMOTING and record.step_status is not None and record.step_status.confirmed_at
    rolling = RolloutInput(
        policy,
        steps,
        record,
        2,
        outcome=outcome if own else None,
        earlier_outcome=None if own else outcome,
        frozen_until=NOW + timedelta(hours=1) if draw(st.sampled_from([False, False, True])) else None,
        comparer_ready=draw(st.booleans()),
        replica_weighted=draw(st.sampled_from([False, False, True])),
        surge=draw(st.sampled_from([None, None, 1])),
        ab_test_won=draw(st.sampled_from([None, True, False])),
    )
    views = {
        OLD.hash: RevisionView(OLD, full, full, full, full if dead else draw(st.sampled_from([full, 0]))),
        NEW.hash: RevisionView(NEW, draw(st.sampled_from([full, 1])), full, available, available),
    }
    named = frozenset(shares) | {OLD.hash}
    traffic = TrafficView(
        named,
        draw(st.booleans()),
        weights=shares,
        matched=NEW.hash if matched else None,
        mirror=draw(st.sampled_from([0, 20])),
    )
    target = draw(st.sampled_from([NEW, NEW, NEW, None]))
    observed = Observation(
        NOW,
        target,
        replicas=full,
        revisions=views,
        traffic=traffic,
        serving=ServingRevision(OLD, NOW - timedelta(days=1)),
        rollout=rolling,
    )
    return DrawnObservation(observed, weight)


def share_after(observed: Observation) -> int | None:
    """Percent that the decision sends to the candidate; None when it leaves traffic as it is."""
    sends = [action for action in machine.decide_actions(observed).actions if isinstance(action, SetTraffic)]
    assert len(sends) <= 1, "two actions of one pass move traffic"
    if not sends:
        return None
    routing = sends[0].split
    return max(sum(share.weight for share in routing.shares if share.revision == NEW), 1 if routing.matched else 0)


@pytest.mark.parametrize("state", LIVE)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_candidate_with_requests_but_no_pods_is_rolled_back(state: State, data: st.DataObject) -> None:
    observation = data.draw(observations(state, exposed=True, dead=True))
    after = machine.apply_transitions(observation.observed)
    assert after.record is not None
    assert after.record.state is State.ROLLING_BACK or share_after(after) == 0


@pytest.mark.parametrize("state", STEPPED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_metric_that_fails_turns_it_back_or_holds_it(state: State, data: st.DataObject) -> None:
    observation = data.draw(observations(state, exposed=True, outcomes=[Outcome.FAIL]))
    rolling = observation.observed.rollout
    assert rolling is not None
    after = machine.apply_transitions(observation.observed)
    assert after.record is not None
    if rolling.policy.on_failure == "Rollback":
        assert after.record.state is State.ROLLING_BACK
        return
    assert after.record.state is not State.PROMOTING
    assert after.record.step_index == observation.record.step_index, "it goes no step further"


@pytest.mark.parametrize("state", STEPPED)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_evidence_is_measured_whenever_requests_reach_it(state: State, data: st.DataObject) -> None:
    observation = data.draw(observations(state, exposed=True))
    rolling = observation.observed.rollout
    assert rolling is not None
    result = select_measured_step(observation.record, rolling.steps, exposed=True)
    assert result is not None
    entry = observation.record.step_status
    assert entry is not None
    assert result.is_current == (state is not State.PROMOTING and entry.confirmed_at is not None)
    assert result.is_current or result.step.weight or result.step.match or result.early


@pytest.mark.parametrize("state", sorted(DEADLINE_STATES))
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_deadline_turns_it_back(state: State, data: st.DataObject) -> None:
    observation = data.draw(observations(state, exposed=True))
    late = replace(observation.observed, now=NOW + timedelta(hours=2))
    after = machine.apply_transitions(late)
    assert after.record is not None
    assert after.record.state is State.ROLLING_BACK


@pytest.mark.parametrize("state", [state for state in STEPPED if state is not State.PROMOTING])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_nothing_is_promoted_and_no_share_grows_without_a_pass(state: State, data: st.DataObject) -> None:
    outcomes = [outcome for outcome in ALL if outcome is not Outcome.PASS]
    observation = data.draw(observations(state, outcomes=outcomes))
    rolling = observation.observed.rollout
    assert rolling is not None
    after = machine.apply_transitions(observation.observed)
    assert after.record is not None
    step = rolling.steps[observation.record.step_index]
    if rolling.outcome is not None:
        assert after.record.state is not State.PROMOTING or step.is_promotion
    share = share_after(after)
    if (
        share is not None
        and after.record.step_index == observation.record.step_index
        and after.record.state in STEPPED[:-1]
    ):
        assert share <= max(observation.weight, step.weight, 1 if step.match else 0)
