"""Numbers in reports of gates, metric Jobs, trainings and evaluations: one parser, with the bounds of the CRDs."""

from __future__ import annotations

import re
from decimal import Decimal

MAX_KEPT_CHARACTERS = 32
"""Characters of a number in a status, as the CRDs' Decimal allows."""
MAX_READ_CHARACTERS = 4 * MAX_KEPT_CHARACTERS
"""Characters of a number that is read: some reports write more digits than needed."""
MAX_MAGNITUDE = 10**300
"""A larger number is rejected, so that differences of figures stay finite."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def parse_number(value: object) -> Decimal | None:
    """Parse a finite number of a report (JSON), also when it is written as text; None for anything else.

    Text has at most 128 characters and an exponent of three digits, so that arithmetic on it neither overflows nor
    takes long.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        if abs(value) > MAX_MAGNITUDE:
            return None
        text = repr(value)
        return Decimal(text if len(text) <= MAX_KEPT_CHARACTERS else f"{value:.17g}")
    if not isinstance(value, float | str):
        return None
    text = repr(value) if isinstance(value, float) else value.strip() if len(value) <= MAX_READ_CHARACTERS else ""
    if _NUMBER.fullmatch(text) is None:
        return None
    number = Decimal(text)
    return number if abs(number) <= MAX_MAGNITUDE else None


def describe_value(value: object) -> str:
    """Format what a report has in place of a number, for a message."""
    if isinstance(value, int) and abs(value) > MAX_MAGNITUDE:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value[: 2 * MAX_KEPT_CHARACTERS] if isinstance(value, str) else value)
    return text if len(text) <= 2 * MAX_KEPT_CHARACTERS else f"{text[: 2 * MAX_KEPT_CHARACTERS]}…"
