"""Where passes ask for evidence and never wait: looks run in the background, and wake the Model when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import timedelta

from modelwright.analysis import comparer
from modelwright.analysis.comparer import ComparerUrl
from modelwright.analysis.connections import Connections
from modelwright.analysis.measure import Look, Measurer, Memory, applies
from modelwright.analysis.port import Ask, Jobs
from modelwright.analysis.web import TIMEOUT, Web
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import Failure, Measurement, Value
from modelwright.kube.queue import Key
from modelwright.obs import metrics as own
from modelwright.obs.clock import Clock, SystemClock, Timer

LOOK_TIMEOUT = 60.0
"""Seconds after which what has not answered counts as failed."""
RETRY = 10.0
"""Seconds until a failed metric is looked at again, unless the interval is shorter."""
IDLE_INTERVALS = 3
IDLE_MIN = timedelta(minutes=5)
"""An ask that nobody has asked for so long, and so many intervals, is looked at no more."""


@dataclass(slots=True)
class _Entry:
    """One ask: what its metrics last gave, and what goes on."""

    ask: Ask
    memory: Memory
    asked_at: float
    found: dict[str, Measurement] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    weight: int | None = None
    looked: bool = False
    task: asyncio.Task[None] | None = None
    jobs: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    timer: Timer | None = None

    def stop(self) -> list[asyncio.Task[None]]:
        """Let nothing more happen; the tasks that have yet to end."""
        if self.timer is not None:
            self.timer.cancel()
        running = [task for task in (self.task, *self.jobs.values()) if task is not None and not task.done()]
        for task in running:
            task.cancel()
        return running


class Desk:
    """The latest measurements of every ask. Belongs to one event loop; only `close` waits.

    Looks repeat every `ask.interval`, those that failed sooner, for as long as the ask is asked for. `wake` is called
    at the end of each. How many requests one server gets at once is bounded in `Web`, so that a server that hangs keeps
    no other's looks waiting. Jobs run beside the looks, each at its own pace.
    """

    def __init__(
        self,
        connections: Connections,
        wake: Callable[[Key], None],
        *,
        clock: Clock | None = None,
        jobs: Jobs | None = None,
        comparer_url: ComparerUrl | None = None,
        look_timeout: float = LOOK_TIMEOUT,
    ) -> None:
        self._web = Web()
        self._measurer = Measurer(connections, self._web, jobs=jobs, comparer_url=comparer_url or comparer.in_cluster)
        self._wake = wake
        self._clock: Clock = clock or SystemClock()
        self._look_timeout = look_timeout
        self._entries: dict[str, _Entry] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def look(self, ask: Ask) -> tuple[Measurement, ...] | None:
        """The latest measurements, in the order of `ask.metrics`; None until the first look has ended.

        What the step can't measure, and what a Job has not reported yet, is left out. Another ask under the same key
        replaces the old one, and what was found for it is forgotten.
        """
        entry = self._entries.get(ask.key)
        if entry is None or not _same(entry.ask, ask):
            self._drop(ask.key)
            entry = self._entries[ask.key] = _Entry(ask, Memory.of(ask), self._clock.monotonic())
        entry.ask, entry.asked_at = ask, self._clock.monotonic()
        self._start(entry)
        if not entry.looked:
            return None
        return tuple(entry.found[metric.name] for metric in ask.metrics if metric.name in entry.found)

    def observed_weight(self, ask: Ask) -> int | None:
        """Percent of the requests that went to the candidate since the step began, as of the last look; None when the
        gateway's counters don't tell, or have seen too few."""
        entry = self._entries.get(ask.key)
        return entry.weight if entry is not None and _same(entry.ask, ask) else None

    def forget(self, keep: Container[str]) -> None:
        """Stop all looks but those of the keys in `keep`."""
        for key in [key for key in self._entries if key not in keep]:
            self._drop(key)

    async def close(self) -> None:
        """Stop all looks, and wait until they have ended."""
        self.forget(())
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._web.close()

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        for task in entry.stop() if entry is not None else ():
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _start(self, entry: _Entry) -> None:
        now = self._clock.monotonic()
        for metric in entry.ask.metrics:
            if metric.job is not None and metric.name not in entry.jobs and self._due(entry, metric, now):
                entry.jobs[metric.name] = asyncio.ensure_future(self._run_job(entry, metric))
        if entry.task is not None:
            return
        due = [metric for metric in entry.ask.metrics if metric.job is None and self._due(entry, metric, now)]
        if due or not entry.looked:
            if entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None
            entry.task = asyncio.ensure_future(self._run(entry, due))

    def _due(self, entry: _Entry, metric: Metric, now: float) -> bool:
        return applies(entry.ask, metric) and entry.due.get(metric.name, now) <= now

    async def _run(self, entry: _Entry, due: list[Metric]) -> None:
        began, look = self._clock.monotonic(), Look(entry.ask, entry.memory, self._clock.now())
        try:
            tasks = {metric.name: asyncio.ensure_future(self._measurer.measure(look, metric)) for metric in due}
            weight = asyncio.ensure_future(self._measurer.observed_weight(look))
            every = {*tasks.values(), weight}
            try:
                await asyncio.wait(every, timeout=self._look_timeout)
            finally:
                late = [task for task in every if not task.done()]
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
            for name, task in tasks.items():
                self._keep(entry, task.result() if not task.cancelled() else self._late(name, look))
            entry.weight = weight.result() if not weight.cancelled() else None
            entry.looked = True
        finally:
            entry.task = None
            own.LOOK_SECONDS.observe(self._clock.monotonic() - began)
        self._arm(entry)
        self._wake(entry.ask.wake)

    async def _run_job(self, entry: _Entry, metric: Metric) -> None:
        try:
            look = Look(entry.ask, entry.memory, self._clock.now())
            self._keep(entry, await self._measurer.measure(look, metric))
        finally:
            entry.jobs.pop(metric.name, None)
        self._arm(entry)
        self._wake(entry.ask.wake)

    def _keep(self, entry: _Entry, found: Measurement) -> None:
        failed = isinstance(found.result, Failure)
        own.LOOKS.labels(_outcome(found)).inc()
        entry.found[found.metric] = found
        interval = entry.ask.interval.total_seconds()
        entry.due[found.metric] = self._clock.monotonic() + (min(interval, RETRY) if failed else interval)

    def _late(self, name: str, look: Look) -> Measurement:
        return Measurement(name, look.at, Failure(TIMEOUT, f"not measured within {self._look_timeout:g} s"))

    def _arm(self, entry: _Entry) -> None:
        """Look again when the first metric is due, unless nobody asks any more."""
        if self._entries.get(entry.ask.key) is not entry:
            return
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        now = self._clock.monotonic()
        if now - entry.asked_at > max(IDLE_INTERVALS * entry.ask.interval, IDLE_MIN).total_seconds():
            return
        running = entry.jobs.keys()
        moments = [moment for name, moment in entry.due.items() if name not in running]
        if moments and entry.task is None:
            entry.timer = self._clock.call_later(min(moments) - now, lambda: self._again(entry))

    def _again(self, entry: _Entry) -> None:
        entry.timer = None
        if self._entries.get(entry.ask.key) is entry:
            self._start(entry)


def _same(one: Ask, other: Ask) -> bool:
    """Whether what was measured for one is good for the other."""
    parts = ("namespace", "model", "candidate", "serving", "since", "metrics", "mirror", "gateway")
    return all(getattr(one, part) == getattr(other, part) for part in parts)


def _outcome(found: Measurement) -> str:
    if isinstance(found.result, Failure):
        return found.result.reason
    if isinstance(found.result, Value) and found.result.candidate is None:
        return "no data"
    return "measured"
