"""Verbs that write: commands, approvals, rollbacks and training runs, in the name of their user."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from modelwright.api.v1alpha1.rollout import ModelRollout, RolloutState
from modelwright.api.v1alpha1.training import RunState
from modelwright.cli import acts
from modelwright.cli import why as words
from modelwright.cli.cluster import Cluster
from modelwright.cli.commands.common import (
    FAILED,
    LOOK_EVERY,
    TIMED_OUT,
    Options,
    find_model,
    now,
    rollout_ended,
    tell,
    wait,
)
from modelwright.cli.picture import result
from modelwright.cli.printing import printable, say

TAKEN_UP_WITHIN: Final = 15.0
"""Seconds that a command is waited for, to say what became of it."""
_ENDS_IN: Final = {
    **dict.fromkeys(("approve", "promote", "resume"), (RolloutState.SUCCEEDED,)),
    **dict.fromkeys(("abort", "reject"), (RolloutState.ABORTED, RolloutState.ROLLED_BACK)),
}
"""States in which a rollout ends as it was asked to, by verb."""


def command(options: Options, cluster: Cluster) -> int:
    """Write the command, and wait until the operator has said what became of it."""
    record = acts.commanded(find_model(options.model, cluster), options.command)
    token = secrets.token_hex(8)
    change = acts.command(options.command, token, cluster.whoami(), options.reason)
    cluster.patch("modelrollouts", record.name, change)
    limit = time.monotonic() + TAKEN_UP_WITHIN
    while time.monotonic() < limit:
        outcome = _became_of(find_model(options.model, cluster).rollouts, record.name, token)
        if outcome is not None:
            accepted, message = outcome
            text = f"{options.command} of {record.name}: {message or 'done'}"
            if options.output == "json" or accepted:
                tell(options, text, rollout=record.name, command=options.command, accepted=accepted, message=message)
            else:
                say(text, error=True)
            if not accepted:
                return FAILED
            return _ended(options, cluster, record.name, *_ENDS_IN.get(options.command, ()))
        time.sleep(LOOK_EVERY / 2)
    say(
        f"{options.command} of {record.name} is written, and was not taken up within {TAKEN_UP_WITHIN:.0f} s: is the "
        "operator running?",
        error=True,
    )
    return TIMED_OUT


def _became_of(rollouts: Sequence[ModelRollout], name: str, token: str) -> tuple[bool, str] | None:
    commands = (command for record in rollouts if record.name == name for command in record.status.commands)
    return next(((command.accepted, command.message) for command in commands if command.token == token), None)


def rollback(options: Options, cluster: Cluster) -> int:
    body = acts.rollback(find_model(options.model, cluster), options.to, cluster.whoami(), options.reason)
    name = cluster.create(body)
    model, version = body["spec"]["modelRef"]["name"], body["spec"]["target"]["version"]
    tell(
        options,
        f"ModelRollout {name} takes Model {model} to version {version}, and holds it there until spec.version changes "
        "or it is released",
        kind="ModelRollout", name=name, model=model, version=version,
    )  # fmt: skip
    return _ended(options, cluster, name, RolloutState.SUCCEEDED)


def decide(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.model, cluster)
    record = seen.rollout
    if record is None or not record.status.content_hash:
        raise acts.CannotAct(f"Model {seen.model.name} has no rollout that could be approved")
    looked_at = options.hash
    if looked_at is None:
        say(words.why(seen, now(), record.name), error=options.output == "json")
        looked_at = record.status.content_hash
        if sys.stdin.isatty():
            answer = input(printable(f"\n{options.command} this (content hash {looked_at})? [y/N] "))
            if answer.strip().lower() not in ("y", "yes"):
                say("nothing was written")
                return FAILED
            record = find_model(options.model, cluster).record(record.name)
        else:
            raise acts.CannotAct(f"name the content that you have read: --hash {looked_at}")
    expires = now() + timedelta(seconds=options.expires) if options.expires else None
    word = "Approve" if options.command == "approve" else "Reject"
    name = cluster.create(acts.decision(record, word, cluster.whoami(), options.reason, expires, looked_at))
    tell(
        options,
        f"Approval {name} says {word} to {record.name} ({looked_at}); whether it counts stands in the rollout's status",
        kind="Approval", name=name, rollout=record.name, decision=word, contentHash=looked_at,
    )  # fmt: skip
    return _ended(options, cluster, record.name, *_ENDS_IN[options.command])


def retrain(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.model, cluster, "retrainingpolicies")
    body = acts.training(seen, options.policy, cluster.whoami(), options.reason)
    name = cluster.create(body)
    policy = body["spec"]["policyRef"]["name"]
    text = f"TrainingRun {name} is asked for, by RetrainingPolicy {policy}"
    tell(options, text, kind="TrainingRun", name=name, policy=policy)
    return wait(options, f"TrainingRun {name}", lambda: _run_ended(cluster, name)) if options.wait else 0


def _run_ended(cluster: Cluster, name: str) -> int | None:
    run = next(run for run in find_model(name, cluster, "trainingruns").runs if run.name == name)
    if run.status.state not in acts.RUN_ENDS:
        return None
    if run.status.state == RunState.SUCCEEDED:
        return 0
    say(f"{name} ended {run.status.state} ({run.status.reason}): {run.status.message or ''}", error=True)
    return FAILED


def set_version(options: Options, cluster: Cluster) -> int:
    """Pin a Model to a version; with --wait until it is promoted or has failed."""
    seen = find_model(options.model, cluster)
    model = seen.model.name
    cluster.patch("models", model, acts.version_change(seen, options.version))
    text = f"Model {model} is to serve version {options.version}"
    tell(options, text, kind="Model", name=model, version=options.version)
    return wait(options, f"Model {model}", lambda: _moved(cluster, model)) if options.wait else 0


def _moved(cluster: Cluster, model: str) -> int | None:
    seen = find_model(model, cluster)
    ended = result(seen)
    if ended == "failed":
        say(words.why(seen, now(), None), error=True)
    return {"promoted": 0, "failed": FAILED}.get(ended or "")


def run(options: Options, cluster: Cluster) -> int:
    """Delete a TrainingRun that has not ended."""
    name = acts.cancelled(find_model(options.name, cluster, "trainingruns"), options.name)
    cluster.delete("trainingruns", name)
    tell(options, f"TrainingRun {name} is cancelled and deleted", kind="TrainingRun", name=name)
    return 0


def _ended(options: Options, cluster: Cluster, name: str, *wanted: str) -> int:
    """With --wait the exit code of a rollout that has ended, else 0."""
    if not getattr(options, "wait", False):
        return 0
    return wait(options, f"rollout {name}", lambda: rollout_ended(cluster, name, *wanted))
