"""Every reason that may stand in a condition, a status failure or an Event of Modelwright, with its meaning."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Reason(StrEnum):
    """A reason with its meaning: the value appears in objects, `doc` in the reference."""

    doc: str
    _value_: str

    def __new__(cls, value: str, doc: str = "") -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member

    # Ready and Available
    SERVING = "Serving", "The target version has all the traffic and its pods are ready."
    ROLLOUT_IN_PROGRESS = (
        "RolloutInProgress",
        "A move to another version is in progress; the previous version keeps serving.",
    )
    REVISION_AVAILABLE = "RevisionAvailable", "Every revision that has traffic has at least one ready pod."
    NO_READY_PODS = "NoReadyPods", "A revision that has traffic has no ready pod."
    NOTHING_SERVING = "NothingServing", "No version of this Model has served yet."
    SCALED_TO_ZERO = (
        "ScaledToZero",
        "spec.serving.replicas, or another autoscaler, asks for no pods: nothing answers.",
    )
    DIGEST_PINNED = "DigestPinned", "The digest of the ModelVersion's artifact is known; only this content will serve."
    SIGNATURE_VERIFIED = (
        "SignatureVerified",
        "A key of the Model's spec.signatures has signed the ModelVersion's artifact as it is pinned.",
    )
    POLICY_ACCEPTED = "PolicyAccepted", "The RolloutPolicy can be followed, as far as that does not depend on a Model."
    DECIDABLE_IN_TIME = (
        "DecidableInTime",
        "At no more than 20 requests per second every step of the RolloutPolicy is decided within its deadline.",
    )
    EVIDENCE_ASKED = "EvidenceAsked", "The RolloutPolicy requires metrics, gates or approvals; the message names them."
    OBSERVED = "Observed", "Copies of requests go to the Model's observer, which measures their drift."
    ENDPOINT_APPLIED = "EndpointApplied", "The route has the requestTimeout and the filters of spec.endpoint."
    UP_TO_DATE = "UpToDate", "The actual state matches the spec; nothing is left to do."

    # Waiting: Reconciling is True
    WAITING_FOR_VERSION = "WaitingForVersion", "The ModelVersion that spec.version selects does not exist yet."
    WAITING_FOR_TURN = (
        "WaitingForTurn",
        "The namespace already runs as many resolve pods as allowed. Versions that Models target are next, then "
        "the oldest.",
    )
    WAITING_FOR_DIGEST = "WaitingForDigest", "A resolve pod is determining the digest of the artifact."
    WAITING_FOR_CACHE = (
        "WaitingForCache",
        "A separate pod copies the artifact into the shared cache, as the artifact's ServiceAccount.",
    )
    WAITING_FOR_SIGNATURE = "WaitingForSignature", "A resolve pod is verifying the signature of the artifact."
    WAITING_FOR_RUNTIME = "WaitingForRuntime", "The runtime that spec.serving.runtimeRef names does not exist yet."
    WAITING_FOR_PODS = "WaitingForPods", "The pods of the target revision are starting."
    WAITING_FOR_ROUTE = "WaitingForRoute", "The gateway has not yet programmed the route at its current generation."
    WAITING_FOR_OBSERVER = (
        "WaitingForObserver",
        "The pod of the Model's observer is not ready; no requests are copied to it.",
    )
    WAITING_FOR_MODEL = "WaitingForModel", "The Model that spec.modelRef names does not exist yet."
    ROUTE_NOT_PROGRAMMED = (
        "RouteNotProgrammed",
        "The gateway accepted the route, but the target revision does not answer a request through it.",
    )
    SUSPENDED = "Suspended", "spec.suspend is true: the serving version keeps serving, and nothing is changed."
    STEP_IN_PROGRESS = (
        "StepInProgress",
        "A step of the rollout is active; its hold or its evidence is not complete yet.",
    )
    GATE_RUNNING = "GateRunning", "A gate is running before any caller's request reaches the candidate."
    AWAITING_APPROVAL = "AwaitingApproval", "The rollout waits for approvals."
    ANALYSIS_ERROR = "AnalysisError", "A metric could not be measured; the measurement is retried."
    PAUSED = "Paused", "A person has paused the rollout."
    FREEZE_WINDOW = "FreezeWindow", "The policy's spec.freeze lets no rollout start or proceed now."
    WAITING_FOR_POLICY = "WaitingForPolicy", "The named RolloutPolicy or RetrainingPolicy does not exist yet."
    WAITING_FOR_TRAFFIC = "WaitingForTraffic", "An earlier candidate must be removed before the rollout starts."
    STOPPING_PREVIOUS = "StoppingPrevious", "The previous revision stops before the next one starts (recreate)."
    NEW_GENERATION = (
        "NewGeneration",
        "An edit was observed and is queued behind other edits.",
    )
    PROGRESSING_WITH_RETRY = "ProgressingWithRetry", "The last try failed for a transient reason and is retried."

    # How a rollout ended
    PROMOTED = "Promoted", "Every step passed, and the candidate took all traffic."
    PROMOTED_WITHOUT_EVIDENCE = (
        "PromotedWithoutEvidence",
        "A person promoted the candidate without the evidence that the policy requires.",
    )
    FAST_ROLLBACK = "FastRollback", "Back to a revision that served before, within rollbackWindow: no steps."
    FIRST_REVISION = "FirstRevision", "Nothing served before, so there were no steps."
    ROLLED_BACK_BY_HAND = "RolledBackByHand", "A person rolled the Model back to this version."
    SUPERSEDED = "Superseded", "The Model's target changed to another revision meanwhile."
    ANALYSIS_FAILED = "AnalysisFailed", "A metric proved the candidate worse than the policy tolerates."
    INCONCLUSIVE = (
        "Inconclusive",
        "The evidence was inconclusive at the deadline, or the policy ends an inconclusive rollout or run.",
    )
    GATE_FAILED = "GateFailed", "A gate refused the candidate before any caller's request reached it."
    APPROVAL_REJECTED = "ApprovalRejected", "A person rejected it."
    APPROVAL_TIMEOUT = "ApprovalTimeout", "There were not enough approvals in time."
    DEADLINE_EXCEEDED = "DeadlineExceeded", "The rollout or run did not end within the deadline of its policy."
    CANDIDATE_UNAVAILABLE = "CandidateUnavailable", "The candidate received requests and had no ready pod left."
    AB_TEST_LOST = "ABTestLost", "The candidate did not win the A/B test."
    ABORTED_BY_COMMAND = "AbortedByCommand", "A person aborted it."
    HELD_BY_ROLLBACK = (
        "HeldByRollback",
        "A person's rollback holds the Model until spec.version changes or is released.",
    )

    # Gates
    GATE_PASSED = (
        "GatePassed",
        "The gate passed.",
    )
    MODEL_NOT_READY = (
        "ModelNotReady",
        "The candidate did not become ready within the infra gate's timeout.",
    )
    SAMPLE_FAILED = (
        "SampleFailed",
        "The candidate did not answer a sample of its version with status 200.",
    )
    UNEXPECTED_ANSWER = (
        "UnexpectedAnswer",
        "The candidate's answer to a sample is not what the version expects.",
    )
    LATENCY_OVER_BUDGET = (
        "LatencyOverBudget",
        "The candidate answered its samples slower than the infra gate allows.",
    )
    MEMORY_OVER_BUDGET = (
        "MemoryOverBudget",
        "The candidate holds more memory than the infra gate allows.",
    )
    MEMORY_NOT_MEASURED = (
        "MemoryNotMeasured",
        "The infra gate has a memory budget, but the runtime does not report its memory.",
    )
    LATENCY_NOT_MEASURED = (
        "LatencyNotMeasured",
        "The infra gate has a latency budget, but there are no samples to measure it with.",
    )
    SAMPLES_NOT_SENT = (
        "SamplesNotSent",
        "The version's samples cannot be sent: the runtime's protocol has no known address for them.",
    )
    CODE_NOT_ALLOWED = (
        "CodeNotAllowed",
        "The scan gate found code in the artifact that the policy does not allow; the message names it by file.",
    )
    CONTENT_UNKNOWN = (
        "ContentUnknown",
        "The scan gate cannot determine whether a file of the artifact is code; the message names it.",
    )
    METRIC_MISSING = (
        "MetricMissing",
        "A figure that the policy limits is missing in the evaluation's report, or is not a number.",
    )
    METRIC_OUT_OF_LIMITS = (
        "MetricOutOfLimits",
        "A figure of the evaluation is outside the policy's limits.",
    )
    TOO_FEW_EXAMPLES = (
        "TooFewExamples",
        "The evaluation, or a metric's Job, has too few examples to distinguish a figure from its limit; the "
        "message says "
        "how many are needed.",
    )
    UNCERTAINTY_MISSING = (
        "UncertaintyMissing",
        "The report of an evaluation, or of a metric's Job, does not state the error of a figure: it needs n "
        "with better "
        "and worse, or with standardError; or exact.",
    )
    REPORT_TOO_LARGE = (
        "ReportTooLarge",
        "The report was cut off, because Kubernetes limits the length of a termination message; the message names the "
        "first figure that did not fit.",
    )
    NO_LIMITS = (
        "NoLimits",
        "The evaluation has no limits, so nothing was judged.",
    )
    NO_BASELINE = (
        "NoBaseline",
        "No version serves yet, so limits relative to the serving version are skipped, and there are no others.",
    )
    REPORT_MISSING = (
        "ReportMissing",
        "The object of a gate or stage ended without a report: a JSON object as its container's termination message.",
    )
    JOB_TIMEOUT = (
        "JobTimeout",
        "The gate's Job did not end within its timeout.",
    )
    JOB_FAILED = (
        "JobFailed",
        "The gate's Job failed on every try.",
    )

    # Measuring: the measurement is retried unless the policy has to be changed
    NO_AUTHOR = (
        "NoAuthor",
        "The ModelVersion has no spec.author, so no approver can be proven to be another person.",
    )
    AUTHOR_UNKNOWN = (
        "AuthorUnknown",
        "An unknown author has changed an object that the revision is made from, so no approver can be proven to be "
        "another person. The message names the object; the person responsible for it sets its spec.changedBy.",
    )
    METRICS_SERVER_UNREACHABLE = (
        "MetricsServerUnreachable",
        "The metrics server can't be reached, or its certificate isn't trusted. Retried.",
    )
    METRICS_SERVER_TIMEOUT = (
        "MetricsServerTimeout",
        "The metrics server did not answer in time. Retried.",
    )
    METRICS_SERVER_ERROR = (
        "MetricsServerError",
        "The metrics server answered with an error. Retried.",
    )
    METRICS_ACCESS_DENIED = (
        "MetricsAccessDenied",
        "The metrics server refused the connection's credentials. Retried; the credentials are read again.",
    )
    METRICS_ANSWER_INVALID = (
        "MetricsAnswerInvalid",
        "The response can't be read: not JSON, truncated, or of another shape. Retried.",
    )
    METRICS_ANSWER_TOO_LARGE = (
        "MetricsAnswerTooLarge",
        "The response is larger than the operator's limit.",
    )
    METRICS_STALE = (
        "MetricsStale",
        "The counters are no longer scraped, so the current values are unknown. Retried.",
    )
    QUERY_REFUSED = (
        "QueryRefused",
        "The metrics server, or the operator, refused the query: it has to be changed.",
    )
    QUERY_FAILED = (
        "QueryFailed",
        "The metrics server could not execute the query. Retried.",
    )
    CONNECTION_UNKNOWN = (
        "ConnectionUnknown",
        "The operator's configuration has no connection of that name and type.",
    )
    CREDENTIALS_UNREADABLE = (
        "CredentialsUnreadable",
        "A credential or CA file of a connection can't be read. Retried.",
    )
    METRIC_SOURCE_MISSING = (
        "MetricSourceMissing",
        "Neither gateway nor runtime measures the builtin metric here.",
    )
    LATENCY_THRESHOLD_NOT_A_BUCKET = (
        "LatencyThresholdNotABucket",
        "The threshold of latency-over is not a bucket boundary of the histogram; the message lists the boundaries.",
    )
    METRIC_JOB_FAILED = (
        "MetricJobFailed",
        "The Job of the metric failed, timed out, or did not report the figure. Retried.",
    )
    COMPARER_UNREACHABLE = (
        "ComparerUnreachable",
        "The comparer of the mirror step does not answer. Retried.",
    )
    COPIES_WITHOUT_TOKEN = (
        "CopiesWithoutToken",
        "Requests reached the comparer, but none carried the token that the Model's route sets on copies.",
    )
    WITHIN_LIMITS = (
        "WithinLimits",
        "The metric is within all its limits, with the required evidence.",
    )
    LIMIT_EXCEEDED = (
        "LimitExceeded",
        "The candidate is proven to be beyond max or min, or more measurements than failureLimit were.",
    )
    WORSE_THAN_SERVING = (
        "WorseThanServing",
        "The candidate is proven to be worse than the serving revision by more than margin.",
    )
    FAILURE_TOLERATED = (
        "FailureTolerated",
        "The value of this measurement is outside its limits, which failureLimit tolerates.",
    )
    INSUFFICIENT_SAMPLES = (
        "InsufficientSamples",
        "A revision has answered fewer requests in this step than minSamples.",
    )
    INSUFFICIENT_EVIDENCE = (
        "InsufficientEvidence",
        "There are enough samples, but the interval includes the limit: more requests will decide.",
    )
    OVERDISPERSED = (
        "Overdispersed",
        "The evidence would suffice for independent requests, but bad ones come in bursts: set the metric's burst.",
    )
    INSUFFICIENT_POINTS = (
        "InsufficientPoints",
        "An A/B test has too few time points at its end to be decided.",
    )
    NO_DATA = (
        "NoData",
        "The metrics server returned no number for the candidate; the message says why.",
    )
    BAD_SELECTOR_MATCHES_NOTHING = (
        "BadSelectorMatchesNothing",
        "The selector of bad requests cannot match anything, so 0 bad requests are not evidence; the message says why.",
    )
    MORE_BAD_THAN_ALL = (
        "MoreBadThanAll",
        "More bad requests were counted than requests, so the two selectors count different things.",
    )
    TARGET_SCRAPED_TWICE = (
        "TargetScrapedTwice",
        "Two jobs or two Prometheus scrape one pod, and their counters differ: scrape it once.",
    )
    VALUE_WITHOUT_DATA = (
        "ValueWithoutData",
        "The query returns a number without data, as with `or vector(0)`, and there is no data, or there were no "
        "requests.",
    )
    NO_SERVING_DATA = (
        "NoServingData",
        "The metrics server returned nothing for the serving revision, which margin compares with.",
    )
    UNEXPECTED_MEASUREMENT = (
        "UnexpectedMeasurement",
        "The source measured something other than the metric needs.",
    )
    BETTER_THAN_SERVING = (
        "BetterThanServing",
        "At the end of an A/B test the candidate is proven to be better.",
    )
    NOT_PROVEN_BETTER = (
        "NotProvenBetter",
        "At the end of an A/B test the candidate is not proven to be better, so it loses.",
    )

    # Triggers of a RetrainingPolicy that started no run
    COOLDOWN = "Cooldown", "A run has started within spec.guard.cooldown."
    MAX_RUNS = "MaxRuns", "As many runs as spec.guard.maxRuns allows have started in its span of time."
    BACKING_OFF = "BackingOff", "Consecutive runs failed: triggers wait for the time of spec.guard.backoff."
    RUN_ACTIVE = (
        "RunActive",
        "Another run is active, and spec.guard.concurrency lets none start beside or instead of it.",
    )
    QUEUE_FULL = "QueueFull", "Another run is active and one is already waiting for its end (concurrency: Queue)."

    # TrainingRuns
    WAITING_FOR_RUN = "WaitingForRun", "An earlier run of the same RetrainingPolicy must end first."
    RESOLVING_DATA = "ResolvingData", "The digest of the dataset or of the held-out data is being determined."
    STAGE_RUNNING = "StageRunning", "The object of the current stage has not ended."
    STAGE_QUEUED = (
        "StageQueued",
        "The object of the current stage is suspended or queued; clocks are stopped meanwhile.",
    )
    REGISTERING_VERSION = "RegisteringVersion", "All stages passed; the ModelVersion is being created."
    VERSION_REGISTERED = "VersionRegistered", "All stages passed, and the ModelVersion was created."
    VERSION_ANNOUNCED = (
        "VersionAnnounced",
        "Event: a training made a version of a pinned Model; status.announced names it.",
    )
    UNCHANGED = (
        "Unchanged",
        "Data, parameters, seed and templates are those of the last run that succeeded (spec.guard.skipUnchanged).",
    )
    REPLACED = "Replaced", "A newer run took its place (concurrency: Replace)."
    DATA_REJECTED = (
        "DataRejected",
        "Checks of the dataset failed, so nothing was trained; status.checks lists them.",
    )
    DATASET_CHANGED = "DatasetChanged", "The dataset changed during the run: its digest differs."
    OUTPUT_NOT_ALLOWED = "OutputNotAllowed", "The training reported an artifact outside its output address."
    REPORT_INVALID = "ReportInvalid", "The report of a stage breaks the result contract; the message names the member."
    CHILD_LOST = (
        "ChildLost",
        "The object of a stage was deleted, manually or by its TTL, before its result was read. It is not created "
        "again, because the stage may have had effects.",
    )
    STAGE_FAILED = "StageFailed", "The object of a stage failed."
    KIND_NOT_ALLOWED = (
        "KindNotAllowed",
        "The operator's configuration (training.kinds) does not allow runs to create this kind.",
    )
    KIND_NOT_INSTALLED = (
        "KindNotInstalled",
        "The cluster does not have this kind: install its controller. The operator checks every minute and creates no "
        "object until then.",
    )
    RUN_STARTED = "RunStarted", "A trigger fired, and its run was created."
    STAGE_TIMEOUT = "StageTimeout", "A stage did not end within its timeout."

    # The spec cannot be fulfilled: Stalled is True
    POLICY_NOT_FOUND = (
        "PolicyNotFound",
        "The named RolloutPolicy or RetrainingPolicy has been missing for 5 minutes.",
    )
    INVALID_POLICY = (
        "InvalidPolicy",
        "The RolloutPolicy or RetrainingPolicy is invalid; the message names the field.",
    )
    NEEDS_MORE_REQUESTS = (
        "NeedsMoreRequests",
        "The RolloutPolicy needs more than 20 requests per second to be decided within its deadline; the message says "
        "how many, and which change would need fewer.",
    )
    REQUESTS_NOT_ENDED = (
        "RequestsNotEnded",
        "The metric is within its limits, but requests from the start of the step may not have ended yet, or less than "
        "half of the evidence is newer: requests are counted when they end, and may take the Model's "
        "spec.serving.maxRequestSeconds.",
    )
    PROMOTES_BY_TIME_ALONE = (
        "PromotesByTimeAlone",
        "The RolloutPolicy has no analysis, gate or approval: time alone promotes the candidate.",
    )
    NEVER_DECIDABLE = (
        "NeverDecidable",
        "No number of requests decides every step of the RolloutPolicy within its deadline; the message says why.",
    )
    POLICY_NOT_SUPPORTED = (
        "PolicyNotSupported",
        "The RolloutPolicy needs a feature that the Model's traffic provider lacks; the message names the field.",
    )
    ADMISSION_POLICY_MISSING = (
        "AdmissionPolicyMissing",
        "The admission policies that prove the author of a command or approval, and that prevent others from creating "
        "the operator's pods, are not in force: no command, approval, gate, signature or training counts.",
    )
    RESOLVE_POD_LOST = (
        "ResolvePodLost",
        "Event: another party removed or replaced a version's resolve pod before it had reported.",
    )
    CHILD_TOO_LARGE = (
        "ChildTooLarge",
        "The API server refuses an object made from this one because of its size; the message names it and the limit.",
    )
    STATUS_TOO_LARGE = (
        "StatusTooLarge",
        "Event: the object's status can't be written because the object is larger than the API server stores.",
    )
    ANOTHER_INSTALL = (
        "AnotherInstall",
        "Event: a second install of the operator watches the namespace of the first, and writes nothing there.",
    )
    RESOLVE_POD_CHANGED = (
        "ResolvePodChanged",
        "Admission changes the version's resolve pod on creation, so its report is not trusted; the message "
        "names the change.",
    )
    INVALID_SPEC = "InvalidSpec", "The spec is invalid; the message names the field."
    VERSION_NOT_FOUND = "VersionNotFound", "The ModelVersion that spec.version selects has been missing for 5 minutes."
    VERSION_OF_ANOTHER_MODEL = "VersionOfAnotherModel", "The ModelVersion's spec.modelRef names another Model."
    RUNTIME_NOT_FOUND = (
        "RuntimeNotFound",
        "The runtime named by spec.serving.runtimeRef has been missing for 5 minutes.",
    )
    RUNTIME_DISABLED = "RuntimeDisabled", "The runtime named by spec.serving.runtimeRef is disabled."
    RUNTIME_DOES_NOT_SUPPORT_FORMAT = (
        "RuntimeDoesNotSupportFormat",
        "The runtime named by spec.serving.runtimeRef does not list the format of the artifact.",
    )
    NO_SUPPORTING_RUNTIME = "NoSupportingRuntime", "No enabled runtime may be selected for the format of the artifact."
    NAME_TAKEN = (
        "NameTaken",
        "An object with a name that this Model needs exists and belongs to another owner; it is not touched.",
    )
    ROUTE_CONFLICT = (
        "RouteConflict",
        "An older Model has the same listener, hostname and path, or the route would take callers of an older Model of "
        "another namespace (a longer path, a wildcard, a name below one); the older one keeps them.",
    )
    HOSTNAME_NOT_ALLOWED = (
        "HostnameNotAllowed",
        "spec.endpoint.hostnames contains one that the operator's setting `hostnames` doesn't allow for this "
        "namespace.",
    )
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted", "The gateway refused the route; the message is the gateway's."
    GATEWAY_API_MISSING = "GatewayAPIMissing", "spec.endpoint needs the Gateway API, which this cluster does not have."
    MONITORING_NOT_SUPPORTED = (
        "MonitoringNotSupported",
        "spec.monitoring needs copies of requests, which the gateway cannot make; serving is not affected.",
    )
    ENDPOINT_NOT_SUPPORTED = (
        "EndpointNotSupported",
        "The class of a gateway does not list a feature that spec.endpoint needs; the route is written without it.",
    )
    NO_REFERENCE = (
        "NoReference",
        "The serving version has no spec.reference, so drift cannot be measured.",
    )
    PROTOCOL_NOT_SUPPORTED = (
        "ProtocolNotSupported",
        "The runtime has no port for spec.endpoint.protocol.",
    )
    INVALID_POD_TEMPLATE = (
        "InvalidPodTemplate",
        "The API server refused the rendered pods; the message names the field.",
    )
    PODS_FORBIDDEN = (
        "PodsForbidden",
        "An admission rule, such as the namespace's Pod Security level, refuses the pods.",
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "A ResourceQuota or LimitRange of the namespace refuses pods or their controllers; the message says what "
        "to do.",
    )
    IMAGE_PULL_FAILED = "ImagePullFailed", "A container image cannot be pulled."
    MODEL_LOAD_FAILED = "ModelLoadFailed", "The model server exits or does not load the model."
    CONTAINER_CONFIG_ERROR = (
        "ContainerConfigError",
        "A container can't be created, for example because a Secret is missing.",
    )
    CONTAINER_OOM_KILLED = "ContainerOOMKilled", "The model server was killed because it ran over its memory limit."
    UNSCHEDULABLE = "Unschedulable", "No node fits the pods."
    START_TIMEOUT = "StartTimeout", "The revision was not ready within spec.serving.startTimeout."

    SIGNATURE_MISSING = (
        "SignatureMissing",
        "The Model's spec.signatures requires a signature, but the artifact has none.",
    )
    SIGNATURE_INVALID = (
        "SignatureInvalid",
        "No key of the Model's spec.signatures has signed exactly this artifact: another key, other content, or an "
        "unreadable signature; the message says which.",
    )

    # Fetching an artifact (termination message of the fetch image)
    ARTIFACT_NOT_FOUND = "ArtifactNotFound", "There is nothing at the artifact's address."
    ACCESS_DENIED = "AccessDenied", "The store or the API server refused the operation for lack of permission."
    STORE_UNREACHABLE = "StoreUnreachable", "The artifact's store does not answer."
    DOWNLOAD_STALLED = "DownloadStalled", "The store stopped sending data in the middle of a download."
    DIGEST_MISMATCH = "DigestMismatch", "The content does not match the digest; it will not serve."
    UNSAFE_ARCHIVE = "UnsafeArchive", "The archive has entries that leave its directory, or grows beyond the limit."
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge", "The artifact is larger than the limit."
    INVALID_URI = "InvalidURI", "The artifact's address is invalid."
    DISK_FULL = "DiskFull", "The pod's volume has no space left for the artifact."
    NOT_CACHED = (
        "NotCached",
        "The shared cache does not hold the artifact, and this pod may not fetch it; another pod fetches it again.",
    )
    INTERNAL_ERROR = "InternalError", "A bug in Modelwright; the log has the details."


FETCH_REASONS = frozenset(
    {
        Reason.ARTIFACT_NOT_FOUND,
        Reason.ACCESS_DENIED,
        Reason.STORE_UNREACHABLE,
        Reason.DOWNLOAD_STALLED,
        Reason.DIGEST_MISMATCH,
        Reason.UNSAFE_ARCHIVE,
        Reason.ARTIFACT_TOO_LARGE,
        Reason.INVALID_URI,
        Reason.DISK_FULL,
        Reason.NOT_CACHED,
        Reason.INTERNAL_ERROR,
    }
)
"""The reasons that the fetch image may report."""
