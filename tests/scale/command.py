"""The measuring command: Models of several sizes, many rollouts at once, or many policies that stand idle."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.scale import retraining, rollouts, run
from tests.scale.operator_process import ROOT


def main() -> None:
    """Measure and print; a full run is written to docs/figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="100,500,1000", help="sizes, comma-separated")
    parser.add_argument("--idle", type=float, default=60, help="seconds to stand idle")
    parser.add_argument("--rollouts", type=int, help="instead: that many rollouts at once, of five steps each")
    parser.add_argument("--retraining", type=int, help="instead: that many RetrainingPolicies that stand idle")
    parser.add_argument("--write", type=Path, help="file for the figures; a full run goes to docs/figures")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="modelwright-scale-"))
    if given.rollouts:
        _rollouts(given.rollouts, folder, given.write)
        return
    if given.retraining:
        _retraining(given.retraining, 2 * given.idle, folder, given.write)
        return
    results = []
    for size in map(int, given.models.split(",")):
        _say(f"{size} Models; the operator's log is in {folder}")
        results.append(asyncio.run(run.measure(size, given.idle, folder)))
        run.show(results[-1:])
    run.show(results)
    full = given.models == parser.get_default("models") and given.idle == parser.get_default("idle")
    target = given.write or (ROOT / "docs/figures/scale.json" if full else None)
    if target:
        run.write(target, results, f"python -m tests.scale --models {given.models} --idle {given.idle:g}")


def _rollouts(count: int, folder: Path, target: Path | None) -> None:
    _say(f"{count} rollouts at once; the operator's log is in {folder}")
    results = [asyncio.run(rollouts.measure(count, folder))]
    run.show(results, rollouts.BOUNDS, rollouts.BOUNDED)
    if target is None and count == rollouts.BOUNDED:
        target = ROOT / "docs/figures/scale-rollouts.json"
    if target:
        run.write(target, results, f"python -m tests.scale --rollouts {count}", rollouts.BOUNDS, rollouts.BOUNDED)


def _retraining(count: int, idle: float, folder: Path, target: Path | None) -> None:
    _say(f"{count} idle RetrainingPolicies; the operator's log is in {folder}")
    results = [asyncio.run(retraining.measure(count, idle, folder))]
    run.show(results, retraining.BOUNDS, retraining.BOUNDED)
    if target is None and count == retraining.BOUNDED:
        target = ROOT / "docs/figures/scale-retraining.json"
    if target:
        run.write(target, results, f"python -m tests.scale --retraining {count}", retraining.BOUNDS, retraining.BOUNDED)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
