"""The evaluation gate: reports judged by the limits of a policy."""

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.core import evaluation_gate
from modelwright.core.analysis import report_figures
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.evaluation_gate import FullReport, GateResult

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy host is no finding."""


def accuracy(**limits: Any) -> EvaluationMetric:
    return EvaluationMetric.model_validate({"name": "accuracy", **limits})


def entry(candidate: Any = 0.9, serving: Any = 0.9, **more: Any) -> dict[str, Any]:
    return {"name": "accuracy", "candidate": candidate, "serving": serving, **more}


def pairs(n: int, better: int, worse: int, serving: float = 0.9, **more: Any) -> dict[str, Any]:
    """A figure of n examples, for which the candidate alone, and what serves alone, is right this often."""
    return entry(serving + (better - worse) / n, serving, n=n, better=better, worse=worse, **more)


def judged(metric: EvaluationMetric, *entries: dict[str, Any], first: bool = False) -> GateResult:
    return evaluation_gate.evaluate_report([metric], {"metrics": list(entries)}, first=first)


LIMITS = [
    ("a share well above min", {"min": "0.9"}, entry(0.93, n=2000), "Pass"),
    ("a share above min by less than chance", {"min": "0.9"}, entry(0.905, n=2000), "Inconclusive"),
    ("a share below min by less than chance", {"min": "0.9"}, entry(0.895, n=2000), "Inconclusive"),
    ("a share well below min", {"min": "0.9"}, entry(0.85, n=2000), "Fail"),
    ("a share well below max", {"max": "0.1"}, entry(0.05, n=2000), "Pass"),
    ("a share well above max", {"max": "0.1"}, entry(0.15, n=2000), "Fail"),
    ("a share of 1", {"max": "0.9"}, entry(1, n=200), "Fail"),
    ("a share of 0", {"min": "0.1"}, entry(0, n=200), "Fail"),
    ("an error well below max", {"max": "3.2"}, entry(3.0, n=50, candidateStandardError=0.1), "Pass"),
    ("an error not far enough below max", {"max": "3.2"}, entry(3.1, n=50, candidateStandardError=0.1), "Inconclusive"),
    ("an error well above max", {"max": "3.2"}, entry(3.5, n=50, candidateStandardError=0.1), "Fail"),
    # A t with one degree of freedom: 6.3 standard errors, where a normal has 1.6.
    ("an error from two examples", {"max": "3.2"}, entry(2.8, n=2, candidateStandardError=0.1), "Inconclusive"),
    ("an exact figure at max", {"max": "120"}, entry(120, exact=True), "Pass"),
    ("an exact figure above max", {"max": "120"}, entry(121, exact=True), "Fail"),
    ("an exact figure at minDelta", {"minDelta": "-1"}, entry(119, 120, exact=True), "Pass"),
    ("an exact figure below minDelta", {"minDelta": "-1"}, entry(118, 120, exact=True), "Fail"),
    ("equal answers", {"minDelta": "-0.005"}, pairs(2000, 0, 0), "Pass"),
    ("equal answers of few examples", {"minDelta": "-0.005"}, pairs(300, 0, 0), "Inconclusive"),
    ("as many better as worse, too few", {"minDelta": "-0.005"}, pairs(2000, 60, 60), "Inconclusive"),
    ("as many better as worse, enough", {"minDelta": "-0.005"}, pairs(20000, 600, 600), "Pass"),
    ("many more worse", {"minDelta": "-0.005"}, pairs(2000, 40, 80), "Fail"),
    ("a loss of exactly the limit", {"minDelta": "-0.005"}, pairs(200000, 5500, 6500), "Inconclusive"),
    ("many more better, and a limit of 0", {"minDelta": "0"}, pairs(2000, 80, 40), "Pass"),
    ("more better, and a limit that is larger", {"minDelta": "0.05"}, pairs(2000, 80, 40), "Fail"),
    # Of a figure where less is better, better is less.
    ("an error rate that fell", {"maxDelta": "0"}, entry(0.08, 0.1, n=2000, better=80, worse=40), "Pass"),
    ("an error rate that rose", {"maxDelta": "0"}, entry(0.12, 0.1, n=2000, better=40, worse=80), "Fail"),
    ("an error that fell", {"maxDelta": "0"}, entry(3.0, 3.5, n=100, standardError=0.1), "Pass"),
    ("an error that fell by chance", {"maxDelta": "0"}, entry(3.4, 3.5, n=100, standardError=0.1), "Inconclusive"),
    ("an error that rose", {"maxDelta": "0"}, entry(3.9, 3.5, n=100, standardError=0.1), "Fail"),
    ("good alone and worse than what serves", {"min": "0.5", "minDelta": "-0.01"}, pairs(2000, 10, 90), "Fail"),
    ("figures as text", {"min": "0.5"}, entry("0.61", None, n=2000), "Pass"),
    ("no serving figure that is asked for", {"min": "0.5"}, entry(0.61, math.nan, n=2000), "Pass"),
    (
        "limits on both sides",
        {"minDelta": "-0.1", "maxDelta": "0.1", "min": "0.8", "max": "0.99"},
        pairs(2000, 50, 50),
        "Pass",
    ),
    ("99.9 % where 95 % are there", {"minDelta": "-0.02", "confidence": "0.999"}, pairs(1000, 30, 30), "Inconclusive"),
    ("95 % where 95 % are there", {"minDelta": "-0.02"}, pairs(1000, 30, 30), "Pass"),
]


@pytest.mark.parametrize(("limits", "figure", "outcome"), [case[1:] for case in LIMITS], ids=[c[0] for c in LIMITS])
def test_each_limit_must_be_proven(limits: dict[str, str], figure: dict[str, Any], outcome: str) -> None:
    found = judged(accuracy(**limits), figure)
    assert found.outcome == outcome, found.message
    reasons = {"Pass": "GatePassed", "Fail": "MetricOutOfLimits", "Inconclusive": "TooFewExamples"}
    assert found.reason == reasons[outcome]


UNKNOWN = [
    ("figures alone", entry(), "needs n with better and worse"),
    ("a number of examples alone", entry(n=2000), "needs n with better and worse"),
    ("one example", entry(1, 1, n=1, better=0, worse=0), "n is 1: so few examples prove nothing"),
    ("no example", entry(n=0, better=0, worse=0), "n is 0"),
    ("a number that is no number", entry(n="many", better=0, worse=0), "n is 'many'"),
    ("a number that is true", entry(n=True, better=0, worse=0), "n is True"),
    ("pairs without a number", entry(better=0, worse=0), "better and worse need n"),
    ("half of the pairs", entry(n=10, better=0), "better and worse go together"),
    ("more pairs than examples", entry(n=10, better=6, worse=6), "better 6 and worse 6 are more than n 10"),
    ("more examples than there are", entry(n=10**400, better=0, worse=0), "must be a whole number"),
    ("a standard error that is 0 as a number", entry(n=100, standardError="1e-999"), "100 equal examples"),
    ("pairs below 0", entry(n=10, better=-1, worse=-1), "better is -1"),
    ("better and worse exchanged", entry(0.92, 0.9, n=2000, better=40, worse=80), "candidate - serving is +0.02"),
    ("a standard error without a number", entry(standardError=0.01), "standardError needs n"),
    ("a standard error below 0", entry(n=100, standardError=-0.01), "standardError is -0.01"),
    ("a standard error that is no number", entry(n=100, standardError=math.inf), "standardError is inf"),
    ("a standard error of 0", entry(n=100, standardError=0), "100 equal examples"),
    ("exact, and yet with an error", entry(exact=True, n=9, standardError=1), "exact says that there is no error"),
    ("exact as a text", entry(exact="true"), "exact is 'true', and must be true or false"),
    ("said not to be exact", entry(exact=False), "needs n with better and worse"),
]


@pytest.mark.parametrize(("figure", "said"), [case[1:] for case in UNKNOWN], ids=[case[0] for case in UNKNOWN])
def test_a_figure_without_uncertainty_passes_no_comparison(figure: dict[str, Any], said: str) -> None:
    found = judged(accuracy(minDelta="-0.5"), figure)
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, "UncertaintyMissing")
    assert said in found.message


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (entry(0.9), "min and max need n, of a share, or n with candidateStandardError"),
        (entry(0.9, n=1), "n is 1"),
        (entry(3.4, n=200), "no share of 200 examples"),
        # A mean F1 is no share of the examples, and its error is another one.
        (entry(0.931234567, n=200), "no share of 200 examples"),
        (entry(0.9, candidateStandardError=0.01), "candidateStandardError needs n"),
        (entry(0.9, n=2000, standardError=0), "TooFewExamples"),
    ],
)
def test_a_figure_without_uncertainty_passes_no_absolute_limit(figure: dict[str, Any], said: str) -> None:
    found = judged(accuracy(min="0.9"), figure)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert said in f"{found.reason}: {found.message}"


def test_a_share_that_was_rounded_is_taken_at_its_worst() -> None:
    low, high = accuracy(min="0.919"), accuracy(max="0.941")
    for limits in (low, high):
        assert judged(limits, entry("0.93000", n=2000)).outcome is Outcome.PASS
        assert judged(limits, entry(0.93, n=2000)).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "accuracy is not in the report"),
        ([{"name": "recall", "candidate": 1}], "accuracy is not in the report"),
        ([entry(slice="night")], "accuracy is not in the report"),
        ([entry(), entry()], "2 times"),
        ([entry(None)], "no finite number"),
        ([entry(math.nan)], "no finite number"),
        ([entry(math.inf)], "no finite number"),
        ([entry("9e999999", "-9e999999")], "no finite number"),
        ([entry("much")], "no finite number"),
        ([entry(True)], "no finite number"),
        ([entry([0.9])], "no finite number"),
        ([entry(0.9, None)], "no finite figure for the serving version"),
        ([entry(0.9, math.nan)], "no finite figure for the serving version"),
    ],
)
def test_a_figure_that_is_missing_or_no_number_is_an_error(entries: list[dict[str, Any]], said: str) -> None:
    found = judged(accuracy(minDelta="-1"), *entries)
    assert (found.outcome, found.reason) == (Outcome.ERROR, "MetricMissing")
    assert said in found.message


@pytest.mark.parametrize("report", [{}, {"metrics": {"accuracy": 1}}, {"metrics": [0.9]}, {"metrics": None}])
def test_a_report_without_a_list_of_metrics_is_an_error(report: dict[str, Any]) -> None:
    found = evaluation_gate.evaluate_report([accuracy(min="0")], report, first=False)
    assert (found.outcome, found.reason) == (Outcome.ERROR, "ReportMissing")


def test_a_figure_proven_wrong_fails_beside_a_missing_one() -> None:
    found = judged(accuracy(min="0.9", slices=["night"]), entry(0.7, n=2000))
    assert (found.outcome, found.reason) == (Outcome.FAIL, "MetricOutOfLimits")
    assert "night" in found.message


SLICED = accuracy(min="0.8", slices=["day", "night"])


@pytest.mark.parametrize(
    ("night", "outcome"),
    [
        ([entry(0.9, n=500, slice="night")], "Pass"),
        ([entry(0.82, n=500, slice="night")], "Inconclusive"),
        ([entry(0.7, n=500, slice="night")], "Fail"),
        ([], "Error"),
        ([entry(0.9, n=500, slice="night"), entry(0.1, n=500, slice="dusk")], "Pass"),
    ],
)
def test_each_slice_that_is_named_must_be_there_and_proven(night: list[dict[str, Any]], outcome: str) -> None:
    found = judged(SLICED, entry(0.9, n=1000), entry(0.9, n=500, slice="day"), *night)
    assert found.outcome == outcome, found.message
    assert outcome == "Pass" or "accuracy of slice night" in found.message


def test_only_the_level_of_a_fail_is_divided_by_the_limits() -> None:
    low, high = pairs(2000, 40, 67), pairs(2000, 40, 40)
    assert judged(accuracy(minDelta="0"), low).outcome is Outcome.FAIL
    many = accuracy(minDelta="-0.01", slices=[f"s{n}" for n in range(31)])
    assert judged(many, high, *({**high, "slice": name} for name in many.slices)).outcome is Outcome.PASS
    strict = accuracy(minDelta="0", slices=[f"s{n}" for n in range(31)])
    assert judged(strict, low, *({**high, "slice": name} for name in strict.slices)).outcome is Outcome.INCONCLUSIVE


def test_without_limits_nothing_is_blessed() -> None:
    found = evaluation_gate.evaluate_report([], {"metrics": [entry()]}, first=False)
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, "NoLimits")


@pytest.mark.parametrize(
    ("limits", "candidate", "outcome", "reason"),
    [
        ({"min": "0.8", "minDelta": "0.1"}, 0.85, "Pass", "GatePassed"),
        ({"min": "0.8", "minDelta": "0.1"}, 0.7, "Fail", "MetricOutOfLimits"),
        ({"minDelta": "0.1"}, 0.85, "Pass", "NoBaseline"),
        ({"minDelta": "0.1"}, math.nan, "Error", "MetricMissing"),
    ],
)
def test_a_first_revision_skips_limits_versus_serving(
    limits: dict[str, str], candidate: float, outcome: str, reason: str
) -> None:
    found = judged(accuracy(**limits), entry(candidate, None, n=2000), first=True)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert "limits versus the serving version were skipped" in found.message


MESSAGES = [
    ({"min": "0.9"}, entry(0.85, n=2000), "accuracy is 0.85, below min 0.9 (it is at most 0.8678)"),
    (
        {"minDelta": "-0.01"},
        pairs(2000, 20, 120),
        "accuracy is 0.85, -0.05 versus the serving version's 0.9, below minDelta -0.01 (it is at most -0.04018)",
    ),
    ({"minDelta": "-0.02"}, pairs(2000, 60, 60), "accuracy 0.9 (serving 0.9), difference at least -0.009602"),
    (
        {"minDelta": "-0.005"},
        pairs(2000, 60, 60),
        "accuracy is 0.9, +0 versus the serving version's 0.9: 2000 examples do not distinguish it from minDelta "
        "-0.005 (-0.009602 to 0.009602); about 21,193 examples would",
    ),
]


@pytest.mark.parametrize(("limits", "figure", "message"), MESSAGES)
def test_the_message_has_the_numbers(limits: dict[str, str], figure: dict[str, Any], message: str) -> None:
    assert judged(accuracy(**limits), figure).message == message


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        (
            {"uri": "s3://reports/1.json", "digest": "sha256:" + "a" * 64},
            FullReport("s3://reports/1.json", "sha256:" + "a" * 64),
        ),
        (
            {"uri": "https://u:p@example.com/r?token=x", "digest": "sha256:" + "a" * 64},
            FullReport("https://example.com/r?...", "sha256:" + "a" * 64),
        ),
        ({"uri": "s3://reports/1.json"}, None),
        ({"uri": "s3://reports/\n1.json", "digest": "sha256:" + "a" * 64}, None),
        ("s3://reports/1.json", None),
    ],
)
def test_the_full_reports_address_decides_nothing(document: Any, kept: FullReport | None) -> None:
    report = {"metrics": [entry(0.95, n=2000)], "fullReport": document}
    found = evaluation_gate.evaluate_report([accuracy(min="0.9")], report, first=False)
    assert (found.outcome, found.full_report) == (Outcome.PASS, kept)
    assert ("fullReport was left out" in found.message) is (kept is None)


@pytest.mark.parametrize(
    ("limits", "figure", "outcome"),
    [
        ({"min": "0.9"}, entry("0.9300000000000", n=10**15), "Pass"),
        ({"max": "0.9"}, entry("0.9300000000000", n=10**15), "Fail"),
        ({"minDelta": "-0.01"}, pairs(10**15, 10**14, 10**14), "Pass"),
        ({"min": "0"}, entry("1e300", n=10**15, candidateStandardError="1e-300"), "Pass"),
        ({"min": "0"}, entry("1e-300", n=2, candidateStandardError="1e300"), "Inconclusive"),
        ({"minDelta": "0"}, entry("1e300", "-1e300", n=2, standardError="1e300"), "Inconclusive"),
        ({"minDelta": "-1"}, pairs(2, 0, 2, serving=1.0), "Inconclusive"),
        ({"minDelta": "-2"}, pairs(2, 0, 2, serving=1.0), "Pass"),
        ({"minDelta": "2"}, pairs(2, 2, 0, serving=0.0), "Fail"),
    ],
)
def test_figures_of_any_size_are_judged(limits: dict[str, str], figure: dict[str, Any], outcome: str) -> None:
    assert judged(accuracy(**limits), figure).outcome == outcome


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "candidate", "n"]), inner),
    max_leaves=6,
)
_ENTRY = st.fixed_dictionaries(
    {"name": st.just("accuracy")},
    optional={
        name: st.integers(-2, 30) | st.floats() | st.sampled_from(["0.9", "", None, True])
        for name in ("candidate", "serving", "n", "better", "worse", "standardError", "candidateStandardError")
    },
)


@UNTIMED
@given(
    report=st.fixed_dictionaries({"metrics": _ANY | st.lists(_ENTRY, max_size=2), "fullReport": _ANY}),
    first=st.booleans(),
)
def test_no_report_passes_without_uncertainty(report: dict[str, Any], first: bool) -> None:
    found = evaluation_gate.evaluate_report([accuracy(min="0.5", minDelta="-0.5")], report, first=first)
    if found.outcome is not Outcome.PASS:
        assert found.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR)
        assert found.message
        return
    figure = found.figures[0]
    assert figure.candidate >= 0.5
    assert figure.n is not None
    assert figure.n >= 2
    assert first or figure.better is not None or figure.standard_error


@UNTIMED
@given(text=st.text(max_size=40), cut=st.integers(0, 200))
def test_a_report_cut_anywhere_names_its_first_missing_figure(text: str, cut: int) -> None:
    whole = '{"a": 1, "metrics": [{"name": "accuracy", "candidate": 1}, {"name": "accuracy", "slice": "day"}], "b": 1}'
    message = whole[:cut] + text if text else whole[:cut]
    found = report_figures.find_first_missing(message, [accuracy(min="0.5", slices=["day"])])
    assert found in (None, "accuracy", "accuracy of slice day")
    if not text:
        ends = [whole.index("}, {") + 1, whole.index('"day"}') + 6]
        assert found == (None if cut >= ends[1] else "accuracy of slice day" if cut >= ends[0] else "accuracy")
