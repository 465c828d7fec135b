"""The samples and the tests' runtime are what the API accepts, and agree with the example that trains the model."""

from pathlib import Path

import pytest

from examples.digits import train
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime
from modelwright.api.v1alpha1.version import ModelVersion
from tests.lib.documents import read_all

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "manifests" / "samples"
EXAMPLE = ROOT / "examples" / "digits"
KINDS = {
    "Model": Model,
    "ModelVersion": ModelVersion,
    "ClusterModelRuntime": ClusterModelRuntime,
    "RolloutPolicy": RolloutPolicy,
}


def documents(path: Path) -> list[dict]:
    return read_all(path.read_text())


@pytest.mark.parametrize(
    "path",
    [
        *sorted(SAMPLES.glob("*.yaml")),
        *sorted(EXAMPLE.glob("*.yaml")),
        ROOT / "tests" / "servers" / "v2" / "runtime.yaml",
    ],
    ids=lambda path: path.name,
)
def test_samples_are_accepted_and_say_what_they_are_for(path: Path):
    assert path.read_text().startswith("# ")
    for document in documents(path):
        if document["kind"] in KINDS:
            KINDS[document["kind"]].model_validate(document)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_version_is_what_the_example_job_trains(number: int):
    (version,) = documents((SAMPLES if number <= 2 else EXAMPLE) / f"version-{number}.yaml")
    (job,) = documents(EXAMPLE / f"train-{number}.yaml")
    args = dict(zip(*[iter(job["spec"]["template"]["spec"]["containers"][0]["args"])] * 2, strict=True))
    assert version["spec"]["artifact"]["uri"] == args["--output"]
    parameters = {"trainSamples": args.get("--train-samples", "1257"), "model": args["--model"]}
    if args["--model"] == "committee":
        parameters["members"] = str(train.MEMBERS)
    else:
        parameters["C"] = args["--c"]
    if "--label-shift" in args:
        parameters["labelShift"] = args["--label-shift"]
    assert version["spec"]["parameters"] == parameters


def test_the_sample_model_serves_a_version_that_is_there():
    (model,) = documents(SAMPLES / "model.yaml")
    (version,) = documents(SAMPLES / "version-1.yaml")
    assert model["spec"]["version"]["name"] == version["metadata"]["name"]
    assert version["spec"]["modelRef"]["name"] == model["metadata"]["name"]
    (policy,) = documents(SAMPLES / "rollout-policy.yaml")
    assert model["spec"]["rolloutPolicyRef"]["name"] == policy["metadata"]["name"]
    assert policy["metadata"]["namespace"] == model["metadata"]["namespace"]
    resources = documents(SAMPLES / "kustomization.yaml")[0]["resources"]
    assert all((SAMPLES / resource).exists() for resource in resources)
