"""Namespaces of a shard: from which state on it may write in them, so that two shards never share one (docs/adr/0016).

A Namespace's label names its shard. Each shard's leader follows all Namespaces in the order of their changes, and
publishes in its Lease how far it has followed: up to there, it writes in no namespace that is not its own. A shard
becomes active in a namespace once the Lease of every other shard with a leader shows that it has followed the change
that assigned the namespace. No other agreement is needed, and a Lease is renewed anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from modelwright.api.names import LABEL_SHARD

DEFAULT_SHARD = "default"
"""The shard of namespaces without the label, and of objects without a namespace."""


class NamespaceNotOwned(Exception):
    """A write into a namespace in which this shard is not active (now)."""


class ClusterRestored(Exception):
    """The API server has an older state than the one followed so far: it was restored from a backup."""


def shard_of(labels: Mapping[str, str] | None) -> str:
    """Return the shard that the labels of a Namespace name."""
    return (labels or {}).get(LABEL_SHARD) or DEFAULT_SHARD


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """A Namespace as listed: its shard, and the resourceVersion of this state."""

    shard: str
    version: int


@dataclass(frozen=True, slots=True)
class PeerLease:
    """Another operator's Lease.

    `followed` is None while its leader has not published how far it has followed; an operator without shards never
    does. `led` is False once no process can hold it: given back, or expired.
    """

    name: str
    shard: str
    followed: int | None
    led: bool = True


@dataclass(frozen=True, slots=True)
class OwnershipChange:
    """Namespaces that came to this shard, and that left it. One in both has changed unobserved."""

    came: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.came or self.left)


NamespaceClaim = tuple[str, int]
"""A namespace, and the state since which it has been this shard's without a gap."""


@dataclass(slots=True)
class _TrackedNamespace:
    shard: str
    version: int
    since: int
    active: bool = False


class NamespaceOwnership:
    """The namespaces of the shard, as one of its processes knows them.

    Call `apply_list`, `apply_change`, `apply_deletion` and `apply_bookmark` in the order of the API server's events.
    """

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self._tracked: dict[str, _TrackedNamespace] = {}
        self._latest_version: int | None = None
        self._writing: Counter[NamespaceClaim] = Counter()
        self._ending: dict[NamespaceClaim, int] = {}
        """Claims given up while writes were pending, with the version at which `followed_version` stays until then."""

    @property
    def followed_version(self) -> int | None:
        """The version up to which this process has followed, for its Lease; None before the first list."""
        return (
            self._latest_version
            if self._latest_version is None
            else min((self._latest_version, *self._ending.values()))
        )

    def is_mine(self, namespace: str) -> bool:
        """Return whether the namespace is this shard's, active or not."""
        tracked = self._tracked.get(namespace)
        return tracked is not None and tracked.shard == self.shard

    def may_write(self, namespace: str) -> bool:
        """Return whether this shard may write there now; "" stands for objects without a namespace."""
        if not namespace:
            return self.shard == DEFAULT_SHARD
        tracked = self._tracked.get(namespace)
        return tracked is not None and tracked.active

    def current_claim(self, namespace: str) -> NamespaceClaim | None:
        """Return the claim by which this shard may write there now; None when it may not."""
        tracked = self._tracked.get(namespace)
        return (namespace, tracked.since) if tracked is not None and tracked.active else None

    def list_namespaces(self) -> tuple[str, ...]:
        """List the namespaces of this shard, active or not."""
        return tuple(name for name, tracked in self._tracked.items() if tracked.shard == self.shard)

    def pending_claims(self) -> tuple[NamespaceClaim, ...]:
        """List the claims that are not active yet. Call it before reading the Leases for `activate_claims`."""
        return tuple(
            (name, tracked.since)
            for name, tracked in self._tracked.items()
            if tracked.shard == self.shard and not tracked.active
        )

    def count_by_shard(self) -> Counter[str]:
        """Count the namespaces of each shard."""
        return Counter(tracked.shard for tracked in self._tracked.values())

    def apply_list(self, states: Mapping[str, NamespaceState], version: int) -> OwnershipChange:
        """Apply a list of all Namespaces, as of `version`.

        One of ours that has changed may have been another shard's in between: it leaves, and comes again.
        """
        if self._latest_version is not None and version < self._latest_version:
            raise ClusterRestored(f"Namespaces are listed as of {version}, after {self._latest_version} had been seen")
        came, left = [], []
        for name in tuple(self._tracked):
            if name not in states:
                left += self._leave_namespace(name)
                del self._tracked[name]
        for name, state in states.items():
            known = self._tracked.get(name)
            if known is not None and known.version == state.version:
                continue
            left += self._leave_namespace(name)
            came += self._enter_namespace(name, state)
        self._latest_version = version
        return OwnershipChange(tuple(came), tuple(left))

    def apply_change(self, name: str, state: NamespaceState) -> OwnershipChange:
        """Apply one change of a Namespace; a change that a list has already covered is ignored."""
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
        """Apply the deletion of a Namespace."""
        if self._latest_version is None or version <= self._latest_version:
            return OwnershipChange()
        left = self._leave_namespace(name)
        self._tracked.pop(name, None)
        self._latest_version = version
        return OwnershipChange(left=tuple(left))

    def apply_bookmark(self, version: int) -> None:
        """Apply a bookmark: nothing else has changed up to `version`."""
        if self._latest_version is not None and version > self._latest_version:
            self._latest_version = version

    def activate_claims(self, claims: Iterable[NamespaceClaim], peers: Iterable[PeerLease]) -> tuple[str, ...]:
        """Activate the claims to which every led peer gives way; return their namespaces."""
        led = [peer for peer in peers if peer.led]
        activated = []
        for name, since in claims:
            tracked = self._tracked.get(name)
            if tracked is None or tracked.shard != self.shard or tracked.since != since or tracked.active:
                continue
            if all(has_given_way(peer, self.shard, since) for peer in led):
                tracked.active = True
                activated.append(name)
        return tuple(activated)

    @contextmanager
    def guard_write(self, namespace: str) -> Iterator[NamespaceClaim]:
        """Guard a write; raises NamespaceNotOwned.

        For a write whose end isn't known, `begin_write` and `end_write` keep it pending.
        """
        if not self.may_write(namespace):
            place_text = f"namespace {namespace}" if namespace else "what belongs to no namespace"
            raise NamespaceNotOwned(f"shard {self.shard} does not work on {place_text} now")
        tracked = self._tracked.get(namespace)
        claim = (namespace, tracked.since if tracked is not None else 0)
        self.begin_write(claim)
        try:
            yield claim
        finally:
            self.end_write(claim)

    def begin_write(self, claim: NamespaceClaim) -> None:
        """Record that a write of this claim is pending."""
        self._writing[claim] += 1

    def end_write(self, claim: NamespaceClaim) -> None:
        """Record that a write of this claim has ended."""
        self._writing[claim] -= 1
        if not self._writing[claim]:
            del self._writing[claim]
            self._ending.pop(claim, None)

    def _enter_namespace(self, name: str, state: NamespaceState) -> list[str]:
        self._tracked[name] = _TrackedNamespace(state.shard, state.version, since=state.version)
        return [name] if state.shard == self.shard else []

    def _leave_namespace(self, name: str) -> list[str]:
        tracked = self._tracked.get(name)
        if tracked is None or tracked.shard != self.shard:
            return []
        claim = (name, tracked.since)
        if self._writing[claim] and self._latest_version is not None:
            self._ending[claim] = self._latest_version
        return [name]


def has_given_way(peer: PeerLease, shard: str, since: int) -> bool:
    """Return whether the leader of `peer` knows that a namespace is this shard's since that state, and has stopped.

    Another Lease for this same shard never gives way.
    """
    return peer.shard != shard and peer.followed is not None and peer.followed >= since
