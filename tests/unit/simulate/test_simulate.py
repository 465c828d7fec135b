"""The simulation in small, with a fixed seed: its bounds are far from what chance can do."""

import json

import numpy as np
import pytest

from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.planning import estimate_samples
from tests.simulate import mirror
from tests.simulate.command import Figure, document
from tests.simulate.run import (
    LEVELS,
    MARGINS,
    RATE,
    Blocks,
    Truth,
    confounded,
    decided,
    drawn,
    look,
    promoted,
    rolled_back,
    rollouts,
    z_test,
)

SAME = (Truth(0.01, 0.01), Truth(0.05, 0.05))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(4)


def test_bursts_make_no_request_better_where_they_do_not_divide_the_requests(random: np.random.Generator) -> None:
    bad = drawn(random, np.full(20_000, 59.0), 0.5, 10)
    assert bad.max() == 59
    assert bad.mean() == pytest.approx(59 / 2, abs=0.5)


def test_equal_revisions_are_not_rolled_back_however_often_it_is_looked(random: np.random.Generator) -> None:
    assert rolled_back(random, 100, SAME, MARGINS) <= 0.02


def test_harm_beyond_the_margins_is_not_passed(random: np.random.Generator) -> None:
    assert promoted(random, 100, (Truth(0.01, 0.06), Truth(0.05, 0.2)), MARGINS) == 0


def test_weather_that_changes_with_the_weight_deceives_nobody(random: np.random.Generator) -> None:
    for first in (True, False):
        fails, passes = confounded(random, 200, first)
        assert fails <= 0.05
        assert passes <= 0.1


def test_a_plain_test_that_is_repeated_errs_often(random: np.random.Generator) -> None:
    assert z_test(random, 100, 0.05) > 0.1


def test_the_needed_number_of_requests_decides(random: np.random.Generator) -> None:
    needed = estimate_samples(0.02, 0.01, LEVELS.fails, ratio=9.0, worse=0.09)
    assert needed is not None
    right, wrong = decided(random, 100, Truth(0.01, 0.1), 0.02, 9.0, needed)
    assert right >= 0.75
    assert wrong == 0


def test_the_default_policy_promotes_what_is_good_and_stops_what_is_bad(random: np.random.Generator) -> None:
    good = rollouts(random, 5, SAME, RATE)
    assert [told.outcome for told in good] == [Outcome.PASS] * 5
    assert all(len(told.seconds) == 2 for told in good)
    bad = rollouts(random, 5, (Truth(0.0, 0.5), SAME[1]), RATE)
    assert [told.outcome for told in bad] == [Outcome.FAIL] * 5


@pytest.mark.parametrize(
    ("late", "age", "outcome"),
    [(600, 60.0, Outcome.INCONCLUSIVE), (1, 90.0, Outcome.INCONCLUSIVE), (600, 90.0, Outcome.PASS)],
    ids=["all blocks lack what hangs", "later blocks are too small to prove it", "half is proven by later blocks"],
)
def test_a_pass_needs_blocks_that_lack_no_request(late: int, age: float, outcome: Outcome) -> None:
    ends = [15.0 * n for n in range(1, int(age / 15) + 1)]
    n1 = np.array([[600.0 if end <= 60 else late for end in ends]])
    none = np.zeros_like(n1)
    counts = Blocks(n1, none, 9 * n1, none)
    assert look(0, ends, [counts, counts], 0, age) is outcome


def test_without_traffic_nothing_is_decided(random: np.random.Generator) -> None:
    for rate in (0.0, 0.1):
        assert [told.outcome for told in rollouts(random, 1, SAME, rate)] == [Outcome.INCONCLUSIVE]


def test_answers_and_pairs_on_their_limits_are_hardly_ever_decided(random: np.random.Generator) -> None:
    rarely = [figure.value for figure in mirror.levels(random, 50)]
    assert max(rarely) <= 0.1


def test_pairs_take_fewer_requests_than_arms(random: np.random.Generator) -> None:
    counts = mirror.pairs(random, 20, 0.05, 0.9, 0.0, 50, looks=40)
    by_pairs = mirror.decisions(mirror.differences(counts), mirror.PAIR, 0.05)[0]
    assert mirror.ninety(by_pairs, 50) < mirror.ninety(mirror.by_arms(counts, 0.05), 50)


def test_figures_are_written_in_the_common_format() -> None:
    told = document([Figure("a", 0.04, "share", at_most=0.05), Figure("b", 7, "s")], "python -m tests.simulate")
    assert json.loads(json.dumps(told))["figures"] == [
        {"name": "a", "value": 0.04, "unit": "share", "bound": "at most 0.05", "holds": True},
        {"name": "b", "value": 7, "unit": "s", "bound": None, "holds": None},
    ]
    assert set(told) == {"command", "date", "commit", "host", "figures"}
