"""Maps errors of the Kubernetes API to exceptions, one class for each way to react."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

DEFAULT_RETRY_AFTER = 1.0
MAX_RETRY_AFTER = 300.0
MESSAGE_MAX = 4000
QUOTE_MAX = 300

# Server-side apply rejects an object that doesn't match the schema with a plain 500 and this text.
_TYPED_PATCH = "failed to create typed patch object"
_TYPED_PATCH_LINE = re.compile(r"^\.(?P<field>.+?): (?P<message>.+)$")
_AFTER_QUOTED_OBJECT = '}": '
_STRICT_FIELD = re.compile(r'(unknown|duplicate) field "([^"]+)"')
_NEEDS_STATUS_BODY = frozenset({401, 403, 404, 409})
_ETCD_TOO_LARGE = ("etcdserver: request is too large", "trying to send message larger than max")
"""Messages of etcd and its client for an object beyond etcd's limit; the API server returns them with 500."""
_SIZE_LIMITS = "the API server takes objects of at most 3 MiB, and etcd stores 1.5 MiB of one (its defaults)"
_NOT_SERVED = "404 page not found"
"""The API server's response, in plain text, for a group or version that it does not serve."""
_GO_FIELD = re.compile(r"(cannot unmarshal \S+ into) Go struct field \w+\.(\S+) (of type \S+)")


@dataclass(frozen=True)
class Cause:
    """One entry of `Status.details.causes`: an invalid field (a path such as `spec.replicas`) and the reason."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """A response of the API server other than success, or a missing response (`status` is then 0).

    `reason` is the API's CamelCase reason (`Invalid`, `Forbidden`, ...), `message` is human-readable,
    `causes` names the fields of an invalid object.
    """

    def __init__(
        self, status: int, reason: str, message: str, causes: tuple[Cause, ...] = (), *, request: str = ""
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.request = request

    def __str__(self) -> str:
        prefix = f"{self.request}: " if self.request else ""
        return f"{prefix}{self.message} ({self.status} {self.reason})" if self.status else f"{prefix}{self.message}"


class NotFound(ApiError):
    """404: the object, its namespace or its kind does not exist."""


class AlreadyExists(ApiError):
    """409 on create: an object of that name exists already."""


class Conflict(ApiError):
    """409 otherwise: the object has changed since it was read, or another one has replaced it. Read it again."""


class Invalid(ApiError):
    """400, 422 and the like: the object is invalid, and sending it again will not help."""


class ObjectTooLarge(Invalid):
    """413, or etcd's error for it: the object is larger than the API server accepts or stores."""


class Denied(ApiError):
    """401 or 403: RBAC or an admission policy refuses it."""


class Throttled(ApiError):
    """429: send the request again in `retry_after` seconds."""

    retry_after: float = DEFAULT_RETRY_AFTER


class Transient(ApiError):
    """5xx, a network failure or a timeout: try again later. `retry_after` is in seconds when the server named it."""

    retry_after: float | None = None


def error_from_response(status: int, body: bytes | str, headers: Mapping[str, str], *, request: str = "") -> ApiError:
    """Build the exception for a response that isn't 2xx. Never raises, for any body.

    `body` is usually a `v1.Status` in JSON; anything else is quoted in the message, shortened. A refusal, conflict or
    absence without a `v1.Status` comes from an intermediary (such as a proxy) or was cut off: Transient.
    """
    details = _parse_status(body)
    reason = str(details.get("reason") or "")
    message = str(details.get("message") or "") or _quote_body(body) or f"the API server answered {status}"
    causes = _parse_causes(details)
    if causes and all(cause.field == "patch" for cause in causes):
        # The response to an invalid merge patch quotes the whole object before the error.
        message = message.rpartition(_AFTER_QUOTED_OBJECT)[2]
        causes = ()
    message = _shorten_text(message, MESSAGE_MAX)
    causes = causes or _parse_causes_in_text(message)
    if status in _NEEDS_STATUS_BODY and details.get("kind") != "Status" and not message.startswith(_NOT_SERVED):
        return Transient(status, reason or "NoStatus", message, causes, request=request)
    cls: type[ApiError]
    if status == 413 or (status == 500 and any(text in message for text in _ETCD_TOO_LARGE)):
        cls = ObjectTooLarge
        message, reason = f"{message}: {_SIZE_LIMITS}", "RequestEntityTooLarge"
    elif status == 500 and message.startswith(_TYPED_PATCH):
        cls = Invalid
        reason = reason or "Invalid"
    elif status == 409:
        # Creating an existing object returns AlreadyExists; after any other 409 the object has to be read again.
        cls = AlreadyExists if reason == "AlreadyExists" else Conflict
    elif status == 404:
        cls = NotFound
    elif status in (401, 403):
        cls = Denied
        if status == 401:
            message = f"{message}: the API server does not take the token of this process (expired, or not valid yet)"
    elif status == 429:
        throttled = Throttled(status, reason or "TooManyRequests", message, causes, request=request)
        throttled.retry_after = parse_retry_after(headers) or DEFAULT_RETRY_AFTER
        return throttled
    elif status == 410:
        # An expired continue token or resourceVersion: listing again from the start succeeds.
        cls = Transient
    elif 400 <= status < 500 and status != 408:
        # An apply whose metadata.uid is another object's: the name belongs to a new object.
        cls = Conflict if causes and all(c.field == "metadata.uid" for c in causes) else Invalid
    else:
        transient = Transient(status, reason or "ServerError", message, causes, request=request)
        transient.retry_after = parse_retry_after(headers)
        return transient
    return cls(status, reason or cls.__name__, message, causes, request=request)


def error_without_response(error: BaseException, *, request: str = "") -> Transient:
    """Build the exception for a request without a (complete) response: connection refused, reset, timeout, cut body."""
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        text = "the API server did not answer in time"
    return Transient(0, type(error).__name__, text, request=request)


def is_terminating(error: ApiError) -> bool:
    """Return whether a write was refused because its namespace is being deleted."""
    return isinstance(error, Denied) and any(cause.reason == "NamespaceTerminating" for cause in error.causes)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Parse a Retry-After header (a number or an HTTP date) into seconds, 0 to 300; None without one."""
    text = next((v for k, v in headers.items() if k.lower() == "retry-after"), None)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    if seconds != seconds:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _parse_status(body: bytes | str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _parse_causes(details: Mapping[str, Any]) -> tuple[Cause, ...]:
    inner = details.get("details")
    entries = inner.get("causes") if isinstance(inner, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(
        Cause(str(e.get("field") or ""), str(e.get("reason") or ""), str(e.get("message") or ""))
        for e in entries
        if isinstance(e, dict)
    )


def _parse_causes_in_text(message: str) -> tuple[Cause, ...]:
    """Parse the fields that strict validation and server-side apply name only in their message."""
    if message.startswith(_TYPED_PATCH):
        lines = (line.strip() for line in message.partition("): ")[2].splitlines())
        matches = [m for line in lines if (m := _TYPED_PATCH_LINE.match(line))]
        return tuple(Cause(m["field"], "FieldValueInvalid", m["message"]) for m in matches)
    strict = [
        Cause(field, f"{kind.capitalize()}Field", f"{kind} field") for kind, field in _STRICT_FIELD.findall(message)
    ]
    types = [Cause(field, "FieldValueTypeInvalid", f"{a} {b}") for a, field, b in _GO_FIELD.findall(message)]
    return (*strict, *types)


def _quote_body(body: bytes | str) -> str:
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return _shorten_text(" ".join(text.split()), QUOTE_MAX)


def _shorten_text(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
