"""Whether NetworkPolicies let a request through, as kube-router decides: `buildNetworkPoliciesInfo`, `evalPodPeer` and
`processNetworkPolicyPorts` in pkg/controllers/netpol/policy.go of its version 2.1.0, which `make test-peers` runs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """What kube-router knows of one."""

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Number of each port by name and protocol."""
    address: str = "10.0.0.1"

    @classmethod
    def of(cls, namespace: str, obj: Object) -> Pod:
        """A Pod, or the pods of what has a template."""
        pod = obj if obj["kind"] == "Pod" else obj["spec"]["template"]
        listed = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
        ports = {
            (port["name"], port.get("protocol", "TCP")): port["containerPort"] for port in listed if "name" in port
        }
        return cls(namespace, pod["metadata"].get("labels", {}), ports)


def allowed(policies: Iterable[Object], source: Pod, destination: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether the source may send to this port of the destination's pod, and that one may be sent to."""
    policies = list(policies)
    return all(
        _lets(policies, kind, held, other, destination, port, protocol)
        for kind, held, other in (("Egress", source, destination), ("Ingress", destination, source))
    )


def _lets(policies: list[Object], kind: str, held: Pod, other: Pod, destination: Pod, port: int, protocol: str) -> bool:
    specs = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == held.namespace
        and kind in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], held.labels)
    ]
    rules = [rule for spec in specs for rule in spec.get(kind.lower()) or ()]
    return not specs or any(
        _peers(rule.get("from" if kind == "Ingress" else "to"), held, other)
        and _ports(rule.get("ports"), destination, port, protocol)
        for rule in rules
    )


def _peers(peers: list[Object] | None, held: Pod, other: Pod) -> bool:
    return not peers or any(_peer(peer, held, other) for peer in peers)


def _peer(peer: Object, held: Pod, other: Pod) -> bool:
    if "namespaceSelector" in peer:
        # The API server gives each Namespace this label.
        namespace = {"kubernetes.io/metadata.name": other.namespace}
        return selects(peer["namespaceSelector"], namespace) and selects(peer.get("podSelector", {}), other.labels)
    if "podSelector" in peer:
        return held.namespace == other.namespace and selects(peer["podSelector"], other.labels)
    block, address = peer["ipBlock"], ipaddress.ip_address(other.address)
    return address in ipaddress.ip_network(block["cidr"]) and not any(
        address in ipaddress.ip_network(left_out) for left_out in block.get("except", ())
    )


def _ports(ports: list[Object] | None, destination: Pod, port: int, protocol: str) -> bool:
    return not ports or any(_port(each, destination, port, protocol) for each in ports)


def _port(given: Object, destination: Pod, port: int, protocol: str) -> bool:
    # The API server writes the default.
    if given.get("protocol", "TCP") != protocol:
        return False
    wanted = given.get("port")
    if isinstance(wanted, str):
        return destination.ports.get((wanted, protocol)) == port
    return wanted is None or wanted <= port <= given.get("endPort", wanted)


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        _matches(each, labels) for each in selector.get("matchExpressions", ())
    )


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"no operator of a label selector: {expression['operator']}")
