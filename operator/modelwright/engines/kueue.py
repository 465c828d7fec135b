"""Reads from Kueue's Workloads why an object waits for quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_JOB_UID = "kueue.x-k8s.io/job-uid"


def workload_selector(uid: str) -> str:
    """Build the label selector of the Workloads (kueue.x-k8s.io) of the object with this uid."""
    return f"{_JOB_UID}={uid}"


def explain_waiting(workloads: Sequence[Mapping[str, Any]]) -> str:
    """Explain why the object has no quota, or why it was evicted, by Kueue's messages; empty without any."""
    messages = []
    for workload in workloads:
        conditions = (workload.get("status") or {}).get("conditions") or ()
        by_type = {condition.get("type"): condition for condition in conditions}
        for type_, status in (("Evicted", "True"), ("QuotaReserved", "False")):
            condition = by_type.get(type_) or {}
            if condition.get("status") == status and condition.get("message"):
                messages.append(str(condition["message"]))
    return "; ".join(dict.fromkeys(messages))
