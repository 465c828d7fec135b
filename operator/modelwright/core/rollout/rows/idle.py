"""Rows of a Model with a policy or a record, while no rollout is active."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import keep_routed_revisions, maintain_target, remove_obsolete, start_rollout
from modelwright.core.rollout.decision import POLL_GATEWAY, RolloutRow
from modelwright.core.rollout.lookups import recorded_problem, require_candidate, require_record, rollout_input
from modelwright.core.rollout.observation import Observation
from modelwright.core.table import POLL_IDLE, StateRow, requeue_in


def _reverted_row(state: State) -> RolloutRow:
    return StateRow(
        name=f"the target's last rollout ended {state}, and the command retry was not given",
        when=lambda o: o.rollout is not None and o.waits_for_retry and require_record(o).state is state,
        state=state,
        reason=lambda o: Problem(recorded_problem(o).reason, _reverted_message(o), stalled=True),
        actions=lambda o: (*keep_routed_revisions(o), *remove_obsolete(o)),
        summary="keep what serves, remove the candidate",
    )


def _reverted_message(o: Observation) -> str:
    record = require_record(o)
    outcome = "was not promoted, and is not in quarantine" if record.ended_undecided else "was taken back"
    return (
        f"version {require_candidate(o).version} {outcome}: {record.status.message}. It is tried again after the "
        f"command retry on ModelRollout {record.name}, or when spec.version has named another one meanwhile"
    )


def _retention_problem(o: Observation) -> Problem:
    names = ", ".join(sorted({revision.version for revision in o.obsolete_revisions}))
    version = o.target.version if o.target else ""
    return Problem(Reason.SERVING, f"version {version} takes all traffic; {names} is kept for going back")


def _pinned_problem(o: Observation) -> Problem:
    rollback = require_record(o).spec.rollback
    assert rollback is not None  # noqa: S101
    text = (
        f"{rollback.by} took the Model back to version {require_candidate(o).version}: {rollback.reason}. "
        f"It stays there until spec.version is changed, or the command release on ModelRollout {require_record(o).name}"
    )
    return Problem(Reason.HELD_BY_ROLLBACK, text, stalled=True)


def _previous_is_retained(o: Observation) -> bool:
    return (
        o.rollout is not None
        and o.target_serves
        and o.traffic.confirmed
        and bool(o.obsolete_revisions)
        and o.retention > o.settle_time
        and o.target_ready
    )


def _wants_new_rollout(o: Observation) -> bool:
    return (
        o.rollout is not None
        and o.rollout.has_policy
        and o.active_record is None
        and o.target is not None
        and o.problem is None
        and (o.serving is None or o.serving.revision.hash != o.target.hash)
    )


ROWS: tuple[RolloutRow, ...] = (
    _reverted_row(State.ROLLED_BACK),
    _reverted_row(State.ABORTED),
    StateRow(
        name="a manual rollback pins the Model",
        when=lambda o: o.record is not None and o.record.pins_model and not o.record.is_active and o.target_serves,
        state=State.SUCCEEDED,
        reason=_pinned_problem,
        actions=maintain_target,
        summary="keep it there",
    ),
    StateRow(
        name="the policy can't be followed, and another revision is wanted",
        when=lambda o: _wants_new_rollout(o) and rollout_input(o).problem is not None,
        state=State.PENDING,
        reason=lambda o: rollout_input(o).problem or Problem(Reason.WAITING_FOR_POLICY, ""),
        actions=lambda o: (*keep_routed_revisions(o), *remove_obsolete(o)),
        summary="keep what serves",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="another revision is wanted",
        when=lambda o: _wants_new_rollout(o),
        state=State.PENDING,
        reason=lambda o: Problem(
            Reason.ROLLOUT_IN_PROGRESS, f"a rollout to version {o.target.version if o.target else ''}"
        ),
        actions=start_rollout,
        summary="create a ModelRollout",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="the target serves, and the previous revision is kept for going back",
        when=_previous_is_retained,
        state=State.SUCCEEDED,
        reason=_retention_problem,
        actions=maintain_target,
        summary="keep both; remove the previous one after keepPrevious",
        requeue_after=lambda o: max(
            min((o.removable_at(r) or o.now for r in o.obsolete_revisions), default=o.now) - o.now, POLL_GATEWAY
        ),
    ),
)
