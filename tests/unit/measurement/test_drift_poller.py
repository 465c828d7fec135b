"""The drift poller: one poll a minute, a notification only for a change worth a write, no harm by a failed poll."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from modelwright.core.drift.feature_drift import Aspect, FeatureDrift
from modelwright.core.drift.worst_features import WindowDrift, build_answer
from modelwright.kube.queue import Key
from modelwright.measurement.drift_poller import POLL_SECONDS, WORST_LIMITS, DriftPoller
from modelwright.obs.clock import FakeClock
from tests.lib.measurement import FakeServer, Handler

MODEL = Key("Model", "vision", "digits")


def answer(excess: float, version: str = "v1") -> Handler:
    figure = FeatureDrift("age", Aspect.MISSING, excess * 0.1, 0.1, 0.01)
    return FakeServer.reply(build_answer(version, [WindowDrift("10m", "input", 500, figure)]))


class DriftPollerHarness:
    """A poller of one fake drift monitor, and the keys that it has notified."""

    def __init__(self, server: FakeServer) -> None:
        self.server, self.clock = server, FakeClock()
        self.woken: list[Key] = []
        self.poller = DriftPoller(self.woken.append, url=lambda *_: server.url, clock=self.clock)

    async def poll(self, count: int) -> None:
        """Let time pass until this number of further polls was answered."""
        wanted = len(self.server.requests) + count
        while len(self.server.requests) < wanted:
            await self.rest()
            self.clock.advance(POLL_SECONDS / 4)
            await self.rest()

    async def rest(self) -> None:
        """Wait until every poll waits for its next time."""
        await asyncio.sleep(0)
        while self.clock.pending_timers < len(self.poller._entries):  # noqa: ASYNC110 - the clock has no event
            await asyncio.sleep(0.001)

    def drifted(self) -> bool | None:
        reported = self.poller.sync_model(MODEL, "v1", None)
        return reported.drifted if reported is not None else None


@pytest.fixture
async def harness(server: FakeServer) -> AsyncIterator[DriftPollerHarness]:
    harness = DriftPollerHarness(server)
    yield harness
    await harness.poller.close()


async def test_a_model_is_notified_when_a_feature_starts_or_ends_drift(
    harness: DriftPollerHarness, server: FakeServer
) -> None:
    for excess, woken, drifted in ((0.2, 1, False), (0.9, 1, False), (2, 2, True), (0.9, 2, True), (0.5, 3, False)):
        server.handler = answer(excess)
        harness.drifted()
        await harness.poll(1)
        assert (len(harness.woken), harness.drifted()) == (woken, drifted)
    assert {path for path, *_ in server.requests} == {"/worst"}


FAULTS = {
    "an error": lambda: FakeServer.reply({"error": "no"}, status=500),
    "another version": lambda: answer(0, "v0"),
    "no figures": lambda: FakeServer.reply({"worst": [{"window": 3}], "version": "v1"}),
    "an answer without end": lambda: FakeServer.reply({"version": "v1", "worst": ["x" * WORST_LIMITS.size]}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_look_that_fails_changes_nothing(harness: DriftPollerHarness, server: FakeServer, fault: str) -> None:
    server.handler = answer(2)
    harness.drifted()
    await harness.poll(1)
    server.handler = FAULTS[fault]()
    await harness.poll(1)
    assert (harness.drifted(), len(harness.woken)) == (True, 1)


async def test_what_the_status_tells_is_known_after_a_restart(harness: DriftPollerHarness, server: FakeServer) -> None:
    server.handler = answer(2)
    harness.drifted()
    await harness.poll(1)
    reported = harness.poller.sync_model(MODEL, "v1", None)
    other = DriftPollerHarness(server)
    server.handler = answer(0.9)
    assert other.poller.sync_model(MODEL, "v1", reported) == reported
    await other.poll(1)
    assert (other.woken, other.drifted()) == ([], True)
    await other.poller.close()


async def test_another_version_starts_empty_and_a_dropped_one_ends(
    harness: DriftPollerHarness, server: FakeServer
) -> None:
    server.handler = answer(2)
    harness.drifted()
    await harness.poll(1)
    assert harness.poller.sync_model(MODEL, "v2", None) is None
    harness.poller.forget_model(MODEL)
    before = len(server.requests)
    harness.clock.advance(3 * POLL_SECONDS)
    await harness.rest()
    assert len(server.requests) == before
