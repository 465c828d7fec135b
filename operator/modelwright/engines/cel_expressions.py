"""Expressions in CEL over an object of another controller: a policy author's, so that the sandbox evaluates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelwright.sandbox.process import SANDBOX, NoAnswer

ExpressionValue = Any
"""What an expression gives, as JSON has it; or Unknown."""

VALUE_BYTES: Final = 64 << 10
"""Longest value of an expression, as JSON."""
EXPRESSION_CHARACTERS: Final = 1024


def evaluate_expressions(expressions: Sequence[str], live: Mapping[str, Any]) -> list[ExpressionValue | NoAnswer]:
    """What each of `expressions` gives for `object`, the live object without metadata.managedFields. Blocks as
    `Sandbox.ask` does."""
    metadata = {key: value for key, value in (live.get("metadata") or {}).items() if key != "managedFields"}
    question = {"expressions": list(expressions), "object": {**live, "metadata": metadata}}
    answer = SANDBOX.send_question("cel", question, about=list(expressions))
    if isinstance(answer, NoAnswer):
        return [answer] * len(expressions)
    return [NoAnswer(str(entry["error"])) if "error" in entry else entry["value"] for entry in answer]


def check_expressions(expressions: Sequence[str]) -> list[str | None]:
    """What is wrong with each of `expressions`, whatever the object: its syntax, a name or function that doesn't exist.
    None when nothing is. Blocks as `evaluate` does, once for all of them; what is known already takes no time."""
    long = [len(text) > EXPRESSION_CHARACTERS for text in expressions]
    question = {"check": [text for text, too in zip(expressions, long, strict=True) if not too]}
    answer = SANDBOX.get_cached("cel", question) or SANDBOX.send_question("cel", question, keep=True)
    told = iter([answer] * len(expressions) if isinstance(answer, NoAnswer) else answer)
    return [
        f"it has {len(text)} characters, and may have {EXPRESSION_CHARACTERS}" if too else _entry_problem(next(told))
        for text, too in zip(expressions, long, strict=True)
    ]


def _entry_problem(entry: Mapping[str, Any] | NoAnswer) -> str | None:
    if isinstance(entry, NoAnswer):
        return entry.why
    return str(entry["error"]) if "error" in entry else None
