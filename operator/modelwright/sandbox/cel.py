"""Evaluates CEL expressions over an object of another controller. Runs in the sandbox's process.

A question is {"expressions": [...], "object": {...}}, or {"check": [...]}; an answer a list of {"value"} or {"error"}.
cel-expr-python is Google's own runtime for CEL: it parses to a depth of 32, and its loops end after 10,000 steps. It
bounds neither memory nor the time of a step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cel_expr_python import cel

_VALUE_BYTES = 64 << 10
_ENVIRONMENT = cel.NewEnv(variables={"object": cel.Type.DYN})


def answer_question(question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answer one question, in the order of its expressions."""
    if "check" in question:
        return [_check_expression(expression) for expression in question["check"]]
    return [_evaluate_expression(expression, question["object"]) for expression in question["expressions"]]


def _check_expression(expression: str) -> dict[str, Any]:
    try:
        _ENVIRONMENT.compile(expression)
    except (RuntimeError, ValueError, TypeError) as error:
        return {"error": _format_error(error)}
    return {"value": None}


def _evaluate_expression(expression: str, live: Mapping[str, Any]) -> dict[str, Any]:
    try:
        value = _ENVIRONMENT.compile(expression).eval(data={"object": live})
        if value.type() == cel.Type.ERROR:
            return {"error": _format_error(value.value())}
        result = _to_json(value.plain_value())
        size = len(json.dumps(result).encode())
    except MemoryError:
        return {"error": "it needs more memory than it may have"}
    except (RuntimeError, ValueError, TypeError) as error:
        return {"error": _format_error(error)}
    if size > _VALUE_BYTES:
        return {"error": f"its value takes {size} bytes as JSON, more than {_VALUE_BYTES}"}
    return {"value": result}


def _to_json(value: Any) -> Any:
    """Convert `value` to JSON's types; raises ValueError for one that JSON lacks."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"it gives {value}, which is no finite number")
        return value
    if isinstance(value, Mapping):
        return {str(key): _to_json(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(member) for member in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    raise ValueError(f"it gives a {type(value).__name__}, which JSON has no form for")


def _format_error(error: object) -> str:
    """Format the library's message in one line, without its excerpt of the expression and its own codes."""
    text = str(error).partition("\n")[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ")
    return text.strip()[:300]
