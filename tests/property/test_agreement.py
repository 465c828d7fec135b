"""Agreement as a whole, from the answers of two revisions to the verdict."""

import random
from datetime import UTC, datetime

import pytest

from modelwright.agents.comparer.comparison import AnswerComparison, RevisionAnswer
from modelwright.agents.comparer.comparison_stats import ComparisonStats
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis import comparison_summary
from modelwright.core.analysis.comparison_summary import RevisionPair
from modelwright.core.analysis.evidence import Measurement, Outcome, Verdict
from modelwright.core.analysis.judge import judge_metric
from modelwright.core.analysis.planning import Levels
from modelwright.core.rollout import step_analysis

AT = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = RevisionAnswer(200, 0.01)
METRIC = Metric.model_validate({"name": "same-answers", "builtin": "agreement", "min": "0.98"})
ALPHA = 0.0125


def tally() -> ComparisonStats:
    return ComparisonStats(RevisionPair(serving="a", candidate="b"), AT)


def answered(into: ComparisonStats, rows: int, differing: int, times: int = 1) -> None:
    for _ in range(times):
        into.add(GOOD, GOOD, AnswerComparison(compared=True, rows=rows, disagreements=differing))


def verdict(found: ComparisonStats) -> Verdict:
    measured = Measurement(METRIC.name, AT, comparison_summary.agreement_sample(found.build_summary()))
    return judge_metric(step_analysis.build_limits(METRIC, 0, alone=False), measured, levels=Levels(ALPHA, ALPHA))


def test_rows_of_few_answers_are_no_proof() -> None:
    found = tally()
    answered(found, rows=64, differing=0, times=40)
    result = verdict(found)
    assert (result.outcome, result.reason) == (Outcome.INCONCLUSIVE, "InsufficientSamples")
    assert result.message.startswith("40 of 300 answers")


def test_a_large_answer_counts_as_a_small_one_does() -> None:
    found = tally()
    answered(found, rows=1, differing=1, times=30)
    answered(found, rows=1, differing=0, times=270)
    answered(found, rows=10_000, differing=0)
    assert verdict(found).outcome is Outcome.FAIL


def test_an_answer_without_rows_counts_only_with_a_difference() -> None:
    found = tally()
    answered(found, rows=0, differing=0)
    assert found.build_summary().answers.count == 0
    found.add(GOOD, RevisionAnswer(500, 0.01), AnswerComparison(compared=True, mismatch="unanswered"))
    assert (found.build_summary().answers.count, found.build_summary().agreement) == (1, 0.0)


@pytest.mark.parametrize("rows", [1, 8, 32])
def test_answers_differing_as_a_whole_pass_within_the_level(rows: int) -> None:
    randomness, passed, runs = random.Random(3), 0, 60
    for _ in range(runs):
        found = tally()
        for _ in range(10):
            for _ in range(100):
                answered(found, rows, rows if randomness.random() < 0.03 else 0)
            if verdict(found).outcome is not Outcome.INCONCLUSIVE:
                break
        passed += verdict(found).outcome is Outcome.PASS
    # Three of sixty come with probability 0.008 when each passes with probability 0.0125.
    assert passed <= 3
