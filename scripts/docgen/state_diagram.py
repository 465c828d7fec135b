"""Mermaid state diagram of a decision table: states, and the numbers of the rows that lead from one to another."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

State = TypeVar("State", bound=StrEnum)


def render_state_diagram(
    states: Iterable[State], first: State, ends: Collection[State], moves: Mapping[tuple[State, State], Collection[int]]
) -> str:
    """Render a fenced Markdown block, in the order of `states`.

    `moves` maps (from, to) to the numbers of the rows that make this move.
    """
    order = {state: place for place, state in enumerate(states)}
    lines = [f"    [*] --> {first}"]
    for before, after in sorted(moves, key=lambda move: (order[move[0]], order[move[1]])):
        lines.append(f"    {before} --> {after}: {', '.join(str(row) for row in sorted(moves[before, after]))}")
    lines += [f"    {state} --> [*]" for state in order if state in ends]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"
