"""Shows the steps in progress, their times and the remaining work: a live table, or plain lines in CI."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

CREDIT = 60
"""CPU seconds of work after which the measured pace counts as much as the assumption that all cores are free."""
NEVER_DONE = 0.95
"""The largest share of a running step that counts as done, however long it takes."""


@dataclass(frozen=True)
class Step:
    """`weight` is CPU seconds, 0 when unknown; `when` is the start while the step runs, then its duration in
    seconds."""

    weight: float = 0.0
    state: str = "waiting"
    when: float = 0.0

    @property
    def left(self) -> bool:
        return self.state in ("waiting", "running")


def forecast(steps: Iterable[Step], now: float, cores: int) -> tuple[int, float] | None:
    """Return the finished percentage and the remaining seconds by the pace so far; None when no remaining step has a
    weight. Steps without a weight are ignored, and failed steps are finished."""
    weighted = [step for step in steps if step.weight]
    total = sum(step.weight for step in weighted)
    over = sum(step.weight for step in weighted if not step.left)
    if over == total:
        return None
    # Only finished work shows the pace.
    taken = sum(step.when for step in weighted if not step.left)
    pace = (over + CREDIT) / (taken + CREDIT / cores)
    running = sum(
        min((now - step.when) * pace, NEVER_DONE * step.weight) for step in weighted if step.state == "running"
    )
    done = over + running
    return int(100 * done / total), (total - done) / pace


class Progress(Protocol):
    """Steps are announced with `add`, so that the remaining work can be shown, and performed in `step`. A weight is
    a step's usual CPU seconds."""

    def add(self, name: str, weight: float = 0.0) -> None: ...

    def step(self, name: str) -> AbstractContextManager[None]: ...


class NoProgress:
    """Shows nothing: for tests and for the library."""

    def add(self, name: str, weight: float = 0.0) -> None:
        del name, weight

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        del name
        yield


class LiveProgress:
    """Shows each step's state and time, and the remaining work; thread-safe."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.begun = time.monotonic()
        self.steps: dict[str, Step] = {}
        self.lock = threading.Lock()
        self.console = Console(highlight=False)
        self.live: Live | None = None

    def __enter__(self) -> LiveProgress:
        if sys.stdout.isatty():
            self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def add(self, name: str, weight: float = 0.0) -> None:
        with self.lock:
            self.steps.setdefault(name, Step(weight))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        self._set(name, "running", start)
        try:
            yield
        except BaseException:
            self._set(name, "failed", time.monotonic() - start)
            raise
        self._set(name, "done", time.monotonic() - start)

    def _set(self, name: str, state: str, when: float) -> None:
        with self.lock:
            self.steps[name] = replace(self.steps.get(name, Step()), state=state, when=when)
            left = left_of(list(self.steps.values()), time.monotonic())
        if self.live is None:
            took = f" in {when:.1f}s" if state != "running" else ""
            elapsed = time.monotonic() - self.begun
            print(f"{time.strftime('%H:%M:%S')} [{elapsed:5.1f}s] {name}: {state}{took}, {left}", flush=True)

    def table(self) -> Table:
        marks = {"waiting": ("·", "dim"), "running": ("▸", "cyan"), "done": ("✓", "green"), "failed": ("✗", "red")}
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        with self.lock:
            steps = list(self.steps.items())
        left = left_of([step for _, step in steps], now)
        table.add_row("", Text(self.title, "bold"), f"{now - self.begun:.0f}s", left)
        for name, step in steps:
            mark, style = marks[step.state]
            took = {"waiting": "", "running": f"{now - step.when:.0f}s"}.get(step.state, f"{step.when:.1f}s")
            table.add_row(Text(mark, style), Text(name, style), Text(took, style), "")
        return table


def left_of(steps: Sequence[Step], now: float) -> str:
    """Format the remaining work: the number of steps and, where weights are known, percentage and time."""
    left = f"{sum(step.left for step in steps)} left"
    estimate = forecast(steps, now, os.cpu_count() or 1)
    if estimate is None:
        return left
    percent, seconds = estimate
    # Estimated in minutes: more digits would promise too much.
    time_left = f"about {round(seconds / 60)} min" if seconds >= 90 else "about a minute"
    return f"{left}; {percent} % built, {time_left} to go"
