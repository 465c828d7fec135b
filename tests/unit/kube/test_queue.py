"""The work queue: one entry per key, never two passes over one key at once, delays that come back in time."""

import asyncio
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelwright.kube.queue import BUSY_KEYS, BUSY_SECONDS, MAX_DELAY, Key, ShutDown, WorkQueue
from modelwright.obs.clock import FakeClock

A = Key("Model", "ns", "a")
B = Key("Model", "ns", "b")
C = Key("Model", "", "c")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue:
    return WorkQueue(clock, rng=random.Random(1))


async def drain(queue: WorkQueue) -> list[Key]:
    found = []
    while len(queue):
        found.append(await queue.get())
        queue.done(found[-1])
    return found


async def test_hands_out_keys_in_the_order_they_were_added(queue: WorkQueue) -> None:
    for key in (B, A, C):
        queue.add(key)
    assert await drain(queue) == [B, A, C]


async def test_a_key_added_twice_is_handed_out_once(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(A)
    queue.add(tuple(A))
    assert await drain(queue) == [A]


async def test_high_priority_goes_first_and_the_rest_still_moves(queue: WorkQueue) -> None:
    rest = [Key("Model", "ns", f"rest-{number}") for number in range(4)]
    first = [Key("Model", "ns", f"first-{number}") for number in range(6)]
    for key in rest:
        queue.add(key)
    for key in first:
        queue.add(key, high_priority=True)
    assert (queue.high_priority_len, len(queue)) == (6, 6 + len(rest))
    assert await drain(queue) == [*first[:3], rest[0], *first[3:], *rest[1:]]


async def test_a_waiting_key_added_with_high_priority_goes_first(queue: WorkQueue) -> None:
    for key in (A, B, C):
        queue.add(key)
    queue.add(B, high_priority=True)
    queue.add(B)
    assert await drain(queue) == [B, A, C]


async def test_a_key_in_process_keeps_the_high_priority_it_gets(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(B)
    queue.add(A, high_priority=True)
    queue.done(A)
    assert await drain(queue) == [A, B]
    queue.add(B)
    queue.add(A)
    assert await drain(queue) == [B, A], "only that once"


async def test_a_pass_that_has_to_look_again_keeps_its_line(queue: WorkQueue) -> None:
    queue.add(A, high_priority=True)
    assert await queue.get() == A
    queue.add(B)
    queue.requeue(A)
    queue.done(A)
    assert await drain(queue) == [A, B]
    queue.add(A)
    assert await queue.get() == A
    queue.add(B)
    queue.requeue(A)
    queue.done(A)
    assert await drain(queue) == [B, A], "it has normal priority"


async def test_a_key_added_during_its_pass_comes_again_after_it(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await drain(queue) == [A]


async def test_done_without_another_add_leaves_nothing(queue: WorkQueue) -> None:
    queue.add(A)
    await queue.get()
    queue.done(A)
    assert len(queue) == 0


async def test_get_waits_for_an_add(queue: WorkQueue) -> None:
    getting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add(A)
    queue.add(B)
    assert {await g for g in getting} == {A, B}


async def test_a_cancelled_get_does_not_take_the_wake_up_of_another(queue: WorkQueue) -> None:
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    assert await asyncio.wait_for(second, 1) == A


async def test_a_delayed_key_comes_when_its_time_has_come(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add_after(A, 10)
    clock.advance(9.9)
    assert len(queue) == 0
    clock.advance(0.1)
    assert await drain(queue) == [A]


async def test_a_delay_of_nothing_is_an_add(queue: WorkQueue) -> None:
    queue.add_after(A, 0)
    assert await drain(queue) == [A]


async def test_the_earliest_of_several_delays_counts(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add_after(A, 10)
    queue.add_after(A, 5)
    queue.add_after(A, 7)
    clock.advance(5)
    assert await drain(queue) == [A]
    clock.advance(60)
    assert await drain(queue) == []


async def test_delays_of_many_keys_end_in_their_order(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add_after(A, 3)
    queue.add_after(B, 1)
    queue.add_after(C, 2)
    clock.advance(10)
    assert await drain(queue) == [B, C, A]


async def test_failures_wait_1_2_4_seconds_up_to_5_minutes_with_jitter(queue: WorkQueue) -> None:
    delays = [queue.add_rate_limited(A) for _ in range(30)]
    for n, delay in enumerate(delays[:8]):
        assert 0.8 * 2**n <= delay <= 1.2 * 2**n
    assert all(0.8 * MAX_DELAY <= d <= MAX_DELAY for d in delays[10:])
    assert queue.count_failures(A) == 30


async def test_reset_failures_restarts_the_backoff_of_that_key_only(queue: WorkQueue) -> None:
    for _ in range(5):
        queue.add_rate_limited(A)
    assert queue.add_rate_limited(B) <= 1.2
    queue.reset_failures(A)
    assert queue.count_failures(A) == 0
    assert queue.add_rate_limited(A) <= 1.2


async def test_a_failure_waits_at_least_as_long_as_asked_for(queue: WorkQueue, clock: FakeClock) -> None:
    assert queue.add_rate_limited(A, at_least=30) == 30
    clock.advance(29)
    assert len(queue) == 0
    clock.advance(1)
    assert await drain(queue) == [A]


async def test_an_event_is_not_held_back_by_a_delay(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add_after(A, 300)
    queue.add(A)
    assert await drain(queue) == [A]


async def test_shutdown_ends_every_get_and_takes_nothing_more(queue: WorkQueue, clock: FakeClock) -> None:
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add_after(A, 1)
    queue.shutdown()
    for task in waiting:
        with pytest.raises(ShutDown):
            await task
    queue.add(A)
    clock.advance(5)
    with pytest.raises(ShutDown):
        await queue.get()
    queue.done(A)
    assert len(queue) == 0


KEYS = st.sampled_from([A, B, C, Key("ModelVersion", "ns", "a")])


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls and any passing of time, against a model that is three sets and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.queue = WorkQueue(self.clock, rng=random.Random(0))
        self.wanted: set[Key] = set()
        self.running: set[Key] = set()
        self.due: dict[Key, float] = {}

    def teardown(self) -> None:
        self.loop.close()

    def _time_passes(self) -> None:
        for key, due in list(self.due.items()):
            if due <= self.clock.monotonic():
                del self.due[key]
                self.wanted.add(key)

    def _later(self, key: Key, delay: float) -> None:
        self.due[key] = min(self.due.get(key, float("inf")), self.clock.monotonic() + delay)

    @rule(key=KEYS, first=st.booleans())
    def add(self, key: Key, first: bool) -> None:
        self.queue.add(key, high_priority=first)
        self.wanted.add(key)

    @rule(key=KEYS, delay=st.integers(1, 20))
    def add_after(self, key: Key, delay: int) -> None:
        self.queue.add_after(key, delay)
        self._later(key, delay)

    @rule(key=KEYS)
    def add_rate_limited(self, key: Key) -> None:
        self._later(key, self.queue.add_rate_limited(key))

    @rule(key=KEYS)
    def forget(self, key: Key) -> None:
        self.queue.reset_failures(key)
        assert self.queue.count_failures(key) == 0

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._time_passes()

    @precondition(lambda self: self.wanted - self.running)
    @rule()
    def get(self) -> None:
        key = self.loop.run_until_complete(asyncio.wait_for(self.queue.get(), 5))
        assert key in self.wanted, "handed out although it was not requested"
        assert key not in self.running, "handed out twice at once"
        self.wanted.discard(key)
        self.running.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.done(key)
        self.running.discard(key)

    @invariant()
    def exactly_what_is_wanted_and_free_is_ready(self) -> None:
        assert len(self.queue) == len(self.wanted - self.running)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


async def test_it_is_busy_while_many_keys_are_handed_out_at_once(clock: FakeClock) -> None:
    queue = WorkQueue(clock)
    for number in range(BUSY_KEYS):
        assert not queue.is_busy
        queue.add(("Model", "vision", str(number)))
        queue.done(await queue.get())
    assert queue.is_busy
    clock.advance(BUSY_SECONDS)
    assert not queue.is_busy
