"""Numbers of reports: read in one way everywhere, and bounded."""

import json
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.v1alpha1.policy import EvaluationMetric, Gates
from modelwright.core import gate_results, report_numbers
from modelwright.core.gate_results import GateReport
from modelwright.core.retraining import stage_reports
from modelwright.measurement import job_report as metric_jobs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GATES = Gates.model_validate(
    {
        "evaluation": {
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
            "metrics": [{"name": "accuracy", "min": "0.1", "minDelta": "0"}],
        }
    }
)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (0.93, "0.93"),
        ("0.93", "0.93"),
        (" +.5 ", "0.5"),
        ("1.", "1"),
        (3, "3"),
        (1e300, "1E+300"),
        ("1e-999", "1E-999"),
        (10**40, "1.0000000000000000E+40"),
        (-0.0, "-0.0"),
    ],
)
def test_numbers(value: Any, found: str) -> None:
    assert report_numbers.parse_number(value) == Decimal(found)


@pytest.mark.parametrize(
    "value",
    [
        True,
        None,
        [],
        {},
        "",
        "x",
        "NaN",
        "sNaN",
        "Infinity",
        "-inf",
        float("nan"),
        float("inf"),
        "1e9999",
        "1e99999999",
        "1e-99999999",
        "1E+999999999999999999",
        "1e301",
        "1" * 129,
        "1" * 4000,
        10**4000,
        "1_0",
        "٣",
        "0x1",
        "1,5",
        "- 1",
    ],
    ids=lambda value: str(type(value)) if isinstance(value, int) else str(value)[:20],
)
def test_an_invalid_number_of_a_report_is_rejected(value: Any) -> None:
    assert report_numbers.parse_number(value) is None
    assert len(report_numbers.describe_value(value)) <= 3 * report_numbers.MAX_KEPT_CHARACTERS


NUMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.just("1e99999999"),
    st.builds(
        lambda sign, digits, exponent: f"{sign}{digits}e{exponent}",
        st.sampled_from(["", "-", "+"]),
        st.integers(0, 10**35),
        st.integers(-(10**12), 10**12),
    ),
    st.integers(0, 400).map(lambda digits: 10**digits),
    st.integers(1, 5000).map(lambda digits: "9" * digits),
)
ENTRIES = st.fixed_dictionaries(
    {"name": st.just("accuracy"), "candidate": NUMBERS},
    optional=dict.fromkeys(("serving", "n", "better", "worse", "standardError", "candidateStandardError"), NUMBERS),
)


@given(ENTRIES)
def test_every_figure_comes_to_a_result_wherever_it_is_read(entry: dict[str, Any]) -> None:
    report = {"metrics": [entry]}
    pod = {
        "metadata": {"name": "p"},
        "status": {
            "phase": "Succeeded",
            "containerStatuses": [
                {"name": "c", "state": {"terminated": {"exitCode": 0, "message": json.dumps(report)}}}
            ],
        },
    }
    job = {"metadata": {"name": "j"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    found = gate_results.read_gate_result(job, [pod], "evaluation", GATES, first=False, now=NOW)
    assert found is not None
    assert len(found.message) < 4096
    metric_jobs.parse_figure(GateReport(report), "accuracy")
    assert GATES.evaluation is not None
    metrics: tuple[EvaluationMetric, ...] = tuple(GATES.evaluation.metrics)
    evaluated = stage_reports.read_evaluation_report(report, metrics, first=False)
    assert all(len(figure.candidate) <= report_numbers.MAX_KEPT_CHARACTERS for figure in evaluated.figures)


def test_a_number_of_any_size_takes_no_memory() -> None:
    huge = "9" * 1_000_000
    tracemalloc.start()
    assert report_numbers.parse_number(huge) is None
    report_numbers.describe_value(huge)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
