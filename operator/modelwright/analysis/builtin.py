"""Where the requests of a revision are counted: the gateways that the operator knows, and the runtime's own counters.

Traefik's are tested against Traefik, Envoy Gateway's against recorded answers of Envoy; Istio's are written from its
documentation, and untested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from modelwright.analysis import promql
from modelwright.analysis.port import Ask, Target
from modelwright.analysis.promql import Match
from modelwright.analysis.web import Fault
from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Series

TRAEFIK = "traefik.io/gateway-controller"
ISTIO = "istio.io/gateway-controller"
ENVOY = "gateway.envoyproxy.io/gatewayclass-controller"

# No answer: 499 is a caller that gave up waiting. A gateway answers 502 to 504 for a backend that breaks off or hangs.
BAD_HTTP = "5..|499"
BAD_GRPC = "2|4|12|13|14|15"
"""Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss: what OpenTelemetry counts as a server's
errors."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Series of plain selectors, of which those are meant whose labels match (whole values).

    `selectors`: alternatives, of which the first that has any series holds.
    """

    selectors: tuple[str, ...]
    where: tuple[tuple[tuple[str, ...], str], ...] = ()
    """(names of a label, the first that is there holds; pattern of its value)"""

    def of(self, series: Iterable[Series]) -> tuple[Series, ...]:
        """Those that are meant."""
        return tuple(one for one in series if all(_has(one.labels, names, pattern) for names, pattern in self.where))


@dataclass(frozen=True, slots=True)
class Source:
    """Where the requests of one revision are counted. `unit`: seconds in one unit of the histogram's bounds."""

    name: str
    all: Counted
    bad: Counted | None = None
    latency: Counted | None = None
    unit: float = 1.0


async def source(ask: Ask, wanted: str, target: Target, *, errors: bool = False) -> Source:
    """Where the requests of `target` are counted; `wanted` is the policy's Auto, Gateway or Runtime.

    Auto is the gateway where it is a known one that always tells revisions apart, else the runtime. `errors`: the bad
    ones must be distinguished from the good. Raises Fault, permanent, where nothing counts.
    """
    controller = ask.gateway.controller if ask.gateway is not None else ""
    known = GATEWAYS.get(controller)
    if known is not None and (wanted == "Gateway" or (wanted == "Auto" and controller not in ON_REQUEST)):
        found = known(ask, target)
        if not errors or found.bad is not None:
            return found
        if wanted == "Gateway":
            message = f"source Gateway, but {_NAMES[controller]} counts gRPC calls that went well and failed ones alike"
            raise Fault(
                Reason.METRIC_SOURCE_MISSING, f"{message}: use source Runtime, or a metric of your own", permanent=True
            )
    if wanted == "Gateway":
        if ask.gateway is None:
            message = "source Gateway, but the Model has no endpoint"
        else:
            message = f"source Gateway, but counters of {ask.gateway.controller} are not known to tell revisions apart"
        raise Fault(
            Reason.METRIC_SOURCE_MISSING, f"{message}: use source Runtime, or a metric of your own", permanent=True
        )
    if target.metrics is None:
        message = f"the runtime of version {target.version} names no counters (spec.metrics)"
        if wanted == "Auto" and controller in ON_REQUEST:
            message += f"; {_NAMES[controller]} can count its requests: use source Gateway"
        elif wanted == "Auto":
            message += ", and no gateway that is known counts its requests"
        raise Fault(Reason.METRIC_SOURCE_MISSING, message, permanent=True)
    return await _runtime(ask, target)


def _targets(ask: Ask) -> tuple[Target, ...]:
    return (ask.candidate,) if ask.serving is None else (ask.candidate, ask.serving)


def _traefik(ask: Ask, target: Target) -> Source:
    def services(targets: Iterable[Target]) -> str:
        # Named by a route, or by a TraefikService; from 3.7.9 on with the route's name in front.
        named = "|".join(promql.literal(f"{ask.namespace}-{one.service}") for one in targets)
        return f"(.*-svc-)?({named})(-http)?-[0-9]+(-grpc)?@kubernetes(gateway|crd)"

    # Prometheus calls it exported_service where it has put a label service of its own, as for a ServiceMonitor.
    labels = ("exported_service", "service")

    def counted(metric: str) -> Counted:
        pattern = services(_targets(ask))
        selectors = tuple(promql.select(metric, [Match(label, pattern, "=~")]) for label in reversed(labels))
        return Counted(selectors, ((labels, services((target,))),))

    every = counted("traefik_service_requests_total")
    # Traefik 3.6 reads a gRPC status from the headers only. One in the trailers, as of every call that went well, it
    # counts as 2 (Unknown), like a call without an answer: tried.
    grpc = ask.gateway is not None and ask.gateway.grpc
    return Source(
        "Gateway",
        all=every,
        bad=None if grpc else replace(every, where=(*every.where, (("code",), BAD_HTTP))),
        latency=counted("traefik_service_request_duration_seconds_bucket"),
    )


def _istio(ask: Ask, target: Target) -> Source:
    names = "|".join(promql.literal(one.service) for one in _targets(ask))
    matches = [
        Match("reporter", "source"),
        Match("destination_service_namespace", ask.namespace),
        Match("destination_service_name", names, "=~"),
    ]
    label = ("destination_service_name",)

    def counted(metric: str) -> Counted:
        return Counted((promql.select(metric, matches),), ((label, promql.literal(target.service)),))

    every = counted("istio_requests_total")
    if ask.gateway is not None and ask.gateway.grpc:
        bad = (("grpc_response_status",), BAD_GRPC)
    else:
        # 0: the caller, or the server, broke off before an answer.
        bad = (("response_code",), f"{BAD_HTTP}|0")
    return Source(
        "Gateway",
        all=every,
        bad=replace(every, where=(*every.where, bad)),
        latency=counted("istio_request_duration_milliseconds_bucket"),
        unit=0.001,
    )


def _envoy(ask: Ask, target: Target) -> Source:
    label = ("envoy_cluster_name",)

    def clusters(targets: Iterable[Target]) -> str:
        # One for each port of a Service, with mergeBackends; what it speaks may follow.
        named = "|".join(promql.literal(one.service) for one in targets)
        return f"service/{promql.literal(ask.namespace)}/({named})/[0-9]+(/[a-z0-9]+)?"

    def counted(metric: str) -> Counted:
        selector = promql.select(metric, [Match(label[0], clusters(_targets(ask)), "=~")])
        return Counted((selector,), ((label, clusters((target,))),))

    every = counted("envoy_cluster_upstream_rq")
    # Envoy counts HTTP codes here, and a gRPC call that failed has code 200.
    grpc = ask.gateway is not None and ask.gateway.grpc
    return Source(
        "Gateway",
        all=every,
        bad=None if grpc else replace(every, where=(*every.where, (("envoy_response_code",), BAD_HTTP))),
        latency=counted("envoy_cluster_upstream_rq_time_bucket"),
        unit=0.001,
    )


GATEWAYS: Mapping[str, Callable[[Ask, Target], Source]] = {TRAEFIK: _traefik, ISTIO: _istio, ENVOY: _envoy}
"""By controllerName of the GatewayClass."""

ON_REQUEST = frozenset({ENVOY})
"""Those that tell revisions apart only when their platform team has asked them to (Envoy Gateway: `mergeBackends` in
its EnvoyProxy), which this operator has no right to see: a policy names them, Auto does not take them."""

_NAMES = {TRAEFIK: "Traefik", ISTIO: "Istio", ENVOY: "Envoy Gateway"}


async def _runtime(ask: Ask, target: Target) -> Source:
    metrics = target.metrics
    assert metrics is not None  # noqa: S101
    more = (Match("namespace", ask.namespace), Match("pod", target.pods, "=~"))

    async def counted(text: str | None, field: str) -> Counted | None:
        if text is None:
            return None
        what = f"spec.metrics.{field} of the runtime of {target.version}"
        return Counted((await promql.plain(text, what, ask.namespace, more),))

    every = await counted(metrics.requests, "requests")
    assert every is not None  # noqa: S101
    errors, latency = await counted(metrics.errors, "errors"), await counted(metrics.latency, "latency")
    return Source("Runtime", every, errors, latency)


async def in_flight(ask: Ask, target: Target) -> str | None:
    """The query for the requests that have not ended at a revision; None when its runtime names no gauges of them. The
    gateways that are known have none that tell revisions apart. Raises Fault for a selector that is none."""
    if target.metrics is None or target.metrics.in_flight is None:
        return None
    more = (Match("namespace", ask.namespace), Match("pod", target.pods, "=~"))
    what = f"spec.metrics.inFlight of the runtime of {target.version}"
    return f"sum({await promql.plain(target.metrics.in_flight, what, ask.namespace, more)})"


def _has(labels: Mapping[str, str], names: Iterable[str], pattern: str) -> bool:
    value = next((labels[name] for name in names if name in labels), "")
    return re.fullmatch(pattern, value) is not None
