"""Rollouts as the end-to-end tests tell them: a Model with its policy under a load of its own, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from demo.kubectl import Json, is_ready
from devcluster.load import BackgroundLoad, Report
from tests.e2e.lib.space import API, Space

POLICIES, ROLLOUTS = "rolloutpolicies.modelwright.dev", "modelrollouts.modelwright.dev"
ENDED = ("Succeeded", "RolledBack", "Aborted", "Superseded")
ERRORS: Json = {"name": "errors", "builtin": "error-rate", "margin": "0.15", "minSamples": 50}
SLOW: Json = {"name": "slow", "builtin": "latency-over", "threshold": "250ms", "margin": "0.20", "minSamples": 50}
CANARY: list[Json] = [{"weight": 10, "hold": "10s"}, {"weight": 50, "hold": "10s"}, {"weight": 100}]


@dataclass
class Told:
    """What one story came to; `clock` is Unix time at which its load began."""

    record: Json = field(default_factory=dict)
    report: Report | None = None
    clock: float = 0.0
    more: Json = field(default_factory=dict)
    error: str = ""

    @property
    def end(self) -> tuple[str, str]:
        """State and reason of the rollout."""
        return self.record["status"]["state"], self.record["status"]["reason"]

    @property
    def load(self) -> Report:
        assert self.report is not None
        return self.report

    def share(self, version: str, step: int) -> tuple[float, int]:
        """Percent of the good answers that this version gave during a step, and how many answers there were."""
        found = next(s for s in self.record["status"]["steps"] if s["index"] == step)
        begin, end = seconds(found["confirmedAt"]) + 1, seconds(found["finishedAt"])
        seen = [answer.version for answer in self.load.answers if begin <= self.clock + answer.due < end]
        return 100 * seen.count(version) / max(len(seen), 1), len(seen)


@dataclass
class Story:
    """One Model of a space that several share. Versions are named after the Model: `canary-1`, `canary-2`."""

    space: Space
    name: str

    def version(self, number: int) -> str:
        return f"{self.name}-{number}"

    def prepare(
        self,
        strategy: Json,
        *behaviours: Json,
        metrics: Sequence[Json] = (),
        first: Json | None = None,
        serving: Json | None = None,
        **policy: Any,
    ) -> None:
        """Versions 1 to n (`first` and `behaviours`), the policy, and the Model that serves version 1."""
        rollout_policy = self.policy(strategy, metrics, **policy)
        model = self.model(1, **{"replicas": 2, **(serving or {})})
        self.space.apply(rollout_policy, *self.versions(first or {}, *behaviours), model)
        self.space.wait_ready(self.version(1), self.name, timeout=240)
        self.space.asks(self.version(1), self.name)

    def policy(self, strategy: Json, metrics: Sequence[Json] = (), **policy: Any) -> Json:
        """The RolloutPolicy of the Model's name."""
        spec: Json = {"strategy": strategy, "deadline": "4m", "keepPrevious": "5s", **policy}
        if metrics:
            spec["analysis"] = {"interval": "2s", "metrics": list(metrics)}
        metadata = {"name": self.name, "namespace": self.space.name}
        return {"apiVersion": API, "kind": "RolloutPolicy", "metadata": metadata, "spec": spec}

    def versions(self, *behaviours: Json) -> list[Json]:
        """Versions 1 to n, whose artifacts have been written."""
        return [
            self.space.version(self.version(number), self.name, behaviour)
            for number, behaviour in enumerate(behaviours, start=1)
        ]

    def model(self, number: int, **serving: Any) -> Json:
        """The Model that serves a version, by its policy."""
        model = self.space.model(self.version(number), self.name, **serving)
        model["spec"]["rolloutPolicyRef"] = {"name": self.name}
        return model

    def load(self, rate: float = 30) -> BackgroundLoad:
        """A constant load on the Model."""
        return BackgroundLoad(self.space.target(self.name), rate=rate)

    def wants(self, number: int) -> None:
        self.space.set_version(self.version(number), self.name)

    def record(self, number: int) -> Json | None:
        """The newest rollout to a version."""
        found = [
            record
            for record in self.space.items(ROLLOUTS)
            if record["spec"]["modelRef"]["name"] == self.name
            and record["spec"]["target"]["version"] == self.version(number)
        ]
        return max(found, key=lambda record: record["spec"].get("number", 0), default=None)

    def until(
        self, number: int, *states: str, step: int | None = None, after: Json | None = None, timeout: float = 270
    ) -> Json:
        """The newest rollout to a version, once it is in one of these states, at this step, and no longer `after`."""
        old = after["metadata"]["uid"] if after is not None else None
        deadline = time.monotonic() + timeout
        while True:
            found = self.record(number) or {}
            status = found.get("status", {})
            new = found.get("metadata", {}).get("uid") != old
            if new and status.get("state") in states and (step is None or status.get("step") == step):
                return found
            assert time.monotonic() < deadline, f"{self.name}: not {states} within {timeout:g} s: {status}"
            time.sleep(0.5)

    def ready(self, number: int) -> Json:
        return self.space.wait(
            f"Ready with {self.version(number)}",
            lambda obj: is_ready(obj) and obj["status"]["serving"]["version"] == self.version(number),
            name=self.name,
            timeout=120,
        )

    def uids(self, number: int) -> set[str]:
        """Serving pods of a version that are not on their way out."""
        return {pod["metadata"]["uid"] for pod in self.space.pods(self.name, self.version(number))}

    def under_load(self, number: int, *, rate: float = 30, settle: float = 3) -> Told:
        """Moves to a version under load, until the rollout has ended and a little longer."""
        told = Told()
        with self.load(rate) as load:
            told.clock = time.time() - load.elapsed()
            time.sleep(2)
            self.wants(number)
            told.record = self.until(number, *ENDED)
            time.sleep(settle)
        told.report = load.report
        return told


class Sets(threading.Thread):
    """Watches how many revisions of a Model have pods at once, ending ones left aside."""

    def __init__(self, story: Story) -> None:
        super().__init__(name="sets", daemon=True)
        self._story, self._over = story, threading.Event()
        self.most: set[str] = set()

    def run(self) -> None:
        while not self._over.wait(0.3):
            pods = self._story.space.pods(self._story.name)
            seen = {pod["metadata"]["labels"]["modelwright.dev/version"] for pod in pods}
            self.most = max(self.most, seen, key=len)

    def stop(self) -> set[str]:
        """The versions of the moment with most of them."""
        self._over.set()
        self.join()
        return self.most


def seconds(text: str) -> float:
    """Unix time of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()
