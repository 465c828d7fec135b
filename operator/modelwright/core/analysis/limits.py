"""Whether a figure with its error is within a limit: one code for evaluation gates, trainings and Jobs of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from modelwright.core.analysis import bounds
from modelwright.core.analysis.bounds import Evidence
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.figures import Figure

_POWER = 0.9
_MOST_NEEDED = 10**9


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a metric: what it is called, its value, which side is allowed, and whether it compares."""

    name: str
    value: float
    at_least: bool
    versus_serving: bool

    @property
    def passed_over(self) -> str:
        return "below" if self.at_least else "above"

    def turned(self, evidence: Evidence) -> tuple[Evidence, float]:
        """The evidence and the limit, with the sign with which more is better."""
        return (evidence, self.value) if self.at_least else (evidence.mirrored(), -self.value)


def weigh(figure: Figure, limit: Limit, evidence: Evidence, passes: float, fails: float) -> tuple[Outcome, str]:
    """Pass: it is proven at the level `passes` that the limit holds. Fail: at `fails` that it doesn't. Else
    Inconclusive. With the numbers, for people."""
    turned, value = limit.turned(evidence)
    if turned.against(value) <= passes:
        return Outcome.PASS, _proven(limit, evidence, passes)
    if turned.mirrored().against(-value) <= fails:
        return Outcome.FAIL, _broken(figure, limit, evidence, fails)
    return Outcome.INCONCLUSIVE, _undecided(figure, limit, evidence, passes, fails)


def compared(figure: Figure, limit: Limit) -> str:
    """The figure, and how it compares where the limit does, in words."""
    text = f"{figure.title} is {shown_figure(figure.candidate)}"
    if not limit.versus_serving or figure.serving is None:
        return text
    difference = shown_figure(figure.candidate - figure.serving, "+")
    return f"{text}, {difference} versus the serving version's {shown_figure(figure.serving)}"


def _broken(figure: Figure, limit: Limit, evidence: Evidence, alpha: float) -> str:
    bound = bounds.upper(evidence, alpha) if limit.at_least else bounds.lower(evidence, alpha)
    proven = f"{'at most' if limit.at_least else 'at least'} {bound:.4g}"
    return f"{compared(figure, limit)}, {limit.passed_over} {limit.name} {limit.value:g} (it is {proven})"


def _proven(limit: Limit, evidence: Evidence, alpha: float) -> str:
    bound = bounds.lower(evidence, alpha) if limit.at_least else bounds.upper(evidence, alpha)
    what = "difference " if limit.versus_serving else ""
    return f"{what}{'at least' if limit.at_least else 'at most'} {bound:.4g}"


def _undecided(figure: Figure, limit: Limit, evidence: Evidence, passes: float, fails: float) -> str:
    low, high = bounds.lower(evidence, passes), bounds.upper(evidence, passes)
    value = figure.candidate - (figure.serving or 0) if limit.versus_serving else figure.candidate
    level = passes if (float(value) > limit.value) is limit.at_least else fails
    needed = evidence.needed(limit.value, level, _POWER)
    more = f"about {needed:,} examples would" if needed is not None and needed <= _MOST_NEEDED else "it lies too near"
    return (
        f"{compared(figure, limit)}: {figure.n} examples do not tell it from {limit.name} {limit.value:g} "
        f"({low:.4g} to {high:.4g}); {more}"
    )


def shown_figure(number: Decimal, sign: str = "") -> str:
    """A figure as messages have it."""
    return f"{float(number):{sign}.6g}"
