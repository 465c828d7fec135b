"""The CRD generator refuses types without a form in a CRD, and its schemas are complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from modelwright.api.cel import INT_OR_STRING, PRESERVE, VALIDATIONS, Cel, ListType
from modelwright.api.common import Wire
from modelwright.api.crd.definition import KINDS, MAX_CRD_BYTES, build_crd, build_schema
from modelwright.api.crd.structural_schema import NotStructural, build_structural_schema
from modelwright.api.v1alpha1 import Model
from modelwright.cli import crd

Short = Annotated[str, Field(max_length=3)]


class Leaf(Wire):
    """A leaf."""

    name: Short = Field(description="Name.")


class Recursive(BaseModel):
    """A type that holds itself."""

    below: Recursive | None = Field(default=None, description="Below.")


def one_field(annotation: Any, **field: Any) -> type[BaseModel]:
    namespace = {"__annotations__": {"x": annotation}, "x": Field(**{"description": "X.", **field}), "__doc__": "One."}
    return type("One", (Wire,), namespace)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one_field(str), "One.x: a string needs maxLength"),
        (one_field(Short, description=None), "One.x: has no description"),
        (one_field(int), "One.x: an integer needs minimum and maximum"),
        (one_field(float), "One.x: floating-point"),
        (one_field(tuple[Short, ...]), "One.x: a list needs maxItems and x-kubernetes-list-type"),
        (one_field(Annotated[tuple[Short, ...], Field(max_length=1)]), "One.x: a list needs maxItems"),
        (one_field(dict[str, Short]), "One.x: a map needs maxProperties"),
        (one_field(Short | int), "One.x: a union has no form"),
        (one_field(tuple[Short, Short]), "One.x: prefixItems has no form"),
        (one_field(Any), "One.x: has no type"),
        (Recursive, "Recursive refers to itself"),
    ],
)
def test_types_without_a_form_in_a_crd_are_refused(model: type[BaseModel], message: str) -> None:
    with pytest.raises(NotStructural, match=message.replace(".", r"\.")):
        build_structural_schema(model)


def test_inlined_references_keep_rules_of_field_and_type() -> None:
    class Ruled(Wire):
        """Ruled."""

        __cel__ = (Cel("self.name != 'a'", "not a", lambda self: self.name != "a"),)
        name: Short = Field(description="Name.")

    node = build_structural_schema(one_field(Annotated[Ruled, Cel("self.name != 'b'", "not b")] | None, default=None))
    assert "$defs" not in node
    child = node["properties"]["x"]
    assert child["description"] == "X."
    assert [rule["message"] for rule in child[VALIDATIONS]] == ["not a", "not b"]
    assert "default" not in child


def test_lists_say_how_they_merge() -> None:
    node = build_structural_schema(
        one_field(Annotated[tuple[Leaf, ...], Field(max_length=2), ListType("map", ("name",))])
    )
    child = node["properties"]["x"]
    assert child["x-kubernetes-list-type"] == "map"
    assert child["x-kubernetes-list-map-keys"] == ["name"]
    assert child["maxItems"] == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_node_is_complete(kind: Any) -> None:
    def walk(node: dict[str, Any], path: str) -> None:
        assert not (".status" in path and "default" in node), path
        assert {"$ref", "anyOf", "oneOf", "allOf", "title", "nullable"}.isdisjoint(node), path
        assert INT_OR_STRING in node or "type" in node, path
        assert not (node.get(PRESERVE) and "additionalProperties" in node), path
        for name, child in node.get("properties", {}).items():
            assert name[0].islower(), f"{path}.{name}"
            assert "_" not in name, f"{path}.{name}"
            walk(child, f"{path}.{name}")
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                walk(node[key], path + "[]")

    whole = build_schema(kind)
    walk(whole, kind.__name__)
    assert "default" not in str(whole["properties"].get("status", {})).replace("'default'", "default").split(
        "description"
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_definitions(kind: Any) -> None:
    made = build_crd(kind)
    spec = made["spec"]
    assert made["metadata"]["name"] == f"{spec['names']['plural']}.modelwright.dev"
    assert spec["names"]["categories"] == ["modelwright"]
    (version,) = spec["versions"]
    assert version["additionalPrinterColumns"][-1]["name"] == "Age"
    has_status = "status" in kind.model_fields
    assert ("subresources" in version) == has_status
    assert ("scale" in version.get("subresources", {})) == (kind.__name__ == "Model")
    assert spec["scope"] == ("Cluster" if kind.__name__ == "ClusterModelRuntime" else "Namespaced")


def test_the_fields_behind_scale_are_in_the_schema() -> None:
    (version,) = build_crd(Model)["spec"]["versions"]
    types = {"specReplicasPath": "integer", "statusReplicasPath": "integer", "labelSelectorPath": "string"}
    assert version["subresources"]["scale"].keys() == types.keys()
    for member, path in version["subresources"]["scale"].items():
        node = version["schema"]["openAPIV3Schema"]
        for part in path.removeprefix(".").split("."):
            node = node["properties"][part]
        assert node["type"] == types[member]


def test_generated_files_stay_small_enough_for_client_side_apply() -> None:
    for name, text in crd.render_files().items():
        if name.startswith("crds/"):
            assert len(text.encode()) < MAX_CRD_BYTES, name
            assert text.startswith('{\n "$comment": ' if name.endswith(".json") else "# "), name


def test_check_reports_drift_and_generate_removes_it(tmp_path: Any) -> None:
    (tmp_path / "operator/modelwright").mkdir(parents=True)
    assert crd.write_crds(tmp_path)
    assert crd.write_crds(tmp_path) == []
    assert crd.diff_crds(tmp_path) == ""
    (tmp_path / "crds/models.yaml").write_text("# edited\n")
    (tmp_path / "crds/stray.yaml").write_text("")
    diff = crd.diff_crds(tmp_path)
    assert "-# edited" in diff
    assert "crds/stray.yaml: nothing generates this file" in diff
    assert set(crd.write_crds(tmp_path)) == {"crds/models.yaml", "crds/stray.yaml (removed)"}
    assert crd.diff_crds(tmp_path) == ""


def test_generate_writes_nothing_outside_the_repository(tmp_path: Any) -> None:
    with pytest.raises(crd.GenerateError, match="not the root of the repository"):
        crd.write_crds(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_field_is_named_as_yaml_reads_a_boolean(kind: Any) -> None:
    # The API server's own reader takes a key `n` for false, and then refuses the field.
    booleans = {"y", "n", "yes", "no", "on", "off", "true", "false"}

    def names(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            yield from schema.get("properties") or ()
            for value in schema.values():
                yield from names(value)
        elif isinstance(schema, list):
            for value in schema:
                yield from names(value)

    assert not {name for name in names(build_crd(kind)) if name.lower() in booleans}
