"""An API server with its controllers, simulated in memory: for tests that need thousands of clusters a minute.

It knows what the reconcilers rely on: names are taken, uids and resourceVersions are preconditions, generations count
changes of the spec, a watch tells of changes in order (and by labels), owners take their children with them.
"""

import copy
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from modelwright.api import names
from modelwright.kube import api_errors, kinds
from modelwright.kube.kinds import Kind
from modelwright.kube.store import Store
from modelwright.obs.clock import Clock

Object = dict[str, Any]
Place = tuple[Kind, str, str]


class Died(BaseException):
    """The operator's process is gone. No handler of the operator sees it."""


class SimulatedApi:
    """The methods of KubeClient that reconcilers call. `before_write` may raise, `after_write` too. Objects are created
    at the time of `clock`; without one, all at the beginning of 2026."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self.objects: dict[Place, Object] = {}
        self.told: list[tuple[Kind, str, Object]] = []
        """What the operator's watches will say, oldest first."""
        self.writes: list[tuple[str, Kind, str]] = []
        self.before_write: Callable[[str, Object], None] = lambda verb, obj: None
        self.after_write: Callable[[str, Object], None] = lambda verb, obj: None
        self.before_dry_run: Callable[[Object], None] = lambda obj: None
        self._count = itertools.count(1)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get((kind, namespace or "", name)))

    async def list(self, kind: Kind, namespace: str | None = None, **_: Any) -> list[Object]:
        return [copy.deepcopy(o) for (k, ns, _), o in self.objects.items() if k == kind and namespace in (None, ns)]

    async def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        if dry_run:
            self.before_dry_run(obj)
            return obj
        return self._write("create", obj, lambda: self.user_create(obj))

    async def patch(self, obj: Object) -> Object:
        return self._write("patch", obj, lambda: self._merge(obj, obj))

    async def apply(self, obj: Object, *, subresource: str | None = None, **_: Any) -> Object:
        assert subresource == "status"
        return self._write("status", obj, lambda: self._merge(obj, {"status": None}, status=obj["status"]))

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str, resource_version: str | None = None
    ) -> None:
        live = self.objects.get((kind, namespace or "", name))
        if live is None:
            return
        if live["metadata"]["uid"] != uid:
            raise api_errors.Conflict(409, "Conflict", "another object of that name")
        if resource_version not in (None, live["metadata"]["resourceVersion"]):
            raise api_errors.Conflict(409, "Conflict", "it has changed")
        self._write("delete", live, lambda: self.user_delete(kind, namespace or "", name))

    def user_create(self, obj: Object) -> Object:
        """Create, by anybody."""
        if place(obj) in self.objects:
            raise api_errors.AlreadyExists(409, "AlreadyExists", "the name is taken")
        obj = json.loads(json.dumps(obj))
        uid = f"uid-{next(self._count)}"
        now = self._clock.now() if self._clock is not None else datetime(2026, 1, 1, tzinfo=UTC)
        obj["metadata"] |= {"uid": uid, "generation": 1, "creationTimestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
        return self._keep(None, obj)

    def user_patch(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object | None:
        """Merge patch by anybody; None when there is no such object."""
        if (kind, namespace, name) not in self.objects:
            return None
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, **patch}
        whole["metadata"] = {"name": name, "namespace": namespace, **patch.get("metadata", {})}
        return self._merge(whole, whole)

    def user_delete(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Delete, by anybody; the children stay until `collect`."""
        old = self.objects.pop((kind, namespace, name), None)
        if old is not None:
            old["metadata"]["resourceVersion"] = str(next(self._count))
            if watched(old):
                self.told.append((kind, "DELETED", copy.deepcopy(old)))
        return old

    def set_status(self, obj: Object, status: Object) -> None:
        """A controller's word."""
        live = self.objects[place(obj)]
        if live.get("status") != status:
            self._keep(live, {**copy.deepcopy(live), "status": status})

    def collect(self) -> None:
        """The garbage collector: children go whose owner is gone."""
        while True:
            alive = {o["metadata"]["uid"] for o in self.objects.values()}
            dead = [
                where
                for where, o in self.objects.items()
                if (refs := o["metadata"].get("ownerReferences")) and not any(ref["uid"] in alive for ref in refs)
            ]
            if not dead:
                return
            for where in dead:
                self.user_delete(*where)

    def fill(self, store: Store) -> None:
        """What a restart or a sweep does: the store holds all there is, and nothing else."""
        self.told.clear()
        there = {where: o for where, o in self.objects.items() if watched(o)}
        for kind in kinds.ALL_KINDS:
            for (namespace, name), known in store.list_identities(kind).items():
                live = there.get((kind, namespace, name))
                if live is None or live["metadata"]["uid"] != known.uid:
                    store.forget(kind, namespace, name, known.uid)
        for (kind, _, _), obj in there.items():
            store.apply(kind, None, copy.deepcopy(obj))

    def _write(self, verb: str, obj: Object, do: Callable[[], Any]) -> Any:
        self.before_write(verb, obj)
        done = do()
        self.writes.append((verb, kinds.kind_of(obj), obj["metadata"]["name"]))
        self.after_write(verb, obj)
        return copy.deepcopy(done)

    def _merge(self, addressed: Object, patch: Object, status: Object | None = None) -> Object:
        live = self.objects.get(place(addressed))
        if live is None:
            raise api_errors.NotFound(404, "NotFound", "it is gone")
        for key in ("uid", "resourceVersion"):
            if addressed["metadata"].get(key) not in (None, live["metadata"][key]):
                raise api_errors.Conflict(409, "Conflict", f"{key} has changed")
        new = _merged(live, patch) if status is None else {**copy.deepcopy(live), "status": copy.deepcopy(status)}
        new["metadata"] = {**new["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
        if new.get("spec") != live.get("spec"):
            new["metadata"]["generation"] = live["metadata"]["generation"] + 1
        return live if new == live else self._keep(live, new)

    def _keep(self, old: Object | None, new: Object) -> Object:
        new["metadata"]["resourceVersion"] = str(next(self._count))
        self.objects[place(new)] = new
        was, now = old is not None and watched(old), watched(new)
        if was or now:
            kind = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
            self.told.append((kinds.kind_of(new), kind, copy.deepcopy(new)))
        return new


def watched(obj: Object) -> bool:
    """Whether the operator's watches tell of it: children only with our label."""
    return (
        kinds.kind_of(obj) in kinds.OWN_KINDS
        or (obj["metadata"].get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY
    )


def place(obj: Object) -> Place:
    """Kind, namespace and name."""
    return kinds.kind_of(obj), obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def _merged(base: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    base = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = _merged(base.get(key), value)
    return base
