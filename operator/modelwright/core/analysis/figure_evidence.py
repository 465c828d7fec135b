"""One-sided tests of a figure from n examples: of pairs of answers, of a share, and of a mean with a standard error.

Each has `against(limit)`: the p-value of the data if the truth were at most `limit`, so that a small one is evidence
that the figure is larger. `mirrored()` turns the figure's sign, for evidence that it is smaller. A p-value never falls
while the limit grows, so the limit at which it is alpha is the lower end of a one-sided interval at 1 - alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

MOST_EXAMPLES = 10_000_000
"""More examples count as this many, which widens the interval and bounds the computation."""

_NORMAL = NormalDist()
_BISECTIONS = 48
_MOST_TERMS = 20_000
_TINY = 1e-300
_MOST_NEEDED = 1e12


class FigureEvidence(Protocol):
    """The uncertainty of a figure."""

    @property
    def value_range(self) -> tuple[float, float]:
        """The smallest and the largest value that the figure can have."""

    def p_value(self, limit: float) -> float:
        """Return the probability of data at least as large as these if the figure were at most `limit`: 0 to 1."""

    def negated(self) -> FigureEvidence:
        """Return the evidence for the figure with the opposite sign."""

    def required_examples(self, limit: float, alpha: float, power: float) -> int | None:
        """Estimate the examples that distinguish the figure from `limit` with this power, if its present value is true.

        None: no number does, as the figure equals the limit.
        """


@dataclass(frozen=True, slots=True)
class PairedExamples:
    """The difference of two shares of the same n examples: `gained` count for the first alone, `lost` for the other.

    The p-value is that of the score test of Tango (1998, "Equivalence test and confidence interval for the difference
    in proportions for the paired-sample design", Statistics in Medicine 17) or of the likelihood ratio at the same
    restricted estimate, whichever is larger, after half an example was taken from `gained` and half a one added to
    `lost`: a correction for continuity that also covers a difference that moves by 2 at a time. The score test
    alone is too bold where a few events are many, the likelihood ratio where there are none; together they keep the
    level in an exact enumeration of n 2 to 2,000 (tests/unit/core/analysis/test_figure_evidence.py).
    """

    n: float
    gained: float
    lost: float

    @property
    def value_range(self) -> tuple[float, float]:
        return -1.0, 1.0

    def p_value(self, limit: float) -> float:
        if limit < -1:
            return 0.0
        if limit >= 1:
            return 1.0
        gained, lost = self._continuity_corrected()
        beyond = gained - lost - self.n * limit
        if beyond <= 0:
            return 1.0
        down = _restricted_share(self.n, gained, lost, limit)
        up = down + limit
        variance = self.n * (up + down - limit * limit)
        score = beyond / math.sqrt(variance) if variance > 0 else math.inf
        both = self.n - gained - lost
        ratio = (
            _cell_log_ratio(gained, self.n, up)
            + _cell_log_ratio(lost, self.n, down)
            + _cell_log_ratio(both, self.n, 1 - up - down)
        )
        return _normal_tail(min(score, math.sqrt(2 * max(ratio, 0.0))))

    def negated(self) -> PairedExamples:
        return PairedExamples(self.n, self.lost, self.gained)

    def required_examples(self, limit: float, alpha: float, power: float) -> int | None:
        # One more differing example: no difference among n examples doesn't prove that none exists.
        gained, lost = (self.gained + 0.5) / self.n, (self.lost + 0.5) / self.n
        down = _restricted_share(1.0, gained, lost, limit)
        null = 2 * down + limit - limit * limit
        difference = gained - lost
        own = gained + lost - difference * difference
        return _required_count(difference - limit, (null, own), alpha, power, step=1.0)

    def _continuity_corrected(self) -> tuple[float, float]:
        """Return the counts with half an example taken from `gained`, and half of one added to `lost`."""
        return max(self.gained - 0.5, 0.0), min(self.lost + 0.5, self.n - max(self.gained - 0.5, 0.0))


def equally_good(differing: float) -> PairedExamples:
    """Return the evidence of two equally good versions that differ on this share of any number of examples."""
    return PairedExamples(1e9, 0.5e9 * differing, 0.5e9 * differing)


@dataclass(frozen=True, slots=True)
class ShareOfExamples:
    """A share of n examples. `least` and `most` bound how many of them count, where the share was rounded.

    Exact: Clopper and Pearson (1934, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26).
    """

    n: int
    least: int
    most: int

    @property
    def value_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def p_value(self, limit: float) -> float:
        if limit < 0:
            return 0.0
        if limit >= 1 or self.least == 0:
            return 1.0
        return incomplete_beta(limit, self.least, self.n - self.least + 1)

    def negated(self) -> FigureEvidence:
        return _MirroredShare(ShareOfExamples(self.n, self.n - self.most, self.n - self.least), 1.0)

    def required_examples(self, limit: float, alpha: float, power: float) -> int | None:
        share = (self.least + self.most) / 2 / self.n
        spreads = (limit * (1 - limit), share * (1 - share))
        # An exact interval is as wide as one by the normal approximation that is corrected by half an example.
        return _required_count(share - limit, spreads, alpha, power, step=0.5)


@dataclass(frozen=True, slots=True)
class MeanOfExamples:
    """A value and its standard error, above 0, from n examples, at least 2: by Student's t with n - 1 degrees."""

    value: float
    standard_error: float
    n: int

    @property
    def value_range(self) -> tuple[float, float]:
        reach = 1e6 * self.standard_error
        return self.value - reach, self.value + reach

    def p_value(self, limit: float) -> float:
        return 1 - student_cdf((self.value - limit) / self.standard_error, self.n - 1)

    def negated(self) -> MeanOfExamples:
        return MeanOfExamples(-self.value, self.standard_error, self.n)

    def required_examples(self, limit: float, alpha: float, power: float) -> int | None:
        spread = self.standard_error * self.standard_error * self.n
        return _required_count(self.value - limit, (spread, spread), alpha, power, step=0.0)


@dataclass(frozen=True, slots=True)
class ExactValue:
    """A figure without error, such as the size of a file, as its report declares. A value equal to the limit holds."""

    value: float

    @property
    def value_range(self) -> tuple[float, float]:
        return self.value, self.value

    def p_value(self, limit: float) -> float:
        return 0.0 if self.value >= limit else 1.0

    def negated(self) -> ExactValue:
        return ExactValue(-self.value)

    def required_examples(self, limit: float, alpha: float, power: float) -> int | None:
        del limit, alpha, power
        return None


@dataclass(frozen=True, slots=True)
class _MirroredShare:
    """Evidence of `whole` - figure, as evidence of -figure."""

    other: ShareOfExamples
    whole: float

    @property
    def value_range(self) -> tuple[float, float]:
        low, high = self.other.value_range
        return low - self.whole, high - self.whole

    def p_value(self, limit: float) -> float:
        return self.other.p_value(limit + self.whole)

    def negated(self) -> FigureEvidence:
        return ShareOfExamples(self.other.n, self.other.n - self.other.most, self.other.n - self.other.least)

    def required_examples(self, limit: float, alpha: float, power: float) -> int | None:
        return self.other.required_examples(limit + self.whole, alpha, power)


def lower_bound(evidence: FigureEvidence, alpha: float) -> float:
    """Return the lower end of a one-sided interval at 1 - alpha, by bisection."""
    low, high = evidence.value_range
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if evidence.p_value(middle) <= alpha:
            low = middle
        else:
            high = middle
    return low


def upper_bound(evidence: FigureEvidence, alpha: float) -> float:
    """Return the upper end of a one-sided interval at 1 - alpha."""
    return -lower_bound(evidence.negated(), alpha)


def student_cdf(t: float, degrees: float) -> float:
    """Return the distribution function of Student's t; `degrees` need not be whole (NIST DLMF 8.17)."""
    degrees = min(degrees, MOST_EXAMPLES)
    tail = incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5) / 2
    return 1 - tail if t > 0 else tail


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function, 0 <= x <= 1, a and b above 0.

    By the continued fraction of NIST DLMF 8.17.22, evaluated as by Lentz (1976, Applied Optics 15).
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    upwards, fraction = 1.0, 1.0
    downwards = 1 / _nonzero(1 - (a + b) * x / (a + 1))
    fraction = downwards
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        downwards = 1 / _nonzero(1 + even * downwards)
        upwards = _nonzero(1 + even / upwards)
        fraction *= upwards * downwards
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        downwards = 1 / _nonzero(1 + odd * downwards)
        upwards = _nonzero(1 + odd / upwards)
        step = upwards * downwards
        fraction *= step
        if abs(step - 1) < 1e-15:
            break
    return min(1.0, math.exp(front) * fraction / a)


def _required_count(
    distance: float, spreads: tuple[float, float], alpha: float, power: float, *, step: float
) -> int | None:
    """Return the n at which n distance - step is as many deviations as alpha and power require.

    From Fleiss, Tytun and Ury 1980, "A simple approximation for calculating sample sizes", Biometrics 36. `spreads` are
    the variances of one example at the limit and at the figure. `step` is the correction for continuity.
    """
    distance = abs(distance)
    if distance == 0:
        return None
    null, own = (math.sqrt(max(spread, 0.0)) for spread in spreads)
    reach = _NORMAL.inv_cdf(1 - alpha) * null + _NORMAL.inv_cdf(power) * own
    root = (reach + math.sqrt(reach * reach + 4 * distance * step)) / (2 * distance)
    return math.ceil(min(root * root, _MOST_NEEDED))


def _nonzero(value: float) -> float:
    """Return the value, or the nearest one that is a safe divisor."""
    return value if abs(value) > _TINY else _TINY


def _normal_tail(z: float) -> float:
    """Return the normal distribution's tail above z."""
    return math.erfc(z / math.sqrt(2)) / 2


def _restricted_share(n: float, gained: float, lost: float, limit: float) -> float:
    """Return the maximum-likelihood share of `lost` if the difference were `limit` (Tango 1998, from Nam 1997)."""
    half = (gained + lost) * (1 - limit) - 2 * limit * (n - gained)
    root = math.sqrt(max(half * half + 8 * n * limit * lost * (1 - limit), 0.0))
    return min(max((half + root) / (4 * n), 0.0, -limit), (1 - limit) / 2)


def _cell_log_ratio(count: float, n: float, share: float) -> float:
    """Return one cell's term of the log likelihood ratio."""
    if count <= 0:
        return 0.0
    return count * math.log(count / n / share) if share > 0 else math.inf
