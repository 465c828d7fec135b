"""A work queue of object keys for asyncio, with the semantics of client-go's workqueue and two priorities.

A key waits at most once however often it is added; a key in process is never handed out a second time, and is handed
out again after `done` when it was added meanwhile. Failures are retried with exponential backoff. Edits by users have
high priority in three of four handouts, so that a change of many objects delays no edit, and edits starve no change.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import OrderedDict, deque
from typing import NamedTuple

from modelwright.obs import metrics
from modelwright.obs.clock import Clock, SystemClock, Timer

BASE_DELAY = 1.0
MAX_DELAY = 300.0
JITTER = 0.2
HIGH_PRIORITY_RATIO = 4
"""One in so many keys is of normal priority while keys of high priority wait."""
BUSY_KEYS, BUSY_SECONDS = 16, 1.0
"""So many keys handed out within so many seconds make it busy, even while none of them waits for a worker."""


class Key(NamedTuple):
    """The name of one object to reconcile: (kind, namespace, name), e.g. ("Model", "vision", "digits").

    Equal to the plain tuple; `namespace` is "" for cluster-scoped kinds.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class ShutDown(Exception):
    """Raised by `get` once the queue is shut down."""


class WorkQueue:
    """Two FIFO queues of different priority; `add*` may be called from anywhere in the event loop and never block."""

    def __init__(self, clock: Clock | None = None, *, rng: random.Random | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._normal_priority: OrderedDict[Key, None] = OrderedDict()
        self._high_priority: OrderedDict[Key, None] = OrderedDict()
        self._pending_high_priority: set[Key] = set()
        self._processing_high_priority: set[Key] = set()
        self._handouts = 0
        self._dirty: dict[Key, float] = {}
        self._processing: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._delayed: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._timer_at = float("inf")
        self._shut_down = False
        self._handed_out: deque[float] = deque(maxlen=BUSY_KEYS)

    def __len__(self) -> int:
        """Return the number of keys ready to be handed out."""
        return len(self._normal_priority) + len(self._high_priority)

    @property
    def high_priority_len(self) -> int:
        """Number of ready keys with high priority."""
        return len(self._high_priority)

    @property
    def is_busy(self) -> bool:
        """Whether so many keys were handed out just now that others have to expect a delay."""
        times = self._handed_out
        return len(times) == BUSY_KEYS and self._clock.monotonic() - times[0] < BUSY_SECONDS

    def add(self, key: tuple[str, str, str], *, high_priority: bool = False) -> None:
        """Request a reconcile of `key` as soon as a worker is free."""
        item = Key(*key)
        if self._shut_down:
            return
        if high_priority:
            self._pending_high_priority.add(item)
        if item not in self._dirty:
            self._dirty[item] = self._clock.monotonic()
            if item not in self._processing:
                self._make_ready(item)
        elif high_priority and item in self._normal_priority:
            del self._normal_priority[item]
            self._high_priority[item] = None

    def requeue(self, key: tuple[str, str, str]) -> None:
        """Request, during the reconcile of `key`, another one at once, with the same priority."""
        self.add(key, high_priority=Key(*key) in self._processing_high_priority)

    def add_after(self, key: tuple[str, str, str], seconds: float) -> None:
        """Request a reconcile of `key` in `seconds`; the earliest of several such requests counts."""
        if seconds <= 0:
            self.add(key)
            return
        item = Key(*key)
        due = self._clock.monotonic() + seconds
        if self._shut_down or self._due.get(item, float("inf")) <= due:
            return
        self._due[item] = due
        heapq.heappush(self._delayed, (due, next(self._order), item))
        self._set_timer()

    def add_rate_limited(
        self, key: tuple[str, str, str], *, at_least: float = 0.0, at_most: float = MAX_DELAY
    ) -> float:
        """Request a reconcile after a failure: in 1 s, 2 s, 4 s ... 5 min (or `at_most`), each +-20 %, and not before
        `at_least` seconds.

        Returns the delay in seconds.
        """
        item = Key(*key)
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        delay = min(BASE_DELAY * 2.0 ** min(failures, 16), at_most)
        delay = max(at_least, min(delay * self._rng.uniform(1 - JITTER, 1 + JITTER), at_most))
        self.add_after(item, delay)
        return delay

    def count_failures(self, key: tuple[str, str, str]) -> int:
        """Return the consecutive failures of `key` (calls of `add_rate_limited` since the last `reset_failures`)."""
        return self._failures.get(Key(*key), 0)

    def reset_failures(self, key: tuple[str, str, str]) -> None:
        """Reset the backoff of `key`: its next failure waits 1 s."""
        self._failures.pop(Key(*key), None)

    async def get(self) -> Key:
        """Return the next key, to be returned by `done`. Waits while there is none; raises ShutDown after
        `shutdown`."""
        while True:
            if self._shut_down:
                raise ShutDown
            if len(self):
                item = self._pop_next()
                added, now = self._dirty.pop(item), self._clock.monotonic()
                self._handed_out.append(now)
                if item in self._pending_high_priority:
                    self._pending_high_priority.discard(item)
                    self._processing_high_priority.add(item)
                self._processing.add(item)
                metrics.QUEUE_DEPTH.set(len(self))
                metrics.QUEUE_LATENCY.observe(now - added)
                return item
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # The wake-up that this cancelled waiter consumed belongs to another one.
                if waiter.done() and not waiter.cancelled() and len(self):
                    self._wake_one()
                raise

    def done(self, key: tuple[str, str, str]) -> None:
        """Mark the reconcile of `key` as ended, successfully or not."""
        item = Key(*key)
        self._processing.discard(item)
        self._processing_high_priority.discard(item)
        if item in self._dirty and not self._shut_down:
            self._make_ready(item)

    def shutdown(self) -> None:
        """Hand out no more keys. Workers finish the keys they have; waiting keys are dropped."""
        self._shut_down = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._normal_priority.clear()
        self._high_priority.clear()
        self._pending_high_priority.clear()
        self._dirty.clear()
        self._delayed.clear()
        self._due.clear()
        metrics.QUEUE_DEPTH.set(0)
        while self._waiters:
            self._wake_one()

    def _pop_next(self) -> Key:
        self._handouts += 1
        line = (
            self._high_priority
            if self._high_priority and (self._handouts % HIGH_PRIORITY_RATIO or not self._normal_priority)
            else self._normal_priority
        )
        return line.popitem(last=False)[0]

    def _make_ready(self, item: Key) -> None:
        (self._high_priority if item in self._pending_high_priority else self._normal_priority)[item] = None
        metrics.QUEUE_DEPTH.set(len(self))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _set_timer(self) -> None:
        if not self._delayed:
            return
        due = self._delayed[0][0]
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._clock.call_later(due - self._clock.monotonic(), self._move_due)

    def _move_due(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, item = heapq.heappop(self._delayed)
            # An entry superseded by a shorter delay stays in the heap and is skipped here.
            if self._due.get(item) == due:
                del self._due[item]
                self.add(item)
        self._set_timer()
