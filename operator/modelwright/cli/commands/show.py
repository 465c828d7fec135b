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
from modelwright.cli import lineage as lineages
from modelwright.cli import model_card, model_list, status_tree, version_diff
from modelwright.cli import rollout_plot as plots
from modelwright.cli import timeline as history_of
from modelwright.cli import why as words
from modelwright.cli.commands.command_support import (
    FAILED,
    POLL_SECONDS,
    PROMOTED,
    TIMED_OUT,
    Options,
    find_model,
    utc_now,
)
from modelwright.cli.kubectl import Forbidden, KubectlClient
from modelwright.cli.model_view import ModelView, ObjectNotFound, move_result
from modelwright.cli.printing import escape_texts, on_terminal, print_answer, print_text
from modelwright.cli.rollout_series import build_series

if TYPE_CHECKING:
    from rich.console import RenderableType


def status(options: Options, cluster: KubectlClient) -> int:
    """A Model as it stands; with --watch until it is interrupted, with --wait until its move has ended."""
    if options.watch and options.output == "text" and sys.stdout.isatty():
        return _watch_live(options, cluster)
    limit = time.monotonic() + options.timeout
    shown = ""
    while True:
        seen = find_model(options.model, cluster)
        ended = move_result(seen)
        text = _format_json(seen) if options.output == "json" else status_tree.render_tree(seen, utc_now())
        over = options.wait and (ended is not None or time.monotonic() > limit)
        if (options.watch and text != shown) or (not options.watch and (over or not options.wait)):
            print_answer(text) if options.output == "text" else print_text(text)
            shown = text
        if over or not (options.watch or options.wait):
            break
        time.sleep(POLL_SECONDS)
    return _wait_exit_code(options, seen, ended) if options.wait else PROMOTED


def _watch_live(options: Options, cluster: KubectlClient) -> int:
    from rich.live import Live

    from modelwright.cli.live_view import render_view

    def drawn() -> tuple[ModelView, RenderableType]:
        seen = find_model(options.model, cluster)
        if seen.current_rollout is not None:
            record = _with_policy(seen.current_rollout, cluster)
            rest = [each for each in seen.rollouts if each.name != record.name]
            seen = replace(seen, rollouts=(record, *rest))
        return seen, render_view(seen, utc_now())

    limit = time.monotonic() + options.timeout
    # The first request comes before the view: a credential plugin may ask its user to sign in.
    seen, what = drawn()
    with Live(what, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as screen:
        screen.refresh()
        while not (options.wait and (move_result(seen) is not None or time.monotonic() > limit)):
            time.sleep(POLL_SECONDS)
            seen, what = drawn()
            screen.update(what, refresh=True)
    return _wait_exit_code(options, seen, move_result(seen))


def _wait_exit_code(options: Options, seen: ModelView, ended: str | None) -> int:
    if ended is None:
        print_text(f"error: Model {seen.model.name} is still on its way after {options.timeout:g} s", error=True)
        return TIMED_OUT
    return PROMOTED if ended == "promoted" else FAILED


def _format_json(seen: ModelView) -> str:
    data: dict[str, Any] = {
        "model": seen.model.wire(),
        "versions": [version.wire() for version in seen.versions],
        "rollout": seen.current_rollout.wire() if seen.current_rollout is not None else None,
        "runs": [run.wire() for run in seen.runs],
        "pods": [{"name": p.name, "version": p.version, "ready": p.ready, "node": p.node} for p in seen.pods],
        "result": move_result(seen),
    }
    return json.dumps(data, indent=2)


def list_(options: Options, cluster: KubectlClient) -> int:
    """Every Model of the namespace, or of all."""
    everywhere = ("-A",) if options.all_namespaces else ()
    found = model_list.build_rows(json.loads(cluster.run("get", f"models.{GROUP}", *everywhere, "-o", "json"))["items"])
    if options.output == "json":
        print_text(json.dumps([row.wire() for row in found], indent=2))
    elif not found:
        where = "in any namespace" if options.all_namespaces else "here; --all-namespaces shows those of others"
        print_text(f"there are no Models {where}", error=True)
    else:
        print_answer(model_list.render_rows(found, utc_now(), namespaces=options.all_namespaces))
    return 0


def history(options: Options, cluster: KubectlClient) -> int:
    seen = find_model(options.model, cluster)
    if options.output == "json":
        print_text(json.dumps([record.wire() for record in seen.rollouts], indent=2))
    else:
        print_answer(status_tree.render_history(seen, utc_now()))
    return 0


def timeline(options: Options, cluster: KubectlClient) -> int:
    """What happened to a Model, from records and Events."""
    seen = find_model(options.model, cluster)
    try:
        events = json.loads(cluster.run("get", "events.events.k8s.io", "-o", "json"))["items"]
    except Forbidden:
        print_text("Events are left out: you may not list them", error=True)
        events = []
    found = history_of.build_timeline(seen, events)
    if options.output == "json":
        print_text(json.dumps([entry.wire() for entry in found], indent=2))
    else:
        print_answer(history_of.render_timeline(found))
    return 0


def why(options: Options, cluster: KubectlClient) -> int:
    seen = find_model(options.model, cluster)
    named = _named_rollout(options, seen)
    if options.output == "json":
        print_text(json.dumps(words.why_data(seen, utc_now(), named), indent=2))
    else:
        print_answer(words.render_why(seen, utc_now(), named))
    return 0


def _named_rollout(options: Options, seen: ModelView) -> str | None:
    """The rollout that is named, by an option or instead of the Model; None: the one that matters now."""
    return options.rollout or next((r.name for r in seen.rollouts if r.name == options.model), None)


def _with_policy(record: ModelRollout, cluster: KubectlClient) -> ModelRollout:
    """The record with its policy, also where that is stored apart."""
    policy = record.status.policy
    spec = cluster.read_stored_policy(policy.stored_in or "") if policy is not None and policy.is_lost else None
    if policy is None or spec is None:
        return record
    status = record.status.model_copy(update={"policy": policy.model_copy(update={"spec": spec})})
    return record.model_copy(update={"status": status})


def plot(options: Options, cluster: KubectlClient) -> int:
    seen = find_model(options.model, cluster)
    named = _named_rollout(options, seen)
    record = seen.get_rollout(named) if named is not None else seen.current_rollout
    if record is None:
        raise ObjectNotFound(f"Model {seen.model.name} has no rollout on record, so there is nothing to draw")
    found = build_series(_with_policy(record, cluster), utc_now())
    if options.output == "json":
        print_text(json.dumps(found.wire(), indent=2))
        return 0
    found = escape_texts(found)
    if options.output is not None:
        plots.save_image(found, Path(options.output))
        print_text(f"wrote {options.output}", error=True)
    if options.output is None or options.terminal:
        print_text(plots.draw_terminal(found, colours=on_terminal()), colours=True)
    return 0


def _chosen_version(options: Options, seen: ModelView) -> str:
    """The version that is meant: the one that is named, that of a named pod, else the one that serves."""
    if options.version:
        return str(options.version)
    if any(version.name == options.model for version in seen.versions):
        return str(options.model)
    of_pod = next((pod.version for pod in seen.pods if pod.name == options.model), None)
    serving = seen.model.status.serving
    found = of_pod or (serving.version if serving is not None else None)
    if found is None:
        raise ObjectNotFound(f"Model {seen.model.name} serves nothing yet: name a version with --version")
    return found


def lineage(options: Options, cluster: KubectlClient) -> int:
    seen = find_model(options.model, cluster)
    version = _chosen_version(options, seen)
    if options.output == "json":
        print_text(json.dumps(lineages.lineage_data(seen, version), indent=2))
    else:
        print_answer(lineages.render_lineage(seen, version))
    return 0


def card(options: Options, cluster: KubectlClient) -> int:
    seen = find_model(options.model, cluster)
    version = _chosen_version(options, seen)
    text = model_card.render_card(seen, version)
    if options.output == "json":
        print_text(json.dumps({"model": seen.model.name, "version": version, "card": text}, indent=2))
    else:
        print_text(text, end="")
    return 0


def diff(options: Options, cluster: KubectlClient) -> int:
    seen = find_model(options.old, cluster)
    if options.output == "json":
        print_text(json.dumps(version_diff.diff_data(seen, options.old, options.new), indent=2))
    else:
        print_text(version_diff.render_diff(seen, options.old, options.new))
    return 0
