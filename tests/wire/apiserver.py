"""A small API server on loopback that misbehaves on request: lists, watches, writes, and every fault of the wire."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from modelwright.kube import kinds
from modelwright.kube.kinds import Kind

Object = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeApiServer:
    """Serves the `kinds` it is given. `requests` are (method, path with query) in the order of arrival."""

    def __init__(self, *served: Kind) -> None:
        self.served = served or kinds.ALL_KINDS
        self.objects: dict[tuple[Kind, str, str], Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.faults: list[tuple[str, str, Handler]] = []
        self._version = 1000
        self._watches: list[tuple[Kind, asyncio.Queue[bytes | None]]] = []
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for _, queue in self._watches:
            queue.put_nowait(None)
        if self._runner is not None:
            await self._runner.cleanup()

    def configuration(self) -> Configuration:
        """How the client reaches this server."""
        return Configuration(host=f"http://127.0.0.1:{self.port}")

    def fault(self, method: str, path: str, handler: Handler, times: int = 1) -> None:
        """Let the next `times` requests of this method whose path and query hold `path` be answered by `handler`."""
        self.faults += [(method, path, handler)] * times

    def save(self, obj: Object, *, tell: bool = True) -> Object:
        """Store an object and (unless `tell` is False) send the watch event."""
        kind = kinds.kind_of(obj)
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        place = (kind, meta.get("namespace") or "", meta["name"])
        self._version += 1
        meta.setdefault("uid", f"uid-{self._version}")
        meta["resourceVersion"] = str(self._version)
        event = "MODIFIED" if place in self.objects else "ADDED"
        self.objects[place] = obj
        if tell:
            self.tell(kind, event, obj)
        return copy.deepcopy(obj)

    def remove(self, obj: Object, *, tell: bool = True) -> None:
        """Delete an object and (unless `tell` is False) send the watch event."""
        kind = kinds.kind_of(obj)
        gone = self.objects.pop((kind, obj["metadata"].get("namespace") or "", obj["metadata"]["name"]))
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        if tell:
            self.tell(kind, "DELETED", gone)

    def tell(self, kind: Kind, type_: str, obj: Object) -> None:
        """Send an event to everybody who watches the kind."""
        self.send(kind, json.dumps({"type": type_, "object": obj}).encode() + b"\n")

    def send(self, kind: Kind, raw: bytes | None) -> None:
        """Send bytes to everybody who watches the kind; None ends the streams."""
        for watched, queue in self._watches:
            if watched == kind:
                queue.put_nowait(raw)

    def expire(self, kind: Kind) -> None:
        """Tell the watches that their resourceVersion is too old (410 Gone)."""
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        self.tell(kind, "ERROR", gone)

    def watching(self, kind: Kind) -> int:
        """How many watches of the kind are open."""
        return sum(1 for watched, _ in self._watches if watched == kind)

    def writes(self) -> list[tuple[str, str]]:
        """All requests that could have changed something."""
        return [r for r in self.requests if r[0] != "GET"]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        self.bodies.append(await request.read())
        for n, (method, path, handler) in enumerate(self.faults):
            if method == request.method and path in request.path_qs:
                del self.faults[n]
                return await handler(request)
        if request.path in ("/api", "/apis", "/version"):
            return web.json_response(self._discovery(request.path))
        for kind in self.served:
            if request.path == kind.group_path:
                return web.json_response(self._group(kind.group_path))
        for kind in self.served:
            found = _parse(kind, request.path)
            if found is not None:
                return await self._resource(request, kind, *found)
        return _status(404, "NotFound", f"{request.path} not found")

    def _discovery(self, path: str) -> Object:
        if path == "/version":
            return {"gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        versions = sorted({(k.group, k.version) for k in self.served if k.group})
        return {
            "kind": "APIGroupList",
            "groups": [
                {"name": g, "versions": [{"version": v}], "preferredVersion": {"version": v}} for g, v in versions
            ],
        }

    def _group(self, group_path: str) -> Object:
        resources = [
            {"name": k.plural, "kind": k.kind, "singularName": k.kind.lower(), "namespaced": k.namespaced}
            | {"verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]}
            for k in self.served
            if k.group_path == group_path
        ]
        return {"kind": "APIResourceList", "resources": resources}

    async def _resource(self, request: web.Request, kind: Kind, namespace: str, name: str) -> web.StreamResponse:
        if not name and request.method == "GET":
            return await (self._watch(request, kind) if "watch" in request.query else self._list(request, kind))
        if request.method in ("POST", "PUT", "PATCH"):
            obj = json.loads(await request.read())
            place = (kind, namespace, obj["metadata"]["name"])
            if request.method == "POST" and place in self.objects:
                return _status(409, "AlreadyExists", f"{name} already exists")
            if request.method != "POST" and place not in self.objects and kind != kinds.LEASE:
                return _status(404, "NotFound", f"{name} not found")
            old = self.objects.get(place, {})
            uid = old.get("metadata", {}).get("uid")
            merged = {**old, **obj, "metadata": {**old.get("metadata", {}), **obj["metadata"]}}
            if uid:
                merged["metadata"]["uid"] = uid
            return web.json_response(self.save(merged), status=201 if request.method == "POST" else 200)
        found = self.objects.get((kind, namespace, name))
        if found is None:
            return _status(404, "NotFound", f"{name} not found")
        if request.method == "DELETE":
            self.remove(found)
            return web.json_response({"kind": "Status", "status": "Success"})
        return web.json_response(found)

    async def _list(self, request: web.Request, kind: Kind) -> web.Response:
        items = [o for (k, _, _), o in sorted(self.objects.items(), key=lambda i: i[0][1:]) if k == kind]
        limit, start = int(request.query.get("limit", 0)), int(request.query.get("continue") or 0)
        page = items[start : start + limit] if limit else items
        meta: Object = {"resourceVersion": str(self._version)}
        if limit and start + limit < len(items):
            meta["continue"] = str(start + limit)
        bare = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in page]
        if "PartialObjectMetadata" in request.headers.get("Accept", ""):
            bare = [{"kind": "PartialObjectMetadata", "metadata": o["metadata"]} for o in bare]
        listed = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": bare}
        return web.json_response(listed)

    async def _watch(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        entry = (kind, queue)
        # What happened between the version that is asked for and now.
        for (k, _, _), obj in list(self.objects.items()):
            if k == kind and int(obj["metadata"]["resourceVersion"]) > int(request.query.get("resourceVersion", 0)):
                queue.put_nowait(json.dumps({"type": "MODIFIED", "object": obj}).encode() + b"\n")
        self._watches.append(entry)
        try:
            while (raw := await queue.get()) is not None:
                await response.write(raw)
        finally:
            self._watches.remove(entry)
        return response


def answer(status: int, body: str = "", **headers: str) -> Handler:
    """A fault: this answer."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handle


def refuse(status: int, message: str) -> Handler:
    """A fault: what RBAC (403) and authentication (401) say."""

    async def handle(_: web.Request) -> web.Response:
        return _status(status, {401: "Unauthorized", 403: "Forbidden"}[status], message)

    return handle


async def hang(_: web.Request) -> web.StreamResponse:
    """A fault: no answer at all."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def reset(request: web.Request) -> web.StreamResponse:
    """A fault: the connection is gone before there is an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half_close(request: web.Request) -> web.StreamResponse:
    """A fault: the answer ends in the middle although its length was announced."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"kind": "Mod')
    assert request.transport is not None
    request.transport.close()
    return response


async def truncated(request: web.Request) -> web.StreamResponse:
    """A fault: an answer that ends properly, but in the middle of its JSON."""
    return web.Response(text='{"kind": "Model", "metadata": {"na', content_type="application/json")


def _parse(kind: Kind, path: str) -> tuple[str, str] | None:
    """(namespace, name) of a path of this kind; "" for what it doesn't name."""
    rest = path.removeprefix(kind.group_path + "/")
    if rest == path:
        return None
    parts = rest.split("/")
    namespace = ""
    if kind.namespaced and parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    if parts[0] != kind.plural or len(parts) > 3:
        return None
    return namespace, parts[1] if len(parts) > 1 else ""


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)
