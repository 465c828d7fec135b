"""The lookout: triggers look at their own pace, count in a row, and cost a query for each interval, no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelwright.api.v1alpha1.retraining import PrometheusTrigger
from modelwright.kube.queue import Key
from modelwright.measurement.connections import parse_connections
from modelwright.measurement.trigger_poller import PolledTrigger, TriggerPoller
from modelwright.obs.clock import FakeClock
from tests.lib.measurement import FakeServer

POLICY = Key("RetrainingPolicy", "vision", "digits")
KNOWN = {"NAMESPACE": "vision", "MODEL": "digits", "VERSION": "v1"}


def watch(query: str = "drift", **more: Any) -> PolledTrigger:
    fields = {"query": query, "above": "0.2", "consecutive": 3, "interval": "60s"} | more
    return PolledTrigger(PrometheusTrigger.model_validate(fields), KNOWN)


class Tower:
    """A lookout before the fake server, and whom it has woken."""

    def __init__(self, server: FakeServer, **connection: Any) -> None:
        self.server, self.clock = server, FakeClock()
        self.woken: list[Key] = []
        entry = {"name": "default", "type": "Prometheus", "url": server.url} | connection
        self.lookout = TriggerPoller(
            parse_connections({"connections": [entry]}, "test"), self.woken.append, clock=self.clock
        )

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, second by second, and each look get its answer."""
        for _ in range(int(seconds)):
            await self._rest()
            self.clock.advance(1)
            await self._rest()

    async def _rest(self) -> None:
        """Until every look waits for its next time."""
        await asyncio.sleep(0)
        while self.clock.pending_timers < sum(map(len, self.lookout._entries.values())):  # noqa: ASYNC110 - the clock has no event
            await asyncio.sleep(0.001)


@pytest.fixture
async def tower(server: FakeServer) -> AsyncIterator[Tower]:
    tower = Tower(server)
    yield tower
    await tower.lookout.close()


async def test_a_row_that_is_long_enough_wakes_the_policy(tower: Tower, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})
    await tower.pass_by(120)
    assert tower.woken == []
    await tower.pass_by(60)
    row = tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})["drift"]
    assert (row.count, row.value, tower.woken) == (3, 0.5, [POLICY])
    assert len(server.requests) == 3


async def test_a_row_that_has_fired_begins_anew(tower: Tower, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})
    await tower.pass_by(180)
    tower.lookout.reset_streak(POLICY, "drift")
    await tower.pass_by(120)
    assert tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})["drift"].count == 2
    assert len(tower.woken) == 1


async def test_looks_of_many_policies_are_spread_over_the_interval(tower: Tower, server: FakeServer) -> None:
    server.handler = server.vector("0.1")
    for number in range(50):
        key = Key("RetrainingPolicy", "vision", f"p{number}")
        tower.lookout.sync_triggers(key, f"uid-{number}", {"drift": watch()})
    most = 0
    for _ in range(60):
        before = len(server.requests)
        await tower.pass_by(1)
        most = max(most, len(server.requests) - before)
    assert len(server.requests) == 50
    assert most <= 6


@pytest.mark.parametrize("answer", ["NaN", None])
async def test_a_look_without_a_number_begins_the_row_anew_and_is_told(
    tower: Tower, server: FakeServer, answer: str | None
) -> None:
    server.handler = server.vector("0.5")
    tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})
    await tower.pass_by(120)
    server.handler = server.vector(*([answer] if answer else []))
    await tower.pass_by(60)
    row = tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})["drift"]
    assert row.count == 0
    assert row.problem is not None
    assert tower.woken == [POLICY], "what is in its way is told"


async def test_a_server_that_is_gone_never_fires(tower: Tower, server: FakeServer) -> None:
    tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch(provider="other")})
    await tower.pass_by(300)
    row = tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch(provider="other")})["drift"]
    assert row.count == 0
    assert row.problem is not None and row.problem[0] == "ConnectionUnknown"  # noqa: PT018
    assert tower.woken == [POLICY], "told once, however long it lasts"


async def test_a_query_on_a_guarded_connection_needs_the_label(server: FakeServer) -> None:
    tower = Tower(server, enforcedLabel="namespace")
    tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch("max(drift)")})
    await tower.pass_by(60)
    row = tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch("max(drift)")})["drift"]
    assert row.problem is not None and row.problem[0] == "QueryRefused"  # noqa: PT018
    assert server.requests == []
    await tower.lookout.close()


async def test_nothing_goes_on_that_nobody_wants(tower: Tower, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})
    await tower.pass_by(60)
    tower.lookout.sync_triggers(POLICY, "uid", {})
    await tower.pass_by(600)
    assert len(server.requests) == 1


async def test_an_edited_trigger_begins_anew(tower: Tower, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch()})
    await tower.pass_by(120)
    assert tower.lookout.sync_triggers(POLICY, "uid", {"drift": watch(above="0.4")})["drift"].count == 0
