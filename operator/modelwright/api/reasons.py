"""Every reason that may stand in a condition, a status failure or an Event of Modelwright, with its meaning."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Reason(StrEnum):
    """A reason and what it tells the reader; the value is what stands on the wire, `doc` goes into the reference."""

    doc: str
    _value_: str

    def __new__(cls, value: str, doc: str = "") -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member

    # Ready and Available
    SERVING = "Serving", "The wanted version has all the traffic and its pods are ready."
    ROLLOUT_IN_PROGRESS = "RolloutInProgress", "Another version is on its way; what served before goes on serving."
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
    EVIDENCE_ASKED = "EvidenceAsked", "The RolloutPolicy lets metrics, gates or people decide; the message names them."
    OBSERVED = "Observed", "Copies of requests go to the Model's observer, which tells how far they have drifted."
    ENDPOINT_APPLIED = "EndpointApplied", "The route has the requestTimeout and the filters of spec.endpoint."
    UP_TO_DATE = "UpToDate", "Nothing is left to do: what is wanted is what there is."

    # Waiting: Reconciling is True
    WAITING_FOR_VERSION = "WaitingForVersion", "The ModelVersion that spec.version asks for does not exist yet."
    WAITING_FOR_TURN = (
        "WaitingForTurn",
        "The namespace has as many resolve pods under way as it may. What Models want is next, then the oldest.",
    )
    WAITING_FOR_DIGEST = "WaitingForDigest", "The digest of the artifact is being found out by a resolve pod."
    WAITING_FOR_CACHE = (
        "WaitingForCache",
        "A pod of its own brings the artifact into the shared cache, as the artifact's ServiceAccount.",
    )
    WAITING_FOR_SIGNATURE = "WaitingForSignature", "The signature of the artifact is being verified by a resolve pod."
    WAITING_FOR_RUNTIME = "WaitingForRuntime", "The runtime that spec.serving.runtimeRef names does not exist yet."
    WAITING_FOR_PODS = "WaitingForPods", "The pods of the wanted revision are starting."
    WAITING_FOR_ROUTE = "WaitingForRoute", "The gateway has not yet programmed the route at its current generation."
    WAITING_FOR_OBSERVER = (
        "WaitingForObserver",
        "The pod of the Model's observer is not ready; no request is copied to it.",
    )
    WAITING_FOR_MODEL = "WaitingForModel", "The Model that spec.modelRef names does not exist yet."
    ROUTE_NOT_PROGRAMMED = (
        "RouteNotProgrammed",
        "The gateway accepted the route, but a request through it is not answered by the wanted revision.",
    )
    SUSPENDED = "Suspended", "spec.suspend is true: what serves goes on serving, and nothing is changed."
    STEP_IN_PROGRESS = "StepInProgress", "A step of the rollout goes on; its hold or its evidence is not complete yet."
    GATE_RUNNING = "GateRunning", "A gate is being looked at before any caller's request reaches the candidate."
    AWAITING_APPROVAL = "AwaitingApproval", "People must approve before the rollout goes on."
    ANALYSIS_ERROR = "AnalysisError", "A metric could not be measured; it is tried again."
    PAUSED = "Paused", "A person has paused the rollout."
    FREEZE_WINDOW = "FreezeWindow", "spec.freeze of the policy lets no rollout start or go on now."
    WAITING_FOR_POLICY = "WaitingForPolicy", "The RolloutPolicy or RetrainingPolicy that is named does not exist yet."
    WAITING_FOR_TRAFFIC = "WaitingForTraffic", "An earlier candidate has to leave before the rollout begins."
    STOPPING_PREVIOUS = "StoppingPrevious", "The previous revision stops before the next one starts (recreate)."
    NEW_GENERATION = (
        "NewGeneration",
        "An edit was seen, and is taken up in its turn: people wait for answers to others.",
    )
    PROGRESSING_WITH_RETRY = "ProgressingWithRetry", "The last try failed for a passing reason and is repeated."

    # How a rollout ended
    PROMOTED = "Promoted", "Every step passed, and the candidate took all traffic."
    PROMOTED_WITHOUT_EVIDENCE = (
        "PromotedWithoutEvidence",
        "A person promoted the candidate without the evidence that the policy asks for.",
    )
    FAST_ROLLBACK = "FastRollback", "Back to a revision that served before, within rollbackWindow: no steps."
    FIRST_REVISION = "FirstRevision", "Nothing served before, so there were no steps."
    ROLLED_BACK_BY_HAND = "RolledBackByHand", "A person took the Model back to this version."
    SUPERSEDED = "Superseded", "The Model was made to want another revision meanwhile."
    ANALYSIS_FAILED = "AnalysisFailed", "A metric proved the candidate worse than the policy tolerates."
    INCONCLUSIVE = (
        "Inconclusive",
        "The evidence decided nothing by the deadline, or the policy ends the rollout or run then.",
    )
    GATE_FAILED = "GateFailed", "A gate refused the candidate before any caller's request reached it."
    APPROVAL_REJECTED = "ApprovalRejected", "A person rejected it."
    APPROVAL_TIMEOUT = "ApprovalTimeout", "Not enough people approved in time."
    DEADLINE_EXCEEDED = "DeadlineExceeded", "The rollout or run did not end within the deadline of its policy."
    CANDIDATE_UNAVAILABLE = "CandidateUnavailable", "The candidate took requests and had no ready pod left."
    AB_TEST_LOST = "ABTestLost", "The candidate did not win the A/B test."
    ABORTED_BY_COMMAND = "AbortedByCommand", "A person aborted it."
    HELD_BY_ROLLBACK = (
        "HeldByRollback",
        "A person's rollback holds the Model until spec.version changes or is released.",
    )

    # Gates
    GATE_PASSED = (
        "GatePassed",
        "The gate was passed.",
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
        "The infra gate has a memory budget, and the runtime does not tell its memory.",
    )
    LATENCY_NOT_MEASURED = (
        "LatencyNotMeasured",
        "The infra gate has a latency budget, and there are no samples to measure it by.",
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
        "The scan gate can not tell whether a file of the artifact is code; the message names it.",
    )
    METRIC_MISSING = (
        "MetricMissing",
        "A figure that the policy limits is not in the report of the evaluation, or is no number.",
    )
    METRIC_OUT_OF_LIMITS = (
        "MetricOutOfLimits",
        "A figure of the evaluation is outside of the policy's limits.",
    )
    TOO_FEW_EXAMPLES = (
        "TooFewExamples",
        "The evaluation, or a metric's Job, has too few examples to tell a figure from its limit; the message says how "
        "many it would take.",
    )
    UNCERTAINTY_MISSING = (
        "UncertaintyMissing",
        "The report of an evaluation, or of a metric's Job, does not say how sure a figure is: it needs n with better "
        "and worse, or with standardError; or exact.",
    )
    REPORT_TOO_LARGE = (
        "ReportTooLarge",
        "The report was cut off, because Kubernetes keeps only so much of a termination message; the message names the "
        "first figure that did not fit.",
    )
    NO_LIMITS = (
        "NoLimits",
        "The evaluation has no limits, so that nothing was judged.",
    )
    NO_BASELINE = (
        "NoBaseline",
        "Nothing serves yet, so limits versus the serving version are skipped and there are no others.",
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

    # Measuring: the look is tried again unless a person has to change the policy
    NO_AUTHOR = (
        "NoAuthor",
        "The ModelVersion has no spec.author, so nobody can be a second person, and an approval cannot be had.",
    )
    AUTHOR_UNKNOWN = (
        "AuthorUnknown",
        "Somebody whose name is not known has changed what the revision is made of, so nobody can be a second person. "
        "The message names the object; whoever answers for it writes their name into its spec.changedBy.",
    )
    METRICS_SERVER_UNREACHABLE = (
        "MetricsServerUnreachable",
        "The metrics server can't be reached, or its certificate isn't trusted. Looked at again.",
    )
    METRICS_SERVER_TIMEOUT = (
        "MetricsServerTimeout",
        "The metrics server did not answer in time. Looked at again.",
    )
    METRICS_SERVER_ERROR = (
        "MetricsServerError",
        "The metrics server answered with an error. Looked at again.",
    )
    METRICS_ACCESS_DENIED = (
        "MetricsAccessDenied",
        "The metrics server refused the connection's credentials. Looked at again: they are read anew.",
    )
    METRICS_ANSWER_INVALID = (
        "MetricsAnswerInvalid",
        "The answer can't be read: no JSON, cut off, or of another shape. Looked at again.",
    )
    METRICS_ANSWER_TOO_LARGE = (
        "MetricsAnswerTooLarge",
        "The answer is larger than the operator reads.",
    )
    METRICS_STALE = (
        "MetricsStale",
        "The counters are not scraped any more, so they say nothing about now. Looked at again.",
    )
    QUERY_REFUSED = (
        "QueryRefused",
        "The metrics server, or the operator, refused the query: it has to be changed.",
    )
    QUERY_FAILED = (
        "QueryFailed",
        "The metrics server could not carry out the query. Looked at again.",
    )
    CONNECTION_UNKNOWN = (
        "ConnectionUnknown",
        "The operator's configuration has no connection of that name and type.",
    )
    CREDENTIALS_UNREADABLE = (
        "CredentialsUnreadable",
        "A credential or CA file of a connection can't be read. Looked at again.",
    )
    METRIC_SOURCE_MISSING = (
        "MetricSourceMissing",
        "Nothing that the operator knows measures the builtin metric here.",
    )
    LATENCY_THRESHOLD_NOT_A_BUCKET = (
        "LatencyThresholdNotABucket",
        "The threshold of latency-over is no bucket boundary of the histogram; the message names those.",
    )
    METRIC_JOB_FAILED = (
        "MetricJobFailed",
        "The Job that measures failed, timed out, or reported no such figure. Looked at again.",
    )
    COMPARER_UNREACHABLE = (
        "ComparerUnreachable",
        "The comparer of the mirror step does not answer. Looked at again.",
    )
    COPIES_WITHOUT_TOKEN = (
        "CopiesWithoutToken",
        "Requests reached the comparer, and none had the token that the Model's route sets on copies.",
    )
    WITHIN_LIMITS = (
        "WithinLimits",
        "The metric is within all its limits, with the evidence that was asked for.",
    )
    LIMIT_EXCEEDED = (
        "LimitExceeded",
        "The candidate is proven to be beyond max or min, or more looks than failureLimit were.",
    )
    WORSE_THAN_SERVING = (
        "WorseThanServing",
        "The candidate is proven to be worse than the serving revision by more than margin.",
    )
    FAILURE_TOLERATED = (
        "FailureTolerated",
        "The value is out of its limits at this look, which failureLimit lets pass.",
    )
    INSUFFICIENT_SAMPLES = (
        "InsufficientSamples",
        "A revision has answered fewer requests in this step than minSamples.",
    )
    INSUFFICIENT_EVIDENCE = (
        "InsufficientEvidence",
        "There are enough samples, but the interval lies across the limit: more requests decide.",
    )
    OVERDISPERSED = (
        "Overdispersed",
        "The evidence would do for independent requests, but bad ones come in bursts: set the metric's burst.",
    )
    INSUFFICIENT_POINTS = (
        "InsufficientPoints",
        "An A/B test has too few time points at its end to be decided.",
    )
    NO_DATA = (
        "NoData",
        "The metrics server gave no number for the candidate; the message says why.",
    )
    BAD_SELECTOR_MATCHES_NOTHING = (
        "BadSelectorMatchesNothing",
        "The selector of bad requests can match nothing, so 0 bad requests are no evidence; the message says why.",
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
        "The query gives a number without any data, as with `or vector(0)`, and there is none, or no requests.",
    )
    NO_SERVING_DATA = (
        "NoServingData",
        "The metrics server gave nothing for the serving revision, which the margin compares with.",
    )
    UNEXPECTED_MEASUREMENT = (
        "UnexpectedMeasurement",
        "The source measured something else than the metric needs.",
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
    COOLDOWN = "Cooldown", "A run has begun within spec.guard.cooldown."
    MAX_RUNS = "MaxRuns", "As many runs as spec.guard.maxRuns allows have begun in its span of time."
    BACKING_OFF = "BackingOff", "Runs in a row came to nothing: triggers wait as long as spec.guard.backoff says."
    RUN_ACTIVE = "RunActive", "Another run goes on, and spec.guard.concurrency lets none begin beside or instead of it."
    QUEUE_FULL = "QueueFull", "Another run goes on and one waits for its end already (concurrency: Queue)."

    # TrainingRuns
    WAITING_FOR_RUN = "WaitingForRun", "An earlier run of the same RetrainingPolicy has to end first."
    RESOLVING_DATA = "ResolvingData", "The digest of the dataset, or of the data held out, is being found out."
    STAGE_RUNNING = "StageRunning", "The object of the present stage has not ended."
    STAGE_QUEUED = "StageQueued", "The object of the present stage is suspended or queued; no clock runs meanwhile."
    REGISTERING_VERSION = "RegisteringVersion", "All stages passed; the ModelVersion is being made."
    VERSION_REGISTERED = "VersionRegistered", "All stages passed, and the ModelVersion was made."
    VERSION_ANNOUNCED = (
        "VersionAnnounced",
        "An Event: a training made a version of a Model that names its version itself; status.announced tells which.",
    )
    UNCHANGED = (
        "Unchanged",
        "Data, parameters, seed and templates are those of the last run that succeeded (spec.guard.skipUnchanged).",
    )
    REPLACED = "Replaced", "A newer run took its place (concurrency: Replace)."
    DATA_REJECTED = (
        "DataRejected",
        "Checks of the dataset failed, so that nothing was trained; status.checks lists them.",
    )
    DATASET_CHANGED = "DatasetChanged", "The dataset is not the one that the run began with: its digest differs."
    OUTPUT_NOT_ALLOWED = "OutputNotAllowed", "The training reported an artifact outside of the place it was given."
    REPORT_INVALID = "ReportInvalid", "The report of a stage breaks the result contract; the message names the member."
    CHILD_LOST = (
        "ChildLost",
        "The object of a stage is gone, deleted by hand or by its TTL, before its result was taken. It is not made "
        "again: the stage may have had effects.",
    )
    STAGE_FAILED = "StageFailed", "The object of a stage failed."
    KIND_NOT_ALLOWED = "KindNotAllowed", "The operator's configuration (training.kinds) lets no run make this kind."
    KIND_NOT_INSTALLED = (
        "KindNotInstalled",
        "The cluster does not have this kind now: install its controller. It is looked for every minute, and no object "
        "is made until then.",
    )
    RUN_STARTED = "RunStarted", "A trigger has fired, and its run was made."
    STAGE_TIMEOUT = "StageTimeout", "A stage did not end within its timeout."

    # What is asked for cannot be done: Stalled is True
    POLICY_NOT_FOUND = (
        "PolicyNotFound",
        "The RolloutPolicy or RetrainingPolicy that is named has been missing for 5 minutes.",
    )
    INVALID_POLICY = (
        "InvalidPolicy",
        "The RolloutPolicy or RetrainingPolicy cannot be understood; the message names the field.",
    )
    NEEDS_MORE_REQUESTS = (
        "NeedsMoreRequests",
        "The RolloutPolicy takes more than 20 requests per second to be decided within its deadline; the message says "
        "how many, and what would need less.",
    )
    REQUESTS_NOT_ENDED = (
        "RequestsNotEnded",
        "The metric is within its limits, but requests of the step's begin may not have ended yet, or less than half "
        "of the evidence is from later: they are counted when they end, and may take spec.serving.maxRequestSeconds "
        "of the Model.",
    )
    PROMOTES_BY_TIME_ALONE = (
        "PromotesByTimeAlone",
        "The RolloutPolicy has no analysis, no gate and no approval: whatever the candidate does, time promotes it.",
    )
    NEVER_DECIDABLE = (
        "NeverDecidable",
        "No number of requests decides every step of the RolloutPolicy within its deadline; the message says why.",
    )
    POLICY_NOT_SUPPORTED = (
        "PolicyNotSupported",
        "The RolloutPolicy asks for what the Model's way of moving traffic cannot do; the message names the field.",
    )
    ADMISSION_POLICY_MISSING = (
        "AdmissionPolicyMissing",
        "The admission policies that prove who gives a command or an approval, and that keep others from making the "
        "operator's pods, are not in force: no command, approval, gate, signature or training counts.",
    )
    RESOLVE_POD_LOST = (
        "ResolvePodLost",
        "Event: a version's resolve pod was removed or replaced by somebody else before it had said anything.",
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
        "Admission changes the version's resolve pod as it is made, so that what it says is not believed; the message "
        "names what was changed.",
    )
    INVALID_SPEC = "InvalidSpec", "The spec cannot be understood; the message names the field."
    VERSION_NOT_FOUND = "VersionNotFound", "The ModelVersion that spec.version asks for has been missing for 5 minutes."
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
    NO_SUPPORTING_RUNTIME = "NoSupportingRuntime", "No enabled runtime selects itself for the format of the artifact."
    NAME_TAKEN = "NameTaken", "An object of a name this Model needs exists and is not this Model's; it is left alone."
    ROUTE_CONFLICT = (
        "RouteConflict",
        "An older Model has the same listener, hostname and path, or the route would take callers of an older Model of "
        "another namespace (a longer path, a wildcard, a name below one); the older one keeps them.",
    )
    HOSTNAME_NOT_ALLOWED = (
        "HostnameNotAllowed",
        "spec.endpoint.hostnames has one that the operator's setting `hostnames` doesn't allow to this namespace.",
    )
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted", "The gateway refused the route; the message is the gateway's."
    GATEWAY_API_MISSING = "GatewayAPIMissing", "spec.endpoint needs the Gateway API, which this cluster does not have."
    MONITORING_NOT_SUPPORTED = (
        "MonitoringNotSupported",
        "spec.monitoring asks for copies of requests that the gateway cannot make; serving is not affected.",
    )
    ENDPOINT_NOT_SUPPORTED = (
        "EndpointNotSupported",
        "The class of a gateway does not list a feature that spec.endpoint asks for; the route goes without it.",
    )
    NO_REFERENCE = (
        "NoReference",
        "The version that serves has no spec.reference, so there is nothing that requests could have drifted from.",
    )
    PROTOCOL_NOT_SUPPORTED = (
        "ProtocolNotSupported",
        "spec.endpoint.protocol asks for what the runtime has no port for.",
    )
    INVALID_POD_TEMPLATE = (
        "InvalidPodTemplate",
        "The API server refused the rendered pods; the message names the field.",
    )
    PODS_FORBIDDEN = (
        "PodsForbidden",
        "Pods are refused by an admission rule, such as the namespace's Pod Security level.",
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "A ResourceQuota or LimitRange of the namespace refuses pods or what makes them; the message says what to do.",
    )
    IMAGE_PULL_FAILED = "ImagePullFailed", "A container image cannot be pulled."
    MODEL_LOAD_FAILED = "ModelLoadFailed", "The model server exits or does not load the model."
    CONTAINER_CONFIG_ERROR = "ContainerConfigError", "A container can't be created, for example for want of a Secret."
    CONTAINER_OOM_KILLED = "ContainerOOMKilled", "The model server was killed because it ran over its memory limit."
    UNSCHEDULABLE = "Unschedulable", "No node fits the pods."
    START_TIMEOUT = "StartTimeout", "The revision was not ready within spec.serving.startTimeout."

    SIGNATURE_MISSING = (
        "SignatureMissing",
        "The Model's spec.signatures asks for a signature, and there is none beside the artifact.",
    )
    SIGNATURE_INVALID = (
        "SignatureInvalid",
        "No key of the Model's spec.signatures has signed the artifact as it is: another key, other content, or a "
        "signature that cannot be read; the message says which.",
    )

    # Fetching an artifact (termination message of the fetch image)
    ARTIFACT_NOT_FOUND = "ArtifactNotFound", "Nothing is at the artifact's address."
    ACCESS_DENIED = "AccessDenied", "The store, or the API server, refused the operation for lack of permission."
    STORE_UNREACHABLE = "StoreUnreachable", "The artifact's store does not answer."
    DOWNLOAD_STALLED = "DownloadStalled", "The store stopped sending data in the middle of a download."
    DIGEST_MISMATCH = "DigestMismatch", "The content is not the one the digest promises; it will not serve."
    UNSAFE_ARCHIVE = "UnsafeArchive", "The archive has entries that leave its directory, or grows beyond the limit."
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge", "The artifact is larger than the stated limit."
    INVALID_URI = "InvalidURI", "The artifact's address cannot be understood."
    DISK_FULL = "DiskFull", "There is no room left for the artifact on the pod's volume."
    NOT_CACHED = (
        "NotCached",
        "The shared cache does not hold the artifact, and this pod may not fetch it; another pod brings it again.",
    )
    INTERNAL_ERROR = "InternalError", "A fault of Modelwright itself; the log has the details."


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
