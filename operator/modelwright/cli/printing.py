"""What the plugin prints: texts of objects are written by others, and must not steer the reader's terminal."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")

# Control characters but tab and newline; and what reorders or hides text: bidirectional marks and separators of lines.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_COLOURED_WORDS = {
    "32": "Ready=True|Succeeded|Promoted|Pass|Serving|Ready|ready",
    "33": "Reconciling|Progressing|Holding|Gating|Promoting|AwaitingApproval|Inconclusive|Pending|Running|Candidate|"
    "NotReady|warning",
    "31": "Stalled=True|Stalled|RollingBack|RolledBack|Aborted|Failed|Fail|Error|Rejected|Quarantined|CrashLoopBackOff|"
    "Unreadable|error",
}
"""Words that stand for good, under way and bad, by the number of their colour."""
_COLOURED_WORD = re.compile("|".join(rf"(?P<c{number}>\b(?:{words})\b)" for number, words in _COLOURED_WORDS.items()))
# What GitHub's runner takes for a command: at the beginning of a line, and in the older form anywhere.
_WORKFLOW_COMMAND = re.compile(r"(?m)^([ \t]*):(?=:)|#(?=#\[)")
_COLOUR_CODE = re.compile(r"(\x1b\[[0-9;]*m)")


def escape_unprintable(text: str) -> str:
    """The text with each character that a terminal obeys, or that hides others, as an escape: ESC is `\\x1b`."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def escape_texts(value: T) -> T:
    """A frozen dataclass with all texts in it printable, however deep."""
    done: Any = value
    if isinstance(value, str):
        # Of an enumeration too: its members are the program's own.
        done = escape_unprintable(value) if type(value) is str else value
    elif is_dataclass(value) and not isinstance(value, type):
        done = replace(value, **{field.name: escape_texts(getattr(value, field.name)) for field in fields(value)})
    elif isinstance(value, tuple | list):
        done = type(value)(escape_texts(item) for item in value)
    elif isinstance(value, dict):
        done = {escape_texts(key): escape_texts(item) for key, item in value.items()}
    return done  # type: ignore[no-any-return]


def on_terminal() -> bool:
    """Whether a person reads standard output, on a terminal that shows colours and whose user wants them."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colour_states(text: str) -> str:
    """A text that is printable, with colours for words that say how things stand."""
    return _COLOURED_WORD.sub(lambda found: f"\x1b[{str(found.lastgroup)[1:]}m{found[0]}\x1b[0m", text)


def print_answer(text: str) -> None:
    """Prints an answer: with colours where a person reads it, unchanged elsewhere."""
    if on_terminal():
        print_text(colour_states(escape_unprintable(text)), colours=True)
    else:
        print_text(text)


def escape_workflow_commands(text: str) -> str:
    """The text with nothing in it that a runner of GitHub's obeys, as JSON can hold it too: `::` is `\\u003a:`."""
    return _WORKFLOW_COMMAND.sub(lambda found: "\\u0023" if found[1] is None else f"{found[1]}\\u003a", text)


def print_text(
    text: str = "",
    *,
    end: str = "\n",
    error: bool = False,
    before: str = "",
    colours: bool = False,
    commands: bool = False,
) -> None:
    """Prints a text, made printable. `before` is the program's own and stays as it is; with `colours` so do colours,
    for a text that the program has coloured and whose parts were `cleaned`. In a workflow of GitHub's nothing in it is
    a command to the runner, unless `commands` says that it is meant to be."""
    if colours:
        shown = "".join(
            part if _COLOUR_CODE.fullmatch(part) else escape_unprintable(part) for part in _COLOUR_CODE.split(text)
        )
    else:
        shown = escape_unprintable(text)
    if not commands and os.environ.get("GITHUB_ACTIONS") == "true":
        shown = escape_workflow_commands(shown)
    print(before + shown, end=end, file=sys.stderr if error else sys.stdout, flush=True)
