"""Views of a TrainingRun for display."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from demo.rollouts import Verdict

Json = dict[str, Any]
ENDED_STATES = ("Succeeded", "Skipped", "Failed", "Cancelled")


@dataclass(frozen=True)
class RunView:
    """A snapshot of a run. ``verdicts`` are its stages, then the failed checks of the data."""

    COLUMNS: ClassVar[tuple[str, str, str]] = ("stage", "state", "what")

    name: str
    trigger: str
    state: str
    reason: str
    message: str
    version: str
    stages: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, run: Json) -> RunView:
        status, spec = run.get("status", {}), run["spec"]
        stages = [
            Verdict(each["name"], each["state"], each.get("message", ""), None) for each in status.get("stages", [])
        ]
        return cls(
            name=run["metadata"]["name"],
            trigger=spec.get("trigger", {}).get("name") or f"by {spec.get('manual', {}).get('by', 'nobody')}",
            state=status.get("state", "Pending"),
            reason=status.get("reason", ""),
            message=status.get("message", ""),
            version=status.get("version", ""),
            stages=tuple(stage.metric for stage in stages),
            verdicts=(*stages, *failed_checks(run)),
        )

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    def headline(self) -> str:
        """Format the state in one line: ``run digits-drift-1 (drift): Training``."""
        why = f" ({self.reason})" if self.reason and self.ended else ""
        result = f", made {self.version}" if self.version else ""
        return f"run {self.name} ({self.trigger}): {self.state}{why}{result}"


def failed_checks(run: Json) -> tuple[Verdict, ...]:
    """Return the failed checks of the data."""
    checks = run.get("status", {}).get("checks", [])
    return tuple(
        Verdict(each["name"], each["outcome"], each.get("message", ""), None)
        for each in checks
        if each["outcome"] == "Fail"
    )


def newest_run(runs: Iterable[Json], policy: str, before: frozenset[str]) -> Json | None:
    """Return the newest run of a policy that is not among ``before`` (names)."""
    new_runs = [
        each for each in runs if each["spec"]["policyRef"]["name"] == policy and each["metadata"]["name"] not in before
    ]
    return max(new_runs, key=lambda each: each["metadata"]["creationTimestamp"], default=None)
