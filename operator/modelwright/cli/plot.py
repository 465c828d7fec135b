"""Draws the course of a rollout: as a picture by matplotlib, in the terminal by plotext, both of the extra `plot`."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelwright.cli.course import Course, Judged, Limit
from modelwright.cli.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WEIGHTS: Final = "share of the callers' requests for the candidate (%)"
_ROWS, _LEAST_COLUMNS = 14, 60
"""Of the terminal: rows of each panel, and the columns that one needs."""
_LETTERS: Final = 130
"""In a line of the picture's footnote."""


class _Look(NamedTuple):
    """How an outcome is drawn: apart by shape, and by colours that the colour-blind tell apart (Okabe and Ito's)."""

    colour: str
    marker: str
    letter: str
    in_terminal: str


_BLUE, _INK, _GREY, _PALE = "#0072B2", "#222222", "#6b6b6b", "#f2f2f2"
_DASHES: Final = (0, (4, 2))
_OUTCOMES: Final = {
    "Pass": _Look("#009E73", "o", "P", "green"),
    "Fail": _Look("#D55E00", "X", "F", "red"),
    "Inconclusive": _Look("#56B4E9", "s", "?", "blue"),
    "Error": _Look("#CC79A7", "^", "E", "magenta"),
}
_OTHER: Final = _Look(_GREY, "D", "-", "gray")


class NotInstalled(UserError, RuntimeError):
    """What draws is not there; the text says how it gets there."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"to draw needs {what}, which is in the extra `plot` (pipx install '.[cli,plot]' in a checkout) and not in "
            "the archive for krew; -o json gives the numbers without it"
        )


def save(seen: Course, path: Path) -> None:
    """Write a picture, in the format that the file's name ends with. Raises NotInstalled."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotInstalled("matplotlib") from error
    footnote = "\n".join(line for note in seen.notes for line in textwrap.wrap(note, _LETTERS))
    heights = [1.3, *(1.0 for _ in seen.metrics)]
    inches = 1.3 + 1.8 * sum(heights) + 0.15 * footnote.count("\n")
    # Text stays text in an SVG: it can be searched and read aloud.
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9.0, inches), facecolor="white", layout="constrained")
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        figure.suptitle(textwrap.fill(seen.title, _LETTERS // 2), fontsize=11, fontweight="bold", color=_INK)
        unit, size = _unit(seen)
        _draw_weights(seen, panels[0], size)
        for judged, panel in zip(seen.metrics, panels[1:], strict=True):
            _draw(judged, seen, panel, size)
        panels[-1].set_xlabel(f"time since {seen.begun:%Y-%m-%d %H:%M:%S} UTC ({unit})")
        panels[-1].set_xlim(0, 1.01 * _last(seen, size))
        if seen.metrics:
            panels[0].legend(
                handles=_legend(seen), loc="lower left", bbox_to_anchor=(0, 1.12), ncols=4, fontsize=8, frameon=False,
                borderaxespad=0,
            )  # fmt: skip
        figure.align_ylabels()
        figure.supxlabel(footnote, fontsize=7.5, color=_GREY, x=0.01, ha="left")
        figure.savefig(path, format=path.suffix[1:], dpi=150)


def terminal(seen: Course, *, colours: bool, columns: int | None = None) -> str:
    """The same as text. Raises NotInstalled."""
    try:
        import plotext
    except ImportError as error:
        raise NotInstalled("plotext") from error
    width = max(columns or shutil.get_terminal_size((100, 40)).columns, _LEAST_COLUMNS)
    unit, size = _unit(seen)
    last = _last(seen, size)

    # As wide and as many rows as is said here, whatever the terminal: text can be scrolled, and piped.
    plotext.terminal.limit(False, False)

    def panel(title: str) -> Any:
        figure = plotext.figure
        figure.clear()
        figure.theme("simple" if colours else "colorless")
        figure.canvas("default")
        figure.plot_size(width, _ROWS)
        figure.title(title)
        figure.label(f"{unit} since {seen.begun:%Y-%m-%d %H:%M:%S} UTC", "x")
        figure.ruler("x").lim(0, last)
        figure.ruler("x").ticks(_ticks(last))
        return figure

    def built(figure: Any) -> str:
        text: str = figure.build().string()
        return text if colours else plotext.uncolorize(text)

    figure = panel(_WEIGHTS)
    xs, ys = _stairs(seen, size)
    figure.ruler("y").lim(0, 100)
    figure.draw(figure.signal(xs, ys, marker="hd").lines(True))
    parts = [seen.title, built(figure)]
    for judged in seen.metrics:
        figure = panel(_heading(judged))
        for look in judged.looks:
            drawn = _OUTCOMES.get(look.outcome, _OTHER)
            x = _since(seen, look.at, size)
            for limit in look.limits:
                between = (_since(seen, look.begun, size), _since(seen, look.ended, size))
                figure.draw(figure.segment(between, (limit.value, limit.value), marker="-"))
            if look.low is not None and look.high is not None:
                figure.draw(
                    figure.segment((x, x), (look.low, look.high), marker=plotext.marker("|", drawn.in_terminal))
                )
            if look.serving is not None:
                figure.draw(figure.signal([x], [look.serving], marker="s"))
            figure.draw(figure.signal([x], [look.mark], marker=plotext.marker(drawn.letter, drawn.in_terminal)))
        parts.append(built(figure))
    legend = ", ".join(f"{drawn.letter} {outcome}" for outcome, drawn in _OUTCOMES.items())
    parts += [f"{legend}; | interval, - limit, s serving", *textwrap.wrap(" ".join(seen.notes), width)]
    return "\n".join(parts)


def _draw_weights(seen: Course, panel: Axes, size: float) -> None:
    xs, ys = _stairs(seen, size)
    panel.plot(xs, ys, color=_BLUE, linewidth=2)
    panel.fill_between(xs, ys, color=_BLUE, alpha=0.12, linewidth=0)
    panel.set_ylim(0, 118)
    panel.set_yticks(range(0, 101, 25))
    panel.set_title(_WEIGHTS, loc="left", fontsize=9, color=_INK)
    panel.set_ylabel("%")
    _dress(seen, panel, size)
    room = _last(seen, size) / 90
    for span in seen.steps:
        begun, ended = (_since(seen, at, size) for at in (span.begun, span.ended))
        share = f" {span.weight} %" if span.kind == "weight" else ""
        words = (f"{span.number}: {span.kind}{share}", str(span.number))
        fits = next((text for text in words if len(text) * room < ended - begun), None)
        if fits is not None:
            panel.text((begun + ended) / 2, 108, fits, ha="center", va="center", fontsize=8, color=_INK)


def _draw(judged: Judged, seen: Course, panel: Axes, size: float) -> None:
    for look in judged.looks:
        drawn, x = _OUTCOMES.get(look.outcome, _OTHER), _since(seen, look.at, size)
        for limit in look.limits:
            ends = (_since(seen, look.begun, size), _since(seen, look.ended, size))
            panel.plot(ends, (limit.value, limit.value), color=_INK, linestyle=_DASHES, linewidth=1.3)
        if look.low is not None and look.high is not None:
            panel.plot([x, x], [look.low, look.high], "_-", color=drawn.colour, linewidth=2.5, markersize=9)
        if look.serving is not None:
            panel.plot(x, look.serving, "D", color=_GREY, markersize=5)
        panel.plot(x, look.mark, drawn.marker, color=drawn.colour, markeredgecolor=_INK, markersize=7, zorder=3)
    panel.set_title(_heading(judged), loc="left", fontsize=9, color=_INK)
    panel.set_ylabel(_symbol(judged))
    panel.margins(y=0.15)
    _dress(seen, panel, size)


def _legend(seen: Course) -> list[Any]:
    from matplotlib.lines import Line2D

    looks = [look for judged in seen.metrics for look in judged.looks]
    found = [Line2D([], [], color=_INK, linestyle=_DASHES, label="limit"),
             Line2D([], [], color=_GREY, linewidth=2.5, label="interval, in the outcome's colour")]  # fmt: skip
    if any(look.serving is not None for look in looks):
        found.append(Line2D([], [], color=_GREY, marker="D", linestyle="", label="serving"))
    for outcome in dict.fromkeys(look.outcome for look in looks):
        drawn = _OUTCOMES.get(outcome, _OTHER)
        found.append(
            Line2D([], [], color=drawn.colour, marker=drawn.marker, markeredgecolor=_INK, linestyle="", label=outcome)
        )
    return found


def _dress(seen: Course, panel: Axes, size: float) -> None:
    """What all panels share: a light ground, every second step shaded."""
    panel.set_facecolor("white")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    panel.set_axisbelow(True)
    for span in seen.steps[::2]:
        panel.axvspan(
            _since(seen, span.begun, size), _since(seen, span.ended, size), color=_PALE, linewidth=0, zorder=0
        )


def _heading(judged: Judged) -> str:
    limits = dict.fromkeys(_bound(limit) for look in judged.looks for limit in look.limits)
    decides = ", dry run: decides nothing" if judged.dry_run else ""
    return f"{judged.metric}: {judged.unit}{decides}" + "".join(f"; {limit}" for limit in limits)


def _symbol(judged: Judged) -> str:
    return {"difference": "points", "share": "%"}.get(judged.what, "value")


def _bound(limit: Limit) -> str:
    side = {True: "at most ", False: "at least ", None: ""}[limit.at_most]
    return f"limit {side}{limit.value:g}"


def _stairs(seen: Course, size: float) -> tuple[list[float], list[int]]:
    """The weights as the corners of a line, to the end."""
    xs: list[float] = []
    ys: list[int] = []
    for at, weight in seen.weights:
        x = _since(seen, at, size)
        xs += [x, x]
        ys += [ys[-1] if ys else weight, weight]
    return [*xs, _last(seen, size)], [*ys, ys[-1] if ys else 0]


def _unit(seen: Course) -> tuple[str, float]:
    """The unit of time in which the rollout's length is a number that can be read, and its seconds."""
    length = (seen.ended - seen.begun).total_seconds()
    units: Iterable[tuple[str, float, float]] = (("s", 1, 300), ("min", 60, 300), ("h", 3600, 96))
    return next(((unit, size) for unit, size, most in units if length <= most * size), ("days", 86400.0))


def _ticks(last: float) -> list[float]:
    """From 0 on, at most 9, at round numbers."""
    power = 10.0 ** math.floor(math.log10(last / 8))
    step = next(size * power for size in (1, 2, 5, 10) if last / (size * power) <= 8)
    return [round(number * step, 6) for number in range(int(last / step) + 1)]


def _last(seen: Course, size: float) -> float:
    """The right end of the time axis."""
    return max((seen.ended - seen.begun).total_seconds(), 1.0) / size


def _since(seen: Course, at: datetime, size: float) -> float:
    return min(max((at - seen.begun).total_seconds() / size, 0.0), _last(seen, size))
