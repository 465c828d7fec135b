"""How often the evaluation gate errs, by simulated reports through the real judge and by exact enumeration:
`python -m tests.simulate.gates` writes docs/figures/gates.json and the tables of docs/how-to/gates.md."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.core import evaluation_gate
from modelwright.core.analysis.figure_evidence import PairedExamples, equally_good
from tests.simulate import command
from tests.simulate.command import Figure

PAGE = command.ROOT / "docs" / "how-to" / "gates.md"
FIGURES = command.FOLDER / "gates.json"
ALPHA = 1 - evaluation_gate.DEFAULT_CONFIDENCE
PARTS = ("a", "b", "c", "d", "e")
"""Five slices."""
ASKED, POWER = 0.8, 0.85
"""What is asked of the documented numbers, and what they are planned for."""
ACCURACY = 0.92

SIZES = (2, 3, 5, 8, 13, 20, 50, 120, 310, 1000, 2000)
LIMITS = (-0.5, -0.2, -0.05, -0.02, -0.005, -0.001, 0.0, 0.001, 0.005, 0.02, 0.05, 0.2)
NUISANCE = (0.0, 1e-4, 5e-4, 2e-3, 5e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4)
"""Shares of the examples for which both are equally often alone right, beside what the limit takes."""


def level_of_pairs(n: int, limit: float, alpha: float) -> float:
    """The largest exact chance that a difference above `limit` is claimed while it is `limit`."""
    shares = [max(0.0, -limit) + more for more in NUISANCE if 2 * (max(0.0, -limit) + more) + limit <= 1]
    most = max(2 * share + limit for share in shares)
    losses = np.arange(min(n, int(n * most + 8 * (n * most) ** 0.5 + 12)) + 1)
    needed = np.array(
        [
            _least(n - lost, lambda k, lost=lost: PairedExamples(n, k, lost).p_value(limit) <= alpha)
            for lost in losses.tolist()
        ]
    )
    found = []
    for lost in shares:
        gained = (lost + limit) / (1 - lost) if lost < 1 else 0.0
        claimed = stats.binom.sf(needed - 1, n - losses, min(max(gained, 0.0), 1.0))
        found.append(float((stats.binom.pmf(losses, n, lost) * claimed).sum()))
    return max(found)


def _least(most: int, claims: Callable[[int], bool]) -> int:
    """The least count from 0 to most that claims, most + 1 when none does."""
    low, high = 0, most + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if claims(middle) else (middle + 1, high)
    return low


DIFFERING = (0.02, 0.06, 0.2)
"""Shares of the examples that only one of the two versions gets right."""
MARGINS = (0.005, 0.01, 0.02, 0.05)
MANY = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 20000)

Json = dict[str, Any]


def documented(differing: float, margin: float, parts: int) -> int:
    """Examples in each part with which an equal candidate passes all of them with POWER."""
    each = POWER ** (1 / parts)
    found = equally_good(differing).required_examples(-margin, ALPHA, each)
    assert found is not None
    return found


def pairs(random: np.random.Generator, n: int, differing: float, loss: float, part: str | None) -> Json:
    """A figure of n examples, of which the candidate gets a share of `loss` fewer right."""
    differing = max(differing, loss)
    better, worse, _ = random.multinomial(n, [(differing - loss) / 2, (differing + loss) / 2, 1 - differing]).tolist()
    serving = ACCURACY
    figure = {"name": "accuracy", "candidate": serving + (better - worse) / n, "serving": serving}
    return figure | {"n": n, "better": better, "worse": worse} | ({"slice": part} if part else {})


def outcomes(margin: float, slices: tuple[str, ...], report: Callable[[str | None], Json], runs: int) -> Counter[str]:
    """What the gate says of so many reports."""
    metric = EvaluationMetric.model_validate({"name": "accuracy", "minDelta": f"-{margin}", "slices": list(slices)})
    return Counter(
        evaluation_gate.evaluate_report(
            [metric], {"metrics": [report(part) for part in (None, *slices)]}, first=False
        ).outcome.value
        for _ in range(runs)
    )


def equal(random: np.random.Generator, runs: int, part: int | None) -> Iterator[Figure]:
    """An equal candidate, with the documented number of examples in each of five slices and five times as many in all:
    the slices are independent here, which is the hardest case."""
    passed, failed = [], []
    for margin, differing in command.chosen(product(MARGINS, DIFFERING), part):
        n = documented(differing, margin, 1 + len(PARTS))

        def report(part: str | None, n: int = n, differing: float = differing) -> Json:
            return pairs(random, n if part else n * len(PARTS), differing, 0.0, part)

        found = outcomes(margin, PARTS, report, runs)
        what = f"equal candidate, five slices, minDelta -{margin:g}, {100 * differing:g} % differ, n {n}"
        yield Figure(f"{what}: passes", found["Pass"] / runs, "share")
        passed.append(found["Pass"] / runs)
        failed.append(found["Fail"] / runs)
    head = f"equal candidate, five slices, documented n, {len(passed)} cases"
    yield Figure(f"{head}: passes, least", min(passed), "share", at_least=ASKED)
    yield Figure(f"{head}: fails, most", max(failed), "share", at_most=ALPHA)


def worse(random: np.random.Generator, runs: int, part: int | None) -> Iterator[Figure]:
    """A candidate that is worse by twice the limit, without slices, at every number of examples."""
    worst: dict[int, float] = {}
    cells = command.chosen(product(MANY, MARGINS, DIFFERING), part)
    for n, margin, differing in cells:

        def report(part: str | None, n: int = n, margin: float = margin, share: float = differing) -> Json:
            return pairs(random, n, share, 2 * margin, part)

        found = outcomes(margin, (), report, runs)
        worst[n] = max(worst.get(n, 0.0), found["Pass"] / runs)
    for n, share in worst.items():
        yield Figure(f"worse by twice the limit, n {n}: passes, most", share, "share")
    what = f"worse by twice the limit, {len(cells)} cases: passes, most"
    yield Figure(what, max(worst.values()), "share", at_most=ALPHA)


def levels(part: int | None) -> Iterator[Figure]:
    """The exact chance that a loss of exactly the limit is passed, or failed at the level of 32 figures."""
    for name, alpha in (("passed", ALPHA), ("failed, of 32 figures", ALPHA / 32)):
        cells = command.chosen(product(SIZES, LIMITS), part)
        found = max(level_of_pairs(n, limit, alpha) for n, limit in cells)
        what = f"a loss of exactly the limit, exact, {len(cells)} cases: {name}, most"
        yield Figure(what, found, "share", at_most=alpha)


SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray[Any, np.dtype[np.float64]]]] = {
    "normal": lambda random, n: random.normal(size=n),
    "rare large losses (exponential)": lambda random, n: 1 - random.exponential(size=n),
    "heavy-tailed (t, 3 degrees)": lambda random, n: random.standard_t(3, size=n) / math.sqrt(3),
}
"""Differences of single examples, of mean 0 and deviation 1."""


def means(random: np.random.Generator, runs: int, part: int | None) -> Iterator[Figure]:
    """A candidate that is worse by exactly the limit, by a standard error: its level depends on how single examples
    differ."""
    for (shape, draw), n in command.chosen(product(SHAPES.items(), (2, 5, 20, 100, 1000)), part):

        def report(part: str | None, n: int = n, draw: Any = draw) -> Json:
            del part
            seen = draw(random, n)
            error = float(seen.std(ddof=1) / math.sqrt(n))
            value = round(float(seen.mean()) - 0.5, 9)
            return {"name": "accuracy", "candidate": value, "serving": 0.0, "n": n, "standardError": error}

        found = outcomes(0.5, (), report, runs)
        bound = ALPHA if shape == "normal" else None
        # Twice the standard deviation of the simulation is no finding.
        most = None if bound is None else round(bound + 2 * math.sqrt(bound * (1 - bound) / runs), 4)
        what = f"a loss of exactly the limit by standardError, {shape}, n {n}: passes"
        yield Figure(what, found["Pass"] / runs, "share", at_most=most)


def simulate(seed: int, runs: int, part: int | None) -> Iterator[Figure]:
    """All figures, one after the other; with `part` 0 to 9 that tenth of the cells of each."""
    random = np.random.default_rng(seed)
    yield from equal(random, runs, part)
    yield from worse(random, runs // 2, part)
    yield from levels(part)
    yield from means(random, 2 * runs, part)


def needed() -> str:
    """Examples in each part that an equal candidate needs, alone and with five slices."""
    rows = [
        "| `minDelta` | differ | examples, no slice | examples in each of five slices | passes (simulated) |",
        "|---|---|---|---|---|",
    ]
    found = {figure["name"]: figure["value"] for figure in json.loads(FIGURES.read_text())["figures"]}
    for margin in MARGINS:
        for differing in DIFFERING:
            alone, n = documented(differing, margin, 1), documented(differing, margin, 1 + len(PARTS))
            what = f"equal candidate, five slices, minDelta -{margin:g}, {100 * differing:g} % differ, n {n}: passes"
            rows.append(f"| -{margin:g} | {100 * differing:g} % | {alone:,} | {n:,} | {found[what]:.2f} |")
    return "\n".join(rows)


def measured() -> str:
    """The figures that have a bound, and those of standard errors."""
    rows = ["| what | measured | asked for |", "|---|---|---|"]
    for figure in json.loads(FIGURES.read_text())["figures"]:
        if figure["bound"] or "standardError" in figure["name"]:
            rows.append(f"| {figure['name']} | {figure['value']:g} | {figure['bound'] or ''} |")
    return "\n".join(rows)


def write() -> None:
    """Make the page's tables again."""
    PAGE.write_text(page(PAGE.read_text()))


def page(text: str) -> str:
    """The page with its tables made again."""
    for name, table in {"needed": needed(), "measured": measured()}.items():
        begin, end = f"<!-- {name}: made by python -m tests.simulate.gates --tables -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def main() -> None:
    """All cells, or a tenth of them."""
    command.run(
        __doc__ or "",
        "python -m tests.simulate.gates",
        FIGURES,
        lambda given: simulate(given.seed, 40 if given.quick else 2000, given.part),
        write,
        seed=22,
        parts=True,
    )


if __name__ == "__main__":
    main()
