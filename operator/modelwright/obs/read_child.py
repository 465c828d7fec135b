"""Isolates errors of reading one child object, so that an unreadable child fails alone and not the reconcile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modelwright.obs import metrics

log = logging.getLogger(__name__)

T = TypeVar("T")


def read_child(child: Mapping[str, Any], read: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """Return the result of `read` for `child`. An exception is a bug of ours, for any content of the child: it is
    counted and logged with the object, and `otherwise` builds the value from a user-facing message."""
    try:
        return read()
    except Exception as error:
        return otherwise(record_bug(child, error))


def record_bug(child: Mapping[str, Any], error: Exception) -> str:
    """Count and log an exception raised by reading `child`; returns the user-facing message."""
    metadata = child.get("metadata") or {}
    kind, name = str(child.get("kind", "object")), str(metadata.get("name", ""))
    metrics.RECONCILE_PANICS.labels(kind).inc()
    fields = {"kind": kind, "namespace": metadata.get("namespace", ""), "object": name}
    log.error("a child could not be read: this is a bug", extra=fields, exc_info=error)
    return (
        f"{kind} {name} could not be read ({type(error).__name__}): this is a bug of the operator; its log has the "
        "details, and everything else continues"
    )
