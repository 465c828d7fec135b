"""Events that other systems send to webhook triggers, queued until a reconciliation of the policy has handled them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelwright.kube import kinds
from modelwright.kube.queue import Key

MAX_PENDING_EVENTS = 1000
"""Events of one policy that may wait; senders of more must retry."""


class WebhookQueueFull(Exception):
    """A policy has too many events waiting."""


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One event of another system. `identity` stays the same however often the event is sent."""

    trigger: str
    identity: str
    text: str


class WebhookQueue:
    """Waiting events by policy, for one event loop.

    Nothing is persisted: a sender without an answer sends its event again.
    """

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._enqueue = wake
        self._pending: dict[Key, list[tuple[WebhookEvent, asyncio.Future[None]]]] = {}

    async def put(self, namespace: str, policy: str, trigger: str, events: Sequence[tuple[str, str]]) -> None:
        """Queue (identity, text) pairs; returns once a reconciliation has recorded their outcome."""
        key = Key(kinds.RETRAINING_POLICY.kind, namespace, policy)
        waiting = self._pending.setdefault(key, [])
        if len(waiting) + len(events) > MAX_PENDING_EVENTS:
            raise WebhookQueueFull(f"RetrainingPolicy {namespace}/{policy} has {len(waiting)} events that wait")
        done = [asyncio.get_running_loop().create_future() for _ in events]
        waiting += [(WebhookEvent(trigger, *event), future) for event, future in zip(events, done, strict=True)]
        self._enqueue(key)
        try:
            await asyncio.gather(*done)
        finally:
            for future in done:
                future.cancel()
            self._forget_cancelled(key)

    def pending_events(self, policy: Key) -> tuple[WebhookEvent, ...]:
        """The events that wait now, oldest first."""
        return tuple(message for message, done in self._pending.get(policy, ()) if not done.done())

    def _forget_cancelled(self, policy: Key) -> None:
        left = [(message, done) for message, done in self._pending.pop(policy, []) if not done.done()]
        if left:
            self._pending[policy] = left

    def acknowledge(self, policy: Key, messages: Sequence[WebhookEvent]) -> None:
        """Release the senders of these events, whose outcome is recorded."""
        handled = set(messages)
        for message, done in self._pending.get(policy, ()):
            if message in handled and not done.done():
                done.set_result(None)
        self._forget_cancelled(policy)
