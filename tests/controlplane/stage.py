"""Where stories are played whatever dies or fails: a control plane, and what a namespace looks like at rest."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from devcluster import ControlPlane, parts
from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.scenarios import CHILDREN, Space
from tests.controlplane.stories import STORIES, Story
from tests.lib import objects
from tests.lib.api import PATIENCE, REPLICA_SET, Api, Refused, eventually, install, install_policies
from tests.lib.audit import Audit
from tests.lib.gateway import Player
from tests.scale.operator_process import OperatorProcess
from tests.servers.prometheus_fake import FakePrometheus

ROOT = Path(__file__).parents[2]
# A busy host must leave an operator that nobody starts again time to renew its Lease.
SETTINGS = {"settle_seconds": 1, "lease_seconds": 90, "lease_renew_seconds": 60}
NO_IDENTITY = ("uid", "child", "modelUid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink")
NO_TIME = (
    "since",
    "at",
    "until",
    "blocks",
    "lastTransitionTime",
    "lastUpdateTime",
    "elapsedSeconds",
    "clusterIP",
    "clusterIPs",
)
NO_NUMBERS = ("message", "candidate", "serving", "low", "high", "samples", "servingSamples", "observedWeight")
NOT_YET = (429, 500, 503, 504)
"""What an API server answers to some requests when it, or etcd, has just started."""
ROLLOUT_KINDS = (
    kinds.MODEL,
    kinds.MODEL_VERSION,
    kinds.MODEL_ROLLOUT,
    kinds.RETRAINING_POLICY,
    kinds.TRAINING_RUN,
)


@dataclass
class Stage:
    """The control plane and what is known of the undisturbed stories."""

    api: Api
    plane: ControlPlane
    folder: Path
    player: Player
    metrics: FakePrometheus
    connections: Path
    stories: Mapping[str, Story]
    prepared: dict[str, str] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)

    def operator(self, namespace: str, *, kubeconfig: Path | None = None, **more: Any) -> OperatorProcess:
        """One that looks at this namespace only; `more` is for OperatorProcess."""
        fixed = {**SETTINGS, "namespace": namespace, "watch_namespaces": namespace}
        settings = {**fixed, "connections_file": self.connections, **more}
        return OperatorProcess(kubeconfig or self.plane.kubeconfig, self.log(namespace), **settings)

    def log(self, namespace: str) -> Path:
        """Where the operators of a namespace log."""
        return self.folder / f"{namespace}.log"

    def space(self, namespace: str) -> Space:
        """A namespace as the stories see it."""
        audit = Audit(self.plane.audit_log or self.folder / "no-audit")
        tools = (self.plane.kubectl, self.plane.kubeconfig)
        return Space(self.api, namespace, audit, self.player, self.metrics, tools)

    async def undisturbed(self, name: str, operator: OperatorProcess) -> None:
        """A story without anything that dies or fails, by this operator: how it begins and ends."""
        story, namespace = self.stories[name], f"reference-{name}"
        space = self.space(namespace)
        await self.new_space(namespace)
        preparing = self.operator(namespace)
        with preparing:
            await asyncio.to_thread(preparing.wait_ready)
            await story.prepare(space)
            self.prepared[name] = await self.at_rest(story, namespace)
            await asyncio.to_thread(preparing.stop)
        with operator:
            await asyncio.to_thread(operator.wait_ready)
            await story.people(space)
            await eventually(lambda: story.ended(space), bool, f"{name} ends")
            self.expected[name] = await self.at_rest(story, namespace)
            await asyncio.to_thread(operator.stop)

    async def prepare(self, places: dict[str, str], at_once: int) -> None:
        """Namespaces (namespace -> story) in which each story may begin."""
        operator = OperatorProcess(
            self.plane.kubeconfig, self.folder / "prepare.log", **SETTINGS, connections_file=self.connections
        )
        gate = asyncio.Semaphore(at_once)

        async def one(namespace: str, name: str) -> None:
            async with gate:
                await self.new_space(namespace)
                await self.stories[name].prepare(self.space(namespace))
                await self.looks(namespace, name, self.prepared[name], f"{namespace}: as at first")

        with operator:
            await asyncio.to_thread(operator.wait_ready)
            await asyncio.gather(*(one(namespace, name) for namespace, name in places.items()))
            await asyncio.to_thread(operator.stop)
        for namespace in places:
            await self._hand_over(namespace)

    async def _hand_over(self, namespace: str) -> None:
        """Let the install of this namespace's operators have it at once: the one that prepared it is gone for good."""
        install = {names.ANNOTATION_INSTALL: f"{namespace}/{names.OPERATOR_LEASE}"}
        patch = {"metadata": {"annotations": install}}
        if await self.api.get(kinds.CONTROLLER_REVISION, namespace, names.CLAIM_NAME) is not None:
            await self.api.patch(kinds.CONTROLLER_REVISION, namespace, names.CLAIM_NAME, patch)

    async def new_space(self, namespace: str) -> None:
        """An empty namespace with a Gateway."""
        await self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        await Player(self.api).set_up(namespace)

    async def looks(
        self,
        namespace: str,
        name: str,
        expected: str,
        what: str,
        patience: float = PATIENCE,
        sees: Callable[[str], str] = str,
    ) -> None:
        """Come back once the namespace looks like this picture of the story, as far as `sees` shows it; fails with the
        difference."""

        async def difference() -> str:
            seen = await self.picture(self.stories[name], namespace)
            return _difference(sees(expected), sees(seen), namespace)

        await eventually(difference, lambda seen: not seen, what, patience)

    async def at_rest(self, story: Story, namespace: str) -> str:
        """The picture, once it has not changed for two seconds."""
        seen = await self.picture(story, namespace)
        while True:
            await asyncio.sleep(2)
            before, seen = seen, await self.picture(story, namespace)
            if seen == before:
                return seen

    async def picture(self, story: Story, namespace: str) -> str:
        """All objects of the namespace that are ours, without what differs between any two runs."""
        found = []
        for kind in (*ROLLOUT_KINDS, *CHILDREN, kinds.POD, REPLICA_SET):
            labels = "" if kind in kinds.OWN_KINDS else names.LABEL_MODEL
            for obj in await self.api.list(kind, namespace, labels):
                if kind not in kinds.OWN_KINDS:
                    # Other controllers' words, full of names that are random.
                    obj.pop("status", None)
                if kind in (kinds.POD, REPLICA_SET):
                    # Their names are random; how many there are of which revision is what counts.
                    obj = {
                        "kind": kind.kind,
                        "revision": obj["metadata"]["labels"].get(names.LABEL_REVISION, "resolve"),
                    }
                if kind == kinds.HTTP_ROUTE and not story.says:
                    # How often weights were set depends on where people met the rollout.
                    obj["metadata"].pop("generation")
                left_out = () if story.says or kind not in ROLLOUT_KINDS else NO_NUMBERS
                found.append(json.dumps(_plain(obj, left_out), sort_keys=True).replace(namespace, "NAMESPACE"))
        return yaml.safe_dump_all([json.loads(text) for text in sorted(found)])

    async def play_kubelet(self) -> None:
        """Resolve pods end as if the artifact had been hashed; the digest follows from the arguments."""
        while True:
            for pod in await self.api.list(kinds.POD, None, f"{names.LABEL_ROLE}={names.ROLE_RESOLVE}"):
                status, metadata = pod.get("status", {}), pod["metadata"]
                done = status.get("containerStatuses", [{}])[0].get("state", {}).get("terminated")
                if status.get("phase") != "Running" or done or metadata.get("deletionTimestamp"):
                    continue
                digest = "sha256:" + pod["spec"]["containers"][0]["args"][-1][-1] * 64
                state = {"terminated": {"exitCode": 0, "message": json.dumps({"digest": digest, "sizeBytes": 1})}}
                told = {"name": "fetch", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
                with contextlib.suppress(Refused):
                    await self.api.patch(
                        kinds.POD,
                        metadata["namespace"],
                        metadata["name"],
                        {"status": {"containerStatuses": [{**told, "state": state}]}},
                        "status",
                    )
            await asyncio.sleep(0.2)

    async def play(self) -> None:
        """The gateway's and the kubelet's part until cancelled, through the times when the API server is away."""

        async def kept(part: Any) -> None:
            while True:
                try:
                    await part()
                except (aiohttp.ClientError, OSError):
                    pass
                except Refused as refused:
                    if refused.status not in NOT_YET:
                        raise
                await asyncio.sleep(0.5)

        await asyncio.gather(kept(self.player.run), kept(self.play_kubelet))


@contextlib.asynccontextmanager
async def opened(plane: ControlPlane, folder: Path, stories: Mapping[str, Story] = STORIES) -> AsyncIterator[Stage]:
    """A stage on a control plane with simulated nodes, with everybody but the operator at work."""
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(plane.kubeconfig))
        await install(api, ROOT / "crds")
        await install(api, parts.gateway_api_crds())
        await install_policies(api, ROOT / "manifests/policies")
        await api.apply(objects.runtime(changedBy="dora"))
        metrics = await stack.enter_async_context(FakePrometheus())
        stage = Stage(api, plane, folder, Player(api), metrics, metrics.connections(folder), stories)
        playing = asyncio.create_task(stage.play())
        yield stage
        assert not playing.done(), playing.exception()
        playing.cancel()


def _difference(expected: str, seen: str, namespace: str) -> str:
    """How the namespace differs from the undisturbed story; empty when it doesn't."""
    lines = difflib.unified_diff(expected.splitlines(), seen.splitlines(), "undisturbed", namespace, lineterm="", n=6)
    return "\n".join(lines)


def _plain(value: Any, left_out: tuple[str, ...] = ()) -> Any:
    if isinstance(value, dict):
        gone = (*NO_IDENTITY, *NO_TIME, *left_out)
        # A list whose last entry an apply has removed stays as an empty one, and means the same as none.
        return {
            k: _plain(v, left_out)
            for k, v in value.items()
            if v != [] and not (k.endswith("At") or (k in gone and (k not in left_out or not isinstance(v, dict))))
        }
    return [_plain(v, left_out) for v in value] if isinstance(value, list) else value
