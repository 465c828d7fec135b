"""Shows what is being done, how long it takes and what is left: a live table, or plain lines in CI."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


class Progress(Protocol):
    """Steps are announced with `add`, so that what is left can be shown, and done with `step`."""

    def add(self, name: str) -> None: ...

    def step(self, name: str) -> AbstractContextManager[None]: ...


class Quiet:
    """Shows nothing: for tests and for the library."""

    def add(self, name: str) -> None:
        del name

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        del name
        yield


class Shown:
    """Shows each step's state and time; may be used from several threads."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.begun = time.monotonic()
        self.steps: dict[str, tuple[str, float]] = {}
        self.lock = threading.Lock()
        self.console = Console(highlight=False)
        self.live: Live | None = None

    def __enter__(self) -> Shown:
        if sys.stdout.isatty():
            self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def add(self, name: str) -> None:
        with self.lock:
            self.steps.setdefault(name, ("waiting", 0.0))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self._set(name, "running", begun)
        try:
            yield
        except BaseException:
            self._set(name, "failed", time.monotonic() - begun)
            raise
        self._set(name, "done", time.monotonic() - begun)

    def _set(self, name: str, state: str, when: float) -> None:
        with self.lock:
            self.steps[name] = (state, when)
            left = sum(state in ("waiting", "running") for state, _ in self.steps.values())
        if self.live is None:
            took = f" in {when:.1f}s" if state != "running" else ""
            elapsed = time.monotonic() - self.begun
            print(f"{time.strftime('%H:%M:%S')} [{elapsed:5.1f}s] {name}: {state}{took}, {left} left", flush=True)

    def table(self) -> Table:
        marks = {"waiting": ("·", "dim"), "running": ("▸", "cyan"), "done": ("✓", "green"), "failed": ("✗", "red")}
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        with self.lock:
            steps = list(self.steps.items())
        left = sum(state in ("waiting", "running") for _, (state, _) in steps)
        table.add_row("", Text(self.title, "bold"), f"{now - self.begun:.0f}s", f"{left} left")
        for name, (state, when) in steps:
            mark, style = marks[state]
            took = {"waiting": "", "running": f"{now - when:.0f}s"}.get(state, f"{when:.1f}s")
            table.add_row(Text(mark, style), Text(name, style), Text(took, style), "")
        return table
