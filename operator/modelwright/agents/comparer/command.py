"""Runs the comparer until SIGTERM."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.agents import program
from modelwright.agents.comparer.comparer import Comparer
from modelwright.agents.comparer.settings import ComparerSettings, read_comparer_settings


def run_comparer(environment: Mapping[str, str] | None = None) -> int:
    """Return the exit code: 0 after SIGTERM, 2 if a setting is invalid, 1 if the port is taken."""
    return program.run_program(read_comparer_settings, _serve_comparer, environment)


def _serve_comparer(settings: ComparerSettings) -> int:
    pair = {"serving": settings.serving_revision, "candidate": settings.candidate_revision}
    return program.serve(lambda: Comparer(settings), "comparing", **pair)
