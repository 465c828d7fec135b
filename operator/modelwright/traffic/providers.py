"""Chooses the traffic router of a Model."""

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
    """Choose the router of an endpoint: by its Service, by any gateway, or by Traefik.

    `classes`: the GatewayClass of each gateway in parentRefs, None for one that can't be read. A feature must be
    listed by all of them; with an unread class, only features of every gateway are used.
    """
    if endpoint is None:
        return ServiceRouter()
    features_by_class = [_list_features(one) for one in classes if one is not None]
    all_known = bool(features_by_class) and len(features_by_class) == len(classes)
    features = frozenset.intersection(*features_by_class) if all_known else frozenset[str]()
    controllers = {str((one or {}).get("spec", {}).get("controllerName", "")) for one in classes}
    if controllers == {CONTROLLER} and kinds.TRAEFIK_SERVICE in served and kinds.HTTP_ROUTE in served:
        return TraefikRouter(probe, features)
    return GatewayRouter(probe, features)


UNLISTED_FEATURES: Mapping[str, frozenset[str]] = {envoy.CONTROLLER: envoy.FEATURES}
"""Features of classes that list none, by controllerName."""


def _list_features(gateway_class: Json) -> frozenset[str]:
    listed = gateway_class.get("status", {}).get("supportedFeatures") or []
    features = frozenset(entry["name"] if isinstance(entry, dict) else str(entry) for entry in listed)
    return features or UNLISTED_FEATURES.get(str(gateway_class.get("spec", {}).get("controllerName", "")), features)
