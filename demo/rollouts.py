"""Views of a ModelRollout for display."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

Json = dict[str, Any]
ACTIVE_STATES = ("Progressing", "Holding", "AwaitingApproval")
ENDED_STATES = ("Succeeded", "RolledBack", "Aborted", "Superseded")


@dataclass(frozen=True)
class Verdict:
    """The verdict on one metric in one step."""

    metric: str
    outcome: str
    message: str
    samples: int | None

    @classmethod
    def of(cls, verdict: Json) -> Verdict:
        return cls(verdict["metric"], verdict["outcome"], verdict.get("message", ""), verdict.get("samples"))


@dataclass(frozen=True)
class RolloutView:
    """A snapshot of a rollout. ``verdicts`` are those of the current step."""

    COLUMNS: ClassVar[tuple[str, str, str]] = ("metric", "verdict", "numbers")

    source: str
    target: str
    state: str
    reason: str
    message: str
    progress: str
    kind: str
    weight: int | None
    observed: int | None
    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, rollout: Json) -> RolloutView:
        status = rollout.get("status", {})
        present = status.get("step")
        kinds = {step["index"]: step["kind"] for step in status.get("steps", [])}
        return cls(
            source=status.get("from", {}).get("version", ""),
            target=rollout["spec"]["target"]["version"],
            state=status.get("state", "Pending"),
            reason=status.get("reason", ""),
            message=status.get("message", ""),
            progress=status.get("progress", ""),
            kind=kinds.get(present, ""),
            weight=status.get("weight"),
            observed=status.get("observedWeight"),
            verdicts=tuple(Verdict.of(each) for each in status.get("verdicts", []) if each["step"] == present),
        )

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    def headline(self) -> str:
        """Format the state in one line: ``digits-v1 → digits-v2: Progressing, step 2/4, 10 % of the callers``."""
        parts = [self.state if self.state == "Progressing" or not self.reason else f"{self.state} ({self.reason})"]
        going = self.state in ACTIVE_STATES
        if going and self.progress:
            parts.append(f"step {self.progress}")
        if going and self.kind == "mirror":
            parts.append("a shadow: it gets copies, callers hear the old one")
        elif self.weight is not None:
            observed = f" (seen: {self.observed} %)" if self.observed is not None and going else ""
            parts.append(f"{self.weight} % of the callers{observed}")
        return f"{f'{self.source} → ' if self.source else ''}{self.target}: {', '.join(parts)}"


def failed_verdicts(rollout: Json) -> tuple[Verdict, ...]:
    """Return the failed verdicts, latest step first."""
    failed = [each for each in rollout.get("status", {}).get("verdicts", []) if each["outcome"] == "Fail"]
    return tuple(Verdict.of(each) for each in sorted(failed, key=lambda each: -each["step"]))


def find_rollout(rollouts: list[Json], model: str, version: str, before: frozenset[str]) -> Json | None:
    """Return the newest rollout of a Model to a version that is not among ``before`` (names)."""
    rollouts_to_version = [
        each
        for each in rollouts
        if each["spec"]["modelRef"]["name"] == model
        and each["spec"]["target"]["version"] == version
        and each["metadata"]["name"] not in before
    ]
    return max(rollouts_to_version, key=lambda each: each["metadata"]["creationTimestamp"], default=None)
