"""The periodic resync: compares the store with lists to find lost watch events, and enqueues every object of ours.

Kopf lists again after `410 Gone`, but reports no objects that vanished meanwhile. So every ten minutes all watched
kinds are listed (metadata only) and compared with the store:

- an object that the API server no longer has is *stale*: it is dropped, and its dependents are enqueued. It is read by
  name before that, because a lagging API server may list an older state;
- an object that the store lacks, or has only in an older state, two minutes after the list, means that the watch has
  stalled: it is fetched and counted, and two resyncs in a row with such objects end the process (a restart is cheap);
- an object that the store has in a *newer* state than both list and object means that the API server was restored from
  a backup: nothing in the store can be trusted, and the process ends.

Kinds with CRDs that are not ours are discovered every minute; when one appears or disappears, the process restarts.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.api import names
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind
from modelwright.kube.store import Identity, Place, Store, is_newer
from modelwright.obs import metrics
from modelwright.obs.clock import Clock, SystemClock

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 600.0
JITTER = 0.2
GRACE_SECONDS = 120.0
DISCOVERY_SECONDS = 60.0
RETRY_SECONDS = 60.0
MAX_STALLED_RESYNCS = 2
MAX_REPAIRS = 100


@dataclass(frozen=True)
class WatchedKind:
    """A kind to watch: objects with these labels (a selector; None selects all), in these namespaces (empty: all)."""

    kind: Kind
    labels: str | None = None
    namespaces: tuple[str, ...] = ()


def watched_kinds(
    served: Collection[Kind], namespaces: Sequence[str] = (), training: Iterable[Kind] = ()
) -> tuple[WatchedKind, ...]:
    """Return the watches of the operator: all kinds of `served` that it reads; children of ours only with our label.
    `training`: kinds that runs may create."""
    # Pods whose termination message is a result.
    telling = f"{names.MANAGED_SELECTOR},{names.LABEL_ROLE} in ({','.join(names.REPORTING_ROLES)})"
    selectors: dict[Kind, str | None] = {
        **dict.fromkeys(kinds.OWN_KINDS),
        kinds.DEPLOYMENT: names.MANAGED_SELECTOR,
        kinds.SERVICE: names.MANAGED_SELECTOR,
        kinds.JOB: names.MANAGED_SELECTOR,
        kinds.CRON_JOB: names.MANAGED_SELECTOR,
        kinds.CONTROLLER_REVISION: names.MANAGED_SELECTOR,
        kinds.POD_DISRUPTION_BUDGET: names.MANAGED_SELECTOR,
        kinds.HORIZONTAL_POD_AUTOSCALER: names.MANAGED_SELECTOR,
        kinds.HTTP_ROUTE: names.MANAGED_SELECTOR,
        kinds.GRPC_ROUTE: names.MANAGED_SELECTOR,
        kinds.TRAEFIK_SERVICE: names.MANAGED_SELECTOR,
        kinds.POD: telling,
        kinds.GATEWAY: None,
        kinds.GATEWAY_CLASS: None,
        **dict.fromkeys(training, names.MANAGED_SELECTOR),
    }
    return tuple(
        WatchedKind(kind, labels, tuple(namespaces) if kind.namespaced else ())
        for kind, labels in selectors.items()
        if kind in served
    )


@dataclass
class ResyncReport:
    """The differences found by one resync, as lists of (kind, (namespace, name))."""

    stale: list[tuple[Kind, Place]] = field(default_factory=list)
    behind: list[tuple[Kind, Place]] = field(default_factory=list)
    ahead: list[tuple[Kind, Place]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ResyncConfig:
    """Kinds and timing of the resync; times are in seconds."""

    served: Collection[Kind]
    """The kinds of `among` that the API server served at start."""
    among: Collection[Kind] = kinds.ALL_KINDS
    """The kinds to discover."""
    interval: float = INTERVAL_SECONDS
    grace: float = GRACE_SECONDS
    """How long the watch may be behind a list."""
    discovery: float = DISCOVERY_SECONDS


@dataclass(frozen=True, slots=True)
class ResyncHooks:
    """The effects of the resync on its process."""

    enqueue_all: Callable[[], None]
    """Enqueues every object of ours; called after each resync."""
    on_fatal: Callable[[str], None]
    """Ends the process with exit code 1, for this reason."""
    on_kinds_changed: Callable[[str], None]
    """Ends the process with exit code 0 after it has released the Lease, for this reason."""


class Resync:
    """Resyncs the store and discovers kinds, each in a task of its own."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        watched: Sequence[WatchedKind],
        config: ResyncConfig,
        hooks: ResyncHooks,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._watched = tuple(watched)
        self._config = config
        self._served = frozenset(config.served)
        self._hooks = hooks
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._stalled_resyncs: dict[Kind, int] = {}

    async def run(self) -> None:
        """Resync every `interval` +-20 %, until cancelled."""
        wait = self._config.interval
        while True:
            await self._clock.sleep(wait * self._rng.uniform(1 - JITTER, 1 + JITTER))
            try:
                self._escalate(await self.resync_once())
            except api_errors.ApiError as error:
                metrics.SWEEPS.labels("error").inc()
                log.warning("a resync failed, trying again", extra={"error": str(error)})
                wait = min(RETRY_SECONDS, self._config.interval)
            else:
                metrics.SWEEPS.labels("ok").inc()
                wait = self._config.interval

    async def run_discovery(self) -> None:
        """Discover kinds that appear or disappear every `discovery` seconds, until cancelled."""
        while True:
            await self._clock.sleep(self._config.discovery)
            try:
                served = await self._client.served_kinds(self._config.among)
            except api_errors.ApiError as error:
                log.warning("the served kinds could not be discovered, trying again", extra={"error": str(error)})
                continue
            changes = [f"{k.kind} appeared" for k in served - self._served]
            changes += [f"{k.kind} is gone" for k in self._served - served]
            if changes:
                self._hooks.on_kinds_changed(", ".join(sorted(changes)))

    async def resync_once(self) -> ResyncReport:
        """Run one resync, with its repairs. Raises ApiError when a request fails."""
        report = ResyncReport()
        suspects: dict[Kind, dict[Place, Identity]] = {}
        for watched in self._watched:
            # An object added to the store during the list must not be mistaken for a stale one.
            before = self._store.list_identities(watched.kind)
            listed, unlisted = await self._list_identities(watched)
            for place, stored in before.items():
                if place[0] in unlisted:
                    continue
                existing = listed.get(place)
                if existing is None or existing.uid != stored.uid:
                    if await self._matches_store(watched.kind, place):
                        continue
                    namespace, name = place
                    last = stored.resource_version
                    if self._store.forget(watched.kind, namespace, name, stored.uid, last=last) is not None:
                        report.stale.append((watched.kind, place))
                        metrics.WATCH_GHOSTS.labels(watched.kind.kind).inc()
                elif _is_ahead(stored, existing) and not await self._matches_store(watched.kind, place):
                    report.ahead.append((watched.kind, place))
            suspects[watched.kind] = self._find_missing(watched.kind, listed)
        if any(suspects.values()):
            await self._clock.sleep(self._config.grace)
        for kind, places in suspects.items():
            late = self._find_missing(kind, places)
            report.behind += [(kind, place) for place in late]
            metrics.WATCH_DIVERGENCE.labels(kind.kind).inc(len(late))
            await self._fetch_missing(kind, late)
        self._hooks.enqueue_all()
        return report

    async def _matches_store(self, kind: Kind, place: Place) -> bool:
        """Return whether the object itself is in the state that the store holds: then the list was an older one."""
        obj = await self._client.get(kind, *place)
        return obj is not None and _identity_of(obj) == self._store.identity_of(kind, place)

    async def _fetch_missing(self, kind: Kind, late: Collection[Place]) -> None:
        for namespace, name in list(late)[:MAX_REPAIRS]:
            obj = await self._client.get(kind, namespace, name)
            if obj is not None:
                self._store.put(obj)

    def _escalate(self, report: ResyncReport) -> None:
        if report.stale or report.behind or report.ahead:
            log.warning(
                "a resync found differences between the API server and the store",
                extra={
                    "stale": [_format_place(*s) for s in report.stale[:20]],
                    "behind": [_format_place(*b) for b in report.behind[:20]],
                    "ahead": [_format_place(*a) for a in report.ahead[:20]],
                },
            )
        for kind in {watched.kind for watched in self._watched}:
            behind = any(k == kind for k, _ in report.behind)
            self._stalled_resyncs[kind] = self._stalled_resyncs.get(kind, 0) + 1 if behind else 0
        stalled = sorted(kind.kind for kind, strikes in self._stalled_resyncs.items() if strikes >= MAX_STALLED_RESYNCS)
        if report.ahead:
            self._hooks.on_fatal(
                f"the API server knows {_format_place(*report.ahead[0])} only in an older state than this process: "
                "it was restored from a backup"
            )
        elif stalled:
            self._hooks.on_fatal(
                f"the watch of {', '.join(stalled)} has stalled: {MAX_STALLED_RESYNCS} resyncs in a row found it behind"
            )

    async def _list_identities(self, watched: WatchedKind) -> tuple[dict[Place, Identity], frozenset[str]]:
        """List the objects that exist, and the namespaces that this process may not list. If it watches several, those
        do not fail the resync of the others."""
        identities: dict[Place, Identity] = {}
        refused = set()
        for namespace in watched.namespaces or (None,):
            try:
                listed = await self._client.list(watched.kind, namespace, labels=watched.labels, metadata_only=True)
            except api_errors.Denied:
                if namespace is None:
                    raise
                refused.add(namespace)
                continue
            for obj in listed:
                meta = obj["metadata"]
                identities[str(meta.get("namespace") or ""), str(meta["name"])] = _identity_of(obj)
        return identities, frozenset(refused)

    def _find_missing(self, kind: Kind, listed: dict[Place, Identity]) -> dict[Place, Identity]:
        """Return those of `listed` that the store lacks or has only in an older state."""
        stored = self._store.list_identities(kind)
        return {
            place: existing
            for place, existing in listed.items()
            if not self._store.is_deleted(existing.uid, existing.resource_version)
            and ((cached := stored.get(place)) is None or is_newer(existing.resource_version, cached.resource_version))
        }


def _identity_of(obj: Mapping[str, Any]) -> Identity:
    return Identity(str(obj["metadata"]["uid"]), str(obj["metadata"]["resourceVersion"]))


def _is_ahead(stored: Identity, existing: Identity) -> bool:
    version = stored.resource_version
    return version.isdecimal() and is_newer(version, existing.resource_version)


def _format_place(kind: Kind, place: Place) -> str:
    return f"{kind.kind} {place[0]}/{place[1]}" if place[0] else f"{kind.kind} {place[1]}"
