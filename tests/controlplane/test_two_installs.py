"""Two installs and one namespace on a real API server: what a claim is there, and what is said of rights and sizes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from modelwright.api import names
from modelwright.app import install_registry
from modelwright.app.install_registry import InstallClaims
from modelwright.app.settings import Settings
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient, load_configuration
from modelwright.kube.missing_rights import MISSING, Right
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.kube.workers import ReconcileResult
from modelwright.obs.clock import SystemClock
from tests.lib.control_plane import Server

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]


class Install:
    """A leader whose watch is a poll."""

    def __init__(self, client: KubeClient, name: str, namespace: str) -> None:
        self.client, self.namespace, self.store, self.passes = client, namespace, Store(), 0
        settings = Settings(namespace=name, watch_namespaces=namespace)
        self.installs = InstallClaims(
            settings, client, self.store, self, enqueue_namespace=lambda _: None, clock=SystemClock()
        )  # type: ignore[arg-type]
        self.tasks = [asyncio.create_task(self.installs.run()), asyncio.create_task(self._watch())]

    def record(self, *_: Any) -> None:
        return

    async def _watch(self) -> None:
        while True:
            for found in await self.client.list(kinds.CONTROLLER_REVISION, self.namespace):
                self.store.apply(kinds.CONTROLLER_REVISION, None, found)
            await asyncio.sleep(0.1)

    async def works(self) -> bool:
        before = self.passes

        async def reconcile(_: Key) -> ReconcileResult:
            self.passes += 1
            return ReconcileResult()

        await self.installs.guard_reconciler(reconcile)(Key("Model", self.namespace, "digits"))
        return self.passes > before

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.1)


async def test_the_second_install_takes_over_once_the_first_is_gone(
    client: KubeClient, namespace: str, crd_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_registry, "ANSWER_TIMEOUT_SECONDS", 4.0)
    monkeypatch.setattr(install_registry, "QUESTION_INTERVAL_SECONDS", 1.0)
    monkeypatch.setattr(install_registry, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(install_registry, "RETRY_SECONDS", 0.5)

    def claim() -> dict[str, str]:
        found = crd_server.get("controllerrevision", names.CLAIM_NAME, namespace)
        annotations: dict[str, str] = found["metadata"]["annotations"]
        return annotations

    first, second = Install(client, "one", namespace), Install(client, "two", namespace)
    try:
        assert await first.works()
        assert not await second.works()
        await asyncio.sleep(8)
        assert claim()[names.ANNOTATION_INSTALL] == "one/modelwright-operator"
        assert await first.works()
        first.stop()
        await until(lambda: claim()[names.ANNOTATION_INSTALL] == "two/modelwright-operator")
        assert names.ANNOTATION_CONTENDER not in claim()
        assert await second.works()
        again = Install(client, "one", namespace)
        await until(again.installs.claims_read.is_set)
        assert not await again.works()
        again.stop()
    finally:
        first.stop()
        second.stop()


async def test_tenants_who_edit_a_namespace_may_not_write_its_claim(crd_server: Server, namespace: str) -> None:
    crd_server.ok("create", "rolebinding", "tina", "--clusterrole=edit", "--user=tina", "-n", namespace)
    for verb in ("create", "update", "patch", "delete"):
        said = crd_server.run("auth", "can-i", verb, "controllerrevisions.apps", "-n", namespace, user="tina")
        assert said.stdout.strip() == "no", verb


async def test_the_api_servers_refusal_of_a_missing_right_is_parsed(crd_server: Server, namespace: str) -> None:
    client = KubeClient(await load_configuration(str(crd_server.plane.kubeconfig)), qps=1000, burst=1000)
    client._api.default_headers["Impersonate-User"] = "nobody-at-all"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x", "namespace": namespace},
        "spec": {"ports": [{"port": 80}]},
    }
    try:
        with pytest.raises(api_errors.Denied):
            await client.create(service)
        with pytest.raises(api_errors.Denied):
            await client.list(kinds.MODEL)
        known = MISSING.list_missing()
        assert Right("create", "services", namespace) in known
        assert Right("list", "models.modelwright.dev", "") in known
        crd_server.ok(
            "create", "clusterrolebinding", f"{namespace}-all", "--clusterrole=cluster-admin", "--user=nobody-at-all"
        )
        for _ in range(50):
            try:
                await client.list(kinds.MODEL)
                await client.create(service)
                break
            except api_errors.Denied:
                await asyncio.sleep(0.2)
        assert not {Right("create", "services", namespace), Right("list", "models.modelwright.dev", "")} & set(
            MISSING.list_missing()
        )
    finally:
        crd_server.run("delete", "clusterrolebinding", f"{namespace}-all")
        await client.close()


async def test_an_object_beyond_the_limit_is_told_as_too_large(client: KubeClient, namespace: str) -> None:
    for size in (2 << 20, 4 << 20):
        big = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": "big", "namespace": namespace},
            "revision": 1,
            "data": {"x": "y" * size},
        }
        with pytest.raises(api_errors.ObjectTooLarge):
            await client.create(big)
