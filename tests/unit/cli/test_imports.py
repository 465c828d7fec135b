"""Objects of other projects become ours: everything in them is used, or named with what it takes."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright.api.v1alpha1 import Model, ModelVersion, RolloutPolicy
from modelwright.cli import manifest_lint, plugin
from modelwright.cli.imports import artifacts, importer, rollout_policies
from modelwright.cli.imports.fields import FieldPath as Place
from modelwright.cli.imports.fields import format_path
from modelwright.cli.imports.foreign_objects import ImportedObject, ImportOptions

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "import"
PROVIDERS = [
    "argo-rollouts",
    "flagger",
    "kserve",
    "seldon",
]
"""The contract: a line for each."""


def documents(name: str) -> list[Json]:
    return list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()))


def outcome(name: str, values: list[Json], **options: str) -> list[ImportedObject]:
    return importer.import_objects(importer.load_providers()[name], values, ImportOptions(**options))[0]


def test_each_provider_has_its_line() -> None:
    assert list(importer.load_providers()) == PROVIDERS


@pytest.mark.parametrize("name", PROVIDERS)
def test_examples_become_what_is_written_down(
    name: str, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    plugin.main(["import", name, str(GOLDEN / f"{name}.yaml")])
    output = capsys.readouterr().out
    file = GOLDEN / f"{name}.txt"
    if pytestconfig.getoption("--update-golden", default=False):
        file.write_text(output)
    assert output == file.read_text()


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_comes_of_them_passes_lint(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plugin.main(["import", name, str(GOLDEN / f"{name}.yaml"), "--gateway", "gateways/models", "--domain", "a.example"])
    output = capsys.readouterr().out
    assert [found for found in manifest_lint.lint_files([("imported", output)], None) if found.is_error] == []
    kinds = {"Model": Model, "ModelVersion": ModelVersion, "RolloutPolicy": RolloutPolicy}
    found = [document for document in yaml.safe_load_all(output) if document]
    assert {kinds[document["kind"]].parse(document).kind for document in found} >= {"Model"}


def test_the_documentation_shows_what_really_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "how-to" / "migrate-from-kserve.md").read_text()
    theirs, ours = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "theirs.yaml").write_text(theirs)
    options = ["--gateway", "gateways/models", "--domain", "models.example.com"]
    assert plugin.main(["import", "kserve", str(tmp_path / "theirs.yaml"), *options]) == 0
    output = capsys.readouterr().out
    assert list(yaml.safe_load_all(ours)) == [document for document in yaml.safe_load_all(output) if document]
    assert [line for line in ours.splitlines() if line.startswith("#")] == [
        line for line in output.splitlines() if line.startswith("#")
    ]


def leaves(value: Any, path: Place = ()) -> Iterator[Place]:
    members: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not members or not value:
        yield path
    for key, member in members:
        yield from leaves(member, (*path, key))


def mappings(value: Any, path: Place = ()) -> Iterator[Place]:
    if isinstance(value, dict):
        yield path
    members: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from mappings(member, (*path, key))


def at(value: Any, path: Place) -> Any:
    for key in path:
        value = value[key]
    return value


def others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2 + 7]
    return [f"{value}x"] if isinstance(value, str) else [["other"]]


MERE_NAMES = ("spec.args[].name", "spec.template.containers[].name", "spec.predictors[].graph.name")
"""By which parts of one object name each other."""


def means_nothing(path: Place, found: ImportedObject) -> bool:
    """Whether a leaf says only what an object is, or where something would be that isn't imported."""
    if path == ("metadata", "namespace"):
        return not found.objects
    return path[0] in ("apiVersion", "kind") or re.sub(r"[0-9]+", "", format_path(path)) in MERE_NAMES


def with_another(values: list[Json], index: int, path: Place, value: Any) -> list[Json]:
    changed = copy.deepcopy(values)
    at(changed[index], path[:-1])[path[-1]] = value
    return changed


def flat(values: list[Json]) -> list[Json]:
    return [each for value in values for each in (value["items"] if value["kind"] == "List" else [value])]


def is_noted(found: list[ImportedObject], index: int, path: Place) -> bool:
    if any(note.startswith("can't be read as ") for note in found[index].notes):
        return True
    places = {format_path(path[:end]) for end in range(2, len(path) + 1)} | {format_path(path[:1])}
    return any(note.partition(": ")[0] in places for note in found[index].notes)


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_leaf_is_used_or_noted(name: str) -> None:
    values = [value for value in flat(documents(name)) if importer.load_providers()[name].owns(value)]
    whole = outcome(name, values)
    dropped = []
    for index, document in enumerate(values):
        for path in leaves(document):
            if means_nothing(path, whole[index]) or is_noted(whole, index, path):
                continue
            if all(
                outcome(name, with_another(values, index, path, value)) == whole for value in others(at(document, path))
            ):
                dropped.append(f"{document['kind']} {document['metadata']['name']}: {format_path(path)}")
    assert dropped == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_field_that_nobody_knows_is_noted_wherever_it_stands(name: str) -> None:
    values = [value for value in flat(documents(name)) if importer.load_providers()[name].owns(value)]
    whole = outcome(name, values)
    dropped = []
    for index, document in enumerate(values):
        for path in mappings(document):
            if path and is_noted(whole, index, (*path, "surprise")):
                continue
            changed = copy.deepcopy(values)
            at(changed[index], path)["surprise"] = 7
            found = outcome(name, changed)
            made = json.dumps([each.objects + each.drafts for each in found])
            if "surprise" not in made and not is_noted(found, index, (*path, "surprise")):
                dropped.append(f"{document['kind']} {document['metadata']['name']}: {format_path(path)}")
    assert dropped == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_value_of_another_type_is_an_error_of_that_object_alone(name: str) -> None:
    wrong = itertools.cycle(([1], {"a": None}, -1.5, True, None, "", "{{x}}", 2**70))
    values = [value for value in flat(documents(name)) if importer.load_providers()[name].owns(value)]
    for index, document in enumerate(values):
        for path in (*leaves(document), *filter(None, mappings(document))):
            if path[0] == "kind":
                continue
            changed = with_another(values, index, path, next(wrong))
            json.dumps([[each.objects, each.notes] for each in outcome(name, changed)])


@pytest.mark.parametrize("name", PROVIDERS)
def test_files_folders_and_lists_give_the_same(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = flat(documents(name))
    forms = {
        "one.yaml": yaml.safe_dump_all(values, sort_keys=False),
        "list.json": json.dumps({"kind": "List", "items": values}),
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, value in enumerate(values):
        (folder / f"{number:02}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    notes = set()
    for file, text in forms.items():
        (tmp_path / file).write_text(text)
        plugin.main(["import", name, str(tmp_path / file)])
        notes.add(capsys.readouterr().out)
    plugin.main(["import", name, str(folder)])
    notes.add(capsys.readouterr().out)
    assert notes == {(GOLDEN / f"{name}.txt").read_text()}


def test_the_shipped_runtimes_are_those_of_the_manifests() -> None:
    found = {}
    for file in sorted((ROOT / "manifests" / "runtimes").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document and document["kind"] == "ClusterModelRuntime":
                formats = document["spec"]["formats"]
                found[document["metadata"]["name"]] = {
                    each["name"]: tuple(each.get("versions", ())) for each in formats
                }
    assert found == {name: dict(formats) for name, formats in artifacts.SHIPPED_FORMATS.items()}


# --- KServe


def service(predictor: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", "namespace": "vision", "resourceVersion": "7", "uid": "u"},
        "spec": {"predictor": predictor, **spec},
    }


def sklearn(uri: str = "gs://models/iris/1", predictor: Json | None = None, **model: Any) -> Json:
    format_ = {"name": "sklearn", "version": "1"}
    model = {"modelFormat": format_, "protocolVersion": "v2", "storageUri": uri, **model}
    return service({"model": model, **(predictor or {})})


def from_kserve(value: Json, **options: str) -> ImportedObject:
    (found,) = outcome("kserve", [value], **options)
    return found


def test_the_usual_one_needs_nothing_more() -> None:
    found = from_kserve(sklearn(), gateway="gateways/models", domain="example.com")
    version, model = found.objects
    assert found.notes == ()
    assert version["metadata"] == {"name": "iris-1", "namespace": "vision"}
    assert version["spec"]["artifact"]["uri"] == "gs://models/iris/1"
    assert model["spec"]["endpoint"] == {
        "parentRefs": [{"name": "models", "namespace": "gateways"}],
        "hostnames": ["iris.example.com"],
    }


def test_of_a_modelcar_the_models_folder_is_taken() -> None:
    version, _ = from_kserve(sklearn("oci://reg.io/acme/digits:1")).objects
    assert version["spec"]["artifact"]["path"] == "models"


NOTED = [
    ("a canary", sklearn(predictor={"canaryTrafficPercent": 10}), "10 %, until somebody edits it"),
    (
        "a transformer",
        service({"model": sklearn()["spec"]["predictor"]["model"]}, transformer={"containers": []}),
        "spec.transformer: stays a service of its own",
    ),
    ("scaling to zero", sklearn(predictor={"minReplicas": 0}), "minReplicas: 0 is taken as 1"),
    ("a runtime by name", sklearn(runtime="kserve-sklearnserver"), "spec.serving.runtimeRef"),
    ("a field that nobody knows here", sklearn(predictor={"surprise": {}}), "surprise: has no place here"),
    ("an address that isn't one", sklearn("ftp://x/y"), "would be refused: spec.artifact.uri"),
    ("HDFS", sklearn("hdfs://x/y"), "HDFS is no store here"),
    ("a whole bucket", sklearn("s3://bucket"), "names a whole bucket"),
    ("an image with a model in it", sklearn("oci://registry.example.com/acme/car:1"), "a modelcar image"),
    ("a model without an organisation", sklearn("hf://gpt2"), "names no organisation"),
    (
        "several addresses",
        service(
            {"model": {"modelFormat": {"name": "onnx"}, "storageUris": [{"uri": "s3://m/1"}, {"uri": "s3://m/2"}]}}
        ),
        "storageUris[1]: a version has one artifact",
    ),
    (
        "TensorFlow's folder of a version",
        service({"tensorflow": {"storageUri": "gs://acme/models/flowers"}}),
        "add that folder to spec.artifact.uri",
    ),
    (
        "a format that no runtime serves",
        service({"mlflow": {"storageUri": "s3://m/1"}}),
        "no runtime that is shipped serves mlflow",
    ),
    (
        "a version that is finer than the runtime's",
        sklearn(modelFormat={"name": "sklearn", "version": "1.2"}),
        "1.2 is taken as 1",
    ),
    ("a version that no runtime has", sklearn(modelFormat={"name": "sklearn", "version": "0"}), "list versions 1 of"),
    ("a protocol that the runtimes here don't speak", sklearn(protocolVersion="v1"), "/v2/models/iris/infer"),
    ("KServe's default protocol", service({"xgboost": {"storageUri": "s3://m/1"}}), "/v2/models/iris/infer"),
    (
        "a storage whose bucket is in a Secret",
        service({"model": {"modelFormat": {"name": "onnx"}, "storage": {"key": "k", "path": "m/1"}}}),
        "write s3://BUCKET/m/1 into spec.artifact.uri",
    ),
    (
        "a target for the metric that is KServe's default",
        sklearn(predictor={"maxReplicas": 3, "scaleTarget": 5}),
        "scaleMetric concurrency",
    ),
    (
        "an annotation that KServe acts on",
        {**sklearn(), "metadata": {"name": "iris", "annotations": {"serving.kserve.io/stop": "true"}}},
        "spec.serving.replicas: 0",
    ),
    ("an image of its own", sklearn(image="example.com/x:1"), "for this one write a ModelRuntime"),
    ("arguments", sklearn(args=["--x"]), "would replace all arguments of the runtime"),
    ("workers", sklearn(predictor={"workerSpec": {"pipelineParallelSize": 2}}), "span several nodes"),
    ("a container of its own", service({"containers": [{"image": "example.com/mine:1"}]}), "is a ModelRuntime here"),
]


@pytest.mark.parametrize(("given", "says"), [c[1:] for c in NOTED], ids=[c[0] for c in NOTED])
def test_what_has_no_place_is_said(given: Json, says: str) -> None:
    found = from_kserve(given)
    assert any(says in note for note in found.notes), found.notes


ADDRESSES = [
    ("https://account.blob.core.windows.net/models/iris", "az://account/models/iris"),
    ("hf://acme/tiny:0123abc", "hf://acme/tiny@0123abc"),
    ("hf://acme/tiny", "hf://acme/tiny"),
    ("oci+native://registry.example.com/acme/car:1", "oci://registry.example.com/acme/car:1"),
    ("oci+fetch://registry.example.com/acme/car:1", "oci://registry.example.com/acme/car:1"),
    ("gcs://models/iris", "gs://models/iris"),
    ("pvc://models/iris", "pvc://models/iris"),
    ("pvc://models", "pvc://models"),
]


@pytest.mark.parametrize(("theirs", "ours"), ADDRESSES)
def test_addresses_are_turned_into_ours(theirs: str, ours: str) -> None:
    version, _ = from_kserve(sklearn(theirs)).objects
    assert version["spec"]["artifact"]["uri"] == ours


def test_a_storage_with_its_bucket_is_an_address() -> None:
    storage = {"path": "prices/7", "parameters": {"type": "s3", "bucket": "acme"}}
    given = service({"model": {"modelFormat": {"name": "xgboost"}, "protocolVersion": "v2", "storage": storage}})
    assert from_kserve(given).objects[0]["spec"]["artifact"]["uri"] == "s3://acme/prices/7"


def test_what_would_be_refused_is_a_comment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(yaml.safe_dump(sklearn("hdfs://x/y")))
    assert plugin.main(["import", "kserve", str(file)]) == 1
    output = capsys.readouterr()
    assert [document for document in yaml.safe_load_all(output.out) if document] == []
    assert "#     uri: hdfs://x/y" in output.out
    assert "0 of 1 objects of KServe imported" in output.err


def test_a_text_of_an_object_can_not_leave_its_comment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(yaml.safe_dump(sklearn(runtime="x\n---\nkind: Secret", protocolVersion="a\x85kind: b\u2028c")))
    plugin.main(["import", "kserve", str(file)])
    kinds = [document["kind"] for document in yaml.safe_load_all(capsys.readouterr().out) if document]
    assert kinds == ["ModelVersion", "Model"]


ODD = [
    ("an alias of itself", "odd: &a {key: *a}, env: [*a]"),
    ("a time", "odd: 2026-12-01, env: [{key: 2026-12-01T05:00:00Z}]"),
    ("a key that is a number", "odd: {1: 2}, env: [{1: 2}]"),
]


@pytest.mark.parametrize(("text"), [c[1] for c in ODD], ids=[c[0] for c in ODD])
@pytest.mark.parametrize("output", ["text", "json"])
def test_yaml_that_no_server_has_seen_is_no_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, output: str
) -> None:
    file = tmp_path / "odd.yaml"
    model = f"{{modelFormat: {{name: sklearn}}, storageUri: s3://a/b, {text}}}"
    file.write_text(
        "{apiVersion: serving.kserve.io/v1beta1, kind: InferenceService, metadata: {name: iris}, "
        f"spec: {{predictor: {{model: {model}}}}}}}"
    )
    assert plugin.main(["import", "kserve", str(file), "-o", output]) in (0, 1)
    assert "# InferenceService " in "".join(capsys.readouterr())


# --- steps and conditions


@pytest.mark.parametrize(
    ("condition", "limits"),
    [
        ("result[0] >= 0.95", {"min": "0.95"}),
        ("result < 5", {"max": "5"}),
        ("result[0] >= 0.5 && result[0] <= 1.5", {"min": "0.5", "max": "1.5"}),
        ("asFloat(result) > 1", {"min": "1"}),
        ("result == true", None),
        ("len(result) == 0 || result[0] < 1", None),
        ("result >= 1 && result >= 2", None),
        ("all(result, # > 1)", None),
    ],
)
def test_a_condition_is_limits_or_none(condition: str, limits: Json | None) -> None:
    assert rollout_policies.parse_limits(condition) == limits


def rollout(*steps: Json) -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "digits"},
        "spec": {"strategy": {"canary": {"steps": list(steps)}}},
    }


STEPS = [
    (
        "a pause belongs to the weight before it",
        [{"setWeight": 20}, {"pause": {"duration": "1h30m"}}],
        [{"weight": 20, "hold": "1h30m"}],
    ),
    (
        "a second pause is a step of its own",
        [{"setWeight": 5}, {"pause": {"duration": 60}}, {"pause": {"duration": "30s"}}],
        [{"weight": 5, "hold": "1m"}, {"hold": "30s"}],
    ),
    (
        "a pause before any weight is without callers",
        [{"pause": {"duration": "60"}}, {"setWeight": 50}],
        [{"weight": 0, "hold": "1m"}, {"weight": 50}],
    ),
    (
        "a pause without an end is an approval",
        [{"setWeight": 5}, {"pause": {}}],
        [{"weight": 5}, {"approval": {"required": 1, "timeout": "720h"}}],
    ),
    (
        "a weight that falls is left out",
        [{"setWeight": 50}, {"setWeight": 20}, {"setWeight": 80}],
        [{"weight": 50}, {"weight": 80}],
    ),
    (
        "a header's beginning is a pattern",
        [
            {"setHeaderRoute": {"name": "a", "match": [{"headerName": "X", "headerValue": {"prefix": "a.b"}}]}},
            {"setWeight": 5},
        ],
        [{"match": {"headers": [{"name": "X", "value": "a\\.b.*", "type": "RegularExpression"}]}}, {"weight": 5}],
    ),
]


@pytest.mark.parametrize(("theirs", "ours"), [c[1:] for c in STEPS], ids=[c[0] for c in STEPS])
def test_steps_of_a_rollout(theirs: list[Json], ours: list[Json]) -> None:
    (found,) = outcome("argo-rollouts", [rollout(*theirs)])
    assert found.objects[0]["spec"]["strategy"]["steps"] == ours


def test_more_steps_than_a_policy_may_have_are_fewer_and_noted() -> None:
    steps = [step for weight in range(1, 31) for step in ({"setWeight": weight}, {"pause": {"duration": "1m"}})]
    (found,) = outcome("argo-rollouts", [rollout(*steps)])
    weights = [step["weight"] for step in found.objects[0]["spec"]["strategy"]["steps"]]
    assert (len(weights), weights[0], weights[-1]) == (20, 1, 30)
    assert any("has 30 steps, and a policy has at most 20" in note for note in found.notes)


# --- a cluster


def test_a_cluster_is_listed_by_all_resources_of_a_project(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kubectl / "objects").write_text(json.dumps({"items": [sklearn()]}))
    program = kubectl / "kubectl"
    missing = '*"get llm"*) echo "error: the server doesn\'t have a resource type" >&2; exit 1 ;;\n  *"get pods"*)'
    empty = '*"get t"*|*"get inferenceg"*) echo \'{"items": []}\' ;;\n  '
    program.write_text(program.read_text().replace('*"get pods"*)', empty + missing, 1))
    assert plugin.main(["import", "kserve"]) == 0
    assert "1 of 1 objects of KServe imported" in capsys.readouterr().err


def test_a_name_brings_what_is_a_part_of_it(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [value for value in flat(documents("argo-rollouts")) if value["kind"] != "Service"]
    named = next(value for value in values if value["metadata"]["name"] == "digits")
    (kubectl / "objects").write_text(json.dumps({"items": [value for value in values if value is not named]}))
    (kubectl / "named").write_text(json.dumps(named))
    program = kubectl / "kubectl"
    one = f'*"get rollouts.argoproj.io digits"*) cat {kubectl}/named ;;\n  *"get pods"*)'
    program.write_text(program.read_text().replace('*"get pods"*)', one, 1))
    plugin.main(["import", "argo-rollouts", "digits"])
    output = capsys.readouterr().out
    assert "name: success-rate" in output
    assert "Rollout faces" not in output
