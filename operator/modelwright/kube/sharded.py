"""Store, client and resync of a shard: objects of other shards are neither kept nor written (docs/adr/0016)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.model import Model
from modelwright.core.sharding import NamespaceClaim, NamespaceNotOwned, NamespaceOwnership
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind
from modelwright.kube.resync import Resync, WatchedKind
from modelwright.kube.store import Identity, Indexer, Place, Store

Object = dict[str, Any]

CLUSTER_WIDE_KINDS = frozenset({kinds.GATEWAY})
"""Kinds kept from all namespaces: Models of any namespace refer to them. Never written."""
UNANSWERED_WRITE_SECONDS = 60.0
"""Time limit of the API server for a request: a write without a response may still take effect until then."""
NEVER_SENT = ("ClientConnectorError", "ClientConnectorDNSError", "ConnectionTimeoutError")
"""Reasons of requests without a connection: they have no response, and cannot take effect later."""
MAX_CONCURRENT_LISTS = 8
MAX_LISTED_NAMESPACES = 200
"""Up to so many namespaces are listed one by one, without reading the objects of others."""
_KEPT_METADATA = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")


RECONCILE_CLAIM: ContextVar[NamespaceClaim | None] = ContextVar("PASS", default=None)
"""Claim under which the current reconcile started: its data may be stale if its namespace has left the shard since."""


def namespaces_to_list(kind: Kind, namespaces: Collection[str]) -> tuple[str | None, ...]:
    """Return the namespaces to list a kind in; None is all."""
    if (
        not kind.namespaced
        or kind in CLUSTER_WIDE_KINDS
        or kind == kinds.MODEL
        or len(namespaces) > MAX_LISTED_NAMESPACES
    ):
        return (None,)
    return tuple(namespaces)


class ShardStore(Store):
    """Keeps objects of the shard's namespaces; of Models elsewhere only the fields that endpoint conflicts depend
    on."""

    def __init__(self, ownership: NamespaceOwnership, indexers: Mapping[str, Indexer] | None = None) -> None:
        super().__init__(indexers)
        self.ownership = ownership

    def keeps_namespace(self, kind: Kind, namespace: str) -> bool:
        """Return whether objects of this kind are kept from that namespace."""
        return not kind.namespaced or kind in CLUSTER_WIDE_KINDS or self.ownership.is_mine(namespace)

    def apply(self, kind: Kind, event_type: str | None, obj: Mapping[str, Any]) -> tuple[Object | None, Object | None]:
        namespace = str(obj["metadata"].get("namespace") or "")
        if not self.keeps_namespace(kind, namespace):
            if kind == kinds.MODEL:
                self._update_endpoint(event_type, obj)
            return None, None
        changed = super().apply(kind, event_type, obj)
        if kind == kinds.MODEL:
            self._drop_silently(kinds.ENDPOINT, (namespace, str(obj["metadata"]["name"])))
        return changed

    def put(self, obj: Mapping[str, Any], *, quiet: bool = False) -> None:
        if self.keeps_namespace(kinds.kind_of(obj), str(obj["metadata"].get("namespace") or "")):
            super().put(obj, quiet=quiet)

    def drop_namespace(self, namespace: str) -> None:
        """Drop the objects of a namespace that now belongs to another shard. The endpoints of its Models stay."""
        for kind in [kind for kind in self._objects if kind.namespaced and not self.keeps_namespace(kind, namespace)]:
            if kind == kinds.ENDPOINT:
                continue
            for place in [place for place in self._objects[kind] if place[0] == namespace]:
                old = self.get(kind, *place)
                self._drop_silently(kind, place)
                if kind == kinds.MODEL and old is not None:
                    self._update_endpoint(None, old)

    def drop_stale_endpoints(self, namespace: str) -> None:
        """Drop endpoints of deleted Models, once all Models of a namespace that has joined the shard are kept."""
        for place in [place for place in self._objects[kinds.ENDPOINT] if place[0] == namespace]:
            self._drop_silently(kinds.ENDPOINT, place)

    def _update_endpoint(self, event_type: str | None, model: Mapping[str, Any]) -> None:
        metadata = model["metadata"]
        place = (str(metadata["namespace"]), str(metadata["name"]))
        stored = self.get(kinds.ENDPOINT, *place)
        if stored is not None and event_type != "DELETED" and _is_same_state(stored["metadata"], metadata):
            return
        endpoint = _parse_endpoint(model) if event_type != "DELETED" else None
        if endpoint is None:
            self._drop_silently(kinds.ENDPOINT, place)
        else:
            fields = {key: metadata[key] for key in _KEPT_METADATA if key in metadata}
            self._store_object(kinds.ENDPOINT, {"metadata": fields, "spec": {"endpoint": endpoint}})

    def _drop_silently(self, kind: Kind, place: Place) -> None:
        """Drop an object without a tombstone: it may return in this very state."""
        old = self.get(kind, *place)
        if old is not None:
            self._drop_object(kind, place)
            self._notify_listeners(kind, old, None)


def _is_same_state(stored: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    return all(stored.get(key) == metadata.get(key) for key in ("uid", "generation", "deletionTimestamp"))


def _parse_endpoint(model: Mapping[str, Any]) -> Object | None:
    """Return the endpoint of a Model; None when it has none, or is invalid for its own shard too."""
    try:
        parsed = Model.parse(model)
    except InvalidObject:
        return None
    if parsed.spec.endpoint is None:
        return None
    endpoint = model["spec"]["endpoint"]
    return {key: endpoint[key] for key in ("hostnames", "pathPrefix", "parentRefs") if key in endpoint}


class ShardClient(KubeClient):
    """A client that refuses writes where the shard may not write: as Conflict, so that the reconcile ends and is
    retried.

    Events are allowed: each is an object of its own.
    """

    def __init__(self, *arguments: Any, own: NamespaceOwnership, **more: Any) -> None:
        super().__init__(*arguments, user_agent=f"modelwright-shard-{own.shard}", **more)
        self._own = own

    async def _request_object(self, method: str, kind: Kind, path: str, *arguments: Any, **more: Any) -> Object:
        if method == "GET" or kind == kinds.EVENT or more.get("verb") == "dry-run":
            return await super()._request_object(method, kind, path, *arguments, **more)
        namespace = path.removeprefix(kind.group_path).split("/")[2] if kind.namespaced else ""
        try:
            with self._own.guard_write(namespace) as claim:
                started_under = RECONCILE_CLAIM.get()
                if started_under is not None and started_under != claim and started_under[0] == namespace:
                    raise NamespaceNotOwned(f"namespace {namespace} was another shard's since this reconcile started")
                try:
                    return await super()._request_object(method, kind, path, *arguments, **more)
                except asyncio.CancelledError:
                    self._hold_claim(claim)
                    raise
                except api_errors.Transient as error:
                    if error.reason not in NEVER_SENT:
                        self._hold_claim(claim)
                    raise
        except NamespaceNotOwned as refused:
            raise api_errors.Conflict(409, "NotOurs", str(refused), request=f"{method} {path}") from None

    def _hold_claim(self, claim: NamespaceClaim) -> None:
        self._own.begin_write(claim)
        self._clock.call_later(UNANSWERED_WRITE_SECONDS, lambda: self._own.end_write(claim))


class ShardResync(Resync):
    """A resync of the shard's own namespaces. `complete` returns whether a namespace is fully loaded."""

    def __init__(self, *arguments: Any, own: NamespaceOwnership, complete: Callable[[str], bool], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._own = own
        self._complete = complete

    async def _list_identities(self, watched: WatchedKind) -> tuple[dict[Place, Identity], frozenset[str]]:
        gate = asyncio.Semaphore(MAX_CONCURRENT_LISTS)

        async def list_namespace(namespace: str | None) -> list[Object]:
            async with gate:
                return await self._client.list(watched.kind, namespace, labels=watched.labels, metadata_only=True)

        namespaces = namespaces_to_list(watched.kind, self._own.list_namespaces())
        identities: dict[Place, Identity] = {}
        for objects in await asyncio.gather(*(list_namespace(namespace) for namespace in namespaces)):
            for obj in objects:
                meta = obj["metadata"]
                place = (str(meta.get("namespace") or ""), str(meta["name"]))
                if self._is_concerned(watched.kind, place):
                    identities[place] = Identity(str(meta["uid"]), str(meta["resourceVersion"]))
        return identities, frozenset()

    async def _matches_store(self, kind: Kind, place: Place) -> bool:
        # An object that joined or left with its namespace during the resync is no difference.
        return not self._is_concerned(kind, place) or await super()._matches_store(kind, place)

    def _find_missing(self, kind: Kind, listed: dict[Place, Identity]) -> dict[Place, Identity]:
        return {
            place: identity
            for place, identity in super()._find_missing(kind, listed).items()
            if self._is_concerned(kind, place)
        }

    def _is_concerned(self, kind: Kind, place: Place) -> bool:
        return (
            not kind.namespaced
            or kind in CLUSTER_WIDE_KINDS
            or (self._own.is_mine(place[0]) and self._complete(place[0]))
        )
