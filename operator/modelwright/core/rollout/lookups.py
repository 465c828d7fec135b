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
    assert o.rollout is not None  # noqa: S101 - all rows but the unmanaged ones need a record or a policy
    return o.rollout


def require_record(o: Observation) -> RolloutRecord:
    record = o.record
    assert record is not None  # noqa: S101
    return record


def require_candidate(o: Observation) -> Revision:
    candidate = require_record(o).candidate
    assert candidate is not None  # noqa: S101 - a record is created with its candidate
    return candidate


def is_in_state(o: Observation, *states: State) -> bool:
    return o.active_record is not None and o.active_record.state in states


def is_in_step(o: Observation) -> bool:
    """Whether a step is in progress, of those that move traffic."""
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
    """Return the candidate's percent of the requests, as the route or the pods have it now."""
    candidate = require_record(o).candidate
    return min(100, o.traffic.weights.get(candidate.hash, 0)) if candidate is not None else 0


def candidate_takes_requests(o: Observation) -> bool:
    """Whether callers' requests go to the candidate now, by weight or by a header match."""
    candidate = require_candidate(o)
    return o.traffic.weights.get(candidate.hash, 0) > 0 or o.traffic.matched == candidate.hash


def skips_steps(o: Observation) -> bool:
    """Whether the rollout needs no gates and steps: a manual rollback, or a return to a revision that served before."""
    if o.record is None:
        return False
    record, candidate = require_record(o), require_record(o).candidate
    return record.is_manual or (candidate is not None and candidate.hash in rollout_input(o).rollback_window)


def step_is_confirmed(o: Observation) -> bool:
    entry = require_record(o).step_status
    return entry is not None and entry.confirmed_at is not None


def recorded_problem(o: Observation) -> Problem:
    """Return the recorded reason why the rollout rolls back, or has ended."""
    status = require_record(o).status
    return Problem(status.reason or "", status.message or "")


def pods_problem(o: Observation, pods: int) -> Problem:
    """Explain why the candidate does not have these ready pods: a failure of one, or they are still starting."""
    candidate = require_candidate(o)
    view = revision_view(o, candidate)
    if view is not None and view.failure is not None:
        return Problem(view.failure.reason, view.failure.message)
    return Problem(Reason.WAITING_FOR_PODS, f"version {candidate.version}: waiting for {pods} ready pods")


def is_exposed(o: Observation) -> bool:
    """Whether callers' requests may reach the candidate, and there is a revision to return to."""
    return is_in_step(o) or (is_in_state(o, State.PROMOTING) and require_record(o).from_revision is not None)


def is_recreating(o: Observation) -> bool:
    return is_in_state(o, State.PROGRESSING) and require_record(o).status.step is None and is_recreate(o)
