"""What each outcome of a pass leads to, and that nothing a reconciler does ends the workers."""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable

import pytest

from modelwright.kube import api_errors
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.workers import DENIED_DELAY, ReconcileResult, RequeueLater, WorkerPool
from modelwright.obs import metrics
from modelwright.obs.clock import FakeClock
from modelwright.obs.logging import JsonFormatter

A = Key("Model", "ns", "a")
B = Key("Model", "ns", "b")

Reconcile = Callable[[Key], Awaitable[ReconcileResult]]


class World:
    """A runner with one kind of key; `plan` holds what the next passes return or raise."""

    def __init__(self, workers: int = 2) -> None:
        self.clock = FakeClock()
        self.queue = WorkQueue(self.clock, rng=random.Random(1))
        self.plan: list[ReconcileResult | BaseException] = []
        self.passes: list[Key] = []
        self.runner = WorkerPool(self.queue, {"Model": self.reconcile}, workers, clock=self.clock)

    async def reconcile(self, key: Key) -> ReconcileResult:
        self.passes.append(key)
        outcome = self.plan.pop(0) if self.plan else ReconcileResult()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def passes_after(self, seconds: float) -> int:
        self.clock.advance(seconds)
        await self.settle()
        return len(self.passes)


@pytest.fixture
async def world():
    world = World()
    world.runner.start()
    yield world
    await world.runner.stop(1)


async def test_passes_that_ask_nobody_let_others_have_their_turns(world: World) -> None:
    for number in range(100):
        world.queue.add(("Model", "ns", str(number)))
    turns = []
    while len(world.queue):
        turns.append(len(world.queue))
        await asyncio.sleep(0)
    assert len(turns) >= 100 / 2, "two workers, a pass each in a turn"
    assert len(world.passes) >= 98


async def test_a_pass_that_asks_for_nothing_is_not_repeated(world: World) -> None:
    world.queue.add(A)
    await world.settle()
    assert await world.passes_after(3600) == 1


async def test_requeue_after_brings_the_next_pass(world: World) -> None:
    world.plan = [ReconcileResult(requeue_after=7)]
    world.queue.add(A)
    await world.settle()
    assert await world.passes_after(6.9) == 1
    assert await world.passes_after(0.1) == 2


@pytest.mark.parametrize("error", [api_errors.Conflict, api_errors.AlreadyExists, api_errors.NotFound])
async def test_a_changed_world_is_looked_at_again_at_once_three_times_and_then_later(
    world: World, error: type[api_errors.ApiError]
) -> None:
    world.plan = [error(409, "Conflict", "changed") for _ in range(5)]
    world.queue.add(A)
    await world.settle()
    assert len(world.passes) == 4
    assert await world.passes_after(0.7) == 4
    # The count of immediate attempts starts anew after a wait.
    assert await world.passes_after(0.6) == 6


async def test_transient_errors_wait_longer_each_time_and_success_forgets_them(world: World) -> None:
    world.plan = [api_errors.error_without_response(TimeoutError()) for _ in range(2)]
    world.queue.add(A)
    await world.settle()
    assert await world.passes_after(0.7) == 1
    assert await world.passes_after(0.6) == 2
    assert world.queue.count_failures(A) == 2
    assert await world.passes_after(1.5) == 2
    assert await world.passes_after(1.0) == 3
    assert world.queue.count_failures(A) == 0


async def test_a_pass_that_has_to_wait_for_its_turn_comes_back_later_and_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.plan = [RequeueLater() for _ in range(2)]
    world.queue.add(A)
    await world.settle()
    assert await world.passes_after(1.3) == 2
    assert await world.passes_after(1.5) == 2
    assert await world.passes_after(1.0) == 3
    assert world.queue.count_failures(A) == 0
    assert not caplog.records


async def test_a_transient_error_waits_as_long_as_the_server_asks(world: World) -> None:
    error = api_errors.error_from_response(503, b"", {"Retry-After": "20"})
    world.plan = [error]
    world.queue.add(A)
    await world.settle()
    assert await world.passes_after(19) == 1
    assert await world.passes_after(1) == 2


async def test_throttling_is_obeyed_and_does_not_count_as_a_failure(world: World) -> None:
    world.plan = [api_errors.error_from_response(429, b"", {"Retry-After": "5"})]
    world.queue.add(A)
    await world.settle()
    assert world.queue.count_failures(A) == 0
    assert await world.passes_after(4.9) == 1
    assert await world.passes_after(0.1) == 2


async def test_denied_comes_back_later_and_later_but_within_a_minute_and_at_the_next_change(world: World) -> None:
    world.plan = [api_errors.Denied(403, "Forbidden", "may not") for _ in range(12)]
    world.queue.add(A)
    await world.settle()
    assert await world.passes_after(0.7) == 1
    assert await world.passes_after(0.6) == 2
    for count in range(3, 12):
        assert await world.passes_after(DENIED_DELAY) >= count
    before = len(world.passes)
    assert before < 14, "each failure is followed by one more pass, not by many"
    world.queue.add(A)
    await world.settle()
    assert len(world.passes) == before + 1


async def test_invalid_is_not_repeated_until_something_changes(world: World) -> None:
    world.plan = [api_errors.Invalid(422, "Invalid", "spec.x: no")]
    world.queue.add(A)
    await world.settle()
    assert await world.passes_after(86400) == 1
    world.queue.add(A)
    await world.settle()
    assert len(world.passes) == 2


async def test_a_bug_is_logged_counted_and_tried_again_and_ends_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    before = metrics.RECONCILE_PANICS.labels("Model")._value.get()
    world.plan = [ZeroDivisionError("a bug"), KeyError("another")]
    with caplog.at_level(logging.ERROR):
        world.queue.add(A)
        world.queue.add(B)
        await world.settle()
    assert metrics.RECONCILE_PANICS.labels("Model")._value.get() == before + 2
    assert await world.passes_after(1.3) == 4
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert (line["kind"], line["namespace"], line["object"]) == ("Model", "ns", "a")
    assert "ZeroDivisionError" in line["exception"]


async def test_a_kind_without_a_reconciler_is_a_bug_that_ends_nothing(world: World) -> None:
    world.queue.add(("Nonsense", "ns", "x"))
    world.queue.add(A)
    await world.settle()
    assert world.passes == [A]


async def test_one_slow_key_does_not_hold_up_the_others() -> None:
    world = World(workers=2)
    hold = asyncio.Event()

    async def reconcile(key: Key) -> ReconcileResult:
        world.passes.append(key)
        if key == A:
            await hold.wait()
        return ReconcileResult()

    world.runner = WorkerPool(world.queue, {"Model": reconcile}, 2, clock=world.clock)
    world.runner.start()
    world.queue.add(A)
    for n in range(20):
        world.queue.add(("Model", "ns", f"other-{n}"))
    await world.settle()
    world.queue.add(A)
    await world.settle()
    assert len(world.passes) == 21, "A was not started a second time beside itself"
    world.clock.advance(700)
    [running] = world.runner.list_active(longer_than=600)
    assert running.key == A
    assert running.seconds == 700
    hold.set()
    await world.settle()
    assert world.passes.count(A) == 2
    await world.runner.stop(1)


async def test_nothing_is_worked_on_before_the_gate_opens() -> None:
    world = World()
    gate = asyncio.Event()
    world.runner.start(gate)
    world.queue.add(A)
    await world.settle()
    assert world.passes == []
    gate.set()
    await world.settle()
    assert world.passes == [A]
    await world.runner.stop(1)


async def test_stop_waits_for_the_pass_under_way_and_takes_no_other() -> None:
    world = World(workers=1)
    hold = asyncio.Event()
    ended = []

    async def reconcile(key: Key) -> ReconcileResult:
        await hold.wait()
        ended.append(key)
        return ReconcileResult()

    runner = WorkerPool(world.queue, {"Model": reconcile}, 1, clock=world.clock)
    runner.start()
    world.queue.add(A)
    world.queue.add(B)
    await world.settle()
    stopping = asyncio.create_task(runner.stop(5))
    await world.settle()
    assert not stopping.done()
    hold.set()
    await stopping
    assert ended == [A]


async def test_stop_cuts_off_a_pass_that_does_not_end_in_time() -> None:
    world = World()

    async def reconcile(_: Key) -> ReconcileResult:
        await asyncio.Event().wait()
        return ReconcileResult()

    runner = WorkerPool(world.queue, {"Model": reconcile}, 1, clock=world.clock)
    runner.start()
    world.queue.add(A)
    await world.settle()
    await runner.stop(0.01)
    assert runner.list_active() == []


async def test_stop_before_the_gate_opens_ends_at_once() -> None:
    world = World()
    world.runner.start(asyncio.Event())
    await asyncio.wait_for(world.runner.stop(25), 1)
