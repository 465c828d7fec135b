"""What a TrainingRun does next: one table, read from the top, the first row whose condition holds applies.

A row either changes the record (Transition), after which the table is read anew, or stays (Rule). The record is written
before anything is done, so that a crash between any two writes neither loses nor doubles the object of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from modelwright.api.common import parse_duration
from modelwright.api.names import content_hash
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import DatasetSource, RetrainingPolicySpec, RunTemplate, Work
from modelwright.api.v1alpha1.rollout import ClockStatus, PolicySnapshot
from modelwright.api.v1alpha1.training import (
    DatasetStatus,
    RunState,
    StageName,
    StageState,
    StageStatus,
    TrainingRun,
    TrainingRunStatus,
)
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.retraining import stage_reports
from modelwright.core.retraining.stage_reading import ENDED_STAGE_STATES, WAITING_STAGE_STATES, StageReading
from modelwright.core.status.readiness import ConditionSummary, build_conditions
from modelwright.core.stopwatch import elapsed_time, set_running
from modelwright.core.table import POLL_IDLE, StateRow, Transition, trace
from modelwright.net.addresses import redact_uri

RUN_TERMINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.SKIPPED, RunState.FAILED, RunState.CANCELLED})
"""States in which a run has ended: only `outcome` and conditions change."""
STAGES_BY_STATE: Mapping[RunState, StageName] = {
    RunState.CHECKING_DATA: "dataCheck",
    RunState.TRAINING: "train",
    RunState.EVALUATING: "evaluate",
}
"""States in which an object of the user's works, and the stage that it does."""

DataRole = Literal["dataset", "holdout"]

_NOT_STARTED = frozenset({RunState.PENDING, RunState.QUEUED})
_TRANSIENT_REASONS = frozenset(
    {Reason.STORE_UNREACHABLE, Reason.DOWNLOAD_STALLED, Reason.IMAGE_PULL_FAILED, Reason.UNSCHEDULABLE}
)
"""What may keep data from being resolved for a while: waited for until the deadline."""
_MAX_NAMED_CHECKS = 10
"""Failed checks that a message names."""


@dataclass(frozen=True, slots=True)
class ResolvedData:
    """The digest of data, when it is known; `problem` says why it can't be found out."""

    digest: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ChildRef:
    """The live object that does a stage."""

    name: str
    uid: str
    kind: str = "Job"


@dataclass(frozen=True, slots=True)
class RunObservation:
    """The whole input of `decide`.

    `run`: its status is where it stands. `policy`: the snapshot in status.policy once that is there, else the live one;
    name and generation are the live one's. `problem`: why the run can't go on; a stalled one ends it unless an object
    of a stage is at work. `before`: older runs of the policy that have not ended. `serving`: the version that serves.
    `stage` and `child`: of the stage that `present` names, also after the run's end; None when its object is not there.
    `last_inputs`: inputsHash of the last run that succeeded. `registered`: whether the ModelVersion is there, or why it
    can't be made. `cancelled_by`: a newer run that takes this one's place. `kept_running`: the stage is over, and its
    Job goes on, since a container of others keeps its pod from ending.
    """

    now: datetime
    run: TrainingRun
    policy: RetrainingPolicySpec | None = None
    policy_name: str = ""
    policy_generation: int = 0
    problem: Problem | None = None
    earlier_runs: tuple[str, ...] = ()
    serving: str | None = None
    dataset: ResolvedData | None = None
    holdout: ResolvedData | None = None
    stage: StageReading | None = None
    child: ChildRef | None = None
    last_inputs: str | None = None
    registered: bool | Problem = False
    version_outcome: str | None = None
    cancelled_by: str | None = None
    kept_running: bool = False

    @property
    def status(self) -> TrainingRunStatus:
        """The record."""
        return self.run.status

    @property
    def state(self) -> RunState:
        """Where the run stands; one that nobody has looked at yet is Pending."""
        return RunState(self.status.state) if self.status.state is not None else RunState.PENDING

    @property
    def template(self) -> RunTemplate:
        """What the run does."""
        assert self.policy is not None  # noqa: S101 - rows that come after "the policy can't be read" have one
        return self.policy.run

    def with_status(self, **changes: Any) -> RunObservation:
        """This picture with some members of the record changed."""
        status = self.status.model_copy(update=changes)
        return replace(self, run=self.run.model_copy(update={"status": status}))


@dataclass(frozen=True, slots=True)
class ResolveData:
    """Have the digest of this data found out."""

    which: DataRole


@dataclass(frozen=True, slots=True)
class StartStage:
    """Make the object of this stage, if there is none of its name. The record says already that it has begun."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class StopStage:
    """End the object of this stage: the run has ended, whatever it would still come to."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class RegisterVersion:
    """Make the ModelVersion of the result, if it is not there."""

    version: str


RunAction = ResolveData | StartStage | StopStage | RegisterVersion


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The record, to be written first; what to do after that, in order; and when to look again although nothing may
    have happened (None: only on an event)."""

    status: TrainingRunStatus
    actions: tuple[RunAction, ...] = ()
    requeue_after: timedelta | None = None


RunStateRow = StateRow[RunObservation, RunState | None, RunAction]
"""A row in which a run stays; without a state of its own it keeps the one that there is."""
RunTransition = Transition[RunObservation, RunObservation]
RunRow = RunStateRow | RunTransition


def decide_run(observed: RunObservation) -> RunDecision:
    """The record after all transitions, and what follows from it."""
    if observed.status.state is not None and observed.status.state not in set(RunState):
        # A newer operator wrote it; to guess would be to make objects twice.
        return RunDecision(observed.status)
    *_, (row, observed) = trace_run(replace(observed, now=observed.now.replace(microsecond=0)))
    assert isinstance(row, StateRow)  # noqa: S101 - a trace ends with one
    return RunDecision(_with_conditions(observed, row), row.actions(observed), _requeue_after(observed))


def trace_run(observed: RunObservation) -> Iterator[tuple[RunRow, RunObservation]]:
    """Yield the rows that apply in one reconciliation, each with the observation after it; the last is a `StateRow`."""
    return trace(RUN_TABLE, observed, apply=lambda _, updated: updated, record_state=_with_recorded_state)


def current_stage(status: TrainingRunStatus) -> StageStatus | None:
    """The stage whose object matters now: the one that goes on, or of a run that has ended the last one."""
    return status.stages[-1] if status.stages else None


def output_uri(template: RunTemplate, run: str) -> str:
    """Where the training of this run puts the artifact."""
    return f"{template.output.uri.rstrip('/')}/{run}"


def version_name(run: str) -> str:
    """Name of the ModelVersion that a run makes."""
    return run


def merge_parameters(run: TrainingRun, template: RunTemplate) -> dict[str, str]:
    """Parameters of the run: the policy's, and in their place those that a person asked for."""
    return {**template.parameters, **(run.spec.manual.parameters if run.spec.manual is not None else {})}


def hash_inputs(template: RunTemplate, dataset: str, holdout: str | None, parameters: Mapping[str, str]) -> str:
    """Hash of all that a run's result depends on: two runs with the same one are equal.

    Data counts by digest, wherever it is; the deadline and what only describes the version don't count.
    """
    apart = {"dataset", "holdout", "parameters", "deadline", "version"}
    rest = {key: value for key, value in template.wire().items() if key not in apart}
    return content_hash({"run": rest, "dataset": dataset, "holdout": holdout, "parameters": dict(parameters)}, 20)


def _is_in_state(o: RunObservation, *states: RunState) -> bool:
    return o.state in states


def _is_active(o: RunObservation) -> bool:
    return o.state not in RUN_TERMINAL_STATES


def _has_started(o: RunObservation) -> bool:
    return _is_active(o) and o.state not in _NOT_STARTED


def _is_in_stage(o: RunObservation) -> bool:
    return o.state in STAGES_BY_STATE


def _stage_work(o: RunObservation) -> Work:
    template = o.template
    work = {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}[
        STAGES_BY_STATE[o.state]
    ]
    assert work is not None  # noqa: S101 - a stage is begun only when the policy has it
    return work


def _stage_entry(o: RunObservation) -> StageStatus:
    entry = current_stage(o.status)
    assert entry is not None  # noqa: S101 - a run gets into the state of a stage with the stage's entry
    return entry


def _stage_is_in(o: RunObservation, *states: StageState) -> bool:
    return _is_in_stage(o) and o.stage is not None and o.stage.state in states


def _is_waiting(o: RunObservation) -> bool:
    """The object of the stage is held back by a queue or a person: no clock runs."""
    return _stage_is_in(o, *WAITING_STAGE_STATES)


def _update_stage(o: RunObservation, **changes: Any) -> RunObservation:
    stages = o.status.stages
    return o.with_status(stages=(*stages[:-1], stages[-1].model_copy(update=changes)))


def _transition_to(o: RunObservation, state: RunState, reason: str, message: str) -> RunObservation:
    """The run in this state for this reason. Times move only when the state does, the message only with the reason;
    the clocks of the run and of the stage stop and start here."""
    status, now = o.status, o.now
    changes: dict[str, Any] = {}
    if (status.state, status.reason) != (state, str(reason)):
        changes = {"state": str(state), "reason": str(reason), "message": message}
        if status.state != state:
            changes["since"] = now
    ended = state in RUN_TERMINAL_STATES
    if ended and status.finished_at is None:
        changes["finished_at"] = now
    runs = not ended and state not in _NOT_STARTED and not _is_waiting(o)
    clock = set_running(status.clock, running=runs, now=now)
    if clock != (status.clock or ClockStatus()):
        changes["clock"] = clock
    o = o.with_status(**changes)
    entry = current_stage(o.status)
    if entry is None or entry.finished_at is not None:
        return o
    clock = set_running(entry.clock, running=runs, now=now)
    if clock != (entry.clock or ClockStatus()):
        o = _update_stage(o, clock=clock)
    return _update_stage(o, finished_at=now) if ended else o


def _end_run(o: RunObservation, state: RunState, reason: str, message: str) -> RunObservation:
    """The run has ended; a stage that goes on has failed with it, for the same reason."""
    entry = current_stage(o.status)
    if entry is not None and entry.finished_at is None:
        o = _update_stage(o, state=str(StageState.FAILED), reason=str(reason), message=message)
    return _transition_to(o, state, reason, message)


def _fail_run(o: RunObservation, reason: str, message: str) -> RunObservation:
    return _end_run(o, RunState.FAILED, reason, message)


def _start_stage(o: RunObservation, state: RunState) -> RunObservation:
    """The run at this stage. What was seen so far was of another object."""
    entry = StageStatus(name=STAGES_BY_STATE[state], state=str(StageState.PENDING), started_at=o.now)
    o = replace(o.with_status(stages=(*o.status.stages, entry)), stage=None, child=None)
    if state is RunState.EVALUATING:
        o = o.with_status(compared_with=o.serving)
    return _transition_to(o, state, Reason.STAGE_RUNNING, f"the stage {STAGES_BY_STATE[state]} goes on")


def _pass_stage(o: RunObservation, reason: str = "", message: str = "") -> RunObservation:
    """The present stage has ended well, with something to say or not, and the next one begins."""
    clock = set_running(_stage_entry(o).clock, running=False, now=o.now)
    o = _update_stage(
        o, state=str(StageState.SUCCEEDED), reason=reason, message=message, finished_at=o.now, clock=clock
    )
    if o.state is RunState.CHECKING_DATA:
        return _start_stage(o, RunState.TRAINING)
    if o.state is RunState.TRAINING and o.template.evaluate is not None:
        return _start_stage(o, RunState.EVALUATING)
    return _transition_to(
        o, RunState.REGISTERING, Reason.REGISTERING_VERSION, "all stages passed; the ModelVersion is made"
    )


def _policy_problem(o: RunObservation) -> Problem:
    name = o.run.spec.policy_ref.name
    return o.problem or Problem(Reason.WAITING_FOR_POLICY, f"spec.policyRef: there is no RetrainingPolicy {name}")


def _fatal_problem(o: RunObservation) -> Problem | None:
    """Why the run can't go on for good."""
    if not _is_active(o):
        return None
    if _has_started(o) and o.policy is None:
        return o.problem or Problem(Reason.INVALID_POLICY, "status.policy of the run can't be read", stalled=True)
    at_work = _is_in_stage(o) and (o.child is not None or bool(_stage_entry(o).uid))
    return o.problem if o.problem is not None and o.problem.stalled and not at_work else None


def _fail_fatally(o: RunObservation) -> RunObservation:
    problem = _fatal_problem(o)
    assert problem is not None  # noqa: S101 - the row holds
    return _fail_run(o, problem.reason, problem.message)


def _queue_problem(o: RunObservation) -> Problem:
    return Problem(Reason.WAITING_FOR_RUN, f"waits for the end of {', '.join(o.earlier_runs)}")


def _start_run(o: RunObservation) -> RunObservation:
    assert o.policy is not None  # noqa: S101 - a row before keeps a run without a policy
    snapshot = PolicySnapshot(
        name=o.policy_name or o.run.spec.policy_ref.name, generation=o.policy_generation, spec=o.policy.wire()
    )
    o = o.with_status(policy=snapshot, model=o.policy.model_ref.name, started_at=o.now)
    return _transition_to(o, RunState.RESOLVING, Reason.RESOLVING_DATA, _resolving_problem(o).message)


def _data_by_role(o: RunObservation) -> dict[DataRole, tuple[str, ResolvedData]]:
    """Address and digest of all the data of the run; a digest that the policy gives is known from the start."""
    template = o.template
    found: dict[DataRole, tuple[str, ResolvedData]] = {"dataset": _resolve_source(template.dataset, o.dataset)}
    if template.holdout is not None:
        found["holdout"] = _resolve_source(template.holdout, o.holdout)
    return found


def _resolve_source(source: DatasetSource, seen: ResolvedData | None) -> tuple[str, ResolvedData]:
    return source.uri, ResolvedData(source.digest) if source.digest is not None else seen or ResolvedData()


def _unresolved_roles(o: RunObservation) -> list[DataRole]:
    return [which for which, (_, seen) in _data_by_role(o).items() if seen.digest is None]


def _permanent_data_problem(o: RunObservation) -> Problem | None:
    problems = [
        seen.problem for _, seen in _data_by_role(o).values() if seen.digest is None and seen.problem is not None
    ]
    return next((problem for problem in problems if problem.stalled and problem.reason not in _TRANSIENT_REASONS), None)


def _fail_without_data(o: RunObservation) -> RunObservation:
    problem = _permanent_data_problem(o)
    assert problem is not None  # noqa: S101 - the row holds
    return _fail_run(o, problem.reason, problem.message)


def _resolving_problem(o: RunObservation) -> Problem:
    problems = [
        seen.problem for _, seen in _data_by_role(o).values() if seen.digest is None and seen.problem is not None
    ]
    if problems:
        return replace(problems[0], stalled=False)
    return Problem(
        Reason.RESOLVING_DATA, f"the digest of the {' and the '.join(_unresolved_roles(o))} is being found out"
    )


def _current_inputs_hash(o: RunObservation) -> str:
    data = {which: seen.digest for which, (_, seen) in _data_by_role(o).items()}
    return hash_inputs(o.template, data["dataset"] or "", data.get("holdout"), merge_parameters(o.run, o.template))


def _inputs_unchanged(o: RunObservation) -> bool:
    assert o.policy is not None  # noqa: S101 - see `template`
    skips = o.policy.guard.skip_unchanged and o.run.spec.manual is None
    return skips and o.last_inputs is not None and _current_inputs_hash(o) == o.last_inputs


def _record_data(o: RunObservation) -> RunObservation:
    known = {
        which: DatasetStatus(uri=redact_uri(uri), digest=seen.digest or "")
        for which, (uri, seen) in _data_by_role(o).items()
    }
    return o.with_status(dataset=known["dataset"], holdout=known.get("holdout"), inputs_hash=_current_inputs_hash(o))


def _skip_run(o: RunObservation) -> RunObservation:
    text = "data, parameters, seed and templates are those of the last run that succeeded (spec.guard.skipUnchanged)"
    return _end_run(_record_data(o), RunState.SKIPPED, Reason.UNCHANGED, text)


def _start_first_stage(o: RunObservation) -> RunObservation:
    state = RunState.CHECKING_DATA if o.template.data_check is not None else RunState.TRAINING
    return _start_stage(_record_data(o), state)


def _has_new_child(o: RunObservation) -> bool:
    return _is_in_stage(o) and o.child is not None and not _stage_entry(o).uid


def _record_child(o: RunObservation) -> RunObservation:
    assert o.child is not None  # noqa: S101 - the row holds
    return _update_stage(o, child=o.child.name, uid=o.child.uid, kind=o.child.kind)


def _has_lost_child(o: RunObservation) -> bool:
    if not _is_in_stage(o) or not _stage_entry(o).uid:
        return False
    return o.child is None or o.child.uid != _stage_entry(o).uid


def _fail_lost_child(o: RunObservation) -> RunObservation:
    entry = _stage_entry(o)
    text = (
        f"{entry.kind} {entry.child} of the stage {entry.name} is gone, deleted by hand or by its TTL, before its "
        "result was taken; it is not made again"
    )
    # An object that has the name by now is another one, and not this run's to end.
    return _fail_run(replace(o, stage=None, child=None), Reason.CHILD_LOST, text)


def _fail_stage(o: RunObservation) -> RunObservation:
    assert o.stage is not None  # noqa: S101 - the row holds
    reason, said = o.stage.reason, o.stage.message or "it does not say why"
    entry = _stage_entry(o)
    if reason in set(Reason):
        return _fail_run(o, reason, f"stage {entry.name}: {said}")
    why = f" ({reason})" if reason else ""
    return _fail_run(o, Reason.STAGE_FAILED, f"stage {entry.name}: {entry.kind} {entry.child} failed{why}: {said}")


def _fail_without_report(o: RunObservation) -> RunObservation:
    assert o.stage is not None  # noqa: S101 - the row holds
    entry = _stage_entry(o)
    why = f": {o.stage.problem}" if o.stage.problem else ""
    text = f"stage {entry.name}: {entry.kind} {entry.child} ended well, but left no report that can be read"
    return _fail_run(o, o.stage.reason or Reason.REPORT_MISSING, text + why)


def _record_report(o: RunObservation) -> RunObservation:
    """The result into the record, by the write that also ends the stage: its object may be deleted from then on."""
    assert o.stage is not None and o.stage.report is not None  # noqa: S101, PT018 - the row holds
    stage, report = STAGES_BY_STATE[o.state], o.stage.report
    if stage == "dataCheck":
        return _record_checks(o, stage_reports.read_data_check_report(report))
    if stage == "evaluate":
        return _record_evaluation(o, report)
    assert o.status.dataset is not None  # noqa: S101 - it is written before any stage begins
    found = stage_reports.read_training_report(
        report,
        output_uri=output_uri(o.template, o.run.name),
        dataset_digest=o.status.dataset.digest,
        image=o.stage.image,
    )
    if isinstance(found, stage_reports.ReportRefused):
        return _fail_run(o, found.reason, f"stage train: {found.message}")
    return _pass_stage(o.with_status(result=found))


def _record_checks(
    o: RunObservation, found: stage_reports.DataCheckResult | stage_reports.ReportRefused
) -> RunObservation:
    if isinstance(found, stage_reports.ReportRefused):
        return _fail_run(o, found.reason, f"stage dataCheck: {found.message}")
    o = o.with_status(checks=found.checks, profile=dict(found.profile) if found.profile is not None else None)
    if found.failed:
        more = f" and {len(found.failed) - _MAX_NAMED_CHECKS} more" if len(found.failed) > _MAX_NAMED_CHECKS else ""
        text = f"{len(found.failed)} checks of the dataset failed: {', '.join(found.failed[:_MAX_NAMED_CHECKS])}{more}"
        return _fail_run(o, Reason.DATA_REJECTED, f"{text}; see status.checks. Nothing was trained")
    return _pass_stage(o)


def _record_evaluation(o: RunObservation, report: Mapping[str, Any]) -> RunObservation:
    evaluate = o.template.evaluate
    assert evaluate is not None  # noqa: S101 - the stage is begun only when the policy has it
    found = stage_reports.read_evaluation_report(report, evaluate.gates, first=o.status.compared_with is None)
    matrix = dict(found.confusion_matrix) if found.confusion_matrix is not None else None
    o = o.with_status(figures=found.figures, confusion_matrix=matrix, full_report=found.full_report)
    text = f"{found.reason}: {found.message}"
    if found.outcome is Outcome.PASS:
        return _pass_stage(o)
    if found.outcome in (Outcome.FAIL, Outcome.ERROR):
        return _fail_run(o, Reason.GATE_FAILED, text)
    if evaluate.on_inconclusive == "Register":
        return _pass_stage(o, Reason.INCONCLUSIVE, f"{text}. The version is registered (onInconclusive: Register)")
    return _fail_run(o, Reason.INCONCLUSIVE, text)


def _registration_problem(o: RunObservation) -> Problem | None:
    found = o.registered if _is_in_state(o, RunState.REGISTERING) else None
    return found if isinstance(found, Problem) else None


def _fail_registration(o: RunObservation) -> RunObservation:
    problem = _registration_problem(o)
    assert problem is not None  # noqa: S101 - the row holds
    return _fail_run(o, problem.reason, problem.message)


def _succeed_run(o: RunObservation) -> RunObservation:
    name = version_name(o.run.name)
    return _end_run(
        o.with_status(version=name), RunState.SUCCEEDED, Reason.VERSION_REGISTERED, f"ModelVersion {name} was made"
    )


def _cancel_run(o: RunObservation) -> RunObservation:
    return _end_run(o, RunState.CANCELLED, Reason.REPLACED, f"{o.cancelled_by} has taken its place")


def _remaining_time(clock: ClockStatus | None, limit: str, now: datetime) -> timedelta:
    return timedelta(seconds=parse_duration(limit)) - elapsed_time(clock, now)


def _deadline_passed(o: RunObservation) -> bool:
    return (
        _has_started(o)
        and not _is_waiting(o)
        and _remaining_time(o.status.clock, o.template.deadline, o.now) <= timedelta(0)
    )


def _fail_deadline(o: RunObservation) -> RunObservation:
    return _fail_run(
        o,
        Reason.DEADLINE_EXCEEDED,
        _with_last_message(o, f"the run did not end within {o.template.deadline} (spec.run.deadline)"),
    )


def _stage_timed_out(o: RunObservation) -> bool:
    return (
        _is_in_stage(o)
        and not _is_waiting(o)
        and _remaining_time(_stage_entry(o).clock, _stage_work(o).timeout, o.now) <= timedelta(0)
    )


def _fail_stage_timeout(o: RunObservation) -> RunObservation:
    name, timeout = STAGES_BY_STATE[o.state], _stage_work(o).timeout
    return _fail_run(
        o,
        Reason.STAGE_TIMEOUT,
        _with_last_message(o, f"the stage {name} did not end within {timeout} (spec.run.{name}.timeout)"),
    )


def _with_last_message(o: RunObservation, text: str) -> str:
    last = o.stage.message if _is_in_stage(o) and o.stage is not None else ""
    return f"{text}; last: {last}" if last else text


def _stage_problem(o: RunObservation) -> Problem:
    name, seen = STAGES_BY_STATE[o.state], o.stage
    if seen is None:
        return o.problem or Problem(Reason.STAGE_RUNNING, f"the stage {name} goes on")
    if seen.state in WAITING_STAGE_STATES:
        return Problem(Reason.STAGE_QUEUED, f"stage {name}: {seen.message or seen.state}")
    reason = seen.reason if seen.reason in set(Reason) else Reason.STAGE_RUNNING
    return Problem(reason, f"stage {name}: {seen.message or seen.state}")


def _ensure_stage(o: RunObservation) -> tuple[RunAction, ...]:
    # An object whose uid is known and that is gone was lost, by a row before.
    return (StartStage(STAGES_BY_STATE[o.state]),) if o.child is None else ()


def _registering_problem(o: RunObservation) -> Problem:
    return _registration_problem(o) or Problem(
        Reason.REGISTERING_VERSION, "all stages passed; the ModelVersion is made"
    )


def _recorded_problem(o: RunObservation) -> Problem:
    return Problem(o.status.reason or "", o.status.message or "")


def _object_outlives_run(o: RunObservation) -> bool:
    """The run has ended, and the object of its last stage has not."""
    return (
        not _is_active(o)
        and o.child is not None
        and (o.kept_running or o.stage is None or o.stage.state not in ENDED_STAGE_STATES)
    )


def _stop_stage(o: RunObservation) -> tuple[RunAction, ...]:
    entry = current_stage(o.status)
    return tuple(StopStage(stage) for stage in STAGES_BY_STATE.values() if entry is not None and stage == entry.name)


def _do_nothing(_: RunObservation) -> tuple[RunAction, ...]:
    return ()


RUN_TABLE: tuple[RunRow, ...] = (
    Transition(
        name="the run has succeeded, and something else has become of its version",
        when=lambda o: _is_in_state(o, RunState.SUCCEEDED) and o.version_outcome not in (None, o.status.outcome),
        update=lambda o: o.with_status(outcome=o.version_outcome),
        summary="write down what",
    ),
    StateRow(
        name="the run has ended, and the object of its last stage has not",
        when=_object_outlives_run,
        state=None,
        reason=_recorded_problem,
        actions=_stop_stage,
        summary="end that object",
    ),
    StateRow(
        name="the run has ended",
        when=lambda o: not _is_active(o),
        state=None,
        reason=_recorded_problem,
        actions=_do_nothing,
        summary="nothing",
    ),
    Transition(
        name="the ModelVersion is there",
        when=lambda o: _is_in_state(o, RunState.REGISTERING) and o.registered is True,
        update=_succeed_run,
        summary="Succeeded",
    ),
    Transition(
        name="a newer run takes its place",
        when=lambda o: o.cancelled_by is not None and not _is_in_state(o, RunState.REGISTERING),
        update=_cancel_run,
        summary="Cancelled",
    ),
    Transition(
        name="it can't go on for good, and no object is at work",
        when=lambda o: _fatal_problem(o) is not None,
        update=_fail_fatally,
        summary="Failed",
    ),
    StateRow(
        name="it has not begun, and there is no policy to go by",
        when=lambda o: _is_in_state(o, *_NOT_STARTED) and (o.policy is None or o.problem is not None),
        state=RunState.PENDING,
        reason=_policy_problem,
        actions=_do_nothing,
        summary="wait",
    ),
    StateRow(
        name="it has not begun, and an earlier run has not ended",
        when=lambda o: _is_in_state(o, *_NOT_STARTED) and bool(o.earlier_runs),
        state=RunState.QUEUED,
        reason=_queue_problem,
        actions=_do_nothing,
        summary="wait",
    ),
    Transition(
        name="it has not begun",
        when=lambda o: _is_in_state(o, *_NOT_STARTED),
        update=_start_run,
        summary="keep the policy as it is now, and begin: Resolving",
    ),
    Transition(
        name="its data can't be had",
        when=lambda o: _is_in_state(o, RunState.RESOLVING) and _permanent_data_problem(o) is not None,
        update=_fail_without_data,
        summary="Failed",
    ),
    Transition(
        name="the object of the stage is there for the first time",
        when=_has_new_child,
        update=_record_child,
        summary="write down its uid",
    ),
    Transition(
        name="the object of the stage is gone, or another one",
        when=_has_lost_child,
        update=_fail_lost_child,
        summary="Failed: ChildLost",
    ),
    Transition(
        name="the object of the stage has failed",
        when=lambda o: _stage_is_in(o, StageState.FAILED),
        update=_fail_stage,
        summary="Failed",
    ),
    Transition(
        name="the object of the stage has succeeded without a report",
        when=lambda o: _stage_is_in(o, StageState.SUCCEEDED) and o.stage is not None and o.stage.report is None,
        update=_fail_without_report,
        summary="Failed: ReportMissing",
    ),
    Transition(
        name="the object of the stage has succeeded with a report",
        when=lambda o: _stage_is_in(o, StageState.SUCCEEDED),
        update=_record_report,
        summary="take the result: the next stage, Registering, or Failed",
    ),
    Transition(
        name="the ModelVersion can't be made",
        when=lambda o: (problem := _registration_problem(o)) is not None and problem.stalled,
        update=_fail_registration,
        summary="Failed",
    ),
    Transition(
        name="the deadline has passed", when=_deadline_passed, update=_fail_deadline, summary="Failed: DeadlineExceeded"
    ),
    Transition(
        name="the stage's timeout has passed",
        when=_stage_timed_out,
        update=_fail_stage_timeout,
        summary="Failed: StageTimeout",
    ),
    StateRow(
        name="a digest is not known",
        when=lambda o: _is_in_state(o, RunState.RESOLVING) and bool(_unresolved_roles(o)),
        state=RunState.RESOLVING,
        reason=_resolving_problem,
        actions=lambda o: tuple(ResolveData(which) for which in _unresolved_roles(o)),
        summary="have it found out",
    ),
    Transition(
        name="the last run that succeeded had the same inputs",
        when=lambda o: _is_in_state(o, RunState.RESOLVING) and _inputs_unchanged(o),
        update=_skip_run,
        summary="Skipped",
    ),
    Transition(
        name="all digests are known",
        when=lambda o: _is_in_state(o, RunState.RESOLVING),
        update=_start_first_stage,
        summary="write them down, and begin: CheckingData, or Training without a data check",
    ),
    StateRow(
        name="a stage goes on",
        when=_is_in_stage,
        state=None,
        reason=_stage_problem,
        actions=_ensure_stage,
        summary="make its object, unless there was one",
    ),
    StateRow(
        name="all stages passed",
        when=lambda o: _is_in_state(o, RunState.REGISTERING),
        state=RunState.REGISTERING,
        reason=_registering_problem,
        actions=lambda o: (RegisterVersion(version_name(o.run.name)),),
        summary="make the ModelVersion",
    ),
)


def _with_recorded_state(o: RunObservation, rule: RunStateRow) -> RunObservation:
    if not _is_active(o):
        return o
    moved = _is_in_state(o, RunState.QUEUED)
    if _is_in_stage(o) and o.stage is not None:
        seen, entry = o.stage, _stage_entry(o)
        moved = (entry.state, entry.reason) != (str(seen.state), seen.reason) or (
            # Why it waits becomes known only later, and changes with what others do.
            seen.state in WAITING_STAGE_STATES and entry.message != seen.message
        )
        if moved:
            o = _update_stage(o, state=str(seen.state), reason=seen.reason, message=seen.message)
    why = rule.reason(o)
    o = _transition_to(o, rule.state or o.state, why.reason, why.message)
    # Else a message stays with its reason: those of pods differ from try to try.
    return o.with_status(message=why.message) if moved and o.status.message != why.message else o


def _with_conditions(o: RunObservation, rule: RunStateRow) -> TrainingRunStatus:
    why = rule.reason(o)
    bad = o.state in (RunState.FAILED, RunState.CANCELLED)
    reason, message = o.status.reason or why.reason, o.status.message or why.message
    verdict = ConditionSummary(reason, message, stalled=bad, reconciling=_is_active(o))
    generation = o.run.generation
    told = build_conditions(o.status.conditions, verdict, None, generation=generation, now=o.now)
    return o.with_status(conditions=told, observed_generation=generation).status


def _requeue_after(o: RunObservation) -> timedelta | None:
    if not _is_active(o):
        return POLL_IDLE if _object_outlives_run(o) else None
    times = [POLL_IDLE]
    if _has_started(o) and not _is_waiting(o):
        times.append(_remaining_time(o.status.clock, o.template.deadline, o.now))
        if _is_in_stage(o):
            times.append(_remaining_time(_stage_entry(o).clock, _stage_work(o).timeout, o.now))
    return max(min(times), timedelta(seconds=1))
