"""Kopf as a watch frame: one event handler per watched kind, which hands the object to the sink, and nothing else.

Why only that, and the settings: docs/adr/0001-kopf-as-watch-frame.md.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import kopf

from modelwright.kube.kinds import Kind
from modelwright.kube.sweep import Watched

log = logging.getLogger(__name__)

Sink = Callable[[Kind, str | None, Mapping[str, Any]], object]
Login = Callable[[], Awaitable[kopf.ConnectionInfo]]

# Kopf removes this finalizer from whatever it watches: it must be one that nobody uses, least of all we.
UNUSED_FINALIZER = "modelwright.dev/kopf-never-used"


def register(registry: kopf.OperatorRegistry, watched: Iterable[Watched], sink: Sink) -> None:
    """Hand every watched event to `sink(kind, event_type, obj)`; `event_type` is None for objects of a list.

    The sink must not keep or change `obj`. What it raises is logged; the event is then lost until the next sweep.
    """
    for what in watched:
        kind = what.kind
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.kind)(_handler(kind, sink))


def _handler(kind: Kind, sink: Sink) -> Callable[..., Awaitable[None]]:
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        try:
            sink(kind, event["type"], event["object"])
        except Exception:
            name = event["object"].get("metadata", {}).get("name")
            log.exception("a watched event could not be taken", extra={"kind": kind.kind, "object": name})

    return handle


def register_login(registry: kopf.OperatorRegistry, login: Login) -> None:
    """Let Kopf connect with what `login` gives, at start and whenever a token has run out."""

    async def handle(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    kopf.on.login(registry=registry, id="login")(handle)


def settings(watched: Iterable[Watched]) -> kopf.OperatorSettings:
    """Kopf's settings for watching only: nothing is written, stored or posted, and dead streams are noticed."""
    s = kopf.OperatorSettings()
    # Streams of several kinds, and of several operators, should not all end in the same second.
    s.watching.server_timeout = 290 + random.randint(0, 60)  # noqa: S311
    s.watching.client_timeout = s.watching.server_timeout + 30
    s.watching.connect_timeout = 10
    s.watching.reconnect_backoff = 1.0
    s.watching.inactivity_timeout = 70
    # Of a larger list more stays in the memory of the process when it has long been read.
    s.watching.chunk_size = 100
    for what in watched:
        if what.labels:
            s.watching.label_selectors[what.kind.group, what.kind.version, what.kind.plural] = what.labels
    s.networking.request_timeout = 30
    s.networking.connect_timeout = 5
    s.networking.error_backoffs = (1, 2, 5)
    s.networking.enforce_retry_after = True
    # A limit here would be one on objects per idle_timeout, not on work under way.
    s.queueing.worker_limit = None
    s.queueing.idle_timeout = 0.5
    s.scanning.disabled = True
    s.peering.standalone = True
    s.posting.enabled = False
    s.execution.max_workers = 1
    s.process.ultimate_exiting_timeout = 30
    s.persistence.finalizer = UNUSED_FINALIZER
    s.persistence.diffbase_storage = _NoDiffs()
    return s


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps Kopf from copying every object at every event to compare it with an annotation we never write."""

    def build(self, **_: Any) -> Any:
        return None

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("Kopf is used for watching only: it must not store anything")
