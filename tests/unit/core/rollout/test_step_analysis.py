"""The levels of a policy's metrics, and what a record keeps of their verdicts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ModelRolloutSpec, ModelRolloutStatus, StepStatus
from modelwright.core.analysis.evidence import Block, Outcome, Verdict
from modelwright.core.rollout import step_analysis
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import compile_steps

ERRORS = {"name": "errors", "builtin": "error-rate", "margin": "0.02"}
SCORE = {"name": "score", "job": {"template": {}, "value": "accuracy"}, "min": "0.9"}
SIZE = {"name": "size", "prometheus": {"query": "up"}, "max": "3"}


def levels(name: str, *metrics: dict[str, Any], **spec: Any) -> tuple[float, float]:
    wire = {"strategy": {"preset": "Canary"}, "analysis": {"metrics": metrics, "interval": "10m"}, "deadline": "1h"}
    policy = RolloutPolicySpec.model_validate({**wire, **spec})
    steps = compile_steps(policy.strategy)
    asked = step_analysis.metrics_for_step(policy, steps[0])
    result = step_analysis.error_levels(policy, steps, asked, next(metric for metric in asked if metric.name == name))
    return result.passes, result.fails


def test_all_measurements_share_the_level_of_a_job_figure() -> None:
    assert levels("score", SCORE) == pytest.approx((0.05 / 6, 0.05 / 6))
    assert levels("score", SCORE, deadline="2h") == pytest.approx((0.05 / 12, 0.05 / 12))
    assert levels("score", {**SCORE, "confidence": "0.9"}) == pytest.approx((0.1 / 6, 0.1 / 6))


def test_job_figure_shares_the_error_level_with_request_shares() -> None:
    alone, together = levels("errors", ERRORS), levels("errors", ERRORS, SCORE)
    assert together == pytest.approx((alone[0], alone[1] / 2))
    assert levels("score", ERRORS, SCORE) == pytest.approx((0.05 / 6, 0.05 / 12))


def test_a_value_without_error_shares_nothing() -> None:
    assert levels("errors", ERRORS, SIZE) == pytest.approx(levels("errors", ERRORS))


def test_recorded_pass_keeps_its_blocks_at_the_transition() -> None:
    begin = datetime(2026, 12, 1, tzinfo=UTC)
    look = begin + timedelta(minutes=1)
    step = StepStatus(index=0, kind="weight", weight=10, started_at=begin, confirmed_at=begin)
    spec = ModelRolloutSpec.model_validate({"modelRef": {"name": "digits"}, "number": 2, "target": {"version": "v2"}})
    record = RolloutRecord(
        name="digits-2",
        uid="",
        generation=1,
        created=begin,
        spec=spec,
        status=ModelRolloutStatus(step=0, steps=(step,)),
    )
    arm = (Block(begin.timestamp() + 15, 500, 5),)
    verdict = Verdict("errors", Outcome.PASS, "WithinLimits", "", blocks=(arm, arm))
    hold = timedelta(hours=1)
    written = step_analysis.record_verdicts(record, (verdict,), Outcome.PASS, {"errors": look}, look, hold=hold)
    (before,) = written.status.verdicts
    assert before.blocks is None
    later = look + timedelta(seconds=1)
    ended = step_analysis.record_verdicts(
        written, (verdict,), Outcome.PASS, {"errors": look}, later, hold=hold, fresh=True
    )
    (after,) = ended.status.verdicts
    assert after.blocks is not None
