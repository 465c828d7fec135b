"""An API server as tests see it: a small asynchronous client that polls for what should become true."""

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml
from yarl import URL

from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from tests.lib.documents import read_all

Object = dict[str, Any]

NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
REPLICA_SET = Kind("apps", "v1", "replicasets", "ReplicaSet")
ADMISSION = "admissionregistration.k8s.io"
ADMISSION_POLICY = Kind(ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
ADMISSION_BINDING = Kind(
    ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
)
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
_OTHERS = (NAMESPACE, CONFIG_MAP, REPLICA_SET, ADMISSION_POLICY, ADMISSION_BINDING, CRD)
_KINDS = {(k.group, k.kind): k for k in (*kinds.ALL_KINDS, *_OTHERS)}

PATIENCE = 300.0
"""Seconds within which anything awaited must become true, on a busy machine, under faults that cost restarts."""


class Refused(Exception):
    """The API server said no; `status` is the HTTP status, the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def kind_of(obj: Object) -> Kind:
    """The Kind of an object as on the wire."""
    return _KINDS[obj["apiVersion"].rpartition("/")[0], obj["kind"]]


class Api:
    """Use as `async with Api(kubeconfig)`. `agent` is what the audit log will say."""

    def __init__(self, kubeconfig: Path, agent: str = "tester") -> None:
        self._url, tls = client_tls(kubeconfig)
        self._tls: ssl.SSLContext | bool = tls or True
        self._headers = {"User-Agent": agent, "Accept": "application/json"}

    async def __aenter__(self) -> "Api":
        self._session = aiohttp.ClientSession(
            headers=self._headers, connector=aiohttp.TCPConnector(ssl=self._tls, limit=64)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Any = None, content: str = "application/json", **query: str
    ) -> Object:
        """The decoded answer; raises Refused."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, self._url + path, data=data, params=query, headers={"Content-Type": content}
        ) as answer:
            text = await answer.text()
        try:
            decoded = json.loads(text)
        except ValueError:
            decoded = {"message": text}
        if answer.status >= 300:
            raise Refused(answer.status, decoded.get("message", text))
        return decoded

    async def raw(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """The answer as it came: status and body."""
        url = URL(self._url + path, encoded=True)
        async with self._session.request(method, url, data=body or None, headers=headers) as answer:
            return answer.status, await answer.read()

    def stream(self, path: str, headers: Mapping[str, str]) -> contextlib.AbstractAsyncContextManager[Any]:
        """The answer to a GET as it comes, line by line in its `content`."""
        endless = aiohttp.ClientTimeout(total=None)
        return self._session.get(
            URL(self._url + path, encoded=True), headers=headers, timeout=endless, read_bufsize=2**22
        )

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """The object, None when there is none."""
        try:
            found = await self.call("GET", kind.path(namespace, name))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return {"apiVersion": kind.api_version, "kind": kind.kind, **found}

    async def list(self, kind: Kind, namespace: str | None = None, labels: str = "") -> list[Object]:
        """All objects of a kind."""
        answer = await self.call("GET", kind.path(namespace), labelSelector=labels)
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in answer["items"]]

    async def create(self, obj: Object) -> Object:
        """POST."""
        return await self.call("POST", kind_of(obj).path(obj["metadata"].get("namespace")), obj, fieldManager="tester")

    async def apply(self, obj: Object, manager: str = "tester", *, force: bool = False) -> Object:
        """Server-side apply; a conflict is Refused with 409 unless forced."""
        path = kind_of(obj).path(obj["metadata"].get("namespace"), obj["metadata"]["name"])
        query = {"fieldManager": manager, "force": "true"} if force else {"fieldManager": manager}
        return await self.call("PATCH", path, obj, "application/apply-patch+yaml", **query)

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Any, subresource: str | None = None
    ) -> Object:
        """A merge patch for a dict, a JSON patch for a list."""
        content = f"application/{'json' if isinstance(patch, list) else 'merge'}-patch+json"
        return await self.call("PATCH", kind.path(namespace, name, subresource), patch, content, fieldManager="tester")

    async def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete, in the background; gone already is fine."""
        try:
            await self.call("DELETE", kind.path(namespace, name), {"propagationPolicy": "Background"})
        except Refused as refused:
            if refused.status != 404:
                raise

    async def watch(self, kind: Kind, began: asyncio.Event | None = None) -> AsyncIterator[tuple[str, Object]]:
        """Every event of a kind from now on, (type, object), in the order they happened; `began` is set at once."""
        version = (await self.call("GET", kind.path(), limit="1"))["metadata"]["resourceVersion"]
        async with self._session.get(
            self._url + kind.path(),
            params={"watch": "1", "resourceVersion": version},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**22,
        ) as answer:
            if began is not None:
                began.set()
            async for line in answer.content:
                event = json.loads(line)
                yield event["type"], event["object"]


async def eventually(
    read: Callable[[], Any], good: Callable[[Any], bool], what: str, patience: float = PATIENCE
) -> Any:
    """Await `read()` until `good` holds for what it gives, and return that; else fail showing the last one."""
    limit = time.monotonic() + patience
    while True:
        seen = await read()
        if good(seen):
            return seen
        if time.monotonic() > limit:
            raise AssertionError(f"not within {patience:.0f} s: {what}\nlast seen:\n{_shown(seen)[:6000]}")
        await asyncio.sleep(0.15)


def _objects(folder: Path, *of: Kind) -> Iterator[Object]:
    for file in sorted(folder.glob("*.yaml")):
        for obj in read_all(file.read_text()):
            if obj["kind"] in {kind.kind for kind in of}:
                yield obj


async def install(api: Api, folder: Path) -> None:
    """Apply the CRDs of a folder and wait until they can be used."""
    crds = list(_objects(folder, CRD))
    await asyncio.gather(*(api.apply(crd) for crd in crds))
    for crd in crds:
        await eventually(
            lambda name=crd["metadata"]["name"]: api.get(CRD, None, name),
            lambda seen: any(
                c["type"] == "Established" and c["status"] == "True" for c in seen["status"].get("conditions") or ()
            ),
            "the CRD is established",
        )


async def install_policies(api: Api, folder: Path) -> None:
    """Apply the admission policies of a folder; they come into force a moment later."""
    for obj in _objects(folder, ADMISSION_POLICY, ADMISSION_BINDING):
        await api.apply(obj)


def _shown(seen: Any) -> str:
    """Status first, then the rest, cut."""
    if isinstance(seen, dict) and "metadata" in seen:
        metadata = {key: value for key, value in seen["metadata"].items() if key != "managedFields"}
        rest = {**seen, "metadata": metadata}
        return yaml.dump(rest.pop("status", None))[:4000] + yaml.dump(rest)
    return yaml.dump(seen) if isinstance(seen, dict | list) else str(seen)


def client_tls(kubeconfig: Path) -> tuple[str, ssl.SSLContext | None]:
    """The API server's URL, and what shows it a client certificate; None without one, or with a choice of contexts."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    if "client-certificate-data" not in user or len(config["contexts"]) != 1:
        return cluster["server"], None
    tls = ssl.create_default_context(cadata=_text(cluster["certificate-authority-data"]))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("certificate", "key"):
            Path(folder, name).write_text(_text(user[f"client-{name}-data"]))
        tls.load_cert_chain(Path(folder, "certificate"), Path(folder, "key"))
    return cluster["server"], tls


def _text(data: str) -> str:
    return base64.b64decode(data).decode()
