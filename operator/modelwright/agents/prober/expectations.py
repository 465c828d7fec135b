"""Checks whether an answer contains what a sample expects."""

from __future__ import annotations

import json
import math
from typing import Any

RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-6
_MAX_SHOWN = 120


def find_difference(expected: Any, actual: Any, path: str = "") -> str | None:
    """Describe the first difference, with its path; None if `actual` contains all of `expected`.

    Objects may have more members than expected, lists must have the same length; numbers agree to one part in a
    thousand, or within 0.000001.
    """
    where = path or "the answer"
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return f"{where} is {_format_value(actual)}, not an object"
        for key, value in expected.items():
            inner = f"{path}.{key}" if path else str(key)
            if key not in actual:
                return f"{inner} is missing"
            if inner_difference := find_difference(value, actual[key], inner):
                return inner_difference
        return None
    if isinstance(expected, list):
        if not isinstance(actual, list):
            return f"{where} is {_format_value(actual)}, not a list"
        if len(expected) != len(actual):
            return f"{where} has {len(actual)} entries, not {len(expected)}"
        pairs = enumerate(zip(expected, actual, strict=True))
        return next(
            (
                inner_difference
                for i, (left, right) in pairs
                if (inner_difference := find_difference(left, right, f"{path}[{i}]"))
            ),
            None,
        )
    if _is_number(expected) and _is_number(actual):
        if math.isclose(expected, actual, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE):
            return None
    elif type(expected) is type(actual) and expected == actual:
        return None
    return f"{where} is {_format_value(actual)}, not {_format_value(expected)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
