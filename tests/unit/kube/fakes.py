"""An API server in a dict, behind the methods of KubeClient that the kube layer itself calls."""

from __future__ import annotations

import asyncio
import copy
import itertools
from typing import Any

from modelwright.kube import api_errors, kinds
from modelwright.kube.kinds import Kind

Object = dict[str, Any]


class FakeClient:
    """Objects by (kind, namespace, name), with uid and resourceVersion like the real thing.

    `failing` maps a verb to exceptions that its next calls raise, one each (None lets one call through).
    `hanging` verbs never answer.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str, str], Object] = {}
        self.calls: list[tuple[str, str]] = []
        self.failing: dict[str, list[Exception | None]] = {}
        self.hanging: set[str] = set()
        self.served: set[Kind] = set(kinds.ALL_KINDS)
        self._versions = itertools.count(100)

    async def _enter(self, verb: str, name: str) -> None:
        self.calls.append((verb, name))
        await asyncio.sleep(0)
        if verb in self.hanging:
            await asyncio.Event().wait()
        planned = self.failing.get(verb)
        if planned and (error := planned.pop(0)) is not None:
            raise error

    def save(self, obj: Object) -> Object:
        """Store an object as a write of another client would; returns its new state."""
        obj = copy.deepcopy(obj)
        version = str(next(self._versions))
        obj["metadata"].setdefault("uid", f"uid-{version}")
        obj["metadata"]["resourceVersion"] = version
        self.objects[_place(obj)] = obj
        return copy.deepcopy(obj)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        await self._enter("get", name)
        return copy.deepcopy(self.objects.get((kind, namespace or "", name)))

    async def create(self, obj: Object) -> Object:
        await self._enter("create", obj["metadata"]["name"])
        if _place(obj) in self.objects:
            raise api_errors.AlreadyExists(409, "AlreadyExists", "it exists already")
        return self.save(obj)

    async def replace(self, obj: Object) -> Object:
        await self._enter("replace", obj["metadata"]["name"])
        there = self.objects.get(_place(obj))
        if there is None:
            raise api_errors.NotFound(404, "NotFound", "it is gone")
        for field in ("uid", "resourceVersion"):
            if obj["metadata"].get(field) not in (None, there["metadata"][field]):
                raise api_errors.Conflict(409, "Conflict", "it has changed")
        return self.save({**obj, "metadata": {**obj["metadata"], "uid": there["metadata"]["uid"]}})

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, metadata_only: bool = False
    ) -> list[Object]:
        await self._enter("list", kind.kind)
        found = [o for (k, ns, _), o in self.objects.items() if k == kind and namespace in (None, ns)]
        return copy.deepcopy([{"metadata": o["metadata"]} for o in found] if metadata_only else found)

    async def served_kinds(self, among: object = ()) -> set[Kind]:
        await self._enter("served_kinds", "")
        return set(self.served)


def _place(obj: Object) -> tuple[Kind, str, str]:
    return kinds.kind_of(obj), obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def model(name: str = "digits", namespace: str = "vision", **more: Any) -> Object:
    """A small Model; `more` goes into metadata."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"namespace": namespace, "name": name, **more},
        "spec": {"version": {"name": f"{name}-v1"}},
    }


def transient() -> api_errors.Transient:
    """What a refused connection becomes."""
    return api_errors.error_without_response(ConnectionRefusedError("connection refused"))
