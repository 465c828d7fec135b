"""Killing the operator at any of its writes, before or after it, gives the same end as not killing it.

A sample of the places runs each time, another one each time; MODELWRIGHT_FULL_MATRIX=1 runs all, MODELWRIGHT_SEED
repeats a sample.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import ControlPlane, parts
from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.scenarios import CHILDREN
from tests.lib import objects
from tests.lib.api import REPLICA_SET, Api, Refused, eventually, install
from tests.lib.dying_operator import DIED
from tests.lib.gateway import Player
from tests.lib.kstatus import is_ready
from tests.scale.operator_process import OperatorProcess

pytestmark = [pytest.mark.kwok, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
SAMPLE = 10
AT_ONCE = 3
SETTINGS = {"settle_seconds": 1}
NO_IDENTITY = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink")
NO_TIME = ("since", "lastTransitionTime", "lastUpdateTime", "clusterIP", "clusterIPs")
REFERENCE = "reference"


@dataclass(frozen=True)
class Place:
    """Where the operator dies: at which write of which story."""

    story: str
    write: int
    when: str

    @property
    def namespace(self) -> str:
        return f"{self.story}-{self.write}-{self.when}"


@dataclass
class Stage:
    """The control plane and what is known of the undisturbed stories."""

    api: Api
    plane: ControlPlane
    folder: Path
    expected: dict[str, str] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)

    def operator(self, namespace: str, write: int | None = None, when: str = "before") -> OperatorProcess:
        """One that looks at this namespace only; with `write`, one that dies there (0: only counts)."""
        dying = () if write is None else ("-m", "tests.lib.dying_operator", str(write), when)
        return OperatorProcess(
            self.plane.kubeconfig,
            self.folder / f"{namespace}.log",
            program=dying or ("-m", "modelwright", "run"),
            environment={"DYING_OPERATOR_COUNT": str(self.count_file(namespace))},
            **{**SETTINGS, "namespace": namespace, "watch_namespaces": namespace},
        )

    def count_file(self, namespace: str) -> Path:
        return self.folder / f"{namespace}.count"


def _model(namespace: str, number: int) -> dict[str, Any]:
    content = {"artifact": {"uri": f"s3://models/{number}", "format": {"name": "plain"}}}
    spec = {
        "version": {"template": content},
        "serving": {"replicas": 2},
        "endpoint": objects.endpoint(namespace, hostnames=[f"{namespace}.example.com"]),
    }
    return objects.model(namespace, version=None) | {"spec": spec}


async def _begin(stage: Stage, story: str, namespace: str) -> None:
    """What the user does."""
    if story == "delete":
        await stage.api.delete(kinds.MODEL, namespace, "digits")
    else:
        await stage.api.apply(_model(namespace, 1 if story == "create" else 2))


async def _ended(stage: Stage, story: str, namespace: str) -> bool:
    """Whether the story is over, and all children with it."""
    model = await stage.api.get(kinds.MODEL, namespace, "digits")
    versions = await stage.api.list(kinds.MODEL_VERSION, namespace)
    stages = sorted(v.get("status", {}).get("stage", "") for v in versions)
    deployments = await stage.api.list(kinds.DEPLOYMENT, namespace)
    if story == "delete":
        return model is None and not versions and not deployments
    expected = ["Serving"] if story == "create" else ["Previous", "Serving"]
    return model is not None and is_ready(model) and stages == expected and len(deployments) == 1


async def _picture(stage: Stage, namespace: str) -> str:
    """All objects of the namespace that are ours, without what differs between any two runs."""
    found = []
    for kind in (kinds.MODEL, kinds.MODEL_VERSION, *CHILDREN, kinds.POD, REPLICA_SET):
        labels = "" if kind in kinds.OWN_KINDS else names.LABEL_MODEL
        for obj in await stage.api.list(kind, namespace, labels):
            if kind not in kinds.OWN_KINDS:
                # Other controllers' words, full of names that are random.
                obj.pop("status", None)
            if kind in (kinds.POD, REPLICA_SET):
                # Their names are random; how many there are of which revision is what counts.
                obj = {"kind": kind.kind, "revision": obj["metadata"]["labels"].get(names.LABEL_REVISION, "resolve")}
            found.append(json.dumps(_plain(obj), sort_keys=True).replace(namespace, "NAMESPACE"))
    return yaml.safe_dump_all([json.loads(text) for text in sorted(found)])


async def _difference(stage: Stage, story: str, namespace: str) -> str:
    """How the namespace differs from the end of the undisturbed story; empty when it doesn't."""
    expected, seen = stage.expected[story].splitlines(), (await _picture(stage, namespace)).splitlines()
    return "\n".join(difflib.unified_diff(expected, seen, "undisturbed", namespace, lineterm="", n=6))


def _is_none(difference: str) -> bool:
    return not difference


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in NO_IDENTITY and k not in NO_TIME}
    return [_plain(v) for v in value] if isinstance(value, list) else value


async def _play_kubelet(stage: Stage) -> None:
    """Resolve pods end as if the artifact had been hashed; the digest follows from the arguments."""
    while True:
        for pod in await stage.api.list(kinds.POD, None, f"{names.LABEL_ROLE}={names.ROLE_RESOLVE}"):
            status, metadata = pod.get("status", {}), pod["metadata"]
            done = status.get("containerStatuses", [{}])[0].get("state", {}).get("terminated")
            if status.get("phase") != "Running" or done or metadata.get("deletionTimestamp"):
                continue
            digest = "sha256:" + pod["spec"]["containers"][0]["args"][-1][-1] * 64
            state = {"terminated": {"exitCode": 0, "message": json.dumps({"digest": digest, "sizeBytes": 1})}}
            told = {"name": "fetch", "image": "x", "imageID": "x", "ready": False, "restartCount": 0, "state": state}
            with contextlib.suppress(Refused):
                await stage.api.patch(
                    kinds.POD,
                    metadata["namespace"],
                    metadata["name"],
                    {"status": {"containerStatuses": [told]}},
                    "status",
                )
        await asyncio.sleep(0.2)


async def _space(stage: Stage, namespace: str) -> None:
    await stage.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await Player(stage.api).set_up(namespace)


async def _undisturbed(stage: Stage) -> None:
    """Each story once without a death: how it ends, and how many writes it takes."""
    await _space(stage, REFERENCE)
    for story in ("create", "change", "delete"):
        operator = stage.operator(REFERENCE, 0)
        with operator:
            await asyncio.to_thread(operator.wait_ready)
            await _begin(stage, story, REFERENCE)
            await eventually(lambda story=story: _ended(stage, story, REFERENCE), bool, f"{story} ends")
            seen = await _at_rest(stage)
            await asyncio.to_thread(operator.stop)
        stage.expected[story] = seen
        counted = stage.count_file(REFERENCE)
        stage.writes[story] = int(counted.read_text()) if counted.exists() else 0
        counted.unlink(missing_ok=True)


async def _at_rest(stage: Stage) -> str:
    """The picture of the reference, once it has not changed for two seconds."""
    seen = await _picture(stage, REFERENCE)
    while True:
        await asyncio.sleep(2)
        before, seen = seen, await _picture(stage, REFERENCE)
        if seen == before:
            return seen


async def _prepare(stage: Stage, places: list[Place]) -> None:
    """Namespaces; those of a change or a deletion with a Model that serves."""
    for place in places:
        await _space(stage, place.namespace)
    serving = [place for place in places if place.story != "create"]
    operator = OperatorProcess(stage.plane.kubeconfig, stage.folder / "prepare.log", **SETTINGS)
    with operator:
        await asyncio.to_thread(operator.wait_ready)
        for place in serving:
            await stage.api.apply(_model(place.namespace, 1))
        for place in serving:
            await eventually(
                lambda place=place: _ended(stage, "create", place.namespace), bool, f"{place.namespace} serves"
            )
            await eventually(lambda place=place: _difference(stage, "create", place.namespace), _is_none, "as at first")
        await asyncio.to_thread(operator.stop)


async def _one(stage: Stage, place: Place) -> str:
    """Die there, start again, compare; what is wrong, or nothing."""
    begin = time.monotonic()
    dying = stage.operator(place.namespace, place.write, place.when)
    with dying:
        await asyncio.to_thread(dying.wait_ready)
        await _begin(stage, place.story, place.namespace)
        assert dying.process is not None
        while dying.process.poll() is None and not await _ended(stage, place.story, place.namespace):
            await asyncio.sleep(0.1)
            assert time.monotonic() - begin < 120, f"{place}: neither dead nor at the end"
        died = dying.process.poll() == DIED
        if not died and dying.process.poll() is None:
            await asyncio.to_thread(dying.stop)
    # The dead one's Lease would only run out after its time.
    await stage.api.delete(kinds.LEASE, place.namespace, names.OPERATOR_LEASE)
    again = stage.operator(place.namespace)
    with again:
        await asyncio.to_thread(again.wait_ready)
        await eventually(lambda: _ended(stage, place.story, place.namespace), bool, f"{place} ends")
        await eventually(
            lambda: _difference(stage, place.story, place.namespace),
            _is_none,
            f"{place} (died: {died}): the same end",
            40,
        )
        await asyncio.to_thread(again.stop)
    return "" if died else f"{place}: the operator did not get that far"


async def _run(plane: ControlPlane, folder: Path) -> tuple[list[Place], list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(plane.kubeconfig))
        await install(api, ROOT / "crds")
        await install(api, parts.gateway_api_crds())
        await api.apply(objects.runtime())
        stage = Stage(api, plane, folder)
        player = Player(api)
        playing = [asyncio.create_task(player.run()), asyncio.create_task(_play_kubelet(stage))]
        await _undisturbed(stage)
        places = _chosen(stage.writes)
        await _prepare(stage, places)
        gate = asyncio.Semaphore(AT_ONCE)

        async def gated(place: Place) -> str:
            async with gate:
                try:
                    return await _one(stage, place)
                except Exception as error:
                    return f"{place}: {type(error).__name__}: {error}"

        wrong = await asyncio.gather(*(gated(place) for place in places))
        for task in playing:
            assert not task.done(), task.exception()
            task.cancel()
        return places, [text for text in wrong if text]


def _chosen(writes: dict[str, int]) -> list[Place]:
    everywhere = [
        Place(story, write, when)
        for story, count in writes.items()
        for write in range(1, count + 1)
        for when in ("before", "after")
    ]
    seed = int(os.environ.get("MODELWRIGHT_SEED", time.time_ns() % 2**32))
    print(f"writes: {writes}; {len(everywhere)} places to die; MODELWRIGHT_SEED={seed}")
    if os.environ.get("MODELWRIGHT_FULL_MATRIX") == "1":
        return everywhere
    return random.Random(seed).sample(everywhere, SAMPLE)


def test_wherever_the_operator_dies_the_end_is_the_same(tmp_path: Path) -> None:
    with ControlPlane(kwok_nodes=2) as plane:
        places, wrong = asyncio.run(_run(plane, tmp_path))
    missed = [text for text in wrong if text.endswith("did not get that far")]
    worse = [text for text in wrong if text not in missed]
    assert not worse, "\n\n".join(worse)
    # How many status writes there are depends on timing a little.
    assert len(missed) <= len(places) // 4, missed
