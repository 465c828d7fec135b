"""What Kueue says of an object that waits for quota: the words of its Workload's conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_JOB_UID = "kueue.x-k8s.io/job-uid"


def workload_selector(uid: str) -> str:
    """Label selector of the Workloads (kueue.x-k8s.io) of an object with this uid."""
    return f"{_JOB_UID}={uid}"


def explain_waiting(workloads: Sequence[Mapping[str, Any]]) -> str:
    """Why it has no quota, and why it lost what it had; empty when Kueue has said nothing yet."""
    told = []
    for workload in workloads:
        conditions = (workload.get("status") or {}).get("conditions") or ()
        by_type = {condition.get("type"): condition for condition in conditions}
        for type_, status in (("Evicted", "True"), ("QuotaReserved", "False")):
            condition = by_type.get(type_) or {}
            if condition.get("status") == status and condition.get("message"):
                told.append(str(condition["message"]))
    return "; ".join(dict.fromkeys(told))
