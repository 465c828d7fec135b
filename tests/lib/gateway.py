"""Plays the gateway controller on a control plane without one: answers every HTTPRoute in its status."""

import asyncio
import datetime
from dataclasses import dataclass, field
from typing import Any

from modelwright.kube import kinds
from tests.lib.api import Api, Refused

Object = dict[str, Any]
CLASS: Object = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "played"},
    "spec": {"controllerName": "example.com/played"},
}


def gateway(namespace: str, name: str = "models") -> Object:
    """A Gateway with one HTTP listener for all namespaces."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "gatewayClassName": "played",
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
            ],
        },
    }


@dataclass
class Player:
    """`refuses` and `ignores` hold the namespaces whose routes are refused, and left without an answer."""

    api: Api
    refuses: set[str] = field(default_factory=set)
    ignores: set[str] = field(default_factory=set)

    async def set_up(self, namespace: str) -> None:
        """A class and a Gateway with an address."""
        await self.api.apply(CLASS)
        await self.api.apply(gateway(namespace))
        address = {"status": {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}}
        await self.api.patch(kinds.GATEWAY, namespace, "models", address, "status")

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            for route in await self.api.list(kinds.HTTP_ROUTE):
                wanted = self._answer(route)
                if wanted is not None and _told(route.get("status", {})) != _told(wanted):
                    await self._write(route, wanted)
            await asyncio.sleep(0.2)

    def _answer(self, route: Object) -> Object | None:
        namespace, generation = route["metadata"]["namespace"], route["metadata"]["generation"]
        if namespace in self.ignores:
            return None
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        good = namespace not in self.refuses
        accepted = {
            "type": "Accepted",
            "status": str(good),
            "reason": "Accepted" if good else "NotAllowedByListeners",
            "message": "" if good else "the listener does not let this namespace in",
        }
        resolved = {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": ""}
        told = [{**c, "observedGeneration": generation, "lastTransitionTime": now} for c in (accepted, resolved)]
        return {
            "parents": [
                {"parentRef": ref, "controllerName": "example.com/played", "conditions": told}
                for ref in route["spec"]["parentRefs"]
            ]
        }

    async def _write(self, route: Object, status: Object) -> None:
        metadata = route["metadata"]
        try:
            await self.api.patch(
                kinds.HTTP_ROUTE, metadata["namespace"], metadata["name"], {"status": status}, "status"
            )
        except Refused as refused:
            if refused.status != 404:
                raise


def _told(status: Object) -> list[Any]:
    return [
        (p["parentRef"], [(c["type"], c["status"], c["observedGeneration"]) for c in p["conditions"]])
        for p in status.get("parents", [])
    ]
