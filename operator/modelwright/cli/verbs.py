"""The verbs of `kubectl modelwright`: names, arguments, options and help. Importing this module costs little; what a
verb does is imported when it is called.

To add one, write a function below: its name and docstring are the verb and its help, its parameters the arguments and
options. `@verb("module:function")` names the handler, `function(options, cluster) -> exit code`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

COMMANDS: Final[Mapping[str, str]] = {
    "pause": "stop where it is; what turns bad still rolls back",
    "resume": "go on, in a freeze window too, which is recorded",
    "promote": "go to the end without further evidence, which is recorded",
    "abort": "go back to what served, at once",
    "retry": "try a revision again that was rolled back or aborted",
    "release": "end the hold of a rollback",
}
"""What the operator is asked to do with a rollout, by `spec.command` of its record."""
PICTURES: Final = (".svg", ".png")
"""How the name of a picture's file may end."""

DRAFTS: Final = ("model", "version", "policy", "retraining")
"""What `new` prints."""

READING, WRITING, FILES = "Show", "Act", "Files and projects"
"""Groups of verbs in the help."""
_HANDLERS: Final = "modelwright.cli.commands"


@dataclass(frozen=True)
class Verb:
    """A verb as it is declared. `needs`: which rights, in words, for who is refused."""

    name: str
    text: str
    group: str
    handler: str
    needs: str
    declaration: Callable[..., None]

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Its arguments and options, those of kubectl included."""
        yield from inspect.signature(self.declaration).parameters.values()
        yield from _OF_KUBECTL


VERBS: Final[dict[str, Verb]] = {}
"""Every verb by name, in the order of the help."""


def verb(
    handler: str, *, group: str = READING, needs: str = "the role modelwright-view", name: str = "", text: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a declaration. `handler` is `module:function`; a module without dots is one of `commands`."""
    place = handler if "." in handler.partition(":")[0] else f"{_HANDLERS}.{handler}"

    def register(declaration: Callable[..., None]) -> Callable[..., None]:
        known = name or declaration.__name__.strip("_").replace("_", "-")
        VERBS[known] = Verb(known, text or inspect.getdoc(declaration) or "", group, place, needs, declaration)
        return declaration

    return register


def _duration(text: str | float) -> float:
    if not isinstance(text, str):
        return text
    from modelwright.api.common import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _one_of(*choices: str) -> Callable[[str], str]:
    def chosen(text: str) -> str:
        if text in choices:
            return text
        raise typer.BadParameter(_not_one_of(text, choices))

    return chosen


def _not_one_of(text: str, choices: tuple[str, ...]) -> str:
    import difflib

    near = difflib.get_close_matches(text, choices, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f'"{text}" is not one of {", ".join(choices)}.{meant}'


def _picture(text: str) -> str:
    if text != "json" and not text.endswith(PICTURES):
        raise typer.BadParameter(f'"{text}" must end with {" or ".join(PICTURES)}, or be json')
    return text


def _project(text: str) -> str:
    from modelwright.cli.imports.run import registry

    return _one_of(*registry())(text)


def _option(*names: str, text: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=False, **more)


def _answer(*more: str) -> Any:
    forms = ("text", "json", *more)
    return _option("-o", "--output", text="form of the answer", metavar=f"[{'|'.join(forms)}]", parser=_one_of(*forms))


Named = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", show_default=False, help="Model, or anything of it: a version, rollout, run, policy or pod"
    ),
]
Output = Annotated[str, _answer()]
Reason = Annotated[str, _option("--reason", text="why; it stands in the record, with your name", metavar="TEXT")]
Rollout = Annotated[str | None, _option("--rollout", text="an earlier rollout (default: the newest)", metavar="NAME")]
Wait = Annotated[bool, _option("--wait", text="until it has ended: exit code 0 as asked for, 1 otherwise")]
Timeout = Annotated[
    float,
    _option("--timeout", text="of --wait; then the exit code is 2 (default: 10m)", metavar="TIME", parser=_duration),
]
OfVersion = Annotated[
    str | None,
    _option("--version", text="default: the named version, else the one that serves", metavar="NAME"),
]
_OF_KUBECTL: Final = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option])
    for name, option in {
        "namespace": _option("-n", "--namespace", text="namespace (default: that of the context)", metavar="NAME"),
        "context": _option("--context", text="context of the kubeconfig", metavar="NAME"),
        "kubeconfig": _option("--kubeconfig", text="kubeconfig file", metavar="FILE"),
    }.items()
)


@verb("about:version", needs="")
def version(
    client: Annotated[bool, _option("--client", text="of this program only: no cluster is asked")] = False,
    output: Output = "text",
) -> None:
    """versions of this program, operator, CRDs and images"""


@verb("show:list_")
def list_(
    all_namespaces: Annotated[bool, _option("-A", "--all-namespaces", text="those of all namespaces")] = False,
    output: Output = "text",
) -> None:
    """every Model: version, share of the requests, why not ready"""


@verb("show:status")
def status(
    model: Named,
    watch: Annotated[bool, _option("--watch", text="show it again whenever it has changed")] = False,
    wait: Annotated[bool, _option("--wait", text="until it is promoted (exit code 0) or has failed (1)")] = False,
    timeout: Annotated[
        float,
        _option(
            "--timeout", text="of --wait; after it the exit code is 2 (default: 10m)", metavar="TIME", parser=_duration
        ),
    ] = 600.0,
    output: Output = "text",
) -> None:
    """a Model as a tree: traffic, rollout, versions, retraining"""


@verb("show:history")
def history(model: Named, output: Output = "text") -> None:
    """every rollout that there is a record of"""


@verb("show:why")
def why(model: Named, rollout: Rollout = None, output: Output = "text") -> None:
    """what was decided, by what evidence, and what can be done now"""


@verb("show:timeline")
def timeline(model: Named, output: Output = "text") -> None:
    """what happened, in order, from records and Events"""


@verb("requests:logs")
def logs(
    model: Named,
    version: Annotated[str | None, _option("--version", text="its pods only (default: all)", metavar="NAME")] = None,
    follow: Annotated[bool, _option("-f", "--follow", text="go on as lines come")] = False,
    tail: Annotated[int, _option("--tail", text="lines of each pod (default: 100; -1 for all)", metavar="N")] = 100,
    previous: Annotated[bool, _option("--previous", text="of the containers before the last restart")] = False,
    output: Output = "text",
) -> None:
    """logs of its model containers"""


@verb("requests:predict")
def predict(
    model: Named,
    file: Annotated[
        str | None,
        _option("-f", "--file", text="body of the request, JSON; - is standard input", metavar="FILE"),
    ] = None,
    sample: Annotated[bool, _option("--sample", text="send the version's first sample (the default)")] = False,
    version: Annotated[
        str | None, _option("--version", text="a version that runs (default: what serves)", metavar="NAME")
    ] = None,
    path: Annotated[
        str | None, _option("--path", text="default: by the protocol of its runtime", metavar="PATH")
    ] = None,
    output: Output = "text",
) -> None:
    """send one request to a version, and print the answer"""


@verb("show:plot")
def plot(
    model: Named,
    rollout: Annotated[
        str | None,
        _option("--rollout", text="an earlier rollout (default: the named one, else the newest)", metavar="NAME"),
    ] = None,
    output: Annotated[
        str | None,
        _option(
            "-o", "--output", metavar="FILE", parser=_picture,
            text=f"a picture ({' or '.join(PICTURES)}), or json for the numbers (default: in the terminal)",
        ),
    ] = None,
    terminal: Annotated[bool, _option("--terminal", text="in the terminal too, when -o names a file")] = False,
) -> None:  # fmt: skip
    """draw a rollout: weights over time, intervals and limits"""


@verb("modelwright.cli.doctor.command:run")
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="a Model, or anything of it (default: all of the namespace given by -n, else of the cluster)",
        ),
    ] = None,
    output: Output = "text",
) -> None:
    """find what is wrong, with the cure; exit code 1 with a fault"""


@verb("about:explain", needs="")
def explain(
    reason: Annotated[
        str | None,
        typer.Argument(metavar="[REASON]", show_default=False, help="of a condition, failure or event (default: all)"),
    ] = None,
    output: Output = "text",
) -> None:
    """what a reason means, such as WaitingForPods"""


@verb("show:lineage")
def lineage(model: Named, version: OfVersion = None, output: Output = "text") -> None:
    """a version back to data and code, and on to where it serves"""


@verb("show:card")
def card(model: Named, version: OfVersion = None, output: Output = "text") -> None:
    """a model card in Markdown, made from facts"""


@verb("show:diff")
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", show_default=False, help="a version")],
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="the other version")],
    output: Output = "text",
) -> None:
    """what differs between two versions"""


def _command(model: Named, reason: Reason, output: Output = "text") -> None: ...


def _command_that_ends(
    model: Named, reason: Reason, wait: Wait = False, timeout: Timeout = 600.0, output: Output = "text"
) -> None: ...


for _name, _text in COMMANDS.items():
    verb("write:command", group=WRITING, needs="the role modelwright-command", name=_name, text=_text)(
        _command if _name in ("pause", "retry", "release") else _command_that_ends
    )


@verb("write:rollback", group=WRITING, needs="the role modelwright-command")
def rollback(
    model: Named,
    reason: Reason,
    to: Annotated[str | None, _option("--to", text="default: what served before", metavar="VERSION")] = None,
    wait: Wait = False,
    timeout: Timeout = 600.0,
    output: Output = "text",
) -> None:
    """go back at once to a version that has served, and stay there"""


def _decision(
    model: Named,
    reason: Reason,
    hash: Annotated[
        str | None,
        _option("--hash", text="content hash of what you have seen (default: ask, showing it)", metavar="HASH"),
    ] = None,
    expires: Annotated[
        float | None,
        _option(
            "--expires", text="for how long it holds, such as 48h (default: for good)", metavar="TIME", parser=_duration
        ),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 600.0,
    output: Output = "text",
) -> None: ...


for _name, _text in (
    ("approve", "say yes to what a rollout moves to"),
    ("reject", "say no, which ends the rollout"),
):
    verb("write:decide", group=WRITING, needs="the role modelwright-approve", name=_name, text=_text)(_decision)


@verb("write:retrain", group=WRITING, needs="the roles modelwright-view and modelwright-edit")
def retrain(
    model: Named,
    reason: Reason,
    policy: Annotated[
        str | None, _option("--policy", text="RetrainingPolicy, where the Model has several", metavar="NAME")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 600.0,
    output: Output = "text",
) -> None:
    """ask for a training run"""


@verb("write:set_version", group=WRITING, needs="the roles modelwright-view and modelwright-edit")
def set_version(
    model: Named,
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help="a ModelVersion of the Model")],
    wait: Wait = False,
    timeout: Timeout = 600.0,
    output: Output = "text",
) -> None:
    """let a Model serve another version, by its policy"""


@verb("write:run", group=WRITING, needs="the roles modelwright-view and modelwright-edit")
def run(
    action: Annotated[
        str, typer.Argument(metavar="cancel", show_default=False, parser=_one_of("cancel"), help="what to do")
    ],
    name: Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="a TrainingRun")],
    output: Output = "text",
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
    offline: Annotated[bool, _option("--offline", text="don't ask the server for a dry run")] = False,
    output: Annotated[str, _answer("github", "sarif")] = "text",
) -> None:
    """check manifests before they are applied"""


@verb("files:new", group=FILES, needs="")
def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar=f"[{'|'.join(DRAFTS)}]", show_default=False, parser=_one_of(*DRAFTS), help="of which kind"
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="[NAME]", show_default=False, help="default: example")] = "example",
    model: Annotated[
        str | None,
        _option("--model", text="Model that a version or retraining is of (default: by NAME)", metavar="NAME"),
    ] = None,
    output: Output = "text",
) -> None:
    """print a manifest to edit, each field with what it means"""


@verb("files:import_", group=FILES, needs="")
def import_(
    source: Annotated[str, typer.Argument(metavar="PROJECT", show_default=False, parser=_project, help="the project")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            show_default=False,
            help="objects of the namespace, or YAML files or folders; - is standard input "
            "(default: all of the namespace)",
        ),
    ] = None,
    gateway: Annotated[str, _option("--gateway", text="Gateway of the endpoints", metavar="NAMESPACE/NAME")] = "",
    domain: Annotated[str, _option("--domain", text="hostnames are <name>.<domain>", metavar="DOMAIN")] = "",
    output: Output = "text",
) -> None:
    """turn objects of other projects into ours"""
