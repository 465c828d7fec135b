"""The measuring command: Models of several sizes, many rollouts at once, or many policies that stand idle."""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from tests.scale import figures, retraining, rollouts, run
from tests.scale.figures import Bounds, Figures
from tests.scale.operator_process import ROOT

SIZES = "100,500,1000,5000"
IDLE = 60.0
ROLLOUTS = 100
POLICIES = 1000


def main() -> None:
    """Measure and print; a full run is written to docs/figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--models", help=f"sizes, comma-separated; in full: {SIZES}, then {ROLLOUTS} rollouts")
    parser.add_argument("--idle", type=float, default=IDLE, help="seconds to stand idle")
    parser.add_argument("--rollouts", type=int, help="instead: that many rollouts at once, of five steps each")
    parser.add_argument("--retraining", type=int, help="instead: that many RetrainingPolicies that stand idle")
    parser.add_argument("--write", type=Path, help="file for the figures, when it isn't a full run")
    given = parser.parse_args()
    # As by Ctrl-C: API server, etcd and operators end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="modelwright-scale-"))
    _say(f"the operators' logs are in {folder}")
    if given.rollouts:
        _rollouts(given.rollouts, folder, given.write)
    elif given.retraining:
        _retraining(given.retraining, 2 * given.idle, folder, given.write)
    else:
        _models(given.models or SIZES, given.idle, folder, given.write)
        if not given.models:
            _rollouts(ROLLOUTS, folder, None)


def _models(sizes: str, idle: float, folder: Path, target: Path | None) -> None:
    results = []
    for size in map(int, sizes.split(",")):
        _say(f"{size} Models")
        results.append(asyncio.run(run.measure(size, idle, folder)))
        figures.show(results[-1:], run.BOUNDS, run.USUAL)
    figures.show(results, run.BOUNDS, run.USUAL)
    full = sizes == SIZES and idle == IDLE
    _write(results, f"python -m tests.scale --models {sizes} --idle {idle:g}", run.BOUNDS, "scale", full, target)


def _rollouts(count: int, folder: Path, target: Path | None) -> None:
    _say(f"{count} rollouts at once")
    results = [asyncio.run(rollouts.measure(count, folder))]
    figures.show(results, rollouts.BOUNDS)
    command = f"python -m tests.scale --rollouts {count}"
    _write(results, command, rollouts.BOUNDS, "scale-rollouts", count == ROLLOUTS, target)


def _retraining(count: int, idle: float, folder: Path, target: Path | None) -> None:
    _say(f"{count} idle RetrainingPolicies")
    results = [asyncio.run(retraining.measure(count, idle, folder))]
    figures.show(results, retraining.BOUNDS)
    command = f"python -m tests.scale --retraining {count}"
    _write(results, command, retraining.BOUNDS, "scale-retraining", count == POLICIES, target)


def _write(results: list[Figures], command: str, bounds: Bounds, name: str, full: bool, target: Path | None) -> None:
    path = target or (ROOT / "docs/figures" / f"{name}.json" if full else None)
    if path:
        figures.write(path, results, command, bounds)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
