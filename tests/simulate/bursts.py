"""Bad requests in bursts, where a margin's blocks don't show them: limits of the candidate's own share, answers and
pairs of mirror steps, and the time before the first block: docs/figures/bursts.json."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from modelwright.core.analysis.blocks import BlockPair
from modelwright.core.analysis.comparison_summary import DISAGREEMENT_POINTS
from modelwright.core.analysis.dispersion import MAX_DISPERSION, estimate_dispersion
from modelwright.core.analysis.judge import UNBLOCKED_LEVEL_SHARE
from modelwright.core.analysis.scraped_counters import FIRST_BLOCK_SECONDS, block_ends
from modelwright.core.analysis.sequential import SHARE_PRIOR, difference_interval
from modelwright.core.rollout.step_analysis import DEFAULT_MIN_SAMPLES
from tests.simulate import command, mirror, tables
from tests.simulate.command import Figure
from tests.simulate.run import DEADLINE, LEVELS, RATE, Blocks, Truth, blocks
from tests.simulate.vectors import Floats

FIGURES = command.FOLDER / "bursts.json"
BURSTS = (1, 2, 5, 10)
LENGTHS = [after - before for before, after in pairwise([0.0, *block_ends(0.0, DEADLINE)])]
_LOG_GAMMA = np.vectorize(math.lgamma, otypes=[float])


def below(counts: Blocks, limit: float) -> Floats:
    """Where the sums prove that the candidate's share is below `limit`: shape (rollouts, blocks), as
    `sequential.share_interval` does."""
    n, k = np.cumsum(counts.n1, axis=1), np.cumsum(counts.k1, axis=1)
    a, b = SHARE_PRIOR
    mixture = _LOG_GAMMA(a + k) + _LOG_GAMMA(b + n - k) - _LOG_GAMMA(a + b + n)
    mixture -= math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    evidence = mixture - k * math.log(limit) - (n - k) * math.log1p(-limit)
    return np.asarray((k <= n * limit) & (n >= DEFAULT_MIN_SAMPLES) & (evidence >= -math.log(LEVELS.passes)))


def passed(counts: Blocks, limit: float) -> tuple[float, float]:
    """Shares of steps that pass `max` at any block: by their sums alone, and if those that are overdispersed beside the
    serving revision are held."""
    found = below(counts, limit)
    held = 0
    for run in np.flatnonzero(found.any(axis=1)):
        looks = np.flatnonzero(found[run])
        held += any(estimate_dispersion(counts.pairs(run, at + 1)) <= MAX_DISPERSION for at in looks)
    return float(found.any(axis=1).mean()), held / len(found)


def beside_neighbours(counts: Blocks, limit: float) -> float:
    """Share of steps that pass `max`, if those were held whose neighbouring blocks differ too much: all that the
    candidate's own blocks could tell. The operator holds none by this."""
    found, held = below(counts, limit), 0
    for run in np.flatnonzero(found.any(axis=1)):
        n, k = counts.n1[run], counts.k1[run]
        pairs = [BlockPair(n[at], k[at], n[at + 1], k[at + 1]) for at in range(0, len(n) - 1, 2)]
        held += any(estimate_dispersion(pairs[: (at + 1) // 2]) <= MAX_DISPERSION for at in np.flatnonzero(found[run]))
    return held / len(found)


def gusty(random: np.random.Generator, runs: int, share: float) -> Blocks:
    """Independent requests of a candidate at 100 %: one block in eight has seven times the errors of the others."""
    n = random.poisson(RATE * np.asarray(LENGTHS), (runs, len(LENGTHS))).astype(float)
    gust = np.where(np.arange(len(LENGTHS)) % 8 == 0, 4.0, 4 / 7)
    k = random.binomial(n.astype(int), share * gust).astype(float)
    return Blocks(n, k, np.zeros_like(n), np.zeros_like(n))


def absolute(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """A candidate exactly at its `max`."""
    for burst in BURSTS:
        for weight in (0.1, 0.5):
            for share in (0.01, 0.05):
                counts = blocks(random, runs, Truth(share, share, burst), weight, LENGTHS, RATE)
                alone, held = passed(counts, share)
                head = f"{_of(burst)}, exactly at max {share:g}, weight {100 * weight:g}"
                bound = LEVELS.passes if burst == 1 else None
                yield Figure(f"{head}: passed, if overdispersion did not hold it", alone, "share", bound)
                yield Figure(f"{head}: passed", held, "share", bound)
        for share in (0.01, 0.05):
            counts = blocks(random, runs, Truth(share, share, burst), 1.0, LENGTHS, RATE)
            bound = LEVELS.passes if burst == 1 else None
            head = f"{_of(burst)}, exactly at max {share:g}, weight 100"
            yield Figure(f"{head}: passed", float(below(counts, share).any(axis=1).mean()), "share", bound)
            found = beside_neighbours(counts, share)
            yield Figure(f"{head}: passed, if neighbouring blocks held it (not ours)", found, "share")
    for share, limit in ((0.01, 0.02), (0.05, 0.1)):
        counts = blocks(random, runs, Truth(share, share), 0.1, LENGTHS, RATE)
        alone, held = passed(counts, limit)
        head = f"no bursts, {100 * share:g} % bad, max {limit:g}, weight 10"
        yield Figure(f"{head}: held wrongly until the deadline", alone - held, "share", 0.01)
        counts = gusty(random, runs, share)
        head = f"no bursts, {100 * share:g} % bad in gusts, max {limit:g}, weight 100"
        found = float(below(counts, limit).any(axis=1).mean()) - beside_neighbours(counts, limit)
        yield Figure(f"{head}: held wrongly, if neighbouring blocks did (not ours)", found, "share")


def mirrored(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """Answers and pairs exactly at their limits."""
    for burst in BURSTS:
        each, bound = mirror.ANSWERS // burst, LEVELS.passes if burst == 1 else None
        counts = burst * random.multinomial(each, (0.98, *(0,) * 6, 0.02), size=(runs, mirror.LOOKS))
        weights = np.cumsum(counts, axis=1).astype(np.float64)
        found = mirror.ever(mirror.decisions(weights, DISAGREEMENT_POINTS, 0.02)[0])
        yield Figure(f"{_of(burst)}, answers, exactly at the limit 2 %: passed", found, "share", bound)
        for base, margin in ((0.01, 0.0), (0.01, 0.02), (0.05, 0.05)):
            found_pairs = burst * mirror.pairs(random, runs, base, 0.5, margin, each)
            found = mirror.ever(mirror.decisions(mirror.differences(found_pairs), mirror.PAIR, margin)[0])
            head = f"{_of(burst)}, pairs, {100 * base:g} % bad, exactly at the margin {margin:g}"
            yield Figure(f"{head}: passed", found, "share", bound)


def early(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """A/A before the first block has ended, a look each second: only a Fail can come."""
    level = LEVELS.fails * UNBLOCKED_LEVEL_SHARE
    for burst in BURSTS:
        for margin in (0.0, 0.02):
            lengths = [1.0] * int(FIRST_BLOCK_SECONDS)
            counts = blocks(random, runs, Truth(0.05, 0.05, burst), 0.1, lengths, RATE)
            arrays = [np.cumsum(one, axis=1) for one in (counts.n1, counts.k1, counts.n0, counts.k0)]
            failed = 0
            for run in range(runs):
                looks = zip(*(one[run].tolist() for one in arrays), strict=True)
                failed += any(difference_interval(*look, level).low > margin for look in looks if look[1])
            head = f"{_of(burst)}, 5 % bad, before the first block, margin {margin:g}"
            yield Figure(f"{head}: failed", failed / runs, "share", LEVELS.fails if burst == 1 else None)


def _of(burst: int) -> str:
    return "no bursts" if burst == 1 else f"bursts of {burst}"


def simulate(seed: int, runs: int) -> Iterator[Figure]:
    """All figures; each section has a generator of its own."""
    for place, section in enumerate((absolute, mirrored, early)):
        yield from section(np.random.default_rng((seed, place)), runs)


def main() -> None:
    """All cells."""
    command.run(
        __doc__ or "",
        "python -m tests.simulate.bursts",
        FIGURES,
        lambda given: simulate(given.seed, 50 if given.quick else 2000),
        tables.write,
        seed=4,
    )


if __name__ == "__main__":
    main()
