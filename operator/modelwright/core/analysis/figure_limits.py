"""Limits of figures with an error: shared by evaluation gates, trainings and metric Jobs."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from modelwright.core.analysis import figure_evidence
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.figure_evidence import FigureEvidence
from modelwright.core.analysis.report_figures import Figure

_POWER = 0.9
_MOST_NEEDED = 10**9


@dataclass(frozen=True, slots=True)
class FigureLimit:
    """A limit of a metric: its name and value, the allowed side, and whether it compares with the serving version."""

    name: str
    value: float
    at_least: bool
    versus_serving: bool

    @property
    def broken_side(self) -> str:
        return "below" if self.at_least else "above"

    def orient_evidence(self, evidence: FigureEvidence) -> tuple[FigureEvidence, float]:
        """Return the evidence and the limit, with the sign by which more is better."""
        return (evidence, self.value) if self.at_least else (evidence.negated(), -self.value)


def weigh_evidence(
    figure: Figure, limit: FigureLimit, evidence: FigureEvidence, passes: float, fails: float
) -> tuple[Outcome, str]:
    """Weigh the evidence on a limit; return the outcome and a text with the numbers, for users.

    Pass: it is proven at the level `passes` that the limit holds. Fail: at `fails` that it doesn't. Else Inconclusive.
    """
    turned, value = limit.orient_evidence(evidence)
    if turned.p_value(value) <= passes:
        return Outcome.PASS, _describe_proven(limit, evidence, passes)
    if turned.negated().p_value(-value) <= fails:
        return Outcome.FAIL, _describe_broken(figure, limit, evidence, fails)
    return Outcome.INCONCLUSIVE, _describe_undecided(figure, limit, evidence, passes, fails)


def describe_comparison(figure: Figure, limit: FigureLimit) -> str:
    """Describe the figure, compared with the serving version's where the limit compares."""
    text = f"{figure.title} is {format_figure(figure.candidate)}"
    if not limit.versus_serving or figure.serving is None:
        return text
    difference = format_figure(figure.candidate - figure.serving, "+")
    return f"{text}, {difference} versus the serving version's {format_figure(figure.serving)}"


def _describe_broken(figure: Figure, limit: FigureLimit, evidence: FigureEvidence, alpha: float) -> str:
    bound = (
        figure_evidence.upper_bound(evidence, alpha) if limit.at_least else figure_evidence.lower_bound(evidence, alpha)
    )
    proven = f"{'at most' if limit.at_least else 'at least'} {bound:.4g}"
    return f"{describe_comparison(figure, limit)}, {limit.broken_side} {limit.name} {limit.value:g} (it is {proven})"


def _describe_proven(limit: FigureLimit, evidence: FigureEvidence, alpha: float) -> str:
    bound = (
        figure_evidence.lower_bound(evidence, alpha) if limit.at_least else figure_evidence.upper_bound(evidence, alpha)
    )
    subject = "difference " if limit.versus_serving else ""
    return f"{subject}{'at least' if limit.at_least else 'at most'} {bound:.4g}"


def _describe_undecided(
    figure: Figure, limit: FigureLimit, evidence: FigureEvidence, passes: float, fails: float
) -> str:
    low, high = figure_evidence.lower_bound(evidence, passes), figure_evidence.upper_bound(evidence, passes)
    value = figure.candidate - (figure.serving or 0) if limit.versus_serving else figure.candidate
    level = passes if (float(value) > limit.value) is limit.at_least else fails
    needed = evidence.required_examples(limit.value, level, _POWER)
    more = f"about {needed:,} examples would" if needed is not None and needed <= _MOST_NEEDED else "it lies too near"
    return (
        f"{describe_comparison(figure, limit)}: {figure.n} examples do not distinguish it from "
        f"{limit.name} {limit.value:g} ({low:.4g} to {high:.4g}); {more}"
    )


def format_figure(number: Decimal, sign: str = "") -> str:
    """Format a figure for messages."""
    return f"{float(number):{sign}.6g}"
