"""Decision table of TrainingRuns: rows, with their predicates, reasons and actions.

The order of the rows is the decision.
"""

from __future__ import annotations

from datetime import timedelta

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.training import RunState, StageState
from modelwright.core.problem import Problem
from modelwright.core.retraining.run_actions import RegisterVersion, ResolveData, RunAction, StartStage, StopStage
from modelwright.core.retraining.run_inputs import (
    inputs_unchanged,
    permanent_data_problem,
    resolving_problem,
    unresolved_roles,
    version_name,
)
from modelwright.core.retraining.run_observation import STAGES_BY_STATE, RunObservation, current_stage
from modelwright.core.retraining.run_record import (
    NOT_STARTED,
    has_started,
    is_active,
    is_in_stage,
    is_in_state,
    is_waiting,
    remaining_time,
    stage_entry,
    stage_is_in,
    stage_work,
)
from modelwright.core.retraining.run_transitions import (
    cancel_run,
    fail_deadline,
    fail_fatally,
    fail_lost_child,
    fail_registration,
    fail_stage,
    fail_stage_timeout,
    fail_without_data,
    fail_without_report,
    fatal_problem,
    record_child,
    record_report,
    registration_problem,
    skip_run,
    start_first_stage,
    start_run,
    succeed_run,
)
from modelwright.core.retraining.stage_reading import ENDED_STAGE_STATES, WAITING_STAGE_STATES
from modelwright.core.table import POLL_IDLE, StateRow, Transition, requeue_in

RunStateRow = StateRow[RunObservation, RunState | None, RunAction]
"""A row in which a run stays; with the state None it keeps its state."""
RunTransition = Transition[RunObservation, RunObservation]
RunRow = RunStateRow | RunTransition


def _policy_problem(o: RunObservation) -> Problem:
    name = o.run.spec.policy_ref.name
    return o.problem or Problem(Reason.WAITING_FOR_POLICY, f"spec.policyRef: there is no RetrainingPolicy {name}")


def _queue_problem(o: RunObservation) -> Problem:
    return Problem(Reason.WAITING_FOR_RUN, f"waits for the end of {', '.join(o.earlier_runs)}")


def _has_new_child(o: RunObservation) -> bool:
    return is_in_stage(o) and o.child is not None and not stage_entry(o).uid


def _has_lost_child(o: RunObservation) -> bool:
    if not is_in_stage(o) or not stage_entry(o).uid:
        return False
    return o.child is None or o.child.uid != stage_entry(o).uid


def _deadline_passed(o: RunObservation) -> bool:
    return (
        has_started(o)
        and not is_waiting(o)
        and remaining_time(o.status.clock, o.template.deadline, o.now) <= timedelta(0)
    )


def _stage_timed_out(o: RunObservation) -> bool:
    return (
        is_in_stage(o)
        and not is_waiting(o)
        and remaining_time(stage_entry(o).clock, stage_work(o).timeout, o.now) <= timedelta(0)
    )


def _stage_problem(o: RunObservation) -> Problem:
    name, reading = STAGES_BY_STATE[o.state], o.stage
    if reading is None:
        return o.problem or Problem(Reason.STAGE_RUNNING, f"the stage {name} goes on")
    message = f"stage {name}: {reading.message or reading.state}"
    if reading.state in WAITING_STAGE_STATES:
        return Problem(Reason.STAGE_QUEUED, message)
    return Problem(reading.reason if reading.reason in set(Reason) else Reason.STAGE_RUNNING, message)


def _ensure_stage(o: RunObservation) -> tuple[RunAction, ...]:
    # An earlier row applies to an object with a recorded uid that is gone.
    return (StartStage(STAGES_BY_STATE[o.state]),) if o.child is None else ()


def _registering_problem(o: RunObservation) -> Problem:
    return registration_problem(o) or Problem(Reason.REGISTERING_VERSION, "all stages passed; the ModelVersion is made")


def _recorded_problem(o: RunObservation) -> Problem:
    return Problem(o.status.reason or "", o.status.message or "")


def _object_outlives_run(o: RunObservation) -> bool:
    """Whether the run has ended, but the object of its last stage has not."""
    return (
        not is_active(o)
        and o.child is not None
        and (o.kept_running or o.stage is None or o.stage.state not in ENDED_STAGE_STATES)
    )


def _stop_stage(o: RunObservation) -> tuple[RunAction, ...]:
    entry = current_stage(o.status)
    return tuple(StopStage(stage) for stage in STAGES_BY_STATE.values() if entry is not None and stage == entry.name)


def _do_nothing(_: RunObservation) -> tuple[RunAction, ...]:
    return ()


def _requeue_at_limit(o: RunObservation) -> timedelta:
    """Return the time until the deadline of the run or the timeout of the stage, at least 1 s and at most POLL_IDLE."""
    times = [POLL_IDLE]
    if has_started(o) and not is_waiting(o):
        times.append(remaining_time(o.status.clock, o.template.deadline, o.now))
        if is_in_stage(o):
            times.append(remaining_time(stage_entry(o).clock, stage_work(o).timeout, o.now))
    return max(min(times), timedelta(seconds=1))


RUN_TABLE: tuple[RunRow, ...] = (
    Transition(
        name="the run has succeeded, and its version has another outcome now",
        when=lambda o: is_in_state(o, RunState.SUCCEEDED) and o.version_outcome not in (None, o.status.outcome),
        update=lambda o: o.with_status(outcome=o.version_outcome),
        summary="record that outcome",
    ),
    StateRow(
        name="the run has ended, and the object of its last stage has not",
        when=_object_outlives_run,
        state=None,
        reason=_recorded_problem,
        actions=_stop_stage,
        summary="stop that object",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="the run has ended",
        when=lambda o: not is_active(o),
        state=None,
        reason=_recorded_problem,
        actions=_do_nothing,
        summary="nothing",
    ),
    Transition(
        name="the ModelVersion exists",
        when=lambda o: is_in_state(o, RunState.REGISTERING) and o.registered is True,
        update=succeed_run,
        summary="Succeeded",
    ),
    Transition(
        name="a newer run takes its place",
        when=lambda o: o.cancelled_by is not None and not is_in_state(o, RunState.REGISTERING),
        update=cancel_run,
        summary="Cancelled",
    ),
    Transition(
        name="it can never continue, and no object is running",
        when=lambda o: fatal_problem(o) is not None,
        update=fail_fatally,
        summary="Failed",
    ),
    StateRow(
        name="it has not started, and there is no policy to go by",
        when=lambda o: is_in_state(o, *NOT_STARTED) and (o.policy is None or o.problem is not None),
        state=RunState.PENDING,
        reason=_policy_problem,
        actions=_do_nothing,
        summary="wait",
        requeue_after=_requeue_at_limit,
    ),
    StateRow(
        name="it has not started, and an earlier run has not ended",
        when=lambda o: is_in_state(o, *NOT_STARTED) and bool(o.earlier_runs),
        state=RunState.QUEUED,
        reason=_queue_problem,
        actions=_do_nothing,
        summary="wait",
        requeue_after=_requeue_at_limit,
    ),
    Transition(
        name="it has not started",
        when=lambda o: is_in_state(o, *NOT_STARTED),
        update=start_run,
        summary="store the policy as it is now, and start: Resolving",
    ),
    Transition(
        name="its data can't be resolved",
        when=lambda o: is_in_state(o, RunState.RESOLVING) and permanent_data_problem(o) is not None,
        update=fail_without_data,
        summary="Failed",
    ),
    Transition(
        name="the object of the stage exists for the first time",
        when=_has_new_child,
        update=record_child,
        summary="record its uid",
    ),
    Transition(
        name="the object of the stage is gone, or another one",
        when=_has_lost_child,
        update=fail_lost_child,
        summary="Failed: ChildLost",
    ),
    Transition(
        name="the object of the stage has failed",
        when=lambda o: stage_is_in(o, StageState.FAILED),
        update=fail_stage,
        summary="Failed",
    ),
    Transition(
        name="the object of the stage has succeeded without a report",
        when=lambda o: stage_is_in(o, StageState.SUCCEEDED) and o.stage is not None and o.stage.report is None,
        update=fail_without_report,
        summary="Failed: ReportMissing",
    ),
    Transition(
        name="the object of the stage has succeeded with a report",
        when=lambda o: stage_is_in(o, StageState.SUCCEEDED),
        update=record_report,
        summary="record the result: the next stage, Registering, or Failed",
    ),
    Transition(
        name="the ModelVersion can't be created",
        when=lambda o: (problem := registration_problem(o)) is not None and problem.stalled,
        update=fail_registration,
        summary="Failed",
    ),
    Transition(
        name="the deadline has passed", when=_deadline_passed, update=fail_deadline, summary="Failed: DeadlineExceeded"
    ),
    Transition(
        name="the stage's timeout has passed",
        when=_stage_timed_out,
        update=fail_stage_timeout,
        summary="Failed: StageTimeout",
    ),
    StateRow(
        name="a digest is not known",
        when=lambda o: is_in_state(o, RunState.RESOLVING) and bool(unresolved_roles(o)),
        state=RunState.RESOLVING,
        reason=resolving_problem,
        actions=lambda o: tuple(ResolveData(which) for which in unresolved_roles(o)),
        summary="resolve it",
        requeue_after=_requeue_at_limit,
    ),
    Transition(
        name="the last run that succeeded had the same inputs",
        when=lambda o: is_in_state(o, RunState.RESOLVING) and inputs_unchanged(o),
        update=skip_run,
        summary="Skipped",
    ),
    Transition(
        name="all digests are known",
        when=lambda o: is_in_state(o, RunState.RESOLVING),
        update=start_first_stage,
        summary="record them, and start: CheckingData, or Training without a data check",
    ),
    StateRow(
        name="a stage is in progress",
        when=is_in_stage,
        state=None,
        reason=_stage_problem,
        actions=_ensure_stage,
        summary="create its object, unless there was one",
        requeue_after=_requeue_at_limit,
    ),
    StateRow(
        name="all stages passed",
        when=lambda o: is_in_state(o, RunState.REGISTERING),
        state=RunState.REGISTERING,
        reason=_registering_problem,
        actions=lambda o: (RegisterVersion(version_name(o.run.name)),),
        summary="create the ModelVersion",
        requeue_after=_requeue_at_limit,
    ),
)
