"""Figures of an evaluation's report: of the candidate and of the serving version, with their uncertainty."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from modelwright.api.common import INT64_MAX
from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.core import report_numbers
from modelwright.core.analysis.figure_evidence import (
    MOST_EXAMPLES,
    ExactValue,
    FigureEvidence,
    MeanOfExamples,
    PairedExamples,
    ShareOfExamples,
)

Entry = Mapping[str, Any]

_LEAST_EXAMPLES = 2
_ROUNDING = 1e-9
_MOST_DIGITS = 300


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the evaluation, for the whole of the data or for one slice of it.

    `n` are the examples; `better` and `worse` those for which only the candidate, or only the serving version, is
    right. `standard_error` is that of candidate - serving, `candidate_standard_error` that of the candidate's figure.
    `exact` means that it has no error. `flaw` explains an inconsistency of these, for users.
    """

    name: str
    candidate: Decimal
    serving: Decimal | None = None
    slice: str | None = None
    n: int | None = None
    better: int | None = None
    worse: int | None = None
    standard_error: Decimal | None = None
    candidate_standard_error: Decimal | None = None
    exact: bool = False
    flaw: str = ""

    @property
    def title(self) -> str:
        """Name of the figure in messages."""
        return figure_title(self.name, self.slice)

    def difference_evidence(self, *, higher: bool) -> FigureEvidence | str:
        """Return the evidence on candidate - serving, or why there is none. `higher`: a higher figure is better."""
        if self.serving is None:
            return "the serving version has no figure"
        if self.flaw:
            return self.flaw
        if self.exact:
            return ExactValue(float(self.candidate - self.serving))
        if self.better is not None and self.worse is not None:
            return self._paired_evidence(self.candidate - self.serving, higher=higher)
        if self.standard_error is None:
            return (
                "a difference needs n with better and worse (examples for which the candidate alone, or the serving "
                "version alone, is right), or n with standardError (of the difference)"
            )
        return self._mean_evidence(self.candidate - self.serving, self.standard_error, "standardError")

    def value_evidence(self) -> FigureEvidence | str:
        """Return the evidence on the candidate's figure, or why there is none."""
        if self.flaw:
            return self.flaw
        if self.exact:
            return ExactValue(float(self.candidate))
        if self.candidate_standard_error is not None and self.better is None:
            return self._mean_evidence(self.candidate, self.candidate_standard_error, "candidateStandardError")
        needed = "min and max need n, of a share, or n with candidateStandardError, of any other figure"
        if self.n is None:
            return needed
        slack = (self._rounding_error() + _ROUNDING) * self.n
        counted = float(self.candidate) * self.n
        least, most = math.ceil(counted - slack), math.floor(counted + slack)
        if not 0 <= self.candidate <= 1 or least > most:
            return f"it is no share of {self.n} examples: {needed}"
        n = min(self.n, MOST_EXAMPLES)
        return ShareOfExamples(n, max(least, 0) * n // self.n, min(-(-most * n // self.n), n))

    def _paired_evidence(self, difference: Decimal, *, higher: bool) -> FigureEvidence | str:
        assert self.n is not None and self.better is not None and self.worse is not None  # noqa: S101, PT018 - no flaw
        gained, lost = (self.better, self.worse) if higher else (self.worse, self.better)
        counted = (gained - lost) / self.n
        if abs(float(difference) - counted) > 2 * self._rounding_error() + _ROUNDING:
            return (
                f"better {self.better} and worse {self.worse} of n {self.n} make a difference of {counted:+.6g}, but "
                f"candidate - serving is {float(difference):+.6g}"
            )
        return PairedExamples(self.n, gained, lost)

    def _rounding_error(self) -> float:
        """Return the rounding error of each figure: half a unit of the last digit of the finer one."""
        exponents = [number.as_tuple().exponent for number in (self.candidate, self.serving) if number is not None]
        finest = min((exponent for exponent in exponents if isinstance(exponent, int)), default=0)
        return 0.5 * 10.0 ** max(finest, -_MOST_DIGITS) if finest < 0 else 0.0

    def _mean_evidence(self, value: Decimal, standard_error: Decimal, member: str) -> FigureEvidence | str:
        if self.n is None:
            return f"{member} needs n, the number of examples"
        if float(standard_error) == 0:
            return f"{member} is 0: {self.n} equal examples do not say how much others differ"
        return MeanOfExamples(float(value), float(standard_error), self.n)


def figure_title(name: str, part: str | None) -> str:
    """Return the name of a figure in messages."""
    return f"{name} of slice {part}" if part is not None else name


def list_gated_figures(metrics: Sequence[EvaluationMetric]) -> Iterator[tuple[EvaluationMetric, str | None]]:
    """List the figures that gates need: each metric with None for the whole, then with each of its slices."""
    return ((metric, part) for metric in metrics for part in (None, *metric.slices))


def parse_report_figure(name: str, part: str | None, entries: Sequence[Entry]) -> Figure | str:
    """Parse one figure from a report's entries; a text that says why it can't be used otherwise."""
    matches = [entry for entry in entries if entry.get("name") == name and entry.get("slice") == part]
    called = figure_title(name, part)
    if not matches:
        return f"{called} is not in the report"
    if len(matches) > 1:
        return f"{called} is in the report {len(matches)} times"
    entry = matches[0]
    candidate = report_numbers.parse_number(entry.get("candidate"))
    if candidate is None:
        return (
            f"{called} is {report_numbers.describe_value(entry.get('candidate'))} for the candidate, "
            "which is no finite number"
        )
    counts = {member: _parse_count(entry.get(member)) for member in ("n", "better", "worse")}
    errors = {
        member: report_numbers.parse_number(entry.get(member)) for member in ("standardError", "candidateStandardError")
    }
    return Figure(
        name,
        candidate,
        report_numbers.parse_number(entry.get("serving")),
        part,
        counts["n"],
        counts["better"],
        counts["worse"],
        errors["standardError"],
        errors["candidateStandardError"],
        entry.get("exact") is True,
        _find_flaw(entry, counts, errors),
    )


def find_first_missing(message: str, metrics: Sequence[EvaluationMetric]) -> str | None:
    """Find the first figure that gates need and that a truncated report lacks; None when it has all."""
    entries = list(_parse_whole_entries(message))
    return next(
        (
            figure_title(m.name, part)
            for m, part in list_gated_figures(metrics)
            if not _has_figure(entries, m.name, part)
        ),
        None,
    )


def _has_figure(entries: Sequence[Entry], name: str, part: str | None) -> bool:
    return any(entry.get("name") == name and entry.get("slice") == part for entry in entries)


def _parse_whole_entries(message: str) -> Iterator[Entry]:
    """Parse the entries that are whole in a truncated report."""
    decoder, place = json.JSONDecoder(), message.find("{")
    while place >= 0:
        try:
            entry, end = decoder.raw_decode(message, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            yield entry
            end = end if "name" in entry else place + 1
        place = message.find("{", end)


def _find_flaw(entry: Entry, counts: Mapping[str, int | None], errors: Mapping[str, Decimal | None]) -> str:
    """Describe an inconsistency in an entry's uncertainty; empty when there is none."""
    for member, parsed in (*counts.items(), *errors.items()):
        if entry.get(member) is not None and (parsed is None or parsed < 0):
            kind = "a whole number" if member in counts else "a finite number"
            return f"{member} is {report_numbers.describe_value(entry[member])}, and must be {kind} of at least 0"
    exact = entry.get("exact")
    if exact is not None and not isinstance(exact, bool):
        return f"exact is {report_numbers.describe_value(exact)}, and must be true or false"
    if exact and any(entry.get(member) is not None for member in ("better", "worse", *errors)):
        return "exact says that there is no error: leave it out, or better, worse and the standard errors"
    n, better, worse = counts["n"], counts["better"], counts["worse"]
    if n is not None and n < _LEAST_EXAMPLES:
        return f"n is {n}: so few examples prove nothing"
    if (better is None) != (worse is None):
        return "better and worse go together"
    if better is not None and worse is not None and (n is None or better + worse > n):
        return f"better {better} and worse {worse} are more than n {n}" if n is not None else "better and worse need n"
    return ""


def _parse_count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > INT64_MAX:
        return None
    return value
