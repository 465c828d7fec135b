"""The dependencies of a reconciler; built once, in `app/leader_session.py`."""

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
"""Resolve pods of a namespace at the same time, by default."""


class RecentPodRequests:
    """When this process last changed a Deployment, by uid; changes older than RETENTION are forgotten."""

    RETENTION = timedelta(seconds=60)

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}

    def record_request(self, uid: str, now: datetime) -> None:
        """Record that the Deployment of this uid was changed `now`. Calls must come in the order of time."""
        self._times.pop(uid, None)
        self._times[uid] = now
        while self._times and now - next(iter(self._times.values())) > self.RETENTION:
            del self._times[next(iter(self._times))]

    def last_request(self, uid: str) -> datetime | None:
        """The time of the last change, if that was recent."""
        return self._times.get(uid)


@dataclass(frozen=True)
class Context:
    """The dependencies that all reconcilers of a process share."""

    client: KubeClient
    store: Store
    events: EventRecorder
    clock: Clock
    enqueue: Callable[[Key], None]
    """Puts a key into the work queue at once."""
    served_kinds: frozenset[Kind]
    images: Images
    probe: GatewayProbe | None = None
    """None: gateways are not probed."""
    measurements: MeasurementScheduler | None = None
    trigger_poller: TriggerPoller | None = None
    observers: DriftPoller | None = None
    webhook_queue: WebhookQueue | None = None
    training_kinds: tuple[Kind, ...] = ()
    """Kinds that runs may create beside Jobs, whether the cluster has them now or not."""
    settle_time: timedelta = timedelta(seconds=5)
    """How long a revision stays after requests have left it."""
    admission: Callable[[str], AdmissionState] = lambda _: AdmissionState()
    """Whether approvals, commands and reports may be trusted in a namespace."""
    has_waiting_edits: Callable[[], bool] = lambda: False
    """Whether edits by users wait for a worker."""
    is_busy: Callable[[], bool] = lambda: False
    """Whether many objects are being reconciled."""
    pods_requested: RecentPodRequests = field(default_factory=RecentPodRequests)
    hostnames: tuple[str, ...] = ()
    """Patterns of the hostnames that endpoints may have, by namespace; empty for any."""
    turns: ResolveQueue = field(default_factory=lambda: ResolveQueue(MAX_RESOLVE_PODS))
    cache_requests: dict[Key, str] = field(default_factory=dict)
    """Version key -> the claim whose cache must be filled with its artifact; removed once it is."""
    large_write_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the status of an object that is too large is written."""
