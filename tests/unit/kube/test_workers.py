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


class WorkerHarness:
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
async def harness():
    harness = WorkerHarness()
    harness.runner.start()
    yield harness
    await harness.runner.stop(1)


async def test_passes_that_ask_nobody_let_others_have_their_turns(harness: WorkerHarness) -> None:
    for number in range(100):
        harness.queue.add(("Model", "ns", str(number)))
    turns = []
    while len(harness.queue):
        turns.append(len(harness.queue))
        await asyncio.sleep(0)
    assert len(turns) >= 100 / 2, "two workers, a pass each in a turn"
    assert len(harness.passes) >= 98


async def test_a_pass_that_asks_for_nothing_is_not_repeated(harness: WorkerHarness) -> None:
    harness.queue.add(A)
    await harness.settle()
    assert await harness.passes_after(3600) == 1


async def test_requeue_after_brings_the_next_pass(harness: WorkerHarness) -> None:
    harness.plan = [ReconcileResult(requeue_after=7)]
    harness.queue.add(A)
    await harness.settle()
    assert await harness.passes_after(6.9) == 1
    assert await harness.passes_after(0.1) == 2


@pytest.mark.parametrize("error", [api_errors.Conflict, api_errors.AlreadyExists, api_errors.NotFound])
async def test_a_conflict_is_retried_at_once_three_times_then_later(
    harness: WorkerHarness, error: type[api_errors.ApiError]
) -> None:
    harness.plan = [error(409, "Conflict", "changed") for _ in range(5)]
    harness.queue.add(A)
    await harness.settle()
    assert len(harness.passes) == 4
    assert await harness.passes_after(0.7) == 4
    # The count of immediate attempts restarts after a wait.
    assert await harness.passes_after(0.6) == 6


async def test_transient_errors_back_off_until_a_success(harness: WorkerHarness) -> None:
    harness.plan = [api_errors.error_without_response(TimeoutError()) for _ in range(2)]
    harness.queue.add(A)
    await harness.settle()
    assert await harness.passes_after(0.7) == 1
    assert await harness.passes_after(0.6) == 2
    assert harness.queue.count_failures(A) == 2
    assert await harness.passes_after(1.5) == 2
    assert await harness.passes_after(1.0) == 3
    assert harness.queue.count_failures(A) == 0


async def test_a_reconcile_that_has_to_wait_backs_off(harness: WorkerHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness.plan = [RequeueLater() for _ in range(2)]
    harness.queue.add(A)
    await harness.settle()
    assert await harness.passes_after(1.3) == 2
    assert await harness.passes_after(1.5) == 2
    assert await harness.passes_after(1.0) == 3
    assert harness.queue.count_failures(A) == 0
    assert not caplog.records


async def test_a_transient_error_waits_as_long_as_the_server_asks(harness: WorkerHarness) -> None:
    error = api_errors.error_from_response(503, b"", {"Retry-After": "20"})
    harness.plan = [error]
    harness.queue.add(A)
    await harness.settle()
    assert await harness.passes_after(19) == 1
    assert await harness.passes_after(1) == 2


async def test_throttling_is_obeyed_and_does_not_count_as_a_failure(harness: WorkerHarness) -> None:
    harness.plan = [api_errors.error_from_response(429, b"", {"Retry-After": "5"})]
    harness.queue.add(A)
    await harness.settle()
    assert harness.queue.count_failures(A) == 0
    assert await harness.passes_after(4.9) == 1
    assert await harness.passes_after(0.1) == 2


async def test_denied_backs_off_to_a_minute_or_until_the_next_change(harness: WorkerHarness) -> None:
    harness.plan = [api_errors.Denied(403, "Forbidden", "may not") for _ in range(12)]
    harness.queue.add(A)
    await harness.settle()
    assert await harness.passes_after(0.7) == 1
    assert await harness.passes_after(0.6) == 2
    for count in range(3, 12):
        assert await harness.passes_after(DENIED_DELAY) >= count
    before = len(harness.passes)
    assert before < 14, "each failure is followed by one more pass, not by many"
    harness.queue.add(A)
    await harness.settle()
    assert len(harness.passes) == before + 1


async def test_invalid_is_not_repeated_until_something_changes(harness: WorkerHarness) -> None:
    harness.plan = [api_errors.Invalid(422, "Invalid", "spec.x: no")]
    harness.queue.add(A)
    await harness.settle()
    assert await harness.passes_after(86400) == 1
    harness.queue.add(A)
    await harness.settle()
    assert len(harness.passes) == 2


async def test_a_bug_is_logged_counted_and_retried(harness: WorkerHarness, caplog: pytest.LogCaptureFixture) -> None:
    before = metrics.RECONCILE_PANICS.labels("Model")._value.get()
    harness.plan = [ZeroDivisionError("a bug"), KeyError("another")]
    with caplog.at_level(logging.ERROR):
        harness.queue.add(A)
        harness.queue.add(B)
        await harness.settle()
    assert metrics.RECONCILE_PANICS.labels("Model")._value.get() == before + 2
    assert await harness.passes_after(1.3) == 4
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert (line["kind"], line["namespace"], line["object"]) == ("Model", "ns", "a")
    assert "ZeroDivisionError" in line["exception"]


async def test_a_kind_without_a_reconciler_is_a_bug_that_ends_nothing(harness: WorkerHarness) -> None:
    harness.queue.add(("Nonsense", "ns", "x"))
    harness.queue.add(A)
    await harness.settle()
    assert harness.passes == [A]


async def test_one_slow_key_does_not_hold_up_the_others() -> None:
    harness = WorkerHarness(workers=2)
    hold = asyncio.Event()

    async def reconcile(key: Key) -> ReconcileResult:
        harness.passes.append(key)
        if key == A:
            await hold.wait()
        return ReconcileResult()

    harness.runner = WorkerPool(harness.queue, {"Model": reconcile}, 2, clock=harness.clock)
    harness.runner.start()
    harness.queue.add(A)
    for n in range(20):
        harness.queue.add(("Model", "ns", f"other-{n}"))
    await harness.settle()
    harness.queue.add(A)
    await harness.settle()
    assert len(harness.passes) == 21, "A was not started a second time beside itself"
    harness.clock.advance(700)
    [running] = harness.runner.list_active(longer_than=600)
    assert running.key == A
    assert running.seconds == 700
    hold.set()
    await harness.settle()
    assert harness.passes.count(A) == 2
    await harness.runner.stop(1)


async def test_nothing_is_worked_on_before_the_gate_opens() -> None:
    harness = WorkerHarness()
    gate = asyncio.Event()
    harness.runner.start(gate)
    harness.queue.add(A)
    await harness.settle()
    assert harness.passes == []
    gate.set()
    await harness.settle()
    assert harness.passes == [A]
    await harness.runner.stop(1)


async def test_stop_waits_for_the_pass_under_way_and_takes_no_other() -> None:
    harness = WorkerHarness(workers=1)
    hold = asyncio.Event()
    ended = []

    async def reconcile(key: Key) -> ReconcileResult:
        await hold.wait()
        ended.append(key)
        return ReconcileResult()

    runner = WorkerPool(harness.queue, {"Model": reconcile}, 1, clock=harness.clock)
    runner.start()
    harness.queue.add(A)
    harness.queue.add(B)
    await harness.settle()
    stopping = asyncio.create_task(runner.stop(5))
    await harness.settle()
    assert not stopping.done()
    hold.set()
    await stopping
    assert ended == [A]


async def test_stop_cuts_off_a_pass_that_does_not_end_in_time() -> None:
    harness = WorkerHarness()

    async def reconcile(_: Key) -> ReconcileResult:
        await asyncio.Event().wait()
        return ReconcileResult()

    runner = WorkerPool(harness.queue, {"Model": reconcile}, 1, clock=harness.clock)
    runner.start()
    harness.queue.add(A)
    await harness.settle()
    await runner.stop(0.01)
    assert runner.list_active() == []


async def test_stop_before_the_gate_opens_ends_at_once() -> None:
    harness = WorkerHarness()
    harness.runner.start(asyncio.Event())
    await asyncio.wait_for(harness.runner.stop(25), 1)
