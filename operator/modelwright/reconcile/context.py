"""What a reconciler works with; put together once in `app/main.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from modelwright.analysis.desk import Desk
from modelwright.analysis.lookout import Lookout
from modelwright.core.people import Admission
from modelwright.kube.client import KubeClient
from modelwright.kube.events import EventRecorder
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.obs.clock import Clock
from modelwright.reconcile.inbox import Inbox
from modelwright.serving.images import Images
from modelwright.traffic.probe import Probe


@dataclass(frozen=True)
class Context:
    """`probe` None: gateways aren't asked. `wake` puts a key into the work queue at once. `admission` tells whether
    people's approvals and commands may be honoured. `crowded` tells whether people's edits wait for a worker.
    `training_kinds`: what runs may make beside Jobs, whether the cluster has it now or not."""

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
    inbox: Inbox | None = None
    training_kinds: tuple[Kind, ...] = ()
    settle: timedelta = timedelta(seconds=5)
    admission: Callable[[], Admission] = Admission
    crowded: Callable[[], bool] = lambda: False
