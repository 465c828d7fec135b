"""Ensures that one install alone works in each namespace; the others write nothing there and name it
(docs/adr/0034)."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.app.settings import Settings
from modelwright.core import install_claims
from modelwright.core.install_claims import (
    ANSWER_TIMEOUT_SECONDS,
    QUESTION_INTERVAL_SECONDS,
    SETTLE_SECONDS,
    InstallClaim,
)
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.events import EventRecorder
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.kube.workers import Reconciler, ReconcileResult
from modelwright.obs import metrics
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

Object = dict[str, Any]

RETRY_SECONDS = 5.0
CLAIM_SELECTOR = f"{names.MANAGED_SELECTOR},{names.LABEL_ROLE}={names.ROLE_CLAIM}"


def install_identity(settings: Settings) -> str:
    """Return the name of this install: its Lease. All shards are one install; they coordinate separately
    (docs/adr/0016)."""
    lease = names.OPERATOR_LEASE if settings.shard else settings.lease_name
    return f"{settings.namespace}/{lease}"


@dataclass(frozen=True, slots=True)
class _ClaimQuery:
    """A query to the holder of claims: namespace, token, and the deadline of its response. Without a namespace: the
    holder has responded and is not queried again before `until`."""

    namespace: str
    token: str
    until: float


class InstallClaims:
    """The claims of namespaces, as known to the leader of an install. `guard_reconciler` wraps each reconciler; `run`
    sends and answers queries once this process holds the Lease. `enqueue_namespace` enqueues all keys of a
    namespace."""

    def __init__(
        self,
        settings: Settings,
        client: KubeClient,
        store: Store,
        events: EventRecorder,
        *,
        enqueue_namespace: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self.identity = install_identity(settings)
        self._namespaces = settings.watch_namespaces or (None,)
        self._client = client
        self._store = store
        self._events = events
        self._enqueue_namespace = enqueue_namespace
        self._clock = clock
        self._token = f"{self.identity}/{secrets.token_hex(4)}"
        self._held_by_others: dict[str, set[str]] = defaultdict(set)
        """By other install: its namespaces in which this one has objects to reconcile."""
        self._taken_over: dict[str, float] = {}
        """Namespaces whose claims were taken over, with the time from which this install works in them."""
        self._queries: dict[str, _ClaimQuery] = {}
        """By install: the last query to it."""
        self._queried_namespaces: set[str] = set()
        """Namespaces of this install with an open query of another one."""
        self._changed = asyncio.Event()
        self.claims_read = asyncio.Event()
        """Set once the claims have been read after this process was elected."""
        store.subscribe(self._on_store_change)

    def guard_reconciler(self, reconcile: Reconciler) -> Reconciler:
        """Wrap `reconcile` to skip objects of namespaces that another install holds."""

        async def gated(key: Key) -> ReconcileResult:
            if not key.namespace:
                return await reconcile(key)
            settle_seconds = self._taken_over.get(key.namespace, 0.0) - self._clock.monotonic()
            if settle_seconds > 0:
                return ReconcileResult(settle_seconds)
            holder = await self._find_holder(key.namespace)
            if holder not in (None, self.identity):
                self._record_holder(key.namespace, str(holder))
                return ReconcileResult()
            return await reconcile(key)

        return gated

    async def run(self) -> None:
        """Read the claims again, since those watched before the election may be stale; then send and answer queries."""
        await self._read_all_claims()
        self.claims_read.set()
        while True:
            self._changed.clear()
            for namespace in list(self._queried_namespaces):
                await self._try_step(self._answer_namespace(namespace))
            for holder in list(self._held_by_others):
                await self._try_step(self._challenge_holder(holder))
            waits = RETRY_SECONDS if self._held_by_others or self._queried_namespaces else None
            changed = asyncio.ensure_future(self._changed.wait())
            sleeping = [] if waits is None else [asyncio.ensure_future(self._clock.sleep(waits))]
            try:
                await asyncio.wait({changed, *sleeping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (changed, *sleeping):
                    task.cancel()

    async def _find_holder(self, namespace: str) -> str | None:
        """Return the install that works there; None when no claim can be made because the namespace is terminating."""
        claim = self._stored_claim(namespace)
        if claim is None:
            try:
                self._store.put(
                    await self._client.create(install_claims.build_claim(namespace, self.identity)), quiet=True
                )
                return self.identity
            except api_errors.AlreadyExists:
                claim = await self._reread_claim(namespace)
            except api_errors.Denied as error:
                if api_errors.is_terminating(error):
                    return None
                raise
        if claim is not None and claim.install == self.identity and claim.asked_by:
            await self._answer_query(claim)
            claim = self._stored_claim(namespace)
        # Without one it was deleted a moment ago: its event triggers the next reconcile.
        return claim.install if claim is not None else ""

    def _record_holder(self, namespace: str, holder: str) -> None:
        """Report once that another install holds a namespace."""
        if not holder or namespace in self._held_by_others[holder]:
            return
        self._held_by_others[holder].add(namespace)
        self._changed.set()
        metrics.HELD_ELSEWHERE.labels(holder).set(len(self._held_by_others[holder]))
        text = "another install of Modelwright works in this namespace: this one writes nothing there"
        log.warning(text, extra={"namespace": namespace, "install": holder, "this_install": self.identity})
        claim = self._store.get(kinds.CONTROLLER_REVISION, namespace, names.CLAIM_NAME)
        if claim is not None:
            note = f"install {self.identity} watches this namespace too, and writes nothing here: {holder} works here"
            self._events.record(claim, "Warning", Reason.ANOTHER_INSTALL, note)

    async def _challenge_holder(self, holder: str) -> None:
        """Query a holder in one of its namespaces; take over all of them when it does not respond."""
        now, query = self._clock.monotonic(), self._queries.get(holder)
        if not self._held_by_others.get(holder):
            self._queries.pop(holder, None)
            return
        if query is not None and now < query.until:
            if query.namespace and self._is_unanswered(query, holder, self._stored_claim(query.namespace)):
                return
            if query.namespace:
                self._queries[holder] = _ClaimQuery("", "", now + QUESTION_INTERVAL_SECONDS)
            return
        if (
            query is not None
            and query.namespace
            and self._is_unanswered(query, holder, await self._reread_claim(query.namespace))
        ):
            await self._take_over(holder)
            self._queries.pop(holder, None)
            return
        held = self._held_by_others.get(holder)
        if not held:
            # Reading the claim has just removed its last namespace.
            return
        namespace = min(held)
        claim = await self._reread_claim(namespace)
        if claim is None or claim.install != holder:
            self._forget_holder(holder, namespace)
            return
        if not claim.asked_by:
            self._store_claim(await self._client.patch(install_claims.build_claim_patch(claim, asked_by=self._token)))
        # Any asking install's token counts: two that wait for one response must not mistake each other's query for it.
        self._queries[holder] = _ClaimQuery(namespace, claim.asked_by or self._token, now + ANSWER_TIMEOUT_SECONDS)

    def _is_unanswered(self, question: _ClaimQuery, holder: str, claim: InstallClaim | None) -> bool:
        return claim is not None and (claim.install, claim.asked_by) == (holder, question.token)

    async def _take_over(self, holder: str) -> None:
        log.warning("another install does not answer: its namespaces are taken over", extra={"install": holder})
        for namespace in sorted(self._held_by_others.get(holder, ())):
            claim = await self._reread_claim(namespace)
            if claim is not None and claim.install == holder:
                self._store_claim(
                    await self._client.patch(install_claims.build_claim_patch(claim, install=self.identity))
                )
                log.info("a namespace is this install's now", extra={"namespace": namespace, "before": holder})
                self._taken_over[namespace] = self._clock.monotonic() + SETTLE_SECONDS
            self._forget_holder(holder, namespace)
            self._enqueue_namespace(namespace)

    def _forget_holder(self, holder: str, namespace: str) -> None:
        if namespace not in self._held_by_others.get(holder, ()):
            return
        self._held_by_others[holder].discard(namespace)
        metrics.HELD_ELSEWHERE.labels(holder).set(len(self._held_by_others[holder]))
        if not self._held_by_others[holder]:
            del self._held_by_others[holder]
            metrics.HELD_ELSEWHERE.remove(holder)

    async def _answer_namespace(self, namespace: str) -> None:
        claim = self._stored_claim(namespace)
        if claim is not None and claim.install == self.identity and claim.asked_by:
            await self._answer_query(claim)
        self._queried_namespaces.discard(namespace)

    async def _answer_query(self, claim: InstallClaim) -> None:
        log.info("another install asks whether this one is running: confirmed", extra={"namespace": claim.namespace})
        try:
            self._store_claim(await self._client.patch(install_claims.build_claim_patch(claim)))
        except (api_errors.Conflict, api_errors.NotFound):
            await self._reread_claim(claim.namespace)

    async def _reread_claim(self, namespace: str) -> InstallClaim | None:
        """Read the claim from the API server and update the store."""
        raw = await self._client.get(kinds.CONTROLLER_REVISION, namespace, names.CLAIM_NAME)
        if raw is None:
            stored = self._stored_claim(namespace)
            if stored is not None:
                self._store.forget(
                    kinds.CONTROLLER_REVISION, namespace, names.CLAIM_NAME, stored.uid, last=stored.version
                )
            return None
        self._store_claim(raw)
        return install_claims.parse_claim(raw)

    def _store_claim(self, raw: Object) -> None:
        self._store.put({"apiVersion": "apps/v1", "kind": "ControllerRevision", **raw})

    async def _read_all_claims(self) -> None:
        while True:
            try:
                for namespace in self._namespaces:
                    for raw in await self._list_claims(namespace):
                        self._store_claim(raw)
                return
            except api_errors.ApiError as error:
                log.warning("the claims of installs can't be read, trying again", extra={"error": str(error)})
                await self._clock.sleep(RETRY_SECONDS)

    async def _list_claims(self, namespace: str | None) -> list[Object]:
        try:
            return await self._client.list(kinds.CONTROLLER_REVISION, namespace, labels=CLAIM_SELECTOR)
        except api_errors.Denied:
            if namespace is None:
                raise
            # The operator does nothing there until it can be read.
            return []

    async def _try_step(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except api_errors.ApiError as error:
            log.warning("a claim could not be read or written, trying again", extra={"error": str(error)})
            await self._clock.sleep(1.0)

    def _stored_claim(self, namespace: str) -> InstallClaim | None:
        raw = self._store.get(kinds.CONTROLLER_REVISION, namespace, names.CLAIM_NAME)
        return install_claims.parse_claim(raw) if raw is not None else None

    def _on_store_change(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if kind != kinds.CONTROLLER_REVISION or obj is None or obj["metadata"]["name"] != names.CLAIM_NAME:
            return
        if new is not None and install_claims.parse_claim(new).asked_by:
            self._queried_namespaces.add(obj["metadata"]["namespace"])
            self._changed.set()
        before = install_claims.parse_claim(old).install if old is not None else ""
        if new is None or (old is not None and before != install_claims.parse_claim(new).install):
            self._forget_holder(before, obj["metadata"]["namespace"])
            self._enqueue_namespace(obj["metadata"]["namespace"])
