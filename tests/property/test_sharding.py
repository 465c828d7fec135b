"""Shards under every order of events, delays, lost streams, deaths and elections: never two writers in a namespace, and
each namespace is worked on in the end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.core.sharding import NamespaceClaim, NamespaceOwnership, NamespaceState, PeerLease

SHARDS = ("default", "red", "blue")
NAMESPACES = ("one", "two")
STEPS = 400


@dataclass
class Lease:
    """A Lease as on the API server. `run_out`: its holder has not renewed it for so long that it may not write."""

    holder: Process | None = None
    followed: int | None = None
    run_out: bool = False


@dataclass(eq=False)
class Process:
    """A replica of a shard's operator. `position`: what its stream of Namespaces has brought so far."""

    own: NamespaceOwnership
    position: int = 0
    fresh: bool = False
    alive: bool = True
    claims: tuple[NamespaceClaim, ...] = ()
    peers: list[PeerLease] | None = None
    writes: list[tuple[NamespaceClaim, Callable[[], None]]] = field(default_factory=list)

    @property
    def shard(self) -> str:
        return self.own.shard


class World:
    """An API server with Namespaces and Leases, and two replicas a shard. Each step is one thing that may happen."""

    def __init__(self) -> None:
        self.version = 1
        self.log: list[tuple[int, str, str | None]] = []
        self.now: dict[str, NamespaceState] = {}
        self.leases = {shard: Lease() for shard in SHARDS}
        self.processes = [Process(NamespaceOwnership(shard)) for shard in SHARDS for _ in range(2)]
        for name in NAMESPACES:
            self.label(name, "default")
        for process in self.processes:
            self.relist(process)

    def label(self, name: str, shard: str | None) -> None:
        """A person sets, or leaves, the label; None deletes the Namespace."""
        self.version += 1
        self.log.append((self.version, name, shard))
        if shard is None:
            self.now.pop(name, None)
        else:
            self.now[name] = NamespaceState(shard, self.version)

    def leads(self, process: Process) -> bool:
        lease = self.leases[process.shard]
        return process.alive and lease.holder is process and not lease.run_out

    def may_write(self, process: Process, name: str) -> bool:
        return self.leads(process) and process.fresh and process.own.may_write(name)

    def relist(self, process: Process) -> None:
        """Its stream was too old, or it was just elected: what the stream brings after that may be older."""
        process.own.apply_list(self.now, self.version)

    def next_event(self, process: Process) -> None:
        for version, name, shard in self.log:
            if version > process.position:
                process.position = version
                if shard is None:
                    process.own.apply_deletion(name, version)
                else:
                    process.own.apply_change(name, NamespaceState(shard, version))
                return
        process.own.apply_bookmark(self.version)

    def elect(self, process: Process) -> None:
        lease = self.leases[process.shard]
        if process.alive and (lease.holder is None or lease.run_out) and lease.holder is not process:
            if lease.holder is not None:
                lease.holder.alive = False
            self.leases[process.shard] = Lease(process)
            process.fresh = False

    def list_first(self, process: Process) -> None:
        if self.leads(process) and not process.fresh:
            self.relist(process)
            process.fresh = True

    def renew(self, process: Process) -> None:
        if self.leads(process):
            self.leases[process.shard].followed = process.own.followed_version if process.fresh else None

    def die(self, process: Process) -> None:
        """kill -9; the Lease runs out later, and another process may come in its place."""
        process.alive = False
        process.writes.clear()

    def run_out(self, shard: str) -> None:
        """Its holder, dead or cut off, has not renewed it for too long."""
        lease = self.leases[shard]
        if lease.holder is not None:
            lease.run_out = True
            self.die(lease.holder)

    def give_back(self, process: Process) -> None:
        if self.leads(process) and not process.writes:
            self.leases[process.shard] = Lease()
            self.die(process)

    def restart(self, process: Process) -> None:
        if not process.alive:
            place = self.processes.index(process)
            self.processes[place] = Process(NamespaceOwnership(process.shard))
            self.relist(self.processes[place])

    def judge(self, process: Process) -> None:
        """In three steps, so that anything may happen between: what waits, the Leases as they are then, the verdict."""
        if not (self.leads(process) and process.fresh):
            process.claims, process.peers = (), None
        elif not process.claims:
            process.claims = process.own.pending_claims()
        elif process.peers is None:
            process.peers = [
                PeerLease(shard, shard, lease.followed, led=lease.holder is not None and not lease.run_out)
                for shard, lease in self.leases.items()
                if shard != process.shard
            ]
        else:
            process.own.activate_claims(process.claims, process.peers)
            process.claims, process.peers = (), None

    def write(self, process: Process, name: str) -> None:
        """A write that is sent now and ends later."""
        if self.may_write(process, name):
            context = process.own.guard_write(name)
            claim = context.__enter__()
            process.writes.append((claim, lambda: (context.__exit__(None, None, None), None)[1]))

    def end_write(self, process: Process) -> None:
        if process.writes:
            process.writes.pop(0)[1]()

    def writers(self, name: str) -> set[str]:
        """The shards that could change something there now."""
        return {
            process.shard
            for process in self.processes
            if self.may_write(process, name)
            or (self.leads(process) and any(claim[0] == name for claim, _ in process.writes))
        }

    def step(self, rng: random.Random) -> None:
        """Something happens: mostly what happens all the time."""
        process, name = rng.choice(self.processes), rng.choice(NAMESPACES)
        often: tuple[Callable[[], None], ...] = (
            lambda: self.next_event(process),
            lambda: self.renew(process),
            lambda: self.judge(process),
            lambda: self.write(process, name),
            lambda: self.end_write(process),
        )
        sometimes = (
            lambda: self.label(name, rng.choice(SHARDS)),
            lambda: self.elect(process),
            lambda: self.list_first(process),
            lambda: self.relist(process),
            lambda: self.restart(process),
        )
        seldom = (
            lambda: self.label(name, None),
            lambda: self.die(process),
            lambda: self.run_out(process.shard),
            lambda: self.give_back(process),
        )
        rng.choice(rng.choices((often, sometimes, seldom), (16, 6, 1))[0])()

    def settle(self) -> None:
        """Everybody gets to do everything, and nothing more happens."""
        for shard, lease in self.leases.items():
            if lease.holder is not None and not lease.holder.alive:
                self.run_out(shard)
        for process in self.processes:
            self.restart(process)
        for process in self.processes:
            self.elect(process)
            self.list_first(process)
            while process.writes:
                self.end_write(process)
            while process.position < self.version:
                self.next_event(process)
        for _ in range(2):
            for process in self.processes:
                self.renew(process)
        for _ in range(6):
            for process in self.processes:
                self.judge(process)


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_never_two_writers_and_one_in_the_end(seed: int) -> None:
    rng, world = random.Random(seed), World()
    world.settle()
    for number in range(STEPS):
        world.step(rng)
        for name in NAMESPACES:
            assert len(world.writers(name)) <= 1, (number, name)
    world.settle()
    for name in NAMESPACES:
        assert world.writers(name) == ({world.now[name].shard} if name in world.now else set())
