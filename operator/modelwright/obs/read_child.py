"""Reads what one child says, so that a child that can't be read is that child's Error and ends no pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modelwright.obs import metrics

log = logging.getLogger(__name__)

T = TypeVar("T")


def read_child(child: Mapping[str, Any], read: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """What `read` makes of `child`. An exception of it is a bug of ours, whatever the child says: it is counted, logged
    with the object, and `otherwise` makes a value of the text that says so to people."""
    try:
        return read()
    except Exception as error:
        return otherwise(record_bug(child, error))


def record_bug(child: Mapping[str, Any], error: Exception) -> str:
    """Count and log an exception that came of reading `child`; what to say of it to people."""
    metadata = child.get("metadata") or {}
    kind, name = str(child.get("kind", "object")), str(metadata.get("name", ""))
    metrics.RECONCILE_PANICS.labels(kind).inc()
    where = {"kind": kind, "namespace": metadata.get("namespace", ""), "object": name}
    log.error("a child could not be read: this is a bug", extra=where, exc_info=error)
    return (
        f"{kind} {name} could not be read ({type(error).__name__}): this is a bug of the operator, whose log has more; "
        "the rest goes on"
    )
