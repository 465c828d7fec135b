"""Changes that transitions make to the record of a TrainingRun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import PolicySnapshot
from modelwright.api.v1alpha1.training import DatasetStatus, RunState
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.retraining import stage_reports
from modelwright.core.retraining.run_inputs import (
    current_inputs_hash,
    data_by_role,
    output_uri,
    permanent_data_problem,
    resolving_problem,
    version_name,
)
from modelwright.core.retraining.run_observation import STAGES_BY_STATE, RunObservation
from modelwright.core.retraining.run_record import (
    end_run,
    fail_run,
    has_started,
    is_active,
    is_in_stage,
    is_in_state,
    pass_stage,
    stage_entry,
    stage_work,
    start_stage,
    transition_to,
    update_stage,
)
from modelwright.net.addresses import redact_uri

_MAX_NAMED_CHECKS = 10
"""Maximum number of failed checks that a message names."""


def fatal_problem(o: RunObservation) -> Problem | None:
    """Return the problem because of which the run can never continue; None without one."""
    if not is_active(o):
        return None
    if has_started(o) and o.policy is None:
        return o.problem or Problem(Reason.INVALID_POLICY, "status.policy of the run can't be read", stalled=True)
    has_object = is_in_stage(o) and (o.child is not None or bool(stage_entry(o).uid))
    return o.problem if o.problem is not None and o.problem.stalled and not has_object else None


def fail_fatally(o: RunObservation) -> RunObservation:
    problem = fatal_problem(o)
    assert problem is not None  # noqa: S101 - the row applies
    return fail_run(o, problem.reason, problem.message)


def start_run(o: RunObservation) -> RunObservation:
    assert o.policy is not None  # noqa: S101 - an earlier row applies without a policy
    snapshot = PolicySnapshot(
        name=o.policy_name or o.run.spec.policy_ref.name, generation=o.policy_generation, spec=o.policy.wire()
    )
    o = o.with_status(policy=snapshot, model=o.policy.model_ref.name, started_at=o.now)
    return transition_to(o, RunState.RESOLVING, Reason.RESOLVING_DATA, resolving_problem(o).message)


def fail_without_data(o: RunObservation) -> RunObservation:
    problem = permanent_data_problem(o)
    assert problem is not None  # noqa: S101 - the row applies
    return fail_run(o, problem.reason, problem.message)


def _record_data(o: RunObservation) -> RunObservation:
    data = {
        role: DatasetStatus(uri=redact_uri(uri), digest=resolved.digest or "")
        for role, (uri, resolved) in data_by_role(o).items()
    }
    return o.with_status(dataset=data["dataset"], holdout=data.get("holdout"), inputs_hash=current_inputs_hash(o))


def skip_run(o: RunObservation) -> RunObservation:
    text = "data, parameters, seed and templates are those of the last run that succeeded (spec.guard.skipUnchanged)"
    return end_run(_record_data(o), RunState.SKIPPED, Reason.UNCHANGED, text)


def start_first_stage(o: RunObservation) -> RunObservation:
    state = RunState.CHECKING_DATA if o.template.data_check is not None else RunState.TRAINING
    return start_stage(_record_data(o), state)


def record_child(o: RunObservation) -> RunObservation:
    assert o.child is not None  # noqa: S101 - the row applies
    return update_stage(o, child=o.child.name, uid=o.child.uid, kind=o.child.kind)


def fail_lost_child(o: RunObservation) -> RunObservation:
    entry = stage_entry(o)
    text = (
        f"{entry.kind} {entry.child} of the stage {entry.name} is gone, deleted manually or by its TTL, before its "
        "result was recorded; it is not created again"
    )
    # An object that has this name now is another one, which this run must not stop.
    return fail_run(replace(o, stage=None, child=None), Reason.CHILD_LOST, text)


def fail_stage(o: RunObservation) -> RunObservation:
    assert o.stage is not None  # noqa: S101 - the row applies
    reason, message = o.stage.reason, o.stage.message or "it does not say why"
    entry = stage_entry(o)
    if reason in set(Reason):
        return fail_run(o, reason, f"stage {entry.name}: {message}")
    cause = f" ({reason})" if reason else ""
    return fail_run(o, Reason.STAGE_FAILED, f"stage {entry.name}: {entry.kind} {entry.child} failed{cause}: {message}")


def fail_without_report(o: RunObservation) -> RunObservation:
    assert o.stage is not None  # noqa: S101 - the row applies
    entry = stage_entry(o)
    problem = f": {o.stage.problem}" if o.stage.problem else ""
    text = f"stage {entry.name}: {entry.kind} {entry.child} succeeded, but left no report that can be read"
    return fail_run(o, o.stage.reason or Reason.REPORT_MISSING, text + problem)


def record_report(o: RunObservation) -> RunObservation:
    """Put the result into the record, in the write that also ends the stage: its object may be deleted after that."""
    assert o.stage is not None and o.stage.report is not None  # noqa: S101, PT018 - the row applies
    stage, report = STAGES_BY_STATE[o.state], o.stage.report
    if stage == "dataCheck":
        return _record_checks(o, stage_reports.read_data_check_report(report))
    if stage == "evaluate":
        return _record_evaluation(o, report)
    assert o.status.dataset is not None  # noqa: S101 - it is recorded before any stage starts
    result = stage_reports.read_training_report(
        report,
        output_uri=output_uri(o.template, o.run.name),
        dataset_digest=o.status.dataset.digest,
        image=o.stage.image,
    )
    if isinstance(result, stage_reports.ReportRefused):
        return fail_run(o, result.reason, f"stage train: {result.message}")
    return pass_stage(o.with_status(result=result))


def _record_checks(
    o: RunObservation, result: stage_reports.DataCheckResult | stage_reports.ReportRefused
) -> RunObservation:
    if isinstance(result, stage_reports.ReportRefused):
        return fail_run(o, result.reason, f"stage dataCheck: {result.message}")
    o = o.with_status(checks=result.checks, profile=dict(result.profile) if result.profile is not None else None)
    if result.failed:
        count, named = len(result.failed), ", ".join(result.failed[:_MAX_NAMED_CHECKS])
        more = f" and {count - _MAX_NAMED_CHECKS} more" if count > _MAX_NAMED_CHECKS else ""
        text = f"{count} checks of the dataset failed: {named}{more}"
        return fail_run(o, Reason.DATA_REJECTED, f"{text}; see status.checks. Nothing was trained")
    return pass_stage(o)


def _record_evaluation(o: RunObservation, report: Mapping[str, Any]) -> RunObservation:
    evaluate = o.template.evaluate
    assert evaluate is not None  # noqa: S101 - the stage is started only if the policy has it
    result = stage_reports.read_evaluation_report(report, evaluate.gates, first=o.status.compared_with is None)
    matrix = dict(result.confusion_matrix) if result.confusion_matrix is not None else None
    o = o.with_status(figures=result.figures, confusion_matrix=matrix, full_report=result.full_report)
    text = f"{result.reason}: {result.message}"
    if result.outcome is Outcome.PASS:
        return pass_stage(o)
    if result.outcome in (Outcome.FAIL, Outcome.ERROR):
        return fail_run(o, Reason.GATE_FAILED, text)
    if evaluate.on_inconclusive == "Register":
        return pass_stage(o, Reason.INCONCLUSIVE, f"{text}. The version is registered (onInconclusive: Register)")
    return fail_run(o, Reason.INCONCLUSIVE, text)


def registration_problem(o: RunObservation) -> Problem | None:
    """Return why the ModelVersion can't be created; None if nothing is known to prevent that."""
    registered = o.registered if is_in_state(o, RunState.REGISTERING) else None
    return registered if isinstance(registered, Problem) else None


def fail_registration(o: RunObservation) -> RunObservation:
    problem = registration_problem(o)
    assert problem is not None  # noqa: S101 - the row applies
    return fail_run(o, problem.reason, problem.message)


def succeed_run(o: RunObservation) -> RunObservation:
    name = version_name(o.run.name)
    return end_run(
        o.with_status(version=name), RunState.SUCCEEDED, Reason.VERSION_REGISTERED, f"ModelVersion {name} was made"
    )


def cancel_run(o: RunObservation) -> RunObservation:
    return end_run(o, RunState.CANCELLED, Reason.REPLACED, f"{o.cancelled_by} has taken its place")


def fail_deadline(o: RunObservation) -> RunObservation:
    return fail_run(
        o,
        Reason.DEADLINE_EXCEEDED,
        _with_last_message(o, f"the run did not end within {o.template.deadline} (spec.run.deadline)"),
    )


def fail_stage_timeout(o: RunObservation) -> RunObservation:
    name, timeout = STAGES_BY_STATE[o.state], stage_work(o).timeout
    return fail_run(
        o,
        Reason.STAGE_TIMEOUT,
        _with_last_message(o, f"the stage {name} did not end within {timeout} (spec.run.{name}.timeout)"),
    )


def _with_last_message(o: RunObservation, text: str) -> str:
    last = o.stage.message if is_in_stage(o) and o.stage is not None else ""
    return f"{text}; last: {last}" if last else text
