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
"""Reasons of passing problems in resolving data, which are waited for until the deadline."""


def output_uri(template: RunTemplate, run: str) -> str:
    """Build the URI under which the training of this run puts the artifact."""
    return f"{template.output.uri.rstrip('/')}/{run}"


def version_name(run: str) -> str:
    """Return the name of the ModelVersion that a run creates."""
    return run


def merge_parameters(run: TrainingRun, template: RunTemplate) -> dict[str, str]:
    """Merge the parameters of the run: those of a manual run replace the policy's of the same name."""
    return {**template.parameters, **(run.spec.manual.parameters if run.spec.manual is not None else {})}


def hash_inputs(template: RunTemplate, dataset: str, holdout: str | None, parameters: Mapping[str, str]) -> str:
    """Hash everything on which a run's result depends: two runs with the same hash are equal.

    Data counts by digest, regardless of its URI; the deadline and the description of the version don't count.
    """
    excluded = {"dataset", "holdout", "parameters", "deadline", "version"}
    rest = {key: value for key, value in template.wire().items() if key not in excluded}
    return content_hash({"run": rest, "dataset": dataset, "holdout": holdout, "parameters": dict(parameters)}, 20)


def data_by_role(o: RunObservation) -> dict[DataRole, tuple[str, ResolvedData]]:
    """Return the URI and the digest of all the data of the run. A digest in the policy needs no resolution."""
    template = o.template
    data: dict[DataRole, tuple[str, ResolvedData]] = {"dataset": _resolve_source(template.dataset, o.dataset)}
    if template.holdout is not None:
        data["holdout"] = _resolve_source(template.holdout, o.holdout)
    return data


def _resolve_source(source: DatasetSource, resolved: ResolvedData | None) -> tuple[str, ResolvedData]:
    return source.uri, ResolvedData(source.digest) if source.digest is not None else resolved or ResolvedData()


def unresolved_roles(o: RunObservation) -> list[DataRole]:
    return [role for role, (_, resolved) in data_by_role(o).items() if resolved.digest is None]


def _data_problems(o: RunObservation) -> list[Problem]:
    unresolved = (resolved for _, resolved in data_by_role(o).values() if resolved.digest is None)
    return [resolved.problem for resolved in unresolved if resolved.problem is not None]


def permanent_data_problem(o: RunObservation) -> Problem | None:
    """Return a problem because of which the data can never be resolved; None without one."""
    permanent = (p for p in _data_problems(o) if p.stalled and p.reason not in _TRANSIENT_REASONS)
    return next(permanent, None)


def resolving_problem(o: RunObservation) -> Problem:
    """Explain why the data is not resolved yet."""
    problems = _data_problems(o)
    if problems:
        return replace(problems[0], stalled=False)
    return Problem(
        Reason.RESOLVING_DATA, f"the digest of the {' and the '.join(unresolved_roles(o))} is being resolved"
    )


def current_inputs_hash(o: RunObservation) -> str:
    digests = {role: resolved.digest for role, (_, resolved) in data_by_role(o).items()}
    holdout, parameters = digests.get("holdout"), merge_parameters(o.run, o.template)
    return hash_inputs(o.template, digests["dataset"] or "", holdout, parameters)


def inputs_unchanged(o: RunObservation) -> bool:
    """Whether the run is to be skipped, because the last successful one had the same inputs. Manual runs never are."""
    assert o.policy is not None  # noqa: S101 - see `template`
    may_skip = o.policy.guard.skip_unchanged and o.run.spec.manual is None
    return may_skip and o.last_inputs is not None and current_inputs_hash(o) == o.last_inputs
