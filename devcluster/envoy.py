"""Envoy behind Envoy Gateway, a second gateway beside Traefik: its image, the values of its chart, and its objects."""

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
    """The image with Envoy and Envoy Gateway in it; returns its tag. Both must be there: `parts.build`."""
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
    """Its Helm chart, in the Go module that it is built from."""
    return parts.module("envoy-gateway") / "charts" / "gateway-helm"


def values(chart_folder: Path, image: str) -> dict[str, Any]:
    """All values of the chart: its own defaults are a template that releases fill in."""
    text = (chart_folder / "values.tmpl.yaml").read_text()
    filled = text.replace("${GatewayImage}", image).replace("${GatewayImagePullPolicy}", "IfNotPresent")
    found: dict[str, Any] = yaml.safe_load(filled)
    found["crds"]["enabled"] = False
    # It tells Envoy its zone by a webhook, which one Envoy has no use for.
    found["topologyInjector"]["enabled"] = False
    found["deployment"]["envoyGateway"]["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}}
    provider = found["config"]["envoyGateway"]["provider"]
    provider["kubernetes"] = {"shutdownManager": {"image": image}}
    return found


def objects(image: str) -> list[dict[str, Any]]:
    """The GatewayClass, how its Envoys run, and a Gateway for the routes of all namespaces."""
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
                # One Envoy cluster for each Service, so that what it counts tells revisions apart.
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
