"""Runs stages as objects of other controllers, whose states a profile or the author's expressions read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from modelwright.api.reasons import FETCH_REASONS, Reason
from modelwright.api.v1alpha1.retraining import ResourceWork, Work
from modelwright.api.v1alpha1.training import StageState
from modelwright.core import gate_results, pod_failures
from modelwright.core.retraining.stage_reading import ENDED_STAGE_STATES, WAITING_STAGE_STATES, StageReading
from modelwright.engines import cel_expressions
from modelwright.engines.cel_expressions import ExpressionValue
from modelwright.engines.job import is_suspended, read_suspended
from modelwright.engines.pod_reports import PodReport, find_report
from modelwright.engines.profiles import PROFILES, EngineState, Outputs
from modelwright.render import training_stages
from modelwright.render.strategic_merge import MergeError
from modelwright.render.training_stages import StageInputs
from modelwright.sandbox.process import NoAnswer

Json = dict[str, Any]

EXPRESSION_FIELDS = ("success", "failure", "suspended", "message", "outputs")
"""Fields of a resource that are expressions."""
_POD_REASONS = FETCH_REASONS | {Reason.CONTAINER_OOM_KILLED, Reason.IMAGE_PULL_FAILED, Reason.CONTAINER_CONFIG_ERROR}


class ResourceEngine:
    """Renders and reads objects of other controllers.

    With both a profile and an expression, success needs both, and failure and suspension either; message and outputs
    are those of the expression.
    """

    def resolve_kind(self, work: Work) -> tuple[str, str]:
        """Return apiVersion and kind of the manifest."""
        return training_stages.kind_of(_require_resource(work))

    def render_manifest(self, run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
        """Render the object by `training_stages.stage_resource`."""
        return training_stages.stage_resource(run, stage, work, inputs)

    def pod_selector(self, live: Json, work: Work) -> str | None:
        """Return the author's selector, else the profile's."""
        resource, name = _require_resource(work), str(live["metadata"]["name"])
        if resource.pod_selector is not None:
            return resource.pod_selector.replace("$(NAME)", name)
        return f"{PROFILES[resource.profile].pod_label}={name}" if resource.profile is not None else None

    def read_stage(self, live: Json, pods: Sequence[Json], work: Work, now: datetime) -> StageReading:
        """Read the state from the object's status; after its end, the outputs or the pods' termination messages too."""
        resource = _require_resource(work)
        kind, name = str(live.get("kind", "object")), str(live["metadata"]["name"])
        engine_state, problems = _read_engine_state(resource, live)
        message = "; ".join(filter(None, [engine_state.message, *problems]))
        if engine_state.state is StageState.SUCCEEDED:
            return _read_success(engine_state.outputs, find_report(pods, work), kind, name, problems)
        if engine_state.state is StageState.FAILED:
            return _read_failure(engine_state, pods, kind, name)
        if engine_state.state in WAITING_STAGE_STATES or is_suspended(live):
            reading = read_suspended(live, kind)
            return replace(reading, message="; ".join(filter(None, [reading.message, message])))
        failure = gate_results.find_start_failure(pods, now)
        if failure is not None:
            return StageReading(StageState.FAILED, failure.reason, f"{kind} {name}: {failure.message}")
        return StageReading(
            engine_state.state, message=f"{kind} {name}: {message}" if message else f"{kind} {name} has not ended"
        )

    def validate_work(self, work: Work) -> str | None:
        """Return the first expression that can't be compiled; no object is created for such a policy."""
        resource = _require_resource(work)
        texts = _list_expressions(resource)
        checks = zip(texts, cel_expressions.check_expressions(tuple(texts.values())), strict=True) if texts else ()
        return next((f"resource.{field}: {problem}" for field, problem in checks if problem is not None), None)


def _require_resource(work: Work) -> ResourceWork:
    if work.resource is None:
        raise MergeError("resource: must be given")
    return work.resource


def _list_expressions(resource: ResourceWork) -> dict[str, str]:
    """List the given expressions by field."""
    return {field: text for field in EXPRESSION_FIELDS if (text := getattr(resource, field)) is not None}


def _read_engine_state(resource: ResourceWork, live: Json) -> tuple[EngineState, list[str]]:
    """Combine the states of profile and expressions; list the expressions that gave none."""
    state = PROFILES[resource.profile].read_state(live) if resource.profile is not None else None
    texts = _list_expressions(resource)
    values = (
        dict(zip(texts, cel_expressions.evaluate_expressions(tuple(texts.values()), live), strict=True))
        if texts
        else {}
    )
    problems = [f"{field} has no result: {value.why}" for field, value in values.items() if isinstance(value, NoAnswer)]

    def read_flag(field: str) -> bool | None:
        value = values.get(field)
        if value is None or isinstance(value, bool):
            return value
        if not isinstance(value, NoAnswer):
            problems.append(f"{field} has no result: it gives no true or false, but {str(value)[:100]!r}")
        return None

    success, failure, suspended = read_flag("success"), read_flag("failure"), read_flag("suspended")
    if state is None:
        stage = StageState.RUNNING if live.get("status") else StageState.PENDING
        if stage is StageState.RUNNING and success is None and failure is None:
            stage = StageState.UNKNOWN
        if success:
            stage = StageState.SUCCEEDED
        state = EngineState(stage)
    elif state.state is StageState.SUCCEEDED and "success" in values and not success:
        state = replace(state, state=StageState.RUNNING)
    if state.state not in ENDED_STAGE_STATES and suspended:
        state = replace(state, state=StageState.SUSPENDED)
    if failure:
        state = replace(state, state=StageState.FAILED)
    message, outputs = values.get("message"), values.get("outputs")
    if isinstance(message, str):
        state = replace(state, message=message)
    if "outputs" in values:
        state = replace(state, outputs=_usable_outputs(outputs))
    return state, problems


def _usable_outputs(value: ExpressionValue) -> Outputs | None:
    return value if isinstance(value, Mapping | str) else None


def _read_success(
    outputs: Outputs | None, pod_report: PodReport, kind: str, name: str, problems: Sequence[str]
) -> StageReading:
    """Read the end of a successful object: its report, or why there is none."""
    if outputs is None:
        if pod_report.report is not None:
            return StageReading(StageState.SUCCEEDED, report=pod_report.report, image=pod_report.image)
        why = "; ".join([f"{kind} {name} ended well, but {pod_report.problem}", *problems])
        return StageReading(StageState.SUCCEEDED, pod_report.reason, problem=why)
    report = pod_failures.parse_termination_report(outputs) if isinstance(outputs, str) else dict(outputs)
    if report is None:
        text = f"{kind} {name} ended well, but its output is no JSON object: {str(outputs)[:200]!r}"
        return StageReading(StageState.SUCCEEDED, problem=text)
    size = len(json.dumps(report).encode())
    if size > cel_expressions.VALUE_BYTES:
        text = f"{kind} {name} ended well, but its output takes {size} bytes, more than {cel_expressions.VALUE_BYTES}"
        return StageReading(StageState.SUCCEEDED, problem=text)
    return StageReading(StageState.SUCCEEDED, report=report, image=pod_report.image)


def _read_failure(state: EngineState, pods: Sequence[Json], kind: str, name: str) -> StageReading:
    """Read why an object failed, from its status and its pods: exit code and last line, memory, image, data."""
    failure = pod_failures.diagnose_pods(pods)
    reason = failure.reason if failure is not None and failure.reason in _POD_REASONS else Reason.STAGE_FAILED
    parts = [part for part in (state.reason, state.message, failure.message if failure is not None else "") if part]
    return StageReading(StageState.FAILED, reason, f"{kind} {name} failed" + (f": {'; '.join(parts)}" if parts else ""))
