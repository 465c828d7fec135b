"""The verbs of `kubectl modelwright`: names, arguments, options and help. Importing this module is cheap; handlers are
imported when a verb is called.

To add a verb, write a function below: its name and docstring are the verb and its help, its parameters the arguments
and options. `@verb("module:function")` names the handler, `function(options, kubectl) -> exit code`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

ROLLOUT_COMMANDS: Final[Mapping[str, str]] = {
    "pause": "pause the rollout; bad evidence still rolls it back",
    "resume": "resume, also in a freeze window (recorded)",
    "promote": "promote without further evidence (recorded)",
    "abort": "roll back to the serving version at once",
    "retry": "retry a revision that was rolled back or aborted",
    "release": "unpin a Model after a manual rollback",
}
"""Commands for the operator about a rollout, written to `spec.command` of its record."""
IMAGE_SUFFIXES: Final = (".svg", ".png")
"""File extensions of a plot's image."""

DRAFT_KINDS: Final = ("model", "version", "policy", "retraining")
"""Kinds of manifest that `new` prints."""

READING, WRITING, FILES = "Show", "Act", "Files and projects"
"""Groups of verbs in the help."""
_HANDLERS: Final = "modelwright.cli.commands"


@dataclass(frozen=True)
class Verb:
    """The declaration of a verb. `needs` describes the required rights, for a user who is refused."""

    name: str
    text: str
    group: str
    handler: str
    needs: str
    declaration: Callable[..., None]

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yield its arguments and options, including those of kubectl."""
        yield from inspect.signature(self.declaration).parameters.values()
        yield from _KUBECTL_OPTIONS


VERBS: Final[dict[str, Verb]] = {}
"""Every verb by name, in the order of the help."""


def verb(
    handler: str, *, group: str = READING, needs: str = "the role modelwright-view", name: str = "", text: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a declaration. `handler` is `module:function`; a module without dots is in `commands`."""
    place = handler if "." in handler.partition(":")[0] else f"{_HANDLERS}.{handler}"

    def register(declaration: Callable[..., None]) -> Callable[..., None]:
        verb_name = name or declaration.__name__.strip("_").replace("_", "-")
        VERBS[verb_name] = Verb(verb_name, text or inspect.getdoc(declaration) or "", group, place, needs, declaration)
        return declaration

    return register


def _parse_duration(text: str | float) -> float:
    if not isinstance(text, str):
        return text
    from modelwright.api.common import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _choice_parser(*choices: str) -> Callable[[str], str]:
    def chosen(text: str) -> str:
        if text in choices:
            return text
        raise typer.BadParameter(_choice_error(text, choices))

    return chosen


def _choice_error(text: str, choices: tuple[str, ...]) -> str:
    import difflib

    near = difflib.get_close_matches(text, choices, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f'"{text}" is not one of {", ".join(choices)}.{meant}'


def _parse_plot_output(text: str) -> str:
    if text != "json" and not text.endswith(IMAGE_SUFFIXES):
        raise typer.BadParameter(f'"{text}" must end with {" or ".join(IMAGE_SUFFIXES)}, or be json')
    return text


def _parse_project(text: str) -> str:
    from modelwright.cli.imports.importer import load_providers

    return _choice_parser(*load_providers())(text)


def _build_option(*names: str, text: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=False, **more)


def _output_option(*more: str) -> Any:
    forms = ("text", "json", *more)
    return _build_option(
        "-o", "--output", text="form of the answer", metavar=f"[{'|'.join(forms)}]", parser=_choice_parser(*forms)
    )


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", show_default=False, help="a Model, or one of its versions, rollouts, runs, policies or pods"
    ),
]
OutputOption = Annotated[str, _output_option()]
ReasonOption = Annotated[str, _build_option("--reason", text="why; recorded with your name", metavar="TEXT")]
RolloutOption = Annotated[
    str | None, _build_option("--rollout", text="an earlier rollout (default: the newest)", metavar="NAME")
]
WaitOption = Annotated[bool, _build_option("--wait", text="wait for the end: exit code 0 for success, else 1")]
TimeoutOption = Annotated[
    float,
    _build_option(
        "--timeout", text="of --wait; then the exit code is 2 (default: 10m)", metavar="TIME", parser=_parse_duration
    ),
]
VersionOption = Annotated[
    str | None,
    _build_option("--version", text="default: the named version, else the one that serves", metavar="NAME"),
]
_KUBECTL_OPTIONS: Final = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option])
    for name, option in {
        "namespace": _build_option(
            "-n", "--namespace", text="namespace (default: that of the context)", metavar="NAME"
        ),
        "context": _build_option("--context", text="context of the kubeconfig", metavar="NAME"),
        "kubeconfig": _build_option("--kubeconfig", text="kubeconfig file", metavar="FILE"),
    }.items()
)


@verb("about:version", needs="")
def version(
    client: Annotated[bool, _build_option("--client", text="of this program only, without a cluster")] = False,
    output: OutputOption = "text",
) -> None:
    """versions of this program, operator, CRDs and images"""


@verb("show:list_")
def list_(
    all_namespaces: Annotated[bool, _build_option("-A", "--all-namespaces", text="those of all namespaces")] = False,
    output: OutputOption = "text",
) -> None:
    """all Models: version, traffic weight, why not ready"""


@verb("show:status")
def status(
    model: ModelArgument,
    watch: Annotated[bool, _build_option("--watch", text="update the output on every change")] = False,
    wait: Annotated[bool, _build_option("--wait", text="wait until promoted (exit code 0) or failed (1)")] = False,
    timeout: Annotated[
        float,
        _build_option(
            "--timeout",
            text="of --wait; after it the exit code is 2 (default: 10m)",
            metavar="TIME",
            parser=_parse_duration,
        ),
    ] = 600.0,
    output: OutputOption = "text",
) -> None:
    """a Model as a tree: traffic, rollout, versions, retraining"""


@verb("show:history")
def history(model: ModelArgument, output: OutputOption = "text") -> None:
    """all recorded rollouts"""


@verb("show:why")
def why(model: ModelArgument, rollout: RolloutOption = None, output: OutputOption = "text") -> None:
    """the decision, its evidence, and possible next actions"""


@verb("show:timeline")
def timeline(model: ModelArgument, output: OutputOption = "text") -> None:
    """history in order, from records and Events"""


@verb("requests:logs")
def logs(
    model: ModelArgument,
    version: Annotated[
        str | None, _build_option("--version", text="its pods only (default: all)", metavar="NAME")
    ] = None,
    follow: Annotated[bool, _build_option("-f", "--follow", text="follow new lines")] = False,
    tail: Annotated[
        int, _build_option("--tail", text="lines of each pod (default: 100; -1 for all)", metavar="N")
    ] = 100,
    previous: Annotated[bool, _build_option("--previous", text="of the containers before the last restart")] = False,
    output: OutputOption = "text",
) -> None:
    """logs of its model containers"""


@verb("requests:predict")
def predict(
    model: ModelArgument,
    file: Annotated[
        str | None,
        _build_option("-f", "--file", text="body of the request, JSON; - is standard input", metavar="FILE"),
    ] = None,
    sample: Annotated[bool, _build_option("--sample", text="send the version's first sample (the default)")] = False,
    version: Annotated[
        str | None, _build_option("--version", text="a version that runs (default: what serves)", metavar="NAME")
    ] = None,
    path: Annotated[
        str | None, _build_option("--path", text="default: by the protocol of its runtime", metavar="PATH")
    ] = None,
    output: OutputOption = "text",
) -> None:
    """send one request to a version, and print the response"""


@verb("show:plot")
def plot(
    model: ModelArgument,
    rollout: Annotated[
        str | None,
        _build_option("--rollout", text="an earlier rollout (default: the named one, else the newest)", metavar="NAME"),
    ] = None,
    output: Annotated[
        str | None,
        _build_option(
            "-o",
            "--output",
            metavar="FILE",
            parser=_parse_plot_output,
            text=f"an image ({' or '.join(IMAGE_SUFFIXES)}), or json for the numbers (default: in the terminal)",
        ),
    ] = None,
    terminal: Annotated[bool, _build_option("--terminal", text="in the terminal too, when -o names a file")] = False,
) -> None:
    """draw a rollout: weights over time, intervals and limits"""


@verb("modelwright.cli.doctor.run_doctor:run_doctor")
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="a Model, or one of its objects (default: all of the namespace given by -n, else of the cluster)",
        ),
    ] = None,
    output: OutputOption = "text",
) -> None:
    """diagnose problems, with cures; exit code 1 with a fault"""


@verb("about:explain", needs="")
def explain(
    reason: Annotated[
        str | None,
        typer.Argument(metavar="[REASON]", show_default=False, help="of a condition, failure or event (default: all)"),
    ] = None,
    output: OutputOption = "text",
) -> None:
    """the meaning of a reason, such as WaitingForPods"""


@verb("show:lineage")
def lineage(model: ModelArgument, version: VersionOption = None, output: OutputOption = "text") -> None:
    """data, code and parents of a version, and where it serves"""


@verb("show:card")
def card(model: ModelArgument, version: VersionOption = None, output: OutputOption = "text") -> None:
    """a model card in Markdown, made from facts"""


@verb("show:diff")
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", show_default=False, help="a version")],
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="the other version")],
    output: OutputOption = "text",
) -> None:
    """differences between two versions"""


def _command(model: ModelArgument, reason: ReasonOption, output: OutputOption = "text") -> None: ...


def _command_that_ends(
    model: ModelArgument,
    reason: ReasonOption,
    wait: WaitOption = False,
    timeout: TimeoutOption = 600.0,
    output: OutputOption = "text",
) -> None: ...


for _name, _text in ROLLOUT_COMMANDS.items():
    verb("write:command", group=WRITING, needs="the role modelwright-command", name=_name, text=_text)(
        _command if _name in ("pause", "retry", "release") else _command_that_ends
    )


@verb("write:rollback", group=WRITING, needs="the role modelwright-command")
def rollback(
    model: ModelArgument,
    reason: ReasonOption,
    to: Annotated[str | None, _build_option("--to", text="default: what served before", metavar="VERSION")] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = 600.0,
    output: OutputOption = "text",
) -> None:
    """roll back at once to an earlier version, and pin it"""


def _decision(
    model: ModelArgument,
    reason: ReasonOption,
    hash: Annotated[
        str | None,
        _build_option("--hash", text="content hash that you reviewed (default: show it and ask)", metavar="HASH"),
    ] = None,
    expires: Annotated[
        float | None,
        _build_option(
            "--expires",
            text="validity, such as 48h (default: without expiry)",
            metavar="TIME",
            parser=_parse_duration,
        ),
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = 600.0,
    output: OutputOption = "text",
) -> None: ...


for _name, _text in (
    ("approve", "approve the candidate of a rollout"),
    ("reject", "reject the candidate, which ends the rollout"),
):
    verb("write:decide", group=WRITING, needs="the role modelwright-approve", name=_name, text=_text)(_decision)


@verb("write:retrain", group=WRITING, needs="the roles modelwright-view and modelwright-edit")
def retrain(
    model: ModelArgument,
    reason: ReasonOption,
    policy: Annotated[
        str | None, _build_option("--policy", text="RetrainingPolicy, where the Model has several", metavar="NAME")
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = 600.0,
    output: OutputOption = "text",
) -> None:
    """start a training run"""


@verb("write:set_version", group=WRITING, needs="the roles modelwright-view and modelwright-edit")
def set_version(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help="a ModelVersion of the Model")],
    wait: WaitOption = False,
    timeout: TimeoutOption = 600.0,
    output: OutputOption = "text",
) -> None:
    """move a Model to another version, by its policy"""


@verb("write:run", group=WRITING, needs="the roles modelwright-view and modelwright-edit")
def run(
    action: Annotated[
        str, typer.Argument(metavar="cancel", show_default=False, parser=_choice_parser("cancel"), help="what to do")
    ],
    name: Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="a TrainingRun")],
    output: OutputOption = "text",
) -> None:
    """cancel a training run: it is deleted with its pods"""


@verb("files:lint", group=FILES)
def lint(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            show_default=False,
            help="YAML files, folders of them or of a kustomization; - is standard input",
        ),
    ],
    offline: Annotated[bool, _build_option("--offline", text="don't ask the server for a dry run")] = False,
    output: Annotated[str, _output_option("github", "sarif")] = "text",
) -> None:
    """check manifests before they are applied"""


@verb("files:new", group=FILES, needs="")
def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar=f"[{'|'.join(DRAFT_KINDS)}]",
            show_default=False,
            parser=_choice_parser(*DRAFT_KINDS),
            help="of which kind",
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="[NAME]", show_default=False, help="default: example")] = "example",
    model: Annotated[
        str | None,
        _build_option("--model", text="Model that a version or retraining is of (default: by NAME)", metavar="NAME"),
    ] = None,
    output: OutputOption = "text",
) -> None:
    """print a manifest to edit, with descriptions of its fields"""


@verb("files:import_", group=FILES, needs="")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="PROJECT", show_default=False, parser=_parse_project, help="the project")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            show_default=False,
            help="objects of the namespace, or YAML files or folders; - is standard input "
            "(default: all of the namespace)",
        ),
    ] = None,
    gateway: Annotated[str, _build_option("--gateway", text="Gateway of the endpoints", metavar="NAMESPACE/NAME")] = "",
    domain: Annotated[str, _build_option("--domain", text="hostnames are <name>.<domain>", metavar="DOMAIN")] = "",
    output: OutputOption = "text",
) -> None:
    """convert objects of other projects"""
