"""The samples and the tests' runtime are what the API accepts, and agree with the example that trains the model."""

from pathlib import Path

import pytest
import yaml

from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime
from modelwright.api.v1alpha1.version import ModelVersion

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "manifests" / "samples"
KINDS = {"Model": Model, "ModelVersion": ModelVersion, "ClusterModelRuntime": ClusterModelRuntime}


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@pytest.mark.parametrize(
    "path",
    [*sorted(SAMPLES.glob("*.yaml")), ROOT / "tests" / "servers" / "v2" / "runtime.yaml"],
    ids=lambda path: path.name,
)
def test_samples_are_accepted_and_say_what_they_are_for(path: Path):
    assert path.read_text().startswith("# ")
    for document in documents(path):
        if document["kind"] in KINDS:
            KINDS[document["kind"]].model_validate(document)


@pytest.mark.parametrize("number", [1, 2])
def test_a_sample_version_is_what_the_example_job_trains(number: int):
    (version,) = documents(SAMPLES / f"version-{number}.yaml")
    (job,) = documents(ROOT / "examples" / "digits" / f"train-{number}.yaml")
    args = dict(zip(*[iter(job["spec"]["template"]["spec"]["containers"][0]["args"])] * 2, strict=True))
    assert version["spec"]["artifact"]["uri"] == args["--output"]
    assert version["spec"]["parameters"] == {
        "model": args["--model"],
        "C": args["--c"],
        "trainSamples": args["--train-samples"],
    }


def test_the_sample_model_serves_a_version_that_is_there():
    (model,) = documents(SAMPLES / "model.yaml")
    (version,) = documents(SAMPLES / "version-1.yaml")
    assert model["spec"]["version"]["name"] == version["metadata"]["name"]
    assert version["spec"]["modelRef"]["name"] == model["metadata"]["name"]
    resources = documents(SAMPLES / "kustomization.yaml")[0]["resources"]
    assert all((SAMPLES / resource).exists() for resource in resources)
