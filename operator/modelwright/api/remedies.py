"""The remedy for each reason that stands for a problem: a command to run or a field to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelwright.api.reasons import Reason as R

_READ_LOG = "read the operator's log (kubectl logs -n modelwright-system deploy/modelwright) and report it"
_CORRECT_CONNECTION = "correct `connections` of the operator's chart"
_CHECK_STORE = "check spec.artifact.uri and what it names in the store"
_ADJUST_RESOURCES = "set spec.serving.resources or helperPods.resources within what the namespace allows, or raise that"

REMEDIES: Final[Mapping[R, str]] = {
    # Missing objects and wrong names
    R.VERSION_NOT_FOUND: "apply the ModelVersion, or name another one in spec.version.name",
    R.WAITING_FOR_VERSION: "apply the ModelVersion, or name another one in spec.version.name",
    R.VERSION_OF_ANOTHER_MODEL: "name a version of this Model in spec.version.name, or set modelRef of a new one",
    R.WAITING_FOR_MODEL: "apply the Model, or name another one in spec.modelRef.name",
    R.POLICY_NOT_FOUND: "apply the named policy, or name another one",
    R.WAITING_FOR_POLICY: "apply the named policy, or name another one",
    R.RUNTIME_NOT_FOUND: "apply the runtime, or name another one in spec.serving.runtimeRef",
    R.WAITING_FOR_RUNTIME: "apply the runtime, or name another one in spec.serving.runtimeRef",
    R.RUNTIME_DISABLED: "set spec.disabled of the runtime to false, or name another one in spec.serving.runtimeRef",
    R.RUNTIME_DOES_NOT_SUPPORT_FORMAT: "name another runtime in spec.serving.runtimeRef, or leave it out",
    R.NO_SUPPORTING_RUNTIME: "install a runtime for the format (chart: runtimes.enabled), or correct the format",
    R.NAME_TAKEN: "delete or rename the object that the message names, or rename this one",
    R.CHILD_TOO_LARGE: "shorten the part that the message names",
    R.INVALID_SPEC: "correct the field that the message names; kubectl modelwright lint FILE names its line",
    R.INVALID_POLICY: "correct the field that the message names; kubectl modelwright lint FILE names its line",
    R.INVALID_POD_TEMPLATE: "correct the field of spec.serving.podTemplate or of the runtime that the message names",
    R.POLICY_NOT_SUPPORTED: "change the field that the message names, or use a gateway whose class has the feature",
    R.NEVER_DECIDABLE: "change the named fields; kubectl modelwright lint FILE says what would be decidable",
    R.NEEDS_MORE_REQUESTS: "widen the margin or lengthen the hold or deadline, as the message says",
    R.PROMOTES_BY_TIME_ALONE: "give the RolloutPolicy an analysis, a gate or an approval",
    R.ADMISSION_POLICY_MISSING: "install the chart modelwright-crds, or kubectl apply -k manifests/policies",
    R.RESOLVE_POD_CHANGED: "exempt the pod from the webhook, for example by labels in the chart's helperPods.labels",
    R.KIND_NOT_ALLOWED: "add the kind to training.kinds of the operator's chart",
    R.KIND_NOT_INSTALLED: "install the controller of the kind",
    R.INTERNAL_ERROR: _READ_LOG,
    # The endpoint
    R.ROUTE_CONFLICT: "choose another hostname or pathPrefix in spec.endpoint",
    R.HOSTNAME_NOT_ALLOWED: "choose a hostname that the chart's settings.hostnames allows, or add yours to it",
    R.ROUTE_NOT_ACCEPTED: "change the listener (hostname, allowedRoutes), or parentRefs and hostnames of spec.endpoint",
    R.WAITING_FOR_ROUTE: "check that the gateway's controller runs and the Gateway is programmed",
    R.ROUTE_NOT_PROGRAMMED: "check the gateway as the message says; spec.endpoint.proof: Status skips the probe",
    R.GATEWAY_API_MISSING: "install the Gateway API's CRDs and a gateway, or remove spec.endpoint",
    R.ENDPOINT_NOT_SUPPORTED: "remove the field that the message names, or use a gateway whose class has the feature",
    R.PROTOCOL_NOT_SUPPORTED: "set spec.endpoint.protocol to HTTP, or use a runtime with ports.grpc",
    R.MONITORING_NOT_SUPPORTED: "remove spec.monitoring, or use a gateway whose class has the feature",
    R.NO_REFERENCE: "serve a version with a spec.reference",
    R.WAITING_FOR_OBSERVER: "check the observer's pod: kubectl get pods -l modelwright.dev/role=observer",
    # Pods
    R.PODS_FORBIDDEN: "change the pods as the message says, or the namespace's Pod Security level or policy",
    R.QUOTA_EXCEEDED: _ADJUST_RESOURCES,
    R.IMAGE_PULL_FAILED: "correct the image, or give the pods an imagePullSecret; mirror it where there is no registry",
    R.MODEL_LOAD_FAILED: "read the model server's log: kubectl logs POD -c model; spec.artifact.path names a part",
    R.CONTAINER_CONFIG_ERROR: "create the Secret or ConfigMap that the message names",
    R.CONTAINER_OOM_KILLED: "raise spec.serving.resources.limits.memory",
    R.UNSCHEDULABLE: "lower spec.serving.resources, add tolerations or a nodeSelector, or add nodes",
    R.START_TIMEOUT: "check why its pods are not ready, or raise spec.serving.startTimeout",
    R.NO_READY_PODS: "check why its pods are not ready: kubectl get pods -l modelwright.dev/role=serving",
    R.WAITING_FOR_PODS: "check why its pods are not ready: kubectl get pods -l modelwright.dev/role=serving",
    R.RESOLVE_POD_LOST: "prevent others from deleting the operator's pods",
    # Artifacts
    R.SIGNATURE_MISSING: "sign the artifact, or remove spec.signatures of the Model",
    R.SIGNATURE_INVALID: "sign the artifact with a key of spec.signatures, or add the key that has signed it",
    R.ARTIFACT_NOT_FOUND: _CHECK_STORE,
    R.ACCESS_DENIED: "check the keys of the Secret in credentialsSecretRef, or the ServiceAccount's role",
    R.STORE_UNREACHABLE: "check AWS_ENDPOINT_URL and the like in the Secret, network policies, and HTTPS_PROXY",
    R.DOWNLOAD_STALLED: "check the network to the store; the download is retried",
    R.DIGEST_MISMATCH: "publish the content at a new address and create a ModelVersion for it",
    R.UNSAFE_ARCHIVE: "pack the archive without entries that leave its directory; spec.artifact.path selects a part",
    R.ARTIFACT_TOO_LARGE: "raise MODELWRIGHT_FETCH_MAX_BYTES in fetch.env of the chart, or leave files out",
    R.INVALID_URI: "correct spec.artifact.uri, as the message says",
    R.DISK_FULL: "raise the ephemeral-storage limit, or the size of the cache's claim",
    R.NOT_CACHED: "check whether the pod that fills the cache failed: kubectl get pods -l modelwright.dev/role=resolve",
    R.WAITING_FOR_DIGEST: "check the resolve pod: kubectl get pods -l modelwright.dev/role=resolve",
    R.WAITING_FOR_CACHE: "check the pod that fills the cache: kubectl get pods -l modelwright.dev/role=resolve",
    R.WAITING_FOR_SIGNATURE: "check the resolve pod: kubectl get pods -l modelwright.dev/role=resolve",
    # Measuring
    R.ANALYSIS_ERROR: "kubectl modelwright why MODEL names the metric and its error",
    R.METRICS_SERVER_UNREACHABLE: f"{_CORRECT_CONNECTION} (url, caFile), or let the operator reach it in "
    "network policies",
    R.METRICS_SERVER_TIMEOUT: f"check why the server is slow, or raise the connection's timeout; {_CORRECT_CONNECTION}",
    R.METRICS_SERVER_ERROR: "check the metrics server's log",
    R.METRICS_ACCESS_DENIED: f"{_CORRECT_CONNECTION}: its credentials (bearerTokenFile, basicAuth, oauth2, "
    "headerFiles)",
    R.METRICS_ANSWER_INVALID: f"{_CORRECT_CONNECTION}: url must be that of an API like Prometheus'",
    R.METRICS_ANSWER_TOO_LARGE: "make the query return fewer series",
    R.METRICS_STALE: "make Prometheus scrape the pods: see its targets page",
    R.QUERY_REFUSED: "correct the query of the metric",
    R.QUERY_FAILED: "correct the query of the metric, or check the metrics server's log",
    R.CONNECTION_UNKNOWN: "add the connection to `connections` of the operator's chart, or name another in `provider`",
    R.CREDENTIALS_UNREADABLE: "name the Secret in connectionSecrets of the operator's chart, and check the file's name",
    R.METRIC_SOURCE_MISSING: "give the runtime spec.metrics, or the metric a query of its own",
    R.LATENCY_THRESHOLD_NOT_A_BUCKET: "set threshold to one of the boundaries that the message names",
    R.METRIC_JOB_FAILED: "check the log of the metric's Job",
    R.COMPARER_UNREACHABLE: "let the operator reach pods with modelwright.dev/role=comparer on port 8080",
    R.COPIES_WITHOUT_TOKEN: "set settings.copyToken: Off in the chart where the gateway's copies lose headers",
    R.NO_DATA: "make Prometheus scrape the Model's pods, with the labels namespace and pod; see its targets page",
    R.NO_SERVING_DATA: "make Prometheus scrape the serving pods, with the labels namespace and pod",
    R.BAD_SELECTOR_MATCHES_NOTHING: "correct `bad` of the metric",
    R.MORE_BAD_THAN_ALL: "make `bad` count a part of what `total` counts",
    R.TARGET_SCRAPED_TWICE: "use a single scrape job for the pods of Models",
    R.VALUE_WITHOUT_DATA: "remove `or vector(0)` and the like from the query",
    R.OVERDISPERSED: "set `burst` of the metric",
    R.INSUFFICIENT_SAMPLES: "wait for more requests, or lower minSamples",
    R.INSUFFICIENT_EVIDENCE: "wait for more requests, or widen the margin",
    R.UNEXPECTED_MEASUREMENT: "correct the source of the metric",
    R.NO_AUTHOR: "set spec.author in a new ModelVersion",
    R.AUTHOR_UNKNOWN: "the person responsible for the change sets spec.changedBy of the object to their name",
    # Trainings
    R.DATA_REJECTED: "correct the data, or the checks in spec.run.dataCheck; status.checks of the run lists them",
    R.REPORT_INVALID: "correct the report of the stage's container, as the message says",
    R.REPORT_MISSING: "make the container write its report as termination message",
    R.REPORT_TOO_LARGE: "shorten the report",
    R.STAGE_FAILED: "check the log of the stage's pod",
    R.STAGE_TIMEOUT: "raise the stage's timeout, or check what delays its pod",
    R.OUTPUT_NOT_ALLOWED: "write the artifact below spec.run.output.uri",
    R.DATASET_CHANGED: "publish data at new addresses, and run again",
    R.CHILD_LOST: "prevent others from deleting the run's objects, and run again",
}
"""Remedies by reason. A reason without one is not a problem, is decided by evidence or approvals, or is transient."""
