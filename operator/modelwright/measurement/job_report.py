"""A number that a Job reports: what it is told, and what its end says. Making it is `reconcile/measure_job.py`'s."""

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


def build_environment(ask: MeasurementRequest) -> dict[str, str]:
    """What the containers are told of the revisions. SERVING_* is absent while nothing serves."""
    told = {
        "MODEL_NAME": ask.model,
        "MODEL_NAMESPACE": ask.namespace,
        "MEASURED_SINCE": ask.since.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    for which, target in (("CANDIDATE", ask.candidate), ("SERVING", ask.serving)):
        if target is not None:
            told |= {
                f"{which}_VERSION": target.version,
                f"{which}_REVISION": target.revision,
                f"{which}_URL": f"http://{target.service}.{ask.namespace}.svc",
            }
    return told


def read_job_result(
    job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], name: str
) -> Figure | MetricValue | MeasurementFailure | None:
    """What a Job (batch/v1) with its pods says of the figure `name`; None while it runs.

    The report is that of the evaluation gate: {"metrics": [{"name", "candidate", "serving"?, "n"?, ...}]}.
    """
    found = gate_results.read_job_outcome(job, pods)
    if isinstance(found, GateResult):
        return MeasurementFailure(Reason.METRIC_JOB_FAILED, found.message)
    return parse_figure(found, name) if isinstance(found, GateReport) else None


def parse_figure(report: GateReport, name: str) -> Figure | MetricValue | MeasurementFailure:
    """The figure in a report, for both revisions, with its error."""
    entries = report.content.get("metrics")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        return MeasurementFailure(
            Reason.METRIC_JOB_FAILED, 'the report needs "metrics", a list of {"name", "candidate", "serving"}'
        )
    found = [entry for entry in entries if entry.get("name") == name and entry.get("slice") is None]
    if len(found) != 1:
        return MeasurementFailure(
            Reason.METRIC_JOB_FAILED, f"{name} is in the report {len(found)} times, and must be there once"
        )
    figure = report_figures.parse_report_figure(name, None, found)
    return MetricValue(None, None, figure) if isinstance(figure, str) else figure
