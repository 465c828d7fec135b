"""Envoy Gateway: routed as any gateway, with features that it has but does not list."""

from modelwright.traffic.gateway_api import (
    CORS_FEATURE,
    MARK_FEATURE,
    MIRROR_FEATURE,
    MIRROR_PERCENT_FEATURE,
    TIMEOUT_FEATURE,
)

CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"

FEATURES = frozenset({CORS_FEATURE, MARK_FEATURE, MIRROR_FEATURE, MIRROR_PERCENT_FEATURE, TIMEOUT_FEATURE})
"""Up to 1.9, Envoy Gateway leaves status.supportedFeatures of its classes empty. These were tested with 1.9.1."""
