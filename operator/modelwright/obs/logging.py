"""Writes logs as JSON, one object a line, on standard error; includes Kopf's own lines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Attributes that Kopf adds to its records: settings cannot be serialized, and k8s_ref becomes fields of our own.
_KOPF_FIELDS = frozenset({"settings", "k8s_skip", "k8s_ref"})


class JsonFormatter(logging.Formatter):
    """Formats time, level, logger, message, the fields given as `extra`, and the traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        reference = getattr(record, "k8s_ref", None)
        if isinstance(reference, dict):
            line |= {"kind": reference.get("kind"), "namespace": reference.get("namespace") or ""}
            line["object"] = reference.get("name")
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD_FIELDS and k not in _KOPF_FIELDS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Make the root logger write JSON lines only; replaces any earlier configuration."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    # Kopf and the Kubernetes client may show whole bodies at DEBUG, of a TokenReview too, and asyncio each slow step:
    # none of it helps to debug the operator.
    for name in ("kopf", "asyncio", "aiohttp", "kubernetes"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.INFO))
    # One line for each watched event, which says only that it was handled, and takes a fifth of the time of handling
    # it.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
