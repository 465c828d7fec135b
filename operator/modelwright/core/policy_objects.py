"""Policies as records keep them: a short one in the record, a longer one once for each content in a ControllerRevision.

Its name ends with a hash of what it holds, and the record has that name: nothing else passes for the policy that a
rollout or a run began with, whoever has made, edited or replaced that object (docs/adr/0035).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelwright.api import names

Json = dict[str, Any]

INLINE_LIMIT_BYTES: Final = 8 << 10
"""What a policy may have as compact JSON to be kept in the record: twice the longest that is known."""
HASH_LENGTH: Final = 32
"""160 bits: nobody finds a second policy for a name."""


def policy_object_name(policy: str, spec: Mapping[str, Any]) -> str:
    """Name of the ControllerRevision that holds this spec of a policy."""
    kept = policy[: names.OBJECT_NAME_MAX - HASH_LENGTH - 1].rstrip("-.")
    return f"{kept}-{names.content_hash(spec, HASH_LENGTH)}"


def build_policy_object(namespace: str, name: str, spec: Mapping[str, Any]) -> Json:
    """The ControllerRevision of this name. Records of several Models share it, and outlive Models and policies: it has
    no owner."""
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ROLE: names.ROLE_POLICY}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "revision": 1,
        "data": {"spec": dict(spec)},
    }


def read_policy_spec(found: Mapping[str, Any] | None, name: str) -> Json | None:
    """The spec that is stored under this name; None when that is not what the name says, or there is nothing."""
    data = (found or {}).get("data")
    spec = data.get("spec") if isinstance(data, dict) else None
    if not isinstance(spec, dict):
        return None
    try:
        found_hash = names.content_hash(spec, HASH_LENGTH)
    except (ValueError, RecursionError):
        return None
    return spec if found_hash == name.rpartition("-")[2] else None
