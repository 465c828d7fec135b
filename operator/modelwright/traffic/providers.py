"""Chooses the way of moving traffic for a Model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from modelwright.api.v1alpha1.model import Endpoint
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.traffic import envoy
from modelwright.traffic.gateway_api import GatewayRouter
from modelwright.traffic.port import TrafficRouter
from modelwright.traffic.service import ServiceRouter
from modelwright.traffic.traefik import CONTROLLER, TraefikRouter

if TYPE_CHECKING:
    from modelwright.traffic.gateway_probe import GatewayProbe

Json = Mapping[str, Any]


def choose_router(
    endpoint: Endpoint | None, classes: Collection[Json | None], served: Collection[Kind], probe: GatewayProbe | None
) -> TrafficRouter:
    """The way for an endpoint: by its Service, by any gateway, or by Traefik.

    `classes`: the GatewayClass of each gateway in parentRefs, None for one that can't be looked at. What not all of
    them can do can't be had; with none known only what every gateway can.
    """
    if endpoint is None:
        return ServiceRouter()
    known = [found for found in classes if found is not None]
    told = [_list_features(found) for found in known]
    features = frozenset.intersection(*told) if told and len(known) == len(classes) else frozenset[str]()
    controllers = {str((found or {}).get("spec", {}).get("controllerName", "")) for found in classes}
    if controllers == {CONTROLLER} and kinds.TRAEFIK_SERVICE in served and kinds.HTTP_ROUTE in served:
        return TraefikRouter(probe, features)
    return GatewayRouter(probe, features)


UNLISTED_FEATURES: Mapping[str, frozenset[str]] = {envoy.CONTROLLER: envoy.FEATURES}
"""Features of classes that list none, by controllerName."""


def _list_features(gateway_class: Json) -> frozenset[str]:
    listed = gateway_class.get("status", {}).get("supportedFeatures") or []
    found = frozenset(entry["name"] if isinstance(entry, dict) else str(entry) for entry in listed)
    return found or UNLISTED_FEATURES.get(str(gateway_class.get("spec", {}).get("controllerName", "")), found)
