"""Keeps track of the RBAC permissions that the API server reports as missing, in the API server's own terms."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from modelwright.kube.kinds import Kind
from modelwright.obs import metrics
from modelwright.obs.clock import Clock, SystemClock

log = logging.getLogger(__name__)

FORGET_AFTER_SECONDS = 1800.0
"""A right that no request has needed for so long is no longer reported as missing."""
MAX_RIGHTS = 1000

_RBAC_REFUSAL = re.compile(
    r'cannot (?P<verb>[a-z]+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)


class Right(NamedTuple):
    """A permission that a Role can grant: a verb on a resource (`deployments.apps`, `models.modelwright.dev/status`);
    `namespace` is empty for the whole cluster."""

    verb: str
    resource: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} " + (f"in namespace {self.namespace}" if self.namespace else "everywhere")


def parse_missing_right(message: str) -> Right | None:
    """Parse the right that a refusal by RBAC names as missing; None for other refusals, as by an admission policy."""
    match = _RBAC_REFUSAL.search(message)
    if match is None:
        return None
    plural, slash, subresource = match["resource"].partition("/")
    group = f".{match['group']}" if match["group"] else ""
    return Right(match["verb"], f"{plural}{group}{slash}{subresource}", match["namespace"] or "")


def required_right(verb: str, kind: Kind, path: str) -> Right:
    """Return the right that a request needs. `verb` as in `metrics.API_REQUESTS`."""
    parts = path.removeprefix(kind.group_path).strip("/").split("/")
    namespace = ""
    if kind.namespaced and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    subresource = parts[2] if len(parts) > 2 else ""
    resource = kind.plural + (f".{kind.group}" if kind.group else "") + (f"/{subresource}" if subresource else "")
    return Right({"apply": "patch"}.get(verb, verb), resource, namespace)


class MissingRights:
    """Rights that were refused and not granted since: logged once, and exported as `modelwright_missing_rights`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._missing: dict[Right, float] = {}

    def record_refusal(self, message: str) -> Right | None:
        """Record and return the right that a refusal names; None when it names none."""
        right = parse_missing_right(message)
        now = self._clock.monotonic()
        for old in [old for old, refused_at in self._missing.items() if now - refused_at > FORGET_AFTER_SECONDS]:
            self._remove_right(old)
        if right is None or (right not in self._missing and len(self._missing) >= MAX_RIGHTS):
            return right
        if right not in self._missing:
            metrics.MISSING_RIGHTS.labels(*right).set(1)
            log.error(
                "a right is missing: a Role or ClusterRole of the operator has to grant it", extra=_log_fields(right)
            )
        self._missing[right] = now
        return right

    def record_success(self, verb: str, kind: Kind, path: str) -> None:
        """Remove the right that a successful request needed."""
        if not self._missing:
            return
        right = required_right(verb, kind, path)
        # A right granted cluster-wide is granted in each namespace.
        for granted in [r for r in self._missing if r == right or (not right.namespace and r[:2] == right[:2])]:
            log.info("a missing right has been granted", extra=_log_fields(granted))
            self._remove_right(granted)

    def list_missing(self) -> tuple[Right, ...]:
        """Return the rights that are missing now."""
        return tuple(self._missing)

    def _remove_right(self, right: Right) -> None:
        del self._missing[right]
        metrics.MISSING_RIGHTS.remove(*right)


def _log_fields(right: Right) -> dict[str, str]:
    return {
        "verb": right.verb,
        "resource": right.resource,
        **({"namespace": right.namespace} if right.namespace else {}),
    }


MISSING = MissingRights()
