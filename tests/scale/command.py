"""The measuring command: Models of several sizes, beside a bare operator, many rollouts at once, or many policies that
stand idle."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from devcluster.processes import interrupt_on_sigterm
from tests.scale import figures, pairs, retraining, rollouts, run
from tests.scale.figures import Bounds, Figures
from tests.scale.operator_process import ROOT
from tests.scale.subjects import PROFILES

SIZES = "100,500,1000,5000"
SPIKE_SIZES = "500"
PAIRS = 3
IDLE = 60.0
ROLLOUTS = 100
POLICIES = 1000
PROFILE = "named"


def main() -> None:
    """Measure and print; a full run is written to docs/figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument(
        "--models",
        help=f"sizes, comma-separated (default {SIZES}; with --spike {SPIKE_SIZES}). Without this and the options that "
        f"say instead: beside the spike, then all sizes, then {ROLLOUTS} rollouts",
    )
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default=PROFILE, help="where a Model has its version from"
    )
    parser.add_argument("--idle", type=float, default=IDLE, help="seconds to stand idle")
    parser.add_argument("--spike", action="store_true", help="instead: each profile and a bare operator, in turn")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"with --spike: how many turns (default {PAIRS})")
    parser.add_argument("--rollouts", type=int, help="instead: that many rollouts at once, of five steps each")
    parser.add_argument("--retraining", type=int, help="instead: that many RetrainingPolicies that stand idle")
    parser.add_argument("--write", type=Path, help="file for the figures, when it isn't a full run")
    given = parser.parse_args()
    # API server, etcd and operators end with it.
    interrupt_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="modelwright-scale-"))
    _say(f"the operators' logs are in {folder}")
    try:
        _measure(given, folder)
    except KeyboardInterrupt:
        _say("stopped")
        sys.exit(130)


def _measure(given: argparse.Namespace, folder: Path) -> None:
    if given.rollouts:
        _rollouts(given.rollouts, folder, given.write)
    elif given.retraining:
        _retraining(given.retraining, 2 * given.idle, folder, given.write)
    elif given.spike:
        _spike(given.models or SPIKE_SIZES, given.pairs, folder, given.write)
    elif given.models:
        _models(given.models, given.profile, given.idle, folder, given.write)
    else:
        _spike(SPIKE_SIZES, given.pairs, folder, None)
        _models(SIZES, given.profile, given.idle, folder, None)
        _rollouts(ROLLOUTS, folder, None)


def _models(sizes: str, profile: str, idle: float, folder: Path, target: Path | None) -> None:
    bounds = run.bounds(profile)
    full = (sizes, profile, idle) == (SIZES, PROFILE, IDLE)
    results: list[Figures] = []
    for size in map(int, sizes.split(",")):
        results.append(Figures(size))
        try:
            asyncio.run(run.measure(profile, results[-1], idle, folder, _say))
        finally:
            run.compare(results)
            done = ",".join(str(result.models) for result in results)
            command = f"python -m tests.scale --models {done} --profile {profile} --idle {idle:g}"
            _write(results, command, bounds, "scale", full, target)
            figures.show(results, bounds)


def _spike(sizes: str, turns: int, folder: Path, target: Path | None) -> None:
    full = sizes == SPIKE_SIZES and turns >= PAIRS
    results: list[Figures] = []
    for size in map(int, sizes.split(",")):
        rounds: list[pairs.Round] = []
        for turn in range(turns):
            logs = folder / f"turn-{turn + 1}"
            logs.mkdir(exist_ok=True)
            rounds.append(asyncio.run(pairs.measure(size, turn, logs, _say)))
            done = [*results, pairs.summarize(size, rounds)]
            command = f"python -m tests.scale --spike --models {sizes} --pairs {len(rounds)}"
            _write(done, command, pairs.BOUNDS, "scale-spike", full, target)
            pairs.show(done[-1], len(rounds))
        results = done


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


def _write(
    results: Sequence[Figures], command: str, bounds: Bounds, name: str, full: bool, target: Path | None
) -> None:
    """Called after each size, or turn: a run that is cut off has lost nothing of what it has measured."""
    path = target or (ROOT / "docs/figures" / f"{name}.json" if full else None)
    if path:
        figures.write(path, results, command, bounds)


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()
