"""Writes the demo's figures in the form that all measuring commands share."""

from __future__ import annotations

import json
import math
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.loop import LoopFacts
from demo.story import ChapterOutcome, Demo
from demo.tally import MODEL_ERROR

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "figures" / "demo.json"
WARM_SECONDS = 900
LOOP_SECONDS = 300
ROLLBACK_SECONDS = 60


def collect_figures(demo: Demo, loop: LoopFacts) -> list[dict[str, Any]]:
    """Collect the figures of a successful demo. The bound on its time holds for warm caches."""
    facts, report = demo.facts, demo.facts.report
    assert report is not None
    total = demo.story.elapsed()
    lost = sum(lost.status != MODEL_ERROR for lost in report.lost)
    figures = [
        build_figure("whole demo", round(total, 1), "s", f"at most {WARM_SECONDS} when warm", total <= WARM_SECONDS),
        *(build_figure(f"step {name}", round(seconds, 1), "s") for name, seconds in demo.story.seconds.items()),
        build_figure("requests during the rollouts", report.total, "requests"),
        build_figure("requests lost", lost, "requests", "0", lost == 0),
        build_figure("latency during the rollouts, p99", round(report.percentile(0.99) * 1000, 1), "ms"),
    ]
    for outcome in facts.outcomes:
        figures += _rollout_figures(outcome)
    figures += [build_figure(f"accuracy of {name}", round(share, 4), "share") for name, share in facts.accuracy.items()]
    return [*figures, *_loop_figures(loop)]


def _loop_figures(facts: LoopFacts) -> list[dict[str, Any]]:
    seconds, trained = facts.served_seconds or math.inf, "train" in facts.stages
    better = None not in (facts.before, facts.after) and (facts.after or 0) > (facts.before or 0)
    times = {
        "drift figure above 1": facts.drift_seconds,
        "run begun": facts.run_seconds,
        "new version registered": facts.registered_seconds,
    }
    name, bound = "drift: from the first shifted request to the new model in service", f"at most {LOOP_SECONDS}"
    return [
        build_figure(name, round(seconds, 1), "s", bound, seconds <= LOOP_SECONDS),
        *(
            build_figure(f"drift: from the first shifted request to {event}", round(value, 1), "s")
            for event, value in times.items()
            if value is not None
        ),
        build_figure(
            "drift: figure of usual requests",
            round(facts.quiet or 0, 2),
            "of the limit",
            "at most 1",
            (facts.quiet or 0) <= 1,
        ),
        build_figure("drift: requests", facts.requests, "requests"),
        build_figure("drift: requests lost", facts.lost, "requests", "0", facts.lost == 0),
        build_figure("drift: right answers before it", round(facts.usual or 0, 4), "share"),
        build_figure("drift: right answers of the old model", round(facts.before or 0, 4), "share"),
        build_figure(
            "drift: right answers of the new model",
            round(facts.after or 0, 4),
            "share",
            "more than the old one's",
            better,
        ),
        build_figure("damaged data: checks that failed", len(facts.checks), "checks", "at least 1", bool(facts.checks)),
        build_figure("damaged data: trainings begun", int(trained), "trainings", "0", not trained),
    ]


def _rollout_figures(outcome: ChapterOutcome) -> list[dict[str, Any]]:
    counts, version = outcome.tally, outcome.chapter.version
    figures = [
        build_figure(f"{version}: until it was {outcome.chapter.outcome}", round(outcome.seconds, 1), "s"),
        build_figure(f"{version}: requests lost", len(counts.lost), "requests", "0", not counts.lost),
    ]
    answers = counts.versions[version]
    if outcome.chapter.mirrored and outcome.chapter.outcome == "RolledBack":
        figures.append(build_figure(f"{version}: answers to callers", answers, "requests", "0", answers == 0))
    elif counts.rollback_seconds is not None and outcome.chapter.outcome == "RolledBack":
        seconds = counts.rollback_seconds
        name, bound = f"{version}: from the first bad answer to 0 % of the callers", f"at most {ROLLBACK_SECONDS}"
        figures.append(build_figure(name, round(seconds, 1), "s", bound, seconds <= ROLLBACK_SECONDS))
        figures.append(build_figure(f"{version}: errors that callers saw", len(counts.errors), "requests"))
        figures.append(build_figure(f"{version}: answers to callers", answers, "requests"))
    return figures


def build_figure(
    name: str, value: float, unit: str, bound: str | None = None, holds: bool | None = None
) -> dict[str, Any]:
    """Build one figure; ``bound`` describes its target, ``holds`` whether the target was met."""
    return {"name": name, "value": value, "unit": unit, "bound": bound, "holds": holds}


def write(path: Path, command: str, figures: list[dict[str, Any]]) -> None:
    """Write figures with their command, commit and host; create the folder when needed."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False).stdout
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    content = {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit.strip(),
        "host": {"cores": os.cpu_count(), "memoryGiB": round(memory, 1)},
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
