"""What a leader runs: watches, store, queue, workers, sweep; put together, run, and ended in order.

A warm standby runs all of it but the workers: nothing else writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import gc
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

import kopf
from kubernetes.aio.client.configuration import Configuration

from modelwright.analysis import connections
from modelwright.analysis.desk import Desk
from modelwright.analysis.lookout import Lookout
from modelwright.analysis.observers import Observers
from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.retraining import RetrainingPolicy, RetrainingPolicySpec
from modelwright.app.installs import Installs
from modelwright.app.memory import release_memory
from modelwright.app.settings import Settings
from modelwright.app.shard import Shard
from modelwright.app.tasks import cancel
from modelwright.core.sharding import Ownership
from modelwright.core.turns import Turns
from modelwright.handlers import watch
from modelwright.kube import errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.events import EventRecorder
from modelwright.kube.kinds import Kind
from modelwright.kube.lease import LeaderElector
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.runner import Reconciler, Result, Runner
from modelwright.kube.sharded import ShardClient, ShardStore, ShardSweep
from modelwright.kube.store import Listener, Store
from modelwright.kube.streams import StreamClient
from modelwright.kube.sweep import Sweep, Watched, watched_kinds
from modelwright.kube.token import ServiceAccountToken
from modelwright.obs.clock import Clock
from modelwright.reconcile import routing
from modelwright.reconcile.admission import AdmissionCheck
from modelwright.reconcile.context import Context
from modelwright.reconcile.history import HistoryReconciler, orphans
from modelwright.reconcile.inbox import Inbox
from modelwright.reconcile.measure_job import MeasureJobs
from modelwright.reconcile.model import ModelReconciler
from modelwright.reconcile.policy import RolloutPolicyReconciler
from modelwright.reconcile.retraining import RetrainingPolicyReconciler
from modelwright.reconcile.snapshots import SnapshotReconciler, unused
from modelwright.reconcile.training import TrainingRunReconciler
from modelwright.reconcile.version import ModelVersionReconciler
from modelwright.serving.images import Images
from modelwright.traffic.probe import Probe

log = logging.getLogger(__name__)

Object = dict[str, Any]
Stop = Callable[[str, int], None]

STUCK_SECONDS = 600.0
LOOK_AGAIN_SPREAD = 30.0
DRAIN_SECONDS = 2.0
KOPF_STOP_SECONDS = 5.0
LOGIN_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)


class Leader:
    """One term of office. `elected` is set once this process holds the Lease: work begins then, and when the store is
    complete. `stop(why, exit_code)` asks the process for an orderly end.
    """

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        elector: LeaderElector,
        served: set[Kind],
        *,
        elected: asyncio.Event,
        clock: Clock,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._configuration = configuration
        self._elector = elector
        self._served = frozenset(served)
        self._clock = clock
        self._stop = stop
        self._elected = elected
        self._synced = asyncio.Event()
        self._begin = asyncio.Event()
        self._parts: list[asyncio.Task[None]] = []
        self._helpers: list[asyncio.Task[None]] = []
        self._queue = WorkQueue(clock)
        self._shard: Shard | None = None
        self._unread: Callable[[str], bool] = lambda _: False
        self._own = Ownership(settings.shard)
        client: Callable[..., KubeClient] = KubeClient
        if settings.shard:
            client = functools.partial(ShardClient, own=self._own)
            store = ShardStore(self._own, routing.INDEXERS)
            self._store: Store = store
            reading = StreamClient(configuration, clock=clock)
            self._shard = Shard(settings, self._own, reading, store, self._queue, elector, clock=clock, stop=stop)
        else:
            self._store = Store(routing.INDEXERS)
        self._client = client(
            configuration, qps=settings.qps, burst=settings.burst, clock=clock, write_guard=elector.guard
        )
        self._store.subscribe(router(self._store, self._queue))
        self._events = EventRecorder(self._client, clock, instance=elector.identity)
        self._installs = Installs(
            settings,
            self._client,
            self._store,
            self._events,
            wake=lambda namespace: wake_all(self._store, self._queue, namespace),
            clock=clock,
        )
        self._admission = AdmissionCheck(
            self._client,
            clock,
            settings.watch_namespaces or (settings.namespace,),
            places=lambda: {place for kind in routing.LOOKED_AT for place, _ in self._store.names(kind)},
            changed=lambda namespace: wake_models(self._store, self._queue, namespace),
        )
        self.inbox = Inbox(self._queue.add)
        found = connections.load(settings.connections_file)
        self._lookout = Lookout(found, self._queue.add, clock=clock)
        self._observers = Observers(self._queue.add, clock=clock)
        images = Images(
            settings.fetch_image,
            settings.image_pull_policy,
            settings.operator_image,
            copy_token=settings.copy_token == "Required",  # noqa: S105 - a switch
            fetch_env=settings.fetch_env,
            helper_pods=settings.helper_pods,
            platform_ids=settings.pod_security == "Platform",
        )
        self._desk = Desk(
            found,
            self._queue.add,
            clock=clock,
            jobs=MeasureJobs(self._client, self._store, clock, images, self._admission.admission),
        )
        context = Context(
            client=self._client,
            store=self._store,
            events=self._events,
            clock=clock,
            wake=self._queue.add,
            served_kinds=self._served,
            images=images,
            probe=Probe() if settings.gateway_probe == "Required" else None,
            desk=self._desk,
            lookout=self._lookout,
            observers=self._observers,
            inbox=self.inbox,
            training_kinds=settings.training_kinds,
            hostnames=settings.hostnames,
            turns=Turns(settings.resolve_pods),
            settle=datetime.timedelta(seconds=settings.settle_seconds),
            admission=self._admission.admission,
            crowded=lambda: self._queue.hurried > 0,
            busy=lambda: self._queue.busy,
        )
        reconcilers: dict[str, Reconciler] = {
            kinds.MODEL.kind: ModelReconciler(context).reconcile,
            kinds.MODEL_VERSION.kind: ModelVersionReconciler(context).reconcile,
            kinds.MODEL_ROLLOUT.kind: HistoryReconciler(context).reconcile,
            kinds.CONTROLLER_REVISION.kind: SnapshotReconciler(context).reconcile,
            kinds.ROLLOUT_POLICY.kind: RolloutPolicyReconciler(context).reconcile,
            kinds.RETRAINING_POLICY.kind: RetrainingPolicyReconciler(context).reconcile,
            kinds.TRAINING_RUN.kind: TrainingRunReconciler(context).reconcile,
            routing.VERSIONS: routing.Versions(self._store, self._queue.add).reconcile,
        }
        self._runner = Runner(self._queue, self._gated(reconcilers), settings.workers, clock=clock)

    @property
    def works(self) -> bool:
        """Whether passes are made: this process holds the Lease, and its store is complete."""
        return self._begin.is_set()

    def policy(self, namespace: str, name: str) -> RetrainingPolicySpec | None:
        """The spec of a RetrainingPolicy, as the store has it."""
        raw = self._store.get(kinds.RETRAINING_POLICY, namespace, name)
        try:
            return RetrainingPolicy.parse(raw).spec if raw is not None else None
        except InvalidObject:
            return None

    @property
    def synced(self) -> bool:
        """Whether the store has held everything."""
        return self._synced.is_set()

    def stuck(self) -> str | None:
        """For /livez: the passes that have been under way for ten minutes."""
        found = self._runner.running(longer_than=STUCK_SECONDS)
        return ", ".join(f"{r.key} for {r.seconds:.0f} s" for r in found) or None

    async def run(self, stopping: asyncio.Event, reinstall_signals: Callable[[], None]) -> None:
        """Work until `stopping` is set; a part that ends by itself asks for the end with exit code 1.

        At the end: takes no more work, finishes the passes under way, sends the Events, gives the Lease back, stops
        watching. `reinstall_signals` is called once Kopf has taken SIGTERM for itself.
        """
        watched = await self._readable(
            watched_kinds(self._served, self._settings.watch_namespaces, self._settings.training_kinds)
        )
        # Kopf cancels at its end whatever was started after it: ours is started before.
        self._runner.start(self._begin)
        self._part(self._events.run(), "events")
        kopf_ready, stop_watching = asyncio.Event(), asyncio.Event()
        if self._shard is not None:
            self._part(self._lead_shard(self._shard), "shard")
            watches, listed = self._shard.run(watched, stop_watching), self._shard.loaded
        else:
            streams = watch.Streams(watched, self._store.apply, watch.settings(), self._settings.watch_namespaces)
            self._unread = streams.unread
            streams.completed = lambda namespace: wake_all(self._store, self._queue, namespace)
            watches, listed = self._watch(streams, kopf_ready, stop_watching), streams.listed
        sweep = self._sweep(watched)
        self._part(self._sync_and_sweep(listed, sweep), "sweep")
        self._part(sweep.run_discovery(), "discovery")
        self._part(self._check_admission(), "admission")
        self._part(self._keep_claims(), "claims of installs")
        self._helpers = [
            asyncio.create_task(self._begin_work(), name="begin"),
            asyncio.create_task(self._signals_back(kopf_ready, reinstall_signals), name="signals"),
        ]
        watching = self._part(watches, "watches")
        try:
            await self._wait(stopping)
            await self._runner.stop(self._settings.shutdown_seconds)
            await self._events.drain(DRAIN_SECONDS)
            await self._elector.release()
            stop_watching.set()
            await asyncio.wait({watching}, timeout=KOPF_STOP_SECONDS)
        finally:
            for task in (*self._helpers, *self._parts):
                await cancel(task)
            await self._desk.close()
            await self._lookout.close()
            await self._observers.close()
            await self._client.close()

    def _gated(self, reconcilers: dict[str, Reconciler]) -> dict[str, Reconciler]:
        """Passes are made where this install, and this shard, works, and where all could be read."""
        gates = [self._installs.gate]
        if self._settings.watch_namespaces:
            gates.append(self._read_whole)
        if self._shard is not None:
            gates.append(self._shard.gate)
        for gate in gates:
            reconcilers = {kind: gate(reconcile) for kind, reconcile in reconcilers.items()}
        return reconcilers

    def _read_whole(self, reconcile: Reconciler) -> Reconciler:
        """`reconcile`, but for objects of a namespace of which something could never be read: they have their turn when
        it has been."""

        async def gated(key: Key) -> Result:
            return Result() if self._unread(key.namespace) else await reconcile(key)

        return gated

    async def _watch(self, streams: watch.Streams, ready: asyncio.Event, stop_flag: asyncio.Event) -> None:
        await streams.run(Login(self._configuration, self._clock).connection_info, ready=ready, stop=stop_flag)

    async def _signals_back(self, ready: asyncio.Event, reinstall: Callable[[], None]) -> None:
        await ready.wait()
        # Kopf installs its handlers in the same turn of the loop, or the next.
        await asyncio.sleep(0.05)
        reinstall()

    async def _begin_work(self) -> None:
        await self._synced.wait()
        await self._elected.wait()
        await self._installs.read.wait()
        log.info("work begins", extra={"keys": len(self._queue)})
        self._begin.set()

    async def _lead_shard(self, shard: Shard) -> None:
        await shard.loaded.wait()
        await self._elected.wait()
        await shard.lead()

    async def _keep_claims(self) -> None:
        await self._synced.wait()
        await self._elected.wait()
        await self._installs.run()

    async def _check_admission(self) -> None:
        await self._elected.wait()
        await self._admission.run()

    async def _sync_and_sweep(self, listed: asyncio.Event, sweep: Sweep) -> None:
        start = self._clock.monotonic()
        await listed.wait()
        # What is loaded by now stays: the garbage collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        release_memory()
        took = round(self._clock.monotonic() - start, 2)
        log.info("the store is complete", extra={"seconds": took})
        self._synced.set()
        await sweep.run()

    async def _wait(self, stopping: asyncio.Event) -> None:
        stop = asyncio.ensure_future(stopping.wait())
        try:
            done, _ = await asyncio.wait({stop, *self._parts}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(stop)
        for task in self._parts:
            if task in done:
                error = None if task.cancelled() else task.exception()
                log.error("a part of the operator has ended", extra={"part": task.get_name()}, exc_info=error)
                self._stop(f"{task.get_name()} ended", 1)

    def _sweep(self, watched: tuple[Watched, ...]) -> Sweep:
        make: Callable[..., Sweep] = Sweep
        if self._shard is not None:
            make = functools.partial(ShardSweep, own=self._own, complete=self._shard.complete)
        return make(
            self._client,
            self._store,
            watched,
            served=self._served,
            look_again=lambda: look_again(self._store, self._queue, self._settings.sweep_seconds),
            on_fatal=lambda why: self._stop(why, 1),
            on_kinds_changed=lambda why: self._stop(f"{why}: starting anew", 0),
            clock=self._clock,
            interval=self._settings.sweep_seconds,
            grace=self._settings.sweep_grace_seconds,
            discovery=self._settings.discovery_seconds,
            among=(*kinds.ALL_KINDS, *self._settings.training_kinds),
        )

    async def _readable(self, watched: tuple[Watched, ...]) -> tuple[Watched, ...]:
        """In namespaced mode, without the cluster-scoped kinds that we may not read."""
        if not self._settings.watch_namespaces:
            return watched
        readable = []
        for what in watched:
            if not what.kind.namespaced:
                with contextlib.suppress(errors.Transient, errors.Throttled):
                    try:
                        await self._client.list(what.kind, metadata_only=True)
                    except errors.Denied:
                        text = "objects of this cluster-scoped kind can't be read, and are not used"
                        log.warning(text, extra={"kind": what.kind.kind})
                        continue
            readable.append(what)
        return tuple(readable)

    def _part(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._parts.append(task)
        return task


class Login:
    """How Kopf connects, asked for at start and after each 401. Kopf asks at once and without end, and takes no
    credentials again that have failed once: each answer differs from the one before, and comes later and later."""

    def __init__(self, configuration: Configuration, clock: Clock) -> None:
        self._configuration = configuration
        self._clock = clock
        self._count = 0
        self._failures = 0
        self._last: float | None = None

    async def connection_info(self) -> kopf.ConnectionInfo:
        """The token of this moment, at least some seconds after the last one."""
        now = self._clock.monotonic()
        if self._last is not None:
            lasted = now - self._last
            self._failures = 0 if lasted > LOGIN_SECONDS[-1] * 2 else self._failures + 1
            pause = LOGIN_SECONDS[min(self._failures, len(LOGIN_SECONDS) - 1)]
            log.warning("the API server does not take the token: signing in again", extra={"seconds": pause})
            hook = self._configuration.refresh_api_key_hook
            if isinstance(hook, ServiceAccountToken):
                hook.expire()
            await self._clock.sleep(pause)
        self._last = self._clock.monotonic()
        self._count += 1
        info = await connection_info(self._configuration)
        return dataclasses.replace(info, priority=self._count)


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """What Kopf needs to connect as our own client does; with the token of this moment."""
    header = await configuration.get_api_key_with_prefix("BearerToken")
    scheme, _, token = (header or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )


def router(store: Store, queue: WorkQueue) -> Listener:
    """A listener of the store that enqueues what a change concerns, and drops at once what concerns nobody."""

    def route(kind: Kind, old: Object | None, new: Object | None) -> None:
        if not routing.significant(kind, old, new):
            return
        if new is not None and routing.edited(kind, old, new):
            for key in tuple(routing.keys(kind, new, store))[:1]:
                queue.add(key, first=True)
        # Both: what an object no longer refers to is concerned as well.
        for obj in (new, old):
            if obj is not None:
                for key in routing.keys(kind, obj, store):
                    queue.add(key)

    return route


def wake_models(store: Store, queue: WorkQueue, among: str | None) -> None:
    """Enqueue every Model at once, or those of the namespace `among`."""
    for namespace, name in store.names(kinds.MODEL):
        if among in (None, namespace):
            queue.add(Key(kinds.MODEL.kind, namespace, name))


def wake_all(store: Store, queue: WorkQueue, namespace: str) -> None:
    """Enqueue everything of a namespace at once."""
    found = [Key(kind.kind, *place) for kind in routing.LOOKED_AT for place in store.names(kind)]
    for key in (*found, *orphans(store)):
        if key.namespace == namespace:
            queue.add(key)


def look_again(store: Store, queue: WorkQueue, interval: float) -> None:
    """Enqueue every Model, version, policy and run, rollouts that have lost their Model, and stored policies that no
    record names, over some time so that changes needn't wait behind them."""
    spread = min(LOOK_AGAIN_SPREAD, interval / 10)
    for kind in routing.LOOKED_AT:
        for namespace, name in store.names(kind):
            queue.add_after(Key(kind.kind, namespace, name), random.uniform(0, spread))  # noqa: S311
    for key in (*orphans(store), *unused(store)):
        queue.add_after(key, random.uniform(0, spread))  # noqa: S311
