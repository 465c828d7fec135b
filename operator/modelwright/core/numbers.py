"""Numbers of reports of gates, metric Jobs, trainings and evaluations: read in one way, bounded as the CRD's are."""

from __future__ import annotations

import re
from decimal import Decimal

LONGEST = 32
"""Characters of a number as it is kept, as the CRD's Decimal has it."""
LONGEST_READ = 4 * LONGEST
"""Characters of a number as it is read: some write more digits than anybody needs."""
LARGEST = 10**300
"""A larger number is taken for none: differences of figures stay finite."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def read(value: object) -> Decimal | None:
    """A finite number of a report (JSON), also when it is written as text; None for anything else.

    At most 128 characters as text and an exponent of three digits, so that no arithmetic on it overflows or takes long.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        if abs(value) > LARGEST:
            return None
        text = repr(value)
        return Decimal(text if len(text) <= LONGEST else f"{value:.17g}")
    if not isinstance(value, float | str):
        return None
    text = repr(value) if isinstance(value, float) else value.strip() if len(value) <= LONGEST_READ else ""
    if _NUMBER.fullmatch(text) is None:
        return None
    number = Decimal(text)
    return number if abs(number) <= LARGEST else None


def shown(value: object) -> str:
    """What a report has in the place of a number, as a message shows it."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value[: 2 * LONGEST] if isinstance(value, str) else value)
    return text if len(text) <= 2 * LONGEST else f"{text[: 2 * LONGEST]}…"
