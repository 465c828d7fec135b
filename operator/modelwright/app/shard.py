"""What an operator of a shard has instead of Kopf's watches: it follows Namespaces, loads those that come, drops those
that leave, and begins in one when the Leases of all other shards allow it (docs/adr/0016)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from modelwright.api.names import LABEL_SHARD, OPERATOR_LEASE
from modelwright.app.settings import Settings
from modelwright.app.tasks import cancel
from modelwright.core.sharding import DEFAULT, Change, Ownership, Peer, State, WentBack, gives_way, shard_of
from modelwright.kube import errors, kinds
from modelwright.kube.lease import ADDRESS, FOLLOWED, POD_UID, LeaderElector
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.runner import Reconciler, Result
from modelwright.kube.sharded import AT_ONCE, EVERYWHERE, PASS, ShardStore, namespaces_to_list
from modelwright.kube.streams import AT_A_TURN, Stream, StreamClient
from modelwright.kube.sweep import Place, Watched
from modelwright.obs import metrics
from modelwright.obs.clock import Clock
from modelwright.reconcile import routing
from modelwright.reconcile.history import orphans

log = logging.getLogger(__name__)

Object = dict[str, Any]
T = TypeVar("T")

RETRY_SECONDS = 2.0
OTHERS_SECONDS = 30.0
WAITS_LONG_SECONDS = 30.0


class Shard:
    """One process of a shard: `run` follows and loads; `lead` begins, once this process holds the shard's Lease."""

    def __init__(
        self,
        settings: Settings,
        own: Ownership,
        client: StreamClient,
        store: ShardStore,
        queue: WorkQueue,
        elector: LeaderElector,
        *,
        clock: Clock,
        stop: Callable[[str, int], None],
    ) -> None:
        self._settings = settings
        self._own = own
        self._client = client
        self._store = store
        self._queue = queue
        self._elector = elector
        self._clock = clock
        self._stop = stop
        self._watched: tuple[Watched, ...] = ()
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._complete: set[str] = set()
        self._initial: set[str] = set()
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._came = asyncio.Event()
        self._leases = Leases(settings, clock)
        self.followed = asyncio.Event()
        """Set once the Namespaces are known."""
        self.loaded = asyncio.Event()
        """Set once the store holds everything that it should."""

    def complete(self, namespace: str) -> bool:
        """Whether everything of a namespace is in the store."""
        return namespace in self._complete

    def gate(self, reconcile: Reconciler) -> Reconciler:
        """`reconcile`, but for objects of a namespace that has come and isn't begun: they have their turn then."""

        async def gated(key: Key) -> Result:
            place = key.namespace
            if place and self._own.mine(place) and not (self._own.may_write(place) and place in self._complete):
                return Result()
            token = PASS.set(self._own.claim(place))
            try:
                return await reconcile(key)
            finally:
                PASS.reset(token)

        return gated

    async def run(self, watched: Iterable[Watched], stopping: asyncio.Event) -> None:
        """Follow Namespaces and all watched kinds until `stopping` is set."""
        self._watched = tuple(watched)
        listed = {what.kind: asyncio.Event() for what in self._watched}
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._namespaces().run(), name="Namespaces")]
        stop = asyncio.create_task(stopping.wait(), name="stopping")
        try:
            tasks.append(asyncio.create_task(self.followed.wait(), name="Namespaces are known"))
            await _first({stop, *tasks})
            tasks += [
                asyncio.create_task(self._stream(what, listed[what.kind]).run(), name=what.kind.kind)
                for what in self._watched
            ]
            tasks.append(asyncio.create_task(self._all_listed(listed.values()), name="first lists"))
            while not stop.done():
                done = await _first({stop, *tasks})
                for task in done - {stop}:
                    task.result()
                    tasks.remove(task)
        finally:
            for task in (stop, *tasks, *self._loads.values()):
                await cancel(task)
            await self._client.close()

    async def lead(self) -> None:
        """Begin in the shard's namespaces as the other shards' Leases allow, until cancelled. To be called once this
        process holds the Lease: what it has followed so far may be older than what others know."""
        await self._answered(self._list_namespaces)
        self._elector.followed = lambda: self._own.followed
        waiting_since: dict[tuple[str, int], float] = {}
        others = self._clock.monotonic()
        while True:
            self._came.clear()
            claims = self._own.waiting()
            report = self._settings.shard == DEFAULT and self._clock.monotonic() >= others
            if claims or report:
                leases = await self._answered(self._read_leases)
                peers = self._leases.peers(leases)
                begun = self._own.begin(claims, peers)
                for name in begun:
                    log.info("a namespace is this shard's", extra={"namespace": name})
                self._enqueue(begun)
                self._complain(waiting_since, peers)
            if report:
                others = self._clock.monotonic() + OTHERS_SECONDS
                self._leases.report(self._own, leases)
            await self._until_next(bool(self._own.waiting()), others)

    async def _until_next(self, waiting: bool, others: float) -> None:
        if waiting:
            await self._clock.sleep(self._settings.lease_retry_seconds / 2)
            return
        came = asyncio.create_task(self._came.wait())
        try:
            left = max(0.0, others - self._clock.monotonic()) if self._settings.shard == DEFAULT else None
            await asyncio.wait({came}, timeout=left)
        finally:
            await cancel(came)

    async def _read_leases(self) -> list[Object]:
        found, _ = await self._client.listed(kinds.LEASE, self._settings.namespace)
        return found

    def _complain(self, since: dict[tuple[str, int], float], peers: list[Peer]) -> None:
        """Say who is waited for for long."""
        now, waiting = self._clock.monotonic(), self._own.waiting()
        for claim in set(since) - set(waiting):
            del since[claim]
        late = [claim for claim in waiting if now - since.setdefault(claim, now) > WAITS_LONG_SECONDS]
        if not late:
            return
        newest = max(version for _, version in late)
        whom = [peer for peer in peers if peer.led and not gives_way(peer, self._settings.shard, newest)]
        text = "namespaces are not begun in: another Lease is held that doesn't say that its holder has left them"
        leases = [f"{peer.name} ({f'shard {peer.shard}' if peer.shard else 'no shard'})" for peer in whom]
        log.warning(text, extra={"namespaces": [name for name, _ in late][:20], "leases": leases})
        since.update(dict.fromkeys(waiting, now))

    def _namespaces(self) -> Stream:
        return Stream(
            self._client, kinds.NAMESPACE, relist=self._list_namespaces, take=self._take_namespace,
            passed=lambda version: self._own.passed(int(version)), metadata_only=True, clock=self._clock,
        )  # fmt: skip

    async def _list_namespaces(self) -> str:
        found, version = await self._client.listed(kinds.NAMESPACE, metadata_only=True)
        states = {obj["metadata"]["name"]: _state(obj) for obj in found}
        try:
            change = self._own.listed(states, int(version))
        except WentBack as error:
            self._stop(str(error), 1)
            return version
        self._take(change)
        if not self.followed.is_set():
            log.info("the shard's namespaces are known", extra={"namespaces": len(self._own.namespaces())})
            self.followed.set()
        return version

    def _take_namespace(self, event: str, obj: Object) -> None:
        name, state = obj["metadata"]["name"], _state(obj)
        self._take(self._own.deleted(name, state.version) if event == "DELETED" else self._own.changed(name, state))

    def _take(self, change: Change) -> None:
        for name in change.left:
            log.info("a namespace has left this shard, or has to be asked for again", extra={"namespace": name})
            self._initial.discard(name)
            self._complete.discard(name)
            if (load := self._loads.pop(name, None)) is not None:
                load.cancel()
            self._store.leave(name)
        for name in change.came:
            if self.followed.is_set():
                self._loads[name] = asyncio.create_task(self._load_namespace(name), name=f"load {name}")
            else:
                self._initial.add(name)
        if change:
            self._came.set()

    async def _all_listed(self, events: Iterable[asyncio.Event]) -> None:
        for event in events:
            await event.wait()
        self._complete |= self._initial
        self._enqueue([name for name in self._initial if self._own.may_write(name)])
        self._initial.clear()
        self.loaded.set()

    async def _load_namespace(self, name: str) -> None:
        """Everything of a namespace that came; what happens meanwhile comes by the streams."""
        of_it = [what for what in self._watched if what.kind.namespaced and what.kind not in EVERYWHERE]
        for what in of_it:
            await self._answered(partial(self._load, what, name))
        self._loads.pop(name, None)
        self._complete.add(name)
        self._store.complete(name)
        if self._own.may_write(name):
            self._enqueue([name])

    def _enqueue(self, namespaces: Collection[str]) -> None:
        """Everything of these namespaces has a pass."""
        if not namespaces:
            return
        among = frozenset(namespaces)
        for kind in routing.LOOKED_AT:
            for place, name in self._store.names(kind):
                if place in among:
                    self._queue.add(Key(kind.kind, place, name))
        for key in orphans(self._store):
            if key.namespace in among:
                self._queue.add(key)

    def _stream(self, what: Watched, listed: asyncio.Event) -> Stream:
        async def relist() -> str:
            version = await self._client.version(what.kind)
            namespaces = namespaces_to_list(what.kind, self._own.namespaces())
            await asyncio.gather(*(self._load(what, namespace) for namespace in namespaces))
            listed.set()
            return version

        everything = not what.kind.namespaced or what.kind in EVERYWHERE or what.kind == kinds.MODEL
        return Stream(
            self._client, what.kind, relist=relist, take=lambda event, obj: self._sink(what, event, obj),
            labels=what.labels, wanted=None if everything else self._any_mine, clock=self._clock,
        )  # fmt: skip

    def _sink(self, what: Watched, event: str, obj: Object) -> None:
        try:
            self._store.apply(what.kind, event, obj)
        except Exception:
            name = obj["metadata"].get("name")
            log.exception("a watched event could not be taken", extra={"kind": what.kind.kind, "object": name})

    def _any_mine(self, named: list[bytes]) -> bool:
        return any(self._own.mine(name.decode("utf-8", "replace")) for name in named)

    async def _load(self, what: Watched, namespace: str | None) -> None:
        """List a kind, of one namespace or all, into the store; what isn't listed any more is dropped."""
        async with self._gate:
            of = (what.kind, kinds.ENDPOINT) if what.kind == kinds.MODEL else (what.kind,)
            before = {kind: self._store.identities(kind) for kind in of}
            there: set[Place] = set()
            async for objects, _ in self._client.pages(what.kind, namespace, labels=what.labels):
                for number, obj in enumerate(objects):
                    there.add((obj["metadata"].get("namespace") or "", obj["metadata"]["name"]))
                    self._sink(what, "ADDED", obj)
                    if not number % AT_A_TURN:
                        await asyncio.sleep(0)
        for kind, known in before.items():
            for place, identity in known.items():
                if namespace in (None, place[0]) and place not in there:
                    self._store.forget(kind, *place, identity.uid, last=identity.resource_version)

    async def _answered(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        while True:
            try:
                return await ask()
            except errors.ApiError as error:
                log.warning("a list failed, trying again", extra={"error": str(error)})
                await self._clock.sleep(RETRY_SECONDS)


class Leases:
    """The Leases of other operators, as this process sees them by its own clock."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._seen: dict[str, tuple[str, float]] = {}
        self._without: frozenset[str] = frozenset()

    def peers(self, leases: Iterable[Object]) -> list[Peer]:
        """All operators' Leases but this shard's own."""
        found = []
        for lease in leases:
            metadata = lease["metadata"]
            labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
            ours = LABEL_SHARD in labels or ADDRESS in annotations or POD_UID in annotations
            if metadata["name"] == self._settings.lease_name or not (ours or metadata["name"] == OPERATOR_LEASE):
                continue
            followed = str(annotations.get(FOLLOWED, ""))
            until = int(followed) if followed.isdecimal() else None
            found.append(Peer(metadata["name"], labels.get(LABEL_SHARD, ""), until, self._led(lease)))
        return found

    def report(self, own: Ownership, leases: Iterable[Object]) -> None:
        """For people: how many namespaces each shard has, and whether it has a leader."""
        led = {peer.shard for peer in self.peers(leases) if peer.led} | {own.shard}
        sizes = own.sizes()
        metrics.SHARD_NAMESPACES.clear()
        metrics.SHARD_LED.clear()
        for shard in {*sizes, *led} - {""}:
            metrics.SHARD_NAMESPACES.labels(shard).set(sizes[shard])
            metrics.SHARD_LED.labels(shard).set(shard in led)
        without = frozenset(sizes) - led
        if without and without != self._without:
            text = "namespaces name a shard that has no leader: nobody works on them"
            log.warning(text, extra={"shards": sorted(without)})
        self._without = without

    def _led(self, lease: Object) -> bool:
        spec, metadata = lease.get("spec") or {}, lease["metadata"]
        if not spec.get("holderIdentity"):
            return False
        name, version, now = metadata["name"], str(metadata["resourceVersion"]), self._clock.monotonic()
        if self._seen.get(name, ("", 0.0))[0] != version:
            self._seen[name] = (version, now)
        # One that is first seen counts from then on, however old it says it is.
        return now - self._seen[name][1] < float(spec.get("leaseDurationSeconds") or self._settings.lease_seconds)


def _state(obj: Object) -> State:
    return State(shard_of(obj["metadata"].get("labels")), int(obj["metadata"]["resourceVersion"]))


async def _first(tasks: Collection[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done
