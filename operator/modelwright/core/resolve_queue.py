"""Queue for resolve pods: each namespace has a limited number at once, and further objects wait in order."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

RANK_STARTING, RANK_WANTED, RANK_OTHER = range(3)
"""Ranks: needed by a Model that serves nothing yet; needed by a Model or a run; not needed now."""
FORGET_AFTER_SECONDS = 150.0
"""Seconds after which a ticket that was not requested again is dropped."""


@dataclass(frozen=True, slots=True, order=True)
class ResolveTicket:
    """A place in the queue: by rank, then the oldest first. `created` is a time as the API server writes it."""

    rank: int
    created: str
    kind: str
    name: str


class ResolveQueue:
    """The queues of all namespaces. Times are of a monotonic clock, in seconds."""

    def __init__(self, most: int) -> None:
        """`most`: pods at once in a namespace. A fifth of them, at least one, is reserved for the first two ranks."""
        self.max_pods = most
        self._queues: dict[str, list[ResolveTicket]] = {}
        self._requested: dict[tuple[str, str, str], tuple[ResolveTicket, float]] = {}
        self._making: dict[str, set[tuple[str, str]]] = {}
        """Kind and name of the objects whose pods are being created and are not yet in the store."""

    def request_turn(self, namespace: str, ticket: ResolveTicket, existing: int, now: float) -> int | None:
        """Request a pod: None when it may be created now; else the number of tickets before this one in the queue.

        After None the caller creates the pod and calls `finish_making`. `existing`: number of existing pods.
        """
        self.leave_queue(namespace, ticket.kind, ticket.name)
        existing += len(self._making.get(namespace, ()))
        queue = self._queues.setdefault(namespace, [])
        free = (self.max_pods if ticket.rank < RANK_OTHER else self.max_pods - max(1, self.max_pods // 5)) - existing
        self._drop_expired(namespace, queue[: max(free, 1)], now)
        before = bisect.bisect_left(queue, ticket)
        if before < free:
            if not queue:
                del self._queues[namespace]
            self._making.setdefault(namespace, set()).add((ticket.kind, ticket.name))
            return None
        queue.insert(before, ticket)
        self._requested[namespace, ticket.kind, ticket.name] = ticket, now
        return before

    def finish_making(self, namespace: str, kind: str, name: str) -> None:
        """Record that the pod of this object was created, or could not be: from now on it counts only if it exists."""
        making = self._making.get(namespace, set())
        making.discard((kind, name))
        if not making:
            self._making.pop(namespace, None)

    def leave_queue(self, namespace: str, kind: str, name: str) -> None:
        """Remove this object from the queue: it needs no pod any more, or has one."""
        known = self._requested.pop((namespace, kind, name), None)
        queue = self._queues.get(namespace)
        if known is None or queue is None:
            return
        queue.pop(bisect.bisect_left(queue, known[0]))
        if not queue:
            del self._queues[namespace]

    def next_ticket(self, namespace: str) -> ResolveTicket | None:
        """Return the next ticket; None when the queue is empty."""
        queue = self._queues.get(namespace)
        return queue[0] if queue else None

    def _drop_expired(self, namespace: str, tickets: list[ResolveTicket], now: float) -> None:
        for ticket in tickets:
            if now - self._requested[namespace, ticket.kind, ticket.name][1] > FORGET_AFTER_SECONDS:
                self._requested.pop((namespace, ticket.kind, ticket.name))
                self._queues[namespace].remove(ticket)
