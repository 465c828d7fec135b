"""Conflicts between Models over a gateway's hostnames and paths."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.problem import Problem


@dataclass(frozen=True, slots=True)
class EndpointClaim:
    """A Model's claim to hostnames and paths of listeners. `created` is RFC 3339 in UTC: text order is time order."""

    namespace: str
    name: str
    created: str
    endpoint: Endpoint


def find_conflict(mine: EndpointClaim, others: Iterable[EndpointClaim]) -> Problem | None:
    """Find an older Model that owns one of my (listener, hostname, path) places, or whose requests I would receive.

    Age decides, then namespace and name, so both sides reach the same answer. Within a namespace only the same place
    is a conflict: a team may split its own paths and hostnames as it likes.
    """
    for other in sorted(others, key=age_key):
        if is_older(other, mine) and _claims_overlap(mine, other):
            path, hosts = mine.endpoint.path_prefix, ", ".join(mine.endpoint.hostnames or ()) or "any hostname"
            if _is_same_place(mine, other):
                text = f"path {path} on {hosts} is already taken by the older Model {other.namespace}/{other.name}"
            else:
                theirs = ", ".join(other.endpoint.hostnames or ()) or "any hostname"
                text = (
                    f"path {path} on {hosts} would take callers of the older Model {other.namespace}/{other.name} "
                    f"(path {other.endpoint.path_prefix} on {theirs}), which is another namespace's"
                )
            text = f"spec.endpoint: {text}; choose another hostname or pathPrefix"
            return Problem(Reason.ROUTE_CONFLICT, text, stalled=True)
    return None


def age_key(claim: EndpointClaim) -> tuple[str, str, str]:
    """Return the sort key of a Model's age: the lesser key is the older Model."""
    return claim.created, claim.namespace, claim.name


def is_older(other: EndpointClaim, mine: EndpointClaim) -> bool:
    """Return whether the other Model takes precedence over mine. False for the same Model."""
    return (other.namespace, other.name) != (mine.namespace, mine.name) and age_key(other) < age_key(mine)


def hostname_problem(namespace: str, endpoint: Endpoint, patterns: Sequence[str]) -> Problem | None:
    """Return why an administrator's patterns forbid an endpoint's hostnames in this namespace; None if they allow them.

    `patterns` are hostnames in which {namespace} stands for the Model's; *.x allows all that end in .x, * all. Without
    patterns any hostname is allowed.
    """
    if not patterns:
        return None
    allowed = [pattern.replace("{namespace}", namespace) for pattern in patterns]
    hosts = endpoint.hostnames or ("",)
    refused = [host for host in hosts if not any(p in ("*", host) or wildcard_covers(p, host) for p in allowed)]
    if not refused:
        return None
    names = ", ".join(refused) if refused[0] else "none (all hostnames of the listener)"
    text = f"spec.endpoint.hostnames: {names} is not for the namespace {namespace}; allowed here: {', '.join(allowed)}"
    return Problem(Reason.HOSTNAME_NOT_ALLOWED, text, stalled=True)


def wildcard_covers(wildcard: str, host: str) -> bool:
    """Return whether a hostname with * matches another one, a wildcard below it included. It does not match itself."""
    return wildcard.startswith("*.") and host != wildcard and host.endswith(wildcard[1:])


def is_below_prefix(path: str, prefix: str) -> bool:
    """Return whether `path` is `prefix` or lies below it, part by part."""
    return f"{path.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/")


GROUPING_DEPTH = 4
"""Labels of a hostname and parts of a path by which places are grouped; deeper ones share a group."""


def list_index_places(namespace: str, endpoint: Mapping[str, Any]) -> Iterator[str]:
    """Yield the index keys under which possible rivals find an endpoint (as on the wire)."""
    path = str(endpoint.get("pathPrefix") or "/").rstrip("/")
    for gateway, host in _list_sites(namespace, endpoint):
        yield f"{gateway} {host}{path}"
        yield from (f"{gateway} {host}>{above}" for above in _path_groups(path, strictly=True))
        yield from (f"{gateway} <{wildcard}" for wildcard in _matching_wildcards(host)[:GROUPING_DEPTH])
        if host.startswith("*."):
            yield f"{gateway} ={host}"


def list_rival_places(namespace: str, endpoint: Mapping[str, Any], *, younger: bool) -> Iterator[str]:
    """Yield the index keys under which possible rivals of an endpoint are: the older ones, or only the younger ones.

    The keys are a superset: `find_conflict` decides.
    """
    path = str(endpoint.get("pathPrefix") or "/").rstrip("/")
    for gateway, host in _list_sites(namespace, endpoint):
        if younger:
            yield f"{gateway} {host}{path}"
            yield f"{gateway} {host}>{_path_groups(path)[-1]}"
        else:
            yield from (f"{gateway} {host}{above}" for above in _path_prefixes(path))
        yield from (f"{gateway} ={wildcard}" for wildcard in _matching_wildcards(host))
        if host.startswith("*."):
            yield f"{gateway} <{[*_matching_wildcards(host), host][:GROUPING_DEPTH][-1]}"


def _list_sites(namespace: str, endpoint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for ref in endpoint.get("parentRefs", []):
        for host in endpoint.get("hostnames") or [""]:
            yield f"{ref.get('namespace') or namespace}/{ref.get('name')}", host


def _path_prefixes(path: str) -> list[str]:
    """Return a path without its last slash and all its prefixes, the shortest first; "" is /."""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _path_groups(path: str, *, strictly: bool = False) -> list[str]:
    """Return the groups that hold `path` and all below it, or, strictly, those above it; the last is the closest."""
    prefixes = _path_prefixes(path)
    return (prefixes[:-1] if strictly else prefixes)[: GROUPING_DEPTH + 1]


def _matching_wildcards(host: str) -> list[str]:
    """Return all wildcards that match a hostname, the widest first."""
    labels = host.removeprefix("*.").split(".") if host else []
    candidates = ["*." + ".".join(labels[start:]) for start in range(len(labels) - 1, -1, -1)]
    return [wildcard for wildcard in candidates if wildcard_covers(wildcard, host)]


def _is_same_place(a: EndpointClaim, b: EndpointClaim) -> bool:
    same_path = a.endpoint.path_prefix.rstrip("/") == b.endpoint.path_prefix.rstrip("/")
    return same_path and bool(set(a.endpoint.hostnames or ("",)) & set(b.endpoint.hostnames or ("",)))


def _takes_requests(mine: EndpointClaim, other: EndpointClaim) -> bool:
    """Return whether my route would receive requests that the other Model claims.

    A gateway prefers the more specific hostname over the longer path. A Model without hostnames claims only requests
    that no other claims, so it conflicts with none that has hostnames.
    """
    path, theirs = mine.endpoint.path_prefix, other.endpoint.path_prefix
    for host in mine.endpoint.hostnames or ("",):
        for claimed in other.endpoint.hostnames or ("",):
            if (host == claimed or wildcard_covers(host, claimed)) and is_below_prefix(path, theirs):
                return True
            if wildcard_covers(claimed, host) and (is_below_prefix(path, theirs) or is_below_prefix(theirs, path)):
                return True
    return False


def _claims_overlap(a: EndpointClaim, b: EndpointClaim) -> bool:
    if not (_is_same_place(a, b) or (a.namespace != b.namespace and _takes_requests(a, b))):
        return False
    for x in a.endpoint.parent_refs:
        for y in b.endpoint.parent_refs:
            same_gateway = (x.namespace or a.namespace, x.name) == (y.namespace or b.namespace, y.name)
            same_section = x.section_name is None or y.section_name is None or x.section_name == y.section_name
            same_port = x.port is None or y.port is None or x.port == y.port
            if same_gateway and same_section and same_port:
                return True
    return False


def describe_short_timeout(endpoint: Endpoint, max_request_seconds: int) -> str:
    """Describe a gateway timeout that ends requests before the pods would have answered; empty if there is none."""
    timeout = endpoint.request_timeout_seconds
    if timeout is None or timeout >= max_request_seconds:
        return ""
    return (
        f"spec.endpoint.requestTimeout ({endpoint.request_timeout}) is less than spec.serving.maxRequestSeconds "
        f"({max_request_seconds}): the gateway ends requests that pods may still answer"
    )
