"""Which namespaces a shard works on, and from when: never two shards on one namespace (docs/adr/0016).

A Namespace's label names its shard. Each shard's leader follows all Namespaces in the order of their changes, and says
in its Lease how far it has followed: from there back, it writes in no namespace that was not its own. A shard begins in
a namespace once the Lease of every other shard that has a leader says that it has followed to the change that gave the
namespace to it. Nothing else is agreed on, and a Lease is renewed anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from modelwright.api.names import LABEL_SHARD

DEFAULT = "default"
"""The shard of a namespace without the label, and of what belongs to no namespace."""


class NotOurs(Exception):
    """A write into a namespace that this shard does not work on (now)."""


class WentBack(Exception):
    """The API server knows an older state than the one followed so far: it was restored from a backup."""


def shard_of(labels: Mapping[str, str] | None) -> str:
    """The shard that the labels of a Namespace name."""
    return (labels or {}).get(LABEL_SHARD) or DEFAULT


@dataclass(frozen=True, slots=True)
class State:
    """A Namespace as listed: its shard, and the resourceVersion of this state."""

    shard: str
    version: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Another Lease of an operator. `followed` is None when its leader has not said how far it has followed, as one
    that isn't sharded never does. `led` is False once nobody can hold it: given back, or run out."""

    name: str
    shard: str
    followed: int | None
    led: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """Namespaces that have come to this shard, and that have left it. One in both has changed unseen."""

    came: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.came or self.left)


Claim = tuple[str, int]
"""A namespace, and the state from which on it has been this shard's without a gap."""


@dataclass(slots=True)
class _Place:
    shard: str
    version: int
    since: int
    begun: bool = False


class Ownership:
    """What one process of the shard knows. `listed`, `changed` and `passed` are to be called in the order in which the
    API server tells of Namespaces."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self._places: dict[str, _Place] = {}
        self._seen: int | None = None
        self._writing: Counter[Claim] = Counter()
        self._ending: dict[Claim, int] = {}
        """Claims given up while writes were under way, and how far has been followed at most until those have ended."""

    @property
    def followed(self) -> int | None:
        """How far this process has followed, for its Lease; None before the first list."""
        return self._seen if self._seen is None else min((self._seen, *self._ending.values()))

    def mine(self, namespace: str) -> bool:
        """Whether the namespace is this shard's, begun or not."""
        place = self._places.get(namespace)
        return place is not None and place.shard == self.shard

    def may_write(self, namespace: str) -> bool:
        """Whether this shard may write there now; "" is for what belongs to no namespace."""
        if not namespace:
            return self.shard == DEFAULT
        place = self._places.get(namespace)
        return place is not None and place.begun

    def claim(self, namespace: str) -> Claim | None:
        """What this shard may write there by now; None when it may not."""
        place = self._places.get(namespace)
        return (namespace, place.since) if place is not None and place.begun else None

    def namespaces(self) -> tuple[str, ...]:
        """Those of this shard, begun or not."""
        return tuple(name for name, place in self._places.items() if place.shard == self.shard)

    def waiting(self) -> tuple[Claim, ...]:
        """What is this shard's and not begun. To be taken before the Leases are read that `begin` judges by."""
        return tuple(
            (name, place.since) for name, place in self._places.items() if place.shard == self.shard and not place.begun
        )

    def sizes(self) -> Counter[str]:
        """How many namespaces each shard has."""
        return Counter(place.shard for place in self._places.values())

    def listed(self, found: Mapping[str, State], version: int) -> Change:
        """Take a list of all Namespaces, as of `version`.

        One of ours that has changed meanwhile may have been another's in between: it is given up, and comes again.
        """
        if self._seen is not None and version < self._seen:
            raise WentBack(f"Namespaces are listed as of {version}, after {self._seen} had been seen")
        came, left = [], []
        for name in tuple(self._places):
            if name not in found:
                left += self._leave(name)
                del self._places[name]
        for name, state in found.items():
            known = self._places.get(name)
            if known is not None and known.version == state.version:
                continue
            left += self._leave(name)
            came += self._enter(name, state)
        self._seen = version
        return Change(tuple(came), tuple(left))

    def changed(self, name: str, state: State) -> Change:
        """Take one change of a Namespace. What a list has covered already is passed over."""
        if self._seen is None or state.version <= self._seen:
            return Change()
        known = self._places.get(name)
        change = Change()
        if known is not None and known.shard == state.shard:
            known.version = state.version
        else:
            left = self._leave(name)
            change = Change(tuple(self._enter(name, state)), tuple(left))
        self._seen = state.version
        return change

    def deleted(self, name: str, version: int) -> Change:
        """Take the end of a Namespace."""
        if self._seen is None or version <= self._seen:
            return Change()
        left = self._leave(name)
        self._places.pop(name, None)
        self._seen = version
        return Change(left=tuple(left))

    def passed(self, version: int) -> None:
        """Nothing else has changed up to `version` (a bookmark)."""
        if self._seen is not None and version > self._seen:
            self._seen = version

    def begin(self, claims: Iterable[Claim], peers: Iterable[Peer]) -> tuple[str, ...]:
        """The namespaces of `claims` that this shard may write in from now on."""
        led = [peer for peer in peers if peer.led]
        begun = []
        for name, since in claims:
            place = self._places.get(name)
            if place is None or place.shard != self.shard or place.since != since or place.begun:
                continue
            if all(gives_way(peer, self.shard, since) for peer in led):
                place.begun = True
                begun.append(name)
        return tuple(begun)

    @contextmanager
    def writing(self, namespace: str) -> Iterator[Claim]:
        """Around a write; raises NotOurs. A write whose end isn't known is kept under way by `hold` and `let_go`."""
        if not self.may_write(namespace):
            what = f"namespace {namespace}" if namespace else "what belongs to no namespace"
            raise NotOurs(f"shard {self.shard} does not work on {what} now")
        place = self._places.get(namespace)
        claim = (namespace, place.since if place is not None else 0)
        self.hold(claim)
        try:
            yield claim
        finally:
            self.let_go(claim)

    def hold(self, claim: Claim) -> None:
        """A write of this claim is under way."""
        self._writing[claim] += 1

    def let_go(self, claim: Claim) -> None:
        """It has ended."""
        self._writing[claim] -= 1
        if not self._writing[claim]:
            del self._writing[claim]
            self._ending.pop(claim, None)

    def _enter(self, name: str, state: State) -> list[str]:
        self._places[name] = _Place(state.shard, state.version, since=state.version)
        return [name] if state.shard == self.shard else []

    def _leave(self, name: str) -> list[str]:
        place = self._places.get(name)
        if place is None or place.shard != self.shard:
            return []
        claim = (name, place.since)
        if self._writing[claim] and self._seen is not None:
            self._ending[claim] = self._seen
        return [name]


def gives_way(peer: Peer, shard: str, since: int) -> bool:
    """Whether the leader of `peer` has seen that a namespace is this shard's since that state, and writes there no
    more. Another Lease for this same shard never does."""
    return peer.shard != shard and peer.followed is not None and peer.followed >= since
