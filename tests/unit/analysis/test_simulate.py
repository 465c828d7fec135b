"""The simulation in small, with a fixed seed: its bounds are far from what chance can do."""

import json

import numpy as np
import pytest

from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.planning import needed_samples
from tests.simulate.run import (
    ALPHA,
    RATE,
    Figure,
    Truth,
    decided,
    document,
    rollout,
    rollouts_with,
    z_test,
)

SAME = (Truth(0.01, 0.01), Truth(0.05, 0.05))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(4)


def test_equal_revisions_are_not_rolled_back_however_often_it_is_looked(random: np.random.Generator) -> None:
    assert rollouts_with(random, 20, SAME, (0.02, 0.05), "Fail") == 0


def test_harm_beyond_the_margins_is_not_passed(random: np.random.Generator) -> None:
    assert rollouts_with(random, 20, (Truth(0.01, 0.06), Truth(0.05, 0.2)), (0.02, 0.05), "Pass") == 0


def test_a_plain_test_that_is_repeated_errs_often(random: np.random.Generator) -> None:
    assert z_test(random, 100, 0.05) > 0.1


def test_the_needed_number_of_requests_decides(random: np.random.Generator) -> None:
    needed = needed_samples(0.02, 0.01, ALPHA, ratio=9.0, worse=0.09)
    assert needed is not None
    right, wrong = decided(random, 100, Truth(0.01, 0.1), 0.02, 9.0, needed, ALPHA)
    assert right >= 0.75
    assert wrong == 0


def test_the_default_policy_promotes_what_is_good_and_stops_what_is_bad(random: np.random.Generator) -> None:
    good = [rollout(random, SAME, RATE) for _ in range(5)]
    assert [told.outcome for told in good] == [Outcome.PASS] * 5
    assert all(len(told.seconds) == 2 for told in good)
    bad = [rollout(random, (Truth(0.0, 0.5), SAME[1]), RATE) for _ in range(5)]
    assert [told.outcome for told in bad] == [Outcome.FAIL] * 5


def test_without_traffic_nothing_is_decided(random: np.random.Generator) -> None:
    assert rollout(random, SAME, 0.0).outcome is Outcome.INCONCLUSIVE
    assert rollout(random, SAME, 0.1).outcome is Outcome.INCONCLUSIVE


def test_figures_are_written_in_the_common_format() -> None:
    told = document([Figure("a", 0.04, "share", at_most=0.05), Figure("b", 7, "s")], "python -m tests.simulate")
    assert json.loads(json.dumps(told))["figures"] == [
        {"name": "a", "value": 0.04, "unit": "share", "bound": "at most 0.05", "holds": True},
        {"name": "b", "value": 7, "unit": "s", "bound": None, "holds": None},
    ]
    assert set(told) == {"command", "date", "commit", "host", "figures"}
