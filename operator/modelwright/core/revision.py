"""The revision of a Model: the value by which decisions, records and traffic name it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revision:
    """A ModelVersion as served by one runtime with one pod shape. `hash` names it in children and in status."""

    version: str
    hash: str
