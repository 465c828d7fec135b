"""Where passes ask for evidence and never wait: looks run in the background, and wake the Model when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from modelwright.analysis import comparer
from modelwright.analysis.comparer import ComparerUrl
from modelwright.analysis.connections import Connections
from modelwright.analysis.measure import Look, Measurer, Memory, applies
from modelwright.analysis.port import Ask, Jobs
from modelwright.analysis.web import Web
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import Failure, Measurement, Points, Value
from modelwright.kube.queue import Key
from modelwright.obs import metrics as own
from modelwright.obs.clock import Clock, SystemClock, Timer
from modelwright.obs.reading import noted

LOOK_TIMEOUT = 60.0
"""Seconds after which a metric that has not been measured counts as failed."""
PATIENCE = 1.0
"""Seconds for which a metric that has been measured waits for the others of its look."""
RETRY = 10.0
"""Seconds until a failed metric is looked at again, unless the interval is shorter."""
SERIES_PATIENCE = 300.0
"""Seconds for which the end of an A/B test waits for a server that fails."""
IDLE_INTERVALS = 3
IDLE_MIN = timedelta(minutes=1)
"""An ask that nobody has asked for so long, and so many intervals, is forgotten."""


@dataclass(slots=True)
class _Entry:
    """One ask: what its metrics last gave, and what goes on. Moments are of the monotonic clock."""

    ask: Ask
    memory: Memory
    asked_at: float
    found: dict[str, Measurement] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    weight: int | None = None
    weighing: asyncio.Task[None] | None = None
    points: Points | None = None
    reading: asyncio.Task[None] | None = None
    shown: bool = False
    """Whether a look has ended, so that there is something to show."""
    next: Timer | None = None
    news: Timer | None = None

    def stop(self) -> list[asyncio.Task[None]]:
        """Let nothing more happen; the tasks that have yet to end."""
        for timer in (self.next, self.news):
            if timer is not None:
                timer.cancel()
        tasks = (*self.running.values(), self.weighing, self.reading)
        ending = [task for task in tasks if task is not None and not task.done()]
        for task in ending:
            task.cancel()
        return ending


class Desk:
    """The latest measurements of every ask. Belongs to one event loop; only `close` waits.

    Looks repeat every `ask.interval`, those that failed sooner, for as long as the ask is asked for. `wake` is called
    at the end of each; metrics that hang keep it back for PATIENCE only. How many requests one server gets at once is
    bounded in `Web`, so that a server that hangs keeps no other's looks waiting. Jobs go on at their own pace.
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

        What the step can't measure, and what has not answered yet, is left out. Another ask under the same key
        replaces the old one, and what was found for it is forgotten.
        """
        entry = self._entries.get(ask.key)
        if entry is None or not _same(entry.ask, ask):
            self._drop(ask.key)
            entry = self._entries[ask.key] = _Entry(ask, Memory.of(ask), self._clock.monotonic())
        entry.ask, entry.asked_at = ask, self._clock.monotonic()
        self._start(entry)
        if not entry.shown:
            return None
        return tuple(entry.found[metric.name] for metric in ask.metrics if metric.name in entry.found)

    def series(self, ask: Ask, metric: Metric, end: datetime) -> Points | None:
        """The values that the query of `metric` had from `ask.since` to `end`, for both revisions; None until they are
        there, which wakes the Model. `ask` must have been looked at before, and `end` have passed.

        Asked for once. A server that fails is asked again for SERIES_PATIENCE; then its failure is the answer.
        """
        entry = self._entries.get(ask.key)
        if entry is None or not _same(entry.ask, ask):
            return None
        entry.asked_at = self._clock.monotonic()
        if entry.reading is None:
            entry.reading = asyncio.ensure_future(self._read(entry, metric, end))
        return entry.points

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
        """Look at every metric that is due."""
        now = self._clock.monotonic()
        due = [
            metric
            for metric in entry.ask.metrics
            if applies(entry.ask, metric)
            and metric.name not in entry.running
            and entry.due.get(metric.name, now) <= now
        ]
        if due:
            look = Look(entry.ask, entry.memory, self._clock.now())
            for metric in due:
                entry.running[metric.name] = asyncio.ensure_future(self._run(entry, look, metric))
            if entry.weighing is None:
                entry.weighing = asyncio.ensure_future(self._weigh(entry, look))
        elif not entry.running and not entry.found:
            entry.shown = True  # none of the metrics can be measured at this step
        self._plan(entry)

    async def _run(self, entry: _Entry, look: Look, metric: Metric) -> None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._look_timeout if metric.job is None else None):
                found = await self._measurer.measure(look, metric)
        except TimeoutError:
            failure = Failure(Reason.METRICS_SERVER_TIMEOUT, f"not measured within {self._look_timeout:g} s")
            found = Measurement(metric.name, look.at, failure)
        except Exception as error:
            # A metric that can't be read must not end the looks that follow.
            text = noted(_child(entry.ask, metric), error)
            found = Measurement(metric.name, look.at, Failure(Reason.INTERNAL_ERROR, text))
        ended, interval = self._clock.monotonic(), entry.ask.interval.total_seconds()
        own.LOOKS.labels(_outcome(found)).inc()
        own.LOOK_SECONDS.observe(ended - began)
        entry.found[metric.name] = found
        # Counted from the begin, so that metrics of one pace stay in one look.
        again = ended + min(interval, RETRY) if isinstance(found.result, Failure) else max(began + interval, ended)
        entry.due[metric.name] = again
        del entry.running[metric.name]
        self._tell_soon(entry)
        self._plan(entry)

    async def _read(self, entry: _Entry, metric: Metric, end: datetime) -> None:
        began = self._clock.monotonic()
        while True:
            try:
                async with asyncio.timeout(self._look_timeout):
                    found = await self._measurer.series(entry.ask, metric, end)
            except TimeoutError:
                text = f"not measured within {self._look_timeout:g} s"
                found = Points(failure=Failure(Reason.METRICS_SERVER_TIMEOUT, text))
            except Exception as error:
                found = Points(failure=Failure(Reason.INTERNAL_ERROR, noted(_child(entry.ask, metric), error)))
            failure, waited = found.failure, self._clock.monotonic() - began
            if failure is None or failure.permanent or waited >= SERIES_PATIENCE:
                break
            await self._clock.sleep(RETRY)
        entry.points = found
        self._tell(entry)

    async def _weigh(self, entry: _Entry, look: Look) -> None:
        try:
            async with asyncio.timeout(self._look_timeout):
                entry.weight = await self._measurer.observed_weight(look)
        except TimeoutError:
            entry.weight = None
        except Exception as error:
            noted(_child(entry.ask), error)
            entry.weight = None
        finally:
            entry.weighing = None

    def _tell_soon(self, entry: _Entry) -> None:
        """Wake the Model once the look has ended, or after PATIENCE."""
        waiting = any(one.job is None and one.name in entry.running for one in entry.ask.metrics)
        if not waiting:
            self._tell(entry)
        elif entry.news is None:
            entry.news = self._clock.call_later(PATIENCE, lambda: self._tell(entry))

    def _tell(self, entry: _Entry) -> None:
        if entry.news is not None:
            entry.news.cancel()
        entry.news, entry.shown = None, True
        if self._entries.get(entry.ask.key) is entry:
            self._wake(entry.ask.wake)

    def _plan(self, entry: _Entry) -> None:
        """Look again when the next metric is due; forget the ask when nobody asks any more."""
        if entry.next is not None:
            entry.next.cancel()
            entry.next = None
        if self._entries.get(entry.ask.key) is not entry:
            return
        now = self._clock.monotonic()
        if now - entry.asked_at > max(IDLE_INTERVALS * entry.ask.interval, IDLE_MIN).total_seconds():
            if not entry.running:
                self._drop(entry.ask.key)
            return
        moments = [moment for name, moment in entry.due.items() if name not in entry.running]
        if moments:
            entry.next = self._clock.call_later(max(0.0, min(moments) - now), lambda: self._again(entry))

    def _again(self, entry: _Entry) -> None:
        entry.next = None
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


def _child(ask: Ask, metric: Metric | None = None) -> dict[str, Any]:
    """What is measured, as logs name it."""
    name = f"{ask.model}/{metric.name}" if metric is not None else ask.model
    return {"kind": "Metric", "metadata": {"namespace": ask.namespace, "name": name}}
