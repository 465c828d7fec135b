"""Selects the step whose evidence is measured: a candidate that receives callers' requests is always measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelwright.api.v1alpha1.rollout import RolloutState, StepStatus
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep

STEP_STATES = frozenset({RolloutState.PROGRESSING, RolloutState.HOLDING, RolloutState.AWAITING_APPROVAL})


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A step whose metrics are measured.

    `since`: time from which evidence counts. `is_current`: it is the current step, and its traffic is confirmed, so
    that every outcome has an effect; otherwise only a Fail has. `early`: no step with callers' requests was confirmed
    before.
    """

    index: int
    step: RolloutStep
    since: datetime
    is_current: bool
    early: bool = False


def select_measured_step(
    record: RolloutRecord | None, steps: tuple[RolloutStep, ...], *, exposed: bool
) -> MeasuredStep | None:
    """Select the step whose metrics are to be measured now; None while there can be no evidence.

    It is the current step once its traffic is confirmed. Until then, and in Promoting, it is the last confirmed step in
    which callers' requests reached the candidate. Before there is one, it is the current step from its start, if the
    candidate is `exposed`: it already receives callers' requests.
    """
    if record is None or record.status.step is None or record.step_index >= len(steps):
        return None
    if record.state not in STEP_STATES and record.state is not RolloutState.PROMOTING:
        return None
    entry = record.step_status
    if entry is None:
        return None
    if entry.confirmed_at is not None and record.state is not RolloutState.PROMOTING:
        return MeasuredStep(record.step_index, steps[record.step_index], entry.confirmed_at, is_current=True)
    before = _last_confirmed_step(record, steps)
    if before is not None and before.confirmed_at is not None:
        return MeasuredStep(before.index, steps[before.index], before.confirmed_at, is_current=False)
    if not exposed:
        return None
    return MeasuredStep(record.step_index, steps[record.step_index], entry.started_at, is_current=False, early=True)


def _last_confirmed_step(record: RolloutRecord, steps: tuple[RolloutStep, ...]) -> StepStatus | None:
    confirmed = (
        entry
        for entry in reversed(record.status.steps)
        if entry.confirmed_at is not None and entry.index < len(steps) and _reaches_callers(steps[entry.index])
    )
    return next(confirmed, None)


def _reaches_callers(step: RolloutStep) -> bool:
    return step.weight > 0 or bool(step.match)
