"""State transitions of a TrainingRun and the rows that make them, found by running the decision table.

Starting with a new run, each reached record is evaluated in many situations that policy, data, objects of stages, other
runs and time can cause, until no new record appears.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec
from modelwright.api.v1alpha1.training import RunState, StageState, TrainingRun
from modelwright.core.problem import Problem
from modelwright.core.retraining.run_inputs import hash_inputs
from modelwright.core.retraining.run_machine import trace_run
from modelwright.core.retraining.run_observation import STAGES_BY_STATE, ChildRef, ResolvedData, RunObservation
from modelwright.core.retraining.run_table import RUN_TABLE
from modelwright.core.retraining.stage_reading import StageReading
from modelwright.core.table import number_rows

Transitions = dict[tuple[RunState, RunState], set[int]]

_START = datetime(2026, 1, 1, tzinfo=UTC)
_DIGEST = "sha256:" + "1" * 64
_WORK = {"job": {"template": {}}, "timeout": "1h"}
_RUN = {
    "dataset": {"uri": "s3://data/digits/"},
    "train": _WORK,
    "output": {"uri": "s3://models/digits", "format": {"name": "sklearn"}},
    "deadline": "24h",
}
_GATES = {"gates": [{"name": "accuracy", "min": "0.9"}]}
_STAGES: tuple[dict[str, Any], ...] = ({}, {"dataCheck": _WORK}, {"dataCheck": _WORK, "evaluate": {**_WORK, **_GATES}})
_GOOD: dict[str, dict[str, Any]] = {
    "dataCheck": {"checks": [{"name": "rows", "outcome": "Pass"}]},
    "train": {"artifact": {"uri": "s3://models/digits/run-1", "digest": _DIGEST}},
    "evaluate": {"metrics": [{"name": "accuracy", "candidate": 0.95, "n": 2000}]},
}
_BAD: dict[str, dict[str, Any]] = {
    "dataCheck": {"checks": [{"name": "rows", "outcome": "Fail"}]},
    "train": {},
    "evaluate": {"metrics": [{"name": "accuracy", "candidate": 0.5, "n": 2000}]},
}
_GONE = Problem(Reason.INVALID_POLICY, "the policy can't be read", stalled=True)


@cache
def list_transitions() -> Transitions:
    """Map each transition (from, to) to the numbers of its rows."""
    transitions: Transitions = {}
    for stages in _STAGES:
        policy = RetrainingPolicySpec.model_validate({"modelRef": {"name": "digits"}, "run": {**_RUN, **stages}})
        _explore_run_moves(policy, transitions)
    return transitions


def _explore_run_moves(policy: RetrainingPolicySpec, transitions: Transitions) -> None:
    """Add every transition of a run of this policy."""
    numbers = number_rows(RUN_TABLE)
    run = TrainingRun.parse(
        {
            "metadata": {"name": "run-1", "namespace": "ml", "uid": "u"},
            "spec": {"policyRef": {"name": "digits"}, "trigger": {"name": "weekly", "identity": "1"}},
        }
    )
    first = RunObservation(_START, run, policy)
    known, left = {_run_key(first)}, [first]
    while left:
        for observation in _run_situations(left.pop(0), policy):
            before = observation
            for row, after in trace_run(observation):
                if after.state is not before.state:
                    transitions.setdefault((before.state, after.state), set()).add(numbers[row.name])
                before = after
            if _run_key(before) not in known:
                known.add(_run_key(before))
                left.append(before)


def _run_situations(at: RunObservation, policy: RetrainingPolicySpec) -> Iterator[RunObservation]:
    """Yield the possible observations of a run that has reached `at`."""
    quiet = RunObservation(at.now, at.run, policy)
    yield quiet
    yield replace(quiet, policy=None)
    yield replace(quiet, problem=_GONE)
    yield replace(quiet, earlier_runs=("run-0",))
    yield replace(quiet, cancelled_by="run-2")
    yield replace(quiet, dataset=ResolvedData(_DIGEST))
    yield replace(quiet, dataset=ResolvedData(problem=_GONE))
    yield replace(quiet, dataset=ResolvedData(_DIGEST), last_inputs=hash_inputs(policy.run, _DIGEST, None, {}))
    yield replace(quiet, registered=True)
    yield replace(quiet, registered=_GONE)
    for later in (timedelta(hours=2), timedelta(hours=30)):
        yield replace(quiet, now=at.now + later)
    if at.state not in STAGES_BY_STATE:
        return
    stage = STAGES_BY_STATE[at.state]
    child = ChildRef(f"run-1-{stage}", f"uid-{stage}")
    for reading in (
        StageReading(StageState.RUNNING),
        StageReading(StageState.QUEUED),
        StageReading(StageState.FAILED),
        StageReading(StageState.SUCCEEDED),
        StageReading(StageState.SUCCEEDED, report=_GOOD[stage]),
        StageReading(StageState.SUCCEEDED, report=_BAD[stage]),
    ):
        yield replace(quiet, stage=reading, child=child)
    for later in (timedelta(hours=2), timedelta(hours=30)):
        yield replace(quiet, stage=StageReading(StageState.RUNNING), child=child, now=at.now + later)


def _run_key(at: RunObservation) -> tuple[object, ...]:
    """Return the key of a run's state, regardless of time."""
    return (at.state, *((stage.name, stage.state, bool(stage.uid)) for stage in at.status.stages))
