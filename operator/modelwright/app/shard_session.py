"""Replaces Kopf's watches in the operator of a shard: follows Namespaces, loads those that join, drops those that
leave, and starts working in one when the Leases of all other shards allow it (docs/adr/0016)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from modelwright.api.names import LABEL_SHARD, OPERATOR_LEASE
from modelwright.app.enqueue import enqueue_namespaces
from modelwright.app.settings import Settings
from modelwright.app.tasks import cancel_task
from modelwright.core.sharding import (
    DEFAULT_SHARD,
    ClusterRestored,
    NamespaceOwnership,
    NamespaceState,
    OwnershipChange,
    PeerLease,
    has_given_way,
    shard_of,
)
from modelwright.kube import api_errors, kinds
from modelwright.kube.kind_stream import MAX_EVENTS_PER_TURN, KindStream, StreamClient, StreamHandler
from modelwright.kube.lease import ANNOTATION_ADDRESS, ANNOTATION_FOLLOWED, ANNOTATION_POD_UID, LeaderElector
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.resync import WatchedKind
from modelwright.kube.sharded import (
    CLUSTER_WIDE_KINDS,
    MAX_CONCURRENT_LISTS,
    RECONCILE_CLAIM,
    ShardStore,
    namespaces_to_list,
)
from modelwright.kube.store import Place
from modelwright.kube.workers import Reconciler, ReconcileResult
from modelwright.obs import metrics
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

Object = dict[str, Any]
T = TypeVar("T")

RETRY_SECONDS = 2.0
REPORT_SECONDS = 30.0
LONG_WAIT_SECONDS = 30.0


class ShardSession:
    """One process of a shard: `run` follows and loads namespaces; `run_leader` starts working in them, once this
    process holds the shard's Lease."""

    def __init__(
        self,
        settings: Settings,
        client: StreamClient,
        store: ShardStore,
        queue: WorkQueue,
        elector: LeaderElector,
        *,
        clock: Clock,
        stop: Callable[[str, int], None],
    ) -> None:
        self._settings = settings
        self._own = store.ownership
        self._client = client
        self._store = store
        self._queue = queue
        self._elector = elector
        self._clock = clock
        self._stop = stop
        self._watched: tuple[WatchedKind, ...] = ()
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._complete: set[str] = set()
        self._initial: set[str] = set()
        self._list_slots = asyncio.Semaphore(MAX_CONCURRENT_LISTS)
        self._changed = asyncio.Event()
        self._leases = PeerLeases(settings, clock)
        self.followed = asyncio.Event()
        """Set once the Namespaces have been listed."""
        self.loaded = asyncio.Event()
        """Set once the store is complete."""

    def is_complete(self, namespace: str) -> bool:
        """Return whether all objects of a namespace are in the store."""
        return namespace in self._complete

    def guard_reconciler(self, reconcile: Reconciler) -> Reconciler:
        """Wrap `reconcile` to skip objects of a joined namespace in which work has not started; they are enqueued when
        it does."""

        async def gated(key: Key) -> ReconcileResult:
            place = key.namespace
            if place and self._own.is_mine(place) and not (self._own.may_write(place) and place in self._complete):
                return ReconcileResult()
            token = RECONCILE_CLAIM.set(self._own.current_claim(place))
            try:
                return await reconcile(key)
            finally:
                RECONCILE_CLAIM.reset(token)

        return gated

    async def run(self, watched: Iterable[WatchedKind], stopping: asyncio.Event) -> None:
        """Follow Namespaces and all watched kinds until `stopping` is set."""
        self._watched = tuple(watched)
        listed = {watched_kind.kind: asyncio.Event() for watched_kind in self._watched}
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._build_namespace_stream().run(), name="Namespaces")]
        stop = asyncio.create_task(stopping.wait(), name="stopping")
        try:
            tasks.append(asyncio.create_task(self.followed.wait(), name="Namespaces are known"))
            await _wait_first({stop, *tasks})
            tasks += [
                asyncio.create_task(
                    self._build_stream(watched_kind, listed[watched_kind.kind]).run(), name=watched_kind.kind.kind
                )
                for watched_kind in self._watched
            ]
            tasks.append(asyncio.create_task(self._finish_first_lists(listed.values()), name="first lists"))
            while not stop.done():
                done = await _wait_first({stop, *tasks})
                for task in done - {stop}:
                    task.result()
                    tasks.remove(task)
        finally:
            for task in (stop, *tasks, *self._loads.values()):
                await cancel_task(task)
            await self._client.close()

    async def run_leader(self) -> None:
        """Start working in the shard's namespaces as the other shards' Leases allow, until cancelled. Must be called
        once this process holds the Lease: its view of the Namespaces may be older than that of others."""
        await self._retry_until_answered(self._list_namespaces)
        self._elector.followed_version = lambda: self._own.followed_version
        waiting_since: dict[tuple[str, int], float] = {}
        others = self._clock.monotonic()
        while True:
            self._changed.clear()
            claims = self._own.pending_claims()
            report = self._settings.shard == DEFAULT_SHARD and self._clock.monotonic() >= others
            if claims or report:
                leases = await self._retry_until_answered(self._read_leases)
                peers = self._leases.list_peers(leases)
                joined = self._own.activate_claims(claims, peers)
                for name in joined:
                    log.info("a namespace has joined this shard", extra={"namespace": name})
                enqueue_namespaces(self._store, self._queue, joined)
                self._warn_long_waits(waiting_since, peers)
            if report:
                others = self._clock.monotonic() + REPORT_SECONDS
                self._leases.report_shards(self._own, leases)
            await self._wait_for_change(bool(self._own.pending_claims()), others)

    async def _wait_for_change(self, waiting: bool, others: float) -> None:
        if waiting:
            await self._clock.sleep(self._settings.lease_retry_seconds / 2)
            return
        changed = asyncio.create_task(self._changed.wait())
        try:
            timeout = max(0.0, others - self._clock.monotonic()) if self._settings.shard == DEFAULT_SHARD else None
            await asyncio.wait({changed}, timeout=timeout)
        finally:
            await cancel_task(changed)

    async def _read_leases(self) -> list[Object]:
        leases, _ = await self._client.list_all(kinds.LEASE, self._settings.namespace)
        return leases

    def _warn_long_waits(self, since: dict[tuple[str, int], float], peers: list[PeerLease]) -> None:
        """Warn about the shards whose Leases have kept namespaces waiting for long."""
        now, waiting = self._clock.monotonic(), self._own.pending_claims()
        for claim in set(since) - set(waiting):
            del since[claim]
        late = [claim for claim in waiting if now - since.setdefault(claim, now) > LONG_WAIT_SECONDS]
        if not late:
            return
        newest = max(version for _, version in late)
        blocking = [peer for peer in peers if peer.led and not has_given_way(peer, self._settings.shard, newest)]
        text = "namespaces wait to join this shard: the holder of another Lease has not confirmed that it left them"
        leases = [f"{peer.name} ({f'shard {peer.shard}' if peer.shard else 'no shard'})" for peer in blocking]
        log.warning(text, extra={"namespaces": [name for name, _ in late][:20], "leases": leases})
        since.update(dict.fromkeys(waiting, now))

    def _build_namespace_stream(self) -> KindStream:
        handler = StreamHandler(
            relist=self._list_namespaces,
            apply=self._take_namespace,
            on_bookmark=lambda version: self._own.apply_bookmark(int(version)),
        )
        return KindStream(self._client, kinds.NAMESPACE, handler, metadata_only=True, clock=self._clock)

    async def _list_namespaces(self) -> str:
        namespaces, version = await self._client.list_all(kinds.NAMESPACE, metadata_only=True)
        states = {obj["metadata"]["name"]: _parse_state(obj) for obj in namespaces}
        try:
            change = self._own.apply_list(states, int(version))
        except ClusterRestored as error:
            self._stop(str(error), 1)
            return version
        self._apply_change(change)
        if not self.followed.is_set():
            log.info("the shard's namespaces have been listed", extra={"namespaces": len(self._own.list_namespaces())})
            self.followed.set()
        return version

    def _take_namespace(self, event: str, obj: Object) -> None:
        name, state = obj["metadata"]["name"], _parse_state(obj)
        self._apply_change(
            self._own.apply_deletion(name, state.version) if event == "DELETED" else self._own.apply_change(name, state)
        )

    def _apply_change(self, change: OwnershipChange) -> None:
        for name in change.left:
            log.info("a namespace has left this shard, or has to be claimed again", extra={"namespace": name})
            self._initial.discard(name)
            self._complete.discard(name)
            if (load := self._loads.pop(name, None)) is not None:
                load.cancel()
            self._store.drop_namespace(name)
        for name in change.came:
            if self.followed.is_set():
                self._loads[name] = asyncio.create_task(self._load_namespace(name), name=f"load {name}")
            else:
                self._initial.add(name)
        if change:
            self._changed.set()

    async def _finish_first_lists(self, events: Iterable[asyncio.Event]) -> None:
        for event in events:
            await event.wait()
        self._complete |= self._initial
        enqueue_namespaces(self._store, self._queue, [name for name in self._initial if self._own.may_write(name)])
        self._initial.clear()
        self.loaded.set()

    async def _load_namespace(self, name: str) -> None:
        """Load all objects of a namespace that joined; the streams deliver changes meanwhile."""
        namespaced = [
            watched for watched in self._watched if watched.kind.namespaced and watched.kind not in CLUSTER_WIDE_KINDS
        ]
        for watched in namespaced:
            await self._retry_until_answered(partial(self._load_kind, watched, name))
        self._loads.pop(name, None)
        self._complete.add(name)
        self._store.drop_stale_endpoints(name)
        if self._own.may_write(name):
            enqueue_namespaces(self._store, self._queue, [name])

    def _build_stream(self, watched: WatchedKind, listed: asyncio.Event) -> KindStream:
        async def relist() -> str:
            version = await self._client.current_version(watched.kind)
            namespaces = namespaces_to_list(watched.kind, self._own.list_namespaces())
            await asyncio.gather(*(self._load_kind(watched, namespace) for namespace in namespaces))
            listed.set()
            return version

        everything = not watched.kind.namespaced or watched.kind in CLUSTER_WIDE_KINDS or watched.kind == kinds.MODEL
        handler = StreamHandler(
            relist=relist,
            apply=lambda event, obj: self._apply_event(watched, event, obj),
            is_wanted=None if everything else self._names_own_namespace,
        )
        return KindStream(self._client, watched.kind, handler, labels=watched.labels, clock=self._clock)

    def _apply_event(self, watched: WatchedKind, event: str, obj: Object) -> None:
        try:
            self._store.apply(watched.kind, event, obj)
        except Exception:
            name = obj["metadata"].get("name")
            log.exception("a watched event could not be handled", extra={"kind": watched.kind.kind, "object": name})

    def _names_own_namespace(self, names: list[bytes]) -> bool:
        return any(self._own.is_mine(name.decode("utf-8", "replace")) for name in names)

    async def _load_kind(self, watched: WatchedKind, namespace: str | None) -> None:
        """List a kind, in one namespace or all, into the store; objects that are no longer listed are dropped."""
        async with self._list_slots:
            kinds_to_list = (watched.kind, kinds.ENDPOINT) if watched.kind == kinds.MODEL else (watched.kind,)
            before = {kind: self._store.list_identities(kind) for kind in kinds_to_list}
            existing: set[Place] = set()
            async for objects, _ in self._client.iterate_batches(watched.kind, namespace, labels=watched.labels):
                for number, obj in enumerate(objects):
                    existing.add((obj["metadata"].get("namespace") or "", obj["metadata"]["name"]))
                    self._apply_event(watched, "ADDED", obj)
                    if not number % MAX_EVENTS_PER_TURN:
                        await asyncio.sleep(0)
        for kind, stored in before.items():
            for place, identity in stored.items():
                if namespace in (None, place[0]) and place not in existing:
                    self._store.forget(kind, *place, identity.uid, last=identity.resource_version)

    async def _retry_until_answered(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        while True:
            try:
                return await request()
            except api_errors.ApiError as error:
                log.warning("a list failed, trying again", extra={"error": str(error)})
                await self._clock.sleep(RETRY_SECONDS)


class PeerLeases:
    """The Leases of other operators, timed by this process's own clock."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._observed: dict[str, tuple[str, float]] = {}
        self._without_leader: frozenset[str] = frozenset()

    def list_peers(self, leases: Iterable[Object]) -> list[PeerLease]:
        """List all operators' Leases but this shard's own."""
        peers = []
        for lease in leases:
            metadata = lease["metadata"]
            labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
            ours = LABEL_SHARD in labels or ANNOTATION_ADDRESS in annotations or ANNOTATION_POD_UID in annotations
            if metadata["name"] == self._settings.lease_name or not (ours or metadata["name"] == OPERATOR_LEASE):
                continue
            followed = str(annotations.get(ANNOTATION_FOLLOWED, ""))
            until = int(followed) if followed.isdecimal() else None
            peers.append(PeerLease(metadata["name"], labels.get(LABEL_SHARD, ""), until, self._is_held(lease)))
        return peers

    def report_shards(self, ownership: NamespaceOwnership, leases: Iterable[Object]) -> None:
        """Export how many namespaces each shard has, and whether it has a leader."""
        led = {peer.shard for peer in self.list_peers(leases) if peer.led} | {ownership.shard}
        sizes = ownership.count_by_shard()
        metrics.SHARD_NAMESPACES.clear()
        metrics.SHARD_LED.clear()
        for shard in {*sizes, *led} - {""}:
            metrics.SHARD_NAMESPACES.labels(shard).set(sizes[shard])
            metrics.SHARD_LED.labels(shard).set(shard in led)
        without = frozenset(sizes) - led
        if without and without != self._without_leader:
            text = "namespaces name a shard that has no leader: no operator works on them"
            log.warning(text, extra={"shards": sorted(without)})
        self._without_leader = without

    def _is_held(self, lease: Object) -> bool:
        spec, metadata = lease.get("spec") or {}, lease["metadata"]
        if not spec.get("holderIdentity"):
            return False
        name, version, now = metadata["name"], str(metadata["resourceVersion"]), self._clock.monotonic()
        if self._observed.get(name, ("", 0.0))[0] != version:
            self._observed[name] = (version, now)
        # A Lease counts from its first observation on, regardless of its own renewTime.
        return now - self._observed[name][1] < float(spec.get("leaseDurationSeconds") or self._settings.lease_seconds)


def _parse_state(obj: Object) -> NamespaceState:
    return NamespaceState(shard_of(obj["metadata"].get("labels")), int(obj["metadata"]["resourceVersion"]))


async def _wait_first(tasks: Collection[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done
