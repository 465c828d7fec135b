"""Retraining on simulated nodes: pods that nobody starts, and which the test lets end with what they are to say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.scenarios import Object, Space, scenario
from tests.lib import objects
from tests.lib.api import eventually

DATA = "sha256:" + "d" * 64
TRAINED = "sha256:" + "e" * 64
NOWHERE = {"nodeSelector": {"modelwright.test/nowhere": "true"}}
TEMPLATE = {"template": {"spec": {**NOWHERE, "containers": [{"name": "work", "image": "example.com/trainer:1"}]}}}
CHECKED: Object = {"checks": [{"name": "rows", "outcome": "Pass"}]}
SCORED: Object = {
    "metrics": [{"name": "accuracy", "candidate": 0.97, "serving": 0.95, "n": 500, "better": 15, "worse": 5}]
}
ENDED = ("Succeeded", "Skipped", "Failed", "Cancelled")


def retraining(space: Space, **spec: Any) -> Object:
    """A policy without triggers, whose runs check, train and evaluate."""
    run = {
        "dataset": {"uri": "s3://data/digits", "digest": DATA},
        "dataCheck": {"job": TEMPLATE},
        "train": {"job": TEMPLATE},
        "evaluate": {"job": TEMPLATE, "gates": [{"name": "accuracy", "min": "0.9", "minDelta": "-0.01"}]},
        "output": {"uri": "s3://models/digits", "format": {"name": "plain"}},
    }
    return {
        "apiVersion": objects.API_VERSION,
        "kind": "RetrainingPolicy",
        "metadata": {"name": "digits", "namespace": space.namespace},
        "spec": {"modelRef": {"name": "digits"}, "guard": {"cooldown": "0s"}, "run": run, **spec},
    }


def by_hand(space: Space, name: str = "now") -> Object:
    """A run that the administrator asks for."""
    return {
        "apiVersion": objects.API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": space.namespace},
        "spec": {"policyRef": {"name": "digits"}, "manual": {"by": "admin", "reason": "to see it"}},
    }


async def begin(space: Space, **spec: Any) -> None:
    """A Model that follows and serves v1, and the policy."""
    model = space.model(version=None)
    model["spec"]["version"] = {"follow": {}}
    await space.apply(space.version("v1"), model)
    await space.ready(version="v1")
    await space.apply(retraining(space, **spec))


async def play(space: Space, name: str = "now", **reports: Object) -> Object:
    """The run, once it has ended; its pods end meanwhile with what they are to say."""
    said = {"dataCheck": CHECKED, "evaluate": SCORED, **reports}
    while True:
        run = await space.api.get(kinds.TRAINING_RUN, space.namespace, name)
        if run is not None and run.get("status", {}).get("state") in ENDED:
            return run
        role = f"{names.LABEL_ROLE}={names.ROLE_TRAINING}"
        for pod in await space.api.list(kinds.POD, space.namespace, role):
            if pod.get("status", {}).get("phase") == "Pending":
                await _end(space, pod, said)
        await asyncio.sleep(0.2)


async def _end(space: Space, pod: Object, said: dict[str, Object]) -> None:
    container = pod["spec"]["containers"][0]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    trained = {"artifact": {"uri": env["OUTPUT_URI"], "digest": TRAINED}} if env["STAGE"] == "train" else {}
    message = json.dumps(said.get(str(env["STAGE"]), trained))
    state = {"terminated": {"exitCode": 0, "message": message, "reason": "Completed"}}
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    change = {"status": {"phase": "Succeeded", "containerStatuses": [status]}}
    await space.api.patch(kinds.POD, space.namespace, pod["metadata"]["name"], change, subresource="status")


@scenario
async def a_run_becomes_a_version_that_a_following_model_takes(space: Space) -> None:
    await begin(space)
    await space.apply(by_hand(space))
    run = await play(space)
    assert (run["status"]["state"], run["status"]["reason"]) == ("Succeeded", "VersionRegistered"), run["status"]
    await space.ready(version="now")
    await space.until(
        kinds.TRAINING_RUN, "now", lambda seen: seen["status"].get("outcome") == "Serving", "told what became of it"
    )
    version = await space.get(kinds.MODEL_VERSION, "now")
    assert version["spec"]["lineage"] == {
        "dataset": {"uri": "s3://data/digits", "digest": DATA},
        "image": "example.com/trainer:1",
        "parent": "v1",
        "trainingRun": "now",
    }


@scenario
async def data_that_fails_its_check_is_never_trained_on(space: Space) -> None:
    await begin(space)
    await space.apply(by_hand(space))
    run = await play(space, dataCheck={"checks": [{"name": "nulls", "outcome": "Fail", "message": "3 of 10"}]})
    assert (run["status"]["state"], run["status"]["reason"]) == ("Failed", "DataRejected")
    assert len(await space.api.list(kinds.JOB, space.namespace)) == 1
    await space.ready(version="v1")


@scenario
async def deleting_a_run_takes_its_job_with_it(space: Space) -> None:
    await begin(space)
    await space.apply(by_hand(space))
    role = f"{names.LABEL_ROLE}={names.ROLE_TRAINING}"

    async def jobs() -> list[Object]:
        return await space.api.list(kinds.JOB, space.namespace, role)

    await eventually(jobs, bool, "a Job")
    await space.api.delete(kinds.TRAINING_RUN, space.namespace, "now")
    await eventually(jobs, lambda seen: not seen, "no Job")
