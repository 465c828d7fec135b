"""False alarms, power and time to a decision of the default policy, by simulated requests.

Evidence is computed for many rollouts at once (`vectors`). What whole rollouts decide goes through the operator's own
code: when a step may end, its levels, and how much of a Pass must be from requests that had the time to end.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from modelwright.api.v1alpha1 import policy as api
from modelwright.api.v1alpha1.model import Serving
from modelwright.api.v1alpha1.rollout import ModelRolloutSpec, ModelRolloutStatus
from modelwright.core.analysis.ab_winner import decide_winner
from modelwright.core.analysis.blocks import BlockPair
from modelwright.core.analysis.dispersion import MAX_DISPERSION, estimate_dispersion
from modelwright.core.analysis.evidence import Arm, Block, Measurement, Outcome, RequestShares
from modelwright.core.analysis.planning import (
    SampleSizeQuery,
    StepTraffic,
    estimate_rate,
    estimate_samples,
    split_levels,
)
from modelwright.core.analysis.score_interval import score_interval
from modelwright.core.analysis.scraped_counters import block_ends
from modelwright.core.rollout import step_analysis
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import compile_steps
from tests.simulate import command, tables, vectors
from tests.simulate.command import Figure
from tests.simulate.vectors import Floats

FIGURES = command.FOLDER / "simulate.json"
CONFIDENCE = 0.95
MARGINS = (0.02, 0.05)
POLICY = api.RolloutPolicySpec.model_validate(
    {
        "strategy": {"preset": "Canary"},
        "analysis": {
            "metrics": [
                {"name": "errors", "builtin": "error-rate", "margin": "0.02"},
                {"name": "slow", "builtin": "latency-over", "threshold": "250ms", "margin": "0.05"},
            ]
        },
    }
)
EVERY = compile_steps(POLICY.strategy)
COMPARED = tuple(step for step in EVERY if not step.is_promotion)
STEPS = tuple(step.weight / 100 for step in COMPARED)
"""The candidate's shares in the steps where it is compared; at 100 % there is nothing to compare with."""
RATE, LOOK, HOLD, DEADLINE = 20.0, 30.0, 120.0, 1800.0
"""Requests per second for the Model, seconds between looks, least seconds of a step, seconds for all."""
LONGEST = timedelta(seconds=Serving().max_request_seconds)
"""A request may take so long: before, its step has no Pass."""
BEGIN = datetime.fromtimestamp(0, UTC)
"""Of each step."""
METRICS = tuple(metric.name for metric in POLICY.analysis.metrics) if POLICY.analysis is not None else ()
RECORD = RolloutRecord(
    name="simulated",
    uid="",
    generation=1,
    created=BEGIN,
    spec=ModelRolloutSpec.model_validate(
        {"modelRef": {"name": "simulated"}, "number": 1, "target": {"version": "candidate"}}
    ),
    status=ModelRolloutStatus(),
)
"""What the operator's code is asked about; no look was out of its limits before."""
LEVELS = split_levels(CONFIDENCE, metrics=2, steps=len(STEPS))
"""Those of a step before 1/64 of a Fail's is set aside for requests before the first step is confirmed."""
PASSES, FAILS = -math.log(LEVELS.passes), -math.log(LEVELS.fails)
"""Log evidence that decides."""


@dataclass(frozen=True)
class Truth:
    """Shares of bad requests of one metric; `burst` requests in a row share their fate."""

    serving: float
    candidate: float
    burst: int = 1


@dataclass(frozen=True)
class Blocks:
    """Requests and bad ones of candidate and serving revision: arrays of (rollouts, blocks)."""

    n1: Floats
    k1: Floats
    n0: Floats
    k0: Floats

    def pairs(self, run: int, until: int) -> list[BlockPair]:
        """The first blocks of one rollout."""
        counts = (x[run, :until].tolist() for x in (self.n1, self.k1, self.n0, self.k0))
        return [BlockPair(*map(float, pair)) for pair in zip(*counts, strict=True)]


def drawn(random: np.random.Generator, trials: Floats, share: Floats | float, burst: int) -> Floats:
    """Bad requests; those of a burst have one fate, and the last burst has what is left."""
    if burst == 1:
        return random.binomial(trials.astype(int), share).astype(float)
    whole = burst * random.binomial((trials // burst).astype(int), share)
    return np.asarray(whole + trials % burst * random.binomial(1, share, trials.shape), dtype=float)


def blocks(
    random: np.random.Generator, runs: int, truth: Truth, weight: float, lengths: list[float], rate: float
) -> Blocks:
    """Rollouts of one step and metric."""
    expected = rate * np.asarray(lengths)
    n1 = random.poisson(expected * weight, (runs, len(lengths))).astype(float)
    n0 = random.poisson(expected * (1 - weight), (runs, len(lengths))).astype(float)
    k1, k0 = (drawn(random, n, share, truth.burst) for n, share in ((n1, truth.candidate), (n0, truth.serving)))
    return Blocks(n1, k1, n0, k0)


def ever_failed(counts: Blocks, margin: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rollouts fail at any block."""
    found = vectors.beyond(counts.n1, counts.k1, counts.n0, counts.k0, margin)
    return (found >= FAILS).any(axis=1)


def ever_passed(counts: Blocks, margin: float, *, held: bool = True) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rollouts pass at any block; those that are overdispersed don't, if they are `held`."""
    found = vectors.within(counts.n1, counts.k1, counts.n0, counts.k0, margin) >= PASSES
    if held:
        for run in np.flatnonzero(found.any(axis=1)):
            found[run] = [
                passed and estimate_dispersion(counts.pairs(run, at + 1)) <= MAX_DISPERSION
                for at, passed in enumerate(found[run])
            ]
    return np.asarray(found.any(axis=1))


SIXTY = [30.0] * 60


def rolled_back(
    random: np.random.Generator,
    runs: int,
    truths: tuple[Truth, Truth],
    margins: tuple[float, float],
    weights: tuple[float, ...] = STEPS,
) -> float:
    """Share of rollouts in which any of 60 blocks at any step and metric fails; none stops early."""
    bad = np.zeros(runs, dtype=bool)
    for weight in weights:
        for truth, margin in zip(truths, margins, strict=True):
            bad |= ever_failed(blocks(random, runs, truth, weight, SIXTY, RATE), margin)
    return float(bad.mean())


def promoted(
    random: np.random.Generator,
    runs: int,
    truths: tuple[Truth, Truth],
    margins: tuple[float, float],
    weights: tuple[float, ...] = STEPS,
    *,
    held: bool = True,
) -> float:
    """Share of rollouts that pass every step and metric at some of 60 blocks, were none ever to fail."""
    good = np.ones(runs, dtype=bool)
    for weight in weights:
        for truth, margin in zip(truths, margins, strict=True):
            good &= ever_passed(blocks(random, runs, truth, weight, SIXTY, RATE), margin, held=held)
    return float(good.mean())


def step_passed(random: np.random.Generator, runs: int, truth: Truth, margin: float, weight: float) -> float:
    """Share of single steps and metrics that pass at some of 60 blocks."""
    return float(ever_passed(blocks(random, runs, truth, weight, SIXTY, RATE), margin, held=False).mean())


def confounded(random: np.random.Generator, runs: int, candidate_first: bool) -> tuple[float, float]:
    """Shares of steps that (fail, pass) at the margin, while the candidate's weight drifts between 50 and 5 % and the
    errors of both revisions rise from 1 to 6 %."""
    weight = np.linspace(0.5, 0.05, 60) if candidate_first else np.linspace(0.05, 0.5, 60)
    base = np.where(np.arange(60) < 30, 0.01, 0.06)
    total = np.full((runs, 60), int(RATE * LOOK))
    n1 = random.binomial(total, weight).astype(float)
    n0 = total - n1
    margin = MARGINS[0]
    counts = Blocks(n1, drawn(random, n1, base + margin, 1), n0, drawn(random, n0, base, 1))
    return float(ever_failed(counts, margin).mean()), float(ever_passed(counts, margin, held=False).mean())


def retried(random: np.random.Generator, runs: int, share: float, times: int, again: float) -> tuple[float, float]:
    """Shares of A/A steps at margin 0 that (fail, pass), where a bad request is sent up to `times` times more, and each
    of these is bad with probability `again`."""
    expected = RATE * LOOK * np.array([0.1, 0.9])
    arms = []
    for mean in expected:
        n = random.poisson(mean, (runs, 60))
        k = bad = random.binomial(n, share)
        for _ in range(times):
            n, bad = n + bad, random.binomial(bad, again)
            k = k + bad
        arms += [n.astype(float), k.astype(float)]
    counts = Blocks(*arms)
    return float(ever_failed(counts, 0.0).mean()), float(ever_passed(counts, 0.0, held=False).mean())


def z_test(random: np.random.Generator, runs: int, share: float) -> float:
    """Share of A/A steps that a two-sided z-test at 5 %, repeated at 60 looks, calls different."""
    counts = blocks(random, runs, Truth(share, share), 0.5, SIXTY, RATE)
    n1, k1, n0, k0 = (np.cumsum(x, axis=1) for x in (counts.n1, counts.k1, counts.n0, counts.k0))
    pooled = (k1 + k0) / (n1 + n0)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n0))
    return float((np.abs(k1 / n1 - k0 / n0) > 1.96 * spread).any(axis=1).mean())


def decided(
    random: np.random.Generator, runs: int, truth: Truth, margin: float, ratio: float, most: int
) -> tuple[float, float]:
    """Shares of runs that were decided rightly and wrongly by `most` requests of the candidate in 60 blocks."""
    each = max(1.0, most / 60)
    one = np.diff(np.floor(np.append(np.arange(0, most, each), most)))
    n1 = np.tile(one, (runs, 1))
    n0 = np.diff(np.floor(np.cumsum(n1, axis=1) * ratio), axis=1, prepend=0)
    counts = Blocks(n1, drawn(random, n1, truth.candidate, 1), n0, drawn(random, n0, truth.serving, 1))
    fails = vectors.beyond(counts.n1, counts.k1, counts.n0, counts.k0, margin) >= FAILS
    passes = vectors.within(counts.n1, counts.k1, counts.n0, counts.k0, margin) >= PASSES
    right, wrong = (passes, fails) if truth.candidate - truth.serving < margin else (fails, passes)
    return float(right.any(axis=1).mean()), float(wrong.any(axis=1).mean())


@dataclass
class Told:
    """How a simulated rollout ended: Pass (all steps), Fail, or Inconclusive (deadline); seconds of each step."""

    outcome: Outcome
    seconds: list[float]


def rollouts(random: np.random.Generator, runs: int, truths: tuple[Truth, Truth], rate: float) -> list[Told]:
    """Rollouts by the default policy. Looks at which nothing can be decided aren't judged."""
    every = list(block_ends(0.0, DEADLINE))
    lengths = [after - before for before, after in pairwise([0.0, *every])]
    drawn_steps = []
    for weight in STEPS:
        metrics = [blocks(random, runs, truth, weight, lengths, rate) for truth in truths]
        # All metrics count the same requests.
        n1, n0 = metrics[0].n1, metrics[0].n0
        metrics = [
            Blocks(
                n1, drawn(random, n1, truth.candidate, truth.burst), n0, drawn(random, n0, truth.serving, truth.burst)
            )
            for truth in truths
        ]
        near = np.zeros(n1.shape, dtype=bool)
        passes = np.ones(n1.shape, dtype=bool)
        for counts, margin in zip(metrics, MARGINS, strict=True):
            arrays = (counts.n1, counts.k1, counts.n0, counts.k0)
            near |= np.maximum.accumulate(vectors.beyond(*arrays, margin), axis=1) >= FAILS - 1e-6
            found = vectors.within(*arrays, margin) + 1e-6
            passes &= (np.maximum.accumulate(found, axis=1) >= PASSES) & (found >= PASSES / 2)
        drawn_steps.append((metrics, near | passes))
    return [_rollout(run, every, drawn_steps) for run in range(runs)]


def _rollout(run: int, every: list[float], steps: list[tuple[list[Blocks], Any]]) -> Told:
    passed: list[float] = []
    clock = 0.0
    for index, (metrics, near) in enumerate(steps):
        begin, done = clock, False
        hold = step_analysis.minimum_hold(POLICY, COMPARED[index], LONGEST).total_seconds()
        while not done:
            clock += LOOK
            if clock > DEADLINE:
                return Told(Outcome.INCONCLUSIVE, passed)
            until = sum(end <= clock - begin for end in every)
            if not until or not near[run, until - 1]:
                continue
            outcome = look(run, every[:until], metrics, index, clock - begin)
            if outcome is Outcome.FAIL:
                return Told(outcome, [*passed, clock - begin])
            done = outcome is Outcome.PASS and clock - begin >= hold
        passed.append(clock - begin)
    return Told(Outcome.PASS, passed)


def look(run: int, every: list[float], metrics: list[Blocks], index: int, age: float) -> Outcome | None:
    """What the operator's own code says of both metrics, `age` seconds after the step's begin."""
    found = []
    for metric, counts in zip(METRICS, metrics, strict=True):
        arms = [
            tuple(
                Block(end, int(n), int(k))
                for end, n, k in zip(every, trials[run].tolist(), bad[run].tolist(), strict=False)
            )
            for trials, bad in ((counts.n1, counts.k1), (counts.n0, counts.k0))
        ]
        sums = [Arm(sum(block.trials for block in arm), sum(block.events for block in arm)) for arm in arms]
        shares = RequestShares(sums[0], sums[1], blocks=(arms[0], arms[1]))
        found.append(Measurement(metric, BEGIN + timedelta(seconds=age), shares))
    outcome, _ = step_analysis.evaluate_step(
        POLICY, EVERY, COMPARED[index], found, RECORD, index=index, complete_at=BEGIN + LONGEST
    )
    return outcome


def percentile(values: list[float], q: float) -> float:
    """Of at least one value; 0 without any."""
    return float(np.quantile(values, q)) if values else 0.0


def errs(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """How often the answer is wrong, whatever the number of looks."""
    level = 1 - CONFIDENCE
    same = GOOD[0][1]
    found = rolled_back(random, runs, same, MARGINS)
    yield Figure("A/A, default margins: rolled back", found, "share", level)
    for weight in (0.01, 0.1, 0.5):
        for share in (0.001, 0.01, 0.05):
            what = f"at {100 * share:g} %, weight {100 * weight:g}"
            alike, edge = Truth(share, share), (Truth(share, share + 0.02), Truth(share, share + 0.05))
            weights = (weight, weight)
            for margins in ((0.0, 0.0), MARGINS):
                name = "margins 0" if margins[0] == 0 else "default margins"
                found = rolled_back(random, runs, (alike, alike), margins, weights)
                yield Figure(f"A/A, {name}, {what}: rolled back", found, "share", level)
            found = rolled_back(random, runs, edge, MARGINS, weights)
            yield Figure(f"harm exactly of the margins, {what}: rolled back", found, "share", level)
            found = promoted(random, runs, edge, MARGINS, weights, held=False)
            yield Figure(f"harm exactly of the margins, {what}: promoted", found, "share", level)
            found = step_passed(random, runs, edge[0], MARGINS[0], weight)
            yield Figure(f"harm exactly of one margin, {what}: that metric passed in one step", found, "share", level)
    beyond = (Truth(0.01, 0.04), Truth(0.05, 0.05))
    found = promoted(random, runs, beyond, MARGINS)
    yield Figure("harm beyond one margin (1 to 4 %): promoted", found, "share", level)
    for first, name in ((True, "falls"), (False, "rises")):
        fails, passes = confounded(random, runs, first)
        head = f"harm exactly of the margin, weight {name} while both get worse"
        yield Figure(f"{head}: failed", fails, "share", LEVELS.fails)
        yield Figure(f"{head}: passed", passes, "share", LEVELS.passes)
    for again, name in ((0.01, "independently"), (0.5, "in half of the cases"), (1.0, "always")):
        fails, passes = retried(random, runs, 0.01, 3, again)
        independent = again == 0.01
        for what, found, level in (("failed", fails, LEVELS.fails), ("passed", passes, LEVELS.passes)):
            bound = level if independent else None
            yield Figure(f"A/A, margin 0, three retries that fail {name}: {what}", found, "share", bound)
    found = z_test(random, runs, 0.01)
    yield Figure("A/A, z-test at 5 % at each of 60 looks (not ours): called different", found, "share")


def bursts(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """Both sides of bad requests that come in bursts, which break the level."""
    for burst in (2, 5, 10):
        same = (Truth(0.01, 0.01, burst), Truth(0.05, 0.05, burst))
        edge = (Truth(0.01, 0.03, burst), Truth(0.05, 0.10, burst))
        one = (Truth(0.01, 0.03, burst), Truth(0.05, 0.05, burst))
        head = f"bursts of {burst}"
        for margins in ((0.0, 0.0), (0.005, 0.01), MARGINS):
            found = rolled_back(random, runs, same, margins)
            yield Figure(f"{head}, A/A, margins {margins[0]:g} and {margins[1]:g}: rolled back", found, "share")
        for truths, name in ((edge, "both margins"), (one, "one margin")):
            for held in (False, True):
                found = promoted(random, runs, truths, MARGINS, held=held)
                what = "promoted" if held else "promoted, if overdispersion did not hold it"
                yield Figure(f"{head}, harm exactly of {name}: {what}", found, "share")


POWER = (
    (Truth(0.0, 0.0), 0.02, 9.0),
    (Truth(0.01, 0.01), 0.02, 9.0),
    (Truth(0.01, 0.01), 0.02, 1.0),
    (Truth(0.05, 0.05), 0.05, 9.0),
    (Truth(0.05, 0.05), 0.05, 1.0),
    (Truth(0.01, 0.01), 0.005, 9.0),
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
    """Whether `estimate_samples` is enough for 90 % of the decisions."""
    rights, wrongs = [], []
    for truth, margin, ratio in POWER:
        worse = truth.candidate - truth.serving
        alpha = LEVELS.passes if worse < margin else LEVELS.fails
        most = estimate_samples(margin, truth.serving, alpha, ratio=ratio, worse=worse)
        assert most is not None
        right, erred = decided(random, runs, truth, margin, ratio, most)
        what = (
            f"{100 * truth.serving:g} to {100 * truth.candidate:g} %, margin {100 * margin:g}, "
            f"1:{ratio:g}, n={most}: {'passed' if worse < margin else 'failed'}"
        )
        yield Figure(what, right, "share")
        rights.append(right)
        wrongs.append(erred)
    head = f"decided with the documented number of requests, {len(POWER)} cases"
    yield Figure(f"{head}: rightly, least", min(rights), "share", at_least=0.88)
    yield Figure(f"{head}: wrongly, most", max(wrongs), "share", at_most=LEVELS.passes)


GOOD = (
    ("1 % errors, 5 % slow", (Truth(0.01, 0.01), Truth(0.05, 0.05))),
    ("0.1 % errors, 1 % slow", (Truth(0.001, 0.001), Truth(0.01, 0.01))),
)


def policies(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """Whole rollouts by the default policy."""
    for name, truths in GOOD:
        for rate, least in ((20.0, 0.99), (12.0, 0.98), (6.0, 0.95)):
            told = rollouts(random, runs, truths, rate)
            head = f"default policy, {rate:g} requests/s, {name}"
            good = sum(one.outcome is Outcome.PASS for one in told)
            yield Figure(f"{head}: promoted in {DEADLINE / 60:g} min", good / runs, "share", at_least=least)
            for index, weight in enumerate(STEPS):
                seconds = [one.seconds[index] for one in told if len(one.seconds) > index]
                for label, q in (("median", 0.5), ("p90", 0.9)):
                    bound = 240.0 if (rate, index, label) == (20.0, 0, "median") else None
                    yield Figure(f"{head}: {100 * weight:g} % step, {label}", percentile(seconds, q), "s", bound)
    yield from harmful(random, runs)
    told = rollouts(random, runs, GOOD[0][1], 0.1)
    undecided = sum(one.outcome is Outcome.INCONCLUSIVE for one in told)
    yield Figure(
        "default policy, 0.1 requests/s: Inconclusive at the deadline", undecided / runs, "share", at_least=1.0
    )
    stages = [StepTraffic(weight, 1 - weight, HOLD) for weight in STEPS]
    asks = [SampleSizeQuery(margin, base, LEVELS.passes) for margin, base in zip(MARGINS, (0.01, 0.05), strict=True)]
    rate = estimate_rate(stages, asks, DEADLINE)
    yield Figure(
        f"rate that needed_rate asks for, 1 % errors, 5 % slow, {DEADLINE / 60:g} min",
        math.inf if rate is None else rate,
        "requests/s",
        at_most=RATE,
    )


def harmful(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """Whole rollouts of candidates that are worse than the margins allow."""
    wrongly = []
    for name, truths in (
        ("errors 1 to 5 %", (Truth(0.01, 0.05), Truth(0.05, 0.05))),
        ("errors 1 to 10 %", (Truth(0.01, 0.10), Truth(0.05, 0.05))),
        ("errors 0 to 50 %", (Truth(0.0, 0.5), Truth(0.05, 0.05))),
        ("slow 5 to 15 %", (Truth(0.01, 0.01), Truth(0.05, 0.15))),
        ("slow 5 to 100 %", (Truth(0.01, 0.01), Truth(0.05, 1.0))),
    ):
        told = rollouts(random, runs, truths, RATE)
        head = f"default policy, {RATE:g} requests/s, {name}"
        bad = [sum(one.seconds) for one in told if one.outcome is Outcome.FAIL]
        wrongly.append(sum(one.outcome is Outcome.PASS for one in told) / runs)
        yield Figure(f"{head}: failed", len(bad) / runs, "share", at_least=0.95)
        yield Figure(f"{head}: median time to Fail", statistics.median(bad) if bad else 0.0, "s")
    yield Figure(
        f"default policy, {RATE:g} requests/s, harm beyond the margins, 5 cases: promoted, most",
        max(wrongly),
        "share",
        1 - CONFIDENCE,
    )


def winners(random: np.random.Generator, runs: int) -> Iterator[Figure]:
    """The end of an A/B test."""
    for candidate, count in ((0.04, 10000), (0.05, 10000), (0.05, 1000)):
        pairs = zip(random.binomial(count, candidate, runs), random.binomial(count, 0.05, runs), strict=True)
        won = sum(score_interval(BlockPair(count, float(k1), count, float(k0)), 0.05).high <= 0 for k1, k0 in pairs)
        what = f"A/B test, 5 to {100 * candidate:g} %, {count:,} requests each: won"
        yield Figure(what, won / runs, "share", *((None, 0.9) if candidate == 0.04 else (0.05 + 3 / 200, None)))
    for correlation in (0.3, 0.5, 0.8, 0.9):
        won = sum(
            decide_winner("m", course(random, correlation), alpha=0.05, higher_is_better=True).outcome is Outcome.PASS
            for _ in range(runs)
        )
        what = f"A/B test of values, alike, correlation {correlation:g} from one moment to the next: won"
        yield Figure(what, won / runs, "share", at_most=0.05 + 3 / 200)


def course(random: np.random.Generator, correlation: float) -> list[tuple[float, float]]:
    """60 values of two equal revisions."""
    steps = random.normal(size=(2, 60)) * math.sqrt(1 - correlation**2)
    values = np.empty((2, 60))
    values[:, 0] = random.normal(size=2)
    for at in range(1, 60):
        values[:, at] = correlation * values[:, at - 1] + steps[:, at]
    return [(one, zero) for one, zero in values.T.tolist()]


def cost(random: np.random.Generator) -> Iterator[Figure]:
    """CPU time of what each look asks for."""
    counts = [blocks(random, 20, truth, 0.1, SIXTY, RATE) for truth in (Truth(0.01, 0.01), Truth(0.05, 0.15))]
    begin = time.process_time()
    for step in counts:
        for run in range(20):
            look(run, [30.0 * at for at in range(1, 61)], [step, step], 0, 1800.0)
    yield Figure("one verdict from 60 blocks", 1000 * (time.process_time() - begin) / 80, "ms CPU")


SECTIONS: tuple[Callable[[np.random.Generator, int], Iterator[Figure]], ...] = (errs, bursts, power, winners)


def simulate(seed: int, runs: int, policy_runs: int) -> Iterator[Figure]:
    """All figures, one after the other; each section has a generator of its own, so that it can be run alone."""
    yield from policies(np.random.default_rng((seed, 0)), policy_runs)
    for place, section in enumerate(SECTIONS, 1):
        yield from section(np.random.default_rng((seed, place)), runs)
    yield from cost(np.random.default_rng((seed, 0)))


def main() -> None:
    """All rollouts."""
    command.run(
        __doc__ or "",
        "python -m tests.simulate",
        FIGURES,
        lambda given: simulate(given.seed, *((100, 40) if given.quick else (2000, 500))),
        tables.write,
        seed=4,
    )


if __name__ == "__main__":
    main()
