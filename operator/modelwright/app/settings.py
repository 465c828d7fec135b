"""The operator's settings, read from environment variables MODELWRIGHT_*."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from modelwright.api.common import HOSTNAME, list_problems
from modelwright.api.names import OPERATOR_LEASE, OPERATOR_NAMESPACE
from modelwright.api.v1alpha1.helper_pods import HelperPods, variable_problem
from modelwright.core.sharding import DEFAULT_SHARD
from modelwright.kube.kinds import Kind
from modelwright.render.images import INSTANCE_CREDENTIALS

PREFIX = "MODELWRIGHT_"

FORBIDDEN_GROUPS = frozenset(
    {"", "modelwright.dev", "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io"}
)
"""API groups whose objects a training may never create; the chart and manifests/policies/rights.yaml refuse the
same."""

DEFAULT_FETCH_ENV = {INSTANCE_CREDENTIALS: "false"}

_SHARD_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_HOSTNAME_PATTERN = re.compile(HOSTNAME.removeprefix("^").removesuffix("$"))
_KIND_PATTERNS = {
    "group": re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"),
    "version": re.compile(r"v[0-9]+((alpha|beta)[0-9]+)?"),
    "kind": re.compile(r"[A-Z][A-Za-z0-9]{0,62}"),
    "plural": re.compile(r"[a-z][a-z0-9]{0,62}"),
}


class InvalidSettings(ValueError):
    """A setting is wrong; the message names the environment variable."""


class Settings(BaseModel):
    """Each field `x_y` is read from `MODELWRIGHT_X_Y`. Durations are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = Field(OPERATOR_NAMESPACE, min_length=1, description="Where the operator and its Lease live.")
    watch_namespaces: tuple[str, ...] = Field(
        (), description="Comma-separated; empty watches the whole cluster. Then ClusterModelRuntimes are read as well."
    )
    shard: str = Field(
        "",
        description="Name of the shard whose namespaces this operator works on: those with the label "
        "modelwright.dev/shard; `default` has those without it. Empty: the whole cluster, without shards.",
    )
    instance: str = Field(
        default_factory=lambda: os.environ.get("HOSTNAME", "modelwright"),
        min_length=1,
        description="Who holds the Lease; the pod's name. Each process adds something of its own.",
    )
    pod_ip: str = Field(
        "",
        description="Address of this replica for the others: a standby forwards webhooks to the leader. Empty: none.",
    )
    pod_uid: str = Field(
        "",
        description="By it a Lease held by an earlier container of this pod is known to be free. Empty: unknown.",
    )
    fetch_image: str = Field("modelwright/fetch", min_length=1, description="Image of the fetch init container.")
    fetch_env: dict[str, str] = Field(
        default_factory=lambda: dict(DEFAULT_FETCH_ENV),
        description="Environment of fetch containers, a JSON object of strings; it takes precedence over an author's "
        f"podTemplate. {INSTANCE_CREDENTIALS} is false unless it is named here.",
    )
    helper_pods: HelperPods = Field(
        default_factory=HelperPods,
        description="Where pods beside the serving ones run and how large they are, a JSON object: labels, "
        "annotations, nodeSelector, tolerations, affinity, priorityClassName, imagePullSecrets, resources, env, and "
        "roles with the same for one role each.",
    )
    pod_security: Literal["Fixed", "Platform"] = Field(
        "Fixed",
        description="Fixed: pods run as user and group 65532. Platform: users and groups are left out, for platforms "
        "that give each namespace its own, as OpenShift does.",
    )
    operator_image: str = Field(
        "modelwright/operator", min_length=1, description="The operator's own image, for comparers and infra gates."
    )
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        "", description="imagePullPolicy of our containers in other pods; empty is Kubernetes' own default."
    )
    connections_file: str = Field(
        "", description="YAML file with the connections to metrics servers that policies name; empty for none."
    )
    gateway_probe: Literal["Required", "Off"] = Field(
        "Required",
        description="Whether a route counts as programmed only once a probe through the gateway is answered.",
    )
    copy_token: Literal["Required", "Off"] = Field(
        "Required",
        description="Whether comparers and observers count only copies with the token that the Model's route sets.",
    )
    resolve_pods: Annotated[int, Field(ge=2, le=1000)] = Field(
        10, description="Pods at once, in a namespace, that find out digests and verify signatures; others wait."
    )
    training_kinds: tuple[Kind, ...] = Field(
        (),
        description="Kinds that a stage of a training may have made by `resource`: a JSON list of group, version, kind "
        "and plural. The operator needs the rights for them; the chart gives both.",
    )
    hostnames: tuple[str, ...] = Field(
        (),
        description="Comma-separated hostnames that endpoints may have; {namespace} stands for the Model's, and * at "
        "the beginning for any names there. Empty: any.",
    )
    # Enough for 500 Models to come up within half a minute; the API server's own fairness does the rest.
    qps: Annotated[float, Field(gt=0, le=1000)] = 200.0
    burst: Annotated[int, Field(ge=1, le=10000)] = 400
    workers: Annotated[int, Field(ge=1, le=64)] = 16
    settle_seconds: Annotated[float, Field(ge=0, le=600)] = 5.0
    sweep_seconds: Annotated[float, Field(ge=1)] = 600.0
    discovery_seconds: Annotated[float, Field(ge=1)] = 60.0
    sweep_grace_seconds: Annotated[float, Field(ge=0)] = 120.0
    http_host: str = ""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    webhook_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8090, description="Webhook triggers are taken here, apart from probes and metrics. The same in all replicas."
    )
    webhook_tokens: Literal["Own", "Any"] = Field(
        "Any",
        description="Own: tokens of webhooks must be made for the audience modelwright.dev. Any: tokens for the API "
        "server are taken as well, in this release.",
    )
    metrics_authentication: Literal["Required", "Off"] = Field(
        "Required",
        description="Whether /metrics requires a token of a user who may get the path /metrics.",
    )
    tls_folder: str = Field(
        "",
        description="Folder with tls.crt and tls.key, as of a Secret; read again when they change. With it, all ports "
        "speak TLS. Empty: plain HTTP.",
    )
    tls_name: str = Field(
        "", description="The name in that certificate by which a standby knows the leader. Empty: the Service's."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    lease_name: str = Field(OPERATOR_LEASE, min_length=1)
    lease_seconds: Annotated[float, Field(ge=3)] = 15.0
    lease_renew_seconds: Annotated[float, Field(ge=2)] = 10.0
    lease_retry_seconds: Annotated[float, Field(gt=0)] = 2.0
    warm_standby: bool = Field(False, description="Whether a standby watches too, so that it takes over sooner.")
    crd_wait_seconds: Annotated[float, Field(ge=0)] = 60.0
    shutdown_seconds: Annotated[float, Field(ge=0)] = 25.0

    @field_validator("watch_namespaces", "hostnames", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("hostnames")
    @classmethod
    def _check_hostnames(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if pattern != "*" and not _HOSTNAME_PATTERN.fullmatch(pattern.replace("{namespace}", "n")):
                raise ValueError(f"{pattern!r} is no hostname such as {{namespace}}.models.example.com")
        return value

    @field_validator("training_kinds", mode="before")
    @classmethod
    def _parse_kinds(cls, value: Any) -> Any:
        return _read_kinds(value) if isinstance(value, str) else value

    @field_validator("fetch_env", mode="before")
    @classmethod
    def _parse_fetch_env(cls, value: Any) -> Any:
        return _read_fetch_env(value) if isinstance(value, str) else value

    @field_validator("helper_pods", mode="before")
    @classmethod
    def _parse_helper_pods(cls, value: Any) -> Any:
        return _read_helper_pods(value) if isinstance(value, str) else value

    @property
    def address(self) -> str:
        """host:port of this process's HTTP server for the other replicas; empty when unknown."""
        if not self.pod_ip:
            return ""
        return f"[{self.pod_ip}]:{self.http_port}" if ":" in self.pod_ip else f"{self.pod_ip}:{self.http_port}"

    @property
    def scheme(self) -> str:
        """URL scheme of this process's servers and those of the other replicas."""
        return "https" if self.tls_folder else "http"

    @property
    def server_name(self) -> str:
        """The name that a standby expects in the leader's certificate."""
        return self.tls_name or f"modelwright.{self.namespace}.svc"

    def webhooks_url(self, address: str | None) -> str | None:
        """Return the webhook URL of the replica with this `address`."""
        return None if address is None else f"{self.scheme}://{address.rpartition(':')[0]}:{self.webhook_port}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; raises InvalidSettings naming every variable that is wrong.

        Unknown variables are ignored: Kubernetes sets some of that prefix when a Service is named modelwright.
        """
        env = os.environ if environ is None else environ
        variables = {k.removeprefix(PREFIX).lower(): v for k, v in env.items() if k.startswith(PREFIX)}
        values = {k: v for k, v in variables.items() if k in cls.model_fields}
        if (values.get("shard") or DEFAULT_SHARD) != DEFAULT_SHARD:
            # Shard `default` shares the Lease of an operator without shards: one takes over from the other.
            values.setdefault("lease_name", f"{OPERATOR_LEASE}-{values['shard']}")
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            lines = [f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            raise InvalidSettings("; ".join(lines)) from None
        if settings.shard and not _SHARD_PATTERN.fullmatch(settings.shard):
            raise InvalidSettings(
                f"{PREFIX}SHARD: {settings.shard!r}: at most 40 lower-case letters, digits and dashes"
            )
        if settings.shard and settings.watch_namespaces:
            raise InvalidSettings(f"{PREFIX}SHARD and {PREFIX}WATCH_NAMESPACES can't be set both")
        if not settings.lease_retry_seconds < settings.lease_renew_seconds < settings.lease_seconds:
            raise InvalidSettings(
                f"{PREFIX}LEASE_RETRY_SECONDS < {PREFIX}LEASE_RENEW_SECONDS < {PREFIX}LEASE_SECONDS must hold"
            )
        return settings


def _read_fetch_env(text: str) -> dict[str, str]:
    """Parse the environment in a JSON object, over the default one; raises ValueError naming the error."""
    try:
        parsed = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(parsed, dict) or not all(isinstance(value, str) for value in parsed.values()):
        raise ValueError(f'must be a JSON object of texts, such as {{"{INSTANCE_CREDENTIALS}": "true"}}')
    for name in parsed:
        if (problem := variable_problem(name)) is not None:
            raise ValueError(problem)
    return {**DEFAULT_FETCH_ENV, **parsed}


def _read_helper_pods(text: str) -> HelperPods:
    """Parse helper pods from a JSON object; raises ValueError naming each wrong member."""
    try:
        parsed = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    try:
        helper_pods = HelperPods.model_validate(parsed, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ValueError("; ".join(f"{path}: {message}" for path, message in list_problems(error))) from None
    for field, pods in (("env", helper_pods), *((f"roles.{role}.env", pods) for role, pods in helper_pods.roles)):
        for name in pods.env:
            if (problem := variable_problem(name)) is not None:
                raise ValueError(f"{field}: {problem}")
    return helper_pods


def _read_kinds(text: str) -> tuple[Kind, ...]:
    """Parse kinds from a JSON list; raises ValueError naming the wrong entry and its error."""
    try:
        entries = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(entries, list):
        raise ValueError('must be a JSON list, such as [{"group": ..., "version": ..., "kind": ..., "plural": ...}]')
    kinds: dict[tuple[str, str], Kind] = {}
    for number, entry in enumerate(entries):
        kind = _read_kind(f"entry {number + 1}", entry)
        if (kind.group, kind.kind) in kinds:
            raise ValueError(f"entry {number + 1}: {kind.kind} of {kind.group} is listed twice")
        kinds[kind.group, kind.kind] = kind
    return tuple(kinds.values())


def _read_kind(where: str, entry: Any) -> Kind:
    if not isinstance(entry, dict) or set(entry) != set(_KIND_PATTERNS):
        raise ValueError(f"{where}: needs group, version, kind and plural, and nothing else")
    if isinstance(entry["group"], str) and entry["group"] in FORBIDDEN_GROUPS:
        raise ValueError(
            f"{where}: {entry['kind']} of {entry['group'] or 'the core group'} is never created: core kinds, "
            "rights, admission, definitions of kinds and the kinds of modelwright.dev are not allowed"
        )
    for name, pattern in _KIND_PATTERNS.items():
        if not isinstance(entry[name], str) or not pattern.fullmatch(entry[name]):
            raise ValueError(f"{where}: {name} {entry[name]!r} is none")
    return Kind(entry["group"], entry["version"], entry["plural"], entry["kind"], optional=True)
