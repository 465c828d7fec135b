"""Which step's evidence is measured: a candidate that callers' requests reach is never without."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelwright.api.v1alpha1.rollout import RolloutState, StepStatus
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep

STEP_STATES = frozenset({RolloutState.PROGRESSING, RolloutState.HOLDING, RolloutState.AWAITING_APPROVAL})


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A step whose metrics are measured. `since`: its evidence counts from here. `own`: it is the present step, whose
    traffic is confirmed, so that its evidence decides in every way; otherwise only a Fail is acted on. `early`: no step
    that callers' requests reached was confirmed before."""

    index: int
    step: RolloutStep
    since: datetime
    is_current: bool
    early: bool = False


def select_measured_step(
    record: RolloutRecord | None, steps: tuple[RolloutStep, ...], *, exposed: bool
) -> MeasuredStep | None:
    """The step whose metrics are to be measured now; None while no evidence can be had.

    The present step from when its traffic is confirmed. Until then, and in Promoting, the last confirmed step in which
    callers' requests reached the candidate: its evidence goes on. Before there was one, the present step from its
    begin, if the candidate is `exposed`: callers' requests are sent to it already.
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
