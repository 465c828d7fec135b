"""Simulated nodes by KWOK: their pods are Running at once and cost nothing."""

from __future__ import annotations

from typing import Any

from devcluster.api import ApiClient

ANNOTATION = "kwok.x-k8s.io/node"
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}


def node(number: int, tainted: bool) -> dict[str, Any]:
    """Build a simulated node; tainted beside real nodes, so that no real pod is scheduled there by accident."""
    name = f"kwok-{number}"
    size = {"cpu": "1024", "memory": "4Ti", "pods": "10000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "spec": {"taints": [TAINT]} if tainted else {},
        "status": {"allocatable": size, "capacity": size},
    }


def create(client: ApiClient, count: int, tainted: bool) -> list[str]:
    """Create the missing simulated nodes."""
    names = []
    for number in range(count):
        wanted = node(number, tainted)
        names.append(wanted["metadata"]["name"])
        status, _ = client.request("GET", f"/api/v1/nodes/{names[-1]}")
        if status == 404:
            client.request_ok("POST", "/api/v1/nodes", wanted)
    return names
