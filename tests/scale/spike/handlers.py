"""What the bare operator does for an object: three server-side applies and two status writes, and nothing else.

No drift repair, no conflicts, no revisions, no conditions, no Events, no Lease: what is left is what Kopf, the client
and the API server cost anyway.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import kopf
from kubernetes.aio.client import ApiClient

from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from tests.scale import spike

AGENT = "spike"
GENERATION = "spike.example.com/generation"
LABEL = "spike.example.com/owned"

Object = dict[str, Any]


class Handlers:
    """Kopf's handlers; they remember for which generation each Deployment was seen ready."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._ready: dict[tuple[str, str], int] = {}
        self._telling: set[tuple[str, str]] = set()

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Watch the objects, and the Deployments made for them, as KUBECONFIG says."""
        kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
        kopf.on.event(spike.KIND.group, spike.KIND.version, spike.KIND.plural, registry=registry)(self.serve)
        deployment = kinds.DEPLOYMENT
        kopf.on.event(
            deployment.group, deployment.version, deployment.plural, labels={LABEL: "true"}, registry=registry
        )(self.follow)

    async def serve(self, *, type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        """Apply the children of an object whose generation its status doesn't know yet."""
        metadata, status = body["metadata"], body.get("status") or {}
        generation = metadata["generation"]
        if type == "DELETED" or status.get("observedGeneration") == generation:
            return
        key = (metadata["namespace"], metadata["name"])
        await asyncio.gather(*(self._apply(*child) for child in children(body)))
        if self._ready.get(key) == generation:
            return
        self._telling.add(key)
        try:
            await self._tell(*key, generation, "Progressing")
        finally:
            self._telling.discard(key)
        if self._ready.get(key) == generation:
            # It became ready during the write, and `follow` has left that to us: one must not overwrite the other.
            await self._tell(*key, generation, "Ready")

    async def follow(self, *, type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        """Write into the object's status that its Deployment is ready. `type` is None in the list at the start."""
        if type == "DELETED":
            return
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        generation = int(metadata["annotations"][GENERATION])
        before = self._ready.get(key)
        self._ready[key] = generation if is_ready(body) else 0
        if self._ready[key] not in (0, before) and key not in self._telling and type is not None:
            await self._tell(*key, generation, "Ready")

    async def _tell(self, namespace: str, name: str, generation: int, phase: str) -> None:
        body = {
            "apiVersion": spike.KIND.api_version,
            "kind": spike.KIND.kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": {"observedGeneration": generation, "phase": phase},
        }
        await self._apply(spike.KIND, body, "status")

    async def _apply(self, kind: Kind, body: Object, subresource: str | None = None) -> None:
        metadata = body["metadata"]
        request = await self._api.param_serialize(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"], subresource),
            query_params=[("fieldManager", AGENT), ("force", "true")],
            header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(*request)
        text = await answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{kind} {metadata['name']} was not applied: {answer.status} {text[:400]!r}")


def children(body: Mapping[str, Any]) -> list[tuple[Kind, Object]]:
    """The Deployment, Service and HTTPRoute of an object."""
    name, spec = body["metadata"]["name"], body["spec"]
    owner = {
        "apiVersion": spike.KIND.api_version,
        "kind": spike.KIND.kind,
        "name": name,
        "uid": body["metadata"]["uid"],
        "controller": True,
    }
    metadata = {"name": name, "namespace": body["metadata"]["namespace"], "ownerReferences": [owner]}
    labels = {"app": name}
    marked = {"labels": {LABEL: "true"}, "annotations": {GENERATION: str(body["metadata"]["generation"])}}
    container = {"name": "model", "image": spec["image"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    deployment = {"replicas": spec.get("replicas", 1), "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 80}]}
    route = {"hostnames": [f"{name}.example.com"], "rules": [{"backendRefs": [{"name": name, "port": 80}]}]}
    return [
        (kinds.DEPLOYMENT, _object(kinds.DEPLOYMENT, {**metadata, **marked}, deployment)),
        (kinds.SERVICE, _object(kinds.SERVICE, metadata, service)),
        (kinds.HTTP_ROUTE, _object(kinds.HTTP_ROUTE, metadata, route)),
    ]


def is_ready(deployment: Mapping[str, Any]) -> bool:
    """Whether all pods it wants are of its newest template, and available."""
    status, wanted = deployment.get("status") or {}, deployment["spec"]["replicas"]
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    current = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return current and counts == [wanted] * 3


def _object(kind: Kind, metadata: Object, spec: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
