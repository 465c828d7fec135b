"""The result of a data check by the training contract: JSON of at most 4096 bytes, failed checks first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from datacheck.checks import CheckResult

TERMINATION_BYTES = 4096
"""What the kubelet keeps of a termination message."""
MESSAGE_LENGTHS = (500, 250, 120, 60)


def format_result(checks: Sequence[CheckResult], profile: Mapping[str, Any] | None) -> str:
    """Failed checks first, with messages as long as there is room. When something failed there is no profile: no check
    compares with such a dataset. Passes are left out when they have no room, and so are failures beyond it, which a
    last one counts. Raises ValueError without a check."""
    if not checks:
        raise ValueError("a result needs at least one check")
    failed = [check for check in checks if not check.passed]
    passed = [check for check in checks if check.passed]
    base: dict[str, Any] = {} if profile is None or failed else {"profile": dict(profile)}
    told = _fit_failures(failed, base)
    for check in passed:
        for length in (200, 0):
            more = [*told, check.to_json(length) if length else {"name": check.name[:128], "outcome": "Pass"}]
            if _fits_limit(base, more):
                told = more
                break
    return _format_json(base, told)


def _fit_failures(failed: Sequence[CheckResult], base: Mapping[str, Any]) -> list[dict[str, str]]:
    for length in MESSAGE_LENGTHS:
        told = [check.to_json(length) for check in failed]
        if _fits_limit(base, told):
            return told
    kept = len(failed)
    while kept:
        kept -= 1
        rest = CheckResult("more", False, f"{len(failed) - kept} more checks failed; the log of the pod has them all")
        told = [*(check.to_json(MESSAGE_LENGTHS[-1]) for check in failed[:kept]), rest.to_json(MESSAGE_LENGTHS[0])]
        if _fits_limit(base, told):
            break
    return told


def _fits_limit(base: Mapping[str, Any], checks: Sequence[Mapping[str, str]]) -> bool:
    return len(_format_json(base, checks).encode()) <= TERMINATION_BYTES


def _format_json(base: Mapping[str, Any], checks: Sequence[Mapping[str, str]]) -> str:
    return json.dumps({"checks": list(checks), **base}, separators=(",", ":"), ensure_ascii=False)
