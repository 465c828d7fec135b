"""The admission policies cover every field that names a ServiceAccount, a Secret, a claim or code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright.api.cel import PRESERVE
from modelwright.api.crd import rights_policies
from modelwright.api.crd.definition import KINDS, build_schema

ROOT = Path(__file__).parents[3]
MARKS = {(mark.plural, mark.field): mark for mark in rights_policies.list_marked_fields()}
SUSPICIOUS = re.compile(
    r"serviceaccount|secret|claim|^images?$|^command$|^args$|^volumes?$|^template$|^manifest$|^podtemplate$|^uri$",
    re.IGNORECASE,
)
NOTHING = {
    "spec.command": "what a person tells a rollout",
    # What leads to a marked field, and holds nothing of its own.
    "spec.version.template": "a version; its artifact is marked",
    "spec.serving.podTemplate": "a patch; its spec is marked",
    "spec.lineage.dataset.uri": "a record: nothing fetches it",
    "spec.version.template.lineage.dataset.uri": "a record: nothing fetches it",
}


def fields(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(path, name, schema) of every field below a node."""
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, name, child
        yield from fields(child, here)
        yield from fields(child.get("items") or {}, f"{here}[]")
        if isinstance(child.get("additionalProperties"), dict):
            yield from fields(child["additionalProperties"], f"{here}{{}}")


def uncovered(spec: Mapping[str, Any], plural: str) -> list[str]:
    """Fields that name something, or are open, and are neither marked nor below a marked field."""
    unmarked = []
    for path, name, node in fields(spec, "spec"):
        above = [path[: place.start()] for place in re.finditer(r"[.\[]", path)]
        covered = any((plural, place) in MARKS for place in (path, *above))
        # The entries of a list, or what refers to a Secret, may be open or marked one step further down.
        items = node.get("items") or {}
        names = SUSPICIOUS.search(name) or PRESERVE in node or PRESERVE in items
        if names and not covered and path not in NOTHING:
            unmarked.append(path)
    return unmarked


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_that_names_or_runs_something_is_marked(kind: Any) -> None:
    assert uncovered(build_schema(kind)["properties"]["spec"], kind.__crd__.plural) == []


@pytest.mark.parametrize("name", ["serviceAccountName", "tokenSecretRef", "persistentVolumeClaim", "image", "command"])
def test_unmarked_fields_are_found(name: str) -> None:
    new: Any = {"properties": {"serving": {"properties": {"sidecars": {"items": {"properties": {name: {}}}}}}}}
    assert uncovered(new, "models") == [f"spec.serving.sidecars[].{name}"]
    assert uncovered({"properties": {"extra": {PRESERVE: True}}}, "models") == ["spec.extra"]


@pytest.mark.parametrize(("plural", "field"), [key for key, mark in MARKS.items() if mark.target.kind != "Nothing"])
def test_every_marked_field_is_read_by_a_policy(plural: str, field: str) -> None:
    texts = [
        str(policy)
        for policy in rights_policies.build_policies()
        if policy["kind"] == "ValidatingAdmissionPolicy"
        and plural in policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"]
    ]
    *above, last = field.split(".")[1:]
    parts = [f".?{part.removesuffix('[]')}" for part in above]
    assert texts
    assert any(all(part in text for part in parts) and last in text for text in texts)


def test_fields_that_name_nothing_state_a_reason() -> None:
    assert all(mark.target.why for mark in MARKS.values() if mark.target.kind == "Nothing")


def test_policies_stay_within_the_cost_limits() -> None:
    for policy in rights_policies.build_policies():
        if policy["kind"] == "ValidatingAdmissionPolicy":
            rules = policy["spec"]["variables"] + policy["spec"]["validations"]
            asked = [rule["expression"].count("authorizer") for rule in rules]
            assert max(asked) <= 2
            assert sum(asked) <= 26
            assert sum(c["expression"].count("authorizer") for c in policy["spec"]["matchConditions"]) <= 2


def test_committed_policies_match_the_types() -> None:
    committed = list(yaml.safe_load_all((ROOT / "manifests/policies/rights.yaml").read_text()))
    assert committed == rights_policies.build_policies()
