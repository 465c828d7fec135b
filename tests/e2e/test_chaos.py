"""The operator is killed at random while many Models are created and changed: same end state, no child twice."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo import platform
from demo.kubectl import Json, is_ready
from tests.e2e.lib.space import ANSWER, CHILDREN, MODELS, ROUTES, VERSIONS, ModelwrightCluster, Space, eventually
from tests.scale.operator_process import OperatorProcess

pytestmark = pytest.mark.alone

COUNT, KILLS = 20, 8
# Each one that was killed leaves its Lease taken: the next waits until it has run out.
SHORT_TERM = {"lease_seconds": 6, "lease_renew_seconds": 4, "lease_retry_seconds": 0.5}
LEADS = "work begins"
# Owned by the API server or by other controllers, or different from one Model to the next by its nature.
NOISE = {"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "clusterIP", "clusterIPs"}


class Killer:
    """Runs the operator as a process of this host and kills it with -9, again and again, at times drawn from a seed.

    In a pod it would be told first: the kubelet ends even a pod deleted by force with SIGTERM, and the Lease is given
    back. Here the Lease stays taken, and the next one has to wait for it.
    """

    def __init__(self, space: Space, folder: Path, seed: int) -> None:
        self.rng, self.kills = random.Random(seed), 0
        self.log = folder / "operator.log"
        self.operator = OperatorProcess(
            space.world.cluster.kubeconfig,
            self.log,
            namespace=platform.SYSTEM,
            fetch_image=space.world.images["fetch"],
            gateway_probe="Required",
            **SHORT_TERM,
        )
        self.stopped = threading.Event()

    def loop(self) -> None:
        while not self.stopped.is_set():
            terms = self.log.read_text().count(LEADS) if self.log.exists() else 0
            self.operator.start()
            while self.log.read_text().count(LEADS) == terms and not self.stopped.wait(0.2):
                pass
            # Sometimes in its very first writes, sometimes in the middle of the work.
            self.stopped.wait(self.rng.choice((0.05, 0.3, 1, 2, 4, 8)) * self.rng.uniform(0.5, 1.5))
            if not self.stopped.is_set():
                self.operator.kill()
                self.kills += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self.loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()
            self.operator.kill()


@pytest.fixture
def nobody_else(world: ModelwrightCluster) -> Iterator[None]:
    """The operator in the cluster rests, so that the one under test is the only one."""

    def scale(replicas: int) -> None:
        world.kubectl.run("scale", "deployment/modelwright", "-n", platform.SYSTEM, f"--replicas={replicas}")
        world.kubectl.run(
            "rollout", "status", "deployment/modelwright", "-n", platform.SYSTEM, "--timeout=120s", timeout=130
        )

    scale(0)
    eventually(
        lambda: not world.kubectl.items("pods", platform.SYSTEM, "app.kubernetes.io/component=operator"),
        "no operator pod",
    )
    yield
    scale(2)


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
    """What belongs to the revision that serves, and to the Model, comparable with that of another one."""
    obj = space.get(MODELS, model)
    revision = obj["status"]["serving"]["revision"]
    version = obj["status"]["serving"]["version"]
    digest = space.get(VERSIONS, version)["status"]["artifact"]["digest"]
    names = {
        digest: "DIGEST",
        digest.replace(":", "-"): "DIGEST",
        revision: "REVISION",
        version: "VERSION",
        model: "MODEL",
        obj["metadata"]["uid"]: "UID",
    }
    route = space.get(ROUTES, model)
    for rule in route["spec"]["rules"]:
        for header in rule["filters"][0]["responseHeaderModifier"]["set"]:
            # A hash of the route's content, names among it.
            names[header["value"]] = "ROUTE-HASH"
    state: Json = {}
    for kind in (*CHILDREN, ROUTES):
        for child in space.items(kind, f"modelwright.dev/model={model}"):
            labels = child["metadata"]["labels"]
            if kind == "controllerrevisions.apps":
                # Templates of earlier revisions are kept for going back; one that was passed over never had any.
                if labels["modelwright.dev/revision"] != revision:
                    assert labels["modelwright.dev/version"] == f"{model}-a"
                    continue
                del child["revision"]
            child["metadata"].get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
            state[f"{kind}/{shape(child['metadata']['name'], names)}"] = shape(child, names)
    return state


@pytest.mark.timeout(900)
def test_killed_at_random_it_ends_as_if_it_had_not_been(space: Space, nobody_else: None, tmp_path: Path):
    seed = int(os.environ.get("MODELWRIGHT_SEED", time.time_ns() % 2**32))
    print(f"MODELWRIGHT_SEED={seed}")
    killer = Killer(space, tmp_path, seed)
    # The one that nobody disturbs says what the end state is.
    space.apply(space.version("calm-a", "calm"), space.version("calm-b", "calm"), space.model("calm-a", "calm"))
    with killer.operator:
        space.wait_ready("calm-a", "calm")
        space.set_version("calm-b", "calm")
        space.wait_ready("calm-b", "calm")
        eventually(lambda: _revisions(space)["calm"] == 1, "the old revision of calm is gone")

    models = [f"storm{number:02d}" for number in range(COUNT)]
    versions = {model: [space.version(f"{model}-{letter}", model) for letter in "ab"] for model in models}
    with killer.at_work():
        for model in models:
            space.apply(versions[model][0], space.model(f"{model}-a", model))
        eventually(lambda: killer.kills >= KILLS // 2, f"killed {KILLS // 2} times while they are created", timeout=240)
        for model in random.Random(seed).sample(models, COUNT):
            space.apply(versions[model][1])
            space.set_version(f"{model}-b", model)
        eventually(lambda: killer.kills >= KILLS, f"killed {KILLS} times in all", timeout=240)
    # One more, which nobody disturbs, ends the work.
    with killer.operator:
        _compare(space, models)
    print(f"killed {killer.kills} times")


def _revisions(space: Space) -> Counter[str]:
    """How many revisions of each Model have a Deployment."""
    deployments = space.items("deployments.apps", "modelwright.dev/role=serving")
    return Counter(deployment["metadata"]["labels"]["modelwright.dev/model"] for deployment in deployments)


def _compare(space: Space, models: list[str]) -> None:
    def unsettled() -> list[str]:
        revisions = _revisions(space)
        return [
            name
            for obj in space.items(MODELS)
            if (name := obj["metadata"]["name"])
            if not is_ready(obj) or not obj["status"]["serving"]["version"].endswith("-b") or revisions[name] != 1
        ]

    deadline = time.monotonic() + 300
    while left := unsettled():
        assert time.monotonic() < deadline, f"not settled with their second version alone after 300 s: {left}"
        time.sleep(2)
    wanted = end_state(space, "calm")
    for model in models:
        found = end_state(space, model)
        assert sorted(found) == sorted(wanted), f"{model} has other children than an undisturbed Model"
        for child in wanted:
            assert found[child] == wanted[child], f"{model}: {child}\n{json.dumps(found[child], indent=1)[:3000]}"
        assert space.ask(model) == (f"{model}-b", [ANSWER])
    resolved = Counter(
        pod["metadata"]["labels"]["modelwright.dev/version"]
        for pod in space.items("pods", "modelwright.dev/role=resolve")
    )
    assert all(count == 1 for count in resolved.values()), f"resolved twice: {resolved}"
