"""What can go wrong in a fetch, as reasons that end up in a ModelVersion's or a Model's status."""

from __future__ import annotations

from enum import StrEnum


class FetchReason(StrEnum):
    """Machine-readable reason of a failed fetch; the operator shows it as a condition reason."""

    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    ACCESS_DENIED = "AccessDenied"
    STORE_UNREACHABLE = "StoreUnreachable"
    DOWNLOAD_STALLED = "DownloadStalled"
    DIGEST_MISMATCH = "DigestMismatch"
    UNSAFE_ARCHIVE = "UnsafeArchive"
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge"
    INVALID_URI = "InvalidURI"
    DISK_FULL = "DiskFull"
    NOT_CACHED = "NotCached"
    INTERNAL_ERROR = "InternalError"


class FetchError(Exception):
    """A fetch that failed, in words for the person who reads the status.

    `retry` says whether the same request may succeed when it is made again; `retry_after` is how many seconds
    the store asked us to wait before that.
    """

    def __init__(self, reason: FetchReason, message: str, *, retry: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry = retry
        self.retry_after = retry_after


class ArtifactChanged(FetchError):
    """The object is no longer the one that was listed: everything known about it must be read again."""

    def __init__(self, message: str) -> None:
        super().__init__(FetchReason.DIGEST_MISMATCH, message)


def store_unreachable(message: str, *, retry_after: float = 0.0) -> FetchError:
    """A failure of the store or of the way to it, worth another try."""
    return FetchError(FetchReason.STORE_UNREACHABLE, message, retry=True, retry_after=retry_after)


def untrusted_certificate(what: str) -> FetchError:
    """The store's certificate is signed by nobody that we trust; another try would not change that."""
    return FetchError(
        FetchReason.STORE_UNREACHABLE,
        f"{what}: the server's TLS certificate is not trusted. Put its authority's certificate into the credentials "
        "Secret as ca.crt.",
    )


def error_from_status(status: int, what: str, *, retry_after: float = 0.0, hint: str = "") -> FetchError:
    """The error for an HTTP `status` of 400 or more; `what` says which request got it, without secrets."""
    if status in (404, 410):
        return FetchError(
            FetchReason.ARTIFACT_NOT_FOUND, f"{what}: not found (HTTP {status}). Check the address.{hint}"
        )
    if status in (401, 403, 407):
        return FetchError(
            FetchReason.ACCESS_DENIED,
            f"{what}: access denied (HTTP {status}). Check the credentials Secret or the ServiceAccount's "
            f"rights.{hint}",
        )
    if status == 412:
        return ArtifactChanged(f"{what}: the object changed while it was read")
    if status in (408, 425, 429) or status >= 500:
        return store_unreachable(f"{what}: the store answered HTTP {status}", retry_after=retry_after)
    return FetchError(FetchReason.STORE_UNREACHABLE, f"{what}: the store refused the request (HTTP {status}).{hint}")
