"""Wires, runs and stops the parts of a leader in order: watches, store, queue, workers, resync.

A warm standby runs all of them but the workers: nothing else writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from kubernetes.aio.client.configuration import Configuration

from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.retraining import RetrainingPolicy, RetrainingPolicySpec
from modelwright.app.enqueue import enqueue_models, enqueue_namespaces, enqueue_spread
from modelwright.app.install_registry import InstallClaims
from modelwright.app.kopf_login import KopfLogin
from modelwright.app.memory import release_memory
from modelwright.app.settings import Settings
from modelwright.app.shard_session import ShardSession
from modelwright.app.tasks import cancel_task
from modelwright.app.wiring import build_images, build_reconcilers
from modelwright.core.resolve_queue import ResolveQueue
from modelwright.core.sharding import NamespaceOwnership
from modelwright.handlers import kopf_watch
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.events import EventRecorder
from modelwright.kube.kind_stream import StreamClient
from modelwright.kube.kinds import Kind
from modelwright.kube.lease import LeaderElector
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.resync import Resync, ResyncConfig, ResyncHooks, WatchedKind, watched_kinds
from modelwright.kube.sharded import ShardClient, ShardResync, ShardStore
from modelwright.kube.store import Store
from modelwright.kube.workers import Reconciler, ReconcileResult, WorkerPool
from modelwright.measurement import connections
from modelwright.measurement.drift_poller import DriftPoller
from modelwright.measurement.scheduler import MeasurementScheduler
from modelwright.measurement.trigger_poller import TriggerPoller
from modelwright.obs.clock import Clock
from modelwright.reconcile import watches
from modelwright.reconcile.admission_check import AdmissionCheck
from modelwright.reconcile.context import Context
from modelwright.reconcile.metric_jobs import MetricJobRunner
from modelwright.reconcile.webhook_queue import WebhookQueue
from modelwright.render.images import Images
from modelwright.traffic.gateway_probe import GatewayProbe

log = logging.getLogger(__name__)

Object = dict[str, Any]
StopRequest = Callable[[str, int], None]

STUCK_SECONDS = 600.0
DRAIN_SECONDS = 2.0
KOPF_STOP_SECONDS = 5.0


class LeaderSession:
    """One term of leadership. `elected` is set once this process holds the Lease: work starts when it is set and the
    store is complete. `stop(why, exit_code)` requests an orderly shutdown of the process.
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
        stop: StopRequest,
    ) -> None:
        self._settings = settings
        self._configuration = configuration
        self._elector = elector
        self._served = frozenset(served)
        self._clock = clock
        self._stop = stop
        self._elected = elected
        self._synced = asyncio.Event()
        self._active = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._startup_tasks: list[asyncio.Task[None]] = []
        self._queue = WorkQueue(clock)
        self._shard: ShardSession | None = None
        self._is_unread: Callable[[str], bool] = lambda _: False
        self._own = NamespaceOwnership(settings.shard)
        client: Callable[..., KubeClient] = KubeClient
        if settings.shard:
            client = functools.partial(ShardClient, own=self._own)
            store = ShardStore(self._own, watches.INDEXERS)
            self._store: Store = store
            reading = StreamClient(configuration, clock=clock)
            self._shard = ShardSession(settings, reading, store, self._queue, elector, clock=clock, stop=stop)
        else:
            self._store = Store(watches.INDEXERS)
        self._client = client(
            configuration, qps=settings.qps, burst=settings.burst, clock=clock, write_guard=elector.check_may_write
        )
        self._store.subscribe(watches.build_router(self._store, self._queue))
        self._events = EventRecorder(self._client, clock, instance=elector.identity)
        self._installs = InstallClaims(
            settings,
            self._client,
            self._store,
            self._events,
            enqueue_namespace=lambda namespace: enqueue_namespaces(self._store, self._queue, [namespace]),
            clock=clock,
        )
        self._admission = AdmissionCheck(
            self._client,
            clock,
            settings.watch_namespaces or (settings.namespace,),
            places=lambda: {place for kind in watches.RECONCILED_KINDS for place, _ in self._store.list_names(kind)},
            changed=lambda namespace: enqueue_models(self._store, self._queue, namespace),
        )
        self.webhook_queue = WebhookQueue(self._queue.add)
        providers = connections.load_connections(settings.connections_file)
        self._trigger_poller = TriggerPoller(providers, self._queue.add, clock=clock)
        self._observers = DriftPoller(self._queue.add, clock=clock)
        images = build_images(settings)
        self._measurements = MeasurementScheduler(
            providers,
            self._queue.add,
            clock=clock,
            jobs=MetricJobRunner(self._client, self._store, clock, images, self._admission.admission),
        )
        reconcilers = self._guard_reconcilers(build_reconcilers(self._build_context(images)))
        self._runner = WorkerPool(self._queue, reconcilers, settings.workers, clock=clock)

    @property
    def is_active(self) -> bool:
        """Whether objects are reconciled: this process holds the Lease, and its store is complete."""
        return self._active.is_set()

    def retraining_policy_spec(self, namespace: str, name: str) -> RetrainingPolicySpec | None:
        """Return the spec of a RetrainingPolicy from the store; None when it is missing or invalid."""
        raw = self._store.get(kinds.RETRAINING_POLICY, namespace, name)
        try:
            return RetrainingPolicy.parse(raw).spec if raw is not None else None
        except InvalidObject:
            return None

    @property
    def is_synced(self) -> bool:
        """Whether the store has been filled completely."""
        return self._synced.is_set()

    def describe_stuck(self) -> str | None:
        """Describe, for /livez, the reconciles in progress for ten minutes or more."""
        stuck = self._runner.list_active(longer_than=STUCK_SECONDS)
        return ", ".join(f"{r.key} for {r.seconds:.0f} s" for r in stuck) or None

    async def run(self, stopping: asyncio.Event, reinstall_signals: Callable[[], None]) -> None:
        """Run until `stopping` is set; a task that exits unexpectedly requests a shutdown with exit code 1.

        On shutdown: takes no more keys, finishes the reconciles in progress, sends the Events, releases the Lease,
        stops watching. `reinstall_signals` is called once Kopf has installed its own SIGTERM handler.
        """
        watched = await self._filter_readable(
            watched_kinds(self._served, self._settings.watch_namespaces, self._settings.training_kinds)
        )
        # At its end Kopf cancels all tasks started after it: ours are started before.
        self._runner.start(self._active)
        self._spawn_task(self._events.run(), "events")
        kopf_ready, stop_watching = asyncio.Event(), asyncio.Event()
        if self._shard is not None:
            self._spawn_task(self._run_shard(self._shard), "shard")
            watching, listed = self._shard.run(watched, stop_watching), self._shard.loaded
        else:
            streams = kopf_watch.KopfStreams(
                watched, self._store.apply, kopf_watch.build_settings(), self._settings.watch_namespaces
            )
            self._is_unread = streams.is_unread
            streams.completed = lambda namespace: enqueue_namespaces(self._store, self._queue, [namespace])
            watching, listed = self._run_watches(streams, kopf_ready, stop_watching), streams.listed
        resync = self._build_resync(watched)
        self._spawn_task(self._sync_and_resync(listed, resync), "resync")
        self._spawn_task(resync.run_discovery(), "discovery")
        self._spawn_task(self._run_admission_check(), "admission")
        self._spawn_task(self._run_claims(), "claims of installs")
        self._startup_tasks = [
            asyncio.create_task(self._activate(), name="start of work"),
            asyncio.create_task(self._restore_signals(kopf_ready, reinstall_signals), name="signals"),
        ]
        watch_task = self._spawn_task(watching, "watches")
        try:
            await self._wait_for_end(stopping)
            await self._runner.stop(self._settings.shutdown_seconds)
            await self._events.drain(DRAIN_SECONDS)
            await self._elector.release()
            stop_watching.set()
            await asyncio.wait({watch_task}, timeout=KOPF_STOP_SECONDS)
        finally:
            for task in (*self._startup_tasks, *self._tasks):
                await cancel_task(task)
            await self._measurements.close()
            await self._trigger_poller.close()
            await self._observers.close()
            await self._client.close()

    def _build_context(self, images: Images) -> Context:
        return Context(
            client=self._client,
            store=self._store,
            events=self._events,
            clock=self._clock,
            enqueue=self._queue.add,
            served_kinds=self._served,
            images=images,
            probe=GatewayProbe() if self._settings.gateway_probe == "Required" else None,
            measurements=self._measurements,
            trigger_poller=self._trigger_poller,
            observers=self._observers,
            webhook_queue=self.webhook_queue,
            training_kinds=self._settings.training_kinds,
            hostnames=self._settings.hostnames,
            turns=ResolveQueue(self._settings.resolve_pods),
            settle_time=datetime.timedelta(seconds=self._settings.settle_seconds),
            admission=self._admission.admission,
            has_waiting_edits=lambda: self._queue.high_priority_len > 0,
            is_busy=lambda: self._queue.is_busy,
        )

    def _guard_reconcilers(self, reconcilers: dict[str, Reconciler]) -> dict[str, Reconciler]:
        """Limit reconcilers to namespaces of this install and this shard that could be read completely."""
        gates = [self._installs.guard_reconciler]
        if self._settings.watch_namespaces:
            gates.append(self._guard_unread)
        if self._shard is not None:
            gates.append(self._shard.guard_reconciler)
        for gate in gates:
            reconcilers = {kind: gate(reconcile) for kind, reconcile in reconcilers.items()}
        return reconcilers

    def _guard_unread(self, reconcile: Reconciler) -> Reconciler:
        """Wrap `reconcile` to skip objects of namespaces that could not be read completely yet; they are enqueued when
        they have been."""

        async def gated(key: Key) -> ReconcileResult:
            return ReconcileResult() if self._is_unread(key.namespace) else await reconcile(key)

        return gated

    async def _run_watches(
        self, streams: kopf_watch.KopfStreams, ready: asyncio.Event, stop_flag: asyncio.Event
    ) -> None:
        await streams.run(KopfLogin(self._configuration, self._clock).connection_info, ready=ready, stop=stop_flag)

    async def _restore_signals(self, ready: asyncio.Event, reinstall: Callable[[], None]) -> None:
        await ready.wait()
        # Kopf installs its handlers in the same iteration of the loop, or the next.
        await asyncio.sleep(0.05)
        reinstall()

    async def _activate(self) -> None:
        await self._synced.wait()
        await self._elected.wait()
        await self._installs.claims_read.wait()
        log.info("work begins", extra={"keys": len(self._queue)})
        self._active.set()

    async def _run_shard(self, shard: ShardSession) -> None:
        await shard.loaded.wait()
        await self._elected.wait()
        await shard.run_leader()

    async def _run_claims(self) -> None:
        await self._synced.wait()
        await self._elected.wait()
        await self._installs.run()

    async def _run_admission_check(self) -> None:
        await self._elected.wait()
        await self._admission.run()

    async def _sync_and_resync(self, listed: asyncio.Event, resync: Resync) -> None:
        start = self._clock.monotonic()
        await listed.wait()
        # Objects loaded by now are permanent: the garbage collector need not scan them repeatedly.
        gc.collect()
        gc.freeze()
        release_memory()
        took = round(self._clock.monotonic() - start, 2)
        log.info("the store is complete", extra={"seconds": took})
        self._synced.set()
        await resync.run()

    async def _wait_for_end(self, stopping: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            done, _ = await asyncio.wait({stopped, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_task(stopped)
        for task in self._tasks:
            if task in done:
                error = None if task.cancelled() else task.exception()
                log.error("a background task exited unexpectedly", extra={"part": task.get_name()}, exc_info=error)
                self._stop(f"{task.get_name()} ended", 1)

    def _build_resync(self, watched: tuple[WatchedKind, ...]) -> Resync:
        make: Callable[..., Resync] = Resync
        if self._shard is not None:
            make = functools.partial(ShardResync, own=self._own, complete=self._shard.is_complete)
        config = ResyncConfig(
            served=self._served,
            among=(*kinds.ALL_KINDS, *self._settings.training_kinds),
            interval=self._settings.sweep_seconds,
            grace=self._settings.sweep_grace_seconds,
            discovery=self._settings.discovery_seconds,
        )
        hooks = ResyncHooks(
            enqueue_all=lambda: enqueue_spread(self._store, self._queue, self._settings.sweep_seconds),
            on_fatal=lambda reason: self._stop(reason, 1),
            on_kinds_changed=lambda reason: self._stop(f"{reason}: restarting", 0),
        )
        return make(self._client, self._store, watched, config, hooks, clock=self._clock)

    async def _filter_readable(self, watched: tuple[WatchedKind, ...]) -> tuple[WatchedKind, ...]:
        """Leave out, in namespaced mode, the cluster-scoped kinds that the operator may not read."""
        if not self._settings.watch_namespaces:
            return watched
        readable = []
        for candidate in watched:
            if not candidate.kind.namespaced:
                with contextlib.suppress(api_errors.Transient, api_errors.Throttled):
                    try:
                        await self._client.list(candidate.kind, metadata_only=True)
                    except api_errors.Denied:
                        text = "objects of this cluster-scoped kind can't be read, and are not used"
                        log.warning(text, extra={"kind": candidate.kind.kind})
                        continue
            readable.append(candidate)
        return tuple(readable)

    def _spawn_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task
