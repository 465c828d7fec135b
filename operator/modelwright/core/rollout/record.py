"""The record of a rollout, which its ModelRollout keeps: its states, and the clock of its deadline."""

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
"""States of a rollout that has ended."""
REVERTED_STATES = frozenset({RolloutState.ROLLED_BACK, RolloutState.ABORTED})
"""End states after which the same revision is not tried again automatically."""
DEADLINE_STATES = frozenset(
    {RolloutState.GATING, RolloutState.PROGRESSING, RolloutState.HOLDING, RolloutState.PROMOTING}
)
"""States in which the deadline's clock runs, unless the rollout is paused or frozen."""
FAILED_OUTCOME = "Fail"
"""Outcome of a step that made the rollout roll back, or whose failure a promotion has overruled."""
_STATES_BY_NAME: Mapping[str, RolloutState] = {str(state): state for state in RolloutState}
_APPROVAL_REASONS = frozenset(
    {Reason.AWAITING_APPROVAL, Reason.NO_AUTHOR, Reason.AUTHOR_UNKNOWN, Reason.ADMISSION_POLICY_MISSING}
)
_CLOCK_STOPPING_REASONS = frozenset({Reason.PAUSED, Reason.FREEZE_WINDOW})


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A ModelRollout as the input of a decision."""

    name: str
    uid: str
    generation: int
    created: datetime
    spec: ModelRolloutSpec
    status: ModelRolloutStatus

    @classmethod
    def from_rollout(cls, rollout: ModelRollout) -> RolloutRecord:
        """Create the record of a parsed ModelRollout from the API server, which always sets a creation time."""
        created = rollout.metadata.creation_timestamp
        assert created is not None  # noqa: S101
        return cls(rollout.name, rollout.uid, rollout.generation, created, rollout.spec, rollout.status)

    @property
    def state(self) -> RolloutState:
        """The state; Pending before the first reconciliation."""
        return _STATES_BY_NAME.get(self.status.state or "", RolloutState.PENDING)

    @property
    def is_active(self) -> bool:
        """Whether the rollout has not ended."""
        return self.state not in TERMINAL_STATES

    @property
    def is_manual(self) -> bool:
        """Whether it is a manual rollback."""
        return self.spec.rollback is not None

    @property
    def candidate(self) -> Revision | None:
        """The revision to roll out; None while it is not known."""
        ref, target = self.status.to, self.spec.target
        if ref is not None:
            return Revision(ref.version, ref.revision)
        return Revision(target.version, target.revision) if target.revision is not None else None

    @property
    def from_revision(self) -> Revision | None:
        """The revision that served when the rollout started; None for a first revision."""
        ref = self.status.from_
        return Revision(ref.version, ref.revision) if ref is not None else None

    @property
    def baseline(self) -> Revision | None:
        """New pods of the serving revision, with which the candidate is compared if the policy says so."""
        source = self.from_revision
        return Revision(source.version, content_hash([source.hash, self.uid])) if source is not None else None

    @property
    def pins_model(self) -> bool:
        """Whether it is a manual rollback that still pins the Model to its revision."""
        return (
            self.is_manual
            and not self.status.released
            and self.state not in REVERTED_STATES | {RolloutState.SUPERSEDED}
        )

    @property
    def waits_for_retry(self) -> bool:
        """Whether its revision must not be tried again without the command retry."""
        return self.state in REVERTED_STATES and not self.status.retried and not self.status.lapsed

    @property
    def ended_undecided(self) -> bool:
        """Whether it ended without a finding against its version, which is therefore not in quarantine."""
        return is_undecided_ending(self.status.state, self.status.reason)

    @property
    def step_index(self) -> int:
        """Index of the current step."""
        return self.status.step or 0

    @property
    def step_status(self) -> StepStatus | None:
        """Entry of the current step; None before it started."""
        return next((entry for entry in self.status.steps if entry.index == self.status.step), None)

    @property
    def is_overruled(self) -> bool:
        """Whether it was promoted by a command although its metrics had failed."""
        entry = self.step_status
        return self.state is RolloutState.PROMOTING and entry is not None and entry.outcome == FAILED_OUTCOME

    def elapsed_time(self, now: datetime) -> timedelta:
        """Return the time that counts towards the deadline."""
        return stopwatch.elapsed_time(self.status.clock, now)

    def with_status(self, **changes: Any) -> RolloutRecord:
        """Return this record with some members of its status changed."""
        return replace(self, status=self.status.model_copy(update=changes))


def is_undecided_ending(state: str | None, reason: str | None) -> bool:
    """Whether a rollout ended without a finding against its version: as Aborted, but not by the command `abort`."""
    return state == RolloutState.ABORTED and reason != Reason.ABORTED_BY_COMMAND


def transition_to(
    record: RolloutRecord, state: RolloutState, reason: str, message: str, now: datetime
) -> RolloutRecord:
    """Put the record into a state for a reason.

    Times change only with the state, the message only with state or reason. The deadline's clock starts and stops here.
    """
    status = record.status
    if (status.state, status.reason) == (state, str(reason)):
        # The message lists the approvals that are still missing, which changes with each one.
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
    """Start the step of this index; the previous one, if it has not ended, has passed."""
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
    """Confirm the traffic of the current step: hold and evidence count from now."""
    return _update_step(record, confirmed_at=now)


def end_step(record: RolloutRecord, outcome: str, now: datetime) -> RolloutRecord:
    """End the current step, unless it has ended."""
    entry = record.step_status
    return (
        record
        if entry is None or entry.finished_at is not None
        else _update_step(record, finished_at=now, outcome=outcome)
    )


def overrule_step(record: RolloutRecord, now: datetime) -> RolloutRecord:
    """End the current step as failed, although a command promotes the candidate."""
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
    """Start the rollback to the revision that served before; the rollout ends in the state `ending`."""
    failed = reason in (Reason.ANALYSIS_FAILED, Reason.CANDIDATE_UNAVAILABLE) and ending is RolloutState.ROLLED_BACK
    outcome = FAILED_OUTCOME if failed else "Ended"
    record = end_step(record, outcome, now)
    return transition_to(record.with_status(ending=ending, weight=0), RolloutState.ROLLING_BACK, reason, message, now)


def record_command(record: RolloutRecord, *, accepted: bool, message: str, now: datetime) -> RolloutRecord:
    """Record the command as executed or refused."""
    command = record.spec.command
    assert command is not None  # noqa: S101 - called only for a record with a command
    entry = CommandStatus(
        name=command.name,
        token=command.token,
        by=command.by,
        reason=command.reason,
        at=now,
        accepted=accepted,
        message=message,
    )
    others = [other for other in record.status.commands if other.token != command.token][-63:]
    return record.with_status(commands=(*others, entry))
