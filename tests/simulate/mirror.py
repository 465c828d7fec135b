"""False alarms and power of what mirror steps are judged by, answers and pairs, by simulated requests through the real
code: docs/figures/mirror.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modelwright.core.analysis import betting
from modelwright.core.analysis.comparison_summary import DISAGREEMENT_POINTS
from modelwright.core.analysis.evidence import ValueSample
from modelwright.core.analysis.planning import Levels, estimate_answers, estimate_pairs
from modelwright.core.analysis.sequential import difference_interval
from tests.simulate import command, tables
from tests.simulate.command import Figure
from tests.simulate.run import LEVELS

FIGURES = command.FOLDER / "mirror.json"
PAIR = (-1.0, 0.0, 1.0)
ANSWERS, LOOKS = 500, 60
"""Answers, or pairs, between two looks, and looks."""
CHECKED = 20
"""States of each case in which the vectorised decisions are held against `betting.decided`."""

Weights = np.ndarray[Any, np.dtype[np.float64]]
Counts = np.ndarray[Any, np.dtype[np.int64]]
Decisions = np.ndarray[Any, np.dtype[np.bool_]]


def decisions(
    weights: Weights, points: Sequence[float], limit: float, levels: Levels = LEVELS
) -> tuple[Decisions, Decisions]:
    """(proven, refuted) that the mean is at most `limit`, for weights of shape (..., points)."""
    low, high = points[0], points[-1]
    at = np.array(points)
    found = []
    for gains, bets, alpha in (
        ((limit - at) / (high - limit), betting.BOLD_BETS, levels.passes),
        ((at - limit) / (limit - low), betting.CAREFUL_BETS, levels.fails),
    ):
        sizes, logs = np.array([bet for bet, _ in bets]), np.array([log for _, log in bets])
        wealth = weights @ np.log1p(np.outer(gains, sizes)) + logs
        found.append(np.logaddexp.reduce(wealth, axis=-1) >= -np.log(alpha))
    proven, refuted = found[0], found[1] & ~found[0]
    flat = weights.reshape(-1, len(points))
    for index in np.linspace(0, len(flat) - 1, CHECKED).astype(int):
        sample = ValueSample(low, high, tuple(zip(points, flat[index].tolist(), strict=True)))
        told = betting.decide_mean(sample, limit, levels.passes, levels.fails, at_most=True)
        assert (told is True, told is False) == (proven.reshape(-1)[index], refuted.reshape(-1)[index])
    return proven, refuted


def parts(rows: int) -> Weights:
    """What an answer adds to the points, by how many of its rows differ: shape (rows + 1, points)."""
    found = np.zeros((rows + 1, len(DISAGREEMENT_POINTS)))
    for differing in range(rows + 1):
        for index, part in betting.split_value(differing / rows, DISAGREEMENT_POINTS):
            found[differing, index] = part
    return found


def answers(random: np.random.Generator, runs: int, share: float, rows: int, together: float) -> Weights:
    """Weights at each look. `together`: the part of the differing rows that come as whole answers; the others differ
    one by one."""
    whole = share * together
    alone = (share - whole) / (1 - whole)
    chances = [
        (1 - whole) * math.comb(rows, differing) * alone**differing * (1 - alone) ** (rows - differing)
        for differing in range(rows + 1)
    ]
    chances[rows] += whole
    found: Weights = np.cumsum(random.multinomial(ANSWERS, chances, size=(runs, LOOKS)) @ parts(rows), axis=1)
    return found


def pairs(
    random: np.random.Generator, runs: int, base: float, common: float, worse: float, each: int, looks: int = LOOKS
) -> Counts:
    """Requests at each look that are bad at both, at the candidate only, at the serving revision only, and at none."""
    own = base * (1 - common)
    chances = (base * common, own + worse, own, 1 - base * common - 2 * own - worse)
    found: Counts = np.cumsum(random.multinomial(each, chances, size=(runs, looks)), axis=1)
    return found


def differences(counts: Counts) -> Weights:
    """Weights of the points of PAIR."""
    both, candidate, serving, none = np.moveaxis(counts, -1, 0)
    return np.stack([serving, both + none, candidate], axis=-1).astype(np.float64)


def ever(decided: Decisions) -> float:
    """Share of the runs in which any look decides."""
    return float(decided.any(axis=1).mean())


def levels(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """How often the answer is wrong, whatever the number of looks."""
    kinds = ((1, 1.0, "as a whole"), (32, 0.5, "half of them in whole answers of 32"), (8, 0.0, "one by one, of 8"))
    for rows, together, what in kinds:
        for share in (0.02, 0.03, 0.04):
            proven, refuted = decisions(answers(random, runs, share, rows, together), DISAGREEMENT_POINTS, 0.02)
            head = f"answers, {100 * share:g} % of rows differ, {what}, limit 2 %"
            yield Figure(f"{head}: passed", ever(proven), "share", LEVELS.passes)
            if share <= 0.02:
                yield Figure(f"{head}: failed", ever(refuted), "share", LEVELS.fails)
    for base, margin in ((0.01, 0.0), (0.05, 0.0), (0.01, 0.02), (0.05, 0.05)):
        counts = pairs(random, runs, base, 0.5, margin, ANSWERS)
        proven, refuted = decisions(differences(counts), PAIR, margin)
        head = f"pairs, {100 * base:g} % bad, half of them at both, harm exactly of the margin {margin:g}"
        yield Figure(f"{head}: passed", ever(proven), "share", LEVELS.passes)
        yield Figure(f"{head}: failed", ever(refuted), "share", LEVELS.fails)


def power(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """How many answers and pairs a decision takes."""
    right = []
    for limit, share in ((0.02, 0.0), (0.02, 0.01), (0.05, 0.02), (0.02, 0.04), (0.02, 0.1)):
        most = estimate_answers(limit, share, LEVELS.fails if share > limit else LEVELS.passes)
        assert most is not None
        bad = np.cumsum(random.multinomial(-(-most // 20), (1 - share, share), size=(runs, 20)), axis=1).astype(
            np.float64
        )
        right.append(ever(decisions(bad, (0.0, 1.0), limit)[share > limit]))
    for base, margin, worse in tables.PAIRS:
        most = estimate_pairs(margin, base, LEVELS.fails if worse > margin else LEVELS.passes, worse=worse)
        assert most is not None
        counts = differences(pairs(random, runs, base, 0.5, worse, -(-most // 20), looks=20))
        right.append(ever(decisions(counts, PAIR, margin)[worse > margin]))
    name = f"decided with the documented number of answers or pairs, {len(right)} cases: rightly, least"
    yield Figure(name, min(right), "share", at_least=0.9)
    for base, margin, common in ((0.05, 0.05, 0.5), (0.05, 0.05, 0.9), (0.01, 0.02, 0.5)):
        counts = pairs(random, min(runs, 400), base, common, 0.0, 10, looks=200)
        by_pairs = decisions(differences(counts), PAIR, margin)[0]
        part = {0.5: "half", 0.9: "nine tenths"}[common]
        head = f"{100 * base:g} % bad, {part} of them at both, margin {margin:g}: nine of ten passed"
        ours, theirs = ninety(by_pairs, 10), ninety(by_arms(counts, margin), 10)
        yield Figure(head, ours, "requests")
        yield Figure(f"{head}, to the same by arms", ours / theirs, "ratio", at_most=0.5)


def by_arms(counts: Counts, margin: float) -> Decisions:
    """Whether each look would pass by the interval of two independent arms; from the first that does on, all."""
    found = np.zeros(counts.shape[:2], dtype=np.bool_)
    for run, looks in enumerate(counts.tolist()):
        for look, (both, candidate, serving, none) in enumerate(looks):
            n = both + candidate + serving + none
            if difference_interval(n, both + candidate, n, both + serving, LEVELS.passes).high <= margin:
                found[run, look:] = True
                break
    return found


def ninety(decided: Decisions, each: int) -> float:
    """Requests after which nine of ten runs are decided."""
    first = np.where(decided.any(axis=1), (decided.argmax(axis=1) + 1.0) * each, np.inf)
    return float(np.quantile(first, 0.9, method="higher"))


def simulate(seed: int, runs: int) -> Iterator[Figure]:
    """All figures, one after the other."""
    random = np.random.default_rng(seed)
    yield from levels(random, runs)
    yield from power(random, runs)


def main() -> None:
    """All mirror steps."""
    command.run(
        __doc__ or "",
        "python -m tests.simulate.mirror",
        FIGURES,
        lambda given: simulate(given.seed, 50 if given.quick else 2000),
        tables.write,
        seed=4,
    )


if __name__ == "__main__":
    main()
