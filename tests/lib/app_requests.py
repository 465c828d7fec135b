"""Requests that the API server saw of the operator."""

from __future__ import annotations

import json
from typing import Any

from devcluster import ControlPlane


def requests(plane: ControlPlane, since: int = 0) -> list[dict[str, Any]]:
    """What the operator and Kopf inside it asked for, after `since` bytes of the audit log."""
    with plane.audit_log.open("rb") as file:
        file.seek(since)
        entries = [json.loads(line) for line in file if line.endswith(b"\n")]
    return [e for e in entries if e.get("userAgent", "").startswith(("modelwright", "kopf"))]
