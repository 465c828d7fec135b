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
        self._lines: dict[str, list[ResolveTicket]] = {}
        self._requested: dict[tuple[str, str, str], tuple[ResolveTicket, float]] = {}
        self._making: dict[str, set[tuple[str, str]]] = {}
        """Kind and name of the objects whose pods are being created and are not yet in the store."""

    def request_turn(self, namespace: str, claim: ResolveTicket, under_way: int, now: float) -> int | None:
        """Request a pod: None when it may be created now; else the number of tickets before this one in the queue.

        After None the caller creates the pod and calls `finish_making`. `under_way`: existing pods.
        """
        self.leave_queue(namespace, claim.kind, claim.name)
        under_way += len(self._making.get(namespace, ()))
        line = self._lines.setdefault(namespace, [])
        free = (self.max_pods if claim.rank < RANK_OTHER else self.max_pods - max(1, self.max_pods // 5)) - under_way
        self._drop_expired(namespace, line[: max(free, 1)], now)
        before = bisect.bisect_left(line, claim)
        if before < free:
            if not line:
                del self._lines[namespace]
            self._making.setdefault(namespace, set()).add((claim.kind, claim.name))
            return None
        line.insert(before, claim)
        self._requested[namespace, claim.kind, claim.name] = claim, now
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
        line = self._lines.get(namespace)
        if known is None or line is None:
            return
        line.pop(bisect.bisect_left(line, known[0]))
        if not line:
            del self._lines[namespace]

    def next_ticket(self, namespace: str) -> ResolveTicket | None:
        """Return the next ticket; None when the queue is empty."""
        line = self._lines.get(namespace)
        return line[0] if line else None

    def _drop_expired(self, namespace: str, claims: list[ResolveTicket], now: float) -> None:
        for claim in claims:
            if now - self._requested[namespace, claim.kind, claim.name][1] > FORGET_AFTER_SECONDS:
                self._requested.pop((namespace, claim.kind, claim.name))
                self._lines[namespace].remove(claim)
