"""Where passes ask for evidence and never wait: looks run in the background, and wake the Model when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import Measurement, MeasurementFailure, MetricValue, ValuePairs
from modelwright.kube.queue import Key
from modelwright.measurement import comparer_client
from modelwright.measurement.comparer_client import ComparerUrl
from modelwright.measurement.connections import Connections
from modelwright.measurement.json_client import JsonClient
from modelwright.measurement.measurer import Measurer, is_measurable
from modelwright.measurement.port import JobRunner
from modelwright.measurement.request import MeasurementRequest
from modelwright.measurement.rounds import MeasurementRound, MeasurementState
from modelwright.obs import metrics as own
from modelwright.obs.clock import Clock, SystemClock, Timer
from modelwright.obs.read_child import record_bug

MEASUREMENT_TIMEOUT = 60.0
"""Seconds after which a metric that has not been measured counts as failed."""
NOTIFY_GRACE = 1.0
"""Seconds for which a metric that has been measured waits for the others of its look."""
RETRY_SECONDS = 10.0
"""Seconds until a failed metric is looked at again, unless the interval is shorter."""
RANGE_TIMEOUT = 300.0
"""Seconds for which the end of an A/B test waits for a server that fails."""
IDLE_INTERVALS = 3
IDLE_MIN = timedelta(minutes=1)
"""An ask that nobody has asked for so long, and so many intervals, is forgotten."""


@dataclass(slots=True)
class _ScheduledRequest:
    """One ask: what its metrics last gave, and what goes on. Moments are of the monotonic clock."""

    request: MeasurementRequest
    state: MeasurementState
    requested_at: float
    measurements: dict[str, Measurement] = field(default_factory=dict)
    due_at: dict[str, float] = field(default_factory=dict)
    metric_tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    observed_weight: int | None = None
    weight_task: asyncio.Task[None] | None = None
    points: ValuePairs | None = None
    range_task: asyncio.Task[None] | None = None
    has_result: bool = False
    """Whether a look has ended, so that there is something to show."""
    next_run: Timer | None = None
    notify_timer: Timer | None = None

    def cancel_tasks(self) -> list[asyncio.Task[None]]:
        """Let nothing more happen; the tasks that have yet to end."""
        for timer in (self.next_run, self.notify_timer):
            if timer is not None:
                timer.cancel()
        tasks = (*self.metric_tasks.values(), self.weight_task, self.range_task)
        ending = [task for task in tasks if task is not None and not task.done()]
        for task in ending:
            task.cancel()
        return ending


class MeasurementScheduler:
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
        jobs: JobRunner | None = None,
        comparer_url: ComparerUrl | None = None,
        look_timeout: float = MEASUREMENT_TIMEOUT,
    ) -> None:
        self._web = JsonClient()
        self._measurer = Measurer(
            connections, self._web, jobs=jobs, comparer_url=comparer_url or comparer_client.comparer_service_url
        )
        self._notify = wake
        self._clock: Clock = clock or SystemClock()
        self._measurement_timeout = look_timeout
        self._entries: dict[str, _ScheduledRequest] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def get_measurements(self, ask: MeasurementRequest) -> tuple[Measurement, ...] | None:
        """The latest measurements, in the order of `ask.metrics`; None until the first look has ended.

        What the step can't measure, and what has not answered yet, is left out. Another ask under the same key
        replaces the old one, and what was found for it is forgotten.
        """
        entry = self._entries.get(ask.key)
        if entry is None or not _is_same_request(entry.request, ask):
            self._drop_entry(ask.key)
            entry = self._entries[ask.key] = _ScheduledRequest(
                ask, MeasurementState.for_request(ask), self._clock.monotonic()
            )
        entry.request, entry.requested_at = ask, self._clock.monotonic()
        self._start_due_metrics(entry)
        if not entry.has_result:
            return None
        return tuple(entry.measurements[metric.name] for metric in ask.metrics if metric.name in entry.measurements)

    def get_range_points(self, ask: MeasurementRequest, metric: Metric, end: datetime) -> ValuePairs | None:
        """The values that the query of `metric` had from `ask.since` to `end`, for both revisions; None until they are
        there, which wakes the Model. `ask` must have been looked at before, and `end` have passed.

        Asked for once. A server that fails is asked again for SERIES_PATIENCE; then its failure is the answer.
        """
        entry = self._entries.get(ask.key)
        if entry is None or not _is_same_request(entry.request, ask):
            return None
        entry.requested_at = self._clock.monotonic()
        if entry.range_task is None:
            entry.range_task = asyncio.ensure_future(self._run_range(entry, metric, end))
        return entry.points

    def get_observed_weight(self, ask: MeasurementRequest) -> int | None:
        """Percent of the requests that went to the candidate since the step began, as of the last look; None when the
        gateway's counters don't tell, or have seen too few."""
        entry = self._entries.get(ask.key)
        return entry.observed_weight if entry is not None and _is_same_request(entry.request, ask) else None

    def forget_except(self, keep: Container[str]) -> None:
        """Stop all looks but those of the keys in `keep`."""
        for key in [key for key in self._entries if key not in keep]:
            self._drop_entry(key)

    async def close(self) -> None:
        """Stop all looks, and wait until they have ended."""
        self.forget_except(())
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._web.close()

    def _drop_entry(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        for task in entry.cancel_tasks() if entry is not None else ():
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _start_due_metrics(self, entry: _ScheduledRequest) -> None:
        """Look at every metric that is due."""
        now = self._clock.monotonic()
        due = [
            metric
            for metric in entry.request.metrics
            if is_measurable(entry.request, metric)
            and metric.name not in entry.metric_tasks
            and entry.due_at.get(metric.name, now) <= now
        ]
        if due:
            look = MeasurementRound(entry.request, entry.state, self._clock.now())
            for metric in due:
                entry.metric_tasks[metric.name] = asyncio.ensure_future(self._run_metric(entry, look, metric))
            if entry.weight_task is None:
                entry.weight_task = asyncio.ensure_future(self._run_weight(entry, look))
        elif not entry.metric_tasks and not entry.measurements:
            entry.has_result = True  # none of the metrics can be measured at this step
        self._schedule_next_run(entry)

    async def _run_metric(self, entry: _ScheduledRequest, look: MeasurementRound, metric: Metric) -> None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._measurement_timeout if metric.job is None else None):
                found = await self._measurer.measure_metric(look, metric)
        except TimeoutError:
            failure = MeasurementFailure(
                Reason.METRICS_SERVER_TIMEOUT, f"not measured within {self._measurement_timeout:g} s"
            )
            found = Measurement(metric.name, look.measured_at, failure)
        except Exception as error:
            # A metric that can't be read must not end the looks that follow.
            text = record_bug(_log_reference(entry.request, metric), error)
            found = Measurement(metric.name, look.measured_at, MeasurementFailure(Reason.INTERNAL_ERROR, text))
        ended, interval = self._clock.monotonic(), entry.request.interval.total_seconds()
        own.LOOKS.labels(_outcome_label(found)).inc()
        own.LOOK_SECONDS.observe(ended - began)
        entry.measurements[metric.name] = found
        # Counted from the begin, so that metrics of one pace stay in one look.
        again = (
            ended + min(interval, RETRY_SECONDS)
            if isinstance(found.result, MeasurementFailure)
            else max(began + interval, ended)
        )
        entry.due_at[metric.name] = again
        del entry.metric_tasks[metric.name]
        self._notify_when_done(entry)
        self._schedule_next_run(entry)

    async def _run_range(self, entry: _ScheduledRequest, metric: Metric, end: datetime) -> None:
        began = self._clock.monotonic()
        while True:
            try:
                async with asyncio.timeout(self._measurement_timeout):
                    found = await self._measurer.measure_range(entry.request, metric, end)
            except TimeoutError:
                text = f"not measured within {self._measurement_timeout:g} s"
                found = ValuePairs(failure=MeasurementFailure(Reason.METRICS_SERVER_TIMEOUT, text))
            except Exception as error:
                found = ValuePairs(
                    failure=MeasurementFailure(
                        Reason.INTERNAL_ERROR, record_bug(_log_reference(entry.request, metric), error)
                    )
                )
            failure, waited = found.failure, self._clock.monotonic() - began
            if failure is None or failure.permanent or waited >= RANGE_TIMEOUT:
                break
            await self._clock.sleep(RETRY_SECONDS)
        entry.points = found
        self._notify_now(entry)

    async def _run_weight(self, entry: _ScheduledRequest, look: MeasurementRound) -> None:
        try:
            async with asyncio.timeout(self._measurement_timeout):
                entry.observed_weight = await self._measurer.measure_weight(look)
        except TimeoutError:
            entry.observed_weight = None
        except Exception as error:
            record_bug(_log_reference(entry.request), error)
            entry.observed_weight = None
        finally:
            entry.weight_task = None

    def _notify_when_done(self, entry: _ScheduledRequest) -> None:
        """Wake the Model once the look has ended, or after PATIENCE."""
        waiting = any(one.job is None and one.name in entry.metric_tasks for one in entry.request.metrics)
        if not waiting:
            self._notify_now(entry)
        elif entry.notify_timer is None:
            entry.notify_timer = self._clock.call_later(NOTIFY_GRACE, lambda: self._notify_now(entry))

    def _notify_now(self, entry: _ScheduledRequest) -> None:
        if entry.notify_timer is not None:
            entry.notify_timer.cancel()
        entry.notify_timer, entry.has_result = None, True
        if self._entries.get(entry.request.key) is entry:
            self._notify(entry.request.notify_key)

    def _schedule_next_run(self, entry: _ScheduledRequest) -> None:
        """Look again when the next metric is due; forget the ask when nobody asks any more."""
        if entry.next_run is not None:
            entry.next_run.cancel()
            entry.next_run = None
        if self._entries.get(entry.request.key) is not entry:
            return
        now = self._clock.monotonic()
        if now - entry.requested_at > max(IDLE_INTERVALS * entry.request.interval, IDLE_MIN).total_seconds():
            if not entry.metric_tasks:
                self._drop_entry(entry.request.key)
            return
        moments = [moment for name, moment in entry.due_at.items() if name not in entry.metric_tasks]
        if moments:
            entry.next_run = self._clock.call_later(max(0.0, min(moments) - now), lambda: self._run_due(entry))

    def _run_due(self, entry: _ScheduledRequest) -> None:
        entry.next_run = None
        self._start_due_metrics(entry)


def _is_same_request(one: MeasurementRequest, other: MeasurementRequest) -> bool:
    """Whether what was measured for one is good for the other."""
    parts = ("namespace", "model", "candidate", "serving", "since", "metrics", "mirror", "gateway")
    return all(getattr(one, part) == getattr(other, part) for part in parts)


def _outcome_label(found: Measurement) -> str:
    if isinstance(found.result, MeasurementFailure):
        return found.result.reason
    if isinstance(found.result, MetricValue) and found.result.candidate is None:
        return "no data"
    return "measured"


def _log_reference(ask: MeasurementRequest, metric: Metric | None = None) -> dict[str, Any]:
    """What is measured, as logs name it."""
    name = f"{ask.model}/{metric.name}" if metric is not None else ask.model
    return {"kind": "Metric", "metadata": {"namespace": ask.namespace, "name": name}}
