"""Plots of a rollout: an image by matplotlib, or text by plotext; both are in the extra `plot`."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelwright.cli.rollout_series import LimitLine, MetricSeries, RolloutSeries
from modelwright.cli.user_error import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WEIGHTS_TITLE: Final = "share of the callers' requests for the candidate (%)"
_PANEL_ROWS, _MIN_COLUMNS = 14, 60
"""Rows of each panel in the terminal, and the fewest columns."""
_NOTE_WIDTH: Final = 130
"""Characters in a line of the image's footnote."""


class _OutcomeStyle(NamedTuple):
    """How an outcome is drawn. Shapes and colours are distinguishable by the colour-blind (palette of Okabe and
    Ito)."""

    colour: str
    marker: str
    letter: str
    in_terminal: str


_BLUE, _INK, _GREY, _PALE = "#0072B2", "#222222", "#6b6b6b", "#f2f2f2"
_DASHES: Final = (0, (4, 2))
_OUTCOME_STYLES: Final = {
    "Pass": _OutcomeStyle("#009E73", "o", "P", "green"),
    "Fail": _OutcomeStyle("#D55E00", "X", "F", "red"),
    "Inconclusive": _OutcomeStyle("#56B4E9", "s", "?", "blue"),
    "Error": _OutcomeStyle("#CC79A7", "^", "E", "magenta"),
}
_DEFAULT_STYLE: Final = _OutcomeStyle(_GREY, "D", "-", "gray")


class PlotLibraryMissing(UserError, RuntimeError):
    """The optional plotting library is missing; the text says how to install it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"plotting needs {what}, which is in the extra `plot` (pipx install '.[cli,plot]' in a checkout) and not "
            "in the archive for krew; -o json prints the numbers without it"
        )


def save_image(series: RolloutSeries, path: Path) -> None:
    """Write an image in the format of the file's extension. Raises PlotLibraryMissing."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotLibraryMissing("matplotlib") from error
    footnote = "\n".join(line for note in series.notes for line in textwrap.wrap(note, _NOTE_WIDTH))
    heights = [1.3, *(1.0 for _ in series.metrics)]
    inches = 1.3 + 1.8 * sum(heights) + 0.15 * footnote.count("\n")
    # An SVG keeps text as text, which can be searched and read aloud.
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9.0, inches), facecolor="white", layout="constrained")
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        figure.suptitle(textwrap.fill(series.title, _NOTE_WIDTH // 2), fontsize=11, fontweight="bold", color=_INK)
        unit, size = _time_unit(series)
        _draw_weights(series, panels[0], size)
        for metric, panel in zip(series.metrics, panels[1:], strict=True):
            _draw_metric(metric, series, panel, size)
        panels[-1].set_xlabel(f"time since {series.begun:%Y-%m-%d %H:%M:%S} UTC ({unit})")
        panels[-1].set_xlim(0, 1.01 * _axis_end(series, size))
        if series.metrics:
            panels[0].legend(
                handles=_legend_handles(series),
                loc="lower left",
                bbox_to_anchor=(0, 1.12),
                ncols=4,
                fontsize=8,
                frameon=False,
                borderaxespad=0,
            )
        figure.align_ylabels()
        figure.supxlabel(footnote, fontsize=7.5, color=_GREY, x=0.01, ha="left")
        figure.savefig(path, format=path.suffix[1:], dpi=150)


def draw_terminal(series: RolloutSeries, *, colours: bool, columns: int | None = None) -> str:
    """Render the plot as text. Raises PlotLibraryMissing."""
    try:
        import plotext
    except ImportError as error:
        raise PlotLibraryMissing("plotext") from error
    width = max(columns or shutil.get_terminal_size((100, 40)).columns, _MIN_COLUMNS)
    unit, size = _time_unit(series)
    last = _axis_end(series, size)

    # Ignore the terminal's size: text can be scrolled and piped.
    plotext.terminal.limit(False, False)

    def panel(title: str) -> Any:
        figure = plotext.figure
        figure.clear()
        figure.theme("simple" if colours else "colorless")
        figure.canvas("default")
        figure.plot_size(width, _PANEL_ROWS)
        figure.title(title)
        figure.label(f"{unit} since {series.begun:%Y-%m-%d %H:%M:%S} UTC", "x")
        figure.ruler("x").lim(0, last)
        figure.ruler("x").ticks(_round_ticks(last))
        return figure

    def built(figure: Any) -> str:
        text: str = figure.build().string()
        return text if colours else plotext.uncolorize(text)

    figure = panel(_WEIGHTS_TITLE)
    xs, ys = _weight_corners(series, size)
    figure.ruler("y").lim(0, 100)
    figure.draw(figure.signal(xs, ys, marker="hd").lines(True))
    parts = [series.title, built(figure)]
    for metric in series.metrics:
        figure = panel(_panel_title(metric))
        for point in metric.points:
            style = _OUTCOME_STYLES.get(point.outcome, _DEFAULT_STYLE)
            x = _axis_position(series, point.at, size)
            for limit in point.limits:
                between = (_axis_position(series, point.begun, size), _axis_position(series, point.ended, size))
                figure.draw(figure.segment(between, (limit.value, limit.value), marker="-"))
            if point.low is not None and point.high is not None:
                figure.draw(
                    figure.segment((x, x), (point.low, point.high), marker=plotext.marker("|", style.in_terminal))
                )
            if point.serving is not None:
                figure.draw(figure.signal([x], [point.serving], marker="s"))
            figure.draw(
                figure.signal([x], [point.marker_value], marker=plotext.marker(style.letter, style.in_terminal))
            )
        parts.append(built(figure))
    legend = ", ".join(f"{style.letter} {outcome}" for outcome, style in _OUTCOME_STYLES.items())
    parts += [f"{legend}; | interval, - limit, s serving", *textwrap.wrap(" ".join(series.notes), width)]
    return "\n".join(parts)


def _draw_weights(series: RolloutSeries, panel: Axes, size: float) -> None:
    xs, ys = _weight_corners(series, size)
    panel.plot(xs, ys, color=_BLUE, linewidth=2)
    panel.fill_between(xs, ys, color=_BLUE, alpha=0.12, linewidth=0)
    panel.set_ylim(0, 118)
    panel.set_yticks(range(0, 101, 25))
    panel.set_title(_WEIGHTS_TITLE, loc="left", fontsize=9, color=_INK)
    panel.set_ylabel("%")
    _style_panel(series, panel, size)
    room = _axis_end(series, size) / 90
    for span in series.steps:
        begun, ended = (_axis_position(series, at, size) for at in (span.begun, span.ended))
        share = f" {span.weight} %" if span.kind == "weight" else ""
        labels = (f"{span.number}: {span.kind}{share}", str(span.number))
        fits = next((text for text in labels if len(text) * room < ended - begun), None)
        if fits is not None:
            panel.text((begun + ended) / 2, 108, fits, ha="center", va="center", fontsize=8, color=_INK)


def _draw_metric(metric: MetricSeries, series: RolloutSeries, panel: Axes, size: float) -> None:
    for point in metric.points:
        style, x = _OUTCOME_STYLES.get(point.outcome, _DEFAULT_STYLE), _axis_position(series, point.at, size)
        for limit in point.limits:
            ends = (_axis_position(series, point.begun, size), _axis_position(series, point.ended, size))
            panel.plot(ends, (limit.value, limit.value), color=_INK, linestyle=_DASHES, linewidth=1.3)
        if point.low is not None and point.high is not None:
            panel.plot([x, x], [point.low, point.high], "_-", color=style.colour, linewidth=2.5, markersize=9)
        if point.serving is not None:
            panel.plot(x, point.serving, "D", color=_GREY, markersize=5)
        panel.plot(
            x, point.marker_value, style.marker, color=style.colour, markeredgecolor=_INK, markersize=7, zorder=3
        )
    panel.set_title(_panel_title(metric), loc="left", fontsize=9, color=_INK)
    panel.set_ylabel(_axis_label(metric))
    panel.margins(y=0.15)
    _style_panel(series, panel, size)


def _legend_handles(series: RolloutSeries) -> list[Any]:
    from matplotlib.lines import Line2D

    points = [point for metric in series.metrics for point in metric.points]
    handles = [
        Line2D([], [], color=_INK, linestyle=_DASHES, label="limit"),
        Line2D([], [], color=_GREY, linewidth=2.5, label="interval, in the outcome's colour"),
    ]
    if any(point.serving is not None for point in points):
        handles.append(Line2D([], [], color=_GREY, marker="D", linestyle="", label="serving"))
    for outcome in dict.fromkeys(point.outcome for point in points):
        style = _OUTCOME_STYLES.get(outcome, _DEFAULT_STYLE)
        handles.append(
            Line2D([], [], color=style.colour, marker=style.marker, markeredgecolor=_INK, linestyle="", label=outcome)
        )
    return handles


def _style_panel(series: RolloutSeries, panel: Axes, size: float) -> None:
    """Style a panel: light background, every second step shaded."""
    panel.set_facecolor("white")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    panel.set_axisbelow(True)
    for span in series.steps[::2]:
        panel.axvspan(
            _axis_position(series, span.begun, size),
            _axis_position(series, span.ended, size),
            color=_PALE,
            linewidth=0,
            zorder=0,
        )


def _panel_title(metric: MetricSeries) -> str:
    limits = dict.fromkeys(_format_limit(limit) for point in metric.points for limit in point.limits)
    decides = ", dry run: decides nothing" if metric.dry_run else ""
    return f"{metric.metric}: {metric.unit}{decides}" + "".join(f"; {limit}" for limit in limits)


def _axis_label(metric: MetricSeries) -> str:
    return {"difference": "points", "share": "%"}.get(metric.limit_kind, "value")


def _format_limit(limit: LimitLine) -> str:
    side = {True: "at most ", False: "at least ", None: ""}[limit.at_most]
    return f"limit {side}{limit.value:g}"


def _weight_corners(series: RolloutSeries, size: float) -> tuple[list[float], list[int]]:
    """Return the weights as the corners of a step line that ends at the right edge."""
    xs: list[float] = []
    ys: list[int] = []
    for at, weight in series.weights:
        x = _axis_position(series, at, size)
        xs += [x, x]
        ys += [ys[-1] if ys else weight, weight]
    return [*xs, _axis_end(series, size)], [*ys, ys[-1] if ys else 0]


def _time_unit(series: RolloutSeries) -> tuple[str, float]:
    """Choose the unit of time for the axis; return its name and its length in seconds."""
    length = (series.ended - series.begun).total_seconds()
    units: Iterable[tuple[str, float, float]] = (("s", 1, 300), ("min", 60, 300), ("h", 3600, 96))
    return next(((unit, size) for unit, size, most in units if length <= most * size), ("days", 86400.0))


def _round_ticks(last: float) -> list[float]:
    """Return at most 9 round numbers from 0 on."""
    power = 10.0 ** math.floor(math.log10(last / 8))
    step = next(size * power for size in (1, 2, 5, 10) if last / (size * power) <= 8)
    return [round(number * step, 6) for number in range(int(last / step) + 1)]


def _axis_end(series: RolloutSeries, size: float) -> float:
    """Return the right end of the time axis."""
    return max((series.ended - series.begun).total_seconds(), 1.0) / size


def _axis_position(series: RolloutSeries, at: datetime, size: float) -> float:
    return min(max((at - series.begun).total_seconds() / size, 0.0), _axis_end(series, size))
