"""Always-valid evidence that two shares differ by less, or by more, than a limit, from blocks of requests.

A block holds the requests that both revisions answered between two fixed times. Before each block a bet is made, from
earlier blocks alone: shares (q1, q0) of bad requests that the hypothesis under test forbids. The block's factor is the
likelihood of its counts under the bet, divided by that under the point (r1, r0) of the hypothesis that is nearest
to the bet in relative entropy for the block's sizes n1 and n0: the reverse information projection (Turner, Ly,
Gruenwald 2024, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", J. Stat.
Plan. Inference 230). The product of the factors is the evidence against the hypothesis. It has mean 1 at most where the
hypothesis is true, and by Ville's inequality (1939) it ever reaches 1/alpha with probability alpha at most.

docs/adr/0021-evidence-from-blocks.md proves that the mean is at most 1 for any n1 and n0. Outcomes must be independent
given the counts. The true shares may change from block to block, and so may the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from modelwright.core.analysis.evidence import Block
from modelwright.core.analysis.sequential import Interval

BET_PRIOR = (1.0, 50.0)
"""Bad and good requests that a bet adds to those of earlier blocks. Any prior keeps the level; this one suits the small
shares that are usual."""
HARM_PRIOR_REQUESTS = 50.0
"""Requests of an assumed harmful candidate with which a bet on harm starts."""
_CERTAIN, _NEVER = (1.0, 0.0), (0.0, 1.0)
_INTERVAL_PRECISION = 1e-6
"""Precision of an interval's ends."""
_TINY = 1e-300
_NEWTON_PRECISION = 1e-9
"""A relative step of Newton's method after which the next would be below rounding."""


@dataclass(frozen=True, slots=True)
class BlockPair:
    """The same block of the candidate (`n1` requests, `k1` of them bad) and of the serving revision (`n0`, `k0`).

    Counts may be fractions: bursts of b requests that share their fate are worth 1/b of their number.
    """

    n1: float
    k1: float
    n0: float
    k0: float
    complete: bool = field(default=True, kw_only=True)
    """Whether the slowest requests of its time are counted too."""

    def __add__(self, other: BlockPair) -> BlockPair:
        return BlockPair(
            self.n1 + other.n1,
            self.k1 + other.k1,
            self.n0 + other.n0,
            self.k0 + other.k0,
            complete=self.complete and other.complete,
        )


EMPTY_PAIR = BlockPair(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """Natural logarithm of the evidence against a hypothesis: after the last block, and the most after any block."""

    last: float = 0.0
    peak: float = 0.0


def pair_blocks(
    candidate: Sequence[Block], serving: Sequence[Block], *, burst: float = 1.0, complete_at: float = -math.inf
) -> tuple[BlockPair, ...]:
    """Pair the blocks of both revisions, merged until both have requests; counts are divided by `burst`.

    Blocks that start before `complete_at` (unix seconds) lack requests that have not ended: their pairs are not
    `complete`. Blocks after the last pair wait for the next. Raises ValueError when the blocks don't end at the same
    times, or for a burst below 1.
    """
    if [block.end for block in candidate] != [block.end for block in serving]:
        raise ValueError("the blocks of candidate and serving revision must end at the same times")
    if burst < 1:
        raise ValueError(f"burst is {burst}: it must be at least 1")
    paired, pair = [], EMPTY_PAIR
    complete = complete_at == -math.inf
    for one, zero in zip(candidate, serving, strict=True):
        counts = (one.trials / burst, one.events / burst, zero.trials / burst, zero.events / burst)
        pair += BlockPair(*counts, complete=complete)
        if pair.n1 and pair.n0:
            paired.append(pair)
            pair = EMPTY_PAIR
        complete = complete or one.end >= complete_at
    return tuple(paired)


def evidence_within(pairs: Iterable[BlockPair], limit: float) -> LogEvidence:
    """Return the evidence that the difference candidate - serving is below `limit`, -1 to 1: against "at least"."""
    return _multiply_bets(pairs, limit, _bets_within)


def evidence_beyond(pairs: Iterable[BlockPair], limit: float) -> LogEvidence:
    """Return the evidence that the difference candidate - serving is above `limit`, -1 to 1: against "at most"."""
    turned = (BlockPair(pair.n0, pair.k0, pair.n1, pair.k1) for pair in pairs)
    return _multiply_bets(turned, -limit, _bets_beyond)


@dataclass(frozen=True, slots=True)
class DifferenceEvidence:
    """Evidence from blocks of both revisions about a limit of the difference of their shares.

    `within` and `beyond` are the evidence that it is below and above `limit`; `lasting` is the evidence that it is
    below, from complete blocks alone. `total` is the sum of the blocks.
    """

    total: BlockPair
    limit: float
    within: LogEvidence
    beyond: LogEvidence
    lasting: LogEvidence

    @classmethod
    def from_pairs(cls, pairs: Sequence[BlockPair], limit: float) -> DifferenceEvidence:
        """Build the evidence from blocks in the order of time."""
        evidence = evidence_within(pairs, limit)
        whole = all(pair.complete for pair in pairs)
        lasting = evidence if whole else _multiply_bets(pairs, limit, _bets_within, complete_only=True)
        return cls(sum(pairs, EMPTY_PAIR), limit, evidence, evidence_beyond(pairs, limit), lasting)

    def decide(self, passes: float, fails: float, factor: float = 1.0) -> bool | None:
        """Decide whether the difference is below the limit.

        True: proven at the level `passes`. False: proven to be above at the level `fails`, now or earlier. None:
        undecided. With a `factor` it predicts the decision for that many times the requests, with the same shares.

        The proof of True may be earlier too, as long as half of the evidence is left: a candidate that turns bad loses
        it within a few blocks. Half must come from complete blocks: a candidate that hangs looks perfect before them.
        """
        distance = (factor - 1) * self._log_distance(self.limit)
        if self.beyond.peak - distance >= -math.log(fails):
            return False
        half = -math.log(passes) / 2
        proven = self.seems_within(passes, distance) and self.lasting.last + distance >= half
        return True if proven else None

    def seems_within(self, passes: float, distance: float = 0.0) -> bool:
        """Return whether the difference would be proven to be below the limit if no block lacked requests."""
        wanted = -math.log(passes)
        return self.within.peak + distance >= wanted and self.within.last + distance >= wanted / 2

    def confidence_interval(self, passes: float, fails: float) -> Interval:
        """Return the interval of the difference: its lower end by the level `fails`, its upper end by `passes`.

        It lies on the side of the limit that `decide` gives. Its ends are otherwise estimates: the evidence is the
        distance of the counts from the hypothesis, less the bets' cost of learning, which is assumed to be the same
        elsewhere as at the limit.
        """
        there = self._log_distance(self.limit)
        last = self.within.last
        if self.lasting != self.within:
            last = min(last, 2 * self.lasting.last)
        learned = max(0.0, there - last if there > 0 else -there - self.beyond.peak)
        low, high = (
            self._limit_at_distance(math.log(fails) - learned),
            self._limit_at_distance(learned - math.log(passes)),
        )
        match self.decide(passes, fails):
            case True:
                return Interval(min(low, self.limit), min(high, self.limit))
            case False:
                return Interval(max(low, self.limit), max(high, self.limit))
            case _:
                return Interval(min(low, self.limit), max(high, self.limit))

    def _limit_at_distance(self, distance: float) -> float:
        """Return the limit at this distance from the counts; -1 or 1 when there is none."""
        low, high = -1.0, 1.0
        while high - low > _INTERVAL_PRECISION:
            middle = (low + high) / 2
            if self._log_distance(middle) < distance:
                low = middle
            else:
                high = middle
        return high if distance > 0 else low

    def _log_distance(self, limit: float) -> float:
        """Return the log likelihood ratio of all counts and the nearest point with the difference `limit`.

        It is negative for a limit below the counts' difference, and grows with the limit.
        """
        pair = self.total
        if not pair.n1 or not pair.n0:
            return 0.0
        one, zero = (pair.k1 / pair.n1, 1 - pair.k1 / pair.n1), (pair.k0 / pair.n0, 1 - pair.k0 / pair.n0)
        if one[0] - zero[0] <= limit:
            return _log_likelihood_ratio(pair, one, zero, *nearest_null_point(pair.n1, one, pair.n0, zero, limit))
        r0, r1 = nearest_null_point(pair.n0, zero, pair.n1, one, -limit)
        return -_log_likelihood_ratio(pair, one, zero, r1, r0)


BadAndGoodShare = tuple[float, float]
"""The shares of bad and of good requests, both kept so that neither loses digits near 0."""
Bet = tuple[float, BadAndGoodShare, BadAndGoodShare]
"""The bet's stake (all stakes sum to 1), and the shares of both arms."""
_BetMaker = Callable[[BlockPair, float], tuple[Bet, ...]]
"""Makes bets from the counts of all earlier blocks and the limit."""


def _bets_within(past: BlockPair, limit: float) -> tuple[Bet, ...]:
    """Bet that both have the same share, as most candidates do, and that each has its own."""
    del limit
    pooled = _smoothed_share(past.n1 + past.n0, past.k1 + past.k0)
    own = _smoothed_share(past.n1, past.k1), _smoothed_share(past.n0, past.k0)
    late = _neutral_bet(past)
    return (0.75, pooled, pooled), (0.15, *(late or (pooled, pooled))), (0.1, *(late or own))


def _bets_beyond(past: BlockPair, limit: float) -> tuple[Bet, ...]:
    """Bet on the candidate's own share, starting with HARM_PRIOR_REQUESTS well beyond the limit, and on gross harm.

    `evidence_beyond` swaps the arms, so that the second one is the candidate.
    """
    serving = _smoothed_share(past.n1, past.k1)
    start = min(0.95, serving[0] + max(0.0, -2 * limit) + 0.02)
    harmed = _smoothed_share(past.n0, past.k0, (HARM_PRIOR_REQUESTS * start, HARM_PRIOR_REQUESTS * (1 - start)))
    gross = (serving if serving[0] < 0.4 else (0.4, 0.6)), (0.5, 0.5)
    return (1 / 3, serving, harmed), (1 / 3, *(_neutral_bet(past) or (serving, harmed))), (1 / 3, *gross)


def _neutral_bet(past: BlockPair) -> tuple[BadAndGoodShare, BadAndGoodShare] | None:
    """Return, before the first block, a bet that the hypothesis allows, so that nothing is staked; None later.

    Where shares are large, a bet by the prior alone would lose much of its stake.
    """
    return None if past.n1 or past.n0 else (_CERTAIN, _NEVER)


def _smoothed_share(trials: float, events: float, prior: BadAndGoodShare = BET_PRIOR) -> BadAndGoodShare:
    bad, good = events + prior[0], trials - events + prior[1]
    return bad / (bad + good), good / (bad + good)


def _multiply_bets(
    pairs: Iterable[BlockPair], limit: float, bets: _BetMaker, *, complete_only: bool = False
) -> LogEvidence:
    """Return the evidence against a difference of at least `limit`: the bets' products, averaged by stake.

    With `complete_only`, incomplete blocks teach the bets, but nothing is staked on them.
    """
    past = EMPTY_PAIR
    logs: list[float] = []
    last = most = 0.0
    for pair in pairs:
        new_bets = bets(past, limit)
        logs = logs or [math.log(part) for part, _, _ in new_bets]
        staked = new_bets if pair.complete or not complete_only else ()
        for index, (_, one, zero) in enumerate(staked):
            if one[0] - zero[0] < limit:
                logs[index] += _log_likelihood_ratio(
                    pair, one, zero, *nearest_null_point(pair.n1, one, pair.n0, zero, limit)
                )
        last = _log_sum(logs)
        most = max(most, last)
        past += pair
    return LogEvidence(last, most)


def nearest_null_point(
    n1: float, one: BadAndGoodShare, n0: float, zero: BadAndGoodShare, limit: float
) -> tuple[BadAndGoodShare, BadAndGoodShare]:
    """Return the point (r1, r0) with r1 - r0 = `limit` nearest to (`one`, `zero`), whose difference is below `limit`.

    It minimizes n1 KL(one, r1) + n0 KL(zero, r0).
    """
    if limit < 0:
        y, x = _nearest_apart(n0, zero, n1, one, -limit)
        return x, y
    return _nearest_apart(n1, one, n0, zero, limit)


def _nearest_apart(
    ny: float, y: BadAndGoodShare, nx: float, x: BadAndGoodShare, gap: float
) -> tuple[BadAndGoodShare, BadAndGoodShare]:
    """Return the nearest point (y, x) with y - x = `gap`, which is at least 0."""
    middle = (1 - gap) / 2
    if nx * (x[0] - middle) + ny * (y[0] - 1 + middle) <= 0:
        return _solve_lower_share(ny, y[0], nx, x[0], gap)
    # The root lies above the middle: by the shares of good requests it lies below.
    bad, good = _solve_lower_share(nx, x[1], ny, y[1], gap)
    return (good[1], good[0]), (bad[1], bad[0])


def _solve_lower_share(
    ny: float, qy: float, nx: float, qx: float, gap: float
) -> tuple[BadAndGoodShare, BadAndGoodShare]:
    """Solve `_nearest_apart` for x at most (1 - `gap`) / 2: where the likelihood's slope in x is 0.

    The slope falls from a pole at 0. Times x (1 - x) it has no pole and is nearly a line. Newton's method finds the
    root, with a bisection where it would leave the bracket.
    """
    low, high = sorted((qx, max(0.0, qy - gap)))
    high = min(high, (1 - gap) / 2)
    low = min(low, high)
    x = (low + high) / 2
    for _ in range(100):
        y = x + gap
        vy = max(y * (1 - y), _TINY)
        ratio = x * (1 - x) / vy
        value = nx * (qx - x) + ny * (qy - y) * ratio
        if value > 0:
            low = x
        else:
            high = x
        slope = -nx + ny * ((qy - y) * (1 - 2 * x - ratio * (1 - 2 * y)) / vy - ratio)
        after = x - value / slope if slope < 0 else math.inf
        close = abs(after - x) <= _NEWTON_PRECISION * x
        if not low <= after <= high:
            after = (low + high) / 2
        x = after
        if close or high - low <= _NEWTON_PRECISION * _NEWTON_PRECISION * high:
            break
    return (x + gap, 1 - gap - x), (x, 1 - x)


def _log_likelihood_ratio(
    pair: BlockPair, q1: BadAndGoodShare, q0: BadAndGoodShare, r1: BadAndGoodShare, r0: BadAndGoodShare
) -> float:
    """Return the log likelihood ratio of a block's counts at (`q1`, `q0`) and at (`r1`, `r0`)."""
    return (
        _log_count_ratio(pair.k1, q1[0], r1[0])
        + _log_count_ratio(pair.n1 - pair.k1, q1[1], r1[1])
        + _log_count_ratio(pair.k0, q0[0], r0[0])
        + _log_count_ratio(pair.n0 - pair.k0, q0[1], r0[1])
    )


def _log_count_ratio(count: float, q: float, r: float) -> float:
    return count * math.log(q / max(r, _TINY)) if count else 0.0


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(x - top) for x in logs))
