"""Whether a runtime serves each format in use."""

from __future__ import annotations

from collections.abc import Iterator

from modelwright.api.common import InvalidObject
from modelwright.api.cures import CURES
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.doctor.facts import Facts, place
from modelwright.cli.doctor.registry import Finding, each_namespace, fault
from modelwright.core import runtimes
from modelwright.core.rollout.observed import Problem
from modelwright.core.runtimes import Candidate


@each_namespace("runtimes", "a runtime serves each format in use")
def formats(facts: Facts, namespace: str) -> Iterator[Finding]:
    """The runtime that each Model's version would get, where the operator has not chosen one."""
    versions = {obj["metadata"]["name"]: obj for obj in facts.within("modelversions", namespace)}
    for obj in facts.within("models", namespace):
        try:
            model = Model.parse(obj)
            if model.status.runtime is not None:
                continue
            name = model.status.target.version if model.status.target is not None else model.spec.version.name
            if name not in versions:
                continue
            wanted = ModelVersion.parse(versions[name]).spec.artifact.format
        except InvalidObject:
            continue
        found = runtimes.choose(wanted, model.spec.serving.runtime_ref, _candidates(facts, namespace))
        if isinstance(found, Problem):
            yield fault(place(obj), f"version {name}: {found.message}", CURES[Reason(found.reason)])


def _candidates(facts: Facts, namespace: str) -> list[Candidate]:
    return runtimes.candidates(facts.within("modelruntimes", namespace), facts.all("clustermodelruntimes"))
