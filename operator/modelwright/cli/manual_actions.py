"""Objects and patches for manual actions: commands, approvals, rollbacks and training runs. Admission verifies the
user."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from modelwright.api.names import API_VERSION
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.api.v1alpha1.training import RunState
from modelwright.cli.model_view import ModelView, ObjectNotFound
from modelwright.cli.user_error import UserError
from modelwright.core.rollout.record import REVERTED_STATES, TERMINAL_STATES

Json = dict[str, Any]


ENDED_RUN_STATES: Final = frozenset({RunState.SUCCEEDED, RunState.SKIPPED, RunState.FAILED, RunState.CANCELLED})
"""Final states of a TrainingRun."""


class InvalidAction(UserError, ValueError):
    """The action is impossible now; the text says why, and what is possible."""


def find_commanded_rollout(view: ModelView, command: str) -> ModelRollout:
    """Find the record that a command applies to. Raises InvalidAction when the command is impossible."""
    record = _find_holding_rollback(view) if command == "release" else view.current_rollout
    if record is None:
        problem = "no manual rollback pins it" if command == "release" else "it has no rollout on record"
        raise InvalidAction(f"{command} of Model {view.model.name}: {problem}")
    state, ended = record.status.state, record.status.state in TERMINAL_STATES
    if command == "retry" and state not in REVERTED_STATES:
        raise InvalidAction(
            f"retry of {record.name}: it is {state}; only a rollout that was rolled back or aborted can be retried"
        )
    if command == "release" and not ended:
        raise InvalidAction(f"release of {record.name}: the rollback is still in progress; abort ends it")
    if command in ("pause", "resume", "promote", "abort") and ended:
        raise InvalidAction(f"{command} of {record.name}: it has ended ({state})")
    return record


def build_command_patch(name: str, token: str, by: str, reason: str) -> Json:
    """Build the merge patch of a ModelRollout."""
    return {"spec": {"command": {"name": name, "token": token, "by": by, "reason": reason}}}


def build_approval(
    record: ModelRollout, verdict: str, by: str, reason: str, expires: datetime | None, reviewed_hash: str
) -> Json:
    """Build an Approval bound to a content hash; `verdict` is Approve or Reject. Raises InvalidAction when the
    rollout has ended or its content has changed since the review."""
    if record.status.state in TERMINAL_STATES:
        raise InvalidAction(f"{record.name} has ended ({record.status.state})")
    if record.status.content_hash != reviewed_hash:
        raise InvalidAction(
            f"{record.name} has changed since it was reviewed: its content hash is {record.status.content_hash}, not "
            f"{reviewed_hash}; review it again"
        )
    owner = {"apiVersion": API_VERSION, "kind": "ModelRollout", "name": record.name, "uid": record.uid}
    spec = {
        "modelRef": {"name": record.spec.model_ref.name},
        "rollout": {"name": record.name, "uid": record.uid},
        "contentHash": reviewed_hash,
        "decision": verdict,
        "approver": by,
        "reason": reason,
    }
    if expires is not None:
        spec["expiresAt"] = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"generateName": f"{record.name}-", "namespace": record.namespace, "ownerReferences": [owner]}
    return {"apiVersion": API_VERSION, "kind": "Approval", "metadata": metadata, "spec": spec}


def build_rollback(view: ModelView, version: str | None, by: str, reason: str) -> Json:
    """Build a ModelRollout that rolls back at once, by default to the previous version. Raises InvalidAction for a
    version that has never served."""
    served = [entry.version for entry in view.model.status.history]
    serving = view.model.status.serving
    if version is None:
        version = next((name for name in served if serving is None or name != serving.version), None)
        if version is None:
            raise InvalidAction(f"Model {view.model.name} has no earlier version to roll back to")
    elif serving is not None and serving.version == version:
        raise InvalidAction(f"Model {view.model.name} serves version {version} already")
    elif version not in served:
        raise InvalidAction(
            f"version {version} has not served before; Model {view.model.name} can roll back to "
            f"{', '.join(dict.fromkeys(served)) or 'nothing'}. Set spec.version to it for a rollout with gates"
        )
    spec = {
        "modelRef": {"name": view.model.name},
        "target": {"version": version},
        "rollback": {"by": by, "reason": reason},
    }
    metadata = {"generateName": f"{view.model.name[:40]}-back-", "namespace": view.model.namespace}
    return {"apiVersion": API_VERSION, "kind": "ModelRollout", "metadata": metadata, "spec": spec}


def build_version_patch(view: ModelView, version: str) -> Json:
    """Build the merge patch that pins a Model to a version. Raises ObjectNotFound for an unknown version, and
    InvalidAction when spec.version does not pin one."""
    spec_version = view.model.spec.version
    if spec_version.name is None:
        state = "follows its versions" if spec_version.follow is not None else "holds a template"
        raise InvalidAction(
            f"spec.version of Model {view.model.name} {state}, and set-version changes only spec.version.name: edit "
            "the Model to pin a version"
        )
    return {"spec": {"version": {"name": view.get_version(version).name}}}


def require_running_run(view: ModelView, run: str) -> str:
    """Return the name of a TrainingRun that can be cancelled. Raises ObjectNotFound, and InvalidAction when it has
    ended."""
    for candidate in view.runs:
        if candidate.name == run:
            if candidate.status.state in ENDED_RUN_STATES:
                raise InvalidAction(f"TrainingRun {run} has ended ({candidate.status.state}) and cannot be cancelled")
            return run
    raise ObjectNotFound(f"there is no TrainingRun {run} here")


def build_training_run(view: ModelView, policy: str | None, by: str, reason: str) -> Json:
    """Build a manual TrainingRun. Raises InvalidAction when the policy is ambiguous or missing."""
    names = sorted(each.name for each in view.policies)
    if policy is None and len(names) != 1:
        which = (
            f"has {len(names)} RetrainingPolicies ({', '.join(names)}): name one with --policy" if names else "has none"
        )
        raise InvalidAction(f"Model {view.model.name} {which if names else 'has no RetrainingPolicy'}")
    if policy is not None and policy not in names:
        raise ObjectNotFound(
            f"Model {view.model.name} has no RetrainingPolicy {policy}; there are {', '.join(names) or 'none'}"
        )
    chosen = policy or names[0]
    metadata = {"generateName": f"{chosen[:40]}-by-hand-", "namespace": view.model.namespace}
    spec = {"policyRef": {"name": chosen}, "manual": {"by": by, "reason": reason}}
    return {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": metadata, "spec": spec}


def _find_holding_rollback(view: ModelView) -> ModelRollout | None:
    return next((r for r in view.rollouts if r.spec.rollback is not None and not r.status.released), None)
