"""What a TrainingRun does next: one table, read from the top, the first row whose condition holds applies.

A row either changes the record (Transition), after which the table is read anew, or stays (Rule). The record is written
before anything is done, so that a crash between any two writes neither loses nor doubles the object of a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from modelwright.addresses import shown
from modelwright.api.common import seconds
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
from modelwright.core.retraining import result
from modelwright.core.retraining.stage import ENDED, WAITING, Reading
from modelwright.core.rollout.observed import Problem
from modelwright.core.rollout.rule import LOOK_SELDOM
from modelwright.core.status.summarize import Verdict, conditions

TERMINAL = frozenset({RunState.SUCCEEDED, RunState.SKIPPED, RunState.FAILED, RunState.CANCELLED})
"""States in which a run has ended: only `outcome` and conditions change."""
MOST_TRANSITIONS = 16
"""More in one pass would be a loop: each one takes the run nearer to its end."""
STAGES: Mapping[RunState, StageName] = {
    RunState.CHECKING_DATA: "dataCheck",
    RunState.TRAINING: "train",
    RunState.EVALUATING: "evaluate",
}
"""States in which an object of the user's works, and the stage that it does."""

Which = Literal["dataset", "holdout"]

_NOT_BEGUN = frozenset({RunState.PENDING, RunState.QUEUED})
_PASSING = frozenset(
    {Reason.STORE_UNREACHABLE, Reason.DOWNLOAD_STALLED, Reason.IMAGE_PULL_FAILED, Reason.UNSCHEDULABLE}
)
"""What may keep data from being resolved for a while: waited for until the deadline."""
_MOST_NAMED = 10
"""Failed checks that a message names."""


@dataclass(frozen=True, slots=True)
class Resolved:
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
class RunObserved:
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
    before: tuple[str, ...] = ()
    serving: str | None = None
    dataset: Resolved | None = None
    holdout: Resolved | None = None
    stage: Reading | None = None
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

    def but(self, **changes: Any) -> RunObserved:
        """This picture with some members of the record changed."""
        status = self.status.model_copy(update=changes)
        return replace(self, run=self.run.model_copy(update={"status": status}))


@dataclass(frozen=True, slots=True)
class ResolveData:
    """Have the digest of this data found out."""

    which: Which


@dataclass(frozen=True, slots=True)
class BeginStage:
    """Make the object of this stage, if there is none of its name. The record says already that it has begun."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class StopStage:
    """End the object of this stage: the run has ended, whatever it would still come to."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class Register:
    """Make the ModelVersion of the result, if it is not there."""

    version: str


Action = ResolveData | BeginStage | StopStage | Register


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The record, to be written first; what to do after that, in order; and when to look again although nothing may
    have happened (None: only on an event)."""

    status: TrainingRunStatus
    actions: tuple[Action, ...] = ()
    look: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A row that stays: the run is in `state` (None: the one it was in), explained by `explain`, and `act` follows."""

    name: str
    holds: Callable[[RunObserved], bool]
    state: RunState | None
    explain: Callable[[RunObserved], Problem]
    act: Callable[[RunObserved], tuple[Action, ...]]
    does: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A row that changes the record, after which the table is read again from the top."""

    name: str
    holds: Callable[[RunObserved], bool]
    then: Callable[[RunObserved], RunObserved]
    does: str


Row = Rule | Transition


def decide(observed: RunObserved) -> RunDecision:
    """The record after all transitions, and what follows from it."""
    if observed.status.state is not None and observed.status.state not in set(RunState):
        # A newer operator wrote it; to guess would be to make objects twice.
        return RunDecision(observed.status)
    *_, (row, observed) = course(replace(observed, now=observed.now.replace(microsecond=0)))
    assert isinstance(row, Rule)  # noqa: S101 - a course ends with a row that stays
    return RunDecision(_with_conditions(observed, row), row.act(observed), _look(observed))


def course(observed: RunObserved) -> Iterator[tuple[Row, RunObserved]]:
    """The rows that apply in one pass, each with the picture after it; the last one is the row that stays."""
    for _ in range(MOST_TRANSITIONS):
        row = next(row for row in TABLE if row.holds(observed))
        if isinstance(row, Rule):
            yield row, _told(observed, row)
            return
        observed = row.then(observed)
        yield row, observed
    raise AssertionError(f"the table of runs does not come to rest at: {row.name}")


def present(status: TrainingRunStatus) -> StageStatus | None:
    """The stage whose object matters now: the one that goes on, or of a run that has ended the last one."""
    return status.stages[-1] if status.stages else None


def output_uri(template: RunTemplate, run: str) -> str:
    """Where the training of this run puts the artifact."""
    return f"{template.output.uri.rstrip('/')}/{run}"


def version_name(run: str) -> str:
    """Name of the ModelVersion that a run makes."""
    return run


def parameters(run: TrainingRun, template: RunTemplate) -> dict[str, str]:
    """Parameters of the run: the policy's, and in their place those that a person asked for."""
    return {**template.parameters, **(run.spec.manual.parameters if run.spec.manual is not None else {})}


def inputs_hash(template: RunTemplate, dataset: str, holdout: str | None, parameters: Mapping[str, str]) -> str:
    """Hash of all that a run's result depends on: two runs with the same one are equal.

    Data counts by digest, wherever it is; the deadline and what only describes the version don't count.
    """
    apart = {"dataset", "holdout", "parameters", "deadline", "version"}
    rest = {key: value for key, value in template.wire().items() if key not in apart}
    return content_hash({"run": rest, "dataset": dataset, "holdout": holdout, "parameters": dict(parameters)}, 20)


def elapsed(clock: ClockStatus | None, now: datetime) -> timedelta:
    """What a clock has counted."""
    clock = clock or ClockStatus()
    running = now - clock.running_since if clock.running_since is not None else timedelta(0)
    return timedelta(seconds=clock.elapsed_seconds) + max(running, timedelta(0))


def _set(clock: ClockStatus | None, *, runs: bool, now: datetime) -> ClockStatus:
    clock = clock or ClockStatus()
    if runs and clock.running_since is None:
        return ClockStatus(elapsed_seconds=clock.elapsed_seconds, running_since=now)
    if not runs and clock.running_since is not None:
        return ClockStatus(elapsed_seconds=int(elapsed(clock, now).total_seconds()))
    return clock


def _in(o: RunObserved, *states: RunState) -> bool:
    return o.state in states


def _live(o: RunObserved) -> bool:
    return o.state not in TERMINAL


def _begun(o: RunObserved) -> bool:
    return _live(o) and o.state not in _NOT_BEGUN


def _staged(o: RunObserved) -> bool:
    return o.state in STAGES


def _work(o: RunObserved) -> Work:
    template = o.template
    work = {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}[STAGES[o.state]]
    assert work is not None  # noqa: S101 - a stage is begun only when the policy has it
    return work


def _entry(o: RunObserved) -> StageStatus:
    entry = present(o.status)
    assert entry is not None  # noqa: S101 - a run gets into the state of a stage with the stage's entry
    return entry


def _stage_is(o: RunObserved, *states: StageState) -> bool:
    return _staged(o) and o.stage is not None and o.stage.state in states


def _waits(o: RunObserved) -> bool:
    """The object of the stage is held back by a queue or a person: no clock runs."""
    return _stage_is(o, *WAITING)


def _with_entry(o: RunObserved, **changes: Any) -> RunObserved:
    stages = o.status.stages
    return o.but(stages=(*stages[:-1], stages[-1].model_copy(update=changes)))


def _enter(o: RunObserved, state: RunState, reason: str, message: str) -> RunObserved:
    """The run in this state for this reason. Times move only when the state does, the message only with the reason;
    the clocks of the run and of the stage stop and start here."""
    status, now = o.status, o.now
    changes: dict[str, Any] = {}
    if (status.state, status.reason) != (state, str(reason)):
        changes = {"state": str(state), "reason": str(reason), "message": message}
        if status.state != state:
            changes["since"] = now
    ended = state in TERMINAL
    if ended and status.finished_at is None:
        changes["finished_at"] = now
    runs = not ended and state not in _NOT_BEGUN and not _waits(o)
    clock = _set(status.clock, runs=runs, now=now)
    if clock != (status.clock or ClockStatus()):
        changes["clock"] = clock
    o = o.but(**changes)
    entry = present(o.status)
    if entry is None or entry.finished_at is not None:
        return o
    clock = _set(entry.clock, runs=runs, now=now)
    if clock != (entry.clock or ClockStatus()):
        o = _with_entry(o, clock=clock)
    return _with_entry(o, finished_at=now) if ended else o


def _end(o: RunObserved, state: RunState, reason: str, message: str) -> RunObserved:
    """The run has ended; a stage that goes on has failed with it, for the same reason."""
    entry = present(o.status)
    if entry is not None and entry.finished_at is None:
        o = _with_entry(o, state=str(StageState.FAILED), reason=str(reason), message=message)
    return _enter(o, state, reason, message)


def _fail(o: RunObserved, reason: str, message: str) -> RunObserved:
    return _end(o, RunState.FAILED, reason, message)


def _begin(o: RunObserved, state: RunState) -> RunObserved:
    """The run at this stage. What was seen so far was of another object."""
    entry = StageStatus(name=STAGES[state], state=str(StageState.PENDING), started_at=o.now)
    o = replace(o.but(stages=(*o.status.stages, entry)), stage=None, child=None)
    if state is RunState.EVALUATING:
        o = o.but(compared_with=o.serving)
    return _enter(o, state, Reason.STAGE_RUNNING, f"the stage {STAGES[state]} goes on")


def _pass(o: RunObserved, reason: str = "", message: str = "") -> RunObserved:
    """The present stage has ended well, with something to say or not, and the next one begins."""
    clock = _set(_entry(o).clock, runs=False, now=o.now)
    o = _with_entry(o, state=str(StageState.SUCCEEDED), reason=reason, message=message, finished_at=o.now, clock=clock)
    if o.state is RunState.CHECKING_DATA:
        return _begin(o, RunState.TRAINING)
    if o.state is RunState.TRAINING and o.template.evaluate is not None:
        return _begin(o, RunState.EVALUATING)
    return _enter(o, RunState.REGISTERING, Reason.REGISTERING_VERSION, "all stages passed; the ModelVersion is made")


def _unready(o: RunObserved) -> Problem:
    name = o.run.spec.policy_ref.name
    return o.problem or Problem(Reason.WAITING_FOR_POLICY, f"spec.policyRef: there is no RetrainingPolicy {name}")


def _broken(o: RunObserved) -> Problem | None:
    """Why the run can't go on for good."""
    if not _live(o):
        return None
    if _begun(o) and o.policy is None:
        return o.problem or Problem(Reason.INVALID_POLICY, "status.policy of the run can't be read", stalled=True)
    at_work = _staged(o) and (o.child is not None or bool(_entry(o).uid))
    return o.problem if o.problem is not None and o.problem.stalled and not at_work else None


def _break(o: RunObserved) -> RunObserved:
    problem = _broken(o)
    assert problem is not None  # noqa: S101 - the row holds
    return _fail(o, problem.reason, problem.message)


def _waiting_for(o: RunObserved) -> Problem:
    return Problem(Reason.WAITING_FOR_RUN, f"waits for the end of {', '.join(o.before)}")


def _start(o: RunObserved) -> RunObserved:
    assert o.policy is not None  # noqa: S101 - a row before keeps a run without a policy
    snapshot = PolicySnapshot(
        name=o.policy_name or o.run.spec.policy_ref.name, generation=o.policy_generation, spec=o.policy.wire()
    )
    o = o.but(policy=snapshot, model=o.policy.model_ref.name, started_at=o.now)
    return _enter(o, RunState.RESOLVING, Reason.RESOLVING_DATA, _resolving(o).message)


def _data(o: RunObserved) -> dict[Which, tuple[str, Resolved]]:
    """Address and digest of all the data of the run; a digest that the policy gives is known from the start."""
    template = o.template
    found: dict[Which, tuple[str, Resolved]] = {"dataset": _seen(template.dataset, o.dataset)}
    if template.holdout is not None:
        found["holdout"] = _seen(template.holdout, o.holdout)
    return found


def _seen(source: DatasetSource, seen: Resolved | None) -> tuple[str, Resolved]:
    return source.uri, Resolved(source.digest) if source.digest is not None else seen or Resolved()


def _missing(o: RunObserved) -> list[Which]:
    return [which for which, (_, seen) in _data(o).items() if seen.digest is None]


def _no_data(o: RunObserved) -> Problem | None:
    problems = [seen.problem for _, seen in _data(o).values() if seen.digest is None and seen.problem is not None]
    return next((problem for problem in problems if problem.stalled and problem.reason not in _PASSING), None)


def _give_up_data(o: RunObserved) -> RunObserved:
    problem = _no_data(o)
    assert problem is not None  # noqa: S101 - the row holds
    return _fail(o, problem.reason, problem.message)


def _resolving(o: RunObserved) -> Problem:
    problems = [seen.problem for _, seen in _data(o).values() if seen.digest is None and seen.problem is not None]
    if problems:
        return replace(problems[0], stalled=False)
    return Problem(Reason.RESOLVING_DATA, f"the digest of the {' and the '.join(_missing(o))} is being found out")


def _hash(o: RunObserved) -> str:
    data = {which: seen.digest for which, (_, seen) in _data(o).items()}
    return inputs_hash(o.template, data["dataset"] or "", data.get("holdout"), parameters(o.run, o.template))


def _unchanged(o: RunObserved) -> bool:
    assert o.policy is not None  # noqa: S101 - see `template`
    skips = o.policy.guard.skip_unchanged and o.run.spec.manual is None
    return skips and o.last_inputs is not None and _hash(o) == o.last_inputs


def _with_data(o: RunObserved) -> RunObserved:
    known = {which: DatasetStatus(uri=shown(uri), digest=seen.digest or "") for which, (uri, seen) in _data(o).items()}
    return o.but(dataset=known["dataset"], holdout=known.get("holdout"), inputs_hash=_hash(o))


def _skip(o: RunObserved) -> RunObserved:
    text = "data, parameters, seed and templates are those of the last run that succeeded (spec.guard.skipUnchanged)"
    return _end(_with_data(o), RunState.SKIPPED, Reason.UNCHANGED, text)


def _first_stage(o: RunObserved) -> RunObserved:
    state = RunState.CHECKING_DATA if o.template.data_check is not None else RunState.TRAINING
    return _begin(_with_data(o), state)


def _child_is_new(o: RunObserved) -> bool:
    return _staged(o) and o.child is not None and not _entry(o).uid


def _know_child(o: RunObserved) -> RunObserved:
    assert o.child is not None  # noqa: S101 - the row holds
    return _with_entry(o, child=o.child.name, uid=o.child.uid, kind=o.child.kind)


def _child_is_lost(o: RunObserved) -> bool:
    if not _staged(o) or not _entry(o).uid:
        return False
    return o.child is None or o.child.uid != _entry(o).uid


def _lose_child(o: RunObserved) -> RunObserved:
    entry = _entry(o)
    text = (
        f"{entry.kind} {entry.child} of the stage {entry.name} is gone, deleted by hand or by its TTL, before its "
        "result was taken; it is not made again"
    )
    # An object that has the name by now is another one, and not this run's to end.
    return _fail(replace(o, stage=None, child=None), Reason.CHILD_LOST, text)


def _fail_stage(o: RunObserved) -> RunObserved:
    assert o.stage is not None  # noqa: S101 - the row holds
    reason, said = o.stage.reason, o.stage.message or "it does not say why"
    entry = _entry(o)
    if reason in set(Reason):
        return _fail(o, reason, f"stage {entry.name}: {said}")
    why = f" ({reason})" if reason else ""
    return _fail(o, Reason.STAGE_FAILED, f"stage {entry.name}: {entry.kind} {entry.child} failed{why}: {said}")


def _miss_report(o: RunObserved) -> RunObserved:
    assert o.stage is not None  # noqa: S101 - the row holds
    entry = _entry(o)
    why = f": {o.stage.problem}" if o.stage.problem else ""
    text = f"stage {entry.name}: {entry.kind} {entry.child} ended well, but left no report that can be read"
    return _fail(o, o.stage.reason or Reason.REPORT_MISSING, text + why)


def _take_report(o: RunObserved) -> RunObserved:
    """The result into the record, by the write that also ends the stage: its object may be deleted from then on."""
    assert o.stage is not None and o.stage.report is not None  # noqa: S101, PT018 - the row holds
    stage, report = STAGES[o.state], o.stage.report
    if stage == "dataCheck":
        return _take_checks(o, result.data_check(report))
    if stage == "evaluate":
        return _take_evaluation(o, report)
    assert o.status.dataset is not None  # noqa: S101 - it is written before any stage begins
    found = result.training(
        report,
        output_uri=output_uri(o.template, o.run.name),
        dataset_digest=o.status.dataset.digest,
        image=o.stage.image,
    )
    if isinstance(found, result.Refused):
        return _fail(o, found.reason, f"stage train: {found.message}")
    return _pass(o.but(result=found))


def _take_checks(o: RunObserved, found: result.Checked | result.Refused) -> RunObserved:
    if isinstance(found, result.Refused):
        return _fail(o, found.reason, f"stage dataCheck: {found.message}")
    o = o.but(checks=found.checks, profile=dict(found.profile) if found.profile is not None else None)
    if found.failed:
        more = f" and {len(found.failed) - _MOST_NAMED} more" if len(found.failed) > _MOST_NAMED else ""
        text = f"{len(found.failed)} checks of the dataset failed: {', '.join(found.failed[:_MOST_NAMED])}{more}"
        return _fail(o, Reason.DATA_REJECTED, f"{text}; see status.checks. Nothing was trained")
    return _pass(o)


def _take_evaluation(o: RunObserved, report: Mapping[str, Any]) -> RunObserved:
    evaluate = o.template.evaluate
    assert evaluate is not None  # noqa: S101 - the stage is begun only when the policy has it
    found = result.evaluation(report, evaluate.gates, first=o.status.compared_with is None)
    matrix = dict(found.confusion_matrix) if found.confusion_matrix is not None else None
    o = o.but(figures=found.figures, confusion_matrix=matrix, full_report=found.full_report)
    text = f"{found.reason}: {found.message}"
    if found.outcome is Outcome.PASS:
        return _pass(o)
    if found.outcome in (Outcome.FAIL, Outcome.ERROR):
        return _fail(o, Reason.GATE_FAILED, text)
    if evaluate.on_inconclusive == "Register":
        return _pass(o, Reason.INCONCLUSIVE, f"{text}. The version is registered (onInconclusive: Register)")
    return _fail(o, Reason.INCONCLUSIVE, text)


def _unregistered(o: RunObserved) -> Problem | None:
    found = o.registered if _in(o, RunState.REGISTERING) else None
    return found if isinstance(found, Problem) else None


def _refuse_version(o: RunObserved) -> RunObserved:
    problem = _unregistered(o)
    assert problem is not None  # noqa: S101 - the row holds
    return _fail(o, problem.reason, problem.message)


def _succeed(o: RunObserved) -> RunObserved:
    name = version_name(o.run.name)
    return _end(o.but(version=name), RunState.SUCCEEDED, Reason.VERSION_REGISTERED, f"ModelVersion {name} was made")


def _cancel(o: RunObserved) -> RunObserved:
    return _end(o, RunState.CANCELLED, Reason.REPLACED, f"{o.cancelled_by} has taken its place")


def _left(clock: ClockStatus | None, limit: str, now: datetime) -> timedelta:
    return timedelta(seconds=seconds(limit)) - elapsed(clock, now)


def _deadline_passed(o: RunObserved) -> bool:
    return _begun(o) and not _waits(o) and _left(o.status.clock, o.template.deadline, o.now) <= timedelta(0)


def _miss_deadline(o: RunObserved) -> RunObserved:
    return _fail(
        o, Reason.DEADLINE_EXCEEDED, _late(o, f"the run did not end within {o.template.deadline} (spec.run.deadline)")
    )


def _stage_timed_out(o: RunObserved) -> bool:
    return _staged(o) and not _waits(o) and _left(_entry(o).clock, _work(o).timeout, o.now) <= timedelta(0)


def _time_out(o: RunObserved) -> RunObserved:
    name, timeout = STAGES[o.state], _work(o).timeout
    return _fail(
        o, Reason.STAGE_TIMEOUT, _late(o, f"the stage {name} did not end within {timeout} (spec.run.{name}.timeout)")
    )


def _late(o: RunObserved, text: str) -> str:
    last = o.stage.message if _staged(o) and o.stage is not None else ""
    return f"{text}; last: {last}" if last else text


def _at_work(o: RunObserved) -> Problem:
    name, seen = STAGES[o.state], o.stage
    if seen is None:
        return o.problem or Problem(Reason.STAGE_RUNNING, f"the stage {name} goes on")
    if seen.state in WAITING:
        return Problem(Reason.STAGE_QUEUED, f"stage {name}: {seen.message or seen.state}")
    reason = seen.reason if seen.reason in set(Reason) else Reason.STAGE_RUNNING
    return Problem(reason, f"stage {name}: {seen.message or seen.state}")


def _do_stage(o: RunObserved) -> tuple[Action, ...]:
    # An object whose uid is known and that is gone was lost, by a row before.
    return (BeginStage(STAGES[o.state]),) if o.child is None else ()


def _registering(o: RunObserved) -> Problem:
    return _unregistered(o) or Problem(Reason.REGISTERING_VERSION, "all stages passed; the ModelVersion is made")


def _ended(o: RunObserved) -> Problem:
    return Problem(o.status.reason or "", o.status.message or "")


def _outlived(o: RunObserved) -> bool:
    """The run has ended, and the object of its last stage has not."""
    return not _live(o) and o.child is not None and (o.kept_running or o.stage is None or o.stage.state not in ENDED)


def _stop(o: RunObserved) -> tuple[Action, ...]:
    entry = present(o.status)
    return tuple(StopStage(stage) for stage in STAGES.values() if entry is not None and stage == entry.name)


def _nothing(_: RunObserved) -> tuple[Action, ...]:
    return ()


TABLE: tuple[Row, ...] = (
    Transition(
        "the run has succeeded, and something else has become of its version",
        lambda o: _in(o, RunState.SUCCEEDED) and o.version_outcome not in (None, o.status.outcome),
        lambda o: o.but(outcome=o.version_outcome),
        "write down what",
    ),
    Rule(
        "the run has ended, and the object of its last stage has not",
        _outlived,
        None,
        _ended,
        _stop,
        "end that object",
    ),
    Rule("the run has ended", lambda o: not _live(o), None, _ended, _nothing, "nothing"),
    Transition(
        "the ModelVersion is there",
        lambda o: _in(o, RunState.REGISTERING) and o.registered is True,
        _succeed,
        "Succeeded",
    ),
    Transition(
        "a newer run takes its place",
        lambda o: o.cancelled_by is not None and not _in(o, RunState.REGISTERING),
        _cancel,
        "Cancelled",
    ),
    Transition("it can't go on for good, and no object is at work", lambda o: _broken(o) is not None, _break, "Failed"),
    Rule(
        "it has not begun, and there is no policy to go by",
        lambda o: _in(o, *_NOT_BEGUN) and (o.policy is None or o.problem is not None),
        RunState.PENDING,
        _unready,
        _nothing,
        "wait",
    ),
    Rule(
        "it has not begun, and an earlier run has not ended",
        lambda o: _in(o, *_NOT_BEGUN) and bool(o.before),
        RunState.QUEUED,
        _waiting_for,
        _nothing,
        "wait",
    ),
    Transition(
        "it has not begun", lambda o: _in(o, *_NOT_BEGUN), _start, "keep the policy as it is now, and begin: Resolving"
    ),
    Transition(
        "its data can't be had",
        lambda o: _in(o, RunState.RESOLVING) and _no_data(o) is not None,
        _give_up_data,
        "Failed",
    ),
    Transition("the object of the stage is there for the first time", _child_is_new, _know_child, "write down its uid"),
    Transition("the object of the stage is gone, or another one", _child_is_lost, _lose_child, "Failed: ChildLost"),
    Transition("the object of the stage has failed", lambda o: _stage_is(o, StageState.FAILED), _fail_stage, "Failed"),
    Transition(
        "the object of the stage has succeeded without a report",
        lambda o: _stage_is(o, StageState.SUCCEEDED) and o.stage is not None and o.stage.report is None,
        _miss_report,
        "Failed: ReportMissing",
    ),
    Transition(
        "the object of the stage has succeeded with a report",
        lambda o: _stage_is(o, StageState.SUCCEEDED),
        _take_report,
        "take the result: the next stage, Registering, or Failed",
    ),
    Transition(
        "the ModelVersion can't be made",
        lambda o: (problem := _unregistered(o)) is not None and problem.stalled,
        _refuse_version,
        "Failed",
    ),
    Transition("the deadline has passed", _deadline_passed, _miss_deadline, "Failed: DeadlineExceeded"),
    Transition("the stage's timeout has passed", _stage_timed_out, _time_out, "Failed: StageTimeout"),
    Rule(
        "a digest is not known",
        lambda o: _in(o, RunState.RESOLVING) and bool(_missing(o)),
        RunState.RESOLVING,
        _resolving,
        lambda o: tuple(ResolveData(which) for which in _missing(o)),
        "have it found out",
    ),
    Transition(
        "the last run that succeeded had the same inputs",
        lambda o: _in(o, RunState.RESOLVING) and _unchanged(o),
        _skip,
        "Skipped",
    ),
    Transition(
        "all digests are known",
        lambda o: _in(o, RunState.RESOLVING),
        _first_stage,
        "write them down, and begin: CheckingData, or Training without a data check",
    ),
    Rule("a stage goes on", _staged, None, _at_work, _do_stage, "make its object, unless there was one"),
    Rule(
        "all stages passed",
        lambda o: _in(o, RunState.REGISTERING),
        RunState.REGISTERING,
        _registering,
        lambda o: (Register(version_name(o.run.name)),),
        "make the ModelVersion",
    ),
)


def _told(o: RunObserved, rule: Rule) -> RunObserved:
    if not _live(o):
        return o
    moved = _in(o, RunState.QUEUED)
    if _staged(o) and o.stage is not None:
        seen, entry = o.stage, _entry(o)
        moved = (entry.state, entry.reason) != (str(seen.state), seen.reason) or (
            # Why it waits becomes known only later, and changes with what others do.
            seen.state in WAITING and entry.message != seen.message
        )
        if moved:
            o = _with_entry(o, state=str(seen.state), reason=seen.reason, message=seen.message)
    why = rule.explain(o)
    o = _enter(o, rule.state or o.state, why.reason, why.message)
    # Else a message stays with its reason: those of pods differ from try to try.
    return o.but(message=why.message) if moved and o.status.message != why.message else o


def _with_conditions(o: RunObserved, rule: Rule) -> TrainingRunStatus:
    why = rule.explain(o)
    bad = o.state in (RunState.FAILED, RunState.CANCELLED)
    reason, message = o.status.reason or why.reason, o.status.message or why.message
    verdict = Verdict(reason, message, stalled=bad, reconciling=_live(o))
    generation = o.run.generation
    told = conditions(o.status.conditions, verdict, None, generation=generation, now=o.now)
    return o.but(conditions=told, observed_generation=generation).status


def _look(o: RunObserved) -> timedelta | None:
    if not _live(o):
        return LOOK_SELDOM if _outlived(o) else None
    times = [LOOK_SELDOM]
    if _begun(o) and not _waits(o):
        times.append(_left(o.status.clock, o.template.deadline, o.now))
        if _staged(o):
            times.append(_left(_entry(o).clock, _work(o).timeout, o.now))
    return max(min(times), timedelta(seconds=1))
