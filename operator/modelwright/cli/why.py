"""Output of `kubectl modelwright why`: the decision about a Model, its evidence, and the possible next actions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelwright.api.conditions import Condition, ConditionType, find_condition
from modelwright.api.v1alpha1.model import RuntimeStatus
from modelwright.api.v1alpha1.rollout import ModelRollout, RolloutState
from modelwright.cli.model_view import ModelView, format_age
from modelwright.cli.status_tree import format_authors, format_drift, format_gate, format_verdict
from modelwright.core.rollout.record import TERMINAL_STATES, is_undecided_ending

_RETRY_HINT = "kubectl modelwright retry {model} tries this revision again; or set spec.version to another one."
_STATE_HINTS = {
    RolloutState.AWAITING_APPROVAL: "An approver who is not one of its authors can run "
    "kubectl modelwright approve {model}, or reject {model}.",
    RolloutState.HOLDING: "It is waiting for evidence. Possible: kubectl modelwright promote {model} (without it), or "
    "abort {model}.",
    RolloutState.PROGRESSING: "kubectl modelwright pause {model} pauses it; abort {model} rolls it back.",
    RolloutState.ROLLED_BACK: f"Once the cause is fixed, {_RETRY_HINT}",
    RolloutState.ABORTED: _RETRY_HINT,
}
_UNDECIDED_HINT = f"No evidence speaks against the version, and it is not quarantined: {_RETRY_HINT}"
_ROLLBACK_HINT = "After the rollback the Model stays pinned until release {model}; abort {model} ends the rollback."
_ENDING_PHRASES = {
    RolloutState.SUCCEEDED: "was promoted",
    RolloutState.ROLLED_BACK: "was rolled back",
    RolloutState.ABORTED: "was aborted",
    RolloutState.SUPERSEDED: "was superseded",
}


def render_why(view: ModelView, now: datetime, rollout: str | None = None) -> str:
    """Explain the decision about a Model's current rollout, or about a named one. Raises ObjectNotFound."""
    record = view.get_rollout(rollout) if rollout is not None else view.current_rollout
    parts = [] if rollout is not None else [_describe_model(view, now)]
    parts += [_describe_rollout(record, now)] if record is not None else []
    return "\n\n".join([*parts, *_next_actions(view, record)])


def why_data(view: ModelView, now: datetime, rollout: str | None = None) -> dict[str, Any]:
    """Return the explanation as JSON data, with the rollout's record without its policy. Raises ObjectNotFound."""
    record = view.get_rollout(rollout) if rollout is not None else view.current_rollout
    data: dict[str, Any] = {"model": view.model.name, "says": _describe_model(view, now), "rollout": None}
    data |= {"drift": view.model.status.drift.wire()} if view.model.status.drift is not None else {}
    if record is not None:
        status = record.status.wire()
        status.get("policy", {}).pop("spec", None)
        data["rollout"] = {"name": record.name, "spec": record.spec.wire(), "status": status}
    return data | {"canDo": next(iter(_next_actions(view, record)), "")}


def _next_actions(view: ModelView, record: ModelRollout | None) -> list[str]:
    current = view.model.status.rollout
    if record is None:
        return []
    if current is not None and current.reason == "HeldByRollback":
        return [f"To end the hold: kubectl modelwright release {view.model.name} --reason ..."]
    if record.spec.rollback is not None and record.status.state not in TERMINAL_STATES:
        return [_ROLLBACK_HINT.format(model=view.model.name)]
    if is_undecided_ending(record.status.state, record.status.reason):
        return [_UNDECIDED_HINT.format(model=view.model.name)]
    states = [state for state in _STATE_HINTS if state == record.status.state]
    return [_STATE_HINTS[state].format(model=view.model.name) for state in states]


def _describe_model(view: ModelView, now: datetime) -> str:
    model, status = view.model, view.model.status
    serving = f"serves version {status.serving.version}" if status.serving is not None else "serves nothing yet"
    lines = [f"Model {model.name} {serving}."]
    if status.target is not None and (status.serving is None or status.target.version != status.serving.version):
        lines.append(f"The target is version {status.target.version}.")
    statements: dict[str, list[str]] = {}
    for type_ in ("Ready", "Stalled"):
        condition = find_condition(status.conditions, type_)
        if condition is not None and condition.message and (type_ == "Ready") == (condition.status != "True"):
            statements.setdefault(f"{condition.reason}: {condition.message}", []).append(
                f"{type_} is {condition.status}"
            )
    if status.failure is not None:
        statements.setdefault(f"{status.failure.reason}: {status.failure.message}", [])
    lines += [
        ": ".join([" and ".join(condition_types), statement] if condition_types else [statement])
        for statement, condition_types in statements.items()
    ]
    if status.outdated:
        lines.append(status.outdated)
    lines += [*_evidence_warning(status.conditions), *_code_warning(status.runtime)]
    if status.drift is not None:
        head, worst = format_drift(status.drift, now)
        lines += [f"{head[0].upper()}{head[1:]}:", *(f"- {statement}" for statement in worst)]
    return "\n".join(lines)


def _evidence_warning(conditions: tuple[Condition, ...]) -> list[str]:
    condition = find_condition(conditions, ConditionType.EVIDENCE_ASKED)
    return (
        [f"Its RolloutPolicy requires no evidence: {condition.message}."]
        if condition and condition.status == "False"
        else []
    )


def _code_warning(runtime: RuntimeStatus | None) -> list[str]:
    if runtime is None or runtime.code is False:
        return []
    behaviour = "runs code from the artifact" if runtime.code else "doesn't say whether it runs code from the artifact"
    return [f"{runtime.kind} {runtime.name} {behaviour}: gates.scan of a RolloutPolicy scans it first."]


def _describe_rollout(record: ModelRollout, now: datetime) -> str:
    status, to = record.status, record.spec.target.version
    move = f"from version {status.from_.version} to {to}" if status.from_ is not None else f"to version {to}"
    lines = [f"Rollout {record.name} {move}"]
    if status.state in TERMINAL_STATES:
        ending = (
            "ended undecided"
            if is_undecided_ending(status.state, status.reason)
            else _ENDING_PHRASES[RolloutState(str(status.state))]
        )
        lines[0] += f" {ending} {format_age(status.finished_at, now)} ago"
    elif status.state:
        step = f", step {status.progress}, weight {status.weight or 0} %" if status.progress else ""
        lines[0] += f" is {status.state}{step}, since {format_age(status.since, now)}"
    lines[0] += f" ({status.reason}): {status.message}" if status.reason else "."
    if record.spec.rollback is not None:
        lines.append(f"{record.spec.rollback.by} requested it: {record.spec.rollback.reason}")
    if status.policy is not None:
        lines.append(f"It follows RolloutPolicy {status.policy.name}, generation {status.policy.generation}.")
    lines += _evidence_warning(status.conditions)
    if status.without_evidence:
        lines.append("A user promoted it without the evidence that the policy requires.")
    if status.freeze_overridden:
        lines.append("A user resumed it during the policy's freeze.")
    lines += [f"- {format_gate(gate)}" for gate in status.gates]
    by_step = {step.index: step for step in status.steps}
    for verdict in sorted(status.verdicts, key=lambda v: v.step):
        step_of = by_step.get(verdict.step)
        place = f"step {verdict.step + 1}"
        if step_of is not None:
            place += f" ({step_of.kind}{f' {step_of.weight} %' if step_of.weight else ''})"
        lines.append(f"- {place}: {format_verdict(verdict)}")
        if verdict.query and verdict.outcome != "Pass":
            lines.append(f"    query: {verdict.query}")
    lines += format_authors(status.authors)
    lines += [f"- {a.approver} said {a.decision} ({a.place}): {a.reason}" for a in status.approvals]
    lines += [
        f"- {c.by} ran {c.name}{'' if c.accepted else ', which was refused'}: {c.message or c.reason}"
        for c in status.commands
    ]
    return "\n".join(lines)
