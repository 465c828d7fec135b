"""Verbs that show: a Model's state, its rollouts, what was decided, and facts of its versions."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.api.names import GROUP
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.cli import facts, models, tree
from modelwright.cli import plot as plots
from modelwright.cli import timeline as history_of
from modelwright.cli import why as words
from modelwright.cli.cluster import Cluster, Forbidden
from modelwright.cli.commands.common import FAILED, LOOK_EVERY, PROMOTED, TIMED_OUT, Options, find_model, now
from modelwright.cli.course import course
from modelwright.cli.picture import NotThere, Picture, result
from modelwright.cli.printing import cleaned, on_terminal, say, show

if TYPE_CHECKING:
    from rich.console import RenderableType


def status(options: Options, cluster: Cluster) -> int:
    """A Model as it stands; with --watch until it is interrupted, with --wait until its move has ended."""
    if options.watch and options.output == "text" and sys.stdout.isatty():
        return _live(options, cluster)
    limit = time.monotonic() + options.timeout
    shown = ""
    while True:
        seen = find_model(options.model, cluster)
        ended = result(seen)
        text = _as_json(seen) if options.output == "json" else tree.tree(seen, now())
        over = options.wait and (ended is not None or time.monotonic() > limit)
        if (options.watch and text != shown) or (not options.watch and (over or not options.wait)):
            show(text) if options.output == "text" else say(text)
            shown = text
        if over or not (options.watch or options.wait):
            break
        time.sleep(LOOK_EVERY)
    return _came_out(options, seen, ended) if options.wait else PROMOTED


def _live(options: Options, cluster: Cluster) -> int:
    from rich.live import Live

    from modelwright.cli.live import view

    def drawn() -> tuple[Picture, RenderableType]:
        seen = find_model(options.model, cluster)
        if seen.rollout is not None:
            record = _with_policy(seen.rollout, cluster)
            rest = [each for each in seen.rollouts if each.name != record.name]
            seen = replace(seen, rollouts=(record, *rest))
        return seen, view(seen, now())

    limit = time.monotonic() + options.timeout
    # The first request comes before the view: a credential plugin may ask its user to sign in.
    seen, what = drawn()
    with Live(what, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as screen:
        screen.refresh()
        while not (options.wait and (result(seen) is not None or time.monotonic() > limit)):
            time.sleep(LOOK_EVERY)
            seen, what = drawn()
            screen.update(what, refresh=True)
    return _came_out(options, seen, result(seen))


def _came_out(options: Options, seen: Picture, ended: str | None) -> int:
    if ended is None:
        say(f"error: Model {seen.model.name} is still on its way after {options.timeout:g} s", error=True)
        return TIMED_OUT
    return PROMOTED if ended == "promoted" else FAILED


def _as_json(seen: Picture) -> str:
    data: dict[str, Any] = {
        "model": seen.model.wire(),
        "versions": [version.wire() for version in seen.versions],
        "rollout": seen.rollout.wire() if seen.rollout is not None else None,
        "runs": [run.wire() for run in seen.runs],
        "pods": [{"name": p.name, "version": p.version, "ready": p.ready, "node": p.node} for p in seen.pods],
        "result": result(seen),
    }
    return json.dumps(data, indent=2)


def list_(options: Options, cluster: Cluster) -> int:
    """Every Model of the namespace, or of all."""
    everywhere = ("-A",) if options.all_namespaces else ()
    found = models.rows(json.loads(cluster.run("get", f"models.{GROUP}", *everywhere, "-o", "json"))["items"])
    if options.output == "json":
        say(json.dumps([row.wire() for row in found], indent=2))
    elif not found:
        where = "in any namespace" if options.all_namespaces else "here; --all-namespaces shows those of others"
        say(f"there are no Models {where}", error=True)
    else:
        show(models.shown(found, now(), namespaces=options.all_namespaces))
    return 0


def history(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.model, cluster)
    if options.output == "json":
        say(json.dumps([record.wire() for record in seen.rollouts], indent=2))
    else:
        show(tree.history(seen, now()))
    return 0


def timeline(options: Options, cluster: Cluster) -> int:
    """What happened to a Model, from records and Events."""
    seen = find_model(options.model, cluster)
    try:
        events = json.loads(cluster.run("get", "events.events.k8s.io", "-o", "json"))["items"]
    except Forbidden:
        say("Events are left out: you may not list them", error=True)
        events = []
    found = history_of.timeline(seen, events)
    if options.output == "json":
        say(json.dumps([entry.wire() for entry in found], indent=2))
    else:
        show(history_of.shown(found))
    return 0


def why(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.model, cluster)
    named = _rollout(options, seen)
    if options.output == "json":
        say(json.dumps(words.why_json(seen, now(), named), indent=2))
    else:
        show(words.why(seen, now(), named))
    return 0


def _rollout(options: Options, seen: Picture) -> str | None:
    """The rollout that is named, by an option or instead of the Model; None: the one that matters now."""
    return options.rollout or next((r.name for r in seen.rollouts if r.name == options.model), None)


def _with_policy(record: ModelRollout, cluster: Cluster) -> ModelRollout:
    """The record with its policy, also where that is stored apart."""
    policy = record.status.policy
    spec = cluster.stored_policy(policy.stored_in or "") if policy is not None and policy.lost else None
    if policy is None or spec is None:
        return record
    status = record.status.model_copy(update={"policy": policy.model_copy(update={"spec": spec})})
    return record.model_copy(update={"status": status})


def plot(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.model, cluster)
    named = _rollout(options, seen)
    record = seen.record(named) if named is not None else seen.rollout
    if record is None:
        raise NotThere(f"Model {seen.model.name} has no rollout on record, so there is nothing to draw")
    found = course(_with_policy(record, cluster), now())
    if options.output == "json":
        say(json.dumps(found.wire(), indent=2))
        return 0
    found = cleaned(found)
    if options.output is not None:
        plots.save(found, Path(options.output))
        say(f"wrote {options.output}", error=True)
    if options.output is None or options.terminal:
        say(plots.terminal(found, colours=on_terminal()), colours=True)
    return 0


def _version(options: Options, seen: Picture) -> str:
    """The version that is meant: the one that is named, that of a named pod, else the one that serves."""
    if options.version:
        return str(options.version)
    if any(version.name == options.model for version in seen.versions):
        return str(options.model)
    of_pod = next((pod.version for pod in seen.pods if pod.name == options.model), None)
    serving = seen.model.status.serving
    found = of_pod or (serving.version if serving is not None else None)
    if found is None:
        raise NotThere(f"Model {seen.model.name} serves nothing yet: name a version with --version")
    return found


def lineage(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.model, cluster)
    version = _version(options, seen)
    if options.output == "json":
        say(json.dumps(facts.lineage_json(seen, version), indent=2))
    else:
        show(facts.lineage(seen, version))
    return 0


def card(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.model, cluster)
    version = _version(options, seen)
    card = facts.card(seen, version)
    if options.output == "json":
        say(json.dumps({"model": seen.model.name, "version": version, "card": card}, indent=2))
    else:
        say(card, end="")
    return 0


def diff(options: Options, cluster: Cluster) -> int:
    seen = find_model(options.old, cluster)
    if options.output == "json":
        say(json.dumps(facts.diff_json(seen, options.old, options.new), indent=2))
    else:
        say(facts.diff(seen, options.old, options.new))
    return 0
