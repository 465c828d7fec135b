"""Policies kept by records: a short one in the record, a longer one once for each content in a ControllerRevision.

The object's name ends with a hash of its content, and the record has that name: an object that anyone created, edited
or replaced never passes for the policy with which a rollout or a run started (docs/adr/0035).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelwright.api import names

Json = dict[str, Any]

INLINE_LIMIT_BYTES: Final = 8 << 10
"""Largest policy, as compact JSON, that the record keeps itself: twice the longest known one."""
HASH_LENGTH: Final = 32
"""160 bits, so that finding a second policy for a name is infeasible."""


def policy_object_name(policy: str, spec: Mapping[str, Any]) -> str:
    """Return the name of the ControllerRevision that holds this spec of a policy."""
    kept = policy[: names.OBJECT_NAME_MAX - HASH_LENGTH - 1].rstrip("-.")
    return f"{kept}-{names.content_hash(spec, HASH_LENGTH)}"


def build_policy_object(namespace: str, name: str, spec: Mapping[str, Any]) -> Json:
    """Build the ControllerRevision of this name.

    It has no owner: records of several Models share it, and outlive Models and policies.
    """
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ROLE: names.ROLE_POLICY}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "revision": 1,
        "data": {"spec": dict(spec)},
    }


def read_policy_spec(obj: Mapping[str, Any] | None, name: str) -> Json | None:
    """Read the stored spec; None when there is none, or when its content doesn't match the hash in the name."""
    data = (obj or {}).get("data")
    spec = data.get("spec") if isinstance(data, dict) else None
    if not isinstance(spec, dict):
        return None
    try:
        found_hash = names.content_hash(spec, HASH_LENGTH)
    except (ValueError, RecursionError):
        return None
    return spec if found_hash == name.rpartition("-")[2] else None
