"""What a Model serves or moves to: the value that decisions, records and traffic name it by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revision:
    """A ModelVersion as served by one runtime with one pod shape. `hash` names it in children and in status."""

    version: str
    hash: str
