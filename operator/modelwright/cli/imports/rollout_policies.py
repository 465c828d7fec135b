"""Converts strategies and analyses of other projects to a RolloutPolicy that passes lint."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from modelwright.api.common import parse_duration
from modelwright.api.names import API_VERSION
from modelwright.cli import manifest_lint
from modelwright.cli.imports.fields import Fields, Json
from modelwright.cli.imports.foreign_objects import ForeignObject

MAX_STEPS, MAX_METRICS = 20, 16
MAX_DURATION_SECONDS = 720 * 3600
APPROVAL_NOTE = (
    "becomes an approval, which expires after 30 days; it counts only from others than the author, so each "
    "version needs "
    "spec.author (how-to: approvals)"
)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def format_duration(length: float) -> str:
    """Format seconds as a duration of our API."""
    whole = round(length)
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def read_duration(fields: Fields, key: str) -> float | None:
    """Read a duration in Go's format or in seconds; None when it is absent or unreadable."""
    text = fields.text(key)
    if re.fullmatch(r"[0-9]{1,8}", text):
        return float(text)
    if re.fullmatch(rf"({_DURATION.pattern})+", text) and len(text) <= 32:
        return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    if text:
        fields.note(key, f"{text} is no duration such as 30s or 1h30m, and isn't used")
    return None


class StepsBuilder:
    """Collects steps, placing each kind where the API allows it."""

    def __init__(self) -> None:
        self.steps: list[Json] = []
        self.weight = -1

    def set_weight(self, weight: int) -> bool:
        """Add a weight and return True, unless it does not increase; 0 is only for the first step."""
        if not self.weight < weight <= 100 or (weight == 0 and self.steps):
            return False
        self.weight = weight
        self.steps.append({"weight": weight})
        return True

    def add_hold(self, length: float) -> None:
        """Hold the traffic of the previous step; before the first step, without requests."""
        if length <= 0:
            return
        text = format_duration(min(length, MAX_DURATION_SECONDS))
        if not self.steps:
            self.set_weight(0)
        last = self.steps[-1]
        part = next((last[kind] for kind in ("mirror", "match") if kind in last), last)
        if "approval" in last or "hold" in part:
            self.steps.append({"hold": text})
        else:
            part["hold"] = text

    def add_approval(self) -> None:
        """Add a step that waits for an approval."""
        if not self.steps:
            self.set_weight(0)
        self.steps.append({"approval": {"required": 1, "timeout": "720h"}})

    def add_step(self, step: Json) -> None:
        """Add a mirror or match step."""
        self.steps.append(step)

    @property
    def total_hold_seconds(self) -> float:
        """Total seconds of all holds; mirror and match steps without one take the API's default."""
        return sum(_hold_seconds(step) for step in self.steps)

    def limit_steps(self, place: Fields) -> list[Json]:
        """Return at most as many steps as a policy may have, leaving out weights evenly."""
        plain = [index for index, step in enumerate(self.steps) if "weight" in step and "hold" in step][1:-1]
        excess = len(self.steps) - MAX_STEPS
        if excess <= 0:
            return self.steps
        dropped = {plain[index * len(plain) // excess] for index in range(min(excess, len(plain)))}
        dropped_weights = [str(self.steps[index]["weight"]) for index in sorted(dropped)]
        kept = [step for index, step in enumerate(self.steps) if index not in dropped][:MAX_STEPS]
        place.note_here(
            f"has {len(self.steps)} steps, and a policy has at most {MAX_STEPS}: weights "
            f"{', '.join(dropped_weights) or 'at the end'} "
            "are left out"
        )
        return kept


def _hold_seconds(step: Json) -> float:
    for kind in ("mirror", "match"):
        if kind in step:
            return parse_duration(step[kind].get("hold", "1m"))
    return parse_duration(step.get("hold", "0s"))


def parse_limits(condition: str) -> Json | None:
    """Parse max and min from a condition on `result`, such as `result[0] >= 0.95 && result[0] < 2`; None for others."""
    limits: Json = {}
    for part in condition.split("&&"):
        limit = re.fullmatch(
            r"\(?\s*(?:asFloat\()?\s*result(?:\[0\])?\s*\)?\s*(<=?|>=?)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*\)?", part.strip()
        )
        if limit is None:
            return None
        side = "max" if limit[1].startswith("<") else "min"
        if side in limits:
            return None
        limits[side] = limit[2]
    return limits


def invert_limit(condition: str) -> Json | None:
    """Parse max and min from a failure condition; None unless it has exactly one limit."""
    limits = parse_limits(condition)
    if limits is None or len(limits) != 1:
        return None
    ((side, value),) = limits.items()
    return {"min" if side == "max" else "max": value}


def metric_name(text: str) -> str:
    """Convert a text to a metric's name, which is a DNS label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or "metric"


def single_line_query(query: str) -> str:
    """Join a query's lines, unless it may contain a comment."""
    return query.strip() if "#" in query else " ".join(query.split())


def format_number(value: float) -> str:
    """Format a number as in our API."""
    return f"{value:.12g}"


def build_policy(of: ForeignObject, name: str, spec: Json) -> Json:
    """Build a RolloutPolicy."""
    return {"apiVersion": API_VERSION, "kind": "RolloutPolicy", "metadata": of.build_metadata(name), "spec": spec}


def build_decidable_policy(
    of: ForeignObject,
    name: str,
    spec: Json,
    metrics: Sequence[tuple[Json, Callable[[str], None]]],
    interval: float | None,
) -> Json:
    """Build a RolloutPolicy with the metrics that lint accepts; for each other metric call its function with the
    reason."""
    every = [metric for metric, _ in metrics]
    whole = build_policy(of, name, spec | (_build_analysis(every, interval) if every else {}))
    if not _lint_errors(whole):
        return whole
    kept: list[Json] = []
    names: set[str] = set()
    # lint refuses dry runs alone, which judge nothing, so they are tried after the others.
    for metric, say in sorted(metrics, key=lambda each: bool(each[0].get("dryRun"))):
        if metric["name"] in names:
            say(f"another metric is called {metric['name']} too: this one is left out")
            continue
        if len(kept) == MAX_METRICS:
            say(f"a policy has at most {MAX_METRICS} metrics: this one is left out")
            continue
        wrong = _lint_errors(build_policy(of, name, spec | _build_analysis([*kept, metric], interval)))
        if wrong:
            say(f"is left out, since the policy would be refused with it: {wrong[0]}")
            continue
        names.add(metric["name"])
        kept.append(metric)
    return build_policy(of, name, spec | (_build_analysis(kept, interval) if kept else {}))


def _build_analysis(metrics: Sequence[Json], interval: float | None) -> Json:
    every = {} if interval is None else {"interval": format_duration(min(max(interval, 1), 3600))}
    return {"analysis": {**every, "metrics": list(metrics)}}


def _lint_errors(obj: Json) -> list[str]:
    return [text for text, level in manifest_lint.check_object(obj) if level == "error"]
