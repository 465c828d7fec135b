"""Stages that any other object does: its states are read by a profile, or by expressions of the policy's author."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from modelwright.api.reasons import FETCH_REASONS, Reason
from modelwright.api.v1alpha1.retraining import ResourceWork, Work
from modelwright.api.v1alpha1.training import StageState
from modelwright.core import gate_results
from modelwright.core import pod_failures as pod_states
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
"""Members of a resource that are expressions."""
_POD_REASONS = FETCH_REASONS | {Reason.CONTAINER_OOM_KILLED, Reason.IMAGE_PULL_FAILED, Reason.CONTAINER_CONFIG_ERROR}


class ResourceEngine:
    """Reads objects of other controllers. Where both a profile and an expression are given, success needs both, and
    failure and suspension either; message and outputs are the expression's."""

    def resolve_kind(self, work: Work) -> tuple[str, str]:
        """Those of the manifest."""
        return training_stages.kind_of(_require_resource(work))

    def render_manifest(self, run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
        """See `serving.training.resource`."""
        return training_stages.stage_resource(run, stage, work, inputs)

    def pod_selector(self, live: Json, work: Work) -> str | None:
        """The author's selector, else the profile's."""
        resource, name = _require_resource(work), str(live["metadata"]["name"])
        if resource.pod_selector is not None:
            return resource.pod_selector.replace("$(NAME)", name)
        return f"{PROFILES[resource.profile].pod_label}={name}" if resource.profile is not None else None

    def read_stage(self, live: Json, pods: Sequence[Json], work: Work, now: datetime) -> StageReading:
        """By the object's status, and once it has ended by its outputs or its pods' termination messages."""
        resource = _require_resource(work)
        kind, name = str(live.get("kind", "object")), str(live["metadata"]["name"])
        found, untold = _read_engine_state(resource, live)
        told = "; ".join(filter(None, [found.message, *untold]))
        if found.state is StageState.SUCCEEDED:
            return _read_success(found.outputs, find_report(pods, work), kind, name, untold)
        if found.state is StageState.FAILED:
            return _read_failure(found, pods, kind, name)
        if found.state in WAITING_STAGE_STATES or is_suspended(live):
            reading = read_suspended(live, kind)
            return replace(reading, message="; ".join(filter(None, [reading.message, told])))
        never = gate_results.find_start_failure(pods, now)
        if never is not None:
            return StageReading(StageState.FAILED, never.reason, f"{kind} {name}: {never.message}")
        return StageReading(found.state, message=f"{kind} {name}: {told}" if told else f"{kind} {name} has not ended")

    def validate_work(self, work: Work) -> str | None:
        """The first expression that can't be compiled; no object is made for such a policy."""
        resource = _require_resource(work)
        given = {field: text for field in EXPRESSION_FIELDS if (text := getattr(resource, field)) is not None}
        found = zip(given, cel_expressions.check_expressions(tuple(given.values())), strict=True) if given else ()
        return next((f"resource.{field}: {problem}" for field, problem in found if problem is not None), None)


def _require_resource(work: Work) -> ResourceWork:
    if work.resource is None:
        raise MergeError("resource: must be given")
    return work.resource


def _read_engine_state(resource: ResourceWork, live: Json) -> tuple[EngineState, list[str]]:
    """What profile and expressions say together, and which expressions said nothing."""
    found = PROFILES[resource.profile].read_state(live) if resource.profile is not None else None
    asked = {field: text for field in EXPRESSION_FIELDS if (text := getattr(resource, field)) is not None}
    values = (
        dict(zip(asked, cel_expressions.evaluate_expressions(tuple(asked.values()), live), strict=True))
        if asked
        else {}
    )
    untold = [f"{field} says nothing: {value.why}" for field, value in values.items() if isinstance(value, NoAnswer)]

    def holds(field: str) -> bool | None:
        value = values.get(field)
        if value is None or isinstance(value, bool):
            return value
        if not isinstance(value, NoAnswer):
            untold.append(f"{field} says nothing: it gives no true or false, but {str(value)[:100]!r}")
        return None

    success, failure, suspended = holds("success"), holds("failure"), holds("suspended")
    if found is None:
        state = StageState.RUNNING if live.get("status") else StageState.PENDING
        if state is StageState.RUNNING and success is None and failure is None:
            state = StageState.UNKNOWN
        if success:
            state = StageState.SUCCEEDED
        found = EngineState(state)
    elif found.state is StageState.SUCCEEDED and "success" in values and not success:
        found = replace(found, state=StageState.RUNNING)
    if found.state not in ENDED_STAGE_STATES and suspended:
        found = replace(found, state=StageState.SUSPENDED)
    if failure:
        found = replace(found, state=StageState.FAILED)
    message, outputs = values.get("message"), values.get("outputs")
    if isinstance(message, str):
        found = replace(found, message=message)
    if "outputs" in values:
        found = replace(found, outputs=_usable_outputs(outputs))
    return found, untold


def _usable_outputs(value: ExpressionValue) -> Outputs | None:
    return value if isinstance(value, Mapping | str) else None


def _read_success(
    outputs: Outputs | None, left: PodReport, kind: str, name: str, untold: Sequence[str]
) -> StageReading:
    """The end of an object that has ended well: its report, or why there is none."""
    if outputs is None:
        if left.report is not None:
            return StageReading(StageState.SUCCEEDED, report=left.report, image=left.image)
        why = "; ".join([f"{kind} {name} ended well, but {left.problem}", *untold])
        return StageReading(StageState.SUCCEEDED, left.reason, problem=why)
    report = pod_states.parse_termination_report(outputs) if isinstance(outputs, str) else dict(outputs)
    if report is None:
        text = f"{kind} {name} ended well, but its output is no JSON object: {str(outputs)[:200]!r}"
        return StageReading(StageState.SUCCEEDED, problem=text)
    size = len(json.dumps(report).encode())
    if size > cel_expressions.VALUE_BYTES:
        text = f"{kind} {name} ended well, but its output takes {size} bytes, more than {cel_expressions.VALUE_BYTES}"
        return StageReading(StageState.SUCCEEDED, problem=text)
    return StageReading(StageState.SUCCEEDED, report=report, image=left.image)


def _read_failure(found: EngineState, pods: Sequence[Json], kind: str, name: str) -> StageReading:
    """Why it failed, by its own status and by its pods: exit code and last line, memory, image, data."""
    failure = pod_states.diagnose_pods(pods)
    reason = failure.reason if failure is not None and failure.reason in _POD_REASONS else Reason.STAGE_FAILED
    told = [part for part in (found.reason, found.message, failure.message if failure is not None else "") if part]
    return StageReading(StageState.FAILED, reason, f"{kind} {name} failed" + (f": {'; '.join(told)}" if told else ""))
