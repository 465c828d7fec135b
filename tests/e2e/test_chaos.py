"""The operator is killed at random while many Models are created and changed: same end state, no child twice."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from demo import platform
from demo.kubectl import Json, KubectlError, is_ready
from tests.e2e.lib.space import CHILDREN, MODELS, ROUTES, Space, eventually

COUNT = 20
# Owned by the API server or by other controllers, or different from one Model to the next by its nature.
NOISE = {"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "clusterIP", "clusterIPs"}


class Killer:
    """Kills the operator's pod without grace, again and again, at times drawn from a printed seed."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.rng, self.kills = space, random.Random(seed), 0
        self.stopped = threading.Event()

    def loop(self) -> None:
        while not self.stopped.wait(self.rng.uniform(2, 12)):
            for pod in self.space.kubectl.list("pods", platform.SYSTEM, "app.kubernetes.io/name=modelwright"):
                try:
                    name = pod["metadata"]["name"]
                    self.space.kubectl.run("delete", "pod", name, "-n", platform.SYSTEM, "--grace-period=0", "--force")
                    self.kills += 1
                except KubectlError:
                    continue  # it went by itself meanwhile

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self.loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()
            self.space.kubectl.run(
                "rollout", "status", "deployment/modelwright", "-n", platform.SYSTEM, "--timeout=120s", timeout=130
            )


def shape(obj: Any, names: dict[str, str]) -> Any:
    """An object without noise, and with this Model's names replaced, so that two Models' children can be compared."""
    if isinstance(obj, dict):
        return {
            shape(key, names): shape(value, names)
            for key, value in sorted(obj.items())
            if key not in NOISE | {"status"}
        }
    if isinstance(obj, list):
        return [shape(value, names) for value in obj]
    if isinstance(obj, str):
        for name, stands_for in names.items():
            obj = obj.replace(name, stands_for)
    return obj


def end_state(space: Space, model: str) -> Json:
    """All children of a Model, comparable with those of another one."""
    obj = space.get(MODELS, model)
    revision = obj["status"]["serving"]["revision"]
    version = obj["status"]["serving"]["version"]
    digest = space.get("modelversions.modelwright.dev", version)["status"]["artifact"]["digest"]
    names = {
        digest: "DIGEST",
        digest.replace(":", "-"): "DIGEST",
        revision: "REVISION",
        version: "VERSION",
        model: "MODEL",
        obj["metadata"]["uid"]: "UID",
    }
    state: Json = {}
    for kind in (*CHILDREN, ROUTES):
        for child in space.list(kind, f"modelwright.dev/model={model}"):
            annotations = child["metadata"].get("annotations", {})
            annotations.pop("deployment.kubernetes.io/revision", None)
            state[f"{kind}/{shape(child['metadata']['name'], names)}"] = shape(child, names)
    return state


@pytest.mark.timeout(900)
def test_killed_at_random_it_ends_as_if_it_had_not_been(space: Space):
    seed = int(os.environ.get("MODELWRIGHT_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"MODELWRIGHT_TEST_SEED={seed}")
    # The one that nobody disturbs says what the end state is.
    space.apply(space.version("calm-a", "calm"), space.version("calm-b", "calm"), space.model("calm-a", "calm"))
    space.wait_ready("calm-a", "calm")
    space.set_version("calm-b", "calm")
    space.wait_ready("calm-b", "calm")

    models = [f"storm{number:02d}" for number in range(COUNT)]
    for model in models:
        for letter in "ab":
            space.artifact(f"{model}-{letter}")
    killer = Killer(space, seed)
    with killer.at_work():
        for model in models:
            space.apply(space.version(f"{model}-a", model), space.model(f"{model}-a", model))
        time.sleep(10)
        for model in killer.rng.sample(models, COUNT):
            space.apply(space.version(f"{model}-b", model))
            space.set_version(f"{model}-b", model)
            time.sleep(killer.rng.uniform(0, 1.5))
        eventually(lambda: killer.kills >= 5, "the operator has been killed five times", timeout=120)
    print(f"operator killed {killer.kills} times")

    def unready() -> list[str]:
        return [
            obj["metadata"]["name"]
            for obj in space.list(MODELS)
            if not is_ready(obj) or not obj["status"]["serving"]["version"].endswith("-b")
        ]

    eventually(lambda: not unready(), "every Model is Ready with its second version", timeout=300)
    wanted = end_state(space, "calm")
    for model in models:
        found = end_state(space, model)
        assert sorted(found) == sorted(wanted), f"{model} has other children than an undisturbed Model"
        for child in wanted:
            assert found[child] == wanted[child], f"{model}: {child}\n{json.dumps(found[child], indent=1)[:3000]}"
        assert space.ask(model) == (f"{model}-b", [10.0])
    resolving: dict[str, int] = {}
    for pod in space.list("pods", "modelwright.dev/role=resolve"):
        version = pod["metadata"]["labels"]["modelwright.dev/version"]
        resolving[version] = resolving.get(version, 0) + 1
    assert all(count == 1 for count in resolving.values()), f"resolved twice: {resolving}"
