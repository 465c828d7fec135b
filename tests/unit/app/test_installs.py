"""Two installs watch one namespace: one works there, the other says who does, and takes over when that one is gone."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelwright.api import names
from modelwright.app.install_registry import InstallClaims
from modelwright.app.settings import Settings
from modelwright.core.install_claims import ANSWER_TIMEOUT_SECONDS, QUESTION_INTERVAL_SECONDS, SETTLE_SECONDS
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.kube.workers import ReconcileResult
from modelwright.obs import metrics
from modelwright.obs.clock import FakeClock
from tests.lib.simulated import SimulatedApi

Object = dict[str, Any]
KEY = Key("Model", "vision", "digits")
TURNS = 40


class Install:
    """One leader: its store, its passes, and what it wakes."""

    def __init__(self, harness: InstallHarness, namespace: str, **settings: Any) -> None:
        self.harness = harness
        self.store = Store()
        self.told: list[str] = []
        self.woken: list[str] = []
        self.passes = 0
        self.deaf = False
        self.installs = InstallClaims(
            Settings(namespace=namespace, **settings),
            harness.api,  # type: ignore[arg-type]
            self.store,
            self,  # type: ignore[arg-type]
            enqueue_namespace=self.woken.append,
            clock=harness.clock,
        )
        harness.api.fill(self.store)
        self.task = asyncio.create_task(self.installs.run())

    def record(self, obj: Object, type_: str, reason: str, note: str) -> None:
        self.told.append(note)

    async def work(self) -> bool:
        """One pass; whether it was let through."""
        before = self.passes

        async def reconcile(_: Key) -> ReconcileResult:
            self.passes += 1
            return ReconcileResult()

        await self.installs.guard_reconciler(reconcile)(KEY)
        await self.harness.settle()
        return self.passes > before


class InstallHarness:
    def __init__(self) -> None:
        self.api, self.clock = SimulatedApi(), FakeClock()
        self.all: list[Install] = []

    async def start(self, namespace: str, **settings: Any) -> Install:
        install = Install(self, namespace, **settings)
        self.all.append(install)
        await self.settle()
        return install

    async def settle(self) -> None:
        for _ in range(TURNS):
            told, self.api.told[:] = list(self.api.told), []
            for kind, event, obj in told:
                for install in self.all:
                    if not install.deaf:
                        install.store.apply(kind, event, copy.deepcopy(obj))
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float, step: float = 5.0) -> None:
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            await self.settle()

    def uninstall(self, install: Install) -> None:
        install.task.cancel()
        self.all.remove(install)

    def claim(self) -> Object:
        return self.api.objects[kinds.CONTROLLER_REVISION, "vision", names.CLAIM_NAME]

    @property
    def holder(self) -> str:
        return str(self.claim()["metadata"]["annotations"][names.ANNOTATION_INSTALL])

    def writes(self) -> int:
        return len(self.api.writes)


@pytest.fixture
async def harness() -> AsyncIterator[InstallHarness]:
    harness = InstallHarness()
    yield harness
    for install in harness.all:
        assert not install.task.done(), install.task.exception()
        install.task.cancel()


def held() -> dict[str, float]:
    return {s.labels["install"]: s.value for family in metrics.HELD_ELSEWHERE.collect() for s in family.samples}


async def test_a_single_install_writes_one_claim_a_namespace_only(harness: InstallHarness) -> None:
    install = await harness.start("one")
    assert harness.writes() == 0, "where there is nothing to do there is no claim"
    assert await install.work()
    assert await install.work()
    await harness.pass_time(3600, step=60)
    assert harness.writes() == 1
    harness.uninstall(install)
    again = await harness.start("one")
    assert await again.work()
    assert harness.writes() == 1, "a restart writes nothing"


@pytest.mark.parametrize(
    "second",
    [
        {"namespace": "two"},
        {"namespace": "one", "lease_name": "other"},
        {"namespace": "t", "watch_namespaces": "vision"},
    ],
    ids=["cluster-wide elsewhere", "another release in the same namespace", "for one namespace"],
)
async def test_a_second_install_does_nothing_and_says_who_works_there(
    harness: InstallHarness, second: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    first, other = await harness.start("one"), await harness.start(**second)
    assert await first.work()
    assert not await other.work()
    assert not await other.work()
    assert held() == {"one/modelwright-operator": 1}
    assert len(other.told) == 1
    assert "one/modelwright-operator works here" in other.told[0]
    told = [r for r in caplog.records if "another install of Modelwright works in this namespace" in r.message]
    assert len(told) == 1


async def test_two_that_live_stay_as_they_are_for_two_small_writes_each_minute(harness: InstallHarness) -> None:
    first, second = await harness.start("one"), await harness.start("two")
    await first.work()
    await second.work()
    before = harness.writes()
    await harness.pass_time(600)
    assert harness.holder == "one/modelwright-operator"
    assert await first.work()
    assert not await second.work()
    assert harness.writes() - before <= 2 * (600 / QUESTION_INTERVAL_SECONDS + 1)


async def test_the_second_install_takes_over_when_the_first_is_removed(harness: InstallHarness) -> None:
    first, second = await harness.start("one"), await harness.start("two")
    await first.work()
    await second.work()
    harness.uninstall(first)
    await harness.pass_time(QUESTION_INTERVAL_SECONDS + ANSWER_TIMEOUT_SECONDS + 20)
    assert harness.holder == "two/modelwright-operator"
    assert "vision" in second.woken
    await harness.pass_time(SETTLE_SECONDS)
    assert await second.work()
    assert held() == {}
    assert names.ANNOTATION_CONTENDER not in harness.claim()["metadata"]["annotations"]


async def test_an_install_that_returns_in_time_answers_before_it_works(harness: InstallHarness) -> None:
    first, second = await harness.start("one"), await harness.start("two")
    await first.work()
    await second.work()
    harness.uninstall(first)
    await harness.pass_time(ANSWER_TIMEOUT_SECONDS - 20)
    first = await harness.start("one")
    await harness.pass_time(600)
    assert harness.holder == "one/modelwright-operator"
    assert await first.work()
    assert not await second.work()


async def test_an_install_that_comes_back_too_late_is_the_second(harness: InstallHarness) -> None:
    first, second = await harness.start("one"), await harness.start("two")
    await first.work()
    await second.work()
    harness.uninstall(first)
    await harness.pass_time(QUESTION_INTERVAL_SECONDS + ANSWER_TIMEOUT_SECONDS + 20)
    first = await harness.start("one")
    assert not await first.work()
    await harness.pass_time(SETTLE_SECONDS)
    assert await second.work()


async def test_claims_are_read_again_before_the_first_reconcile(harness: InstallHarness) -> None:
    first, second = await harness.start("one"), await harness.start("two")
    await first.work()
    await second.work()
    harness.uninstall(first)
    # A warm standby that has heard of nothing since.
    old = copy.deepcopy(harness.claim())
    await harness.pass_time(QUESTION_INTERVAL_SECONDS + ANSWER_TIMEOUT_SECONDS + 20)
    standby = Install(harness, "one")
    standby.store._objects[kinds.CONTROLLER_REVISION].clear()
    standby.store.put({**old, "apiVersion": "apps/v1", "kind": "ControllerRevision"}, quiet=True)
    harness.all.append(standby)
    await harness.settle()
    assert standby.installs.claims_read.is_set()
    assert not await standby.work()


async def test_of_two_that_wait_for_one_that_is_gone_one_takes_over(harness: InstallHarness) -> None:
    first = await harness.start("one")
    await first.work()
    second, third = await harness.start("two"), await harness.start("three")
    await second.work()
    await third.work()
    harness.uninstall(first)
    await harness.pass_time(2 * (QUESTION_INTERVAL_SECONDS + ANSWER_TIMEOUT_SECONDS))
    assert harness.holder in ("two/modelwright-operator", "three/modelwright-operator")
    let = [await second.work(), await third.work()]
    assert sorted(let) == [False, True]


async def test_a_claim_that_somebody_deletes_is_made_again(harness: InstallHarness) -> None:
    install = await harness.start("one")
    await install.work()
    harness.api.user_delete(kinds.CONTROLLER_REVISION, "vision", names.CLAIM_NAME)
    await harness.settle()
    assert install.woken == ["vision"]
    assert await install.work()
    assert harness.holder == "one/modelwright-operator"


async def test_shards_are_one_install_and_so_is_what_they_grew_from(harness: InstallHarness) -> None:
    plain = await harness.start("one")
    await plain.work()
    harness.uninstall(plain)
    red = await harness.start("one", shard="red", lease_name="modelwright-operator-red")
    assert await red.work()
    assert harness.writes() == 1


async def test_a_namespace_on_its_way_out_needs_no_claim(harness: InstallHarness) -> None:
    install = await harness.start("one")
    cause = api_errors.Cause("metadata.namespace", "NamespaceTerminating", "it is being terminated")

    def refuse(verb: str, obj: Object) -> None:
        raise api_errors.Denied(403, "Forbidden", "it is being terminated", (cause,))

    harness.api.before_write = refuse
    assert await install.work()


async def test_without_the_right_to_claim_nothing_is_done(harness: InstallHarness) -> None:
    install = await harness.start("one")

    def refuse(verb: str, obj: Object) -> None:
        raise api_errors.Denied(403, "Forbidden", "no")

    harness.api.before_write = refuse
    with pytest.raises(api_errors.Denied):
        await install.work()
    assert install.passes == 0
