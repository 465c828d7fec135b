"""Flux's health checks, on states that the operator really writes, by CEL as Flux evaluates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cel_expr_python import cel

from tests.lib.argocd_health import NOT_READABLE, stored
from tests.lib.kstatus import computed
from tests.unit.gitops.states import STATES

Object = dict[str, Any]
CHECKS = yaml.safe_load((Path(__file__).parents[3] / "examples/gitops/flux/health-checks.yaml").read_text())
BY_KIND = {check["kind"]: check for check in CHECKS["spec"]["healthCheckExprs"]}
FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(FIELDS, cel.Type.DYN))


def evaluated(check: Object, obj: Object) -> str:
    """As runtime/cel/status_evaluator.go of Flux has it; Unknown is an error, on which Flux waits."""
    observed = (obj.get("status") or {}).get("observedGeneration")
    if observed is not None and observed != obj["metadata"]["generation"]:
        return "InProgress"
    data = {key: obj[key] for key in FIELDS if key in obj}
    for which, status in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        found = ENVIRONMENT.compile(check[which]).eval(data=data)
        if found.type() == cel.Type.ERROR:
            return "Unknown"
        if found.value() is True:
            return status
    return "InProgress"


# What a Model stamps is never in Git.
IN_GIT = [(kind, name) for kind, name in STATES if kind in BY_KIND and name != "stamped-by-its-model"]


def test_each_kind_that_git_holds_and_that_has_a_status_is_checked() -> None:
    assert set(BY_KIND) == {"Model", "ModelVersion", "RolloutPolicy", "RetrainingPolicy"}
    assert {check["apiVersion"] for check in BY_KIND.values()} == {"modelwright.dev/v1alpha1"}


@pytest.mark.parametrize(("kind", "name"), IN_GIT, ids=map(" ".join, IN_GIT))
def test_flux_says_what_kstatus_says_and_waits_for_the_first_word(kind: str, name: str) -> None:
    obj = stored(kind, name)
    # Flux looks at deletion elsewhere: what is pruned isn't health-checked.
    wanted = {"no-status": "Unknown", "deleting": "Current"}.get(name, computed(obj))
    assert evaluated(BY_KIND[kind], obj) == wanted


def test_an_empty_status_is_waited_for() -> None:
    assert evaluated(BY_KIND["Model"], {**stored("Model", "ready"), "status": {}}) == "InProgress"


def test_the_states_are_of_all_three_sorts() -> None:
    seen = {evaluated(BY_KIND[kind], stored(kind, name)) for kind, name in IN_GIT if (kind, name) not in NOT_READABLE}
    assert seen == {"InProgress", "Failed", "Current", "Unknown"}
