"""Schedules measurements in the background; a reconciliation reads the latest ones and never waits."""

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
"""Seconds for which the result of a metric waits for the others of its round."""
RETRY_SECONDS = 10.0
"""Seconds until a failed metric is measured again, unless the interval is shorter."""
RANGE_TIMEOUT = 300.0
"""Seconds for which the end of an A/B test waits for a server that fails."""
IDLE_INTERVALS = 3
IDLE_MIN = timedelta(minutes=1)
"""A request that was not repeated for this time, and for this number of intervals, is dropped."""


@dataclass(slots=True)
class _ScheduledRequest:
    """A request with its latest results and its running tasks. Times are of the monotonic clock."""

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
    """Whether a round has ended, so that there are results to return."""
    next_run: Timer | None = None
    notify_timer: Timer | None = None

    def cancel_tasks(self) -> list[asyncio.Task[None]]:
        """Cancel timers and tasks; return the tasks that have yet to end."""
        for timer in (self.next_run, self.notify_timer):
            if timer is not None:
                timer.cancel()
        tasks = (*self.metric_tasks.values(), self.weight_task, self.range_task)
        ending = [task for task in tasks if task is not None and not task.done()]
        for task in ending:
            task.cancel()
        return ending


class MeasurementScheduler:
    """Holds the latest measurements of every request. Belongs to one event loop; only `close` waits.

    Metrics are measured every `request.interval`, failed ones sooner, as long as the request is repeated. `notify` is
    called at the end of each round; a metric that hangs delays it by NOTIFY_GRACE only. `JsonClient` bounds the
    requests to one server at a time, so a server that hangs delays no metric of another. Jobs run at their own pace.
    """

    def __init__(
        self,
        connections: Connections,
        notify: Callable[[Key], None],
        *,
        clock: Clock | None = None,
        jobs: JobRunner | None = None,
        comparer_url: ComparerUrl | None = None,
        measurement_timeout: float = MEASUREMENT_TIMEOUT,
    ) -> None:
        self._web = JsonClient()
        self._measurer = Measurer(
            connections, self._web, jobs=jobs, comparer_url=comparer_url or comparer_client.comparer_service_url
        )
        self._notify = notify
        self._clock: Clock = clock or SystemClock()
        self._measurement_timeout = measurement_timeout
        self._entries: dict[str, _ScheduledRequest] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def get_measurements(self, request: MeasurementRequest) -> tuple[Measurement, ...] | None:
        """Return the latest measurements, in the order of `request.metrics`; None until the first round has ended.

        Leaves out metrics that the step can't measure, and those without a result yet. Another request under the same
        key replaces the former one and its results.
        """
        entry = self._entries.get(request.key)
        if entry is None or not _is_same_request(entry.request, request):
            self._drop_entry(request.key)
            entry = self._entries[request.key] = _ScheduledRequest(
                request, MeasurementState.for_request(request), self._clock.monotonic()
            )
        entry.request, entry.requested_at = request, self._clock.monotonic()
        self._start_due_metrics(entry)
        if not entry.has_result:
            return None
        return tuple(entry.measurements[metric.name] for metric in request.metrics if metric.name in entry.measurements)

    def get_range_points(self, request: MeasurementRequest, metric: Metric, end: datetime) -> ValuePairs | None:
        """Return the values that the query of `metric` had from `request.since` to `end`, for both revisions.

        None until they have been read, which calls `notify`. Needs a `get_measurements` of the same request before,
        and an `end` in the past. Read once; a server that fails is retried for RANGE_TIMEOUT, then its failure is
        returned.
        """
        entry = self._entries.get(request.key)
        if entry is None or not _is_same_request(entry.request, request):
            return None
        entry.requested_at = self._clock.monotonic()
        if entry.range_task is None:
            entry.range_task = asyncio.ensure_future(self._run_range(entry, metric, end))
        return entry.points

    def get_observed_weight(self, request: MeasurementRequest) -> int | None:
        """Return the candidate's percentage of the requests since the step began, as of the last round; None when the
        gateway's counters can't tell, or have counted too few."""
        entry = self._entries.get(request.key)
        return entry.observed_weight if entry is not None and _is_same_request(entry.request, request) else None

    def forget_except(self, keep: Container[str]) -> None:
        """Drop all requests but those of the keys in `keep`."""
        for key in [key for key in self._entries if key not in keep]:
            self._drop_entry(key)

    async def close(self) -> None:
        """Drop all requests, and wait until their tasks have ended."""
        self.forget_except(())
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._web.close()

    def _drop_entry(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        for task in entry.cancel_tasks() if entry is not None else ():
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _start_due_metrics(self, entry: _ScheduledRequest) -> None:
        """Start measuring every metric that is due."""
        now = self._clock.monotonic()
        due = [
            metric
            for metric in entry.request.metrics
            if is_measurable(entry.request, metric)
            and metric.name not in entry.metric_tasks
            and entry.due_at.get(metric.name, now) <= now
        ]
        if due:
            current = MeasurementRound(entry.request, entry.state, self._clock.now())
            for metric in due:
                entry.metric_tasks[metric.name] = asyncio.ensure_future(self._run_metric(entry, current, metric))
            if entry.weight_task is None:
                entry.weight_task = asyncio.ensure_future(self._run_weight(entry, current))
        elif not entry.metric_tasks and not entry.measurements:
            entry.has_result = True  # none of the metrics can be measured at this step
        self._schedule_next_run(entry)

    async def _run_metric(self, entry: _ScheduledRequest, current: MeasurementRound, metric: Metric) -> None:
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._measurement_timeout if metric.job is None else None):
                measurement = await self._measurer.measure_metric(current, metric)
        except TimeoutError:
            failure = MeasurementFailure(
                Reason.METRICS_SERVER_TIMEOUT, f"not measured within {self._measurement_timeout:g} s"
            )
            measurement = Measurement(metric.name, current.measured_at, failure)
        except Exception as error:
            # A bug in one measurement must not end those that follow.
            text = record_bug(_log_reference(entry.request, metric), error)
            failure = MeasurementFailure(Reason.INTERNAL_ERROR, text)
            measurement = Measurement(metric.name, current.measured_at, failure)
        ended, interval = self._clock.monotonic(), entry.request.interval.total_seconds()
        own.LOOKS.labels(_outcome_label(measurement)).inc()
        own.LOOK_SECONDS.observe(ended - started)
        entry.measurements[metric.name] = measurement
        if isinstance(measurement.result, MeasurementFailure):
            entry.due_at[metric.name] = ended + min(interval, RETRY_SECONDS)
        else:
            # Counted from the start, so that metrics of one interval stay in one round.
            entry.due_at[metric.name] = max(started + interval, ended)
        del entry.metric_tasks[metric.name]
        self._notify_when_done(entry)
        self._schedule_next_run(entry)

    async def _run_range(self, entry: _ScheduledRequest, metric: Metric, end: datetime) -> None:
        started = self._clock.monotonic()
        while True:
            try:
                async with asyncio.timeout(self._measurement_timeout):
                    points = await self._measurer.measure_range(entry.request, metric, end)
            except TimeoutError:
                text = f"not measured within {self._measurement_timeout:g} s"
                points = ValuePairs(failure=MeasurementFailure(Reason.METRICS_SERVER_TIMEOUT, text))
            except Exception as error:
                text = record_bug(_log_reference(entry.request, metric), error)
                points = ValuePairs(failure=MeasurementFailure(Reason.INTERNAL_ERROR, text))
            failure, waited = points.failure, self._clock.monotonic() - started
            if failure is None or failure.permanent or waited >= RANGE_TIMEOUT:
                break
            await self._clock.sleep(RETRY_SECONDS)
        entry.points = points
        self._notify_now(entry)

    async def _run_weight(self, entry: _ScheduledRequest, current: MeasurementRound) -> None:
        try:
            async with asyncio.timeout(self._measurement_timeout):
                entry.observed_weight = await self._measurer.measure_weight(current)
        except TimeoutError:
            entry.observed_weight = None
        except Exception as error:
            record_bug(_log_reference(entry.request), error)
            entry.observed_weight = None
        finally:
            entry.weight_task = None

    def _notify_when_done(self, entry: _ScheduledRequest) -> None:
        """Notify once the round has ended, or after NOTIFY_GRACE."""
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
        """Set the timer for the next metric that is due; drop a request that is not repeated any more."""
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
        times = [time for name, time in entry.due_at.items() if name not in entry.metric_tasks]
        if times:
            entry.next_run = self._clock.call_later(max(0.0, min(times) - now), lambda: self._run_due(entry))

    def _run_due(self, entry: _ScheduledRequest) -> None:
        entry.next_run = None
        self._start_due_metrics(entry)


def _is_same_request(one: MeasurementRequest, other: MeasurementRequest) -> bool:
    """Whether results for one are valid for the other."""
    parts = ("namespace", "model", "candidate", "serving", "since", "metrics", "mirror", "gateway")
    return all(getattr(one, part) == getattr(other, part) for part in parts)


def _outcome_label(measurement: Measurement) -> str:
    if isinstance(measurement.result, MeasurementFailure):
        return measurement.result.reason
    if isinstance(measurement.result, MetricValue) and measurement.result.candidate is None:
        return "no data"
    return "measured"


def _log_reference(request: MeasurementRequest, metric: Metric | None = None) -> dict[str, Any]:
    """Build the reference by which logs name a metric, or all metrics of a Model."""
    name = f"{request.model}/{metric.name}" if metric is not None else request.model
    return {"kind": "Metric", "metadata": {"namespace": request.namespace, "name": name}}
