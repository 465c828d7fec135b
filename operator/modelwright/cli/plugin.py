"""`kubectl modelwright`: looks at Models and what was decided about them, and acts, with the rights of its user."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from modelwright.api.common import InvalidObject, seconds
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.cli import acts, facts, kustomization, plot, reports, source, tree
from modelwright.cli import lint as linting
from modelwright.cli import why as words
from modelwright.cli.cluster import Cluster, ClusterError, Forbidden, NoSuchResource
from modelwright.cli.course import course
from modelwright.cli.doctor import command as doctor
from modelwright.cli.imports import run as imports
from modelwright.cli.imports.documents import Imported, Options, Provider
from modelwright.cli.picture import NotThere, Picture, model_of, picture, result
from modelwright.cli.printing import cleaned, printable, say

PROMOTED, FAILED, TIMED_OUT = 0, 1, 2
"""Exit codes, as `status --wait` has them; FAILED is also that of everything that could not be done."""
LOOK_EVERY = 1.0
TAKEN_UP_WITHIN = 15.0
"""Seconds that a command is waited for, to say what became of it."""

_NEEDS: Final = {
    **dict.fromkeys(("approve", "reject"), "the role modelwright-approve"),
    **dict.fromkeys((*acts.COMMANDS, "rollback"), "the role modelwright-command"),
    "retrain": "the roles modelwright-view and modelwright-edit",
}
"""Of rights, by command; the others only look."""


class NotYaml(Exception):
    """A file that is no YAML; the text says which, and why."""


Run = Callable[[argparse.Namespace, Cluster], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    flags = [
        f"--{name}={value}" for name in ("kubeconfig", "context", "namespace") if (value := getattr(options, name))
    ]
    try:
        run: Run = options.run
        return run(options, Cluster(tuple(flags)))
    except Forbidden as error:
        needs = _NEEDS.get(options.command, "the role modelwright-view")
        if options.command == "import":
            needs = f"get and list on {', '.join(imports.registry()[options.source].resources)}"
        say(f"error: {error}\n{options.command} needs {needs}, or the same rights by another", error=True)
        return FAILED
    except (ClusterError, NotThere, InvalidObject, acts.CannotAct, NotYaml, plot.NotInstalled) as error:
        say(f"error: {error}", error=True)
        return FAILED
    except OSError as error:
        say(f"error: {error.filename or ''}: {error.strerror or error}", error=True)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-n", "--namespace", help="namespace (default: that of the context)")
    common.add_argument("--context", help="context of the kubeconfig")
    common.add_argument("--kubeconfig", help="kubeconfig file")
    parser = argparse.ArgumentParser(prog="kubectl modelwright", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Run, text: str, what: str = "model") -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text, parents=[common])
        if what:
            told = "Model, or anything of it: a version, rollout, run, policy or pod"
            found.add_argument(what, metavar=what.upper(), help=told if what == "model" else None)
        found.set_defaults(run=run)
        return found

    status = add("status", _status, "a Model as a tree: traffic, pods, rollout with its evidence, versions, retraining")
    status.add_argument("--watch", action="store_true", help="show it again whenever it has changed")
    status.add_argument("--wait", action="store_true", help="until it is promoted (exit code 0) or has failed (1)")
    status.add_argument(
        "--timeout",
        type=_duration,
        default="10m",
        metavar="TIME",
        help="of --wait; then the exit code is 2 (default: 10m)",
    )
    _output(status)
    _output(add("history", _history, "every rollout that there is a record of"))
    why = add("why", _why, "what was decided, by what evidence, and what can be done now")
    why.add_argument("--rollout", metavar="NAME", help="an earlier rollout (default: the newest)")
    _output(why)
    drawn = add("plot", _plot, "draw a rollout's weights over time, and the intervals that its metrics were judged by")
    drawn.add_argument("--rollout", metavar="NAME", help="an earlier rollout (default: the named one, else the newest)")
    drawn.add_argument(
        "-o",
        "--output",
        type=_drawn,
        metavar="FILE",
        help=f"a picture ({' or '.join(plot.FORMATS)}), or json for the numbers (default: in the terminal)",
    )
    drawn.add_argument("--terminal", action="store_true", help="in the terminal too, when -o names a file")
    for name, text in acts.COMMANDS.items():
        _reason(add(name, _command, text))
    rollback = add("rollback", _rollback, "go back at once to a version that has served, and stay there")
    rollback.add_argument("--to", metavar="VERSION", help="default: what served before")
    _reason(rollback)
    for name, text in (("approve", "say yes to what a rollout moves to"), ("reject", "say no, which ends the rollout")):
        decide = add(name, _decide, text)
        decide.add_argument(
            "--hash", metavar="HASH", help="content hash of what you looked at (default: ask, showing it)"
        )
        decide.add_argument(
            "--expires", type=_duration, metavar="TIME", help="for how long it holds, such as 48h (default: for good)"
        )
        _reason(decide)
    retrain = add("retrain", _retrain, "ask for a training run by hand")
    retrain.add_argument("--policy", metavar="NAME", help="RetrainingPolicy, where the Model has several")
    _reason(retrain)
    lineage = add("lineage", _lineage, "a version back to data and code, and forward to where it serves")
    lineage.add_argument("--version", metavar="NAME", help="default: the named version, else the one that serves")
    _output(lineage)
    card = add("card", _card, "a model card in Markdown, made from facts")
    card.add_argument("--version", metavar="NAME", help="default: the named version, else the one that serves")
    _output(card)
    diff = add("diff", _diff, "what differs between two versions", what="old")
    diff.add_argument("new", metavar="NEW", help="the other version")
    _output(diff)
    doctor.add_arguments(add("doctor", doctor.run, doctor.ABOUT, what=""))
    lint = add("lint", _lint, "judge manifests before they are applied", what="")
    lint.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=Path,
        help="YAML files, folders of them or of a kustomization; - is standard input",
    )
    lint.add_argument("--offline", action="store_true", help="don't ask the server for a dry run")
    _output(lint, "github", "sarif")
    other = add(
        "import", _import, "turn objects of other projects into ours, and say what of them has no place here", what=""
    )
    other.add_argument("source", choices=tuple(imports.registry()), help="the project")
    other.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="objects of the namespace, or YAML files or folders; - is standard input (default: all of the namespace)",
    )
    other.add_argument("--gateway", default="", metavar="NAMESPACE/NAME", help="Gateway of the endpoints")
    other.add_argument("--domain", default="", help="hostnames are <name>.<domain>")
    _output(other)
    return parser


def subcommands() -> dict[str, dict[str, bool]]:
    """Every subcommand with its options, and whether they take a value."""
    (action,) = (each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    return {
        name: {option: each.nargs != 0 for each in parser._actions for option in each.option_strings}
        for name, parser in action.choices.items()
    }


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _output(parser: argparse.ArgumentParser, *more: str) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json", *more), default="text")


def _drawn(text: str) -> str:
    if text != "json" and Path(text).suffix not in plot.FORMATS:
        raise argparse.ArgumentTypeError(f'"{text}" must end with {" or ".join(plot.FORMATS)}, or be json')
    return text


def _reason(parser: argparse.ArgumentParser) -> None:
    """What all that write have in common."""
    _output(parser)
    parser.add_argument("--reason", required=True, help="why; it stands in the record, with your name")


def _seen(name: str, cluster: Cluster, *more: str) -> Picture:
    """The Model of this name; `more`: kinds that must be seen for what is asked."""
    objects = cluster.objects(*more)
    return picture(model_of(name, objects), objects)


def _now() -> datetime:
    return datetime.now(UTC)


def _status(options: argparse.Namespace, cluster: Cluster) -> int:
    limit = time.monotonic() + options.timeout
    shown = ""
    while True:
        seen = _seen(options.model, cluster)
        ended = result(seen)
        text = _as_json(seen) if options.output == "json" else tree.tree(seen, _now())
        over = options.wait and (ended is not None or time.monotonic() > limit)
        if (options.watch and text != shown) or (not options.watch and (over or not options.wait)):
            clear = "\033[H\033[2J" if options.watch and options.output == "text" and sys.stdout.isatty() else ""
            say(text, before=clear)
            shown = text
        if over or not (options.watch or options.wait):
            break
        time.sleep(LOOK_EVERY)
    if not options.wait:
        return PROMOTED
    if ended is None:
        say(f"error: Model {seen.model.name} is still on its way after {options.timeout:g} s", error=True)
        return TIMED_OUT
    return PROMOTED if ended == "promoted" else FAILED


def _as_json(seen: Picture) -> str:
    told: dict[str, Any] = {
        "model": seen.model.wire(),
        "versions": [version.wire() for version in seen.versions],
        "rollout": seen.rollout.wire() if seen.rollout is not None else None,
        "runs": [run.wire() for run in seen.runs],
        "pods": [{"name": p.name, "version": p.version, "ready": p.ready, "node": p.node} for p in seen.pods],
        "result": result(seen),
    }
    return json.dumps(told, indent=2)


def _history(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.model, cluster)
    if options.output == "json":
        say(json.dumps([record.wire() for record in seen.rollouts], indent=2))
    else:
        say(tree.history(seen, _now()))
    return 0


def _why(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.model, cluster)
    named = _rollout(options, seen)
    if options.output == "json":
        say(json.dumps(words.why_json(seen, _now(), named), indent=2))
    else:
        say(words.why(seen, _now(), named))
    return 0


def _rollout(options: argparse.Namespace, seen: Picture) -> str | None:
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


def _plot(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.model, cluster)
    named = _rollout(options, seen)
    record = seen.record(named) if named is not None else seen.rollout
    if record is None:
        raise NotThere(f"Model {seen.model.name} has no rollout on record, so there is nothing to draw")
    found = course(_with_policy(record, cluster), _now())
    if options.output == "json":
        say(json.dumps(found.wire(), indent=2))
        return 0
    found = cleaned(found)
    if options.output is not None:
        plot.save(found, Path(options.output))
        say(f"wrote {options.output}", error=True)
    if options.output is None or options.terminal:
        say(plot.terminal(found, colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR")), colours=True)
    return 0


def _command(options: argparse.Namespace, cluster: Cluster) -> int:
    """Write the command, and wait until the operator has said what became of it."""
    record = acts.commanded(_seen(options.model, cluster), options.command)
    token = secrets.token_hex(8)
    change = acts.command(options.command, token, cluster.whoami(), options.reason)
    cluster.patch("modelrollouts", record.name, change)
    limit = time.monotonic() + TAKEN_UP_WITHIN
    while time.monotonic() < limit:
        told = _became_of(_seen(options.model, cluster).rollouts, record.name, token)
        if told is not None:
            accepted, message = told
            text = f"{options.command} of {record.name}: {message or 'done'}"
            if options.output == "json" or accepted:
                _tell(options, text, rollout=record.name, command=options.command, accepted=accepted, message=message)
            else:
                say(text, error=True)
            return 0 if accepted else FAILED
        time.sleep(LOOK_EVERY / 2)
    say(
        f"{options.command} of {record.name} is written, and was not taken up within {TAKEN_UP_WITHIN:.0f} s: is the "
        "operator running?",
        error=True,
    )
    return TIMED_OUT


def _tell(options: argparse.Namespace, text: str, **told: Any) -> None:
    """What was done, in words or as data."""
    say(json.dumps(told, indent=2) if options.output == "json" else text)


def _became_of(rollouts: Sequence[ModelRollout], name: str, token: str) -> tuple[bool, str] | None:
    commands = (command for record in rollouts if record.name == name for command in record.status.commands)
    return next(((command.accepted, command.message) for command in commands if command.token == token), None)


def _rollback(options: argparse.Namespace, cluster: Cluster) -> int:
    body = acts.rollback(_seen(options.model, cluster), options.to, cluster.whoami(), options.reason)
    name = cluster.create(body)
    model, version = body["spec"]["modelRef"]["name"], body["spec"]["target"]["version"]
    _tell(
        options,
        f"ModelRollout {name} takes Model {model} to version {version}, and holds it there until spec.version changes "
        "or it is released",
        kind="ModelRollout", name=name, model=model, version=version,
    )  # fmt: skip
    return 0


def _decide(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.model, cluster)
    record = seen.rollout
    if record is None or not record.status.content_hash:
        raise acts.CannotAct(f"Model {seen.model.name} has no rollout that could be approved")
    looked_at = options.hash
    if looked_at is None:
        say(words.why(seen, _now(), record.name), error=options.output == "json")
        looked_at = record.status.content_hash
        if sys.stdin.isatty():
            answer = input(printable(f"\n{options.command} this (content hash {looked_at})? [y/N] "))
            if answer.strip().lower() not in ("y", "yes"):
                say("nothing was written")
                return FAILED
            record = _seen(options.model, cluster).record(record.name)
        else:
            raise acts.CannotAct(f"name what you looked at: --hash {looked_at}")
    expires = _now() + timedelta(seconds=options.expires) if options.expires else None
    word = "Approve" if options.command == "approve" else "Reject"
    name = cluster.create(acts.decision(record, word, cluster.whoami(), options.reason, expires, looked_at))
    _tell(
        options,
        f"Approval {name} says {word} to {record.name} ({looked_at}); whether it counts stands in the rollout's status",
        kind="Approval", name=name, rollout=record.name, decision=word, contentHash=looked_at,
    )  # fmt: skip
    return 0


def _retrain(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.model, cluster, "retrainingpolicies")
    body = acts.training(seen, options.policy, cluster.whoami(), options.reason)
    name = cluster.create(body)
    policy = body["spec"]["policyRef"]["name"]
    text = f"TrainingRun {name} is asked for, by RetrainingPolicy {policy}"
    _tell(options, text, kind="TrainingRun", name=name, policy=policy)
    return 0


def _version(options: argparse.Namespace, seen: Picture) -> str:
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


def _lineage(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.model, cluster)
    version = _version(options, seen)
    if options.output == "json":
        say(json.dumps(facts.lineage_json(seen, version), indent=2))
    else:
        say(facts.lineage(seen, version))
    return 0


def _card(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.model, cluster)
    version = _version(options, seen)
    card = facts.card(seen, version)
    if options.output == "json":
        say(json.dumps({"model": seen.model.name, "version": version, "card": card}, indent=2))
    else:
        say(card, end="")
    return 0


def _diff(options: argparse.Namespace, cluster: Cluster) -> int:
    seen = _seen(options.old, cluster)
    if options.output == "json":
        say(json.dumps(facts.diff_json(seen, options.old, options.new), indent=2))
    else:
        say(facts.diff(seen, options.old, options.new))
    return 0


def _lint(options: argparse.Namespace, cluster: Cluster) -> int:
    files = [file for given in options.files for file in _manifests(given, cluster)]
    dry_run = None if options.offline else cluster.dry_run
    findings = linting.lint(files, dry_run)
    wrong = sum(finding.wrong for finding in findings)
    if options.output == "json":
        told: dict[str, Any] = {"findings": [asdict(one) | {"wrong": one.wrong} for one in findings], "errors": wrong}
        say(json.dumps(told | ({"notChecked": linting.NOT_CHECKED} if options.offline else {}), indent=2))
        return FAILED if wrong else 0
    if options.output == "sarif":
        say(json.dumps(reports.sarif(findings), indent=2))
        return FAILED if wrong else 0
    if options.output == "github":
        for line in reports.github(findings):
            say(line, commands=True)
        return FAILED if wrong else 0
    for finding in findings:
        say(f"{finding.level}: {finding.where}: {finding.text}")
    if options.offline:
        say(linting.NOT_CHECKED)
    say(f"{wrong} errors" if wrong else "nothing stands against it")
    return FAILED if wrong else 0


def _import(options: argparse.Namespace, cluster: Cluster) -> int:
    """Manifests on standard output, with what has to be done as comments before each."""
    provider = imports.registry()[options.source]
    asked = Options(options.gateway, options.domain)
    found, others = imports.imported(provider, _objects(provider, options.names, cluster), asked)
    for one in found:
        say(_comments(one), error=options.output == "json")
        if options.output != "json":
            say("---\n".join(_yaml(obj) for obj in one.objects), end="---\n" if one.objects else "")
    if options.output == "json":
        objects = [obj for one in found for obj in one.objects]
        # YAML has times, which JSON hasn't.
        say(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2, default=str))
    if others:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(others.items()))
        say(f"passed over, since they are no objects of {provider.title}: {counts}", error=True)
    done = sum(bool(one.objects) or one.part for one in found)
    say(f"{done} of {len(found)} objects of {provider.title} imported", error=True)
    return 0 if found and done == len(found) else FAILED


def _comments(one: Imported) -> str:
    lines = [f"{one.kind} {one.name}", *(f"- {note}" for note in one.notes)]
    for draft in one.drafts:
        lines += ["", *_yaml(draft).splitlines(), "---"]
    # A text of the object must not end the comment that it stands in.
    return "\n".join(f"# {part}".rstrip() for line in lines for part in (line.splitlines() or [""]))


def _yaml(obj: dict[str, Any]) -> str:
    return yaml.safe_dump(obj, sort_keys=False, allow_unicode=True, width=1000)


def _objects(provider: Provider, names: Sequence[str], cluster: Cluster) -> list[Any]:
    """Objects of files and of the cluster: those that are named, else all of the provider."""
    wanted = [name for name in names if not _is_file(name)]
    found = [
        document for name in names if _is_file(name) for path in _files(Path(name)) for document in _documents(path)
    ]
    if wanted:
        told = json.loads(cluster.run("get", provider.resources[0], *wanted, "-o", "json"))
        found += told.get("items", [told])
        if provider.parts:
            listed = _listed(provider.resources[1:], cluster)
            found += [each for each in listed if provider.owns(each) and each["kind"] in provider.parts]
    elif not names:
        found += _listed(provider.resources, cluster)
    return found


def _listed(resources: Sequence[str], cluster: Cluster) -> list[Any]:
    """All objects of these resources, of which a cluster needs to have one."""
    found, missing = [], []
    for resource in resources:
        try:
            found += json.loads(cluster.run("get", resource, "-o", "json"))["items"]
        except NoSuchResource as error:
            missing.append(error)
    if resources and len(missing) == len(resources):
        raise missing[0]
    return found


def _is_file(name: str) -> bool:
    return name == "-" or name.endswith((".yaml", ".yml", ".json")) or "/" in name or Path(name).is_dir()


def _documents(path: Path) -> list[Any]:
    try:
        return [each.content for each in source.documents(path.read_text())]
    except ValueError as error:
        line = f":{error.line}" if isinstance(error, source.NotYaml) and error.line else ""
        raise NotYaml(f"{path}{line} is no YAML: {error}") from error


def _manifests(path: Path, cluster: Cluster) -> list[tuple[str, str]]:
    """(name, text) of the files at a path; of a folder with a kustomization what kubectl makes of it."""
    if kustomization.is_one(path):
        try:
            kustomization.require_local(path)
        except kustomization.NotLocal as error:
            raise NotThere(
                f"{error}, and lint fetches nothing. Where you trust it: kubectl kustomize {path} | "
                "kubectl modelwright lint -"
            ) from error
        return [(f"{path} (kustomize)", cluster.kustomize(path))]
    return [(str(file), file.read_text()) for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if str(path) == "-":
        return [Path("/dev/stdin")]
    if path.is_dir():
        return sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")])
    return [path]


if __name__ == "__main__":
    sys.exit(main())
