"""What a ModelRollout remembers, and the pure steps by which that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from modelwright.api.names import content_hash
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import (
    CommandStatus,
    ModelRollout,
    ModelRolloutSpec,
    ModelRolloutStatus,
    RolloutState,
    StepStatus,
)
from modelwright.core import stopwatch
from modelwright.core.revision import Revision
from modelwright.core.rollout.steps import RolloutStep

TERMINAL_STATES = frozenset(
    {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}
)
"""States in which nothing happens any more."""
REVERTED_STATES = frozenset({RolloutState.ROLLED_BACK, RolloutState.ABORTED})
"""States after which the same revision isn't tried again by itself."""
DEADLINE_STATES = frozenset(
    {RolloutState.GATING, RolloutState.PROGRESSING, RolloutState.HOLDING, RolloutState.PROMOTING}
)
"""States in which the deadline's clock runs, unless people or a freeze are waited for."""
FAILED_OUTCOME = "Fail"
"""Outcome of a step that turned the rollout back, or that a person has overruled."""
_STATES_BY_NAME: Mapping[str, RolloutState] = {str(state): state for state in RolloutState}
_APPROVAL_REASONS = frozenset(
    {Reason.AWAITING_APPROVAL, Reason.NO_AUTHOR, Reason.AUTHOR_UNKNOWN, Reason.ADMISSION_POLICY_MISSING}
)
_CLOCK_STOPPING_REASONS = frozenset({Reason.PAUSED, Reason.FREEZE_WINDOW})


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A ModelRollout as a decision sees it."""

    name: str
    uid: str
    generation: int
    created: datetime
    spec: ModelRolloutSpec
    status: ModelRolloutStatus

    @classmethod
    def from_rollout(cls, rollout: ModelRollout) -> RolloutRecord:
        """The record of a parsed ModelRollout. One that the API server has must have a creation time."""
        created = rollout.metadata.creation_timestamp
        assert created is not None  # noqa: S101
        return cls(rollout.name, rollout.uid, rollout.generation, created, rollout.spec, rollout.status)

    @property
    def state(self) -> RolloutState:
        """Where it stands; one that nobody has looked at yet is Pending."""
        return _STATES_BY_NAME.get(self.status.state or "", RolloutState.PENDING)

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.state not in TERMINAL_STATES

    @property
    def is_manual(self) -> bool:
        """Whether a person made it, to go back at once."""
        return self.spec.rollback is not None

    @property
    def candidate(self) -> Revision | None:
        """The candidate; None while that isn't known."""
        ref, target = self.status.to, self.spec.target
        if ref is not None:
            return Revision(ref.version, ref.revision)
        return Revision(target.version, target.revision) if target.revision is not None else None

    @property
    def from_revision(self) -> Revision | None:
        """What served when it began; None for a first revision."""
        ref = self.status.from_
        return Revision(ref.version, ref.revision) if ref is not None else None

    @property
    def baseline(self) -> Revision | None:
        """New pods of the serving revision, beside which the candidate is judged when the policy asks for that."""
        source = self.from_revision
        return Revision(source.version, content_hash([source.hash, self.uid])) if source is not None else None

    @property
    def pins_model(self) -> bool:
        """Whether it is a rollback by hand that the Model still has to obey."""
        return (
            self.is_manual
            and not self.status.released
            and self.state not in REVERTED_STATES | {RolloutState.SUPERSEDED}
        )

    @property
    def waits_for_retry(self) -> bool:
        """Whether its revision must not be tried again by itself."""
        return self.state in REVERTED_STATES and not self.status.retried and not self.status.lapsed

    @property
    def ended_undecided(self) -> bool:
        """Whether it ended although nothing was found against its version, which is therefore not in quarantine."""
        return is_undecided_ending(self.status.state, self.status.reason)

    @property
    def step_index(self) -> int:
        """Index of the present step."""
        return self.status.step or 0

    @property
    def step_status(self) -> StepStatus | None:
        """The present step's entry, None before it was begun."""
        return next((entry for entry in self.status.steps if entry.index == self.status.step), None)

    @property
    def is_overruled(self) -> bool:
        """Whether a person promoted it although its metrics had failed."""
        entry = self.step_status
        return self.state is RolloutState.PROMOTING and entry is not None and entry.outcome == FAILED_OUTCOME

    def elapsed_time(self, now: datetime) -> timedelta:
        """How much of the deadline is used up."""
        return stopwatch.elapsed_time(self.status.clock, now)

    def with_status(self, **changes: Any) -> RolloutRecord:
        """This record with some members of its status changed."""
        return replace(self, status=self.status.model_copy(update=changes))


def is_undecided_ending(state: str | None, reason: str | None) -> bool:
    """Whether a rollout ended although nothing was found against its version. Of those that end as Aborted only the
    command `abort` is a finding, a person's."""
    return state == RolloutState.ABORTED and reason != Reason.ABORTED_BY_COMMAND


def transition_to(
    record: RolloutRecord, state: RolloutState, reason: str, message: str, now: datetime
) -> RolloutRecord:
    """`record` in this state for this reason. Times move only when the state does, the message only with the reason;
    the deadline's clock is stopped and started here."""
    status = record.status
    if (status.state, status.reason) == (state, str(reason)):
        # What people still have to do changes as they write.
        return (
            record.with_status(message=message) if reason in _APPROVAL_REASONS and status.message != message else record
        )
    running = state in DEADLINE_STATES and reason not in _CLOCK_STOPPING_REASONS
    changes: Mapping[str, Any] = {
        "state": state,
        "reason": str(reason),
        "message": message,
        "since": now if status.state != state else status.since or now,
        "clock": stopwatch.set_running(status.clock, running=running, now=now),
        "started_at": status.started_at or now,
        "finished_at": now if state in TERMINAL_STATES and status.finished_at is None else status.finished_at,
    }
    return record.with_status(**changes)


def start_step(record: RolloutRecord, steps: tuple[RolloutStep, ...], index: int, now: datetime) -> RolloutRecord:
    """`record` at the step of this index; the one before, if it is still open, has passed."""
    record = end_step(record, "Pass", now)
    step = steps[index]
    entry = StepStatus(index=index, kind=step.kind, weight=step.weight, started_at=now)
    return record.with_status(
        step=index,
        progress=f"{index + 1}/{len(steps)}",
        weight=step.weight,
        observed_weight=None,
        verdict=None,
        steps=(*(s for s in record.status.steps if s.index != index), entry),
    )


def confirm_step(record: RolloutRecord, now: datetime) -> RolloutRecord:
    """The present step's traffic is in force: hold and evidence count from now."""
    return _update_step(record, confirmed_at=now)


def end_step(record: RolloutRecord, outcome: str, now: datetime) -> RolloutRecord:
    """`record` with the present step ended, if it was open."""
    entry = record.step_status
    return (
        record
        if entry is None or entry.finished_at is not None
        else _update_step(record, finished_at=now, outcome=outcome)
    )


def overrule_step(record: RolloutRecord, now: datetime) -> RolloutRecord:
    """`record` with the present step failed, though a person promotes it."""
    return _update_step(record, finished_at=now, outcome=FAILED_OUTCOME)


def _update_step(record: RolloutRecord, **changes: Any) -> RolloutRecord:
    steps = tuple(
        entry.model_copy(update=changes) if entry.index == record.status.step else entry
        for entry in record.status.steps
    )
    return record.with_status(steps=steps)


def start_rollback(
    record: RolloutRecord, ending: RolloutState, reason: str, message: str, now: datetime
) -> RolloutRecord:
    """`record` on its way back to what served; it ends in `ending`."""
    failed = reason in (Reason.ANALYSIS_FAILED, Reason.CANDIDATE_UNAVAILABLE) and ending is RolloutState.ROLLED_BACK
    outcome = FAILED_OUTCOME if failed else "Ended"
    record = end_step(record, outcome, now)
    return transition_to(record.with_status(ending=ending, weight=0), RolloutState.ROLLING_BACK, reason, message, now)


def record_command(record: RolloutRecord, *, accepted: bool, message: str, now: datetime) -> RolloutRecord:
    """`record` with its command written down as carried out or refused."""
    command = record.spec.command
    assert command is not None  # noqa: S101 - only called for a record that has one
    entry = CommandStatus(
        name=command.name,
        token=command.token,
        by=command.by,
        reason=command.reason,
        at=now,
        accepted=accepted,
        message=message,
    )
    kept = [known for known in record.status.commands if known.token != command.token][-63:]
    return record.with_status(commands=(*kept, entry))
