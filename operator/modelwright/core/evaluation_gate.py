"""The evaluation gate: judges the figures of a report, with their errors, by the limits of a policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.core.analysis import report_figures
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.figure_limits import FigureLimit, describe_comparison, format_figure, weigh_evidence
from modelwright.core.analysis.report_figures import Figure
from modelwright.net.addresses import redact_uri

DEFAULT_CONFIDENCE = 0.95
"""Confidence of a limit when the policy sets none."""

_URI = re.compile(r"[a-z0-9+.-]+://[!-~]{1,2000}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class FullReport:
    """Address and digest of the whole report, which has more figures than fit into a termination message."""

    uri: str
    digest: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """The result of a gate. Error means that no judgement was reached. `message` has the numbers, for users."""

    outcome: Outcome
    reason: str
    message: str
    figures: tuple[Figure, ...] = ()
    full_report: FullReport | None = None


@dataclass
class _LimitFindings:
    """Findings on all limits, as texts for the message."""

    figures: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


def evaluate_report(metrics: Sequence[EvaluationMetric], report: Mapping[str, Any], *, first: bool) -> GateResult:
    """Judge an evaluation's report:

    {"metrics": [{"name", "candidate", "serving", "slice"?, "n"?, "better"?, "worse"?, "standardError"?,
    "candidateStandardError"?}], "fullReport"?: {"uri", "digest"}}.

    Each limit of each metric is judged for the whole (no slice) and for each slice that the policy names, by a
    one-sided interval at the metric's confidence. Pass: every limit is proven to hold. All must pass for the gate to
    pass, so each has the whole error of 1 - confidence (the intersection-union test of Berger 1982, "Multiparameter
    hypothesis testing and acceptance sampling", Technometrics 24). Fail: one is proven not to hold; any of them fails
    the gate, so they divide the error among them (Bonferroni). Else Inconclusive.

    A figure that is missing, not finite or present twice is an Error: it is no finding about the candidate, and never a
    pass. `first`: nothing serves yet; limits versus serving are then skipped, which the message mentions. Without any
    limit the gate is Inconclusive. Follows TFX' Evaluator, which blesses nothing by accident and treats a missing
    baseline in this way.
    """
    if not any(_list_limits(metric, first=False) for metric in metrics):
        return GateResult(Outcome.INCONCLUSIVE, Reason.NO_LIMITS, "the evaluation has no limits: nothing was judged")
    entries = report.get("metrics")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        text = 'the report needs "metrics", a list of {"name", "candidate", "serving", "slice", "n"}'
        return GateResult(Outcome.ERROR, Reason.REPORT_MISSING, text)
    findings = _LimitFindings()
    judged = sum(len(_list_limits(metric, first=first)) for metric, _ in report_figures.list_gated_figures(metrics))
    for metric, part in report_figures.list_gated_figures(metrics):
        _add_findings(
            findings, metric, report_figures.parse_report_figure(metric.name, part, entries), judged, first=first
        )
    skipped = first and any(
        len(_list_limits(metric, first=False)) > len(_list_limits(metric, first=True)) for metric in metrics
    )
    note = "nothing serves yet, so limits versus the serving version were skipped" if skipped else ""
    outcome, reason = _decide_outcome(findings, passed=Reason.GATE_PASSED if judged else Reason.NO_BASELINE)
    shown = (
        findings.held
        if outcome is Outcome.PASS
        else [*findings.wrong, *findings.missing, *findings.uncertain, *findings.undecided]
    )
    full = _parse_full_report(report.get("fullReport"))
    if isinstance(full, str):
        shown, full = [*shown, full], None
    return GateResult(outcome, reason, "; ".join(filter(None, [*shown, note])), tuple(findings.figures), full)


def _parse_full_report(document: object) -> FullReport | str | None:
    """Parse the address of the full report, or explain why it is rejected. It never changes the outcome."""
    if document is None:
        return None
    uri, digest = (document.get("uri"), document.get("digest")) if isinstance(document, Mapping) else (None, None)
    if not isinstance(uri, str) or not _URI.match(uri) or not isinstance(digest, str) or not _DIGEST.match(digest):
        return 'fullReport was left out: it must be {"uri": an address, "digest": "sha256:" and 64 hex digits}'
    return FullReport(redact_uri(uri), digest)


def _decide_outcome(findings: _LimitFindings, passed: Reason) -> tuple[Outcome, Reason]:
    if findings.wrong:
        return Outcome.FAIL, Reason.METRIC_OUT_OF_LIMITS
    if findings.missing:
        return Outcome.ERROR, Reason.METRIC_MISSING
    if findings.uncertain:
        return Outcome.INCONCLUSIVE, Reason.UNCERTAINTY_MISSING
    if findings.undecided:
        return Outcome.INCONCLUSIVE, Reason.TOO_FEW_EXAMPLES
    return Outcome.PASS, passed


def _add_findings(
    findings: _LimitFindings, metric: EvaluationMetric, figure: Figure | str, judged: int, *, first: bool
) -> None:
    """Add the findings on one figure. `judged`: number of limits of all figures, which share a Fail's error."""
    if isinstance(figure, str):
        findings.missing.append(figure)
        return
    findings.figures.append(figure)
    alpha = 1 - (float(metric.confidence) if metric.confidence is not None else DEFAULT_CONFIDENCE)
    held: list[str] = []
    for limit in _list_limits(metric, first=first):
        if limit.versus_serving and figure.serving is None:
            findings.missing.append(f"{figure.title} has no finite figure for the serving version")
            continue
        evidence = (
            figure.difference_evidence(higher=metric.min_delta is not None)
            if limit.versus_serving
            else figure.value_evidence()
        )
        if isinstance(evidence, str):
            findings.uncertain.append(
                f"{describe_comparison(figure, limit)}: whether {limit.name} holds is unknown, {evidence}"
            )
            continue
        outcome, text = weigh_evidence(figure, limit, evidence, alpha, alpha / judged)
        texts_by_outcome = {Outcome.PASS: held, Outcome.FAIL: findings.wrong, Outcome.INCONCLUSIVE: findings.undecided}
        texts_by_outcome[outcome].append(text)
    versus = f" (serving {format_figure(figure.serving)})" if figure.serving is not None else ""
    findings.held.append(", ".join([f"{figure.title} {format_figure(figure.candidate)}{versus}", *held]))


def _list_limits(metric: EvaluationMetric, *, first: bool) -> list[FigureLimit]:
    """List the limits of a metric; `first`: without those versus serving."""
    every = (
        ("min", metric.min, True, False),
        ("max", metric.max, False, False),
        ("minDelta", metric.min_delta, True, True),
        ("maxDelta", metric.max_delta, False, True),
    )
    return [
        FigureLimit(name, float(value), at_least, versus)
        for name, value, at_least, versus in every
        if value is not None and not (first and versus)
    ]
