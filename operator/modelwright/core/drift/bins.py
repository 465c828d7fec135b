"""Bins for counting the rows of one feature, made from its reference sample."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

FeatureValue = float | str
"""A number (NaN: missing), or the label of a category ("": missing)."""

MAX_BINS = 10
"""Bins of numbers where the shares of bins are compared: ten of equal share."""
MAX_ORDERED_BINS = 32
"""Bins of numbers where distribution functions are compared: more cuts come nearer to that of the raw values."""
MAX_LABELS = 20
"""Categories with a bin of their own, the most frequent ones; all others of the reference share one."""
MIN_LABEL_ROWS = 30
"""Fewest rows of the reference for a category with its own bin: rarer ones are selected when chance favours them, and
would seem to be missing in the window."""
MIN_COVERED_SHARE = 0.5
"""Share of the reference's rows in categories with their own bins below which the feature is free text."""


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of a feature, with the rows of the reference in each.

    The last two bins are for unknown values (a label the reference doesn't have, text where it has numbers) and for
    missing ones. For categories, the bin before them holds all rare labels.
    """

    counts: tuple[int, ...]
    cuts: tuple[float, ...] = ()
    """For numbers: a bin holds the values up to its cut, and the last one those above all cuts."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """For categories: the bin of each label in the reference; the rare ones share the last known bin."""
    centers: tuple[float, ...] = ()
    """For numbers: the mean of the reference's values in each known bin, in standard deviations of the reference."""
    once: int = 0
    """Number of labels that one row of the reference has."""
    twice: int = 0
    """Number of labels that two rows of the reference have."""

    @property
    def row_count(self) -> int:
        """Rows of the reference."""
        return sum(self.counts)

    @property
    def known_counts(self) -> tuple[int, ...]:
        """`compared_counts` of the reference."""
        return self.compared_counts(self.counts)

    def compared_counts(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Return the rows by bin over which distances are measured, without missing values.

        Unknown labels join the rare ones, most of which would be unknown to another reference; text among numbers is
        left out.
        """
        if self.labels:
            return (*counts[:-3], counts[-3] + counts[-2])
        return tuple(counts[:-2])

    @property
    def expected_unknown(self) -> tuple[int, int]:
        """The expected unknown rows, and of how many rows, as the reference predicts them for another sample.

        The share of labels yet unseen is that of the labels seen once, with a variance of (once + 2 twice) / rows^2
        (Good, 1953, "The population frequencies of species", Biometrika 40): that of fewer rows.
        """
        if not self.once:
            return self.counts[-2], self.row_count
        less = self.once / (self.once + 2 * self.twice)
        return round(self.once * less), max(round(self.row_count * less), 1)

    @property
    def is_watchable(self) -> bool:
        """False for free text, where too few rows share a label for shares of labels to be informative."""
        if not self.labels:
            return True
        present = sum(self.known_counts)
        return present == 0 or sum(self.known_counts[:-1]) / present >= MIN_COVERED_SHARE

    def bin_of(self, value: FeatureValue) -> int:
        """Return the bin of a value, 0 to len(counts) - 1."""
        unknown, missing = len(self.counts) - 2, len(self.counts) - 1
        if self.labels:
            if value == "" or (not isinstance(value, str) and math.isnan(value)):
                return missing
            return self.labels.get(value, unknown) if isinstance(value, str) else unknown
        if isinstance(value, str):
            return unknown if value else missing
        return missing if math.isnan(value) else bisect_left(self.cuts, value)

    def count_values(self, values: Sequence[FeatureValue]) -> list[int]:
        """Count the `values` in each bin."""
        counts = [0] * len(self.counts)
        for value in values:
            counts[self.bin_of(value)] += 1
        return counts


def build_bins(sample: Sequence[FeatureValue], *, most: int = MAX_BINS) -> Bins:
    """Build bins from a reference sample of one feature, numbers or labels. Raises ValueError when it is empty.

    Numbers go into at most `most` bins of equal share, cut at values of the sample: a value that many rows have gets a
    bin of its own.
    """
    if not sample:
        raise ValueError("a reference sample needs at least one row")
    if any(isinstance(value, str) and value for value in sample):
        return _build_label_bins(
            [str(value) if isinstance(value, str) or not math.isnan(value) else "" for value in sample]
        )
    numbers = [value for value in sample if isinstance(value, float | int)]
    ordered = sorted(value for value in numbers if not math.isnan(value))
    cut_values = {ordered[len(ordered) * part // most] for part in range(1, most)} if ordered else set()
    if len(cut_values) == 1 and ordered[0] == ordered[-1]:
        # The same value in every row: smaller, equal, larger.
        cut_values.add(math.nextafter(ordered[0], -math.inf))
    cuts = tuple(sorted(cut_values))
    ends = [0, *(bisect_right(ordered, cut) for cut in cuts), len(ordered)]
    counts = (*(end - start for start, end in pairwise(ends)), 0, len(sample) - len(ordered))
    return Bins(counts, cuts, centers=_bin_centers(ordered, cuts, ends))


def _build_label_bins(sample: Sequence[str]) -> Bins:
    frequencies = Counter(value for value in sample if value)
    kept = sorted(label for label, count in frequencies.most_common(MAX_LABELS) if count >= MIN_LABEL_ROWS)
    places = {label: place for place, label in enumerate(kept)}
    labels = {label: places.get(label, len(kept)) for label in frequencies}
    counts = Bins((0,) * (len(kept) + 3), labels=labels).count_values(sample)
    once, twice = (sum(count == times for count in frequencies.values()) for times in (1, 2))
    return Bins(tuple(counts), labels=labels, once=once, twice=twice)


def _bin_centers(ordered: Sequence[float], cuts: Sequence[float], ends: Sequence[int]) -> tuple[float, ...]:
    """Return the mean of each bin in standard deviations; infinite values count as the largest finite one."""
    finite = [value for value in ordered if math.isfinite(value)]
    if not finite:
        return (0.0,) * (len(cuts) + 1)
    mean = math.fsum(finite) / len(finite)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / len(finite)) or 1.0
    centers: list[float] = []
    for place, (start, end) in enumerate(pairwise(ends)):
        if start < end:
            group = [min(max(value, finite[0]), finite[-1]) for value in ordered[start:end]]
            centers.append((math.fsum(group) / len(group) - mean) / spread)
        else:
            # A bin beyond all of the sample's values: a standard deviation further than its neighbour.
            edge = (cuts[min(place, len(cuts) - 1)] - mean) / spread
            centers.append(edge + 1.0 if place else edge - 1.0)
    return tuple(centers)
