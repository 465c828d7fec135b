"""Runs the Jobs of metrics: one at a time for each, waited for by the desk and never by a pass."""

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
from modelwright.measurement.port import MeasurementRequest
from modelwright.obs.clock import Clock
from modelwright.obs.read_child import read_child
from modelwright.reconcile.children import is_controlled_by
from modelwright.render import helper_pod_placement
from modelwright.render.images import Images
from modelwright.render.metric_job import LABEL_MEASURES, measured_label, render_metric_job
from modelwright.render.strategic_merge import MergeError

Object = dict[str, Any]

POLL_SECONDS = 1.0
"""How often the watched Job is looked at; that asks the API server nothing."""
POD_READ_DELAY = timedelta(seconds=20)
"""How long a Job is without a ready pod before its pods are read, and how long until they are read again."""
GRACE_SECONDS = 60.0
"""How much later than its own deadline a Job must have ended."""


class MetricJobRunner:
    """What the desk runs Jobs with."""

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
        self, ask: MeasurementRequest, metric: Metric
    ) -> Figure | MetricValue | MeasurementFailure:
        """Run the Job of `metric` to its end; one that an earlier operator has started is waited for instead.

        One that has ended well is deleted. Never raises for what the API server says. Nothing is measured while
        anybody might forge the report.
        """
        assert metric.job is not None  # noqa: S101
        admission = self._admission(ask.namespace)
        if not admission.in_force:
            text = admission.problem or "whether the admission policies are in force is being found out"
            return MeasurementFailure(Reason.ADMISSION_POLICY_MISSING, text)
        try:
            job = self._find_running(ask, metric) or await self._start_job(ask, metric)
            if isinstance(job, MeasurementFailure):
                return job
            patience = self._clock.monotonic() + parse_duration(metric.job.timeout) + GRACE_SECONDS
            found: Figure | MetricValue | MeasurementFailure | None = None
            look_at, why = 0.0, ""
            while not gate_results.has_ended(job):
                if self._clock.monotonic() > patience:
                    return _job_failure(f"Job {_job_name(job)} has not ended by its deadline")
                await self._clock.sleep(POLL_SECONDS)
                seen = self._store.get(kinds.JOB, ask.namespace, _job_name(job))
                if seen is None or seen["metadata"]["uid"] != job["metadata"]["uid"]:
                    return _job_failure(f"Job {_job_name(job)} was deleted before it ended")
                job = seen
                if self._clock.monotonic() < look_at or not gate_results.is_stuck(
                    job, self._clock.now(), POD_READ_DELAY
                ):
                    continue
                # Its own containers may have ended, and another one keeps the pod, and so the Job, from ending.
                look_at = self._clock.monotonic() + POD_READ_DELAY.total_seconds()
                found, why = await self._read_report(ask, metric.job, job)
                if found is not None:
                    break
            if found is None:
                found, why = await self._read_report(ask, metric.job, job)
            if isinstance(found, Figure | MetricValue) or not gate_results.has_ended(job):
                await self._client.delete(kinds.JOB, ask.namespace, _job_name(job), uid=job["metadata"]["uid"])
            if isinstance(found, MeasurementFailure) and why:
                return _job_failure(f"{found.message}; {why}")
            return found or _job_failure(f"Job {_job_name(job)} has ended, and its pods say nothing yet")
        except api_errors.ApiError as error:
            return _job_failure(f"the API server: {error}")

    async def _read_report(
        self, ask: MeasurementRequest, asked: JobMetric, job: Object
    ) -> tuple[Figure | MetricValue | MeasurementFailure | None, str]:
        """What the Job's pods say, and which of them are not believed."""
        selector = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
        heard = pod_trust.trust_job_pods(job, await self._client.list(kinds.POD, ask.namespace, labels=selector))
        return read_child(
            job, functools.partial(jobs.read_job_result, job, heard.pods, asked.value), _job_failure
        ), heard.refusal_text

    def _find_running(self, ask: MeasurementRequest, metric: Metric) -> Object | None:
        wanted, owner = measured_label(ask.key, metric.name), ask.key.partition("/")[0]
        for job in self._store.by_model(kinds.JOB, ask.namespace, ask.model):
            metadata = job["metadata"]
            mine = (metadata.get("labels") or {}).get(LABEL_MEASURES) == wanted and is_controlled_by(job, owner)
            if mine and not metadata.get("deletionTimestamp") and not gate_results.has_ended(job):
                return job
        return None

    async def _start_job(self, ask: MeasurementRequest, metric: Metric) -> Object | MeasurementFailure:
        assert metric.job is not None  # noqa: S101
        uid = ask.key.partition("/")[0]
        rollouts = self._store.by_model(kinds.MODEL_ROLLOUT, ask.namespace, ask.model)
        owner = next((rollout for rollout in rollouts if rollout["metadata"]["uid"] == uid), None)
        if owner is None:
            return _job_failure("the ModelRollout is gone")
        try:
            job = render_metric_job(
                owner,
                metric.name,
                metric.job,
                key=ask.key,
                version=ask.candidate.version,
                attempt=self._clock.now().isoformat(),
                environment=jobs.build_environment(ask),
                images=helper_pod_placement.with_model_placement(
                    self._images, self._store.get(kinds.MODEL, ask.namespace, ask.model)
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
