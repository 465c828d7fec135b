"""State transitions of a ModelRollout and the rows that make them, found by running the decision table.

Starting with a new record, each reached record is evaluated in many situations that users, metrics, pods, gateway and
time can cause, until no new record appears.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.approval import Approval
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import Command, ModelRollout, RolloutState
from modelwright.core import approvals, commands
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.pod_failures import PodFailure
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.machine import TABLE, trace_rows
from modelwright.core.rollout.observation import Observation, RevisionView, RolloutInput, ServingRevision, TrafficView
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep, compile_steps
from modelwright.core.table import number_rows

Transitions = dict[tuple[RolloutState, RolloutState], set[int]]

_START = datetime(2026, 1, 1, tzinfo=UTC)
_OLD, _NEW, _THIRD = Revision("v1", "old"), Revision("v2", "new"), Revision("v3", "third")
_GATES = {
    "evaluation": {"template": {}, "metrics": [{"name": "accuracy", "min": "0.9"}]},
    "approval": {},
}
_EVIDENCE = {"metrics": [{"name": "errors", "builtin": "error-rate", "margin": "0.02"}]}
_STEPS = {"steps": [{"weight": 10, "hold": "1m"}, {"approval": {}}, {"weight": 100}]}
_HELD = {"steps": [{"weight": 10}, {"approval": {}}, {"weight": 100, "hold": "1m"}]}
_TEST = {"duration": "1m", "weight": 10, "sticky": False, "winner": {"metric": "errors", "better": "Lower"}}
_POLICIES: tuple[dict[str, Any], ...] = (
    {"strategy": _STEPS, "gates": _GATES, "analysis": _EVIDENCE},
    {"strategy": _STEPS, "gates": _GATES, "analysis": _EVIDENCE, "onInconclusive": "Rollback"},
    {"strategy": _HELD, "analysis": _EVIDENCE, "onFailure": "Hold"},
    {"strategy": {"steps": [{"mirror": {}}, {"weight": 100}]}},
    {"strategy": {"abTest": _TEST}, "analysis": _EVIDENCE},
    {"strategy": {"recreate": {"timeout": "1m"}}},
)
_FAILURE = PodFailure(Reason.MODEL_LOAD_FAILED, "exit code 1")
_GIVEN = {"token": "1", "by": "a", "reason": "b"}
_SOON, _LATE, _TOO_LATE = timedelta(minutes=5), timedelta(hours=2), timedelta(hours=72)


@dataclass(frozen=True, slots=True)
class _Situation:
    """The circumstances of a record."""

    weight: int = 0
    """Weight of the candidate at the gateway."""
    lags: bool = False
    later: timedelta = timedelta(0)
    outcome: Outcome | None = None
    target: Revision | None = _NEW
    candidate: bool = True
    source: bool = True
    """Whether the revisions have ready pods."""
    fails: bool = False
    """Whether the candidate's pods fail because of their content."""
    lost: bool = False
    """Whether the pods of both revisions are gone although replicas are set."""
    frozen: bool = False
    unfit: bool = False
    """Whether the policy requires an unsupported feature."""
    unread: bool = False
    """Whether the policy with which it started can't be read."""
    approval: approvals.ApprovalDecision | None = None
    command: str | None = None
    gate: Outcome | None = None
    wins: bool | None = None


@cache
def list_transitions() -> Transitions:
    """Map each transition (from, to) to the numbers of its rows."""
    transitions: Transitions = {}
    for written in _POLICIES:
        policy = RolloutPolicySpec.model_validate(written)
        for source, windowed in ((_OLD, False), (None, False), (_OLD, True)):
            _explore_rollout_moves(
                policy, _build_record(source), frozenset({_NEW.hash}) if windowed else frozenset(), transitions
            )
    return transitions


def _explore_rollout_moves(
    policy: RolloutPolicySpec, first: RolloutRecord, windowed: frozenset[str], transitions: Transitions
) -> None:
    """Add the transitions of all records reachable from `first`. `windowed`: revisions that served before."""
    numbers = number_rows(TABLE)
    steps = compile_steps(policy.strategy)
    known, left = {_record_key(first)}, [(first, _START)]
    while left:
        before, now = left.pop(0)
        for situation in _rollout_situations(before, steps):
            observation = _build_observation(policy, steps, before, windowed, now + situation.later, situation)
            record = before
            for row, after in trace_rows(observation):
                assert after.record is not None  # noqa: S101 - a record doesn't go away
                if after.record.state is not record.state:
                    transitions.setdefault((record.state, after.record.state), set()).add(numbers[row.name])
                record = after.record
            if record.is_active and _record_key(record) not in known:
                known.add(_record_key(record))
                left.append((record, observation.now))


def _rollout_situations(record: RolloutRecord, steps: tuple[RolloutStep, ...]) -> Iterator[_Situation]:
    """Yield the usual progress in every combination, and each possible disturbance."""
    wanted = 0
    if record.state is RolloutState.PROMOTING:
        wanted = 100
    elif record.status.step is not None and record.state is not RolloutState.ROLLING_BACK:
        wanted = steps[record.step_index].weight
    on = _Situation(wanted)
    outcomes = (None, Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)
    for weight, later, outcome in product({0, wanted}, (timedelta(0), _SOON), outcomes):
        yield replace(on, weight=weight, later=later, outcome=outcome)
    for gate in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
        yield replace(on, gate=gate)
    for decision in (approvals.Approved(()), approvals.Rejected(_NO, "no"), _WAITING):
        yield replace(on, approval=decision, later=_SOON)
    for command in ("pause", "resume", "promote", "abort"):
        yield replace(on, command=command)
    for target in (None, _THIRD):
        yield replace(on, target=target)
    for wins in (True, False):
        yield replace(on, wins=wins, outcome=Outcome.PASS, later=_SOON)
    yield replace(on, later=_LATE)
    yield replace(on, later=_TOO_LATE)
    yield replace(on, candidate=False)
    yield replace(on, source=False)
    yield replace(on, candidate=False, source=False)
    yield replace(on, candidate=False, source=False, lost=True)
    for later in (_SOON, _LATE):
        yield replace(on, candidate=False, source=False, fails=True, later=later)
    yield replace(on, lags=True)
    yield replace(on, frozen=True)
    yield replace(on, unfit=True)
    yield replace(on, unread=True)
    yield replace(on, frozen=True, command="resume")
    yield replace(on, weight=0, candidate=False, command="resume")


def _build_observation(
    policy: RolloutPolicySpec,
    steps: tuple[RolloutStep, ...],
    record: RolloutRecord,
    windowed: frozenset[str],
    now: datetime,
    so: _Situation,
) -> Observation:
    weights = {key: weight for key, weight in (("old", 100 - so.weight), ("new", so.weight)) if weight}
    views = {
        revision.hash: RevisionView(
            revision,
            replicas=1 if wanted or so.lost else 0,
            pods=pods,
            ready=pods,
            available=pods,
            failure=_FAILURE if so.fails and revision == _NEW else None,
        )
        for revision, pods, wanted in ((_OLD, int(so.source), so.source), (_NEW, int(so.candidate), True))
    }
    # Commands taken up before don't stand in the way of the same one.
    command = Command.model_validate({"name": so.command, **_GIVEN}) if so.command else None
    record = replace(record, spec=record.spec.model_copy(update={"command": command})).with_status(commands=())
    promoted = so.weight == 100 and record.state is RolloutState.PROMOTING
    # In a step the Model's Service selects the serving revision, independent of the route.
    named = frozenset(weights) if promoted or record.from_revision is None else frozenset({*weights, _OLD.hash})
    serving = _NEW if promoted and not so.lags else record.from_revision
    return Observation(
        now=now,
        target=so.target,
        problem=None if so.target is not None else Problem(Reason.WAITING_FOR_VERSION, "it was deleted"),
        revisions=views,
        traffic=TrafficView(named, confirmed=not so.lags, weights=weights),
        serving=ServingRevision(serving, now) if serving is not None else None,
        rollout=RolloutInput(
            policy,
            steps,
            record,
            policy_problem=Problem(Reason.POLICY_NOT_SUPPORTED, "it can't mirror") if so.unfit else None,
            snapshot_problem=Problem(Reason.INVALID_POLICY, "it is gone", stalled=True) if so.unread else None,
            outcome=so.outcome,
            earlier_outcome=so.outcome,
            gates={"evaluation": GateResult(so.gate, "", "")} if so.gate is not None else {},
            approval=so.approval,
            command=_decide_command(command, record, policy, frozen=so.frozen),
            frozen_until=now + timedelta(hours=1) if so.frozen else None,
            rollback_window=windowed,
            ab_test_won=so.wins,
        ),
    )


def _decide_command(
    command: Command | None, record: RolloutRecord, policy: RolloutPolicySpec, *, frozen: bool
) -> commands.CommandDecision | None:
    gates = [name for name in ("evaluation", "approval") if policy.gates is not None]
    passed = {gate.name for gate in record.status.gates if gate.outcome == Outcome.PASS}
    steps = policy.strategy.steps or ()
    standing = commands.CommandContext(
        record.state,
        newest=True,
        paused=bool(record.status.paused),
        frozen=frozen,
        gates_open=tuple(name for name in gates if name not in passed),
        approvals_open=tuple("step" for step in steps[record.step_index :] if step.approval is not None),
    )
    return commands.evaluate_command(command, (), standing)


_NO = Approval.parse(
    {
        "metadata": {"name": "no", "namespace": "ml"},
        "spec": {
            "modelRef": {"name": "m"},
            "rollout": {"name": "m-2", "uid": "u"},
            "contentHash": "0" * approvals.CONTENT_HASH_LENGTH,
            "decision": "Reject",
            "approver": "a",
            "reason": "b",
        },
    }
)
_WAITING = approvals.ApprovalsMissing((), 1, Reason.AWAITING_APPROVAL, "no approvals yet")


def _build_record(source: Revision | None) -> RolloutRecord:
    wire: dict[str, Any] = {
        "metadata": {"name": "m-2", "namespace": "ml", "uid": "u", "creationTimestamp": _START.isoformat()},
        "spec": {"modelRef": {"name": "m"}, "number": 2, "target": {"version": "v2", "revision": "new"}},
        "status": {"to": {"version": "v2", "revision": "new"}},
    }
    if source is not None:
        wire["status"]["from"] = {"version": source.version, "revision": source.hash}
    return RolloutRecord.from_rollout(ModelRollout.parse(wire))


def _record_key(record: RolloutRecord) -> tuple[object, ...]:
    """Return the key of a record's state, regardless of time."""
    status, entry = record.status, record.step_status
    return (
        record.state,
        status.step,
        entry is not None and entry.confirmed_at is not None,
        tuple((gate.name, gate.outcome) for gate in status.gates),
        status.paused,
        status.ending,
    )
