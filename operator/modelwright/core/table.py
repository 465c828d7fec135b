"""Decision tables: ordered rows, read from the top, of which the first whose condition holds applies.

A `Transition` updates the record, after which the table is read again from the top; a `StateRow` ends the reading. The
record is written before any action is taken, so that a crash between two writes neither loses nor repeats an action.
The pages of the documentation and their diagrams are rendered from the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from modelwright.core.problem import Problem

ObservationT = TypeVar("ObservationT")
"""Observation: the whole input of a decision."""
StateT = TypeVar("StateT")
"""States that the rows are in."""
ActionT = TypeVar("ActionT")
"""Actions, as data."""
UpdateT = TypeVar("UpdateT")
"""Result of a transition's update."""

POLL_IDLE = timedelta(seconds=30)
"""Interval at which an object is reconciled that waits for something which sends no event."""
MAX_TRANSITIONS = 16
"""More in one reconciliation would be a loop: each transition takes the record nearer to its end."""


def requeue_in(wait: timedelta) -> Callable[[object], timedelta | None]:
    """Build a `requeue_after` that is the same for every observation."""
    return lambda _: wait


def _never(_: object) -> timedelta | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow(Generic[ObservationT, StateT, ActionT]):
    """A row that ends the reading: when `when` holds, the record is in `state` for `reason`, and `actions` follow."""

    name: str
    """The condition as a sentence, for the documentation."""
    when: Callable[[ObservationT], bool]
    state: StateT
    reason: Callable[[ObservationT], Problem]
    actions: Callable[[ObservationT], tuple[ActionT, ...]]
    summary: str
    """The actions as a sentence, for the documentation."""
    requeue_after: Callable[[ObservationT], timedelta | None] = _never
    """Time after which to reconcile again although no event may have come; None: only on an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition(Generic[ObservationT, UpdateT]):
    """A row that changes the record: when `when` holds, `update` gives the changed one, and the table is read again."""

    name: str
    """The condition as a sentence, for the documentation."""
    when: Callable[[ObservationT], bool]
    update: Callable[[ObservationT], UpdateT]
    summary: str
    """The change as a sentence, for the documentation."""


Row = StateRow[ObservationT, StateT, ActionT] | Transition[ObservationT, UpdateT]
"""A row of a table."""


def trace(
    rows: tuple[Row[ObservationT, StateT, ActionT, UpdateT], ...],
    observation: ObservationT,
    *,
    apply: Callable[[ObservationT, UpdateT], ObservationT],
    record_state: Callable[[ObservationT, StateRow[ObservationT, StateT, ActionT]], ObservationT],
) -> Iterator[tuple[Row[ObservationT, StateT, ActionT, UpdateT], ObservationT]]:
    """Yield the rows that apply in one reconciliation, each with the observation after it; the last is a `StateRow`.

    `apply`: puts the result of a transition's update into the observation. `record_state`: puts the state of the row
    that ends the reading into it.
    """
    for _ in range(MAX_TRANSITIONS):
        row = _first_row(rows, observation)
        if isinstance(row, StateRow):
            yield row, record_state(observation, row)
            return
        observation = apply(observation, row.update(observation))
        yield row, observation
    raise AssertionError(f"the table does not come to rest at: {_first_row(rows, observation).name}")


def determine(
    rows: tuple[Row[ObservationT, StateT, ActionT, UpdateT], ...],
    observation: ObservationT,
) -> StateRow[ObservationT, StateT, ActionT]:
    """Find the row that ends the reading. Transitions are skipped: all that apply have been followed, or, for an object
    that is suspended in the middle of one, must not be followed."""
    return next(row for row in rows if isinstance(row, StateRow) and row.when(observation))


def number_rows(rows: Iterable[Row[Any, Any, Any, Any]]) -> dict[str, int]:
    """Number the rows, from 1, by name, as the documentation shows them."""
    return {row.name: number for number, row in enumerate(rows, 1)}


def render_rows(rows: Iterable[Row[Any, Any, Any, Any]]) -> str:
    """Render the rows as a table in Markdown: number, condition, state, actions."""
    head = "| # | when | state | what is done |\n|---|---|---|---|\n"
    return head + "".join(
        f"| {number} | {row.name} | {(row.state or '') if isinstance(row, StateRow) else ''} | {row.summary} |\n"
        for number, row in enumerate(rows, 1)
    )


def _first_row(
    rows: tuple[Row[ObservationT, StateT, ActionT, UpdateT], ...],
    observation: ObservationT,
) -> Row[ObservationT, StateT, ActionT, UpdateT]:
    return next(row for row in rows if row.when(observation))
