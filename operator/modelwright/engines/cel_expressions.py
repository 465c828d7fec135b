"""CEL expressions of a policy's author over an object of another controller; the sandbox evaluates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelwright.sandbox.process import SANDBOX, NoAnswer

ExpressionValue = Any
"""The value of an expression, as JSON has it; or NoAnswer."""

VALUE_BYTES: Final = 64 << 10
"""Longest value of an expression, as JSON."""
EXPRESSION_CHARACTERS: Final = 1024


def evaluate_expressions(expressions: Sequence[str], live: Mapping[str, Any]) -> list[ExpressionValue | NoAnswer]:
    """Evaluate each of `expressions` with `object` as the live object without metadata.managedFields.

    Blocks as `Sandbox.send_question` does.
    """
    metadata = {key: value for key, value in (live.get("metadata") or {}).items() if key != "managedFields"}
    question = {"expressions": list(expressions), "object": {**live, "metadata": metadata}}
    answer = SANDBOX.send_question("cel", question, about=list(expressions))
    if isinstance(answer, NoAnswer):
        return [answer] * len(expressions)
    return [NoAnswer(str(entry["error"])) if "error" in entry else entry["value"] for entry in answer]


def check_expressions(expressions: Sequence[str]) -> list[str | None]:
    """Check each of `expressions` for errors in its syntax, names and functions; None for a valid one.

    Blocks as `evaluate_expressions` does, once for all of them; a cached answer takes no time.
    """
    too_long = [len(text) > EXPRESSION_CHARACTERS for text in expressions]
    question = {"check": [text for text, is_long in zip(expressions, too_long, strict=True) if not is_long]}
    answer = SANDBOX.get_cached("cel", question) or SANDBOX.send_question("cel", question, keep=True)
    answers = iter([answer] * len(expressions) if isinstance(answer, NoAnswer) else answer)
    return [
        f"it has {len(text)} characters, and may have {EXPRESSION_CHARACTERS}"
        if is_long
        else _entry_problem(next(answers))
        for text, is_long in zip(expressions, too_long, strict=True)
    ]


def _entry_problem(entry: Mapping[str, Any] | NoAnswer) -> str | None:
    if isinstance(entry, NoAnswer):
        return entry.why
    return str(entry["error"]) if "error" in entry else None
