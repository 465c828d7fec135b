"""Output of the plugin. Texts of objects are untrusted, and must not control the reader's terminal."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")

# Control characters other than tab and newline; characters that reorder or hide text, such as bidirectional marks and
# line separators.
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
"""States that are good, in progress and bad, by the number of their colour."""
_COLOURED_WORD = re.compile("|".join(rf"(?P<c{number}>\b(?:{words})\b)" for number, words in _COLOURED_WORDS.items()))
# Workflow commands of GitHub's runner: at the start of a line, and in the older form anywhere.
_WORKFLOW_COMMAND = re.compile(r"(?m)^([ \t]*):(?=:)|#(?=#\[)")
_COLOUR_CODE = re.compile(r"(\x1b\[[0-9;]*m)")


def escape_unprintable(text: str) -> str:
    """Replace each character that controls a terminal or hides others by its escape: ESC becomes `\\x1b`."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def escape_texts(value: T) -> T:
    """Escape all texts in a frozen dataclass, however deep."""
    escaped: Any = value
    if isinstance(value, str):
        # Members of an enumeration are the program's own texts.
        escaped = escape_unprintable(value) if type(value) is str else value
    elif is_dataclass(value) and not isinstance(value, type):
        escaped = replace(value, **{field.name: escape_texts(getattr(value, field.name)) for field in fields(value)})
    elif isinstance(value, tuple | list):
        escaped = type(value)(escape_texts(item) for item in value)
    elif isinstance(value, dict):
        escaped = {escape_texts(key): escape_texts(item) for key, item in value.items()}
    return escaped  # type: ignore[no-any-return]


def on_terminal() -> bool:
    """Return whether standard output is a terminal with colours enabled."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colour_states(text: str) -> str:
    """Colour the states in a printable text."""
    return _COLOURED_WORD.sub(lambda match: f"\x1b[{str(match.lastgroup)[1:]}m{match[0]}\x1b[0m", text)


def print_answer(text: str) -> None:
    """Print a result, with colours on a terminal."""
    if on_terminal():
        print_text(colour_states(escape_unprintable(text)), colours=True)
    else:
        print_text(text)


def escape_workflow_commands(text: str) -> str:
    """Escape what GitHub's runner takes for a command, in a form that JSON allows: `::` becomes `\\u003a:`."""
    return _WORKFLOW_COMMAND.sub(lambda match: "\\u0023" if match[1] is None else f"{match[1]}\\u003a", text)


def print_text(
    text: str = "",
    *,
    end: str = "\n",
    error: bool = False,
    before: str = "",
    colours: bool = False,
    commands: bool = False,
) -> None:
    """Print a text with unprintable characters escaped.

    `before` is the program's own text, printed unchanged. `colours`: keep colour codes, in a text whose parts
    were escaped before. `commands`: keep workflow commands of GitHub's runner.
    """
    if colours:
        shown = "".join(
            part if _COLOUR_CODE.fullmatch(part) else escape_unprintable(part) for part in _COLOUR_CODE.split(text)
        )
    else:
        shown = escape_unprintable(text)
    if not commands and os.environ.get("GITHUB_ACTIONS") == "true":
        shown = escape_workflow_commands(shown)
    print(before + shown, end=end, file=sys.stderr if error else sys.stdout, flush=True)
