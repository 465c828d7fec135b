"""The JSON Schemas for editors accept valid objects, find misspelt fields, and samples name them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from modelwright.api.crd.definition import KINDS
from modelwright.api.crd.json_schemas import COMBINED_FILE, SCHEMA_FOLDER, build_json_schemas, schema_file_name
from modelwright.api.names import API_VERSION
from tests.expectedfailures.table import Case, cases

ROOT = Path(__file__).parents[3]
NAMES = [kind.__name__ for kind in KINDS]
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^# yaml-language-server: \$schema=(\S+)\napiVersion: (\S+)\nkind: (\S+)$", re.MULTILINE)
OURS = re.compile(rf"^apiVersion: {re.escape(API_VERSION)}\nkind: (\S+)$", re.MULTILINE)
INCOMPLETE = "examples/gitops/base/model.yaml"
"""Each environment completes it."""


class Core(yaml.CSafeLoader):
    """YAML as editors read it: times are texts."""


Core.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@cache
def validator(name: str) -> Any:
    every = build_json_schemas()
    registry = Registry().with_resources(
        [(file, Resource.from_contents(content)) for file, content in every.items()]  # type: ignore[misc]
    )
    return jsonschema.Draft7Validator(every[name], registry=registry)


def faults(obj: Any, name: str = COMBINED_FILE) -> list[str]:
    """Path and message of each error of the schema."""
    errors = validator(name).iter_errors(obj)
    return sorted(f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors)


def texts() -> list[tuple[str, str]]:
    """(place, YAML) of every object in the repository that should be valid."""
    files = [path for folder in ("manifests", "examples", "tests/servers") for path in (ROOT / folder).rglob("*.yaml")]
    documents = [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in files]
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        documents += [(page.relative_to(ROOT).as_posix(), text) for text in BLOCK.findall(page.read_text())]
    passed_over = (INCOMPLETE, "testdata/spec-not-readable.yaml", "testdata/refused.yaml")
    return [(place, text) for place, text in documents if OURS.search(text) and not place.endswith(passed_over)]


TEXTS = texts()


def test_every_schema_is_one_of_draft_7() -> None:
    for content in build_json_schemas().values():
        jsonschema.Draft7Validator.check_schema(content)


@pytest.mark.parametrize(("place", "text"), TEXTS, ids=[place for place, _ in TEXTS])
def test_every_object_of_this_repository_passes(place: str, text: str) -> None:
    for obj in yaml.load_all(text, Loader=Core):
        assert faults(obj) == []
        if obj["apiVersion"] == API_VERSION:
            assert faults(obj, f"{obj['kind'].lower()}_v1alpha1.json") == []


def test_the_repository_has_objects_of_every_user_kind() -> None:
    kinds = {kind for _, text in TEXTS for kind in OURS.findall(text)}
    assert {"Model", "ModelVersion", "RolloutPolicy", "RetrainingPolicy", "ClusterModelRuntime"} <= kinds


@pytest.mark.parametrize("case", [case for case in cases() if not case.refused], ids=lambda case: case.name)
def test_objects_that_the_api_accepts_pass(case: Case) -> None:
    assert faults(case.whole) == []


MODEL = {"apiVersion": API_VERSION, "kind": "Model", "metadata": {"name": "x"}, "spec": {"version": {"name": "v1"}}}
POLICY = {
    "apiVersion": API_VERSION,
    "kind": "RolloutPolicy",
    "metadata": {"name": "x"},
    "spec": {"strategy": {"preset": "Canary"}},
}


def with_spec(obj: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {**obj, "spec": {**obj["spec"], **spec}}


@pytest.mark.parametrize(
    ("name", "obj", "message"),
    [
        ("an unknown field", with_spec(MODEL, replicas=2), "spec: Additional properties are not allowed ('replicas'"),
        ("a field that kubectl knows, misspelt", {**MODEL, "metadata": {"name": "x", "lables": {}}}, "'lables' was"),
        (
            "a number in quotes",
            with_spec(MODEL, serving={"replicas": "2"}),
            "spec.serving.replicas: '2' is not of type",
        ),
        ("a quantity that is none", with_spec(MODEL, serving={"resources": {"limits": {"cpu": "many"}}}), "limits.cpu"),
        ("a share above 100", with_spec(POLICY, strategy={"steps": [{"weight": 500}]}), "500 is greater than"),
        ("a time without a unit", with_spec(POLICY, deadline="30"), "spec.deadline: '30' does not match"),
        ("a choice that there is not", with_spec(POLICY, onFailure="Retry"), "'Retry' is not one of"),
        ("a kind that there is not", {**MODEL, "kind": "Modell"}, "kind: 'Modell' is not one of"),
        ("a version of the API that there is not", {**MODEL, "apiVersion": "modelwright.dev/v9"}, "apiVersion: "),
        ("no name", {**MODEL, "metadata": {}}, "metadata: {} is not valid under any"),
        ("no spec", {key: value for key, value in MODEL.items() if key != "spec"}, "'spec' is a required property"),
        ("a name that is too long", {**MODEL, "metadata": {"name": "x" * 51}}, "metadata.name: "),
    ],
)
def test_invalid_objects_are_reported_with_their_path(name: str, obj: dict[str, Any], message: str) -> None:
    assert message in "\n".join(faults(obj))


def test_a_quantity_may_be_a_number_or_a_text() -> None:
    for cpu in (2, "500m"):
        assert faults(with_spec(MODEL, serving={"resources": {"limits": {"cpu": cpu}}})) == []


def test_an_object_that_another_api_defines_is_open() -> None:
    assert faults(with_spec(MODEL, serving={"podTemplate": {"spec": {"anything": [1]}}})) == []


def test_objects_of_other_groups_pass_the_schema_of_all() -> None:
    assert faults({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}) == []


def test_every_field_has_the_description_of_the_crd() -> None:
    def walk(node: dict[str, Any], path: str) -> None:
        for name, child in node.get("properties", {}).items():
            if path != ".metadata":
                assert child.get("description"), f"{path}.{name}"
            walk(child, f"{path}.{name}")
        walk(node["items"], f"{path}[]") if "items" in node else None

    for kind in KINDS:
        walk(build_json_schemas()[schema_file_name(kind)], "")


def test_kubeconform_template_finds_every_schema() -> None:
    template = f"{SCHEMA_FOLDER}/{{kind}}_{{version}}.json"
    for name in NAMES:
        path = ROOT / template.format(kind=name.lower(), version=API_VERSION.partition("/")[2])
        assert json.loads(path.read_text())["properties"]["kind"]["enum"] == [name]


@pytest.mark.parametrize("folder", ["manifests/samples", "manifests/runtimes", "examples"])
def test_samples_name_the_schema_of_their_kind(folder: str) -> None:
    """Each document of its own: the language server reads the line for one document only."""
    documents = 0
    for path in (ROOT / folder).rglob("*.yaml"):
        if path == ROOT / INCOMPLETE:
            continue
        text = path.read_text()
        lines = [match for match in LINE.findall(text) if match[1] == API_VERSION]
        assert [kind for *_, kind in lines] == OURS.findall(text), path
        for schema, _, kind in lines:
            documents += 1
            assert (path.parent / schema).resolve() == ROOT / SCHEMA_FOLDER / f"{kind.lower()}_v1alpha1.json"
    assert documents >= 4
