"""Failures of a fetch, by the reasons shown in the status of a ModelVersion or a Model."""

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
    """A failed fetch, with a message for the reader of the status.

    `retry`: whether the same request may succeed later; `retry_after`: seconds that the store asked to wait before
    that.
    """

    def __init__(self, reason: FetchReason, message: str, *, retry: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry = retry
        self.retry_after = retry_after


class ArtifactChanged(FetchError):
    """The object differs from the listed one: everything known about it must be read again."""

    def __init__(self, message: str) -> None:
        super().__init__(FetchReason.DIGEST_MISMATCH, message)


def store_unreachable(message: str, *, retry_after: float = 0.0) -> FetchError:
    """Build the error for a failure of the store or the network, which is worth a retry."""
    return FetchError(FetchReason.STORE_UNREACHABLE, message, retry=True, retry_after=retry_after)


def untrusted_certificate(subject: str) -> FetchError:
    """Build the error for a store with an untrusted certificate; a retry would not change that."""
    return FetchError(
        FetchReason.STORE_UNREACHABLE,
        f"{subject}: the server's TLS certificate is not trusted. Put its authority's certificate into the credentials "
        "Secret as ca.crt.",
    )


def error_from_status(status: int, subject: str, *, retry_after: float = 0.0, hint: str = "") -> FetchError:
    """Build the error for an HTTP `status` of 400 or more; `subject` names the request, without secrets."""
    if status in (404, 410):
        return FetchError(
            FetchReason.ARTIFACT_NOT_FOUND, f"{subject}: not found (HTTP {status}). Check the address.{hint}"
        )
    if status in (401, 403, 407):
        return FetchError(
            FetchReason.ACCESS_DENIED,
            f"{subject}: access denied (HTTP {status}). Check the credentials Secret or the ServiceAccount's "
            f"rights.{hint}",
        )
    if status == 412:
        return ArtifactChanged(f"{subject}: the object changed while it was read")
    if status in (408, 425, 429) or status >= 500:
        return store_unreachable(f"{subject}: the store answered HTTP {status}", retry_after=retry_after)
    return FetchError(FetchReason.STORE_UNREACHABLE, f"{subject}: the store refused the request (HTTP {status}).{hint}")
