"""Shows Models, their rollouts and decisions, and acts on them: `kubectl modelwright`, with the rights of its user."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import typer

from modelwright.cli.printing import on_terminal, print_text
from modelwright.cli.user_error import UserError
from modelwright.cli.verbs import VERBS, Verb

if TYPE_CHECKING:
    from modelwright.cli.kubectl import KubectlClient

PROGRAM: Final = "kubectl modelwright"
FAILED, INTERRUPTED = 1, 130
Handler = Callable[[SimpleNamespace, "KubectlClient"], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code. Raises SystemExit after help, and for invalid arguments."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        words = ["version", "--client"]
    if not words or words[0] == "help":
        words = [*words[1:], "--help"]
    ended: list[int] = []
    app = _build_app([words[0]], ended.append) if words[0] in VERBS else _build_overview()
    try:
        typer.main.get_command(app).main(words, prog_name=PROGRAM)
    except SystemExit:
        if not ended:
            raise
    return ended[0]


def verb_options() -> dict[str, dict[str, bool]]:
    """List the options of every verb, and whether they take a value."""
    return {
        name: {
            option: not parameter.is_flag
            for parameter in command.params
            if parameter.param_type_name == "option"
            for option in parameter.opts
        }
        for name, command in build_commands().items()
    }


def build_commands() -> dict[str, Any]:
    """Build every verb as a parsed command: `make_context(name, arguments)` refuses unknown arguments."""
    group: Any = typer.main.get_command(_build_app(VERBS, lambda _: None))
    commands: dict[str, Any] = group.commands
    return commands


def _build_app(names: Iterable[str], end: Callable[[int], None]) -> typer.Typer:
    app = _empty_app()
    for name in names:
        verb = VERBS[name]
        app.command(name, help=verb.text, rich_help_panel=verb.group)(_build_callback(verb, end))
    return app


def _build_overview() -> typer.Typer:
    """Build all verbs without parameters: enough for the overview, in a tenth of the time."""
    app = _empty_app()
    for verb in VERBS.values():
        app.command(verb.name, help=verb.text, rich_help_panel=verb.group)(lambda: None)
    return app


def _empty_app() -> typer.Typer:
    app = typer.Typer(
        help=inspect.cleandoc(__doc__ or ""),
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if on_terminal() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # With a callback, a single verb remains a subcommand.
    app.callback()(lambda: None)
    return app


def _build_callback(verb: Verb, end: Callable[[int], None]) -> Callable[..., None]:
    """Build the function that typer calls, with the parameters of the declaration and of kubectl."""

    def call(**values: Any) -> None:
        code = _run_verb(verb, SimpleNamespace(command=verb.name, **values))
        end(code)
        raise typer.Exit(code)

    parameters = list(verb.parameters())
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _run_verb(verb: Verb, options: SimpleNamespace) -> int:
    """Run the handler and return its exit code. Errors that the user can fix are reported in one line."""
    from modelwright.cli.kubectl import ClusterUnreachable, Forbidden, KubectlClient

    flags = [
        f"--{name}={value}" for name in ("kubeconfig", "context", "namespace") if (value := getattr(options, name))
    ]
    module, _, function = verb.handler.partition(":")
    try:
        handler: Handler = getattr(importlib.import_module(module), function)
        return handler(options, KubectlClient(tuple(flags)))
    except Forbidden as error:
        needs = error.needs or verb.needs
        print_text(f"error: {error}", error=True)
        if needs:
            print_text(f"{verb.name} needs {needs}, or the same rights from another role", error=True)
    except ClusterUnreachable as error:
        text = " ".join(str(error).split())
        print_text(
            f"error: no cluster responds: {text} (see `kubectl config get-contexts`, --context, --kubeconfig)",
            error=True,
        )
    except UserError as error:
        print_text(f"error: {error}", error=True)
    except OSError as error:
        print_text(f"error: {error.filename or ''}: {error.strerror or error}", error=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ValueError as error:
        from modelwright.api.common import InvalidObject

        if not isinstance(error, InvalidObject):
            raise
        print_text(f"error: {error}", error=True)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
