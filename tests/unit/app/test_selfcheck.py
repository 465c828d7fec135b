"""What `helm test` says of an install that is well, and of one that isn't."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelwright.app.health import HealthChecks, start_server
from modelwright.app.selfcheck import CheckFailed, SelfCheck
from modelwright.app.settings import Settings
from modelwright.kube import api_errors, kinds
from modelwright.kube.lease import ANNOTATION_ADDRESS
from modelwright.obs.clock import SystemClock
from tests.unit.kube.fakes import FakeClient

SETTINGS = Settings(namespace="system", lease_name="lease")


class Renewing(SystemClock):
    """A second takes no time; in each, what `renew` does happens to the Lease."""

    def __init__(self, client: FakeClient, renews: bool) -> None:
        self._client = client
        self._renews = renews
        self._seconds = 0

    async def sleep(self, seconds: float) -> None:
        self._seconds += 1
        lease = self._client.objects.get((kinds.LEASE, "system", "lease"))
        if lease and self._renews:
            lease["spec"]["renewTime"] = f"2026-11-28T18:00:{self._seconds:02}Z"


@pytest.fixture
async def client() -> AsyncIterator[FakeClient]:
    """With a Lease whose holder is ready."""
    found = FakeClient()
    health = HealthChecks()
    listener = await start_server(health, "127.0.0.1", 0)
    found.save(lease("a", f"127.0.0.1:{listener.port}"))
    yield found
    await listener.close()


def lease(holder: str, address: str = "") -> dict[str, Any]:
    return {
        "apiVersion": kinds.LEASE.api_version,
        "kind": "Lease",
        "metadata": {
            "namespace": "system",
            "name": "lease",
            "annotations": {ANNOTATION_ADDRESS: address} if address else None,
        },
        "spec": {"holderIdentity": holder, "renewTime": "2026-11-28T17:59:59Z"},
    }


def check(client: Any, *, renews: bool = True) -> SelfCheck:
    return SelfCheck(client, SETTINGS, Renewing(client, renews))


async def test_a_healthy_install_passes_each_check(client: FakeClient) -> None:
    results = {name: await run_check() for name, run_check in check(client).list_checks().items()}
    assert results.keys() == {"CRDs", "rights", "leader"}
    assert results["leader"] == "a leads and is ready"


async def test_missing_crds_are_named(client: FakeClient) -> None:
    client.served.discard(kinds.MODEL)
    with pytest.raises(CheckFailed, match=r"models\.modelwright\.dev; install the chart modelwright-crds"):
        await check(client).check_kinds()


async def test_missing_rights_are_named(client: FakeClient) -> None:
    client.failing["list"] = [api_errors.Denied(403, "Forbidden", "no binding")]
    with pytest.raises(CheckFailed, match=r"Models of the cluster can't be read: .*no binding"):
        await check(client).check_rights()


async def test_a_shard_reads_namespaces_and_leases_too(client: FakeClient) -> None:
    shard = SelfCheck(client, SETTINGS.model_copy(update={"shard": "red"}), Renewing(client, renews=True))
    assert await shard.check_rights() == "what shard red needs can be read"
    client.failing["list"] = [None, api_errors.Denied(403, "Forbidden", "no binding")]
    with pytest.raises(CheckFailed, match=r"a shard has to list namespaces, and may not: .*no binding"):
        await shard.check_rights()


async def test_a_lease_that_nobody_renews_is_not_led(client: FakeClient) -> None:
    with pytest.raises(CheckFailed, match="a holds the Lease system/lease and does not renew it"):
        await check(client, renews=False).check_leader()


async def test_a_lease_that_nobody_holds(client: FakeClient) -> None:
    client.save(lease(""))
    with pytest.raises(CheckFailed, match="no process holds the Lease"):
        await check(client).check_leader()


async def test_a_leader_that_does_not_answer(client: FakeClient) -> None:
    client.save(lease("a", "127.0.0.1:1"))
    with pytest.raises(CheckFailed, match="a leads and does not respond"):
        await check(client).check_leader()
