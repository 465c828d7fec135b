"""The operator's cache of the cluster: the watched objects, in the last state received from the API server.

Objects are kept as compact JSON and parsed at each read. That takes a tenth of the memory of nested dicts, leaves
nothing for the garbage collector to walk, and callers may modify a returned object without changing the store.

**Which of two versions is newer.** resourceVersions are compared as numbers, which they are on every API server over
etcd (guaranteed from Kubernetes 1.35 on); one that is no number is taken as newer. So neither a late watch event nor
the response to a superseded write ever reverts the store: an event older than the state stored by `put` is stale, and
the echo of our own write is a duplicate. The resync finds the remaining differences.

**Objects that are too large** keep their place and version, but no content (`parse_object`, and `NAMESPACE_BYTES`). An
object of our own kinds is returned as metadata, status and the reason, so that its status can report it; one of another
kind is hidden from readers. The resync covers both.

**Deleted objects** are remembered by uid for a while, so that the late response to a write cannot restore one. A watch
by labels also sends DELETED for an object that has only lost its labels: a later state than that restores it.
"""

from __future__ import annotations

import builtins
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from modelwright.api.common import TOO_LARGE_KEY
from modelwright.api.names import LABEL_MODEL
from modelwright.kube import codec, kinds
from modelwright.kube.kinds import Kind
from modelwright.obs import metrics

log = logging.getLogger(__name__)

Object = dict[str, Any]
Objects = list[Object]
Listener = Callable[[Kind, Object | None, Object | None], None]
Indexer = Callable[[Kind, Object], Iterable[str]]
Place = tuple[str, str]
"""(namespace, name); "" as the namespace of cluster-scoped kinds."""

TOMBSTONES = 8192

LARGE_BYTES = 64 << 10
NAMESPACE_BYTES = 32 << 20
"""Objects of more than LARGE_BYTES may take so much in total in one namespace; further ones are too large."""
MAX_INDEX_VALUES = 512
"""Most values of one index that an object is listed under."""

_IDENTITY_FIELDS = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp")
_UNREAD_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision")


@dataclass(frozen=True, slots=True)
class _StoredObject:
    uid: str
    resource_version: str
    blob: bytes
    index: tuple[tuple[str, str], ...]
    created: str
    is_too_large: bool
    """Whether its content was dropped."""
    is_hidden: bool
    """Whether its content was dropped and its kind's status is not ours."""

    @property
    def bytes_if_large(self) -> int:
        """The bytes that it takes of NAMESPACE_BYTES."""
        return len(self.blob) if len(self.blob) > LARGE_BYTES else 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity and state of the object that the store holds under a name."""

    uid: str
    resource_version: str


class Store:
    """The store. All methods are synchronous and must be called from the event loop's thread.

    `indexers` adds indexes by name beside the two built in ("model" and "owner"): each yields the values under which
    `by_index` returns an object.
    """

    def __init__(self, indexers: Mapping[str, Indexer] | None = None) -> None:
        self._indexers: dict[str, Indexer] = {"model": _model_index, "owner": _owner_index, **(indexers or {})}
        self._objects: dict[Kind, dict[tuple[str, str], _StoredObject]] = defaultdict(dict)
        self._indexes: dict[tuple[Kind, str], dict[str, dict[tuple[str, str], None]]] = defaultdict(dict)
        self._large_bytes: defaultdict[str, int] = defaultdict(int)
        self._tombstones: OrderedDict[str, str | None] = OrderedDict()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener(kind, old, new)` at each real change, by a watch event, `put` or `forget`.

        A listener must not keep or modify `new`: it shares its parts with the object passed to the store. Exceptions of
        a listener reach the caller of the method that made the change.
        """
        self._listeners.append(listener)

    def apply(self, kind: Kind, event_type: str | None, obj: Mapping[str, Any]) -> tuple[Object | None, Object | None]:
        """Apply a watch event: ADDED, MODIFIED, DELETED, or None for an object of an initial list.

        Returns (before, after). Both are the same (`before is after`) when the event changed nothing. `after` shares
        its parts with `obj`: copy before modifying.
        """
        if event_type == "DELETED":
            return self._handle_deletion(kind, obj)
        return self._store_object(kind, obj)

    def put(self, obj: Mapping[str, Any], *, quiet: bool = False) -> None:
        """Store the API server's response to a write, so that the next reconcile does not act on stale data.

        `quiet`: listeners are not notified, because the writer itself continues with the new state.
        """
        self._store_object(kinds.kind_of(obj), obj, quiet=quiet)

    def forget(
        self, kind: Kind, namespace: str, name: str, uid: str, *, last: str | None = None, quiet: bool = False
    ) -> Object | None:
        """Drop an object that no longer exists, if the store still holds this very one. Returns the dropped object.

        With `last`, a resourceVersion, a newer state of the object restores it: it may only have lost the labels that
        we watch by.
        """
        entry = self._objects[kind].get((namespace, name))
        self._add_tombstone(uid, last)
        if entry is None or entry.uid != uid:
            return None
        old = _parse_stored(entry)
        self._drop_object(kind, (namespace, name))
        if not quiet and not entry.is_hidden:
            self._notify_listeners(kind, old, None)
        return old

    def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """Return a copy of the object, or None. `namespace` is None or "" for cluster-scoped kinds."""
        entry = self._objects[kind].get((namespace or "", name))
        return _parse_stored(entry) if entry and not entry.is_hidden else None

    def list(self, kind: Kind, namespace: str | None = None) -> Objects:
        """List copies of all objects of a kind (in one namespace), in no particular order."""
        objects = self._objects[kind]
        return [_parse_stored(e) for key, e in objects.items() if not e.is_hidden and namespace in (None, key[0])]

    def by_model(self, kind: Kind, namespace: str, model: str) -> Objects:
        """List the objects of a kind that belong to a Model: by label modelwright.dev/model, or
        `spec.modelRef.name`."""
        return self.by_index("model", kind, model, namespace)

    def by_owner(self, kind: Kind, owner_uid: str) -> Objects:
        """List the objects of a kind with an owner reference (controller or not) to that uid."""
        return self.by_index("owner", kind, owner_uid)

    def by_index(self, index: str, kind: Kind, value: str, namespace: str | None = None) -> Objects:
        """List the objects of a kind for which the index's function yields `value`."""
        objects = self._objects[kind]
        return [_parse_stored(objects[place]) for place in self.list_places(index, kind, value, namespace)]

    def list_places(self, index: str, kind: Kind, value: str, namespace: str | None = None) -> builtins.list[Place]:
        """List (namespace, name) of the objects that `by_index` returns, without parsing them."""
        keys = self._indexes[kind, index].get(value, {})
        return [key for key in keys if namespace is None or key[0] == namespace]

    def sort_newest_first(self, kind: Kind, places: Iterable[Place]) -> builtins.list[Place]:
        """Sort places by creation time, the newest first; those of one second by name. Parses nothing."""
        objects = self._objects[kind]
        return sorted(places, key=lambda place: (objects[place].created, place[1]), reverse=True)

    def list_names(self, kind: Kind) -> tuple[tuple[str, str], ...]:
        """List (namespace, name) of all objects of a kind; "" as the namespace of cluster-scoped ones."""
        return tuple(self._objects[kind])

    def list_identities(self, kind: Kind) -> dict[tuple[str, str], Identity]:
        """Return uid and resourceVersion of all objects of a kind, by (namespace, name)."""
        return {key: Identity(e.uid, e.resource_version) for key, e in self._objects[kind].items()}

    def identity_of(self, kind: Kind, place: Place) -> Identity | None:
        """Return uid and resourceVersion of the object at (namespace, name)."""
        entry = self._objects[kind].get(place)
        return Identity(entry.uid, entry.resource_version) if entry is not None else None

    def is_deleted(self, uid: str, version: str | None = None) -> bool:
        """Return whether the object of this uid is known to be deleted; with `version`, at that state or later."""
        if uid not in self._tombstones:
            return False
        last = self._tombstones[uid]
        return version is None or last is None or not is_newer(version, last)

    def count(self, kind: Kind) -> int:
        """Return the number of objects of a kind."""
        return len(self._objects[kind])

    def _store_object(
        self, kind: Kind, obj: Mapping[str, Any], *, quiet: bool = False
    ) -> tuple[Object | None, Object | None]:
        meta = obj["metadata"]
        key = (str(meta.get("namespace") or ""), str(meta["name"]))
        uid = str(meta.get("uid") or "")
        version = str(meta.get("resourceVersion") or "")
        entry = self._objects[kind].get(key)
        if self.is_deleted(uid, version) or (entry is not None and not is_newer(version, entry.resource_version)):
            same = entry is not None and (entry.uid, entry.resource_version) == (uid, version)
            metrics.WATCH_EVENTS.labels(kind.kind, "duplicate" if same else "stale").inc()
            return _no_change()
        trimmed = _trim_object(kind, obj)
        blob = codec.dumps(trimmed)
        room = NAMESPACE_BYTES - self._large_bytes[key[0]] + (entry.bytes_if_large if entry is not None else 0)
        if len(blob) > max(room, LARGE_BYTES):
            trimmed = _without_content(trimmed)
            blob = codec.dumps(trimmed)
        if entry is not None and entry.uid == uid and entry.blob == blob:
            # Only fields that we don't keep have changed.
            self._objects[kind][key] = replace(entry, resource_version=version)
            metrics.WATCH_EVENTS.labels(kind.kind, "duplicate").inc()
            return _no_change()
        new = _with_version(trimmed, version)
        refused = TOO_LARGE_KEY in trimmed
        hidden = refused and kind not in kinds.OWN_KINDS
        index = () if hidden else tuple(self._index_values(kind, new))
        old = _parse_stored(entry) if entry is not None and not entry.is_hidden else None
        if refused and not (entry is not None and entry.is_too_large):
            fields = {"kind": kind.kind, "namespace": key[0], "object": key[1], "why": trimmed[TOO_LARGE_KEY]}
            log.warning("an object is too large to be read", extra=fields)
        if entry is not None:
            self._drop_object(kind, key)
            if entry.uid != uid:
                self._add_tombstone(entry.uid)
        self._tombstones.pop(uid, None)
        created = str(meta.get("creationTimestamp") or "")
        added = self._objects[kind][key] = _StoredObject(uid, version, blob, index, created, refused, hidden)
        self._large_bytes[key[0]] += added.bytes_if_large
        for name, value in index:
            self._indexes[kind, name].setdefault(value, {})[key] = None
        metrics.WATCH_EVENTS.labels(kind.kind, "kept").inc()
        metrics.STORE_OBJECTS.labels(kind.kind).set(len(self._objects[kind]))
        metrics.STORE_BYTES.inc(len(blob))
        if refused:
            metrics.STORE_TOO_LARGE.labels(kind.kind).inc()
        visible = None if hidden else new
        if not quiet and not (old is None and visible is None):
            self._notify_listeners(kind, old, visible)
        return old, visible

    def _index_values(self, kind: Kind, obj: Object) -> Iterator[tuple[str, str]]:
        """Yield (index, value) pairs; an object of a shape that its schema should have refused is in no index."""
        for name, indexer in self._indexers.items():
            try:
                values = tuple(islice(indexer(kind, obj), MAX_INDEX_VALUES))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                fields = {"kind": kind.kind, "namespace": obj["metadata"].get("namespace")}
                details = {**fields, "object": obj["metadata"]["name"], "index": name, "error": str(error)}
                text = "an object does not have the shape of its kind: is the CRD of this version installed?"
                log.warning(text, extra=details)
            else:
                yield from ((name, value) for value in values)

    def _handle_deletion(self, kind: Kind, obj: Mapping[str, Any]) -> tuple[Object | None, Object | None]:
        meta = obj["metadata"]
        key = (str(meta.get("namespace") or ""), str(meta["name"]))
        uid = str(meta.get("uid") or "")
        self._add_tombstone(uid, str(meta.get("resourceVersion") or "") or None)
        entry = self._objects[kind].get(key)
        if entry is None or entry.uid != uid:
            # Unknown, or another object has taken the name already: the store has nothing of it.
            metrics.WATCH_EVENTS.labels(kind.kind, "stale").inc()
            return _no_change()
        old = _parse_stored(entry)
        self._drop_object(kind, key)
        metrics.WATCH_EVENTS.labels(kind.kind, "kept").inc()
        if not entry.is_hidden:
            self._notify_listeners(kind, old, None)
        return old, None

    def _drop_object(self, kind: Kind, key: tuple[str, str]) -> None:
        entry = self._objects[kind].pop(key)
        for name, value in entry.index:
            keys = self._indexes[kind, name][value]
            keys.pop(key, None)
            if not keys:
                del self._indexes[kind, name][value]
        metrics.STORE_OBJECTS.labels(kind.kind).set(len(self._objects[kind]))
        metrics.STORE_BYTES.dec(len(entry.blob))
        if entry.is_too_large:
            metrics.STORE_TOO_LARGE.labels(kind.kind).dec()
        self._large_bytes[key[0]] -= entry.bytes_if_large

    def _add_tombstone(self, uid: str, version: str | None = None) -> None:
        """Remember a deleted object. `version`: its last state; None when unknown."""
        if uid:
            self._tombstones[uid] = version
            if len(self._tombstones) > TOMBSTONES:
                self._tombstones.popitem(last=False)

    def _notify_listeners(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        for listener in self._listeners:
            listener(kind, old, new)


def is_newer(version: str, than: str) -> bool:
    """Return whether resourceVersion `version` is newer than another; a non-number counts as newer if different."""
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than


def _no_change() -> tuple[None, None]:
    return None, None


def _model_index(kind: Kind, obj: Object) -> Iterator[str]:
    if kind in (kinds.MODEL_VERSION, kinds.MODEL_ROLLOUT, kinds.APPROVAL):
        name = ((obj.get("spec") or {}).get("modelRef") or {}).get("name")
    else:
        name = (obj["metadata"].get("labels") or {}).get(LABEL_MODEL)
    if name:
        yield str(name)


def _owner_index(_: Kind, obj: Object) -> Iterator[str]:
    for reference in obj["metadata"].get("ownerReferences") or ():
        yield str(reference.get("uid") or "")


def _trim_object(kind: Kind, obj: Mapping[str, Any]) -> Object:
    """Return the object without unused fields and without its resourceVersion, which is kept beside it. Shares its
    parts."""
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("managedFields", "selfLink", "resourceVersion")}
    if annotations := meta.get("annotations"):
        meta["annotations"] = {k: v for k, v in annotations.items() if k not in _UNREAD_ANNOTATIONS}
    return {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}


def _without_content(obj: Object) -> Object:
    """Reduce an object for which its namespace has no room."""
    meta = {key: obj["metadata"][key] for key in _IDENTITY_FIELDS if key in obj["metadata"]}
    status = {"status": obj["status"]} if "status" in obj and len(codec.dumps(obj["status"])) <= LARGE_BYTES else {}
    reason = (
        f"its namespace has no room for it: objects of more than {LARGE_BYTES >> 10} KiB may take "
        f"{NAMESPACE_BYTES >> 20} MiB in total in a namespace. Delete some of them, then edit this one"
    )
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta, **status, TOO_LARGE_KEY: reason}


def _parse_stored(entry: _StoredObject) -> Object:
    return _with_version(codec.loads(entry.blob), entry.resource_version)


def _with_version(obj: Object, version: str) -> Object:
    obj["metadata"]["resourceVersion"] = version
    return obj
