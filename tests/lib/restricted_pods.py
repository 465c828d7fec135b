"""Every pod that the renderers make, and what the restricted Pod Security Standard finds wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pods(node: Any, where: str) -> Iterator[tuple[str, Json, Json]]:
    """(place, metadata, spec) of each pod and pod template in a manifest."""
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
            yield where, node.get("metadata", {}), node["spec"]
        for key, value in node.items():
            yield from pods(value, f"{where}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from pods(value, f"{where}[{number}]")


def violations(spec: Json) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"volume {volume}"
    of_pod = spec.get("securityContext", {})
    if of_pod.get("sysctls") or "seLinuxOptions" in of_pod or "windowsOptions" in of_pod:
        yield "options of the kernel"
    for container in [*spec["containers"], *spec.get("initContainers", []), *spec.get("ephemeralContainers", [])]:
        yield from (f"{container['name']}: {text}" for text in _of_container(container, of_pod))


def _of_container(container: Json, of_pod: Json) -> Iterator[str]:
    own = container.get("securityContext", {})
    merged = {**of_pod, **own}
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capabilities {capabilities}"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "privileges"
    if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
        yield "root"
    if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if own.get("procMount", "Default") != "Default" or {"seLinuxOptions", "windowsOptions"} & own.keys():
        yield "options of the kernel"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
