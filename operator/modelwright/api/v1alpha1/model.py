"""Model: a stable endpoint, the version it should serve, and how."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel, Cut, ListType, NamedObject
from modelwright.api.common import (
    DECIMAL,
    DURATION,
    INT64_MAX,
    MAX_AUTHORS,
    QUALIFIED_NAME,
    RFC3339,
    Bool,
    Decimal,
    Hostname,
    Label,
    LabelValue,
    LocalObjectReference,
    OpenObject,
    OpenWire,
    Port,
    Quantity,
    Resource,
    ShortStatusText,
    StatusInt,
    StatusText,
    StatusWire,
    Subdomain,
    Text253,
    Timestamp,
    Wire,
    changed_by_field,
    parse_duration,
    pattern_rule,
)
from modelwright.api.conditions import Conditions
from modelwright.api.crd_info import AGE_COLUMN, READY_COLUMN, REASON_COLUMN, Column, CrdInfo, Scale
from modelwright.api.names import MODEL_NAME_MAX
from modelwright.api.v1alpha1.helper_pods import ModelHelperPods
from modelwright.api.v1alpha1.version import AccountName, VersionContent

_QUALIFIED = re.compile(QUALIFIED_NAME.removeprefix("^").removesuffix("$"))
_MODEL_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

RuntimeKind = Literal["ClusterModelRuntime", "ModelRuntime"]
EndpointProtocol = Literal["HTTP", "GRPC"]

Duration = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=32),
    pattern_rule(DURATION, "must be a duration such as 30s, 10m or 1h30m (units h, m, s, ms)"),
    Cel(
        f"!self.matches(r'{DURATION}') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))",
        "must be at least 1s and at most 24h",
        lambda value: 1 <= parse_duration(value) <= 86400,
    ),
]


class VersionTemplate(VersionContent):
    """A version defined in the Model; the operator creates a ModelVersion from it, named by its content."""


class LabelSelector(Wire):
    """Chooses objects by their labels."""

    match_labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=16),
        Cel(
            f"self.all(key, key.size() <= 253 && key.matches(r'{QUALIFIED_NAME}'))",
            "keys must be label keys, such as team or example.com/team",
            lambda value: all(len(key) <= 253 and _QUALIFIED.fullmatch(key) for key in value),
        ),
    ] = Field(
        default_factory=dict, description="Labels, each of which the object must carry with this value. At most 16."
    )


class Follow(Wire):
    """Always serve the highest version."""

    order: Literal["Created"] = Field(
        default="Created", description="The order of versions: Created puts the youngest highest, ties by name."
    )
    selector: LabelSelector | None = Field(
        default=None, description="Versions of this Model to consider. When absent, all."
    )


class VersionSource(Wire):
    """Source of the version to serve: exactly one of name, template and follow."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.name), has(self.template), has(self.follow)].filter(set, set).size() == 1",
            "spec.version needs exactly one of name, template and follow",
            lambda self: sum(member is not None for member in (self.name, self.template, self.follow)) == 1,
        ),
    )

    name: Subdomain | None = Field(
        default=None,
        description="Name of a ModelVersion in the same namespace: the Model stays on it until this is edited.",
    )
    template: VersionTemplate | None = Field(
        default=None,
        description="The version itself; becomes an immutable ModelVersion named after the Model and the content.",
    )
    follow: Follow | None = Field(default=None, description="Always serve the highest version.")


class RuntimeRef(Wire):
    """Names the runtime that serves the Model."""

    kind: RuntimeKind = Field(
        default="ClusterModelRuntime", description="ClusterModelRuntime, or ModelRuntime of the same namespace."
    )
    name: Subdomain = Field(description="Name of the runtime.")


class MetricSpec(OpenWire):
    """A metric of autoscaling/v2."""

    type: Literal["ContainerResource", "External", "Object", "Pods", "Resource"] = Field(
        description="Type of the metric; the member of that name (in camelCase) defines it, as in autoscaling/v2."
    )


class ScalingPolicy(Wire):
    """Limit on a single change of an autoscaler, as in autoscaling/v2."""

    type: Literal["Pods", "Percent"] = Field(description="Whether value is a number of pods or a percentage of them.")
    value: Annotated[int, Field(strict=True, ge=1, le=100_000)] = Field(description="Largest change.")
    period_seconds: Annotated[int, Field(strict=True, ge=1, le=1800)] = Field(
        description="Period of the change in seconds, 1 to 1800."
    )


ScalingPolicies = Annotated[tuple[ScalingPolicy, ...], Field(min_length=1, max_length=8), ListType("atomic")]


class ScalingRules(Wire):
    """Rules for changes of the number of pods in one direction, as in autoscaling/v2."""

    stabilization_window_seconds: Annotated[int, Field(strict=True, ge=0, le=3600)] | None = Field(
        default=None,
        description="Seconds for which earlier recommendations count, 0 to 3600. When absent, 0 up and 300 down.",
    )
    select_policy: Literal["Max", "Min", "Disabled"] | None = Field(
        default=None, description="The policy that counts. Disabled: never in this direction. When absent, Max."
    )
    policies: Annotated[tuple[ScalingPolicy, ...], Field(min_length=1, max_length=8), ListType("atomic")] | None = (
        Field(default=None, description="Limits on a single change, 1 to 8. When absent, Kubernetes' defaults.")
    )


class ScalingBehavior(Wire):
    """Speed of an autoscaler, as in autoscaling/v2."""

    scale_up: ScalingRules | None = Field(default=None, description="To more pods.")
    scale_down: ScalingRules | None = Field(
        default=None, description="To fewer pods: models that load for minutes want a long window."
    )


class ExternalAutoscaling(Wire):
    """Leaves the number of pods to another autoscaler."""


class Autoscaling(Wire):
    """The autoscaler that sets the number of replicas: the operator's HorizontalPodAutoscaler, or another one."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.external) != has(self.maxReplicas)",
            "spec.serving.autoscaling needs exactly one of maxReplicas and external",
            lambda self: (self.external is None) != (self.max_replicas is None),
        ),
        Cel(
            "!has(self.maxReplicas) || self.maxReplicas >= self.minReplicas",
            "maxReplicas must not be below minReplicas",
            lambda self: self.max_replicas is None or self.max_replicas >= self.min_replicas,
            ".maxReplicas",
        ),
        Cel(
            "!has(self.external) || (self.minReplicas == 1 && !has(self.behavior) && "
            "(!has(self.metrics) || self.metrics.size() == 0))",
            "minReplicas, metrics and behavior have no effect with external: leave them out",
            lambda self: (
                self.external is None or (self.min_replicas == 1 and self.behavior is None and not self.metrics)
            ),
            ".external",
        ),
    )

    min_replicas: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=1, description="Fewest pods, 1 to 1000."
    )
    max_replicas: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = Field(
        default=None, description="Most pods, 1 to 1000, not below minReplicas. Exactly one of this and external."
    )
    metrics: Annotated[
        tuple[MetricSpec, ...],
        Field(max_length=16),
        ListType("atomic"),
        NamedObject("Nothing", why="metrics of autoscaling/v2"),
    ] = Field(default=(), description="Metrics of autoscaling/v2, at most 16. When empty, CPU at 80 % of the requests.")
    behavior: ScalingBehavior | None = Field(
        default=None, description="Speed of scaling up and down. When absent, Kubernetes' defaults."
    )
    external: ExternalAutoscaling | None = Field(
        default=None,
        description="Another autoscaler sets the replicas of the Deployments (KEDA, an HPA of yours): once a revision "
        "serves, the operator does not write them. Not needed for one that scales the Model itself.",
    )

    @property
    def replica_limit(self) -> int:
        """maxReplicas; with external, which has none, minReplicas."""
        return self.min_replicas if self.max_replicas is None else self.max_replicas


Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]


class Resources(Wire):
    """Compute resources of the model container, as in a Pod."""

    requests: Quantities = Field(
        default_factory=dict, description="Free resources that a node must have: cpu, memory, nvidia.com/gpu, ..."
    )
    limits: Quantities = Field(default_factory=dict, description="The most that the container may use, by resource.")


class PodTemplatePatch(Wire):
    """A strategic merge patch on the rendered pod template."""

    metadata: Annotated[OpenObject, NamedObject("Nothing", why="labels and annotations")] | None = Field(
        default=None, description="Labels and annotations to add; null removes one. Modelwright's own labels stay."
    )
    spec: Annotated[OpenObject, NamedObject("PodSpec")] | None = Field(
        default=None,
        description="A partial PodSpec, merged as the API server would (containers by name; the model's is `model`); "
        "null removes a field (apply with --server-side: a plain kubectl apply drops nulls before sending them). "
        "Unknown fields are refused before any change.",
    )


class Cache(Wire):
    """A volume that keeps fetched artifacts, so that a pod starts while the store is down."""

    persistent_volume_claim: Annotated[Subdomain, NamedObject("Claim")] = Field(
        description="PersistentVolumeClaim in the same namespace, ordered by digest and shared by all Models that "
        "name it; "
        "ReadWriteMany when pods run on several nodes."
    )


class Serving(Wire):
    """Runtime, pods and autoscaling of the version."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!(has(self.replicas) && has(self.autoscaling))",
            "spec.serving.replicas has no effect with autoscaling: leave one of them out",
            lambda self: self.replicas is None or self.autoscaling is None,
            ".replicas",
        ),
        Cel(
            "!has(self.serviceAccountName) || has(self.cache)",
            "spec.serving.serviceAccountName needs spec.serving.cache: what another ServiceAccount fetches gets into "
            "the pods by it",
            lambda self: self.service_account_name is None or self.cache is not None,
            ".serviceAccountName",
        ),
    )

    runtime_ref: RuntimeRef | None = Field(
        default=None, description="The runtime. When absent, it is chosen by format, priority and name."
    )
    replicas: Annotated[int, Field(strict=True, ge=0, le=1000)] | None = Field(
        default=None,
        description="Number of pods, 0 to 1000; kubectl scale and an autoscaler of the Model set it. When absent, "
        "and without autoscaling, 1.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="Let an autoscaler choose the number of pods. Not together with replicas."
    )
    resources: Resources | None = Field(
        default=None, description="Compute resources of the model container. When absent, the runtime's."
    )
    pod_template: PodTemplatePatch | None = Field(
        default=None, description="Changes to the pods that the runtime renders."
    )
    cache: Cache | None = Field(
        default=None, description="Keep fetched artifacts on a volume. When absent, each pod fetches."
    )
    service_account_name: AccountName | None = Field(
        default=None,
        description="ServiceAccount of the pods that serve, and of the rollout's evaluation; they never fetch. "
        "Separate "
        "pods fill the cache, as the artifact's serviceAccountName. Needs cache. When absent, one pod fetches and "
        "serves, as the artifact's.",
    )
    allow_implementation: Bool = Field(
        default=False,
        description="Whether a model server may load code that the artifact names or brings, such as the "
        "implementation of MLServer's model-settings.json. The runtime gets MODEL_ALLOW_IMPLEMENTATION=true; of the "
        "shipped runtimes only mlserver uses it.",
    )
    start_timeout: Duration = Field(
        default="10m",
        description="Time in which a revision must become ready, 1s to 24h; then the Model is Stalled, but its pods "
        "keep trying.",
    )
    restarted_at: (
        Annotated[
            str,
            StringConstraints(strict=True, min_length=1, max_length=64),
            pattern_rule(RFC3339, "must be a time such as 2026-11-21T03:00:00Z"),
        ]
        | None
    ) = Field(
        default=None,
        description="A time (RFC 3339); another value makes a new revision of the same version from the current "
        "runtime and images.",
    )
    drain_seconds: Annotated[int, Field(strict=True, ge=0, le=3600)] = Field(
        default=15, description="Seconds that a terminating pod still answers new requests, 0 to 3600."
    )
    max_request_seconds: Annotated[int, Field(strict=True, ge=1, le=86400)] = Field(
        default=60,
        description="Seconds that the longest request may take, 1 to 86400; a terminating pod has as long, and no "
        "step of a rollout with metrics passes earlier.",
    )

    @property
    def scaled_externally(self) -> bool:
        """True when another autoscaler writes the replicas of the serving revision."""
        return self.autoscaling is not None and self.autoscaling.external is not None

    @property
    def start_timeout_seconds(self) -> float:
        """startTimeout in seconds."""
        return parse_duration(self.start_timeout)


class ParentRef(Wire):
    """A Gateway that the Model's route attaches to."""

    name: Subdomain = Field(description="Name of the Gateway.")
    namespace: Subdomain | None = Field(
        default=None, description="Namespace of the Gateway. When absent, the Model's own."
    )
    section_name: Subdomain | None = Field(default=None, description="Name of the listener. When absent, all that fit.")
    port: Port | None = Field(default=None, description="Port of the listener, 1 to 65535. When absent, all that fit.")


def _are_distinct(refs: tuple[ParentRef, ...]) -> bool:
    return len(set(refs)) == len(refs)


ROUTE_HEADERS = re.compile(r"(?i)(modelwright-.*|set-cookie|connection|content-length|transfer-encoding)")
"""Headers on a route that filters must not touch: the operator's own (mark, token and cookie of sticky callers), and
those that say where a message ends, because several callers may share one connection."""
RouteHeader = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_|~-]+$"),
    Cel(
        f"!self.matches(r'^{ROUTE_HEADERS.pattern}$')",
        "is the operator's own or the connection's: filters can't change it",
        lambda value: ROUTE_HEADERS.fullmatch(value) is None,
    ),
]


class HeaderValue(Wire):
    """A header with its value."""

    name: RouteHeader = Field(description="Name of the header.")
    value: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=1024, pattern=r"^[!-~]([ \t!-~]*[!-~])?$"),
    ] = Field(description="Its value.")


HeaderValues = Annotated[tuple[HeaderValue, ...], Field(max_length=16), ListType("map", ("name",))]


class HeaderChanges(Wire):
    """Changes to headers, as in an HTTPRoute."""

    set: HeaderValues = Field(default=(), description="Headers to set, over what is there. At most 16.")
    add: HeaderValues = Field(default=(), description="Headers to add to what is there. At most 16.")
    remove: Annotated[tuple[RouteHeader, ...], Field(max_length=16), ListType("set")] = Field(
        default=(), description="Names of headers to remove. At most 16."
    )


Token = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")]
Tokens = Annotated[tuple[Token, ...], Field(max_length=32), ListType("set")]


class Cors(Wire):
    """Access for pages of other origins, as in an HTTPRoute."""

    allow_origins: Annotated[tuple[Token, ...], Field(min_length=1, max_length=32), ListType("set")] = Field(
        description="Origins such as https://app.example.com, or *. 1 to 32."
    )
    allow_credentials: Bool = Field(default=False, description="Whether browsers may send cookies and credentials.")
    allow_methods: Tokens = Field(default=(), description="Methods that are allowed, or *. At most 32.")
    allow_headers: Tokens = Field(default=(), description="Request headers that are allowed, or *. At most 32.")
    expose_headers: Tokens = Field(default=(), description="Response headers that pages may read, or *. At most 32.")
    max_age: Annotated[int, Field(strict=True, ge=1, le=86400)] = Field(
        default=5, description="Seconds for which browsers keep the answer to a preflight request, 1 to 86400."
    )


class ExtensionRef(Wire):
    """A gateway-specific object that filters requests, such as a Middleware of Traefik."""

    group: Annotated[
        Subdomain, Cel("self.contains('.')", "must be the API group of a custom resource", lambda value: "." in value)
    ] = Field(description="API group of the object, such as traefik.io.")
    kind: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$"),
    ] = Field(description="Kind of the object.")
    name: Subdomain = Field(description="Name of the object, in the Model's namespace.")


FILTER_MEMBERS = {
    "RequestHeaderModifier": ("requestHeaderModifier", "request_header_modifier"),
    "ResponseHeaderModifier": ("responseHeaderModifier", "response_header_modifier"),
    "CORS": ("cors", "cors"),
    "ExtensionRef": ("extensionRef", "extension_ref"),
}
"""Members of a filter by its type: on the wire, and in Python."""


class RouteFilter(Wire):
    """A filter of an HTTPRoute, on every rule of the Model's route."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            " && ".join(f"(self.type == '{type_}') == has(self.{wire})" for type_, (wire, _) in FILTER_MEMBERS.items()),
            "a filter needs the member that its type names, and no other",
            lambda self: all(
                (self.type == type_) == (getattr(self, member) is not None)
                for type_, (_, member) in FILTER_MEMBERS.items()
            ),
        ),
    )

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "CORS", "ExtensionRef"] = Field(
        description="Type of the filter; the member of that name defines it."
    )
    request_header_modifier: HeaderChanges | None = Field(default=None, description="Changes to requests.")
    response_header_modifier: HeaderChanges | None = Field(
        default=None,
        description="Changes to responses. The gateway's class must list HTTPRouteResponseHeaderModification.",
    )
    cors: Cors | None = Field(
        default=None, description="Answers to browsers' preflight requests. The class must list HTTPRouteCORS."
    )
    extension_ref: ExtensionRef | None = Field(
        default=None, description="A gateway-specific object in the Model's namespace."
    )


def _filters_are_unique(filters: tuple[RouteFilter, ...]) -> bool:
    types = [one.type for one in filters if one.type != "ExtensionRef"]
    return len(types) == len(set(types))


class Endpoint(Wire):
    """Access from outside the cluster, through the Gateway API."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.protocol != 'GRPC' || self.pathPrefix == '/'",
            "spec.endpoint.pathPrefix must be / with protocol GRPC: gRPC has no path prefixes",
            lambda self: self.protocol != "GRPC" or self.path_prefix == "/",
            ".pathPrefix",
        ),
        Cel(
            "self.stripPathPrefix || self.pathPrefix != '/'",
            "spec.endpoint.stripPathPrefix false has no effect with pathPrefix /: leave it out",
            lambda self: self.strip_path_prefix or self.path_prefix != "/",
            ".stripPathPrefix",
        ),
        Cel(
            "self.protocol != 'GRPC' || !has(self.requestTimeout)",
            "spec.endpoint.requestTimeout has no effect with protocol GRPC: a GRPCRoute has none",
            lambda self: self.protocol != "GRPC" or self.request_timeout is None,
            ".requestTimeout",
        ),
        Cel(
            "self.protocol != 'GRPC' || !has(self.filters) || "
            "self.filters.all(entry, entry.type in ['RequestHeaderModifier', 'ExtensionRef'])",
            "spec.endpoint.filters of protocol GRPC can be RequestHeaderModifier and ExtensionRef",
            lambda self: (
                self.protocol != "GRPC"
                or all(entry.type in ("RequestHeaderModifier", "ExtensionRef") for entry in self.filters)
            ),
            ".filters",
        ),
    )

    parent_refs: Annotated[
        tuple[ParentRef, ...],
        Field(min_length=1, max_length=8),
        ListType("atomic"),
        Cel("self.all(ref, self.exists_one(other, other == ref))", "the same Gateway is named twice", _are_distinct),
    ] = Field(description="Gateways that the route attaches to, 1 to 8.")
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16), ListType("set")] = Field(
        default=(), description="Hostnames, at most 16; *.example.com matches below. When empty, those of the listener."
    )
    protocol: EndpointProtocol = Field(default="HTTP", description="HTTP makes an HTTPRoute, GRPC a GRPCRoute.")
    path_prefix: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=256),
        pattern_rule(
            r"^(/|(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)$",
            "must be / or a path such as /team/digits: no end in /, and no part empty or of dots alone",
        ),
    ] = Field(
        default="/", description="Beginning of the path that leads to this Model, so that teams can share a hostname."
    )
    strip_path_prefix: Bool = Field(
        default=True, description="Whether pathPrefix is removed before the runtime sees the path."
    )
    proof: Literal["Probe", "Status"] = Field(
        default="Probe",
        description="Confirmation that the gateway follows the route. Probe: by a request through it. "
        "Status: by the route's status alone, for gateways that require every caller to sign in.",
    )
    request_timeout: Duration | None = Field(
        default=None,
        description="Longest time that the gateway gives a request, 1s to 24h, written into the route where the "
        "gateway's class lists HTTPRouteRequestTimeout; the condition EndpointApplied says whether. When absent, the "
        "gateway's own.",
    )
    filters: Annotated[
        tuple[RouteFilter, ...],
        Field(max_length=8),
        ListType("atomic"),
        Cel(
            "self.all(one, one.type == 'ExtensionRef' || self.exists_one(other, other.type == one.type))",
            "each type but ExtensionRef can be there once",
            _filters_are_unique,
        ),
    ] = Field(
        default=(),
        description="Filters on every rule of the route, at most 8: changes to headers, CORS, and gateway-specific "
        "objects. The operator alone sets redirects, rewrites and mirrors.",
    )

    @property
    def request_timeout_seconds(self) -> float | None:
        """requestTimeout in seconds; None without."""
        return None if self.request_timeout is None else parse_duration(self.request_timeout)


DriftFloor = Annotated[
    Decimal,
    Cel(f"!self.matches(r'{DECIMAL}') || double(self) > 0.0", "must be more than 0", lambda value: float(value) > 0),
]


class NumbersComparison(Wire):
    """Comparison of features with numbers with the reference sample."""

    method: Literal["KolmogorovSmirnov", "Wasserstein", "PSI", "ChiSquare", "JensenShannon"] = Field(
        default="KolmogorovSmirnov",
        description="KolmogorovSmirnov: the largest difference of the distribution functions. Wasserstein: the area "
        "between them, in standard deviations. PSI, ChiSquare and JensenShannon compare the shares of ten bins.",
    )
    floor: DriftFloor | None = Field(
        default=None,
        description="Least distance that counts as drift, at any number of rows. When absent, 0.05 for "
        "KolmogorovSmirnov and JensenShannon, 0.1 for the others.",
    )


class CategoriesComparison(Wire):
    """Comparison of features with labels with the reference sample."""

    method: Literal["ChiSquare", "JensenShannon", "PSI"] = Field(
        default="ChiSquare",
        description="ChiSquare: Cohen's w, 0.1 is a small change and 0.3 a medium one. JensenShannon: the distance of "
        "that name. PSI: the population stability index.",
    )
    floor: DriftFloor | None = Field(
        default=None,
        description="Least distance that counts as drift, at any number of rows. When absent, 0.05 for JensenShannon "
        "and 0.1 for the others.",
    )


class Monitoring(Wire):
    """Monitoring of served requests for drift."""

    mirror_percent: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=10,
        description="Share of the requests that is copied to the observer, 1 to 100 percent. If the reference has "
        "predictions, each copy is also sent to the serving revision.",
    )
    window: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=32),
        pattern_rule(DURATION, "must be a duration such as 30s, 10m or 1h30m (units h, m, s, ms)"),
        Cel(
            f"!self.matches(r'{DURATION}') || (duration(self) >= duration('10s') && duration(self) <= duration('24h'))",
            "must be at least 10s and at most 24h",
            lambda value: 10 <= parse_duration(value) <= 86400,
        ),
    ] = Field(
        default="10m",
        description="The figures cover the rows of this period, 10s to 24h, and at most about 10,000 rows.",
    )
    long_window: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=32),
        pattern_rule(DURATION, "must be a duration such as 30s, 10m or 24h (units h, m, s, ms)"),
        Cel(
            f"!self.matches(r'{DURATION}') || duration(self) <= duration('168h')",
            "must be at most 168h",
            lambda value: parse_duration(value) <= 604_800,
        ),
    ] = Field(
        default="24h",
        description="A second, longer window, at most 168h: it finds smaller changes, later. A value not longer than "
        "window, such as 0s, disables it.",
    )
    min_samples: Annotated[int, Field(strict=True, ge=20, le=10_000)] = Field(
        default=200, description="Rows below which a window has no figure, 20 to 10,000."
    )
    rows_per_request: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=1,
        description="Rows counted per request, drawn at random, 1 to 1000. Use more than 1 only where the rows of a "
        "request are independent: the limits assume that.",
    )
    numbers: NumbersComparison = Field(
        default_factory=NumbersComparison, description="Comparison of features with numbers."
    )
    categories: CategoriesComparison = Field(
        default_factory=CategoriesComparison, description="Comparison of features with labels."
    )
    share_floor: DriftFloor = Field(
        default="0.01",
        description="Least difference of the share of missing or unknown values that counts as drift.",
    )
    correction: Literal["Bonferroni", "BenjaminiHochberg"] = Field(
        default="Bonferroni",
        description="The error that is bounded by 5 % when there are many features. Bonferroni: the chance of any "
        "false alarm. BenjaminiHochberg: the share of false alarms among the features called drifted; it finds more "
        "drifted features.",
    )


class PublicKey(Wire):
    """A trusted key."""

    name: Label = Field(description="Name of the key, shown in the status of versions it has signed.")
    pem: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=1024),
        pattern_rule(
            r"^-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=]+\n)+-----END PUBLIC KEY-----\n?$",
            "must be a public key in PEM, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----",
        ),
    ] = Field(description="The key in PEM: an elliptic one on P-256, P-384 or P-521.")


class Signatures(Wire):
    """Signatures that the versions of the Model must carry."""

    mode: Literal["Enforce", "Warn"] = Field(
        default="Enforce",
        description="Enforce: a version without a valid signature never starts to serve. Warn: it serves, and its "
        "condition Verified names the problem.",
    )
    public_keys: Annotated[tuple[PublicKey, ...], Field(min_length=1, max_length=8), ListType("map", ("name",))] = (
        Field(description="Keys, one of which must have signed the artifact, 1 to 8.")
    )


class Owner(Wire):
    """Owner of the Model."""

    team: Text253 | None = Field(default=None, description="Team.")
    contact: Text253 | None = Field(default=None, description="Contact, such as a channel or an address.")


class ModelSpec(Wire):
    """Desired state."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.monitoring) || has(self.endpoint)",
            "spec.monitoring needs spec.endpoint: a gateway makes the copies that are observed",
            lambda self: self.monitoring is None or self.endpoint is not None,
            ".monitoring",
        ),
    )

    version: VersionSource = Field(description="The version to serve: exactly one of name, template and follow.")
    serving: Serving = Field(default=Serving(), description="Runtime, pods and autoscaling.")
    endpoint: Endpoint | None = Field(
        default=None,
        description="Access from outside, through the Gateway API. When absent, only the Service gives access.",
    )
    rollout_policy_ref: LocalObjectReference | None = Field(
        default=None,
        description="RolloutPolicy in the same namespace for moves to another revision. When absent, all traffic moves "
        "as soon as the new pods are ready.",
    )
    monitoring: Monitoring | None = Field(
        default=None,
        description="Monitors requests and responses for drift from the reference sample of the serving version (its "
        "spec.reference). When absent, nothing is copied. Needs endpoint.",
    )
    helper_pods: ModelHelperPods | None = Field(
        default=None,
        description="Placement and size of this Model's pods other than its serving ones, which serving.podTemplate "
        "is for.",
    )
    signatures: Signatures | None = Field(
        default=None,
        description="Verifies the signature of each version's artifact before it serves. When absent, none is "
        "verified. A version that already serves keeps serving.",
    )
    owner: Owner | None = Field(default=None, description="Owner of the Model.")
    suspend: Bool = Field(
        default=False,
        description="Freezes the Model while true: the serving version keeps serving. Deletion still works.",
    )
    changed_by: Text253 | None = changed_by_field(
        "what shapes the pods (serving but for replicas, autoscaling and startTimeout), signatures or rolloutPolicyRef"
    )


class ServingStatus(StatusWire):
    """The revision that has the traffic."""

    version: ShortStatusText = Field(description="Name of the ModelVersion.")
    revision: ShortStatusText = Field(description="Hash of version, runtime and what shapes the pods.")
    since: Timestamp | None = Field(default=None, description="When it took over, UTC.")


class TargetStatus(StatusWire):
    """The target revision."""

    version: ShortStatusText = Field(description="Name of the ModelVersion.")
    revision: ShortStatusText | None = Field(
        default=None, description="Hash; absent until digest and runtime are known."
    )


class RolloutStatus(StatusWire):
    """The move to the target revision."""

    name: ShortStatusText | None = Field(
        default=None, description="Name of the ModelRollout; absent when the Model moves without a policy."
    )
    state: Annotated[str, Cut(63)] = Field(
        description="Pending, Gating, Progressing, Holding, AwaitingApproval, Promoting, Succeeded, RollingBack, "
        "RolledBack, Aborted or Superseded."
    )
    reason: Annotated[str, Cut(63)] | None = Field(default=None, description="Why, as one of the documented reasons.")
    message: StatusText | None = Field(default=None, description="Why, as text.")
    since: Timestamp | None = Field(default=None, description="When this state began, UTC.")


class TrafficStatus(StatusWire):
    """The share of one revision."""

    version: ShortStatusText = Field(description="Name of the ModelVersion.")
    revision: ShortStatusText = Field(description="Hash of the revision.")
    weight: Annotated[int, Field(ge=0, le=100)] = Field(description="Share of the requests, in percent.")
    observed_weight: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Observed share since the step began, in percent; absent below 100 requests.",
    )
    ready: bool = Field(default=False, description="Whether it has at least one ready pod.")


class RuntimeStatus(StatusWire):
    """The runtime of the target revision."""

    kind: Annotated[str, Cut(63)] = Field(description="ModelRuntime or ClusterModelRuntime.")
    name: ShortStatusText = Field(description="Name of the runtime.")
    reason: StatusText = Field(default="", description="Reason for the choice, and other runtimes that would fit.")
    code: bool | None = Field(
        default=None,
        description="Whether loading the artifact can run code in it, according to the runtime's entry for its format. "
        "When absent, it is unknown and counts as code.",
    )


class FailureStatus(StatusWire):
    """Problem that keeps the target revision from serving."""

    reason: Annotated[str, Cut(63)] = Field(description="One of the documented reasons.")
    message: StatusText = Field(default="", description="The problem and its remedy, as text.")
    exit_code: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = Field(
        default=None, description="Exit code of the container that failed."
    )
    pod: ShortStatusText | None = Field(default=None, description="Name of the pod that failed.")
    revision: ShortStatusText | None = Field(default=None, description="Hash of the revision that failed.")


class ServedStatus(StatusWire):
    """A revision that has served before."""

    version: ShortStatusText = Field(description="Name of the ModelVersion.")
    revision: ShortStatusText = Field(description="Hash of the revision.")
    until: Timestamp | None = Field(default=None, description="When another took over, UTC.")


class AnnouncedStatus(StatusWire):
    """A newly trained version that this Model does not use, because it is pinned."""

    version: ShortStatusText = Field(description="Name of the ModelVersion, for spec.version.name.")
    training_run: ShortStatusText = Field(description="Name of the TrainingRun that made it.")


class DriftFigure(StatusWire):
    """Drift of one feature from the reference sample."""

    kind: Annotated[str, Cut(63)] = Field(description="input or prediction.")
    feature: ShortStatusText = Field(
        description="Its name in the reference, the model server's metadata or the request, else its place in a "
        "row, from 0; output for predictions."
    )
    drifted: bool = Field(
        description="Whether it has drifted: from a value beyond the limit until one below 0.8 of it."
    )
    aspect: Annotated[str, Cut(63)] = Field(
        description="Compared aspect: distance, missing or unknown (shares of values)."
    )
    method: Annotated[str, Cut(63)] | None = Field(
        default=None, description="Method of the distance; absent for shares."
    )
    value: Annotated[str, Cut(63)] = Field(
        description="The distance, or the difference of the shares: positive for more than in the reference."
    )
    limit: Annotated[str, Cut(63)] = Field(
        description="Value beyond which it is drift: the larger of the floor and the limit of chance."
    )
    floor: Annotated[str, Cut(63)] = Field(description="Least value that counts as drift, from spec.monitoring.")
    window: Annotated[str, Cut(63)] = Field(
        description="The window in which it differs most: spec.monitoring.window or longWindow."
    )
    rows: StatusInt = Field(description="Rows in that window.")


class UnwatchedFeature(StatusWire):
    """A feature that is not monitored, because it is free text."""

    kind: Annotated[str, Cut(63)] = Field(description="input or prediction.")
    feature: ShortStatusText = Field(description="Its name, as in worst.")


class DriftStatus(StatusWire):
    """Findings of the observer. The numbers are those of the last write: when a feature starts or stops drifting, or
    with another change of the status. The observer's metrics have the current ones."""

    version: ShortStatusText = Field(description="Name of the ModelVersion with the reference sample.")
    drifted: bool = Field(description="Whether any feature has drifted.")
    at: Timestamp = Field(description="When the numbers were read, UTC.")
    worst: Annotated[tuple[DriftFigure, ...], Field(max_length=3), ListType("map", ("kind", "feature"))] = Field(
        default=(), description="The features furthest from the reference in units of their limits. At most 3."
    )
    unwatched: Annotated[tuple[UnwatchedFeature, ...], Field(max_length=16), ListType("map", ("kind", "feature"))] = (
        Field(default=(), description="Features that are free text, and not compared with the reference. At most 16.")
    )


class ChangeStatus(StatusWire):
    """Authors of changes to an object that revisions are made from, since the serving revision was made from it."""

    kind: Annotated[str, Cut(63)] = Field(
        description="Model, ModelVersion, ModelRuntime, ClusterModelRuntime or RolloutPolicy."
    )
    name: ShortStatusText = Field(description="Name of the object.")
    content: ShortStatusText = Field(description="Hash of its current content, to which approvals refer.")
    base: ShortStatusText | None = Field(
        default=None, description="The same for the serving revision; absent when unknown, or when nothing serves."
    )
    by: Annotated[tuple[ShortStatusText, ...], Field(max_length=MAX_AUTHORS), ListType("set")] = Field(
        default=(), description=f"Authors of changes since then. At most {MAX_AUTHORS}."
    )
    unknown: bool = Field(default=False, description="Whether someone unknown has changed it.")


class ModelStatus(StatusWire):
    """Observed state."""

    observed_generation: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="metadata.generation that this status is about."
    )
    url: Annotated[str, Cut(2048)] | None = Field(
        default=None,
        description="Address of the Model: through the endpoint when it is programmed, else in the cluster.",
    )
    serving: ServingStatus | None = Field(default=None, description="The revision that has the traffic.")
    target: TargetStatus | None = Field(default=None, description="The target revision.")
    rollout: RolloutStatus | None = Field(default=None, description="The move to the target revision.")
    traffic: Annotated[tuple[TrafficStatus, ...], Field(max_length=32), ListType("map", ("revision",))] = Field(
        default=(), description="The share of each revision that takes requests. At most 32."
    )
    history: Annotated[tuple[ServedStatus, ...], Field(max_length=10), ListType("map", ("revision",))] = Field(
        default=(), description="Revisions that served before, the latest first. At most 10."
    )
    runtime: RuntimeStatus | None = Field(
        default=None, description="The runtime of the target revision, and why it was chosen."
    )
    replicas: StatusInt | None = Field(default=None, description="Number of pods of the revision that serves.")
    ready_replicas: StatusInt | None = Field(
        default=None, description="Number of ready pods of the revision that serves."
    )
    selector: Annotated[str, Cut(512)] | None = Field(
        default=None,
        description="Labels of the Model's serving pods, for an autoscaler of the Model; only with "
        "spec.serving.replicas.",
    )
    failure: FailureStatus | None = Field(
        default=None, description="Problem that keeps the target revision from serving; absent when it serves."
    )
    announced: AnnouncedStatus | None = Field(
        default=None,
        description="The newest version trained since the target version; absent when there is none, and on a Model "
        "that follows.",
    )
    outdated: StatusText | None = Field(
        default=None,
        description="Changes since the serving revision was rendered (runtime, images), used by the next revision; "
        "spec.serving.restartedAt requests one. Absent when nothing has changed.",
    )
    changes: Annotated[tuple[ChangeStatus, ...], Field(max_length=8), ListType("map", ("kind",))] = Field(
        default=(),
        description="Authors of changes to the objects of the target revision since the serving one was made; their "
        "approvals do not count. Kept only with a RolloutPolicy that requires approval. At most 8.",
    )
    drift: DriftStatus | None = Field(
        default=None,
        description="Distance of requests and responses from the reference sample, with spec.monitoring; absent until "
        "the observer has enough rows.",
    )
    conditions: Conditions = Field(
        default=(),
        description="Ready, Reconciling and Stalled, as kstatus defines them, Available, and, with spec.monitoring, "
        "Monitored; with spec.rolloutPolicyRef, EvidenceAsked; with requestTimeout or filters of spec.endpoint, "
        "EndpointApplied.",
    )


class Model(Resource):
    """A stable endpoint for a machine-learning model."""

    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="models",
        short_name="mdl",
        description="A Model is a stable endpoint that serves one version of a machine-learning model.",
        columns=(
            READY_COLUMN,
            Column("Serving", ".status.serving.version", "ModelVersion that has the traffic."),
            Column("Target", ".status.target.version", "ModelVersion that spec.version selects."),
            Column("State", ".status.rollout.state", "State of the move to the target revision."),
            Column("URL", ".status.url", "Address of the Model."),
            Column("Runtime", ".status.runtime.name", "Runtime of the target revision.", wide=True),
            Column("Announced", ".status.announced.version", "Newly trained version that is not used yet.", wide=True),
            REASON_COLUMN,
            AGE_COLUMN,
        ),
        selectable_fields=(".spec.version.name", ".status.serving.version", ".status.rollout.state"),
        name_max=MODEL_NAME_MAX,
        scale=Scale(".spec.serving.replicas", ".status.replicas", ".status.selector"),
    )
    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            f"self.metadata.name.size() <= {MODEL_NAME_MAX} && "
            "self.metadata.name.matches(r'^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            f"metadata.name of a Model has at most {MODEL_NAME_MAX} characters, begins with a letter, and holds "
            "lower-case letters, digits and hyphens only: Services are named after it",
            lambda self: (
                len(self.metadata.name) <= MODEL_NAME_MAX and _MODEL_NAME.fullmatch(self.metadata.name) is not None
            ),
            ".metadata.name",
        ),
    )

    kind: str = "Model"
    spec: ModelSpec = Field(description="Desired state.")
    status: ModelStatus = Field(
        default_factory=ModelStatus, description="Observed state, and why it differs from the spec."
    )


def initial_replicas(serving: Serving) -> int:
    """Return the number of pods a new revision starts with: replicas, else minReplicas, else 1."""
    if serving.autoscaling is not None:
        return serving.autoscaling.min_replicas
    return 1 if serving.replicas is None else serving.replicas


def pod_shape(serving: Serving) -> dict[str, Any]:
    """Return the part of spec.serving that shapes pods: neither their number nor the time to wait for them."""
    how_many = {"replicas", "autoscaling", "start_timeout", "pod_template"}
    shape = serving.model_dump(mode="json", by_alias=True, exclude=how_many, exclude_defaults=True)
    if patch := pod_template_patch(serving):
        shape["podTemplate"] = patch
    return shape


def pod_template_patch(serving: Serving) -> dict[str, Any]:
    """Return spec.serving.podTemplate as a strategic merge patch in JSON form; empty when there is none."""
    patch = serving.pod_template
    if patch is None:
        return {}
    return {key: value for key, value in (("metadata", patch.metadata), ("spec", patch.spec)) if value is not None}
