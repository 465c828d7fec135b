"""What a reconciler works with; put together once in `app/main.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelwright.core.admission import AdmissionState
from modelwright.core.resolve_queue import ResolveQueue
from modelwright.kube.client import KubeClient
from modelwright.kube.events import EventRecorder
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.measurement.drift_poller import DriftPoller
from modelwright.measurement.scheduler import MeasurementScheduler
from modelwright.measurement.trigger_poller import TriggerPoller
from modelwright.obs.clock import Clock
from modelwright.reconcile.webhook_queue import WebhookQueue
from modelwright.render.images import Images
from modelwright.traffic.gateway_probe import GatewayProbe

MAX_RESOLVE_PODS = 10
"""At once in a namespace."""


class RecentPodRequests:
    """The Deployments that were changed in the last moments, by uid; older ones are forgotten."""

    RETENTION = timedelta(seconds=60)

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}

    def record_request(self, uid: str, now: datetime) -> None:
        """The Deployment of this uid was changed `now`; calls come in the order of time."""
        self._times.pop(uid, None)
        self._times[uid] = now
        while self._times and now - next(iter(self._times.values())) > self.RETENTION:
            del self._times[next(iter(self._times))]

    def last_request(self, uid: str) -> datetime | None:
        """When it was last changed, if that was lately."""
        return self._times.get(uid)


@dataclass(frozen=True)
class Context:
    """`probe` None: gateways aren't asked. `wake` puts a key into the work queue at once. `admission` tells whether
    people's approvals and commands may be honoured in a namespace. `crowded` tells whether people's edits wait for a
    worker, `busy` whether many objects are worked on just now. `pods_asked`: the Deployments of which this process has
    just asked pods. `training_kinds`: what runs may make beside Jobs, whether the cluster has it now or not.
    `hostnames`: patterns of those that endpoints may have, by namespace; empty for any. `turns`: who may have a resolve
    pod. `to_cache`: claims that Models want a version's artifact brought into, by the version's key, until it is there.
    `large_write`: held while the status of an object that is too large is written."""

    client: KubeClient
    store: Store
    events: EventRecorder
    clock: Clock
    enqueue: Callable[[Key], None]
    served_kinds: frozenset[Kind]
    images: Images
    probe: GatewayProbe | None = None
    measurements: MeasurementScheduler | None = None
    trigger_poller: TriggerPoller | None = None
    observers: DriftPoller | None = None
    webhook_queue: WebhookQueue | None = None
    training_kinds: tuple[Kind, ...] = ()
    settle_time: timedelta = timedelta(seconds=5)
    admission: Callable[[str], AdmissionState] = lambda _: AdmissionState()
    is_backlogged: Callable[[], bool] = lambda: False
    is_busy: Callable[[], bool] = lambda: False
    pods_requested: RecentPodRequests = field(default_factory=RecentPodRequests)
    hostnames: tuple[str, ...] = ()
    turns: ResolveQueue = field(default_factory=lambda: ResolveQueue(MAX_RESOLVE_PODS))
    cache_requests: dict[Key, str] = field(default_factory=dict)
    large_write_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
