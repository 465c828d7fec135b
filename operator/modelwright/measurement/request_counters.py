"""Counters of a revision's requests: those of the gateways that the operator knows, and the runtime's own.

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
    """Selects series by plain selectors, and then by patterns of the full values of their labels.

    `selectors`: alternatives, of which the first that has any series is used.
    """

    selectors: tuple[str, ...]
    label_patterns: tuple[tuple[tuple[str, ...], str], ...] = ()
    """(names of a label, of which the first present one is used; pattern of its value)"""

    def select_series(self, series: Iterable[Series]) -> tuple[Series, ...]:
        """Select the series whose labels match."""
        return tuple(
            one
            for one in series
            if all(_label_matches(one.labels, names, pattern) for names, pattern in self.label_patterns)
        )


@dataclass(frozen=True, slots=True)
class RequestCounters:
    """Counters of one revision's requests. `seconds_per_unit`: seconds in one unit of the histogram's bounds."""

    name: str
    all_requests: SeriesSelector
    bad_requests: SeriesSelector | None = None
    latency: SeriesSelector | None = None
    seconds_per_unit: float = 1.0


async def find_counters(
    request: MeasurementRequest, source: str, target: RevisionTarget, *, errors: bool = False
) -> RequestCounters:
    """Find the counters of the requests of `target`. `source`: Auto, Gateway or Runtime, as in the policy.

    Auto is a known gateway that always tells revisions apart, else the runtime. `errors`: the counters must tell bad
    requests from good ones. Raises MeasurementError, permanent, where nothing counts.
    """
    controller = request.gateway.controller if request.gateway is not None else ""
    build_counters = GATEWAY_COUNTERS.get(controller)
    if build_counters is not None and (source == "Gateway" or (source == "Auto" and controller not in OPT_IN_GATEWAYS)):
        gateway_counters = build_counters(request, target)
        if not errors or gateway_counters.bad_requests is not None:
            return gateway_counters
        if source == "Gateway":
            message = (
                f"source Gateway, but {_GATEWAY_NAMES[controller]} counts gRPC calls that went well and "
                "failed ones alike"
            )
            raise MeasurementError(
                Reason.METRIC_SOURCE_MISSING, f"{message}: use source Runtime, or a metric of your own", permanent=True
            )
    if source == "Gateway":
        if request.gateway is None:
            message = "source Gateway, but the Model has no endpoint"
        else:
            message = (
                f"source Gateway, but counters of {request.gateway.controller} are not known to tell revisions apart"
            )
        raise MeasurementError(
            Reason.METRIC_SOURCE_MISSING, f"{message}: use source Runtime, or a metric of your own", permanent=True
        )
    if target.metrics is None:
        message = f"the runtime of version {target.version} names no counters (spec.metrics)"
        if source == "Auto" and controller in OPT_IN_GATEWAYS:
            message += f"; {_GATEWAY_NAMES[controller]} can count its requests: use source Gateway"
        elif source == "Auto":
            message += ", and no gateway that is known counts its requests"
        raise MeasurementError(Reason.METRIC_SOURCE_MISSING, message, permanent=True)
    return await _runtime_counters(request, target)


def _list_targets(request: MeasurementRequest) -> tuple[RevisionTarget, ...]:
    return (request.candidate,) if request.serving is None else (request.candidate, request.serving)


def _traefik_counters(request: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    def service_pattern(targets: Iterable[RevisionTarget]) -> str:
        # Named by a route, or by a TraefikService; from 3.7.9 on with the route's name in front.
        names = "|".join(queries.escape_pattern(f"{request.namespace}-{one.service}") for one in targets)
        return f"(.*-svc-)?({names})(-http)?-[0-9]+(-grpc)?@kubernetes(gateway|crd)"

    # Prometheus calls it exported_service where it has put a label service of its own, as for a ServiceMonitor.
    labels = ("exported_service", "service")

    def select_metric(metric: str) -> SeriesSelector:
        pattern = service_pattern(_list_targets(request))
        selectors = tuple(
            queries.build_selector(metric, [LabelMatcher(label, pattern, "=~")]) for label in reversed(labels)
        )
        return SeriesSelector(selectors, ((labels, service_pattern((target,))),))

    all_requests = select_metric("traefik_service_requests_total")
    # Traefik 3.6 reads a gRPC status from the headers only. It counts one in the trailers, as
    # of every successful call, as 2 (Unknown), like a call without an answer: tried.
    grpc = request.gateway is not None and request.gateway.grpc
    return RequestCounters(
        "Gateway",
        all_requests=all_requests,
        bad_requests=None
        if grpc
        else replace(all_requests, label_patterns=(*all_requests.label_patterns, (("code",), BAD_HTTP_CODES))),
        latency=select_metric("traefik_service_request_duration_seconds_bucket"),
    )


def _istio_counters(request: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    names = "|".join(queries.escape_pattern(one.service) for one in _list_targets(request))
    matches = [
        LabelMatcher("reporter", "source"),
        LabelMatcher("destination_service_namespace", request.namespace),
        LabelMatcher("destination_service_name", names, "=~"),
    ]
    label = ("destination_service_name",)

    def select_metric(metric: str) -> SeriesSelector:
        return SeriesSelector(
            (queries.build_selector(metric, matches),), ((label, queries.escape_pattern(target.service)),)
        )

    all_requests = select_metric("istio_requests_total")
    if request.gateway is not None and request.gateway.grpc:
        bad = (("grpc_response_status",), BAD_GRPC_CODES)
    else:
        # 0: the caller, or the server, broke off before an answer.
        bad = (("response_code",), f"{BAD_HTTP_CODES}|0")
    return RequestCounters(
        "Gateway",
        all_requests=all_requests,
        bad_requests=replace(all_requests, label_patterns=(*all_requests.label_patterns, bad)),
        latency=select_metric("istio_request_duration_milliseconds_bucket"),
        seconds_per_unit=0.001,
    )


def _envoy_counters(request: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    label = ("envoy_cluster_name",)

    def cluster_pattern(targets: Iterable[RevisionTarget]) -> str:
        # One cluster for each port of a Service, with mergeBackends; its protocol may follow.
        names = "|".join(queries.escape_pattern(one.service) for one in targets)
        return f"service/{queries.escape_pattern(request.namespace)}/({names})/[0-9]+(/[a-z0-9]+)?"

    def select_metric(metric: str) -> SeriesSelector:
        selector = queries.build_selector(
            metric, [LabelMatcher(label[0], cluster_pattern(_list_targets(request)), "=~")]
        )
        return SeriesSelector((selector,), ((label, cluster_pattern((target,))),))

    all_requests = select_metric("envoy_cluster_upstream_rq")
    # Envoy counts HTTP codes here, and a gRPC call that failed has code 200.
    grpc = request.gateway is not None and request.gateway.grpc
    return RequestCounters(
        "Gateway",
        all_requests=all_requests,
        bad_requests=None
        if grpc
        else replace(
            all_requests, label_patterns=(*all_requests.label_patterns, (("envoy_response_code",), BAD_HTTP_CODES))
        ),
        latency=select_metric("envoy_cluster_upstream_rq_time_bucket"),
        seconds_per_unit=0.001,
    )


GATEWAY_COUNTERS: Mapping[str, Callable[[MeasurementRequest, RevisionTarget], RequestCounters]] = {
    TRAEFIK: _traefik_counters,
    ISTIO: _istio_counters,
    ENVOY: _envoy_counters,
}
"""By controllerName of the GatewayClass."""

OPT_IN_GATEWAYS = frozenset({ENVOY})
"""Gateways that tell revisions apart only when their platform team has configured it (Envoy Gateway: `mergeBackends` in
its EnvoyProxy). The operator has no right to read that, so a policy must name them: Auto does not choose them."""

_GATEWAY_NAMES = {TRAEFIK: "Traefik", ISTIO: "Istio", ENVOY: "Envoy Gateway"}


async def _runtime_counters(request: MeasurementRequest, target: RevisionTarget) -> RequestCounters:
    metrics = target.metrics
    assert metrics is not None  # noqa: S101
    more = (LabelMatcher("namespace", request.namespace), LabelMatcher("pod", target.pod_pattern, "=~"))

    async def build_selector(text: str | None, member: str) -> SeriesSelector | None:
        if text is None:
            return None
        field = f"spec.metrics.{member} of the runtime of {target.version}"
        return SeriesSelector((await queries.extend_selector(text, field, request.namespace, more),))

    all_requests = await build_selector(metrics.requests, "requests")
    assert all_requests is not None  # noqa: S101
    errors, latency = await build_selector(metrics.errors, "errors"), await build_selector(metrics.latency, "latency")
    return RequestCounters("Runtime", all_requests, errors, latency)


async def build_in_flight_query(request: MeasurementRequest, target: RevisionTarget) -> str | None:
    """Build the query for the unfinished requests of a revision; None when its runtime names no gauge of them.

    No known gateway has one that tells revisions apart. Raises MeasurementError for an invalid selector.
    """
    if target.metrics is None or target.metrics.in_flight is None:
        return None
    more = (LabelMatcher("namespace", request.namespace), LabelMatcher("pod", target.pod_pattern, "=~"))
    field = f"spec.metrics.inFlight of the runtime of {target.version}"
    return f"sum({await queries.extend_selector(target.metrics.in_flight, field, request.namespace, more)})"


def _label_matches(labels: Mapping[str, str], names: Iterable[str], pattern: str) -> bool:
    value = next((labels[name] for name in names if name in labels), "")
    return re.fullmatch(pattern, value) is not None
