"""Whose turn it is to have a resolve pod: a namespace has only so many at once, and who wants one waits in a line."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

RANK_STARTING, RANK_WANTED, RANK_OTHER = range(3)
"""Ranks: a Model that serves nothing yet wants it; a Model or a run wants it; nobody does now."""
FORGET_AFTER_SECONDS = 150.0
"""Seconds after which somebody who has not asked again has left the line."""


@dataclass(frozen=True, slots=True, order=True)
class ResolveTicket:
    """A place in a line: by rank, then the oldest first. `created`: as the API server writes times."""

    rank: int
    created: str
    kind: str
    name: str


class ResolveQueue:
    """The lines of all namespaces. Moments are of a monotonic clock, in seconds."""

    def __init__(self, most: int) -> None:
        """`most`: pods at once in a namespace. A fifth of them, at least one, is for claims that somebody wants."""
        self.max_pods = most
        self._lines: dict[str, list[ResolveTicket]] = {}
        self._requested: dict[tuple[str, str, str], tuple[ResolveTicket, float]] = {}
        self._making: dict[str, set[tuple[str, str]]] = {}
        """Kind and name of those whose pods are being made: nobody sees these pods yet."""

    def request_turn(self, namespace: str, claim: ResolveTicket, under_way: int, now: float) -> int | None:
        """None when a pod may be made at once, which the caller ends with `made`; else how many are before this claim,
        which is then in the line. `under_way`: pods that are there."""
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
        """The pod of this object was made, or could not be: from now on it counts, if it is there."""
        making = self._making.get(namespace, set())
        making.discard((kind, name))
        if not making:
            self._making.pop(namespace, None)

    def leave_queue(self, namespace: str, kind: str, name: str) -> None:
        """This object wants no pod any more, or has one."""
        known = self._requested.pop((namespace, kind, name), None)
        line = self._lines.get(namespace)
        if known is None or line is None:
            return
        line.pop(bisect.bisect_left(line, known[0]))
        if not line:
            del self._lines[namespace]

    def next_ticket(self, namespace: str) -> ResolveTicket | None:
        """Whose turn is next; None when nobody waits."""
        line = self._lines.get(namespace)
        return line[0] if line else None

    def _drop_expired(self, namespace: str, claims: list[ResolveTicket], now: float) -> None:
        for claim in claims:
            if now - self._requested[namespace, claim.kind, claim.name][1] > FORGET_AFTER_SECONDS:
                self._requested.pop((namespace, claim.kind, claim.name))
                self._lines[namespace].remove(claim)
