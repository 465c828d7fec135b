"""Renders and reads the routes of gateways by which callers reach a Model, and the TraefikServices behind them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import FILTER_MEMBERS, Endpoint
from modelwright.core.rollout.traffic_split import HeaderCondition, TrafficSplit
from modelwright.render.child_metadata import child_metadata

Json = dict[str, Any]

HEADER_ROUTE_MARK = "Modelwright-Route"
"""Response header with the hash of the route's rules: a probe that receives it knows that the gateway applies them."""


_OWN_HEADERS = frozenset({HEADER_ROUTE_MARK, names.COPY_TOKEN_HEADER})

MATCH_MARK, FALLBACK_MARK = ".match", ".fallback"
"""Suffixes of the hash in HEADER_ROUTE_MARK for responses by other rules than the route's main one."""

COOKIE_SECONDS = 30 * 24 * 3600
"""How long a caller stays on the revision assigned by a sticky share. The candidate's weight (0..100) is added, so that
a probe can read the effective weights from the cookie."""


def render_route(
    model: Json, endpoint: Endpoint, routing: TrafficSplit, *, marked: bool, through: str | None = None
) -> Json:
    """Render the HTTPRoute or GRPCRoute of a Model.

    Its rules, of which the first match applies: the header match, if there is one; the main rule, with the shares or
    with the TraefikService `through`; behind that a rule to the first share alone, until the TraefikService exists.
    `marked`: the gateway can add response headers, so every rule carries the hash of all rules (HEADER_ROUTE_MARK).
    """
    grpc = endpoint.protocol == "GRPC"
    name = model["metadata"]["name"]
    rules, marks = [], []
    if routing.matched is not None and routing.match:
        rules.append(_route_rule(endpoint, [_route_backend(name, routing.matched.hash, 100, grpc)], routing.match))
        marks.append(MATCH_MARK)
    if through is None:
        shares = [_route_backend(name, key, weight, grpc) for key, weight in routing.weights.items()]
        copied = _mirror_target(name, routing)
        rules.append(_route_rule(endpoint, shares, copied=copied, token=routing.copy_token if copied else ""))
        marks.append("")
    else:
        built = {"group": "traefik.io", "kind": "TraefikService", "name": through, "weight": 1}
        copies = through in (mirror_name(name), observe_name(name))
        rules.append(_route_rule(endpoint, [built], token=routing.copy_token if copies else ""))
        rules.append(_route_rule(endpoint, [_route_backend(name, next(iter(routing.weights)), 100, grpc)]))
        marks += ["", FALLBACK_MARK]
    if marked:
        mark = names.content_hash([*rules, list(endpoint.hostnames)])
        for rule, suffix in zip(rules, marks, strict=True):
            _set_header(rule["filters"], "ResponseHeaderModifier", HEADER_ROUTE_MARK, mark + suffix)
    parents = [ref.model_dump(mode="json", by_alias=True) for ref in endpoint.parent_refs]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute" if grpc else "HTTPRoute",
        "metadata": child_metadata(model, None, name),
        "spec": {
            "parentRefs": parents,
            "hostnames": list(endpoint.hostnames),
            "rules": rules,
        },
    }


def without_timeouts(route_object: Json, live: Mapping[str, Any] | None) -> Json:
    """Return the route, with None for timeouts that a live one still has: omitted members would stay."""
    if any("timeouts" in rule for rule in (live or {}).get("spec", {}).get("rules", ())):
        for rule in route_object["spec"]["rules"]:
            rule["timeouts"] = None
    return route_object


def _set_header(filters: list[Json], kind: str, name: str, value: str) -> None:
    """Set one of our headers. A rule may have one filter for request headers and one for response headers: ours is
    merged into the endpoint's own."""
    member = kind[0].lower() + kind[1:]
    for index, entry in enumerate(filters):
        if entry["type"] == kind:
            changes = entry[member]
            changed = {**changes, "set": [*changes["set"], {"name": name, "value": value}]}
            filters[index] = {"type": kind, member: changed}
            return
    filters.append({"type": kind, member: {"set": [{"name": name, "value": value}]}})


def _endpoint_filters(endpoint: Endpoint) -> list[Json]:
    """Render the endpoint's own filters. Unset members are None or empty, so that an apply removes them."""
    filters = []
    for entry in endpoint.filters:
        wire, member = FILTER_MEMBERS[entry.type]
        part = getattr(entry, member).model_dump(mode="json", by_alias=True)
        filters.append({"type": entry.type, wire: part})
    return filters


def _route_backend(model: str, key: str, weight: int, grpc: bool) -> Json:
    return {"name": names.revision_name(model, key), "port": 81 if grpc else 80, "weight": weight}


def _route_rule(
    endpoint: Endpoint,
    backends: list[Json],
    headers: Sequence[HeaderCondition] = (),
    *,
    copied: tuple[str, int] | None = None,
    token: str = "",
) -> Json:
    # Never omitted: an explicit empty list removes a filter or a hostname.
    rule: Json = {"backendRefs": backends, "filters": _endpoint_filters(endpoint)}
    if endpoint.request_timeout is not None:
        rule["timeouts"] = {"request": endpoint.request_timeout}
    matches: Json = {}
    if endpoint.protocol != "GRPC":
        matches["path"] = {"type": "PathPrefix", "value": endpoint.path_prefix}
        if endpoint.strip_path_prefix and endpoint.path_prefix != "/":
            rewrite = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
            rule["filters"].append({"type": "URLRewrite", "urlRewrite": {"path": rewrite}})
    if headers:
        matches["headers"] = [
            {"type": "RegularExpression" if header.regex else "Exact", "name": header.name, "value": header.value}
            for header in headers
        ]
    if matches:
        rule["matches"] = [matches]
    if token:
        # On the rule: few gateways apply filters of a single backend to mirrored requests, most apply this one.
        _set_header(rule["filters"], "RequestHeaderModifier", names.COPY_TOKEN_HEADER, token)
    if copied is not None:
        taker, percent = copied
        # Without a percent all requests are mirrored, which gateways without support for percentages understand too.
        copies = {"backendRef": {"name": taker, "port": 80}, "percent": percent if percent < 100 else None}
        rule["filters"].append({"type": "RequestMirror", "requestMirror": copies})
    return rule


def _mirror_target(model: str, routing: TrafficSplit) -> tuple[str, int] | None:
    """Return the Service that receives mirrored requests, and the percentage of mirrored requests."""
    if routing.mirror_percent:
        return names.comparer_name(model), routing.mirror_percent
    return (names.observer_name(model), routing.observed_percent) if routing.observed_percent else None


def weighted_name(model: str) -> str:
    """Return the name of the TraefikService that weights the shares of a Model."""
    return f"{model}-weighted"


def mirror_name(model: str) -> str:
    """Return the name of the TraefikService that mirrors requests of a Model to its comparer."""
    return f"{model}-mirror"


def observe_name(model: str) -> str:
    """Return the name of the TraefikService that mirrors requests of a Model to its drift monitor. It differs from
    `mirror_name`, so that the route identifies the target."""
    return f"{model}-observe"


def weighted_service(model: Json, endpoint: Endpoint, routing: TrafficSplit) -> Json:
    """Render the TraefikService that weights the shares and, when the routing is sticky, keeps callers on their
    revision.

    The cookie is named by the candidate (the last share), so that a later rollout assigns every caller again; its value
    names a revision's Service, so callers stay while the weights change.
    """
    name = model["metadata"]["name"]
    services = [
        {"kind": "Service", "name": names.revision_name(name, key), "port": 80, "weight": weight}
        for key, weight in routing.weights.items()
    ]
    cookie = {
        "name": f"modelwright-{name}-{routing.shares[-1].revision.hash}",
        "path": endpoint.path_prefix,
        "httpOnly": True,
        "maxAge": COOKIE_SECONDS + routing.shares[-1].weight,
    }
    spec = {"weighted": {"services": services, "sticky": {"cookie": cookie} if routing.sticky else None}}
    return _traefik_service(model, weighted_name(name), spec)


def mirroring_service(model: Json, routing: TrafficSplit) -> Json:
    """Render the TraefikService that responds from the shares and mirrors a part of the requests to the comparer or the
    drift monitor."""
    name = model["metadata"]["name"]
    if len(routing.weights) == 1:
        (key,) = routing.weights
        main = {"kind": "Service", "name": names.revision_name(name, key), "port": 80}
    else:
        main = {"kind": "TraefikService", "name": weighted_name(name), "port": None}
    copied = _mirror_target(name, routing)
    mirrors = [{"kind": "Service", "name": copied[0], "port": 80, "percent": copied[1]}] if copied else []
    # With a limit Traefik allocates that much for every request (16 MiB soon made 8 GB); without one, the actual size.
    spec = {"mirroring": {**main, "mirrorBody": True, "maxBodySize": -1, "mirrors": mirrors}}
    return _traefik_service(model, mirror_name(name) if routing.mirror_percent else observe_name(name), spec)


def _traefik_service(model: Json, name: str, spec: Json) -> Json:
    metadata = child_metadata(model, None, name)
    return {"apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService", "metadata": metadata, "spec": spec}


def route_mark(route_object: Mapping[str, Any]) -> str | None:
    """Return the value of HEADER_ROUTE_MARK that this route's main rule makes the gateway add; None when it isn't
    marked."""
    for mark in map(_rule_mark, route_object["spec"].get("rules", [])):
        if mark is not None:
            return mark.partition(".")[0]
    return None


def _rule_mark(rule: Mapping[str, Any]) -> str | None:
    for entry in rule.get("filters", []):
        for header in entry.get("responseHeaderModifier", {}).get("set", []):
            if header["name"] == HEADER_ROUTE_MARK:
                return str(header["value"])
    return None


def hash_for_callers(route_object: Mapping[str, Any], model: str) -> str:
    """Hash the effect of a live route on callers: the same whether requests are mirrored to the drift monitor or
    not."""
    rules = []
    for rule in route_object["spec"].get("rules", []):
        if [backend["name"] for backend in rule.get("backendRefs", [])] == [observe_name(model)]:
            # Callers are served by the rule behind it.
            continue
        filters = [
            applied for entry in rule.get("filters", []) if (applied := _filter_for_callers(entry, model)) is not None
        ]
        rules.append({**rule, "filters": filters})
    spec = {**route_object["spec"], "rules": rules}
    return names.content_hash(spec)


def _filter_for_callers(entry: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    """Remove from a filter what does not affect callers: the route's mark, the token, mirroring to the drift monitor.
    Returns None when nothing remains."""
    name = entry.get("requestMirror", {}).get("backendRef", {}).get("name")
    if name == names.observer_name(model):
        return None
    for member in ("requestHeaderModifier", "responseHeaderModifier"):
        changes = entry.get(member, {})
        others = [header for header in changes.get("set", []) if header["name"] not in _OWN_HEADERS]
        if len(others) < len(changes.get("set", [])):
            remaining = {key: value for key, value in {**changes, "set": others}.items() if value}
            return {**entry, member: remaining} if remaining else None
    return entry


@dataclass(frozen=True, slots=True)
class RouteView:
    """The content of a live route. Weights by revision hash, above 0 only, as written.

    `through`: the TraefikService of its main rule; `fallback`: the weights behind that. `headers`: those that the match
    rule requires.
    """

    weights: Mapping[str, int]
    headers: tuple[HeaderCondition, ...] = ()
    matched: Mapping[str, int] = field(default_factory=dict)
    mirror_percent: int = 0
    observe_percent: int = 0
    through: str | None = None
    fallback: Mapping[str, int] = field(default_factory=dict)
    copy_token: str = ""

    def names_observer(self, model: str) -> bool:
        """Return whether requests are mirrored to the drift monitor, by the route itself or by a TraefikService."""
        return self.observe_percent > 0 or self.through == observe_name(model)


def read_route(route_object: Mapping[str, Any], model: str) -> RouteView:
    """Read a live route of `model`, whose last writer may be any client."""
    main: list[Json] = []
    matching: list[Json] = []
    for rule in route_object["spec"].get("rules", []):
        (matching if _matched_headers(rule) else main).append(rule)
    first = main[0] if main else {}
    headers = [entry.get("requestHeaderModifier", {}).get("set", []) for entry in first.get("filters", [])]
    tokens = [h["value"] for h in itertools.chain(*headers) if h["name"] == names.COPY_TOKEN_HEADER]
    mirrors = [entry["requestMirror"] for entry in first.get("filters", []) if "requestMirror" in entry]
    observed = [mirror for mirror in mirrors if mirror["backendRef"]["name"] == names.observer_name(model)]
    compared = [mirror for mirror in mirrors if mirror not in observed]
    through = [b["name"] for b in first.get("backendRefs", []) if b.get("kind") == "TraefikService"]
    return RouteView(
        weights=_backend_weights(main[:1], model),
        headers=_matched_headers(matching[0]) if matching else (),
        matched=_backend_weights(matching, model),
        mirror_percent=compared[0].get("percent") or 100 if compared else 0,
        observe_percent=observed[0].get("percent") or 100 if observed else 0,
        through=through[0] if through else None,
        fallback=_backend_weights(main[1:], model),
        copy_token=tokens[0] if tokens else "",
    )


def _matched_headers(rule: Mapping[str, Any]) -> tuple[HeaderCondition, ...]:
    return tuple(
        HeaderCondition(header["name"], header["value"], header.get("type") == "RegularExpression")
        for match in rule.get("matches", [])
        for header in match.get("headers", [])
    )


def _backend_weights(rules: Sequence[Mapping[str, Any]], model: str) -> dict[str, int]:
    """Return the weights by revision hash, of the backends that are revisions."""
    weights: dict[str, int] = {}
    for rule in rules:
        for backend in rule.get("backendRefs", []):
            _add_weight(weights, backend, model)
    return weights


def _add_weight(weights: dict[str, int], backend: Mapping[str, Any], model: str) -> None:
    key, weight = backend["name"].removeprefix(f"{model}-"), backend.get("weight", 1)
    if backend.get("kind", "Service") == "Service" and weight:
        weights[key] = weights.get(key, 0) + weight


@dataclass(frozen=True, slots=True)
class TraefikView:
    """The content of a Model's TraefikServices: weights by revision hash, mirrored percentages, and stickiness.
    `cookie`: name and lifetime in seconds of the cookie that makes callers sticky."""

    weights: Mapping[str, int]
    mirror_percent: int = 0
    observe_percent: int = 0
    cookie: tuple[str, int] | None = None


def read_traefik(services: Mapping[str, Json], through: str, model: str) -> TraefikView | None:
    """Read the live TraefikService `through`, with the one it may refer to; None when one of them is missing."""
    spec = services.get(through, {}).get("spec")
    if spec is None:
        return None
    weights: dict[str, int] = {}
    if "mirroring" in spec:
        mirroring = spec["mirroring"]
        mirrors, observer = mirroring.get("mirrors", []), names.observer_name(model)
        compared = sum(mirror.get("percent", 0) for mirror in mirrors if mirror["name"] != observer)
        observed = sum(mirror.get("percent", 0) for mirror in mirrors if mirror["name"] == observer)
        if mirroring.get("kind") == "TraefikService":
            main = read_traefik(services, mirroring["name"], model)
            return TraefikView(main.weights, compared, observed, main.cookie) if main is not None else None
        _add_weight(weights, {**mirroring, "weight": 100}, model)
        return TraefikView(weights, compared, observed)
    weighted = spec.get("weighted", {})
    for backend in weighted.get("services", []):
        _add_weight(weights, backend, model)
    cookie = (weighted.get("sticky") or {}).get("cookie")
    return TraefikView(weights, cookie=(cookie["name"], cookie.get("maxAge", 0)) if cookie else None)
