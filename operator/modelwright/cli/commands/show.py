"""Handlers of verbs that read: a Model's state, its rollouts, decisions, and facts of its versions."""

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
from modelwright.cli import why as decisions
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


def status(options: Options, kubectl: KubectlClient) -> int:
    """Print the state of a Model. With --watch until interrupted, with --wait until its rollout has ended."""
    if options.watch and options.output == "text" and sys.stdout.isatty():
        return _watch_live(options, kubectl)
    limit = time.monotonic() + options.timeout
    shown = ""
    while True:
        view = find_model(options.model, kubectl)
        ended = move_result(view)
        text = _format_json(view) if options.output == "json" else status_tree.render_tree(view, utc_now())
        over = options.wait and (ended is not None or time.monotonic() > limit)
        if (options.watch and text != shown) or (not options.watch and (over or not options.wait)):
            print_answer(text) if options.output == "text" else print_text(text)
            shown = text
        if over or not (options.watch or options.wait):
            break
        time.sleep(POLL_SECONDS)
    return _wait_exit_code(options, view, ended) if options.wait else PROMOTED


def _watch_live(options: Options, kubectl: KubectlClient) -> int:
    from rich.live import Live

    from modelwright.cli.live_view import render_view

    def render() -> tuple[ModelView, RenderableType]:
        view = find_model(options.model, kubectl)
        if view.current_rollout is not None:
            record = _with_policy(view.current_rollout, kubectl)
            others = [each for each in view.rollouts if each.name != record.name]
            view = replace(view, rollouts=(record, *others))
        return view, render_view(view, utc_now())

    limit = time.monotonic() + options.timeout
    # The first request precedes the live display, because a credential plugin may prompt the user.
    view, display = render()
    with Live(display, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as screen:
        screen.refresh()
        while not (options.wait and (move_result(view) is not None or time.monotonic() > limit)):
            time.sleep(POLL_SECONDS)
            view, display = render()
            screen.update(display, refresh=True)
    return _wait_exit_code(options, view, move_result(view))


def _wait_exit_code(options: Options, view: ModelView, ended: str | None) -> int:
    if ended is None:
        print_text(f"error: Model {view.model.name} is still in progress after {options.timeout:g} s", error=True)
        return TIMED_OUT
    return PROMOTED if ended == "promoted" else FAILED


def _format_json(view: ModelView) -> str:
    data: dict[str, Any] = {
        "model": view.model.wire(),
        "versions": [version.wire() for version in view.versions],
        "rollout": view.current_rollout.wire() if view.current_rollout is not None else None,
        "runs": [run.wire() for run in view.runs],
        "pods": [{"name": p.name, "version": p.version, "ready": p.ready, "node": p.node} for p in view.pods],
        "result": move_result(view),
    }
    return json.dumps(data, indent=2)


def list_(options: Options, kubectl: KubectlClient) -> int:
    """Print every Model of the namespace, or of all namespaces."""
    everywhere = ("-A",) if options.all_namespaces else ()
    rows = model_list.build_rows(json.loads(kubectl.run("get", f"models.{GROUP}", *everywhere, "-o", "json"))["items"])
    if options.output == "json":
        print_text(json.dumps([row.wire() for row in rows], indent=2))
    elif not rows:
        where = "in any namespace" if options.all_namespaces else "here; --all-namespaces shows those of others"
        print_text(f"there are no Models {where}", error=True)
    else:
        print_answer(model_list.render_rows(rows, utc_now(), namespaces=options.all_namespaces))
    return 0


def history(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.model, kubectl)
    if options.output == "json":
        print_text(json.dumps([record.wire() for record in view.rollouts], indent=2))
    else:
        print_answer(status_tree.render_history(view, utc_now()))
    return 0


def timeline(options: Options, kubectl: KubectlClient) -> int:
    """Print the history of a Model from its records and Events."""
    view = find_model(options.model, kubectl)
    try:
        events = json.loads(kubectl.run("get", "events.events.k8s.io", "-o", "json"))["items"]
    except Forbidden:
        print_text("Events are missing: you may not list them", error=True)
        events = []
    entries = history_of.build_timeline(view, events)
    if options.output == "json":
        print_text(json.dumps([entry.wire() for entry in entries], indent=2))
    else:
        print_answer(history_of.render_timeline(entries))
    return 0


def why(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.model, kubectl)
    rollout_name = _named_rollout(options, view)
    if options.output == "json":
        print_text(json.dumps(decisions.why_data(view, utc_now(), rollout_name), indent=2))
    else:
        print_answer(decisions.render_why(view, utc_now(), rollout_name))
    return 0


def _named_rollout(options: Options, view: ModelView) -> str | None:
    """Return the rollout named by the option or in place of the Model; None for the current one."""
    return options.rollout or next((r.name for r in view.rollouts if r.name == options.model), None)


def _with_policy(record: ModelRollout, kubectl: KubectlClient) -> ModelRollout:
    """Return the record with its policy, read from the ControllerRevision where the status holds only a reference."""
    policy = record.status.policy
    spec = kubectl.read_stored_policy(policy.stored_in or "") if policy is not None and policy.is_lost else None
    if policy is None or spec is None:
        return record
    status = record.status.model_copy(update={"policy": policy.model_copy(update={"spec": spec})})
    return record.model_copy(update={"status": status})


def plot(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.model, kubectl)
    rollout_name = _named_rollout(options, view)
    record = view.get_rollout(rollout_name) if rollout_name is not None else view.current_rollout
    if record is None:
        raise ObjectNotFound(f"Model {view.model.name} has no rollout on record, so there is nothing to draw")
    series = build_series(_with_policy(record, kubectl), utc_now())
    if options.output == "json":
        print_text(json.dumps(series.wire(), indent=2))
        return 0
    series = escape_texts(series)
    if options.output is not None:
        plots.save_image(series, Path(options.output))
        print_text(f"wrote {options.output}", error=True)
    if options.output is None or options.terminal:
        print_text(plots.draw_terminal(series, colours=on_terminal()), colours=True)
    return 0


def _chosen_version(options: Options, view: ModelView) -> str:
    """Choose the version: the named one, else that of a named pod, else the serving one."""
    if options.version:
        return str(options.version)
    if any(version.name == options.model for version in view.versions):
        return str(options.model)
    of_pod = next((pod.version for pod in view.pods if pod.name == options.model), None)
    serving = view.model.status.serving
    version = of_pod or (serving.version if serving is not None else None)
    if version is None:
        raise ObjectNotFound(f"Model {view.model.name} serves nothing yet: name a version with --version")
    return version


def lineage(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.model, kubectl)
    version = _chosen_version(options, view)
    if options.output == "json":
        print_text(json.dumps(lineages.lineage_data(view, version), indent=2))
    else:
        print_answer(lineages.render_lineage(view, version))
    return 0


def card(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.model, kubectl)
    version = _chosen_version(options, view)
    text = model_card.render_card(view, version)
    if options.output == "json":
        print_text(json.dumps({"model": view.model.name, "version": version, "card": text}, indent=2))
    else:
        print_text(text, end="")
    return 0


def diff(options: Options, kubectl: KubectlClient) -> int:
    view = find_model(options.old, kubectl)
    if options.output == "json":
        print_text(json.dumps(version_diff.diff_data(view, options.old, options.new), indent=2))
    else:
        print_text(version_diff.render_diff(view, options.old, options.new))
    return 0
