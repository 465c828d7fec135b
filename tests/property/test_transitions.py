"""Every transition of simulated rollouts and runs is in the diagrams of their states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from modelwright.core.retraining import run_machine as of_run
from modelwright.core.rollout import machine as of_rollout
from scripts.docgen import rollout_transitions as of_rollouts
from scripts.docgen import run_transitions as of_runs
from tests.property import test_retraining, test_rollouts


def _state(observed: Any) -> Any:
    return (
        observed.record.state if hasattr(observed, "record") and observed.record else getattr(observed, "state", None)
    )


@pytest.mark.parametrize(
    ("simulated", "machine", "table", "trace", "drawing"),
    [
        (test_rollouts.Rollouts, of_rollout, of_rollout.TABLE, "trace_rows", of_rollouts),
        (test_retraining.Runs, of_run, of_run.RUN_TABLE, "trace_run", of_runs),
    ],
    ids=["rollouts", "runs"],
)
def test_every_move_that_is_seen_is_drawn(
    simulated: Any, machine: Any, table: Any, trace: str, drawing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, numbers = drawing.list_transitions(), {row.name: number for number, row in enumerate(table, 1)}
    seen: dict[tuple[Any, Any], set[int]] = {}
    real = getattr(machine, trace)

    def noted(observed: Any) -> Iterator[Any]:
        before = _state(observed)
        for row, after in real(observed):
            if _state(after) is not before:
                seen.setdefault((before, _state(after)), set()).add(numbers[row.name])
            before = _state(after)
            yield row, after

    monkeypatch.setattr(machine, trace, noted)
    run_state_machine_as_test(
        simulated, settings=settings(max_examples=12, stateful_step_count=20, deadline=None, derandomize=True)
    )
    assert seen
    assert {move: rows - drawn.get(move, set()) for move, rows in seen.items() if rows - drawn.get(move, set())} == {}
