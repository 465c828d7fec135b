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

DEFAULT_SHARD = "default"
"""The shard of a namespace without the label, and of what belongs to no namespace."""


class NamespaceNotOwned(Exception):
    """A write into a namespace that this shard does not work on (now)."""


class ClusterRestored(Exception):
    """The API server knows an older state than the one followed so far: it was restored from a backup."""


def shard_of(labels: Mapping[str, str] | None) -> str:
    """The shard that the labels of a Namespace name."""
    return (labels or {}).get(LABEL_SHARD) or DEFAULT_SHARD


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """A Namespace as listed: its shard, and the resourceVersion of this state."""

    shard: str
    version: int


@dataclass(frozen=True, slots=True)
class PeerLease:
    """Another Lease of an operator. `followed` is None when its leader has not said how far it has followed, as one
    that isn't sharded never does. `led` is False once nobody can hold it: given back, or run out."""

    name: str
    shard: str
    followed: int | None
    led: bool = True


@dataclass(frozen=True, slots=True)
class OwnershipChange:
    """Namespaces that have come to this shard, and that have left it. One in both has changed unseen."""

    came: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.came or self.left)


NamespaceClaim = tuple[str, int]
"""A namespace, and the state from which on it has been this shard's without a gap."""


@dataclass(slots=True)
class _TrackedNamespace:
    shard: str
    version: int
    since: int
    active: bool = False


class NamespaceOwnership:
    """What one process of the shard knows. `listed`, `changed` and `passed` are to be called in the order in which the
    API server tells of Namespaces."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self._tracked: dict[str, _TrackedNamespace] = {}
        self._latest_version: int | None = None
        self._writing: Counter[NamespaceClaim] = Counter()
        self._ending: dict[NamespaceClaim, int] = {}
        """Claims given up while writes were under way, and how far has been followed at most until those have ended."""

    @property
    def followed_version(self) -> int | None:
        """How far this process has followed, for its Lease; None before the first list."""
        return (
            self._latest_version
            if self._latest_version is None
            else min((self._latest_version, *self._ending.values()))
        )

    def is_mine(self, namespace: str) -> bool:
        """Whether the namespace is this shard's, begun or not."""
        place = self._tracked.get(namespace)
        return place is not None and place.shard == self.shard

    def may_write(self, namespace: str) -> bool:
        """Whether this shard may write there now; "" is for what belongs to no namespace."""
        if not namespace:
            return self.shard == DEFAULT_SHARD
        place = self._tracked.get(namespace)
        return place is not None and place.active

    def current_claim(self, namespace: str) -> NamespaceClaim | None:
        """What this shard may write there by now; None when it may not."""
        place = self._tracked.get(namespace)
        return (namespace, place.since) if place is not None and place.active else None

    def list_namespaces(self) -> tuple[str, ...]:
        """Those of this shard, begun or not."""
        return tuple(name for name, place in self._tracked.items() if place.shard == self.shard)

    def pending_claims(self) -> tuple[NamespaceClaim, ...]:
        """What is this shard's and not begun. To be taken before the Leases are read that `begin` judges by."""
        return tuple(
            (name, place.since)
            for name, place in self._tracked.items()
            if place.shard == self.shard and not place.active
        )

    def count_by_shard(self) -> Counter[str]:
        """How many namespaces each shard has."""
        return Counter(place.shard for place in self._tracked.values())

    def apply_list(self, found: Mapping[str, NamespaceState], version: int) -> OwnershipChange:
        """Take a list of all Namespaces, as of `version`.

        One of ours that has changed meanwhile may have been another's in between: it is given up, and comes again.
        """
        if self._latest_version is not None and version < self._latest_version:
            raise ClusterRestored(f"Namespaces are listed as of {version}, after {self._latest_version} had been seen")
        came, left = [], []
        for name in tuple(self._tracked):
            if name not in found:
                left += self._leave_namespace(name)
                del self._tracked[name]
        for name, state in found.items():
            known = self._tracked.get(name)
            if known is not None and known.version == state.version:
                continue
            left += self._leave_namespace(name)
            came += self._enter_namespace(name, state)
        self._latest_version = version
        return OwnershipChange(tuple(came), tuple(left))

    def apply_change(self, name: str, state: NamespaceState) -> OwnershipChange:
        """Take one change of a Namespace. What a list has covered already is passed over."""
        if self._latest_version is None or state.version <= self._latest_version:
            return OwnershipChange()
        known = self._tracked.get(name)
        change = OwnershipChange()
        if known is not None and known.shard == state.shard:
            known.version = state.version
        else:
            left = self._leave_namespace(name)
            change = OwnershipChange(tuple(self._enter_namespace(name, state)), tuple(left))
        self._latest_version = state.version
        return change

    def apply_deletion(self, name: str, version: int) -> OwnershipChange:
        """Take the end of a Namespace."""
        if self._latest_version is None or version <= self._latest_version:
            return OwnershipChange()
        left = self._leave_namespace(name)
        self._tracked.pop(name, None)
        self._latest_version = version
        return OwnershipChange(left=tuple(left))

    def apply_bookmark(self, version: int) -> None:
        """Nothing else has changed up to `version` (a bookmark)."""
        if self._latest_version is not None and version > self._latest_version:
            self._latest_version = version

    def activate_claims(self, claims: Iterable[NamespaceClaim], peers: Iterable[PeerLease]) -> tuple[str, ...]:
        """The namespaces of `claims` that this shard may write in from now on."""
        led = [peer for peer in peers if peer.led]
        begun = []
        for name, since in claims:
            place = self._tracked.get(name)
            if place is None or place.shard != self.shard or place.since != since or place.active:
                continue
            if all(has_given_way(peer, self.shard, since) for peer in led):
                place.active = True
                begun.append(name)
        return tuple(begun)

    @contextmanager
    def guard_write(self, namespace: str) -> Iterator[NamespaceClaim]:
        """Around a write; raises NotOurs. A write whose end isn't known is kept under way by `hold` and `let_go`."""
        if not self.may_write(namespace):
            what = f"namespace {namespace}" if namespace else "what belongs to no namespace"
            raise NamespaceNotOwned(f"shard {self.shard} does not work on {what} now")
        place = self._tracked.get(namespace)
        claim = (namespace, place.since if place is not None else 0)
        self.begin_write(claim)
        try:
            yield claim
        finally:
            self.end_write(claim)

    def begin_write(self, claim: NamespaceClaim) -> None:
        """A write of this claim is under way."""
        self._writing[claim] += 1

    def end_write(self, claim: NamespaceClaim) -> None:
        """It has ended."""
        self._writing[claim] -= 1
        if not self._writing[claim]:
            del self._writing[claim]
            self._ending.pop(claim, None)

    def _enter_namespace(self, name: str, state: NamespaceState) -> list[str]:
        self._tracked[name] = _TrackedNamespace(state.shard, state.version, since=state.version)
        return [name] if state.shard == self.shard else []

    def _leave_namespace(self, name: str) -> list[str]:
        place = self._tracked.get(name)
        if place is None or place.shard != self.shard:
            return []
        claim = (name, place.since)
        if self._writing[claim] and self._latest_version is not None:
            self._ending[claim] = self._latest_version
        return [name]


def has_given_way(peer: PeerLease, shard: str, since: int) -> bool:
    """Whether the leader of `peer` has seen that a namespace is this shard's since that state, and writes there no
    more. Another Lease for this same shard never does."""
    return peer.shard != shard and peer.followed is not None and peer.followed >= since
