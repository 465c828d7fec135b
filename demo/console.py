"""Output of the demo: numbered steps with their times, in colour on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.rollouts import Verdict

SHADES = " ░▒▓█"
COLOURS = {"Pass": "green", "Succeeded": "green", "Fail": "red", "Failed": "red", "Error": "red"}


class Watchable(Protocol):
    """Something to show live: its state in one line, and its verdicts in three named columns."""

    COLUMNS: ClassVar[tuple[str, str, str]]

    @property
    def verdicts(self) -> Sequence[Verdict]: ...

    def headline(self) -> str: ...


class DemoError(Exception):
    """The demo can't continue; the text says what is wrong and what to do."""


@dataclass
class Story:
    """Prints the steps and records the time of each."""

    steps: int
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """True on a terminal that can redraw lines."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    @contextmanager
    def step(self, key: str, title: str, why: str) -> Iterator[None]:
        """Run one numbered step: ``title`` says what happens, ``why`` why it matters."""
        number = len(self.seconds) + 1
        self.console.print(f"\n[bold cyan]{number}/{self.steps}[/] [bold]{title}[/]")
        self.console.print(f"    [dim]{why}[/]")
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[key] = time.monotonic() - begin
        self.console.print(f"    [green]done[/] [dim]in {self.seconds[key]:.1f} s ({self.elapsed():.0f} s in all)[/]")

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def say(self, text: str) -> None:
        self.console.print(f"    {text}")

    def command(self, text: str) -> None:
        """Show a command as the reader would type it."""
        self.console.print(Text(f"    $ {text}", style="magenta"))

    def failed(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(text, style="red"))

    def show(self, renderable: RenderableType) -> None:
        self.console.print(renderable)

    @contextmanager
    def watching(self, waiting: str = "waiting for the rollout to begin") -> Iterator[LiveTable]:
        """Show a rollout or run in a table that changes in place; without a terminal, print a line on each change.
        ``waiting`` is shown until there is one."""
        if self.live:
            with Live(console=self.console, refresh_per_second=4, transient=False) as live:
                yield LiveTable(self, live, waiting)
        else:
            yield LiveTable(self, None, waiting)


class LiveTable:
    """Shows a rollout or run beside the responses that callers receive."""

    EVERY = 10.0

    def __init__(self, story: Story, live: Live | None, waiting: str) -> None:
        self.story, self.live, self.waiting = story, live, waiting
        self.last_state, self.last = "", 0.0

    def update(
        self, seconds: float, view: Watchable | None, versions: Mapping[str, int], recent: Mapping[str, int], bad: str
    ) -> None:
        """Show the current state. ``recent`` counts the responses of the last second, ``versions`` all; ``bad``
        describes problems."""
        headline = view.headline() if view else self.waiting
        verdicts = view.verdicts if view else ()
        if self.live:
            answers = self._table("answered by", "last second", "in all")
            for version in sorted(versions):
                share = recent.get(version, 0)
                answers.add_row(version, f"{'▇' * min(20, share // 2)} {share}", str(versions[version]))
            evidence = self._table(*(view.COLUMNS if view else ("", "", "")))
            for verdict in verdicts:
                colour = COLOURS.get(verdict.outcome, "yellow")
                evidence.add_row(verdict.metric, f"[{colour}]{verdict.outcome}[/]", verdict.message)
            head = Text(f"{seconds:4.0f} s  {headline}", style="bold")
            self.live.update(Group(head, Text(f"        {bad}"), answers, evidence))
            return
        # Numbers change at every poll; only another step, state or outcome deserves a line.
        state = " ".join([headline.partition(" (seen")[0], *(verdict.outcome for verdict in verdicts)])
        if state != self.last_state or time.monotonic() - self.last >= self.EVERY:
            self.last_state, self.last = state, time.monotonic()
            counts = ", ".join(f"{version} {count}" for version, count in sorted(recent.items())) or "none"
            self.story.say(f"{seconds:4.0f} s  {headline}; answers a second: {counts}; {bad}")
            for verdict in verdicts:
                self.story.say(f"        {verdict.metric}: {verdict.outcome}: {verdict.message}")

    @staticmethod
    def _table(*columns: str) -> Table:
        table = Table(min_width=60, box=None, padding=(0, 2, 0, 2))
        for column in columns:
            table.add_column(column, justify="right" if column == "in all" else "left", overflow="fold")
        return table


def draw_picture(
    pixels: Sequence[float], *, colour: bool, scale: int = 2, size: int = 8, darkest: float = 16.0
) -> list[Text]:
    """Draw a square grey image as lines of text: two pixels to a character with colour, shaded characters without."""
    rows = [
        [min(1.0, pixels[(y // scale) * size + x // scale] / darkest) for x in range(size * scale)]
        for y in range(size * scale)
    ]
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        line = Text()
        for top, bottom in zip(upper, lower, strict=True):
            if colour:
                a, b = (int(24 + 231 * value) for value in (top, bottom))
                line.append("▀", style=f"rgb({a},{a},{a}) on rgb({b},{b},{b})")
            else:
                line.append(SHADES[round((top + bottom) / 2 * (len(SHADES) - 1))])
        lines.append(line)
    return lines


def draw_gallery(
    pictures: Sequence[Sequence[float]], captions: Sequence[Text], *, colour: bool, columns: int = 4
) -> Text:
    """Draw images side by side, each above its caption."""
    width, gap, out = 16, 3, Text()
    for start in range(0, len(pictures), columns):
        drawn = [draw_picture(pixels, colour=colour) for pixels in pictures[start : start + columns]]
        for line in zip(*drawn, strict=True):
            out.append("    ")
            for part in line:
                out.append_text(part).append(" " * gap)
            out.append("\n")
        out.append("    ")
        for caption in captions[start : start + columns]:
            out.append_text(caption).append(" " * (width + gap - len(caption)))
        out.append("\n\n")
    return out
