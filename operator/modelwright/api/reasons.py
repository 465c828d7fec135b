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
    SCALED_TO_ZERO = "ScaledToZero", "spec.serving.replicas is 0, so nothing answers, as asked for."
    DIGEST_PINNED = "DigestPinned", "The digest of the ModelVersion's artifact is known; only this content will serve."
    UP_TO_DATE = "UpToDate", "Nothing is left to do: what is wanted is what there is."

    # Waiting: Reconciling is True
    WAITING_FOR_VERSION = "WaitingForVersion", "The ModelVersion that spec.version asks for does not exist yet."
    WAITING_FOR_DIGEST = "WaitingForDigest", "The digest of the artifact is being found out by a resolve pod."
    WAITING_FOR_RUNTIME = "WaitingForRuntime", "The runtime that spec.serving.runtimeRef names does not exist yet."
    WAITING_FOR_PODS = "WaitingForPods", "The pods of the wanted revision are starting."
    WAITING_FOR_ROUTE = "WaitingForRoute", "The gateway has not yet programmed the route at its current generation."
    WAITING_FOR_MODEL = "WaitingForModel", "The Model that spec.modelRef names does not exist yet."
    ROUTE_NOT_PROGRAMMED = (
        "RouteNotProgrammed",
        "The gateway accepted the route, but a request through it is not answered by the wanted revision.",
    )
    SETTLING_TRAFFIC = "SettlingTraffic", "Traffic was moved; the old revision stays until the change has settled."
    DRAINING = "Draining", "Pods that leave are answering their last requests."
    SUSPENDED = "Suspended", "spec.suspend is true: what serves goes on serving, and nothing is changed."
    PROGRESSING_WITH_RETRY = "ProgressingWithRetry", "The last try failed for a passing reason and is repeated."

    # What is asked for cannot be done: Stalled is True
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
        "An older Model has the same listener, hostname and path; the older one keeps them.",
    )
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted", "The gateway refused the route; the message is the gateway's."
    GATEWAY_API_MISSING = "GatewayAPIMissing", "spec.endpoint needs the Gateway API, which this cluster does not have."
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
    IMAGE_PULL_FAILED = "ImagePullFailed", "A container image cannot be pulled."
    MODEL_LOAD_FAILED = "ModelLoadFailed", "The model server exits or does not load the model."
    CONTAINER_CONFIG_ERROR = "ContainerConfigError", "A container can't be created, for example for want of a Secret."
    CONTAINER_OOM_KILLED = "ContainerOOMKilled", "The model server was killed because it ran over its memory limit."
    UNSCHEDULABLE = "Unschedulable", "No node fits the pods."
    START_TIMEOUT = "StartTimeout", "The revision was not ready within spec.serving.startTimeout."

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
        Reason.INTERNAL_ERROR,
    }
)
"""The reasons that the fetch image may report."""


def fetch_reason(text: str) -> Reason:
    """The reason a fetch container reported; what it could not have reported is InternalError."""
    return Reason(text) if text in FETCH_REASONS else Reason.INTERNAL_ERROR
