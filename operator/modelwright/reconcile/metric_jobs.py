"""Runs the Jobs of metrics, one at a time for each metric; the measurement scheduler waits for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import JobMetric, Metric
from modelwright.core import gate_results, pod_trust
from modelwright.core.admission import IN_FORCE, AdmissionState
from modelwright.core.analysis.evidence import MeasurementFailure, MetricValue
from modelwright.core.analysis.report_figures import Figure
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.store import Store
from modelwright.measurement import job_report as jobs
from modelwright.measurement.request import MeasurementRequest
from modelwright.obs.clock import Clock
from modelwright.obs.read_child import read_child
from modelwright.reconcile.children import is_controlled_by
from modelwright.render import helper_pod_placement
from modelwright.render.images import Images
from modelwright.render.metric_job import LABEL_MEASURES, JobMeasurement, measured_label, render_metric_job
from modelwright.render.strategic_merge import MergeError

Object = dict[str, Any]

POLL_SECONDS = 1.0
"""How often the Job is read from the store, which costs no request."""
POD_READ_DELAY = timedelta(seconds=20)
"""How long a Job has no ready pod before its pods are read, and then between two reads."""
GRACE_SECONDS = 60.0
"""Seconds after its own deadline by which a Job must have ended."""


class MetricJobRunner:
    """Runs the Jobs of metrics for the measurement scheduler."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        clock: Clock,
        images: Images,
        admission: Callable[[str], AdmissionState] = lambda _: IN_FORCE,
    ) -> None:
        self._client = client
        self._store = store
        self._clock = clock
        self._images = images
        self._admission = admission

    async def run_metric_job(
        self, request: MeasurementRequest, metric: Metric
    ) -> Figure | MetricValue | MeasurementFailure:
        """Run the Job of `metric` to its end, or wait for the one that an earlier operator has started.

        A Job that has ended with a value is deleted. API errors become failures. Nothing is measured while others could
        forge the report.
        """
        assert metric.job is not None  # noqa: S101
        admission = self._admission(request.namespace)
        if not admission.in_force:
            text = admission.problem or "whether the admission policies are in force is being checked"
            return MeasurementFailure(Reason.ADMISSION_POLICY_MISSING, text)
        try:
            job = self._find_running(request, metric) or await self._start_job(request, metric)
            if isinstance(job, MeasurementFailure):
                return job
            deadline = self._clock.monotonic() + parse_duration(metric.job.timeout) + GRACE_SECONDS
            result: Figure | MetricValue | MeasurementFailure | None = None
            next_read, refusals = 0.0, ""
            while not gate_results.has_ended(job):
                if self._clock.monotonic() > deadline:
                    return _job_failure(f"Job {_job_name(job)} has not ended by its deadline")
                await self._clock.sleep(POLL_SECONDS)
                live = self._store.get(kinds.JOB, request.namespace, _job_name(job))
                if live is None or live["metadata"]["uid"] != job["metadata"]["uid"]:
                    return _job_failure(f"Job {_job_name(job)} was deleted before it ended")
                job = live
                if self._clock.monotonic() < next_read or not gate_results.is_stuck(
                    job, self._clock.now(), POD_READ_DELAY
                ):
                    continue
                # Its own containers may have ended while an injected one keeps the pod, and so the Job, from ending.
                next_read = self._clock.monotonic() + POD_READ_DELAY.total_seconds()
                result, refusals = await self._read_report(request, metric.job, job)
                if result is not None:
                    break
            if result is None:
                result, refusals = await self._read_report(request, metric.job, job)
            if isinstance(result, Figure | MetricValue) or not gate_results.has_ended(job):
                await self._client.delete(kinds.JOB, request.namespace, _job_name(job), uid=job["metadata"]["uid"])
            if isinstance(result, MeasurementFailure) and refusals:
                return _job_failure(f"{result.message}; {refusals}")
            return result or _job_failure(f"Job {_job_name(job)} has ended, and its pods report nothing yet")
        except api_errors.ApiError as error:
            return _job_failure(f"the API server: {error}")

    async def _read_report(
        self, request: MeasurementRequest, job_metric: JobMetric, job: Object
    ) -> tuple[Figure | MetricValue | MeasurementFailure | None, str]:
        """The result that the Job's pods report, and which of the pods are not trusted."""
        selector = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
        trusted = pod_trust.trust_job_pods(job, await self._client.list(kinds.POD, request.namespace, labels=selector))
        return read_child(
            job, functools.partial(jobs.read_job_result, job, trusted.pods, job_metric.value), _job_failure
        ), trusted.refusal_text

    def _find_running(self, request: MeasurementRequest, metric: Metric) -> Object | None:
        wanted, owner = measured_label(request.key, metric.name), request.key.partition("/")[0]
        for job in self._store.by_model(kinds.JOB, request.namespace, request.model):
            metadata = job["metadata"]
            is_match = (metadata.get("labels") or {}).get(LABEL_MEASURES) == wanted and is_controlled_by(job, owner)
            if is_match and not metadata.get("deletionTimestamp") and not gate_results.has_ended(job):
                return job
        return None

    async def _start_job(self, request: MeasurementRequest, metric: Metric) -> Object | MeasurementFailure:
        assert metric.job is not None  # noqa: S101
        uid = request.key.partition("/")[0]
        rollouts = self._store.by_model(kinds.MODEL_ROLLOUT, request.namespace, request.model)
        owner = next((rollout for rollout in rollouts if rollout["metadata"]["uid"] == uid), None)
        if owner is None:
            return _job_failure("the ModelRollout is gone")
        try:
            job = render_metric_job(
                owner,
                JobMeasurement(
                    metric.name, metric.job, request.key, request.candidate.version, self._clock.now().isoformat()
                ),
                jobs.build_environment(request),
                helper_pod_placement.with_model_placement(
                    self._images, self._store.get(kinds.MODEL, request.namespace, request.model)
                ),
            )
            live = await self._client.create(job)
        except MergeError as error:
            return MeasurementFailure(Reason.METRIC_JOB_FAILED, str(error), permanent=True)
        except api_errors.Invalid as error:
            message = f"metric {metric.name}: the API server refuses its Job: {error.message}"
            return MeasurementFailure(Reason.METRIC_JOB_FAILED, message, permanent=True)
        self._store.put(live, quiet=True)
        return live


def _job_name(job: Object) -> str:
    return str(job["metadata"]["name"])


def _job_failure(message: str) -> MeasurementFailure:
    return MeasurementFailure(Reason.METRIC_JOB_FAILED, message)
