"""kubectl whose reads are requests of this process: a program started for each read keeps a small host busy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import httpx

from demo.kubectl import Json, Kubectl
from devcluster.cluster import Cluster
from tests.lib.api import client_tls


@dataclass(frozen=True)
class Place:
    """Where the API server has the objects of a kind."""

    root: str
    resource: str
    namespaced: bool
    kind: str
    api_version: str

    def path(self, namespace: str | None, name: str = "") -> str:
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.root}{where}/{self.resource}" + (f"/{name}" if name else "")


class Reader(Kubectl):
    """`get` and `items` as kubectl gives them. What they can't find or reach is asked of kubectl, whose word it is."""

    def get(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        place = self._place(kind)
        if place is not None and (namespace or not place.namespaced):
            answer = self._answer(place.path(namespace, name))
            if answer is not None and answer.status_code in (200, 404):
                return _shown(answer.json()) if answer.status_code == 200 else None
        return super().get(kind, name, namespace)

    def items(self, kind: str, namespace: str | None = None, labels: str | None = None) -> Sequence[Json]:
        place = self._place(kind)
        if place is not None:
            answer = self._answer(place.path(namespace), {"labelSelector": labels} if labels else {})
            if answer is not None and answer.status_code == 200:
                found: list[Json] = answer.json()["items"]
                return [_shown({"apiVersion": place.api_version, "kind": place.kind, **each}) for each in found]
        return super().items(kind, namespace, labels)

    @cached_property
    def _client(self) -> httpx.Client | None:
        url, tls = client_tls(self.kubeconfig)
        if tls is None:
            return None
        return httpx.Client(base_url=url, verify=tls, trust_env=False, timeout=30)

    @cached_property
    def _places(self) -> dict[str, Place]:
        return {}

    def _answer(self, path: str, query: dict[str, str] | None = None) -> httpx.Response | None:
        try:
            return self._client.get(path, params=query) if self._client else None
        except httpx.HTTPError:
            return None

    def _place(self, kind: str) -> Place | None:
        """By the plural of a kind, or `plural.group`; None when it isn't served, or the name is a short one."""
        if kind not in self._places:
            plural, _, group = kind.partition(".")
            root, api_version = "/api/v1", "v1"
            if group:
                versions = self._json(f"/apis/{group}")
                if versions is None:
                    return None
                api_version = versions["preferredVersion"]["groupVersion"]
                root = f"/apis/{api_version}"
            for resource in (self._json(root) or {}).get("resources", []):
                if resource["name"] == plural:
                    self._places[kind] = Place(root, plural, resource["namespaced"], resource["kind"], api_version)
        return self._places.get(kind)

    def _json(self, path: str) -> Json | None:
        answer = self._answer(path)
        if answer is None or answer.status_code != 200:
            return None
        found: Json = json.loads(answer.content)
        return found


def _shown(obj: Json) -> Json:
    # kubectl leaves them out too.
    obj["metadata"].pop("managedFields", None)
    return obj


def reader(cluster: Cluster) -> Reader:
    """As the cluster's administrator."""
    return Reader(cluster.kubectl, cluster.kubeconfig)
