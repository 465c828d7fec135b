"""Whether an answer holds what a sample expects."""

from __future__ import annotations

import json
import math
from typing import Any

RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-6
_MAX_SHOWN = 120


def find_difference(expected: Any, given: Any, path: str = "") -> str | None:
    """What is wrong, with its path; None when `given` holds all of `expected`.

    Objects may have more members than expected, lists must have the same length; numbers agree to one part in a
    thousand, or within 0.000001.
    """
    where = path or "the answer"
    if isinstance(expected, dict):
        if not isinstance(given, dict):
            return f"{where} is {_format_value(given)}, not an object"
        for key, value in expected.items():
            inner = f"{path}.{key}" if path else str(key)
            if key not in given:
                return f"{inner} is missing"
            if found := find_difference(value, given[key], inner):
                return found
        return None
    if isinstance(expected, list):
        if not isinstance(given, list):
            return f"{where} is {_format_value(given)}, not a list"
        if len(expected) != len(given):
            return f"{where} has {len(given)} entries, not {len(expected)}"
        pairs = enumerate(zip(expected, given, strict=True))
        return next(
            (found for i, (left, right) in pairs if (found := find_difference(left, right, f"{path}[{i}]"))), None
        )
    if _is_number(expected) and _is_number(given):
        if math.isclose(expected, given, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE):
            return None
    elif type(expected) is type(given) and expected == given:
        return None
    return f"{where} is {_format_value(given)}, not {_format_value(expected)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
