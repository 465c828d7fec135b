"""Policies, runs and pictures of them for the tests of retraining."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec
from modelwright.api.v1alpha1.training import StageState, TrainingRun, TrainingRunStatus
from modelwright.core.retraining.run_actions import RunDecision
from modelwright.core.retraining.run_machine import decide_run
from modelwright.core.retraining.run_observation import ChildRef, ResolvedData, RunObservation
from modelwright.core.retraining.stage_reading import StageReading

NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)
DIGEST = "sha256:" + "1" * 64
OUTPUT = "s3://models/digits/run-1"

REPORTS: dict[str, dict[str, Any]] = {
    "dataCheck": {"checks": [{"name": "rows", "outcome": "Pass"}], "profile": {"rows": 100}},
    "train": {"artifact": {"uri": OUTPUT, "digest": DIGEST}, "metrics": {"accuracy": 0.97}},
    "evaluate": {
        "metrics": [{"name": "accuracy", "candidate": 0.95, "serving": 0.94, "n": 2000, "better": 50, "worse": 30}]
    },
}
"""A good report of each stage."""


def policy(
    *, check: bool = True, evaluate: bool | dict[str, Any] = True, holdout: bool = False, **run: Any
) -> RetrainingPolicySpec:
    """A policy with the stages that are asked for; `run` adds to spec.run, but `guard` to spec, and a dictionary as
    `evaluate` to that stage."""
    job = {"job": {"template": {}}, "timeout": "1h"}
    template: dict[str, Any] = {
        "dataset": {"uri": "s3://data/digits/"},
        "train": job,
        "output": {"uri": "s3://models/digits", "format": {"name": "sklearn"}},
        "deadline": "2h",
    }
    if check:
        template["dataCheck"] = job
    if evaluate is not False:
        gates = [{"name": "accuracy", "min": "0.9", "minDelta": "-0.01"}]
        template["evaluate"] = {**job, "gates": gates, **(evaluate if isinstance(evaluate, dict) else {})}
    if holdout:
        template["holdout"] = {"uri": "s3://data/holdout/"}
    guard = run.pop("guard", {})
    return RetrainingPolicySpec.model_validate(
        {"modelRef": {"name": "digits"}, "guard": guard, "run": {**template, **run}}
    )


def run(*, manual: bool = False, **status: Any) -> TrainingRun:
    """A run with this status."""
    asked = (
        {"manual": {"by": "alice", "reason": "new labels", "parameters": {"C": "2"}}}
        if manual
        else {"trigger": {"name": "weekly", "identity": "1"}}
    )
    result = TrainingRun.parse(
        {
            "metadata": {"name": "run-1", "namespace": "ml", "uid": "u1", "generation": 1},
            "spec": {"policyRef": {"name": "digits"}, **asked},
        }
    )
    return result.model_copy(update={"status": TrainingRunStatus.model_validate(status)})


def observation(**changes: Any) -> RunObservation:
    """A run that nobody has looked at yet, of a policy with all stages, its data resolved."""
    known: dict[str, Any] = {
        "now": NOW,
        "run": run(),
        "policy": policy(),
        "policy_generation": 3,
        "serving": "digits-1",
        "dataset": ResolvedData(DIGEST),
    }
    return RunObservation(**{**known, **changes})


def after(observed: RunObservation, decision: RunDecision | None = None, **changes: Any) -> RunObservation:
    """The same picture once the decision was written down."""
    decision = decision or decide_run(observed)
    return replace(observed, run=observed.run.model_copy(update={"status": decision.status}), **changes)


def stage_reading(stage: str, state: StageState = StageState.SUCCEEDED, **reading: Any) -> dict[str, Any]:
    """What is seen of the object of a stage; one that has succeeded has left a good report."""
    if state is StageState.SUCCEEDED and "report" not in reading:
        reading["report"] = REPORTS[stage]
    return {"child": ChildRef(f"run-1-{stage}", f"uid-{stage}"), "stage": StageReading(state, **reading)}


def during(stage: str, *, known: bool = True, **changes: Any) -> RunObservation:
    """A picture in the midst of a stage, all before it having passed; its object runs, or isn't there yet."""
    result = after(observation(**changes))
    for before in ("dataCheck", "train", "evaluate"):
        if before == stage:
            break
        result = after(replace(result, **stage_reading(before)), child=None, stage=None)
    return after(replace(result, **stage_reading(stage, StageState.RUNNING))) if known else result


def later(observed: RunObservation, **spans: float) -> RunObservation:
    """The same picture after some time (timedelta's arguments)."""
    return replace(observed, now=observed.now + timedelta(**spans))
