"""Reads the settings of the programs that run in pods from the environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any
from urllib.parse import urlsplit

COUNT_COPIES, REFUSE_COPIES = "Count", "Refuse"
"""Values of COPIES_WITHOUT_TOKEN."""


class AgentSettingsError(ValueError):
    """A variable is missing or invalid; the text names it."""


def read_environment(kind: type[Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the fields of the dataclass `kind`, each from the variable of its name in upper case.

    A field with a numeric default is a number (an integer above 0, but for PORT; a float from 0), others are texts.
    AgentSettingsError names an invalid variable, or a missing one of a field without a default.
    """
    values: dict[str, Any] = {}
    for field in fields(kind):
        name = field.name.upper()
        text = environment.get(name, "").strip()
        if text:
            if isinstance(field.default, int):
                values[field.name] = parse_number(name, text, int, zero=name == "PORT")
            elif isinstance(field.default, float):
                values[field.name] = parse_number(name, text, float, zero=True)
            else:
                values[field.name] = text
        elif field.default is MISSING:
            raise AgentSettingsError(f"{name} is needed")
    return values


def read_mirror_environment(kind: type[Any], environment: Mapping[str, str], urls: Sequence[str]) -> dict[str, Any]:
    """Read the fields of `kind`, the settings of a server for mirrored requests. `urls`: the fields that are URLs."""
    values = read_environment(kind, environment)
    if values.get("copies_without_token", REFUSE_COPIES) not in (COUNT_COPIES, REFUSE_COPIES):
        raise AgentSettingsError(f"COPIES_WITHOUT_TOKEN must be {COUNT_COPIES} or {REFUSE_COPIES}")
    if "copy_token" not in values and values.get("copies_without_token") != COUNT_COPIES:
        raise AgentSettingsError(f"COPY_TOKEN is needed, or COPIES_WITHOUT_TOKEN={COUNT_COPIES}")
    for name in urls:
        url = urlsplit(values[name])
        if url.scheme != "http" or not url.hostname or url.query or url.fragment:
            raise AgentSettingsError(f"{name.upper()} must be http://<host>[:<port>], not {values[name]!r}")
        values[name] = values[name].rstrip("/")
    return values


def parse_number(name: str, text: str, kind: type[int] | type[float] = float, *, zero: bool = False) -> float:
    """Parse the finite number above 0 in the variable `name`; `zero`: 0 is also valid. Raises AgentSettingsError."""
    try:
        number: float = kind(text)
    except ValueError:
        number = -1.0
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise AgentSettingsError(f"{name} must be a number above 0, not {text!r}")
    return number
