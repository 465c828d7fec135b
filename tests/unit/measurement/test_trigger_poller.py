"""The trigger poller: polls each trigger once per interval, and counts consecutive breaches."""

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


class PollerHarness:
    """A poller of the fake server, and the keys that it has notified."""

    def __init__(self, server: FakeServer, **connection: Any) -> None:
        self.server, self.clock = server, FakeClock()
        self.woken: list[Key] = []
        entry = {"name": "default", "type": "Prometheus", "url": server.url} | connection
        self.poller = TriggerPoller(
            parse_connections({"connections": [entry]}, "test"), self.woken.append, clock=self.clock
        )

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, second by second, and each poll get its answer."""
        for _ in range(int(seconds)):
            await self._rest()
            self.clock.advance(1)
            await self._rest()

    async def _rest(self) -> None:
        """Wait until every poll waits for its next time."""
        await asyncio.sleep(0)
        while self.clock.pending_timers < sum(map(len, self.poller._entries.values())):  # noqa: ASYNC110 - the clock has no event
            await asyncio.sleep(0.001)


@pytest.fixture
async def harness(server: FakeServer) -> AsyncIterator[PollerHarness]:
    harness = PollerHarness(server)
    yield harness
    await harness.poller.close()


async def test_a_row_that_is_long_enough_wakes_the_policy(harness: PollerHarness, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})
    await harness.pass_by(120)
    assert harness.woken == []
    await harness.pass_by(60)
    streak = harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})["drift"]
    assert (streak.count, streak.value, harness.woken) == (3, 0.5, [POLICY])
    assert len(server.requests) == 3


async def test_a_row_that_has_fired_begins_anew(harness: PollerHarness, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})
    await harness.pass_by(180)
    harness.poller.reset_streak(POLICY, "drift")
    await harness.pass_by(120)
    assert harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})["drift"].count == 2
    assert len(harness.woken) == 1


async def test_looks_of_many_policies_are_spread_over_the_interval(harness: PollerHarness, server: FakeServer) -> None:
    server.handler = server.vector("0.1")
    for number in range(50):
        key = Key("RetrainingPolicy", "vision", f"p{number}")
        harness.poller.sync_triggers(key, f"uid-{number}", {"drift": watch()})
    most = 0
    for _ in range(60):
        before = len(server.requests)
        await harness.pass_by(1)
        most = max(most, len(server.requests) - before)
    assert len(server.requests) == 50
    assert most <= 6


@pytest.mark.parametrize("answer", ["NaN", None])
async def test_a_look_without_a_number_begins_the_row_anew_and_is_told(
    harness: PollerHarness, server: FakeServer, answer: str | None
) -> None:
    server.handler = server.vector("0.5")
    harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})
    await harness.pass_by(120)
    server.handler = server.vector(*([answer] if answer else []))
    await harness.pass_by(60)
    streak = harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})["drift"]
    assert streak.count == 0
    assert streak.problem is not None
    assert harness.woken == [POLICY], "the problem is reported"


async def test_a_server_that_is_gone_never_fires(harness: PollerHarness, server: FakeServer) -> None:
    harness.poller.sync_triggers(POLICY, "uid", {"drift": watch(provider="other")})
    await harness.pass_by(300)
    streak = harness.poller.sync_triggers(POLICY, "uid", {"drift": watch(provider="other")})["drift"]
    assert streak.count == 0
    assert streak.problem is not None and streak.problem[0] == "ConnectionUnknown"  # noqa: PT018
    assert harness.woken == [POLICY], "reported once for its whole duration"


async def test_a_query_on_a_guarded_connection_needs_the_label(server: FakeServer) -> None:
    harness = PollerHarness(server, enforcedLabel="namespace")
    harness.poller.sync_triggers(POLICY, "uid", {"drift": watch("max(drift)")})
    await harness.pass_by(60)
    streak = harness.poller.sync_triggers(POLICY, "uid", {"drift": watch("max(drift)")})["drift"]
    assert streak.problem is not None and streak.problem[0] == "QueryRefused"  # noqa: PT018
    assert server.requests == []
    await harness.poller.close()


async def test_nothing_goes_on_that_nobody_wants(harness: PollerHarness, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})
    await harness.pass_by(60)
    harness.poller.sync_triggers(POLICY, "uid", {})
    await harness.pass_by(600)
    assert len(server.requests) == 1


async def test_an_edited_trigger_begins_anew(harness: PollerHarness, server: FakeServer) -> None:
    server.handler = server.vector("0.5")
    harness.poller.sync_triggers(POLICY, "uid", {"drift": watch()})
    await harness.pass_by(120)
    assert harness.poller.sync_triggers(POLICY, "uid", {"drift": watch(above="0.4")})["drift"].count == 0
