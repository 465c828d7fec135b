"""Who may answer on a path of a gateway, whether a route is in force, and what its URL is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.rollout.observed import Problem


@dataclass(frozen=True, slots=True)
class Claim:
    """A Model's wish for places on listeners. `created` is RFC 3339 in UTC, so text order is time order."""

    namespace: str
    name: str
    created: str
    endpoint: Endpoint


def conflict(mine: Claim, others: Iterable[Claim]) -> Problem | None:
    """The older Model that already has one of my (listener, hostname, path) places, if there is one.

    Age decides, then namespace and name, so both sides come to the same answer.
    """
    for other in sorted(others, key=_age):
        if (other.namespace, other.name) == (mine.namespace, mine.name) or _age(other) > _age(mine):
            continue
        if _overlap(mine, other):
            hosts = ", ".join(mine.endpoint.hostnames or ()) or "any hostname"
            text = (
                f"spec.endpoint: path {mine.endpoint.path_prefix} on {hosts} is already taken by the older Model "
                f"{other.namespace}/{other.name}; choose another hostname or pathPrefix"
            )
            return Problem(Reason.ROUTE_CONFLICT, text, stalled=True)
    return None


def _age(claim: Claim) -> tuple[str, str, str]:
    return claim.created, claim.namespace, claim.name


def _overlap(a: Claim, b: Claim) -> bool:
    if a.endpoint.path_prefix.rstrip("/") != b.endpoint.path_prefix.rstrip("/"):
        return False
    hosts_a, hosts_b = set(a.endpoint.hostnames or ("",)), set(b.endpoint.hostnames or ("",))
    if not hosts_a & hosts_b:
        return False
    for x in a.endpoint.parent_refs:
        for y in b.endpoint.parent_refs:
            same_gateway = (x.namespace or a.namespace, x.name) == (y.namespace or b.namespace, y.name)
            same_section = x.section_name is None or y.section_name is None or x.section_name == y.section_name
            same_port = x.port is None or y.port is None or x.port == y.port
            if same_gateway and same_section and same_port:
                return True
    return False


def route_problem(route: Mapping[str, Any]) -> Problem | None:
    """Why a route object isn't in force as its status tells it; None when every parent accepted this generation."""
    generation = route["metadata"].get("generation")
    parents = route.get("status", {}).get("parents", [])
    wanted = len(route["spec"].get("parentRefs", []))
    if len(parents) < wanted:
        return Problem(
            Reason.WAITING_FOR_ROUTE, f"{len(parents)} of {wanted} gateways of spec.endpoint.parentRefs have answered"
        )
    for parent in parents:
        gateway = parent.get("parentRef", {}).get("name")
        seen = {c["type"]: c for c in parent.get("conditions", [])}
        for kind in ("Accepted", "ResolvedRefs"):
            condition = seen.get(kind)
            if condition is None or condition.get("observedGeneration") != generation:
                return Problem(Reason.WAITING_FOR_ROUTE, f"gateway {gateway} has not looked at the latest route yet")
            if condition["status"] != "True":
                said = f"{condition.get('reason')}: {condition.get('message')}"
                text = f"spec.endpoint: gateway {gateway} refuses the route: {said}"
                return Problem(Reason.ROUTE_NOT_ACCEPTED, text, stalled=True)
    return None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway's listener answers. `host` is an IP address or a DNS name."""

    scheme: str
    host: str
    port: int


def listener_address(gateway: Mapping[str, Any], endpoint: Endpoint) -> Address | None:
    """The first address and the listener of `gateway` that `endpoint` asks for; None while it has no address."""
    addresses = gateway.get("status", {}).get("addresses", [])
    if not addresses:
        return None
    name = gateway["metadata"]["name"]
    refs = [ref for ref in endpoint.parent_refs if ref.name == name]
    for ref in refs:
        for listener in gateway["spec"].get("listeners", []):
            if listener.get("protocol") not in ("HTTP", "HTTPS"):
                continue
            if ref.section_name not in (None, listener["name"]) or ref.port not in (None, listener["port"]):
                continue
            return Address(listener["protocol"].lower(), addresses[0]["value"], listener["port"])
    return None


def url(endpoint: Endpoint, address: Address | None) -> str | None:
    """The URL callers use: the hostname when there is one, else the gateway's address; None while neither is known."""
    if address is None:
        return None
    host = endpoint.hostnames[0] if endpoint.hostnames else address.host
    default = {"http": 80, "https": 443}[address.scheme]
    port = "" if address.port == default else f":{address.port}"
    return f"{address.scheme}://{host}{port}{endpoint.path_prefix.rstrip('/')}"
