"""Attachment of a route to a gateway's listeners: its state there, and the address at which callers reach it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint, ParentRef
from modelwright.core.endpoint_conflicts import wildcard_covers
from modelwright.core.problem import Problem

_DEFAULT_PORTS = {"http": 80, "https": 443}


def route_problem(route: Mapping[str, Any]) -> Problem | None:
    """Return why a route is not in force, by its status; None when each parent in its spec accepts this generation.

    Some implementations keep entries of gateways that the route no longer names in `status.parents`: these are ignored.
    Where one parent has several entries (an implementation was replaced), one for this generation is enough.
    """
    parents = route["spec"].get("parentRefs", [])
    entries = route.get("status", {}).get("parents", [])
    namespace = route["metadata"].get("namespace")
    answers = [[e for e in entries if _is_about_parent(e.get("parentRef", {}), ref, namespace)] for ref in parents]
    answered = sum(1 for matching in answers if matching)
    if answered < len(parents):
        text = f"{answered} of {len(parents)} gateways of spec.endpoint.parentRefs have answered"
        return Problem(Reason.WAITING_FOR_ROUTE, text)
    generation = route["metadata"].get("generation")
    problems = [_find_refusal(matching, generation) for matching in answers]
    return next((p for p in problems if p is not None and p.stalled), next(filter(None, problems), None))


def _is_about_parent(answered: Mapping[str, Any], ref: Mapping[str, Any], namespace: str | None) -> bool:
    """Return whether an entry is about `ref`. Some implementations name the listener where the route names none."""
    return _gateway_key(answered, namespace) == _gateway_key(ref, namespace) and all(
        ref.get(field) in (None, answered.get(field)) for field in ("sectionName", "port")
    )


def _gateway_key(ref: Mapping[str, Any], namespace: str | None) -> tuple[Any, ...]:
    kind = (ref.get("group") or "gateway.networking.k8s.io", ref.get("kind") or "Gateway")
    return *kind, ref.get("namespace") or namespace, ref.get("name")


def _find_refusal(entries: list[Mapping[str, Any]], generation: int | None) -> Problem | None:
    problems = [_entry_problem(entry, generation) for entry in entries]
    current = [p for p in problems if p is None or p.stalled]
    return current[0] if current else problems[0]


def _entry_problem(entry: Mapping[str, Any], generation: int | None) -> Problem | None:
    gateway = entry.get("parentRef", {}).get("name")
    by_type = {c["type"]: c for c in entry.get("conditions", [])}
    for kind in ("Accepted", "ResolvedRefs"):
        condition = by_type.get(kind)
        if condition is None or condition.get("observedGeneration") != generation:
            return Problem(Reason.WAITING_FOR_ROUTE, f"gateway {gateway} has not processed the latest route yet")
        if condition["status"] != "True":
            cause = f"{condition.get('reason')}: {condition.get('message')}"
            text = f"spec.endpoint: gateway {gateway} refuses the route: {cause}"
            return Problem(Reason.ROUTE_NOT_ACCEPTED, text, stalled=True)
    return None


@dataclass(frozen=True, slots=True)
class ListenerAddress:
    """The address of a gateway's listener.

    `hosts` are its IP addresses or DNS names, never empty. `hostname` is the name in callers' requests, which may be a
    wildcard; None stands for any name.
    """

    scheme: str
    hosts: tuple[str, ...]
    port: int
    hostname: str | None = None

    @property
    def origin(self) -> str:
        """Return scheme://host:port of the first host."""
        return f"{self.scheme}://{bracket_host(self.hosts[0])}:{self.port}"


def bracket_host(host: str) -> str:
    """Format a host for a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def find_listener_address(gateway: Mapping[str, Any], namespace: str, endpoint: Endpoint) -> ListenerAddress | None:
    """Return the listener of `gateway` to which a route of `namespace` for `endpoint` is attached; None without one.

    Listeners that report attached routes come first, then HTTPS: a plain listener beside it often only redirects.
    """
    hosts = tuple(
        address["value"] for address in gateway.get("status", {}).get("addresses", ()) if address.get("value")
    )
    if not hosts:
        return None
    attached = sorted(_attached_listeners(gateway, namespace, endpoint), key=lambda it: it[0])
    if not attached:
        return None
    _, listener, hostname = attached[0]
    return ListenerAddress(listener["protocol"].lower(), hosts, listener["port"], hostname)


def _attached_listeners(
    gateway: Mapping[str, Any], namespace: str, endpoint: Endpoint
) -> Iterator[tuple[tuple[bool, bool], Mapping[str, Any], str | None]]:
    home = gateway["metadata"].get("namespace") or namespace
    place = (home, gateway["metadata"]["name"])
    refs = [ref for ref in endpoint.parent_refs if (ref.namespace or namespace, ref.name) == place]
    statuses = {status["name"]: status for status in gateway.get("status", {}).get("listeners", ())}
    for listener in gateway["spec"].get("listeners", ()):
        status = statuses.get(listener["name"], {})
        if not any(_is_named_by(listener, ref) for ref in refs) or not _accepts_endpoint(listener, status, endpoint):
            continue
        if not _allows_namespace(listener, same_namespace=home == namespace):
            continue
        hostnames = list(_common_hostnames(listener.get("hostname"), endpoint))
        if hostnames:
            rank = (status.get("attachedRoutes") == 0, listener["protocol"] != "HTTPS")
            yield rank, listener, hostnames[0]


def list_listener_refusals(
    gateway: Mapping[str, Any], namespace: str, endpoint: Endpoint, labels: Mapping[str, str] | None = None
) -> list[str]:
    """List why each listener of `gateway` accepts no route of `namespace` for `endpoint`; empty once one accepts it.

    `labels` are those of the namespace; None when they are unknown, and a selector of namespaces is taken to match.
    """
    attached = [listener["name"] for _, listener, _ in _attached_listeners(gateway, namespace, endpoint)]
    same = (gateway["metadata"].get("namespace") or namespace) == namespace
    refusals = []
    for listener in gateway["spec"].get("listeners", ()):
        why = _selector_refusal(listener, labels) or (
            "" if listener["name"] in attached else _explain_refusal(listener, endpoint, same)
        )
        if not why:
            return []
        refusals.append(f"listener {listener['name']} {why}")
    return refusals or ["it has no listeners"]


def _explain_refusal(listener: Mapping[str, Any], endpoint: Endpoint, same_namespace: bool) -> str:
    if not _accepts_endpoint(listener, {}, endpoint):
        return f"takes no {endpoint.protocol}Route (protocol, allowedRoutes.kinds)"
    if not _allows_namespace(listener, same_namespace=same_namespace):
        return "takes no routes of this namespace (allowedRoutes.namespaces)"
    if not list(_common_hostnames(listener.get("hostname"), endpoint)):
        return f"has the hostname {listener['hostname']}, which covers none of spec.endpoint.hostnames"
    if not any(_is_named_by(listener, ref) for ref in endpoint.parent_refs):
        return "is not the one that spec.endpoint.parentRefs names by sectionName or port"
    return "is not accepted or not programmed, by the gateway's status"


def _selector_refusal(listener: Mapping[str, Any], labels: Mapping[str, str] | None) -> str:
    allowed = listener.get("allowedRoutes", {}).get("namespaces", {})
    if labels is None or allowed.get("from") != "Selector" or matches_selector(allowed.get("selector") or {}, labels):
        return ""
    return "takes routes of namespaces with other labels only (allowedRoutes.namespaces.selector)"


def matches_selector(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a LabelSelector (meta/v1) matches these labels."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _matches_expression(entry, labels) for entry in selector.get("matchExpressions") or ()
    )


def _matches_expression(entry: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = entry["key"], entry.get("values") or ()
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[entry["operator"]]


def _is_named_by(listener: Mapping[str, Any], ref: ParentRef) -> bool:
    return ref.section_name in (None, listener["name"]) and ref.port in (None, listener["port"])


def _accepts_endpoint(listener: Mapping[str, Any], status: Mapping[str, Any], endpoint: Endpoint) -> bool:
    if listener.get("protocol") not in ("HTTP", "HTTPS"):
        return False
    kinds = {kind.get("kind") for kind in listener.get("allowedRoutes", {}).get("kinds") or ()}
    if kinds and f"{endpoint.protocol}Route" not in kinds:
        return False
    broken = {"Accepted", "Programmed"}
    return not any(c["type"] in broken and c["status"] == "False" for c in status.get("conditions", ()))


def _allows_namespace(listener: Mapping[str, Any], *, same_namespace: bool) -> bool:
    """Return whether routes of a namespace may attach. A Selector may match: the route's status shows that."""
    allowed = listener.get("allowedRoutes", {}).get("namespaces", {}).get("from") or "Same"
    return allowed in ("All", "Selector") or (allowed == "Same" and same_namespace)


def _common_hostnames(listener: str | None, endpoint: Endpoint) -> Iterator[str | None]:
    """Yield the hostnames of both listener and endpoint, by the Gateway API's rule: the narrower of two that match."""
    for host in endpoint.hostnames or (None,):
        if not listener or host is None:
            yield host or listener
        elif host == listener or wildcard_covers(listener, host):
            yield host
        elif wildcard_covers(host, listener):
            yield listener


def endpoint_url(endpoint: Endpoint, address: ListenerAddress | None) -> str | None:
    """Return the callers' URL, with the hostname if there is one, else the gateway's address; None without either."""
    if address is None:
        return None
    port = "" if address.port == _DEFAULT_PORTS[address.scheme] else f":{address.port}"
    host = address.hostname or bracket_host(address.hosts[0])
    return f"{address.scheme}://{host}{port}{endpoint.path_prefix.rstrip('/')}"
