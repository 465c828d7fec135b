"""The example repository as Argo CD and Flux apply it: again and again, in every way, while a rollout goes on."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from modelwright.kube import kinds
from tests.controlplane.scenarios import Object, Space, scenario
from tests.controlplane.scenarios.rollouts import approval, record, tell
from tests.lib import objects
from tests.lib.api import eventually, kind_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "gitops"
WAYS: dict[str, tuple[str, ...]] = {
    "Argo CD": ("--server-side", "--field-manager=argocd-controller", "--force-conflicts"),
    "Flux, which would see a conflict": ("--server-side", "--field-manager=kustomize-controller"),
    "kubectl apply": (),
}
QUIET_ROUNDS = 3


class Repository:
    """A copy of the example's production environment: quick, and for what a namespace of the test has."""

    def __init__(self, space: Space, root: Path) -> None:
        self._space = space
        self._folder = shutil.copytree(EXAMPLE, root / "gitops") / "environments" / "production"

    async def commit(self, version: str) -> None:
        """The change that promotes a version."""
        path = self._folder / "model.yaml"
        text = path.read_text()
        (wanted,) = [line for line in text.splitlines() if line.strip().startswith("name: digits-v")]
        path.write_text(text.replace(wanted, f"    name: {version}"))

    async def rendered(self) -> list[Object]:
        """Its objects, as kustomize makes them."""
        status, said = await _kubectl(self._space, "kustomize", str(self._folder))
        assert status == 0, said
        found = [obj for obj in yaml.safe_load_all(said) if obj["kind"] != "Namespace"]
        for obj in found:
            obj["metadata"]["namespace"] = self._space.namespace
            if obj["kind"] == "Model":
                host = f"{self._space.namespace}.example.com"
                obj["spec"]["endpoint"] = objects.endpoint(self._space.namespace, hostnames=[host])
            elif obj["kind"] == "ModelVersion":
                obj["spec"]["artifact"] |= {"format": {"name": "plain"}, "digest": objects.DIGEST}
            elif obj["kind"] == "RolloutPolicy":
                del obj["spec"]["analysis"]
                for step in obj["spec"]["strategy"]["steps"][:-1]:
                    step["hold"] = "3s"
        return found


async def _kubectl(space: Space, *arguments: str, manifests: list[Object] | None = None) -> tuple[int, str]:
    program, config = space.kubectl
    process = await asyncio.create_subprocess_exec(
        program,
        "--kubeconfig",
        config,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(yaml.safe_dump_all(manifests or []).encode())
    assert process.returncode is not None
    return process.returncode, said.decode()


async def _generations(space: Space, manifests: list[Object]) -> dict[str, int]:
    found = [await space.get(kind_of(obj), obj["metadata"]["name"]) for obj in manifests]
    return {f"{obj['kind']} {obj['metadata']['name']}": obj["metadata"]["generation"] for obj in found}


async def _sees_no_difference(space: Space, who: str, how: tuple[str, ...], manifests: list[Object]) -> None:
    """kubectl reads twice: a status that the operator writes in between is no difference, and is asked for again."""
    for _ in range(30):
        before = await _versions(space, manifests)
        status, said = await _kubectl(space, "diff", *how, "-f", "-", manifests=manifests)
        if status == 0:
            return
        assert await _versions(space, manifests) != before, f"{who} sees a difference: {said}"
    raise AssertionError(f"{who} sees a difference each time: {said}")


async def _versions(space: Space, manifests: list[Object]) -> list[str]:
    found = [await space.get(kind_of(obj), obj["metadata"]["name"]) for obj in manifests]
    return [obj["metadata"]["resourceVersion"] for obj in found]


async def _applied(space: Space, manifests: list[Object]) -> None:
    """One round of each way: no conflict, nothing to change before and after, no new generation."""
    before = await _generations(space, manifests)
    for who, how in WAYS.items():
        status, said = await _kubectl(space, "apply", *how, "-f", "-", manifests=manifests)
        assert status == 0, f"{who}: {said}"
        await _sees_no_difference(space, who, how, manifests)
    assert await _generations(space, manifests) == before


async def _causes_no_write(space: Space, manifests: list[Object]) -> None:
    """In a world that doesn't move the operator writes nothing, however often all is applied. What it was about to
    write at the beginning may take some rounds."""
    quiet = 0
    seen: list[Any] = []
    for _ in range(30):
        mark = space.audit.mark()
        await _applied(space, manifests)
        writes = space.audit.writes(mark, space.namespace)
        seen.append(dict(writes))
        quiet = 0 if writes else quiet + 1
        if quiet == QUIET_ROUNDS:
            return
    raise AssertionError(f"each round makes the operator write: {seen[-QUIET_ROUNDS:]}")


@scenario
async def an_example_repository_applied_again_and_again_in_a_rollout_changes_nothing(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(space, Path(folder))
        first = await repository.rendered()
        await _applied_first(space, first)
        # Nothing serves yet: a person is asked before the first version too.
        await space.apply(approval(space, await record(space, "digits-v1", "AwaitingApproval")))
        await space.ready(version="digits-v1")
        await _causes_no_write(space, first)

        await repository.commit("digits-v2")
        second = await repository.rendered()
        assert first != second
        await _applied_first(space, second)
        waiting = await record(space, "digits-v2", "AwaitingApproval")
        await _causes_no_write(space, second)
        await space.apply(approval(space, waiting))
        rollout = await record(space, "digits-v2", "Progressing", step=0)
        await tell(space, rollout, "pause")
        await record(space, "digits-v2", "Holding", reason="Paused")
        await _causes_no_write(space, second)
        await tell(space, rollout, "resume")

        async def applied() -> Object:
            await _applied(space, second)
            return await record(space, "digits-v2", "Progressing", "Holding", "Promoting", "Succeeded")

        await eventually(applied, lambda seen: seen["status"]["state"] == "Succeeded", "promoted while applied")
        assert (await record(space, "digits-v2", "Succeeded"))["status"]["reason"] == "Promoted"
        await space.ready(version="digits-v2", replicas=3)
        await space.only(kinds.DEPLOYMENT, 2)
        await _causes_no_write(space, second)
    managers = {
        (entry["manager"], entry.get("subresource"))
        for entry in (await space.get(kinds.MODEL, "digits"))["metadata"]["managedFields"]
    }
    assert not [m for m in managers if m[0].startswith("modelwright") and m[1] != "status"]


async def _applied_first(space: Space, manifests: list[Object]) -> None:
    """A commit comes in by Argo CD."""
    status, said = await _kubectl(space, "apply", *WAYS["Argo CD"], "-f", "-", manifests=manifests)
    assert status == 0, said
