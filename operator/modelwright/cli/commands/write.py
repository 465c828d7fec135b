"""Handlers of verbs that write, as their user: commands, approvals, rollbacks and training runs."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from modelwright.api.v1alpha1.rollout import ModelRollout, RolloutState
from modelwright.api.v1alpha1.training import RunState
from modelwright.cli import manual_actions
from modelwright.cli import why as decisions
from modelwright.cli.commands.command_support import (
    FAILED,
    POLL_SECONDS,
    TIMED_OUT,
    Options,
    find_model,
    print_result,
    rollout_exit_code,
    utc_now,
    wait_for_exit_code,
)
from modelwright.cli.kubectl import KubectlClient
from modelwright.cli.model_view import move_result
from modelwright.cli.printing import escape_unprintable, print_text

COMMAND_TIMEOUT: Final = 15.0
"""Seconds to wait for the operator's response to a command."""
_WANTED_STATES: Final = {
    **dict.fromkeys(("approve", "promote", "resume"), (RolloutState.SUCCEEDED,)),
    **dict.fromkeys(("abort", "reject"), (RolloutState.ABORTED, RolloutState.ROLLED_BACK)),
}
"""Final states that count as success, by verb."""


def command(options: Options, kubectl: KubectlClient) -> int:
    """Write the command, and wait until the operator has accepted or refused it."""
    record = manual_actions.find_commanded_rollout(find_model(options.model, kubectl), options.command)
    token = secrets.token_hex(8)
    change = manual_actions.build_command_patch(options.command, token, kubectl.whoami(), options.reason)
    kubectl.patch("modelrollouts", record.name, change)
    limit = time.monotonic() + COMMAND_TIMEOUT
    while time.monotonic() < limit:
        outcome = _command_outcome(find_model(options.model, kubectl).rollouts, record.name, token)
        if outcome is not None:
            accepted, message = outcome
            text = f"{options.command} of {record.name}: {message or 'done'}"
            if options.output == "json" or accepted:
                print_result(
                    options, text, rollout=record.name, command=options.command, accepted=accepted, message=message
                )
            else:
                print_text(text, error=True)
            if not accepted:
                return FAILED
            return _wait_for_rollout(options, kubectl, record.name, *_WANTED_STATES.get(options.command, ()))
        time.sleep(POLL_SECONDS / 2)
    print_text(
        f"{options.command} of {record.name} was written, but not processed within {COMMAND_TIMEOUT:.0f} s: is the "
        "operator running?",
        error=True,
    )
    return TIMED_OUT


def _command_outcome(rollouts: Sequence[ModelRollout], name: str, token: str) -> tuple[bool, str] | None:
    commands = (command for record in rollouts if record.name == name for command in record.status.commands)
    return next(((command.accepted, command.message) for command in commands if command.token == token), None)


def rollback(options: Options, kubectl: KubectlClient) -> int:
    body = manual_actions.build_rollback(
        find_model(options.model, kubectl), options.to, kubectl.whoami(), options.reason
    )
    name = kubectl.create(body)
    model, version = body["spec"]["modelRef"]["name"], body["spec"]["target"]["version"]
    print_result(
        options,
        f"ModelRollout {name} takes Model {model} to version {version}, and pins it there until spec.version changes "
        "or it is released",
        kind="ModelRollout",
        name=name,
        model=model,
        version=version,
    )
    return _wait_for_rollout(options, kubectl, name, RolloutState.SUCCEEDED)


def decide(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.model, kubectl)
    record = view.current_rollout
    if record is None or not record.status.content_hash:
        raise manual_actions.InvalidAction(f"Model {view.model.name} has no rollout to approve")
    reviewed_hash = options.hash
    if reviewed_hash is None:
        print_text(decisions.render_why(view, utc_now(), record.name), error=options.output == "json")
        reviewed_hash = record.status.content_hash
        if sys.stdin.isatty():
            answer = input(escape_unprintable(f"\n{options.command} this (content hash {reviewed_hash})? [y/N] "))
            if answer.strip().lower() not in ("y", "yes"):
                print_text("nothing was written")
                return FAILED
            record = find_model(options.model, kubectl).get_rollout(record.name)
        else:
            raise manual_actions.InvalidAction(f"give the content hash that you have reviewed: --hash {reviewed_hash}")
    expires = utc_now() + timedelta(seconds=options.expires) if options.expires else None
    decision = "Approve" if options.command == "approve" else "Reject"
    name = kubectl.create(
        manual_actions.build_approval(record, decision, kubectl.whoami(), options.reason, expires, reviewed_hash)
    )
    print_result(
        options,
        f"Approval {name} says {decision} to {record.name} ({reviewed_hash}); the rollout's status says whether it "
        "counts",
        kind="Approval",
        name=name,
        rollout=record.name,
        decision=decision,
        contentHash=reviewed_hash,
    )
    return _wait_for_rollout(options, kubectl, record.name, *_WANTED_STATES[options.command])


def retrain(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.model, kubectl, "retrainingpolicies")
    body = manual_actions.build_training_run(view, options.policy, kubectl.whoami(), options.reason)
    name = kubectl.create(body)
    policy = body["spec"]["policyRef"]["name"]
    text = f"TrainingRun {name} was created, by RetrainingPolicy {policy}"
    print_result(options, text, kind="TrainingRun", name=name, policy=policy)
    return (
        wait_for_exit_code(options, f"TrainingRun {name}", lambda: _run_exit_code(kubectl, name)) if options.wait else 0
    )


def _run_exit_code(kubectl: KubectlClient, name: str) -> int | None:
    run = next(run for run in find_model(name, kubectl, "trainingruns").runs if run.name == name)
    if run.status.state not in manual_actions.ENDED_RUN_STATES:
        return None
    if run.status.state == RunState.SUCCEEDED:
        return 0
    print_text(f"{name} ended {run.status.state} ({run.status.reason}): {run.status.message or ''}", error=True)
    return FAILED


def set_version(options: Options, kubectl: KubectlClient) -> int:
    """Pin a Model to a version; with --wait until it is promoted or has failed."""
    view = find_model(options.model, kubectl)
    model = view.model.name
    kubectl.patch("models", model, manual_actions.build_version_patch(view, options.version))
    text = f"Model {model} will serve version {options.version}"
    print_result(options, text, kind="Model", name=model, version=options.version)
    return wait_for_exit_code(options, f"Model {model}", lambda: _move_exit_code(kubectl, model)) if options.wait else 0


def _move_exit_code(kubectl: KubectlClient, model: str) -> int | None:
    view = find_model(model, kubectl)
    ended = move_result(view)
    if ended == "failed":
        print_text(decisions.render_why(view, utc_now(), None), error=True)
    return {"promoted": 0, "failed": FAILED}.get(ended or "")


def run(options: Options, kubectl: KubectlClient) -> int:
    """Cancel a running TrainingRun by deleting it."""
    name = manual_actions.require_running_run(find_model(options.name, kubectl, "trainingruns"), options.name)
    kubectl.delete("trainingruns", name)
    print_result(options, f"TrainingRun {name} is cancelled and deleted", kind="TrainingRun", name=name)
    return 0


def _wait_for_rollout(options: Options, kubectl: KubectlClient, name: str, *wanted: str) -> int:
    """With --wait, wait for the rollout to end and return its exit code; else return 0."""
    if not getattr(options, "wait", False):
        return 0
    return wait_for_exit_code(options, f"rollout {name}", lambda: rollout_exit_code(kubectl, name, *wanted))
