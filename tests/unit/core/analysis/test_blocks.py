"""Evidence from blocks: exact on small blocks, right at the ends, the same as its definition and as its numpy twin."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.core.analysis.blocks import (
    BlockPair,
    DifferenceEvidence,
    evidence_beyond,
    evidence_within,
    nearest_null_point,
    pair_blocks,
)
from modelwright.core.analysis.evidence import Block
from modelwright.core.analysis.scraped_counters import block_ends
from tests.simulate import vectors

TIMES = (15.0, 30.0, 45.0)


def blocks(*counts: tuple[float, float]) -> list[Block]:
    return [Block(end, trials, events) for end, (trials, events) in zip(TIMES, counts, strict=False)]


def steady(n1: float, k1: float, n0: float, k0: float, number: int = 20) -> list[BlockPair]:
    return [BlockPair(n1, k1, n0, k0)] * number


@pytest.mark.parametrize(
    ("counts", "limit", "passes", "fails"),
    [
        (steady(20, 0, 180, 0), 0.02, True, False),
        (steady(20, 0, 180, 0, 5), 0.02, False, False),
        (steady(100, 1, 900, 9), 0.02, True, False),
        (steady(100, 1, 900, 9), 0.0, False, False),
        (steady(60, 6, 540, 5), 0.02, False, True),
        (steady(2, 2, 18, 0, 5), 0.02, False, True),
        (steady(60, 60, 540, 540), 0.02, True, False),
        (steady(60, 30, 540, 270, 40), 0.05, True, False),
        (steady(60, 54, 540, 540, 30), -0.05, True, False),
        (steady(60, 60, 540, 540), -0.05, False, True),
    ],
)
def test_steady_counts_prove_the_limit_at_five_percent(
    counts: list[BlockPair], limit: float, passes: bool, fails: bool
) -> None:
    assert (evidence_within(counts, limit).last >= math.log(20)) == passes
    assert (evidence_beyond(counts, limit).last >= math.log(20)) == fails


def test_without_requests_there_is_no_evidence() -> None:
    assert evidence_within((), 0.02).last == evidence_beyond((), 0.02).last == 0
    assert evidence_within((), 0.02).peak == 0


def test_the_most_is_at_least_what_the_last_block_left() -> None:
    turning = [*steady(60, 0, 540, 0), *steady(60, 20, 540, 0, 5)]
    found = evidence_within(turning, 0.02)
    assert found.peak > math.log(20)
    assert found.last < 0


def likelihood(pair: BlockPair, p1: float, p0: float) -> float:
    choose = math.comb(int(pair.n1), int(pair.k1)) * math.comb(int(pair.n0), int(pair.k0))
    return choose * p1**pair.k1 * (1 - p1) ** (pair.n1 - pair.k1) * p0**pair.k0 * (1 - p0) ** (pair.n0 - pair.k0)


PASTS = ([], [BlockPair(3, 0, 9, 1)], [BlockPair(5, 3, 2, 0), BlockPair(1, 1, 30, 2)], [BlockPair(40, 0, 1, 1)])


@pytest.mark.parametrize("limit", [0.0, 0.02, 0.3, -0.1])
@pytest.mark.parametrize(("n1", "n0"), [(1, 1), (1, 9), (9, 1), (3, 4)])
def test_under_the_hypothesis_a_blocks_mean_is_at_most_one(n1: int, n0: int, limit: float) -> None:
    shares = (0.0, 0.02, 0.05, 0.1, 0.35, 0.5, 0.8, 0.98, 1.0)
    for past, p1, p0 in product(PASTS, shares, shares):
        every = [BlockPair(n1, k1, n0, k0) for k1 in range(n1 + 1) for k0 in range(n0 + 1)]
        for evidence, true in ((evidence_within, p1 - p0 >= limit), (evidence_beyond, p1 - p0 <= limit)):
            if true:
                before = math.exp(evidence(past, limit).last)
                mean = sum(likelihood(pair, p1, p0) * math.exp(evidence([*past, pair], limit).last) for pair in every)
                assert mean <= before * (1 + 1e-9), (past, p1, p0, evidence)


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1.0, 1e6), (1e6, 1.0), (1e9, 1e9), (0.2, 0.3)])
@pytest.mark.parametrize("limit", [0.0, 1e-6, 0.02, 0.3, -0.02, -0.3])
def test_the_nearest_point_is_on_the_limit_and_nearest(sizes: tuple[float, float], limit: float) -> None:
    n1, n0 = sizes
    for q1, q0 in product((1e-6, 0.01, 0.5, 0.99, 1 - 1e-6), repeat=2):
        if q1 - q0 >= limit:
            continue
        (r1, _), (r0, _) = nearest_null_point(n1, (q1, 1 - q1), n0, (q0, 1 - q0), limit)
        assert r1 - r0 == pytest.approx(limit, abs=1e-12)

        def distance(x: float, q1: float = q1, q0: float = q0) -> float:
            y = x + limit
            if not (0 < x < 1 and 0 < y < 1):
                return math.inf
            apart = n1 * (q1 * math.log(q1 / y) + (1 - q1) * math.log((1 - q1) / (1 - y)))
            return apart + n0 * (q0 * math.log(q0 / x) + (1 - q0) * math.log((1 - q0) / (1 - x)))

        for near in (r0 * 0.99, r0 * 1.01, 1 - (1 - r0) * 0.99, 1 - (1 - r0) * 1.01):
            assert distance(r0) <= distance(near) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("candidate", "serving"), [(0.01, 0.01), (0.05, 0.01), (0.0, 0.0), (0.3, 0.2), (0.001, 0.3), (1.0, 0.0)]
)
@pytest.mark.parametrize("limit", [0.0, 0.02, -0.01])
def test_the_twin_of_the_simulation_finds_the_same(candidate: float, serving: float, limit: float) -> None:
    random = np.random.default_rng(1)
    n1, n0 = 1 + random.poisson(30, (5, 20)), 1 + random.poisson(300, (5, 20))
    k1, k0 = random.binomial(n1, candidate), random.binomial(n0, serving)
    for twin, real in ((vectors.within, evidence_within), (vectors.beyond, evidence_beyond)):
        found = twin(n1, k1, n0, k0, limit)
        for run in range(5):
            pairs = [BlockPair(*map(float, counts)) for counts in zip(n1[run], k1[run], n0[run], k0[run], strict=True)]
            assert real(pairs, limit).last == pytest.approx(found[run, -1], rel=1e-6, abs=1e-6)


def test_blocks_wait_until_both_revisions_have_requests() -> None:
    candidate, serving = blocks((0, 0), (5, 1), (7, 0)), blocks((9, 0), (8, 2), (0, 0))
    assert pair_blocks(candidate, serving) == (BlockPair(5, 1, 17, 2),)


def test_a_burst_divides_the_counts() -> None:
    assert pair_blocks(blocks((10, 5)), blocks((20, 0)), burst=5) == (BlockPair(2, 1, 4, 0),)


def test_blocks_of_different_times_are_refused() -> None:
    with pytest.raises(ValueError, match="same times"):
        pair_blocks(blocks((1, 0)), [Block(16.0, 1, 0)])


def test_a_burst_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        pair_blocks(blocks((1, 0)), blocks((1, 0)), burst=0.5)


def test_more_bad_requests_than_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="events <= trials"):
        Block(15.0, 1, 2)


def test_a_block_started_before_all_are_counted_is_incomplete() -> None:
    candidate, serving = blocks((5, 0), (0, 0), (7, 0)), blocks((9, 0), (8, 0), (6, 0))
    for complete_at, complete in ((-math.inf, [True, True]), (15.0, [False, True]), (16.0, [False, False])):
        assert [pair.complete for pair in pair_blocks(candidate, serving, complete_at=complete_at)] == complete


def early(n1: float, k1: float, n0: float, k0: float, number: int = 20) -> list[BlockPair]:
    return [BlockPair(n1, k1, n0, k0, complete=False)] * number


@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(0, 3), st.integers(1, 400), st.integers(0, 5)), max_size=30),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.02, 0.1]),
)
def test_blocks_that_lack_requests_only_ever_hold_a_pass(
    counts: list[tuple[int, int, int, int]], lacking: int, limit: float
) -> None:
    whole = [BlockPair(n1, min(k1, n1), n0, min(k0, n0)) for n1, k1, n0, k0 in counts]
    partly = [replace(pair, complete=at >= lacking) for at, pair in enumerate(whole)]
    before, after = (DifferenceEvidence.from_pairs(pairs, limit).decide(0.05, 0.0125) for pairs in (whole, partly))
    assert after is before or (before is True and after is None)


def hanging(random: np.random.Generator, rate: float, hang: float, seconds: float) -> tuple[list[Block], list[Block]]:
    """Ten minutes of a step of 10 % at `rate`, whose candidate lets this share of its requests hang for `seconds`."""
    found: tuple[list[Block], list[Block]] = ([], [])
    start = 0.0
    for end in block_ends(0.0, 600.0):
        hung = max(0.0, end - max(start, seconds)) * rate * 0.1 * hang
        good = (end - start) * rate * 0.1 * (1 - hang)
        bad, well = int(random.poisson(hung)), int(random.poisson(good))
        found[0].append(Block(end, bad + well, bad))
        found[1].append(Block(end, int(random.poisson((end - start) * rate * 0.9)), 0))
        start = end
    return found


@pytest.mark.parametrize("rate", [20.0, 100.0, 200.0])
def test_a_hanging_candidate_fails_to_pass_before_requests_end(rate: float) -> None:
    passed = {True: 0, False: 0}
    for seed in range(20):
        arms = hanging(np.random.default_rng(seed), rate, 0.1, 60.0)
        for known in passed:
            pairs = pair_blocks(*arms, complete_at=60.0 if known else -math.inf)
            decisions = (
                DifferenceEvidence.from_pairs(pairs[:until], 0.02).decide(0.05, 0.0125)
                for until in range(4, len(pairs) + 1)
            )
            passed[known] += next((found for found in decisions if found is not None), False)
    assert passed[True] == 0
    assert rate < 100 or passed[False] == 20


@pytest.mark.parametrize(
    ("case", "pairs", "expected"),
    [
        ("proven by blocks that lack requests", early(60, 0, 540, 0), None),
        ("half of it by complete ones", [*early(60, 0, 540, 0, 10), *steady(60, 0, 540, 0, 3)], True),
        ("that, and harm since", [*early(60, 0, 540, 0), *steady(60, 6, 540, 0, 4)], None),
        ("harm proven by blocks that lack requests", early(60, 12, 540, 0), False),
        ("proven", steady(60, 0, 540, 0), True),
        ("proven, and one bad block since", [*steady(20, 0, 180, 0, 12), BlockPair(60, 1, 540, 4)], True),
        ("proven, and harm since", [*steady(60, 0, 540, 0), *steady(60, 12, 540, 0, 4)], None),
        ("harm proven", steady(60, 12, 540, 0), False),
        ("harm proven, and none since", [*steady(60, 12, 540, 0), *steady(60, 0, 540, 0, 4)], False),
        ("nothing yet", [], None),
    ],
)
def test_earlier_proofs_count(case: str, pairs: list[BlockPair], expected: bool | None) -> None:
    found = DifferenceEvidence.from_pairs(pairs, 0.02)
    assert found.decide(0.05, 0.0125) is expected
    interval = found.confidence_interval(0.05, 0.0125)
    assert (interval.high <= 0.02) == (expected is True)
    assert (interval.low >= 0.02) == (expected is False)
