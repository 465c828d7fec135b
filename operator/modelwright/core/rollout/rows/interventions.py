"""Rows that a command, or an edit of the Model, causes during a rollout or after it, as the end of a quarantine."""

from __future__ import annotations

from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.rollout.decision import RolloutRow
from modelwright.core.rollout.lookups import require_record, rollout_input
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.transitions import apply_command, supersede
from modelwright.core.table import Transition


def _has_new_command(o: Observation) -> bool:
    record = o.record
    if record is None or o.rollout is None or o.rollout.command is None or record.spec.command is None:
        return False
    return all(entry.token != record.spec.command.token for entry in record.status.commands)


def _reverted_target_changed(o: Observation) -> bool:
    return (
        o.record is not None
        and o.record.waits_for_retry
        and o.target is not None
        and o.record.candidate is not None
        and o.record.candidate.hash != o.target.hash
    )


def _target_changed(o: Observation) -> bool:
    return (
        o.active_record is not None
        and o.active_record.state is not State.ROLLING_BACK
        and o.target is not None
        and o.active_record.candidate is not None
        and o.active_record.candidate.hash != o.target.hash
    )


ROWS: tuple[RolloutRow, ...] = (
    Transition(
        name="a command was given that was not executed yet",
        when=_has_new_command,
        update=apply_command,
        summary="execute it, or refuse it with a reason",
    ),
    Transition(
        name="spec.version was changed since a manual rollback started",
        when=lambda o: o.record is not None and o.record.pins_model and rollout_input(o).released_by_spec,
        update=lambda o: require_record(o).with_status(released=True),
        summary="release the Model",
    ),
    Transition(
        name="the Model wants another revision than the one that was rolled back or aborted",
        when=_reverted_target_changed,
        update=lambda o: require_record(o).with_status(lapsed=True),
        summary="end its quarantine: it may be wanted again",
    ),
    Transition(
        name="the Model wants another revision than the rollout moves to",
        when=_target_changed,
        update=supersede,
        summary="turn back, to end as Superseded",
    ),
)
