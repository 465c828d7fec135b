"""The drawings of states: what running the tables finds, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest

from modelwright.core.retraining import run_machine as runs
from modelwright.core.rollout import machine, record
from modelwright.core.rollout.rows import unmanaged
from scripts.docgen import rollout_transitions as of_rollouts
from scripts.docgen import run_transitions as of_runs
from scripts.docgen.state_diagram import render_state_diagram

WITHOUT_A_RECORD_TO_MOVE = {
    "spec.version was changed since a manual rollback started",
    "an earlier candidate has not left yet",
    "a manual rollback pins the Model",
    "a manual rollback takes requests and has no ready pod",
    "the policy can't be followed, and another revision is wanted",
    *(row.name for row in unmanaged.ROWS),
}
"""Rows in which no state of a record changes: of ended records, rollbacks by hand, pods left over, and of Models
without a policy."""


class Letters(StrEnum):
    """States of nothing."""

    A = "A"
    B = "B"
    C = "C"


def test_a_diagram_has_ordered_states_and_rows_of_each_move() -> None:
    a, b, c = Letters
    drawn = render_state_diagram(Letters, a, {c}, {(b, c): {10, 2}, (a, b): {3}})
    assert drawn == (
        "```mermaid\nstateDiagram-v2\n    [*] --> A\n    A --> B: 3\n    B --> C: 2, 10\n    C --> [*]\n```\n"
    )


@pytest.mark.parametrize(
    ("drawing", "trace", "table", "left_out"),
    [
        (of_rollouts, "trace_rows", machine.TABLE, WITHOUT_A_RECORD_TO_MOVE),
        (of_runs, "trace_run", runs.RUN_TABLE, {runs.RUN_TABLE[0].name}),
    ],
    ids=["rollouts", "runs"],
)
def test_every_row_that_may_move_a_record_is_reached(
    drawing: Any, trace: str, table: Any, left_out: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = set()
    real = getattr(drawing, trace)

    def noted(observed: Any) -> Iterator[Any]:
        for row, after in real(observed):
            reached.add(row.name)
            yield row, after

    monkeypatch.setattr(drawing, trace, noted)
    drawing.list_transitions.__wrapped__()
    assert {row.name for row in table} - left_out <= reached


@pytest.mark.parametrize(
    ("drawing", "terminal"),
    [(of_rollouts, record.TERMINAL_STATES), (of_runs, runs.RUN_TERMINAL_STATES)],
    ids=["rollouts", "runs"],
)
def test_every_state_is_reached_and_terminal_states_stay(drawing: Any, terminal: Any) -> None:
    moves = drawing.list_transitions()
    states = {type(state) for state in terminal}.pop()
    assert {after for _, after in moves} | {states.PENDING} == set(states)
    assert not {before for before, _ in moves} & set(terminal)
