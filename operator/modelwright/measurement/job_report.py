"""The environment of a metric's Job, and the figure in its report. `reconcile/metric_jobs.py` creates the Job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.core import gate_results
from modelwright.core.analysis import report_figures
from modelwright.core.analysis.evidence import MeasurementFailure, MetricValue
from modelwright.core.analysis.report_figures import Figure
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.gate_results import GateReport
from modelwright.measurement.request import MeasurementRequest


def build_environment(request: MeasurementRequest) -> dict[str, str]:
    """Build the environment variables that name the revisions. SERVING_* is absent while nothing serves."""
    environment = {
        "MODEL_NAME": request.model,
        "MODEL_NAMESPACE": request.namespace,
        "MEASURED_SINCE": request.since.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    for role, target in (("CANDIDATE", request.candidate), ("SERVING", request.serving)):
        if target is not None:
            environment |= {
                f"{role}_VERSION": target.version,
                f"{role}_REVISION": target.revision,
                f"{role}_URL": f"http://{target.service}.{request.namespace}.svc",
            }
    return environment


def read_job_result(
    job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], name: str
) -> Figure | MetricValue | MeasurementFailure | None:
    """Read the figure `name` from the end of a Job (batch/v1) with its pods; None while it runs.

    The report is that of the evaluation gate: {"metrics": [{"name", "candidate", "serving"?, "n"?, ...}]}.
    """
    outcome = gate_results.read_job_outcome(job, pods)
    if isinstance(outcome, GateResult):
        return MeasurementFailure(Reason.METRIC_JOB_FAILED, outcome.message)
    return parse_figure(outcome, name) if isinstance(outcome, GateReport) else None


def parse_figure(report: GateReport, name: str) -> Figure | MetricValue | MeasurementFailure:
    """Parse the figure in a report, for both revisions, with its standard error."""
    entries = report.content.get("metrics")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        return MeasurementFailure(
            Reason.METRIC_JOB_FAILED, 'the report needs "metrics", a list of {"name", "candidate", "serving"}'
        )
    matching = [entry for entry in entries if entry.get("name") == name and entry.get("slice") is None]
    if len(matching) != 1:
        return MeasurementFailure(
            Reason.METRIC_JOB_FAILED, f"{name} is in the report {len(matching)} times, and must be there once"
        )
    figure = report_figures.parse_report_figure(name, None, matching)
    return MetricValue(None, None, figure) if isinstance(figure, str) else figure
