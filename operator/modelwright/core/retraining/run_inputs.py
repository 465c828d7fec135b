"""Inputs and outputs of a TrainingRun: parameters, data, the address of the artifact, the name of the version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelwright.api.names import content_hash
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import DatasetSource, RunTemplate
from modelwright.api.v1alpha1.training import TrainingRun
from modelwright.core.problem import Problem
from modelwright.core.retraining.run_observation import DataRole, ResolvedData, RunObservation

_TRANSIENT_REASONS = frozenset(
    {Reason.STORE_UNREACHABLE, Reason.DOWNLOAD_STALLED, Reason.IMAGE_PULL_FAILED, Reason.UNSCHEDULABLE}
)
"""What may keep data from being resolved for a while: waited for until the deadline."""


def output_uri(template: RunTemplate, run: str) -> str:
    """Where the training of this run puts the artifact."""
    return f"{template.output.uri.rstrip('/')}/{run}"


def version_name(run: str) -> str:
    """Name of the ModelVersion that a run makes."""
    return run


def merge_parameters(run: TrainingRun, template: RunTemplate) -> dict[str, str]:
    """Parameters of the run: the policy's, and in their place those that a person asked for."""
    return {**template.parameters, **(run.spec.manual.parameters if run.spec.manual is not None else {})}


def hash_inputs(template: RunTemplate, dataset: str, holdout: str | None, parameters: Mapping[str, str]) -> str:
    """Hash of all that a run's result depends on: two runs with the same one are equal.

    Data counts by digest, wherever it is; the deadline and what only describes the version don't count.
    """
    apart = {"dataset", "holdout", "parameters", "deadline", "version"}
    rest = {key: value for key, value in template.wire().items() if key not in apart}
    return content_hash({"run": rest, "dataset": dataset, "holdout": holdout, "parameters": dict(parameters)}, 20)


def data_by_role(o: RunObservation) -> dict[DataRole, tuple[str, ResolvedData]]:
    """Address and digest of all the data of the run; a digest that the policy gives is known from the start."""
    template = o.template
    found: dict[DataRole, tuple[str, ResolvedData]] = {"dataset": _resolve_source(template.dataset, o.dataset)}
    if template.holdout is not None:
        found["holdout"] = _resolve_source(template.holdout, o.holdout)
    return found


def _resolve_source(source: DatasetSource, seen: ResolvedData | None) -> tuple[str, ResolvedData]:
    return source.uri, ResolvedData(source.digest) if source.digest is not None else seen or ResolvedData()


def unresolved_roles(o: RunObservation) -> list[DataRole]:
    return [which for which, (_, seen) in data_by_role(o).items() if seen.digest is None]


def permanent_data_problem(o: RunObservation) -> Problem | None:
    problems = [
        seen.problem for _, seen in data_by_role(o).values() if seen.digest is None and seen.problem is not None
    ]
    return next((problem for problem in problems if problem.stalled and problem.reason not in _TRANSIENT_REASONS), None)


def resolving_problem(o: RunObservation) -> Problem:
    problems = [
        seen.problem for _, seen in data_by_role(o).values() if seen.digest is None and seen.problem is not None
    ]
    if problems:
        return replace(problems[0], stalled=False)
    return Problem(
        Reason.RESOLVING_DATA, f"the digest of the {' and the '.join(unresolved_roles(o))} is being found out"
    )


def current_inputs_hash(o: RunObservation) -> str:
    data = {which: seen.digest for which, (_, seen) in data_by_role(o).items()}
    return hash_inputs(o.template, data["dataset"] or "", data.get("holdout"), merge_parameters(o.run, o.template))


def inputs_unchanged(o: RunObservation) -> bool:
    assert o.policy is not None  # noqa: S101 - see `template`
    skips = o.policy.guard.skip_unchanged and o.run.spec.manual is None
    return skips and o.last_inputs is not None and current_inputs_hash(o) == o.last_inputs
