"""Members of an observation on which rows with a record may rely, and facts read from them."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.measured_step import STEP_STATES
from modelwright.core.rollout.observation import Observation, RevisionView, RolloutInput
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep


def rollout_input(o: Observation) -> RolloutInput:
    assert o.rollout is not None  # noqa: S101 - rows here hold for a Model with a record or a policy only
    return o.rollout


def require_record(o: Observation) -> RolloutRecord:
    record = o.record
    assert record is not None  # noqa: S101
    return record


def require_candidate(o: Observation) -> Revision:
    to = require_record(o).candidate
    assert to is not None  # noqa: S101 - a record is made with its candidate
    return to


def is_in_state(o: Observation, *states: State) -> bool:
    return o.active_record is not None and o.active_record.state in states


def is_in_step(o: Observation) -> bool:
    """A step goes on, of those that move traffic."""
    return is_in_state(o, *STEP_STATES) and require_record(o).status.step is not None


def current_step(o: Observation) -> RolloutStep:
    return rollout_input(o).steps[require_record(o).step_index]


def is_recreate(o: Observation) -> bool:
    return o.rollout is not None and o.rollout.policy.strategy.recreate is not None and not skips_steps(o)


def revision_view(o: Observation, revision: Revision | None) -> RevisionView | None:
    return o.revisions.get(revision.hash) if revision is not None else None


def count_pods(o: Observation, revision: Revision | None) -> int:
    view = revision_view(o, revision)
    return max(view.pods, view.replicas or 0) if view is not None else 0


def has_ready_pods(o: Observation, revision: Revision | None, pods: int) -> bool:
    view = revision_view(o, revision)
    return view is not None and view.has_available(pods)


def candidate_weight(o: Observation) -> int:
    """The candidate's share as the route or the pods have it now."""
    to = require_record(o).candidate
    return min(100, o.traffic.weights.get(to.hash, 0)) if to is not None else 0


def skips_steps(o: Observation) -> bool:
    """To a revision that served before, or by a person's hand: without gates and steps."""
    if o.record is None:
        return False
    record, to = require_record(o), require_record(o).candidate
    return record.is_manual or (to is not None and to.hash in rollout_input(o).rollback_window)


def step_is_confirmed(o: Observation) -> bool:
    entry = require_record(o).step_status
    return entry is not None and entry.confirmed_at is not None


def recorded_problem(o: Observation) -> Problem:
    """Why the record is on its way back, or has ended."""
    status = require_record(o).status
    return Problem(status.reason or "", status.message or "")


def pods_problem(o: Observation, pods: int) -> Problem:
    to = require_candidate(o)
    view = revision_view(o, to)
    if view is not None and view.failure is not None:
        return Problem(view.failure.reason, view.failure.message)
    return Problem(Reason.WAITING_FOR_PODS, f"version {to.version}: {pods} ready pods are waited for")


def is_exposed(o: Observation) -> bool:
    """In a state in which callers' requests may reach the candidate, and there is something to go back to."""
    return is_in_step(o) or (is_in_state(o, State.PROMOTING) and require_record(o).from_revision is not None)


def is_recreating(o: Observation) -> bool:
    return is_in_state(o, State.PROGRESSING) and require_record(o).status.step is None and is_recreate(o)
