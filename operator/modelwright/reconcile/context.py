"""What a reconciler works with; put together once in `app/main.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelwright.analysis.desk import Desk
from modelwright.analysis.lookout import Lookout
from modelwright.analysis.observers import Observers
from modelwright.core.people import Admission
from modelwright.core.turns import Turns
from modelwright.kube.client import KubeClient
from modelwright.kube.events import EventRecorder
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.obs.clock import Clock
from modelwright.reconcile.inbox import Inbox
from modelwright.serving.images import Images
from modelwright.traffic.probe import Probe

RESOLVE_PODS = 10
"""At once in a namespace."""


class RecentlyAsked:
    """The Deployments that were changed in the last moments, by uid; older ones are forgotten."""

    KEPT = timedelta(seconds=60)

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}

    def note(self, uid: str, now: datetime) -> None:
        """The Deployment of this uid was changed `now`; calls come in the order of time."""
        self._times.pop(uid, None)
        self._times[uid] = now
        while self._times and now - next(iter(self._times.values())) > self.KEPT:
            del self._times[next(iter(self._times))]

    def at(self, uid: str) -> datetime | None:
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
    wake: Callable[[Key], None]
    served_kinds: frozenset[Kind]
    images: Images
    probe: Probe | None = None
    desk: Desk | None = None
    lookout: Lookout | None = None
    observers: Observers | None = None
    inbox: Inbox | None = None
    training_kinds: tuple[Kind, ...] = ()
    settle: timedelta = timedelta(seconds=5)
    admission: Callable[[str], Admission] = lambda _: Admission()
    crowded: Callable[[], bool] = lambda: False
    busy: Callable[[], bool] = lambda: False
    pods_asked: RecentlyAsked = field(default_factory=RecentlyAsked)
    hostnames: tuple[str, ...] = ()
    turns: Turns = field(default_factory=lambda: Turns(RESOLVE_PODS))
    to_cache: dict[Key, str] = field(default_factory=dict)
    large_write: asyncio.Lock = field(default_factory=asyncio.Lock)
