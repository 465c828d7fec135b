"""Renders the Jobs that examine a candidate before it gets any caller's request: the scan of its artifact, the prober
of the infra gate, and the evaluation by the policy's author."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.common import parse_duration
from modelwright.api.v1alpha1.helper_pods import ROLE_EVALUATION, ROLE_INFRA, ROLE_SCAN
from modelwright.api.v1alpha1.policy import EvaluationGate, EvaluationMetric, InfraGate, ScanGate
from modelwright.api.v1alpha1.version import Artifact, Sample
from modelwright.core.analysis import report_figures
from modelwright.core.diff import parse_quantity
from modelwright.core.revision import Revision
from modelwright.render import fetch_container, helper_pod_placement, user_pod_template
from modelwright.render.child_metadata import owner_reference
from modelwright.render.images import Images
from modelwright.render.strategic_merge import MergeError

Json = dict[str, Any]

CANDIDATE_DIR = "/mnt/modelwright/candidate"
SERVING_DIR = "/mnt/modelwright/serving"
TEMPLATE_PATH = "spec.gates.evaluation.template"

SAMPLES_BYTES = 1 << 20
"""Most bytes of a version's samples, as JSON, that are sent to a candidate: a container's environment surely holds
them."""
_VARIABLE_BYTES = 100_000
"""Bytes of one variable: Linux accepts no string longer than 128 KiB in a process' environment."""

_POD_START_SECONDS = 120
"""Time to schedule the prober and pull its image; the prober itself observes the gate's timeout."""
_PROBE_TRIES = 2
_PROGRAMS = {"check": "prober", "scan": "scanner"}
"""The module in modelwright.agents that each container of ours runs."""


@dataclass(frozen=True, slots=True)
class EvaluatedContent:
    """A version's artifact as input of the evaluation."""

    version: str
    artifact: Artifact
    digest: str
    cached: fetch_container.CachedContent | None = None
    """Its place in a shared cache, for pods that may not fetch it."""


def job_name(rollout: Json, gate: str) -> str:
    """Return the name of the Job for this gate of this very rollout: at most 63 characters, as it labels its pods."""
    name, uid = rollout["metadata"]["name"], rollout["metadata"]["uid"]
    return names.cut_with_hash(f"{name}-{gate}", names.LABEL_VALUE_MAX, name, uid, gate)


@dataclass(frozen=True, slots=True)
class ProbedCandidate:
    """The candidate as the prober reaches it."""

    revision: Revision
    stored: Json
    """Its ControllerRevision."""
    protocol: str
    """The inference protocol of its runtime."""
    request_seconds: int
    """How long one response may take."""
    service_account: str | None = None
    """ServiceAccount whose image pull secrets the prober's pod uses; it has no rights."""
    pods: Sequence[str] = ()
    """Addresses of its pods, whose memory is measured when there is a budget."""


def infra_job(
    rollout: Json, gate: InfraGate, candidate: ProbedCandidate, samples: Sequence[Sample], images: Images
) -> Json:
    """Render the Job that sends the version's samples to the candidate's own Service.

    Raises MergeError for samples that are too large for the environment of its container.
    """
    model, namespace = rollout["spec"]["modelRef"]["name"], rollout["metadata"]["namespace"]
    budget = parse_duration(gate.timeout)
    environment = {
        "URL": f"http://{names.revision_name(model, candidate.revision.hash)}.{namespace}.svc",
        "MODEL_NAME": model,
        "PROTOCOL": candidate.protocol,
        "REPEATS": str(gate.repeats),
        "TIMEOUT_SECONDS": f"{budget:g}",
        "REQUEST_SECONDS": str(candidate.request_seconds),
        **({"READINESS_PATH": path} if (path := _service_readiness_path(candidate.stored)) else {}),
        **_sample_variables(samples),
    }
    if gate.latency is not None:
        environment["LATENCY_PERCENTILE"] = gate.latency.percentile
        environment["LATENCY_SECONDS"] = f"{parse_duration(gate.latency.max):g}"
    if gate.memory is not None:
        environment["MEMORY_BYTES"] = f"{parse_quantity(gate.memory):.0f}"
        environment["METRICS_URLS"] = ",".join(_metrics_urls(candidate.stored, candidate.pods))
    container = _own_container("check", ROLE_INFRA, environment, {"cpu": "100m", "memory": "64Mi"}, "256Mi", images)
    template = {
        "metadata": {},
        "spec": {**user_pod_template.default_pod_spec(images, candidate.service_account), "containers": [container]},
    }
    limits = _JobLimits(_PROBE_TRIES, math.ceil(budget) + _POD_START_SECONDS)
    return _gate_job(rollout, ROLE_INFRA, candidate.revision, template, limits, images)


def scan_job(rollout: Json, gate: ScanGate, candidate: Revision, content: EvaluatedContent, images: Images) -> Json:
    """Render the Job that scans the candidate's artifact without loading it."""
    fetched = fetch_container.fetch_contents(
        {"candidate": (content.artifact, content.digest, CANDIDATE_DIR)}, images, ROLE_SCAN
    )
    environment = {
        "CANDIDATE_DIR": CANDIDATE_DIR,
        "ALLOWED_GLOBALS": _format_list(gate.allow.globals),
        "ALLOWED_FILES": _format_list(gate.allow.files),
    }
    container = _own_container("scan", ROLE_SCAN, environment, {"cpu": "100m", "memory": "128Mi"}, "2Gi", images)
    spec = {
        **user_pod_template.default_pod_spec(images, content.artifact.service_account_name),
        "initContainers": fetched.containers,
        "containers": [{**container, "volumeMounts": fetched.mounts}],
        "volumes": fetched.volumes,
    }
    limits = _JobLimits(_PROBE_TRIES, math.ceil(parse_duration(gate.timeout)))
    return _gate_job(rollout, ROLE_SCAN, candidate, {"metadata": {}, "spec": spec}, limits, images)


def evaluation_job(
    rollout: Json,
    gate: EvaluationGate,
    candidate: Revision,
    candidate_content: EvaluatedContent,
    serving: EvaluatedContent | None,
    images: Images,
    *,
    service_account: str | None = None,
) -> Json:
    """Render the Job of the policy's author, with the artifacts of the candidate and the serving version (None: none
    serves yet).

    The author's pod template is kept; init containers that fetch the artifacts precede it, and each container gets the
    variables and the two directories. Security contexts default to the restricted Pod Security Standard.
    `service_account`: the ServiceAccount that the Model serves as, where it differs from the one that fetches: only it
    may load a model. Raises MergeError, naming the field, for a template without containers.
    """
    model = rollout["spec"]["modelRef"]["name"]
    environment = {
        "MODEL_NAME": model,
        "CANDIDATE_DIR": CANDIDATE_DIR,
        "CANDIDATE_VERSION": candidate_content.version,
        "CANDIDATE_FORMAT": candidate_content.artifact.format.name,
        "GATED_FIGURES": format_gated_figures(gate.metrics),
    }
    contents: dict[str, tuple[fetch_container.FetchSource, str | None, str]] = {
        "candidate": (candidate_content.artifact, candidate_content.digest, CANDIDATE_DIR)
    }
    if serving is not None:
        environment |= {
            "SERVING_DIR": SERVING_DIR,
            "SERVING_VERSION": serving.version,
            "SERVING_FORMAT": serving.artifact.format.name,
        }
        contents["serving"] = (serving.artifact, serving.digest, SERVING_DIR)
    parts = {"candidate": candidate_content, "serving": serving}
    cached = {
        name: content.cached for name, content in parts.items() if content is not None and content.cached is not None
    }
    base = user_pod_template.default_pod_spec(
        images, service_account or candidate_content.artifact.service_account_name
    )
    fetched = fetch_container.fetch_contents(contents, images, ROLE_EVALUATION, cached)
    spec = user_pod_template.merge_pod_spec(gate.template, TEMPLATE_PATH, base, environment, fetched)
    template = {**gate.template, "spec": spec}
    limits = _JobLimits(gate.backoff_limit, math.ceil(parse_duration(gate.timeout)))
    return _gate_job(rollout, ROLE_EVALUATION, candidate, template, limits, images, gate.template.get("spec"))


def _own_container(
    name: str, role: str, environment: Mapping[str, str], requests: Mapping[str, str], memory: str, images: Images
) -> Json:
    """Render the container of one of our programs; `memory` is its limit."""
    return {
        "name": name,
        "image": images.operator,
        **_pull_policy(images),
        "command": ["python", "-m", f"modelwright.agents.{_PROGRAMS[name]}"],
        "env": user_pod_template.render_variables(environment),
        "resources": helper_pod_placement.container_resources(
            {"requests": dict(requests), "limits": {"memory": memory}}, images, role
        ),
        "securityContext": fetch_container.restricted_container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _format_list(texts: Sequence[str]) -> str:
    # No dollar is left in it: Kubernetes would expand $(NAME).
    return json.dumps(texts).replace("$", "\\u0024")


def format_gated_figures(metrics: Sequence[EvaluationMetric]) -> str:
    """Format the figures that a report must contain, as JSON: [{"name", "slice"?}]."""
    required = [
        {"name": m.name, **({"slice": part} if part is not None else {})}
        for m, part in report_figures.list_gated_figures(metrics)
    ]
    # No dollar is left in it: Kubernetes would expand $(NAME).
    return json.dumps(required, ensure_ascii=False, separators=(",", ":")).replace("$", "\\u0024")


@dataclass(frozen=True, slots=True)
class _JobLimits:
    retries: int
    seconds: int


def _gate_job(
    rollout: Json,
    gate: str,
    candidate: Revision,
    template: Json,
    limits: _JobLimits,
    images: Images,
    authored_spec: Json | None = None,
) -> Json:
    metadata = rollout["metadata"]
    # Without the revision's label: Deployment, Service and budget of the candidate select by it.
    labels = names.child_labels(
        role=names.ROLE_GATE, model=rollout["spec"]["modelRef"]["name"], version=candidate.version
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(rollout, gate),
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {names.ANNOTATION_VERSION_NAME: candidate.version},
            "ownerReferences": [owner_reference(rollout)],
        },
        "spec": {
            "backoffLimit": limits.retries,
            "activeDeadlineSeconds": limits.seconds,
            "template": helper_pod_placement.place_template(
                user_pod_template.merge_metadata(template, TEMPLATE_PATH, labels),
                template["spec"],
                images,
                gate,
                authored_spec,
            ),
        },
    }


def _pull_policy(images: Images) -> Json:
    return {"imagePullPolicy": images.pull_policy} if images.pull_policy else {}


def _sample_variables(samples: Sequence[Sample]) -> dict[str, str]:
    """Split one JSON list of samples into SAMPLES_0, SAMPLES_1, ... Dollars are escaped, as Kubernetes would expand
    $(NAME)."""
    if not samples:
        return {}
    text = json.dumps([sample.wire() for sample in samples], ensure_ascii=False, separators=(",", ":"))
    data = text.replace("$", "\\u0024").encode()
    if len(data) > SAMPLES_BYTES:
        raise MergeError(f"spec.samples: they take {len(data)} bytes; the infra gate sends at most {SAMPLES_BYTES}")
    parts, start = [], 0
    while start < len(data):
        end = min(start + _VARIABLE_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(data[start:end].decode())
        start = end
    return {f"SAMPLES_{number}": part for number, part in enumerate(parts)}


def _service_readiness_path(stored: Json) -> str | None:
    """Return the HTTP path on the Service's port that reports a loaded model; None when the probe uses another port."""
    data = stored["data"]
    for container in data["template"]["spec"]["containers"]:
        port = container.get("readinessProbe", {}).get("httpGet", {}).get("port")
        if container["name"] == names.MODEL_CONTAINER and port in ("http", data["ports"]["http"]):
            path = data.get("readinessPath")
            return path if isinstance(path, str) else None
    return None


def _metrics_urls(stored: Json, pods: Sequence[str]) -> list[str]:
    port = stored["data"]["ports"].get("metrics")
    hosts = (f"[{address}]" if ":" in address else address for address in pods)
    return [f"http://{host}:{port}/metrics" for host in hosts] if port is not None else []
