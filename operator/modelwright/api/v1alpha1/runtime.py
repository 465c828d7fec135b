"""ModelRuntime and ClusterModelRuntime: how models of a format are served."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel, ListType, NamedObject
from modelwright.api.common import (
    Bool,
    Label,
    OpenObject,
    OpenWire,
    Port,
    Resource,
    Text253,
    Wire,
    changed_by_field,
    pattern_rule,
)
from modelwright.api.crd_info import AGE_COLUMN, Column, CrdInfo
from modelwright.api.v1alpha1.version import FormatName, FormatVersion

RuntimeProtocol = Literal["V2", "TensorFlow", "OpenAI", "Custom"]
VersionReport = Literal["header", "field", "none"]
PortName = Literal["http", "grpc", "metrics"]


class EnvVar(Wire):
    """An environment variable."""

    name: Annotated[
        str, StringConstraints(strict=True, min_length=1, max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
    ] = Field(description="Name of the variable.")
    value: Annotated[str, StringConstraints(strict=True, max_length=4096)] = Field(
        default="", description="Value; $(NAME) of an earlier variable is expanded by Kubernetes."
    )


class SupportedFormat(Wire):
    """A format that the runtime serves."""

    name: FormatName = Field(description="Format as ModelVersions say it: sklearn, xgboost, onnx, ...")
    versions: Annotated[tuple[FormatVersion, ...], Field(max_length=32), ListType("set")] = Field(
        default=(), description="Versions of the format it serves, at most 32. When empty, any."
    )
    priority: Annotated[int, Field(strict=True, ge=-1000, le=1000)] = Field(
        default=0, description="The higher one is chosen, -1000 to 1000; ties go by name."
    )
    auto_select: Bool = Field(default=True, description="Whether it may be chosen for a Model that names no runtime.")
    code: Bool | None = Field(
        default=None,
        description="Whether loading an artifact of this format can run code that the artifact holds, as a pickle "
        "does. When absent, it is unknown and counts as code.",
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), ListType("map", ("name",))] = Field(
        default=(),
        description="Variables added to the container for this format, at most 64; they win over the container's own.",
    )


def _ports_differ(ports: Ports) -> bool:
    numbers = [port for port in (ports.http, ports.grpc, ports.metrics) if port is not None]
    # Metrics may be served beside the model, on the same port.
    return ports.grpc is None or ports.grpc not in (ports.http, ports.metrics) or len(numbers) < 2


class Ports(Wire):
    """Ports on which the model server listens."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.grpc) || (self.grpc != self.http && (!has(self.metrics) || self.grpc != self.metrics))",
            "grpc needs a port of its own",
            _ports_differ,
            ".grpc",
        ),
    )

    http: Port = Field(description="Port for HTTP, 1 to 65535.")
    grpc: Port | None = Field(default=None, description="Port for gRPC, 1 to 65535. When absent, it has none.")
    metrics: Port | None = Field(
        default=None,
        description="Port for Prometheus metrics, 1 to 65535; may be the HTTP one. When absent, it has none.",
    )


class RuntimeContainer(OpenWire):
    """A container of core/v1."""

    name: Literal["model"] | None = Field(default=None, description="Always `model`, and may be left out.")
    image: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)] = Field(
        description="Image of the model server, best with its digest."
    )
    readiness_probe: OpenObject | None = Field(
        default=None,
        description="A probe of core/v1 that passes once the model is loaded. Not together with spec.readiness.",
    )


class HttpGet(Wire):
    """A request that is answered with 200 to 399 once the model is loaded."""

    path: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=1024),
        pattern_rule(r"^/[!-~]*$", "must begin with / and hold no blanks"),
    ] = Field(description="Path; $(MODEL_NAME) stands for the name of the Model.")
    port: PortName = Field(default="http", description="Name of the port: http, grpc or metrics.")


class Readiness(Wire):
    """Check that the model is loaded and answers."""

    http_get: HttpGet = Field(description="A request that is answered with 200 to 399 once the model is loaded.")
    period_seconds: Annotated[int, Field(strict=True, ge=1, le=3600)] = Field(
        default=2, description="Seconds between two checks, 1 to 3600."
    )
    timeout_seconds: Annotated[int, Field(strict=True, ge=1, le=3600)] = Field(
        default=2, description="Seconds after which a check fails without an answer, 1 to 3600."
    )
    failure_threshold: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        # 20 s. A busy server answers late too, and removing it moves its requests to the others, which are then even
        # busier. A container that has ended is unready at once.
        default=10,
        description="Consecutive failed checks until a pod gets no requests, 1 to 1000.",
    )


CounterSelector = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=1024),
    pattern_rule(r"^[a-zA-Z_:{][^\n]*$", 'must be a PromQL selector such as requests_total{code=~"5.."}'),
]


class RuntimeMetrics(Wire):
    """The model server's own counters, as Prometheus has them.

    Each is a plain PromQL selector. Matchers for `namespace` and `pod` are added by the operator.
    """

    requests: CounterSelector = Field(description="Counters of all inference requests, good and bad.")
    errors: CounterSelector | None = Field(
        default=None,
        description="Those of them that the server failed to answer. When absent, error-rate can't be measured here.",
    )
    latency: CounterSelector | None = Field(
        default=None,
        description="Buckets of a histogram of their durations, in seconds (..._bucket with label le). When absent, "
        "latency can't be measured here.",
    )
    in_flight: CounterSelector | None = Field(
        default=None,
        description="Gauges of the requests in flight. Verdicts show their sum; it decides nothing. When "
        "absent, verdicts leave it out.",
    )


class RuntimeVolume(OpenWire):
    """A volume of core/v1."""

    name: Label = Field(description="Name of the volume, for the container's volumeMounts.")


class RuntimeSpec(Wire):
    """Container, protocol, ports and probe for models of a format."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.protocol == 'V2' || has(self.readiness) || has(self.container.readinessProbe)",
            "spec.readiness is needed with a protocol other than V2: nothing else tells when the model is loaded",
            lambda self: (
                self.protocol == "V2" or self.readiness is not None or self.container.readiness_probe is not None
            ),
            ".readiness",
        ),
        Cel(
            "!has(self.metrics) || has(self.ports.metrics)",
            "spec.metrics needs spec.ports.metrics: without it pods aren't marked to be scraped",
            lambda self: self.metrics is None or self.ports.metrics is not None,
            ".metrics",
        ),
        Cel(
            "!(has(self.readiness) && has(self.container.readinessProbe))",
            "spec.readiness and spec.container.readinessProbe say the same thing: leave one of them out",
            lambda self: self.readiness is None or self.container.readiness_probe is None,
            ".readiness",
        ),
        Cel(
            "!has(self.readiness) || self.readiness.httpGet.port == 'http' || "
            "(self.readiness.httpGet.port == 'grpc' && has(self.ports.grpc)) || "
            "(self.readiness.httpGet.port == 'metrics' && has(self.ports.metrics))",
            "spec.readiness.httpGet.port names a port that spec.ports does not have",
            lambda self: self.readiness is None or getattr(self.ports, self.readiness.http_get.port) is not None,
            ".readiness.httpGet.port",
        ),
    )

    formats: Annotated[tuple[SupportedFormat, ...], Field(min_length=1, max_length=32), ListType("map", ("name",))] = (
        Field(description="Formats it serves, each once, 1 to 32.")
    )
    disabled: Bool = Field(
        default=False, description="Whether new revisions must not use it; running ones are not affected."
    )
    protocol: RuntimeProtocol = Field(
        description="Protocol: V2 (Open Inference Protocol), TensorFlow (REST of TensorFlow Serving), OpenAI, "
        "or Custom."
    )
    version_report: VersionReport = Field(
        default="none",
        description="Place of the version's name in a response: header (modelwright-version), field (model_version of "
        "V2), or none.",
    )
    ports: Ports = Field(description="Ports on which the model server listens.")
    model_path: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=1024),
        pattern_rule(
            r"^(/([A-Za-z0-9_-]|\$\(MODEL_NAME\))([A-Za-z0-9._-]|\$\(MODEL_NAME\))*)+$",
            "must be an absolute path such as /mnt/models; $(MODEL_NAME) stands for the name of the Model",
        ),
    ] = Field(
        default="/mnt/models",
        description="Mount path of the artifact, read-only; $(MODEL_NAME) stands for the Model's name.",
    )
    container: Annotated[RuntimeContainer, NamedObject("Container")] = Field(
        description="The container of the model server, a Container of core/v1. Its environment begins with "
        "MODEL_NAME, MODEL_NAMESPACE, MODEL_VERSION, MODEL_REVISION, MODEL_FORMAT, MODEL_DIR, MODEL_HTTP_PORT, "
        "MODEL_GRPC_PORT and MODEL_METRICS_PORT, so that command, args and env can use $(MODEL_DIR) and the like."
    )
    volumes: Annotated[
        tuple[RuntimeVolume, ...], Field(max_length=16), ListType("map", ("name",)), NamedObject("Volumes")
    ] = Field(default=(), description="Further volumes of the pod, of core/v1, at most 16.")
    readiness: Readiness | None = Field(
        default=None,
        description="Check that the model is loaded. When absent, with V2: /v2/models/$(MODEL_NAME)/ready on http.",
    )
    metrics: RuntimeMetrics | None = Field(
        default=None,
        description="The server's own counters, for builtin metrics of a RolloutPolicy where no gateway counts. They "
        "must be scraped with the labels namespace and pod.",
    )

    changed_by: Text253 | None = changed_by_field("anything else of spec")

    @property
    def effective_readiness(self) -> Readiness | None:
        """The readiness to probe, with the default of V2; None when the container has its own probe."""
        if self.readiness is not None or self.container.readiness_probe is not None:
            return self.readiness
        return Readiness(http_get=HttpGet(path="/v2/models/$(MODEL_NAME)/ready"))

    def find_format(self, name: str) -> SupportedFormat | None:
        """Return the entry for the format `name`, if it is listed."""
        return next((entry for entry in self.formats if entry.name == name), None)

    def container_manifest(self) -> dict[str, Any]:
        """Return the container in JSON form, a Container of core/v1 without its name."""
        container = self.container.wire()
        container.pop("name", None)
        return container


_COLUMNS = (
    Column("Format", ".spec.formats[0].name", "The first of the formats it serves."),
    Column("Protocol", ".spec.protocol", "Protocol of the server."),
    Column("Disabled", ".spec.disabled", "Whether new revisions must not use it.", type="boolean"),
    Column("Image", ".spec.container.image", "Image of the model server.", wide=True),
    AGE_COLUMN,
)


class ModelRuntime(Resource):
    """A runtime for models of a format in one namespace."""

    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="modelruntimes",
        short_name="mrt",
        description="A ModelRuntime serves models of a format in its namespace: it defines container, protocol, "
        "ports, probe.",
        columns=_COLUMNS,
    )

    kind: str = "ModelRuntime"
    spec: RuntimeSpec = Field(description="Container, protocol, ports and probe for models of a format.")


class ClusterModelRuntime(Resource):
    """A runtime for models of a format in every namespace."""

    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="clustermodelruntimes",
        short_name="cmrt",
        description="A ClusterModelRuntime serves models of a format in every namespace: it defines container, "
        "protocol, ports, probe. A ModelRuntime of the namespace takes precedence.",
        columns=_COLUMNS,
        namespaced=False,
    )

    kind: str = "ClusterModelRuntime"
    spec: RuntimeSpec = Field(description="Container, protocol, ports and probe for models of a format.")


AnyRuntime = ModelRuntime | ClusterModelRuntime
