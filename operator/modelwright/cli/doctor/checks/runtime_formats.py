"""Checks that a runtime serves each format in use."""

from __future__ import annotations

from collections.abc import Iterator

from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.remedies import REMEDIES
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.doctor.facts import Facts, describe_object
from modelwright.cli.doctor.registry import DoctorFinding, fault_finding, namespace_check
from modelwright.core import runtime_choice
from modelwright.core.problem import Problem
from modelwright.core.runtime_choice import RuntimeCandidate


@namespace_check("runtimes", "a runtime serves each format in use")
def check_formats(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check the runtime for each Model's version, unless the operator has chosen one."""
    versions = {obj["metadata"]["name"]: obj for obj in facts.in_namespace("modelversions", namespace)}
    for obj in facts.in_namespace("models", namespace):
        try:
            model = Model.parse(obj)
            if model.status.runtime is not None:
                continue
            name = model.status.target.version if model.status.target is not None else model.spec.version.name
            if name not in versions:
                continue
            wanted_format = ModelVersion.parse(versions[name]).spec.artifact.format
        except InvalidObject:
            continue
        choice = runtime_choice.choose_runtime(
            wanted_format, model.spec.serving.runtime_ref, _list_candidates(facts, namespace)
        )
        if isinstance(choice, Problem):
            yield fault_finding(
                describe_object(obj), f"version {name}: {choice.message}", REMEDIES[Reason(choice.reason)]
            )


def _list_candidates(facts: Facts, namespace: str) -> list[RuntimeCandidate]:
    return runtime_choice.parse_candidates(
        facts.in_namespace("modelruntimes", namespace), facts.list_all("clustermodelruntimes")
    )
