"""False alarms, power and time to a decision of the default policy, by simulated requests through the real judge."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.analysis.evidence import Arm, Measurement, Outcome, Shares
from modelwright.core.analysis.judge import Rule, combine, judge
from modelwright.core.analysis.planning import Ask, Stage, alpha_each, needed_rate, needed_samples
from modelwright.core.analysis.sequential import PRIOR, difference
from tests.simulate import tables

ROOT = Path(__file__).parents[2]
CONFIDENCE = 0.95
ERRORS, LATENCY = Rule("errors", margin=0.02), Rule("latency-over", margin=0.05)
STEPS = (0.1, 0.5)
"""The candidate's shares in the steps where it is compared; at 100 % there is nothing to compare with."""
RATE, LOOK, HOLD, DEADLINE = 20.0, 30.0, 120.0, 1800.0
"""Requests per second for the Model, seconds between looks, least seconds of a step, seconds for all."""
ALPHA = alpha_each(CONFIDENCE, metrics=2, steps=len(STEPS))


@dataclass(frozen=True)
class Figure:
    """One line of docs/figures/simulate.json; `at_most` or `at_least` is what it is held against."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    def row(self) -> dict[str, Any]:
        bound = None
        if self.at_most is not None:
            bound = f"at most {self.at_most:g}"
        elif self.at_least is not None:
            bound = f"at least {self.at_least:g}"
        return {
            "name": self.name,
            "value": float(f"{self.value:.4g}"),
            "unit": self.unit,
            "bound": bound,
            "holds": None if bound is None else self.holds,
        }

    @property
    def holds(self) -> bool:
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


@dataclass(frozen=True)
class Truth:
    """Shares of bad requests of one metric; `burst` requests in a row share their fate."""

    serving: float
    candidate: float
    burst: int = 1


Counts = np.ndarray[Any, np.dtype[np.int64]]


def arms(random: np.random.Generator, truth: Truth, trials: Counts, which: str) -> Counts:
    """Cumulative bad requests of one arm at each look, for cumulative `trials`."""
    share = truth.candidate if which == "candidate" else truth.serving
    new = np.diff(trials, prepend=0)
    if truth.burst == 1:
        return np.cumsum(random.binomial(new, share))
    return np.minimum(np.cumsum(truth.burst * random.binomial(new // truth.burst, share)), trials)


def looks(random: np.random.Generator, truth: Truth, one: Counts, zero: Counts) -> Iterator[tuple[Arm, Arm]]:
    """What each look sees of candidate and serving revision, given cumulative trials."""
    bad_one, bad_zero = arms(random, truth, one, "candidate"), arms(random, truth, zero, "serving")
    for n1, k1, n0, k0 in zip(one.tolist(), bad_one.tolist(), zero.tolist(), bad_zero.tolist(), strict=True):
        yield Arm(n1, k1), Arm(n0, k0)


def undecided(candidate: Arm, serving: Arm, margin: float, alpha: float) -> bool:
    """Whether a pair of shares that differ by `margin` is certainly in the confidence set, so that no interval need be
    computed. By the definition, and so apart from the code that is simulated."""
    n1, k1, n0, k0 = candidate.trials, candidate.events, serving.trials, serving.events
    apart = marginal(n1, k1) + marginal(n0, k0)
    same = marginal(n1 + n0, k1 + k0)
    mean = max(apart, same) + math.log1p(math.exp(-abs(apart - same))) - math.log(2)
    for p0 in ((k0 + k1 - margin * n1) / (n0 + n1), k0 / n0, 0.75 * k0 / n0, 0.5 * k0 / n0, 0.25 * k0 / n0):
        p1 = p0 + margin
        if 0 < p0 < 1 and 0 < p1 < 1:
            likelihood = (
                k1 * math.log(p1) + (n1 - k1) * math.log1p(-p1) + k0 * math.log(p0) + (n0 - k0) * math.log1p(-p0)
            )
            if mean - likelihood < -math.log(alpha) - 1e-6:
                return True
    return False


def marginal(trials: int, events: int) -> float:
    """Logarithm of the likelihood averaged over the prior."""
    a, b = PRIOR
    above = math.lgamma(a + events) + math.lgamma(b + trials - events) - math.lgamma(a + b + trials)
    return above - math.lgamma(a) - math.lgamma(b) + math.lgamma(a + b)


def wrong(candidate: Arm, serving: Arm, margin: float, alpha: float) -> tuple[bool, bool]:
    """Whether this look would (fail, pass) by its interval alone."""
    if not candidate.trials or not serving.trials or undecided(candidate, serving, margin, alpha):
        return False, False
    interval = difference(candidate, serving, alpha)
    return interval.low > margin, interval.high <= margin


def ever(
    random: np.random.Generator, truth: Truth, margin: float, alpha: float, one: Counts, zero: Counts, only: str
) -> bool:
    """Whether any look would fail (`only` Fail) or pass (`only` Pass)."""
    for candidate, serving in looks(random, truth, one, zero):
        n1, n0 = candidate.trials, serving.trials
        above = candidate.events * n0 - serving.events * n1 > margin * n1 * n0
        # An interval holds its estimate, so that it can only lie beyond a margin on the estimate's side.
        if above == (only == "Fail") and wrong(candidate, serving, margin, alpha)[only == "Pass"]:
            return True
    return False


def sixty_looks(random: np.random.Generator, weight: float, per_look: float) -> tuple[Counts, Counts]:
    """Cumulative trials of candidate and serving revision at 60 looks."""
    return (
        np.cumsum(random.poisson(per_look * weight, 60)),
        np.cumsum(random.poisson(per_look * (1 - weight), 60)),
    )


def rollouts_with(
    random: np.random.Generator, runs: int, truths: tuple[Truth, Truth], margins: tuple[float, float], only: str
) -> float:
    """Share of rollouts in which any of 60 looks at any step and metric comes out as `only`; none stops early."""
    count = 0
    for _ in range(runs):
        count += any(
            ever(random, truth, margin, ALPHA, *sixty_looks(random, weight, RATE * LOOK), only)
            for weight in STEPS
            for truth, margin in zip(truths, margins, strict=True)
        )
    return count / runs


def mirrored(random: np.random.Generator, runs: int, share: float, common: float, margin: float) -> float:
    """Share of A/A mirror steps that fail at any of 60 looks. Both revisions get the same requests: `common` of the bad
    share is bad at both, so that the arms are not independent."""
    count = 0
    for _ in range(runs):
        new = random.poisson(RATE * LOOK, 60)
        both = random.binomial(new, share * common)
        own = [np.cumsum(both + random.binomial(new - both, share * (1 - common))).tolist() for _ in range(2)]
        for n, k1, k0 in zip(np.cumsum(new).tolist(), *own, strict=True):
            if k1 - k0 > margin * n and wrong(Arm(n, k1), Arm(n, k0), margin, ALPHA)[0]:
                count += 1
                break
    return count / runs


def z_test(random: np.random.Generator, runs: int, share: float) -> float:
    """Share of A/A steps that a two-sided z-test at 5 %, repeated at 60 looks, calls different."""
    count = 0
    for _ in range(runs):
        one, zero = sixty_looks(random, 0.5, RATE * LOOK)
        for a, b in looks(random, Truth(share, share), one, zero):
            pooled = (a.events + b.events) / (a.trials + b.trials)
            spread = math.sqrt(pooled * (1 - pooled) * (1 / a.trials + 1 / b.trials))
            if spread and abs(a.events / a.trials - b.events / b.trials) > 1.96 * spread:
                count += 1
                break
    return count / runs


def decided(
    random: np.random.Generator, runs: int, truth: Truth, margin: float, ratio: float, most: int, alpha: float
) -> tuple[float, float]:
    """Shares of runs that were decided rightly and wrongly by `most` requests of the candidate, at 20 looks."""
    one = np.linspace(most / 20, most, 20).astype(np.int64)
    zero = (one * ratio).astype(np.int64)
    right = erred = 0
    good = truth.candidate - truth.serving < margin
    for _ in range(runs):
        for candidate, serving in looks(random, truth, one, zero):
            fails, passes = wrong(candidate, serving, margin, alpha)
            if fails or passes:
                right += passes == good
                erred += passes != good
                break
    return right / runs, erred / runs


@dataclass
class Told:
    """How a simulated rollout ended: Pass (all steps), Fail, or Inconclusive (deadline); seconds of each step."""

    outcome: Outcome
    seconds: list[float]


def rollout(random: np.random.Generator, truths: tuple[Truth, Truth], rate: float) -> Told:
    """One rollout by the default policy through `judge` and `combine`."""
    passed: list[float] = []
    clock = 0.0
    for weight in STEPS:
        begin, done = clock, False
        count = int(DEADLINE / LOOK)
        one = np.cumsum(random.poisson(rate * LOOK * weight, count))
        zero = np.cumsum(random.poisson(rate * LOOK * (1 - weight), count))
        seen = [list(looks(random, truth, one, zero)) for truth in truths]
        for pair in zip(*seen, strict=True):
            clock += LOOK
            if clock > DEADLINE:
                return Told(Outcome.INCONCLUSIVE, passed)
            if all(
                all(arm.trials for arm in arms) and undecided(*arms, rule.margin or 0.0, ALPHA)
                for rule, arms in zip((ERRORS, LATENCY), pair, strict=True)
            ):
                continue
            verdicts = [
                judge(rule, Measurement(rule.name, datetime.now(UTC), Shares(*arms)), alpha=ALPHA)
                for rule, arms in zip((ERRORS, LATENCY), pair, strict=True)
            ]
            outcome = combine(verdicts, declared=(ERRORS.name, LATENCY.name))
            if outcome is Outcome.FAIL:
                return Told(outcome, [*passed, clock - begin])
            if outcome is Outcome.PASS and clock - begin >= HOLD:
                done = True
                break
        if not done:
            return Told(Outcome.INCONCLUSIVE, passed)
        passed.append(clock - begin)
    return Told(Outcome.PASS, passed)


def percentile(values: list[float], q: float) -> float:
    """Of at least one value; 0 without any."""
    return float(np.quantile(values, q)) if values else 0.0


def levels(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """How often the answer is wrong, whatever the number of looks."""
    level = 1 - CONFIDENCE
    same = (Truth(0.01, 0.01), Truth(0.05, 0.05))
    margins = (0.02, 0.05)
    yield Figure(
        "A/A, default margins: rolled back", rollouts_with(random, runs, same, margins, "Fail"), "share", level
    )
    yield Figure("A/A, margins 0: rolled back", rollouts_with(random, runs, same, (0.0, 0.0), "Fail"), "share", level)
    edge = (Truth(0.01, 0.03), Truth(0.05, 0.10))
    yield Figure(
        "harm exactly of the margins: rolled back", rollouts_with(random, runs, edge, margins, "Fail"), "share", level
    )
    yield Figure(
        "harm exactly of the margins: any step and metric passed",
        rollouts_with(random, runs, edge, margins, "Pass"),
        "share",
        level,
    )
    beyond = (Truth(0.01, 0.04), Truth(0.05, 0.12))
    yield Figure(
        "harm beyond the margins (1 to 4 %, 5 to 12 %): any step and metric passed",
        rollouts_with(random, runs, beyond, margins, "Pass"),
        "share",
        level,
    )
    yield Figure(
        "A/A, mirrored, half of the bad requests bad at both, margin 0: failed",
        mirrored(random, runs, 0.05, 0.5, 0.0),
        "share",
        ALPHA,
    )
    bursts = (Truth(0.01, 0.01, burst=5), Truth(0.05, 0.05, burst=5))
    yield Figure(
        "A/A, bad requests in bursts of 5, default margins: rolled back",
        rollouts_with(random, runs, bursts, margins, "Fail"),
        "share",
    )
    yield Figure(
        "A/A, bad requests in bursts of 5, margins 0: rolled back",
        rollouts_with(random, runs, bursts, (0.0, 0.0), "Fail"),
        "share",
    )
    yield Figure(
        "A/A, z-test at 5 % at each of 60 looks (not ours): called different", z_test(random, runs, 0.01), "share"
    )


POWER = (
    (Truth(0.0, 0.0), 0.02, 9.0),
    (Truth(0.01, 0.01), 0.02, 9.0),
    (Truth(0.01, 0.01), 0.02, 1.0),
    (Truth(0.05, 0.05), 0.05, 9.0),
    (Truth(0.05, 0.05), 0.05, 1.0),
    (Truth(0.01, 0.03), 0.005, 9.0),
    (Truth(0.01, 0.05), 0.02, 9.0),
    (Truth(0.01, 0.10), 0.02, 9.0),
    (Truth(0.01, 0.50), 0.02, 9.0),
    (Truth(0.05, 0.15), 0.05, 9.0),
    (Truth(0.05, 0.15), 0.05, 1.0),
    (Truth(0.05, 0.30), 0.05, 9.0),
)
"""What is decided, margin, serving requests for each of the candidate's."""


def power(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """Whether `needed_samples` is enough for 90 % of the decisions."""
    rights, wrongs = [], []
    for truth, margin, ratio in POWER:
        worse = truth.candidate - truth.serving
        most = needed_samples(margin, truth.serving, ALPHA, ratio=ratio, worse=worse)
        assert most is not None
        right, erred = decided(random, runs, truth, margin, ratio, most, ALPHA)
        what = (
            f"{100 * truth.serving:g} to {100 * truth.candidate:g} %, margin {100 * margin:g}, "
            f"1:{ratio:g}, n={most}: {'passed' if worse < margin else 'failed'}"
        )
        yield Figure(what, right, "share")
        rights.append(right)
        wrongs.append(erred)
    head = f"decided with the documented number of requests, {len(POWER)} cases"
    yield Figure(f"{head}: rightly, least", min(rights), "share", at_least=0.9)
    yield Figure(f"{head}: wrongly, most", max(wrongs), "share", at_most=ALPHA)


def policies(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """Whole rollouts by the default policy."""
    cases = (
        ("1 % errors, 5 % slow", (Truth(0.01, 0.01), Truth(0.05, 0.05))),
        ("0.1 % errors, 1 % slow", (Truth(0.001, 0.001), Truth(0.01, 0.01))),
    )
    for name, truths in cases:
        told = [rollout(random, truths, RATE) for _ in range(runs)]
        head = f"default policy, {RATE:g} requests/s, {name}"
        good = sum(one.outcome is Outcome.PASS for one in told)
        yield Figure(f"{head}: promoted in {DEADLINE / 60:g} min", good / runs, "share", at_least=0.9)
        for index, weight in enumerate(STEPS):
            seconds = [one.seconds[index] for one in told if len(one.seconds) > index]
            for label, q in (("median", 0.5), ("p90", 0.9)):
                yield Figure(f"{head}: {100 * weight:g} % step, {label}", percentile(seconds, q), "s")
    promoted = []
    for name, truths in (
        ("errors 1 to 5 %", (Truth(0.01, 0.05), Truth(0.05, 0.05))),
        ("errors 1 to 10 %", (Truth(0.01, 0.10), Truth(0.05, 0.05))),
        ("errors 0 to 50 %", (Truth(0.0, 0.5), Truth(0.05, 0.05))),
        ("slow 5 to 15 %", (Truth(0.01, 0.01), Truth(0.05, 0.15))),
        ("slow 5 to 100 %", (Truth(0.01, 0.01), Truth(0.05, 1.0))),
    ):
        told = [rollout(random, truths, RATE) for _ in range(runs)]
        head = f"default policy, {RATE:g} requests/s, {name}"
        bad = [sum(one.seconds) for one in told if one.outcome is Outcome.FAIL]
        promoted.append(sum(one.outcome is Outcome.PASS for one in told) / runs)
        yield Figure(f"{head}: failed", len(bad) / runs, "share")
        yield Figure(f"{head}: median time to Fail", statistics.median(bad) if bad else 0.0, "s")
    yield Figure(
        f"default policy, {RATE:g} requests/s, harm beyond the margins, 5 cases: promoted, most",
        max(promoted),
        "share",
        1 - CONFIDENCE,
    )
    told = [rollout(random, cases[0][1], 0.1) for _ in range(runs)]
    undecided = sum(one.outcome is Outcome.INCONCLUSIVE for one in told)
    yield Figure(
        "default policy, 0.1 requests/s: Inconclusive at the deadline", undecided / runs, "share", at_least=1.0
    )
    stages = [Stage(weight, 1 - weight, HOLD) for weight in STEPS]
    rate = needed_rate(stages, [Ask(0.02, 0.01, ALPHA), Ask(0.05, 0.05, ALPHA)], DEADLINE)
    yield Figure(
        f"rate that needed_rate asks for, 1 % errors, 5 % slow, {DEADLINE / 60:g} min",
        math.inf if rate is None else rate,
        "requests/s",
        at_most=RATE,
    )


def cost(random: np.random.Generator) -> Iterator[Figure]:
    """CPU time of what each look asks for."""
    pairs = [
        arms
        for truth in (Truth(0.01, 0.01), Truth(0.0, 0.0), Truth(0.05, 0.15))
        for arms in looks(random, truth, *sixty_looks(random, 0.1, RATE * LOOK))
    ]
    begin = time.process_time()
    for one, zero in pairs:
        difference(one, zero, ALPHA)
    yield Figure("one interval of a difference", 1000 * (time.process_time() - begin) / len(pairs), "ms CPU")
    begin = time.process_time()
    for one, zero in pairs:
        judge(ERRORS, Measurement(ERRORS.name, datetime.now(UTC), Shares(one, zero)), alpha=ALPHA)
    yield Figure("one verdict", 1000 * (time.process_time() - begin) / len(pairs), "ms CPU")


def simulate(seed: int, runs: int, policy_runs: int) -> Iterator[Figure]:
    """All figures, one after the other."""
    random = np.random.default_rng(seed)
    yield from levels(random, runs)
    yield from power(random, runs)
    yield from policies(random, policy_runs)
    yield from cost(random)


def document(figures: list[Figure], command: str) -> dict[str, Any]:
    """The figures in the common format of docs/figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "commit": commit.stdout.strip(),
        "host": {"cores": os.cpu_count(), "memoryGiB": round(memory, 1), "machine": platform.machine()},
        "figures": [figure.row() for figure in figures],
    }


def main() -> None:
    """Simulate, print, and write docs/figures/simulate.json when it was a full run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs, some seconds; nothing is written")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--tables", action="store_true", help="only make the tables of docs/concepts/evidence.md anew")
    given = parser.parse_args()
    if given.tables:
        tables.write()
        return
    begin = time.monotonic()
    figures = []
    for figure in simulate(given.seed, *((40, 10) if given.quick else (2000, 500))):
        figures.append(figure)
        row = figure.row()
        held = {True: "ok", False: "NO", None: ""}[row["holds"]]
        sys.stdout.write(f"{row['value']:>8g} {row['unit']:<10} {held:<2} {row['bound'] or '':<14} {row['name']}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{time.monotonic() - begin:.0f} s\n")
    if not given.quick:
        path = ROOT / "docs" / "figures" / "simulate.json"
        path.write_text(json.dumps(document(figures, "python -m tests.simulate"), indent=2) + "\n")
        tables.write()
        sys.exit(not all(figure.holds for figure in figures))


if __name__ == "__main__":
    main()
