"""Where the requests of a revision are counted: the gateways that the operator knows, and the runtime's own counters.

Traefik's are tested against Traefik, Envoy Gateway's against recorded answers of Envoy; Istio's are written from its
documentation, and untested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Series
from modelwright.measurement import queries
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.queries import LabelMatcher
from modelwright.measurement.request import MeasurementRequest, RevisionTarget

TRAEFIK = "traefik.io/gateway-controller"
ISTIO = "istio.io/gateway-controller"
ENVOY = "gateway.envoyproxy.io/gatewayclass-controller"

# No answer: 499 is a caller that gave up waiting. A gateway answers 502 to 504 for a backend that breaks off or hangs.
BAD_HTTP_CODES = "5..|499"
BAD_GRPC_CODES = "2|4|12|13|14|15"
"""Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss: what OpenTelemetry counts as a server's
errors."""


@dataclass(frozen=True, slots=True)
class SeriesSelector:
    """Series of plain selectors, of which those are meant whose labels match (whole values).

    `selectors`: alternatives, of which the first that has any series holds.
    """

    selectors: tuple[str, ...]
    label_patterns: tuple[tuple[tuple[str, ...], str], ...] = ()
    """(names of a label, the first that is there holds; pattern of its value)"""

    def select_series(self, series: Iterable[Series]) -> tuple[Series, ...]:
        """Those that are meant."""
        return tuple(
            one
            for one in series
            if all(_label_matches(one.labels, names, pattern) for names, pattern in self.label_patterns)
        )


@dataclass(frozen=True, slots=True)
class RequestCounters:
    """Where the requests of one revision are counted. `unit`: seconds in one unit of the histogram's bounds."""

    name: str
    all_requests: SeriesSelector
    bad_requests: SeriesSelector | None = None
    latency: SeriesSelector | None = None
    seconds_per_unit: float = 1.0


async def find_counters(
    ask: MeasurementRequest, wanted: str, target: RevisionTarget, *, errors: bool = False
) -> RequestCounters:
    """Where the requests of `target` are counted; `wanted` is the policy's Auto, Gateway or Runtime.

    Auto is the gateway where it is a known one that always tells revisions apart, else the runtime. `errors`: the bad
    ones must be distinguished from the good. Raises Fault, permanent, where nothing counts.
    """
    controller = ask.gateway.controller if ask.gateway is not None else ""
    known = GATEWAY_COUNTERS.get(controller)
    if known is not None and (wanted == "Gateway" or (wanted == "Auto" and controller not in OPT_IN_GATEWAYS)):
        found = known(ask, target)
        if not errors or found.bad_requests is not None:
            return found
        if wanted == "Gateway":
            message = (
                f"source Gateway, but {_GATEWAY_NAMES[controller]} counts gRPC calls that went well and "
                "failed ones alike"
            )
            raise MeasurementError(
                Reason.METRIC_SOURCE_MISSING, f"{message}: use source Runtime, or a metric of your own", permanent=True
            )
    if wanted == "Gateway":
        if ask.gateway is None:
            message = "source Gateway, but the Model has no endpoint"
        else:
            message = f"source Gateway, but counters of {ask.gateway.controller} are not known to tell revisions apart"
        raise MeasurementError(
            Reason.METRIC_SOURCE_MISSING, f"{message}: use source Runtime, or a metric of your own", permanent=True
        )
    if target.metrics is None:
        message = f"the runtime of version {target.version} names no counters (spec.metrics)"
        if wanted == "Auto" and controller in OPT_IN_GATEWAYS:
            message += f"; {_GATEWAY_NAMES[controller]} can count its requests: use source Gateway"
        elif wanted == "Auto":
            message += ", and no gateway that is known counts its requests"
        raise MeasurementError(Reason.METRIC_SOURCE_MISSING, message, permanent=True)
    return await _runtime_counters(ask, target)


def _list_targets(ask: MeasurementRequest) -> tuple[RevisionTarget, ...]:
    return (ask.candidate,) if ask.serving is None else (ask.candidate, ask.serving)


def _traefik_counters(ask: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    def services(targets: Iterable[RevisionTarget]) -> str:
        # Named by a route, or by a TraefikService; from 3.7.9 on with the route's name in front.
        named = "|".join(queries.escape_pattern(f"{ask.namespace}-{one.service}") for one in targets)
        return f"(.*-svc-)?({named})(-http)?-[0-9]+(-grpc)?@kubernetes(gateway|crd)"

    # Prometheus calls it exported_service where it has put a label service of its own, as for a ServiceMonitor.
    labels = ("exported_service", "service")

    def counted(metric: str) -> SeriesSelector:
        pattern = services(_list_targets(ask))
        selectors = tuple(
            queries.build_selector(metric, [LabelMatcher(label, pattern, "=~")]) for label in reversed(labels)
        )
        return SeriesSelector(selectors, ((labels, services((target,))),))

    every = counted("traefik_service_requests_total")
    # Traefik 3.6 reads a gRPC status from the headers only. One in the trailers, as of every call that went well, it
    # counts as 2 (Unknown), like a call without an answer: tried.
    grpc = ask.gateway is not None and ask.gateway.grpc
    return RequestCounters(
        "Gateway",
        all_requests=every,
        bad_requests=None
        if grpc
        else replace(every, label_patterns=(*every.label_patterns, (("code",), BAD_HTTP_CODES))),
        latency=counted("traefik_service_request_duration_seconds_bucket"),
    )


def _istio_counters(ask: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    names = "|".join(queries.escape_pattern(one.service) for one in _list_targets(ask))
    matches = [
        LabelMatcher("reporter", "source"),
        LabelMatcher("destination_service_namespace", ask.namespace),
        LabelMatcher("destination_service_name", names, "=~"),
    ]
    label = ("destination_service_name",)

    def counted(metric: str) -> SeriesSelector:
        return SeriesSelector(
            (queries.build_selector(metric, matches),), ((label, queries.escape_pattern(target.service)),)
        )

    every = counted("istio_requests_total")
    if ask.gateway is not None and ask.gateway.grpc:
        bad = (("grpc_response_status",), BAD_GRPC_CODES)
    else:
        # 0: the caller, or the server, broke off before an answer.
        bad = (("response_code",), f"{BAD_HTTP_CODES}|0")
    return RequestCounters(
        "Gateway",
        all_requests=every,
        bad_requests=replace(every, label_patterns=(*every.label_patterns, bad)),
        latency=counted("istio_request_duration_milliseconds_bucket"),
        seconds_per_unit=0.001,
    )


def _envoy_counters(ask: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    label = ("envoy_cluster_name",)

    def clusters(targets: Iterable[RevisionTarget]) -> str:
        # One for each port of a Service, with mergeBackends; what it speaks may follow.
        named = "|".join(queries.escape_pattern(one.service) for one in targets)
        return f"service/{queries.escape_pattern(ask.namespace)}/({named})/[0-9]+(/[a-z0-9]+)?"

    def counted(metric: str) -> SeriesSelector:
        selector = queries.build_selector(metric, [LabelMatcher(label[0], clusters(_list_targets(ask)), "=~")])
        return SeriesSelector((selector,), ((label, clusters((target,))),))

    every = counted("envoy_cluster_upstream_rq")
    # Envoy counts HTTP codes here, and a gRPC call that failed has code 200.
    grpc = ask.gateway is not None and ask.gateway.grpc
    return RequestCounters(
        "Gateway",
        all_requests=every,
        bad_requests=None
        if grpc
        else replace(every, label_patterns=(*every.label_patterns, (("envoy_response_code",), BAD_HTTP_CODES))),
        latency=counted("envoy_cluster_upstream_rq_time_bucket"),
        seconds_per_unit=0.001,
    )


GATEWAY_COUNTERS: Mapping[str, Callable[[MeasurementRequest, RevisionTarget], RequestCounters]] = {
    TRAEFIK: _traefik_counters,
    ISTIO: _istio_counters,
    ENVOY: _envoy_counters,
}
"""By controllerName of the GatewayClass."""

OPT_IN_GATEWAYS = frozenset({ENVOY})
"""Those that tell revisions apart only when their platform team has asked them to (Envoy Gateway: `mergeBackends` in
its EnvoyProxy), which this operator has no right to see: a policy names them, Auto does not take them."""

_GATEWAY_NAMES = {TRAEFIK: "Traefik", ISTIO: "Istio", ENVOY: "Envoy Gateway"}


async def _runtime_counters(ask: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    metrics = target.metrics
    assert metrics is not None  # noqa: S101
    more = (LabelMatcher("namespace", ask.namespace), LabelMatcher("pod", target.pod_pattern, "=~"))

    async def counted(text: str | None, field: str) -> SeriesSelector | None:
        if text is None:
            return None
        what = f"spec.metrics.{field} of the runtime of {target.version}"
        return SeriesSelector((await queries.extend_selector(text, what, ask.namespace, more),))

    every = await counted(metrics.requests, "requests")
    assert every is not None  # noqa: S101
    errors, latency = await counted(metrics.errors, "errors"), await counted(metrics.latency, "latency")
    return RequestCounters("Runtime", every, errors, latency)


async def build_in_flight_query(ask: MeasurementRequest, target: RevisionTarget) -> str | None:
    """The query for the requests that have not ended at a revision; None when its runtime names no gauges of them. The
    gateways that are known have none that tell revisions apart. Raises Fault for a selector that is none."""
    if target.metrics is None or target.metrics.in_flight is None:
        return None
    more = (LabelMatcher("namespace", ask.namespace), LabelMatcher("pod", target.pod_pattern, "=~"))
    what = f"spec.metrics.inFlight of the runtime of {target.version}"
    return f"sum({await queries.extend_selector(target.metrics.in_flight, what, ask.namespace, more)})"


def _label_matches(labels: Mapping[str, str], names: Iterable[str], pattern: str) -> bool:
    value = next((labels[name] for name in names if name in labels), "")
    return re.fullmatch(pattern, value) is not None
