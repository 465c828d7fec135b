"""Validates the reports of a run's stages, by the result contract of training (docs/how-to/training.md).

Reports come from containers of the user: every member is checked before use, and everything stored is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, overload
from urllib.parse import unquote

from pydantic import Field, StringConstraints, ValidationError

from modelwright.api.common import INT64_MAX, StatusWire, Text63, list_problems
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.api.v1alpha1.rollout import ReportStatus
from modelwright.api.v1alpha1.training import CheckStatus, DatasetStatus, FigureStatus, ResultMetric, RunResult
from modelwright.api.v1alpha1.version import ArtifactUri, Code, Digest, ModelFormat
from modelwright.core import evaluation_gate, report_numbers
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.report_figures import Figure
from modelwright.net.addresses import redact_uri

MAX_CHECKS = 128
MAX_FIGURES = 256
MAX_LABELS = 64
"""Maximum number of classes of a confusion matrix."""
MAX_DEPTH = 16
"""Maximum nesting of values that are stored as they are."""

_MESSAGE_MAX = 1024
_MAX_DECODINGS = 4

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportRefused:
    """A report that is invalid or not allowed; `message` names the member and the error."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DataCheckResult:
    """Result of a data check. `checks`: failed ones first, at most MAX_CHECKS; `failed`: names of all failed ones."""

    checks: tuple[CheckStatus, ...]
    profile: JsonObject | None
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Result of an evaluation: Pass, Fail or Inconclusive; `message` has the numbers."""

    outcome: Outcome
    reason: str
    message: str
    figures: tuple[FigureStatus, ...] = ()
    confusion_matrix: JsonObject | None = None
    full_report: ReportStatus | None = None


class _Artifact(StatusWire):
    uri: ArtifactUri
    digest: Digest
    format: ModelFormat | None = None


class _Dataset(StatusWire):
    digest: Annotated[str, StringConstraints(strict=True)] | None = None


class _Reference(StatusWire):
    uri: ArtifactUri
    digest: Digest


_Parameter = (
    Annotated[str, StringConstraints(strict=True, max_length=1024)]
    | Annotated[int, Field(strict=True, ge=-INT64_MAX, le=INT64_MAX)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
)


class _Training(StatusWire):
    artifact: _Artifact
    metrics: Annotated[dict[Text63, Any], Field(max_length=64)] = Field(default_factory=dict)
    parameters: Annotated[
        dict[Annotated[str, StringConstraints(min_length=1, max_length=128)], _Parameter], Field(max_length=128)
    ] = Field(default_factory=dict)
    dataset: _Dataset | None = None
    code: Code | None = None
    reference: _Reference | None = None


def read_training_report(
    report: Any, *, output_uri: str, dataset_digest: str, image: str | None
) -> RunResult | ReportRefused:
    """Read the result of a training from its report, or why that is refused: ReportInvalid, DatasetChanged or
    OutputNotAllowed.

    `output_uri`: the prefix that the training was given for its artifact; `image`: of its container.
    """
    try:
        training = _Training.model_validate(report, by_alias=True, by_name=False)
    except ValidationError as error:
        return _refuse_report("; ".join(f"{path}: {text}" if path else text for path, text in list_problems(error)))
    metrics = []
    for name, value in training.metrics.items():
        number = _format_number(value)
        if number is None:
            return _refuse_report(f"metrics.{name} is {_quote_value(value)}, which is no finite number")
        metrics.append(ResultMetric(name=name, value=number))
    if training.dataset is not None and training.dataset.digest not in (None, dataset_digest):
        text = f"dataset.digest is {_quote_value(training.dataset.digest)}, but the run began with {dataset_digest}"
        return ReportRefused(Reason.DATASET_CHANGED, text)
    if not is_below_prefix(training.artifact.uri, output_uri):
        text = (
            f"artifact.uri is {redact_uri(training.artifact.uri)[:256]}; it must be {redact_uri(output_uri)} "
            "or below it (OUTPUT_URI)"
        )
        return ReportRefused(Reason.OUTPUT_NOT_ALLOWED, text)
    if training.reference is not None and not is_below_prefix(training.reference.uri, output_uri):
        text = (
            f"reference.uri is {redact_uri(training.reference.uri)[:256]}; it must be below "
            f"{redact_uri(output_uri)} (OUTPUT_URI)"
        )
        return ReportRefused(Reason.OUTPUT_NOT_ALLOWED, text)
    format_, code, reference = training.artifact.format, training.code, training.reference
    return RunResult(
        uri=training.artifact.uri,
        digest=training.artifact.digest,
        format=format_.name if format_ is not None else None,
        format_version=format_.version if format_ is not None else None,
        image=image,
        repository=code.repository if code is not None else None,
        commit=code.commit if code is not None else None,
        reference=DatasetStatus(uri=reference.uri, digest=reference.digest) if reference is not None else None,
        metrics=tuple(metrics),
        parameters={
            name: value if isinstance(value, str) else repr(value) for name, value in training.parameters.items()
        },
    )


def is_below_prefix(uri: str, prefix: str) -> bool:
    """Whether a URI is `prefix` or below it in every reading: it has no parent folders, plain or encoded, and no query.
    In an image reference, a tag and a digest may follow."""
    prefix = prefix.rstrip("/")
    if uri.rstrip("/") == prefix:
        return True
    rest = uri.removeprefix(prefix)
    if rest == uri or not rest:
        return False
    if uri.startswith("oci://") and rest[0] in ":@":
        return "/" not in rest
    decoded = rest
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(decoded)
    if unquote(decoded) != decoded or any(char in decoded for char in "\\?#") or not decoded.isprintable():
        return False
    parts = rest.removesuffix("/").split("/")
    decoded_parts = decoded.removesuffix("/").split("/")
    return parts[0] == "" and not any(part in ("", ".", "..") for part in (*parts[1:], *decoded_parts[1:]))


def read_data_check_report(report: Any) -> DataCheckResult | ReportRefused:
    """Read the result of a data check from its report, or why that is refused (ReportInvalid). It needs at least one
    check, each with a unique name and the outcome Pass or Fail."""
    if not isinstance(report, Mapping):
        return _refuse_report("it must be a JSON object")
    entries, profile = report.get("checks"), report.get("profile")
    if not isinstance(entries, list) or not entries:
        return _refuse_report('"checks" must be a list of at least one {"name", "outcome", "message"}')
    checks: dict[str, CheckStatus] = {}
    for index, entry in enumerate(entries):
        check = _parse_check(entry)
        if isinstance(check, str):
            return _refuse_report(f"checks[{index}]{check}")
        if check.name in checks:
            return _refuse_report(f"checks[{index}].name: {check.name} is there twice")
        checks[check.name] = check
    if profile is not None and not (isinstance(profile, Mapping) and _is_storable(profile)):
        return _refuse_report("profile must be a JSON object, of finite numbers, and not too deep")
    ordered = sorted(checks.values(), key=lambda check: check.outcome != "Fail")
    failed = tuple(check.name for check in ordered if check.outcome == "Fail")
    return DataCheckResult(tuple(ordered[:MAX_CHECKS]), profile, failed)


def read_evaluation_report(report: Any, metrics: Sequence[EvaluationMetric], *, first: bool) -> EvaluationResult:
    """Evaluate an evaluation's report by the policy's gates, as the evaluation gate of a rollout does.

    `first`: no version serves yet. An invalid confusion matrix is left out, with a note in the message.
    """
    if not isinstance(report, Mapping):
        return EvaluationResult(Outcome.FAIL, Reason.REPORT_INVALID, "the report must be a JSON object")
    result = evaluation_gate.evaluate_report(metrics, report, first=first)
    figures = tuple(_build_figure_status(figure) for figure in result.figures[:MAX_FIGURES])
    matrix = report.get("confusionMatrix")
    problem = _matrix_problem(matrix) if matrix is not None else None
    message = result.message if problem is None else f"{result.message}; confusionMatrix was left out: {problem}"
    stored_matrix = (
        {"labels": matrix["labels"], "counts": matrix["counts"]} if matrix is not None and problem is None else None
    )
    reference = result.full_report
    full_report = ReportStatus(uri=reference.uri, digest=reference.digest) if reference is not None else None
    return EvaluationResult(result.outcome, result.reason, message, figures, stored_matrix, full_report)


def _refuse_report(text: str) -> ReportRefused:
    return ReportRefused(Reason.REPORT_INVALID, _bound_text(f"the report breaks the result contract: {text}"))


def _parse_check(entry: Any) -> CheckStatus | str:
    """Parse a check; return a text if it is invalid."""
    if not isinstance(entry, Mapping):
        return ' must be {"name", "outcome", "message"}'
    name, outcome, message = entry.get("name"), entry.get("outcome"), entry.get("message")
    if not isinstance(name, str) or not name.strip():
        return ".name must be a text"
    if outcome not in ("Pass", "Fail"):
        return f".outcome is {_quote_value(outcome)}; it must be Pass or Fail"
    if message is not None and not isinstance(message, str):
        return ".message must be a text"
    return CheckStatus(name=_bound_text(name), outcome=str(outcome), message=_bound_text(message or ""))


def _build_figure_status(figure: Figure) -> FigureStatus:
    return FigureStatus(
        name=figure.name,
        slice=figure.slice or "",
        candidate=_format_decimal(figure.candidate),
        serving=_format_decimal(figure.serving),
        examples=_drop_negative(figure.n),
        better=_drop_negative(figure.better),
        worse=_drop_negative(figure.worse),
        standard_error=_format_decimal(figure.standard_error),
        candidate_standard_error=_format_decimal(figure.candidate_standard_error),
    )


def _drop_negative(count: int | None) -> int | None:
    """Drop a negative count of a report, which a status can't hold."""
    return count if count is not None and count >= 0 else None


def _matrix_problem(matrix: Any) -> str | None:
    if not isinstance(matrix, Mapping):
        return 'it must be {"labels", "counts"}'
    labels, counts = matrix.get("labels"), matrix.get("counts")
    if not isinstance(labels, list) or not 1 <= len(labels) <= MAX_LABELS:
        return f"labels must be a list of 1 to {MAX_LABELS}"
    if not all(isinstance(label, str | int) and _is_storable(label) for label in labels):
        return "labels must be texts or integers"
    if not isinstance(counts, list) or [_row_width(row) for row in counts] != [len(labels)] * len(labels):
        return "counts must have a row and a column for each label"
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= INT64_MAX for row in counts for n in row):
        return "counts must be integers that are not negative"
    return None


def _row_width(row: Any) -> int:
    return len(row) if isinstance(row, list) else -1


def _is_storable(value: Any, depth: int = 0) -> bool:
    """Whether a JSON value can be stored as it is: it has only finite numbers that every reader keeps exactly, and
    valid Unicode."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return abs(value) <= INT64_MAX
    if isinstance(value, float):
        return math.isfinite(value)
    if depth == MAX_DEPTH:
        return False
    if isinstance(value, Mapping):
        return all(
            isinstance(key, str) and _is_storable(key) and _is_storable(item, depth + 1) for key, item in value.items()
        )
    return isinstance(value, list) and all(_is_storable(item, depth + 1) for item in value)


def _format_number(value: Any) -> str | None:
    """Format a finite number; None if the value is no such number. A number in quotes is none."""
    number = report_numbers.parse_number(value) if not isinstance(value, str) else None
    text = repr(value)
    return None if number is None else text if len(text) <= report_numbers.MAX_KEPT_CHARACTERS else f"{number:.17g}"


@overload
def _format_decimal(value: Decimal) -> str: ...


@overload
def _format_decimal(value: None) -> None: ...


def _format_decimal(value: Decimal | None) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= report_numbers.MAX_KEPT_CHARACTERS else f"{value:.17g}"


def _bound_text(text: str) -> str:
    """Limit a text from outside to the length that a status can hold, and replace invalid Unicode."""
    clean = text[: 2 * _MESSAGE_MAX].encode("utf-8", "replace").decode()
    return clean if len(clean) <= _MESSAGE_MAX else clean[: _MESSAGE_MAX - 1] + "…"


def _quote_value(value: Any) -> str:
    return _bound_text(repr(value)[:80])
