"""What other systems have said to webhook triggers, until a pass over the policy has dealt with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelwright.kube import kinds
from modelwright.kube.queue import Key

MAX_PENDING_EVENTS = 1000
"""Messages that one policy keeps waiting; a sender of more is told to come again."""


class WebhookQueueFull(Exception):
    """A policy has more messages than it deals with."""


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One event of another system: `identity` is the same however often it is sent."""

    trigger: str
    identity: str
    text: str


class WebhookQueue:
    """Messages by policy. Belongs to one event loop. Nothing is kept: a sender that was told nothing sends again."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._enqueue = wake
        self._pending: dict[Key, list[tuple[WebhookEvent, asyncio.Future[None]]]] = {}

    async def put(self, namespace: str, policy: str, trigger: str, events: Sequence[tuple[str, str]]) -> None:
        """Hand over (identity, text) pairs; comes back when a pass has written down what they came to."""
        key = Key(kinds.RETRAINING_POLICY.kind, namespace, policy)
        waiting = self._pending.setdefault(key, [])
        if len(waiting) + len(events) > MAX_PENDING_EVENTS:
            raise WebhookQueueFull(f"RetrainingPolicy {namespace}/{policy} has {len(waiting)} messages that wait")
        done = [asyncio.get_running_loop().create_future() for _ in events]
        waiting += [(WebhookEvent(trigger, *event), one) for event, one in zip(events, done, strict=True)]
        self._enqueue(key)
        try:
            await asyncio.gather(*done)
        finally:
            for one in done:
                one.cancel()
            self._forget_cancelled(key)

    def pending_events(self, policy: Key) -> tuple[WebhookEvent, ...]:
        """What waits for a pass now, oldest first."""
        return tuple(message for message, done in self._pending.get(policy, ()) if not done.done())

    def _forget_cancelled(self, policy: Key) -> None:
        left = [(message, done) for message, done in self._pending.pop(policy, []) if not done.done()]
        if left:
            self._pending[policy] = left

    def acknowledge(self, policy: Key, messages: Sequence[WebhookEvent]) -> None:
        """What these messages came to is written down: their senders are told so."""
        dealt = set(messages)
        for message, done in self._pending.get(policy, ()):
            if message in dealt and not done.done():
                done.set_result(None)
        self._forget_cancelled(policy)
