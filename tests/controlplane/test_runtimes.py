"""The shipped runtimes are accepted, and pods made from them pass the `restricted` Pod Security Standard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright.api.names import ANNOTATION_VERIFIED
from modelwright.api.v1alpha1 import ClusterModelRuntime
from modelwright.api.v1alpha1.model import Serving
from modelwright.api.v1alpha1.version import VersionContent
from modelwright.core.revision import Revision
from modelwright.core.runtime_choice import RuntimeCandidate, RuntimeChoice, choose_runtime
from modelwright.render.images import Images
from modelwright.render.pod_template import pod_template
from modelwright.render.revision_input import RevisionInput
from tests.lib.control_plane import ROOT

pytestmark = pytest.mark.controlplane

FOLDER = ROOT / "manifests" / "runtimes"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
RUNTIMES = {path: ClusterModelRuntime.parse(yaml.safe_load(path.read_text())) for path in FILES}
FORMATS = [(path, entry.name) for path, runtime in RUNTIMES.items() for entry in runtime.spec.formats]
EVERY_FORMAT = pytest.mark.parametrize(("path", "name"), FORMATS, ids=[f"{path.stem}-{name}" for path, name in FORMATS])
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "restricted", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


@pytest.fixture(scope="module", autouse=True)
def restricted(crd_server: Any) -> None:
    crd_server.ok("apply", "-f", "-", objects=NAMESPACE)


def rendered(path: Path, name: str) -> dict[str, Any]:
    """A pod of a model of format `name`, as the operator makes it from the runtime in `path`."""
    runtime = RUNTIMES[path]
    entry = runtime.spec.find_format(name)
    assert entry is not None
    choice = RuntimeChoice(RuntimeCandidate("ClusterModelRuntime", runtime.name, runtime.spec), entry, "")
    content = VersionContent.model_validate({"artifact": {"uri": "s3://models/digits/1", "format": {"name": name}}})
    model = {"metadata": {"name": "digits", "namespace": "restricted"}}
    revision, digest = Revision("digits-v1", "abcdefghij"), "sha256:" + "0" * 64
    inputs = RevisionInput(revision, content, digest, choice, Serving())
    template = pod_template(model, inputs, Images("modelwright/fetch"))
    template["metadata"].update(name="digits", namespace="restricted")
    return {"apiVersion": "v1", "kind": "Pod", **template}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_runtime_is_accepted(crd_server: Any, path: Path) -> None:
    crd_server.ok("create", "--dry-run=server", "--validate=strict", "-f", str(path))
    runtime = RUNTIMES[path]
    assert runtime.name == path.stem
    tested = runtime.metadata.annotations[ANNOTATION_VERIFIED]
    assert tested in ("true", "false")
    assert ("NOT RUN by the project's tests" in path.read_text()) == (tested == "false")


def test_kustomization_has_every_runtime(crd_server: Any) -> None:
    built = list(yaml.safe_load_all(crd_server.ok("kustomize", str(FOLDER))))
    assert {obj["metadata"]["name"] for obj in built} == {path.stem for path in FILES}


@EVERY_FORMAT
def test_each_format_says_whether_it_is_code(path: Path, name: str) -> None:
    entry = RUNTIMES[path].spec.find_format(name)
    assert entry is not None
    assert entry.code is not None


@EVERY_FORMAT
def test_pods_are_accepted_in_a_restricted_namespace(crd_server: Any, path: Path, name: str) -> None:
    pod = rendered(path, name)
    # Server-side apply, as the operator writes: it also refuses lists with the same key twice.
    arguments = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    answer = crd_server.run(*arguments, objects=pod)
    assert answer.returncode == 0, answer.stderr
    assert "warning" not in answer.stderr.lower()


@EVERY_FORMAT
def test_every_reference_to_a_variable_is_to_an_earlier_one(path: Path, name: str) -> None:
    # Kubernetes leaves $(NAME) of a later or unknown variable as it stands, without a word.
    container = next(entry for entry in rendered(path, name)["spec"]["containers"] if entry["name"] == "model")
    values: dict[str, str] = {}

    def expanded(text: str) -> str:
        for key, value in values.items():
            text = text.replace(f"$({key})", value)
        assert "$(" not in text
        return text

    for entry in container["env"]:
        assert entry["name"] not in values
        values[entry["name"]] = expanded(entry.get("value", ""))
    for text in (*container.get("command", []), *container.get("args", [])):
        expanded(text)
    if path.stem == "mlserver":
        assert values["MLSERVER_MODEL_VERSION"] == "digits-v1"
        assert values["MLSERVER_MODEL_URI"] == values["MODEL_DIR"] == "/mnt/models"


def test_each_format_has_one_runtime_that_offers_itself_first() -> None:
    candidates = [RuntimeCandidate("ClusterModelRuntime", runtime.name, runtime.spec) for runtime in RUNTIMES.values()]
    chosen = {}
    for name in sorted({name for _, name in FORMATS}):
        content = VersionContent.model_validate({"artifact": {"uri": "s3://models/1", "format": {"name": name}}})
        choice = choose_runtime(content.artifact.format, None, candidates)
        assert isinstance(choice, RuntimeChoice), choice
        chosen[name] = choice.runtime.name
    assert chosen == {
        "huggingface": "huggingface",
        "lightgbm": "mlserver",
        "onnx": "triton",
        "sklearn": "mlserver",
        "tensorflow": "tensorflow-serving",
        "tensorrt": "triton",
        "torchscript": "triton",
        "triton": "triton",
        "vllm": "vllm",
        "xgboost": "mlserver",
    }
