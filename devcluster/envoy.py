"""Envoy behind Envoy Gateway, a second gateway beside Traefik: its image, chart values and objects."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from devcluster import parts
from devcluster.images import build_image
from devcluster.progress import Progress

NAMESPACE, RELEASE, CLASS = "envoy-gateway-system", "eg", "envoy"
GATEWAY = {"namespace": "gateways", "name": "envoy"}
LISTENER_PORT = 80
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_API, _OWN_API = "gateway.networking.k8s.io/v1", "gateway.envoyproxy.io/v1alpha1"


def build(progress: Progress) -> str:
    """Build the image with Envoy and Envoy Gateway; return its tag. Both binaries must exist: `parts.build`."""
    part = parts.tool_of("envoy-gateway")
    context = part.folder()
    shutil.copy2(part.source() / "requirements.txt", context)
    tag = f"localhost/modelwright/envoy-gateway:{part.version()}"
    build_image(part.source() / "Containerfile", tag, context=context, progress=progress)
    return tag


def crds() -> Path:
    """The folder of Envoy Gateway's own CRDs; those of the Gateway API are the cluster's."""
    return parts.module_files("envoy-gateway", "charts/gateway-helm/charts/crds/crds/generated")


def chart() -> Path:
    """The Helm chart, in the Go module of its source."""
    return parts.module("envoy-gateway") / "charts" / "gateway-helm"


def values(chart_folder: Path, image: str) -> dict[str, Any]:
    """Build all values of the chart, whose own defaults are a template that releases fill in."""
    text = (chart_folder / "values.tmpl.yaml").read_text()
    filled = text.replace("${GatewayImage}", image).replace("${GatewayImagePullPolicy}", "IfNotPresent")
    defaults: dict[str, Any] = yaml.safe_load(filled)
    defaults["crds"]["enabled"] = False
    # The webhook tells Envoy its zone, which a single Envoy does not need.
    defaults["topologyInjector"]["enabled"] = False
    defaults["deployment"]["envoyGateway"]["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}}
    provider = defaults["config"]["envoyGateway"]["provider"]
    provider["kubernetes"] = {"shutdownManager": {"image": image}}
    return defaults


def objects(image: str) -> list[dict[str, Any]]:
    """Build the GatewayClass, the configuration of its Envoys, and a Gateway for the routes of all namespaces."""
    parameters = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "namespace": NAMESPACE, "name": CLASS}
    container = {"image": image, "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}
    listener = {
        "name": "http",
        "protocol": "HTTP",
        "port": LISTENER_PORT,
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return [
        {
            "apiVersion": _OWN_API,
            "kind": "EnvoyProxy",
            "metadata": {"namespace": NAMESPACE, "name": CLASS},
            "spec": {
                # One Envoy cluster for each Service, so that its counters distinguish revisions.
                "mergeBackends": {},
                "provider": {
                    "type": "Kubernetes",
                    "kubernetes": {
                        "envoyDeployment": {"container": container},
                        # There is no load balancer; the host has a route to the addresses of Services.
                        "envoyService": {"type": "ClusterIP"},
                    },
                },
            },
        },
        {
            "apiVersion": _API,
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": CONTROLLER, "parametersRef": parameters},
        },
        {
            "apiVersion": _API,
            "kind": "Gateway",
            "metadata": GATEWAY,
            "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
        },
    ]
