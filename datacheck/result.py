"""The result of a data check in the training contract's form: JSON of at most 4096 bytes, failed checks first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from datacheck.checks import CheckResult

TERMINATION_BYTES = 4096
"""Bytes of a termination message that the kubelet keeps."""
MESSAGE_LENGTHS = (500, 250, 120, 60)


def format_result(checks: Sequence[CheckResult], profile: Mapping[str, Any] | None) -> str:
    """Format failed checks first, with the longest messages that fit.

    A failed dataset has no profile: no later check compares with it. Passed checks are left out without room, as are
    failures, which a last check then counts. Raises ValueError without a check.
    """
    if not checks:
        raise ValueError("a result needs at least one check")
    failed = [check for check in checks if not check.passed]
    passed = [check for check in checks if check.passed]
    base: dict[str, Any] = {} if profile is None or failed else {"profile": dict(profile)}
    entries = _fit_failures(failed, base)
    for check in passed:
        for length in (200, 0):
            more = [*entries, check.to_json(length) if length else {"name": check.name[:128], "outcome": "Pass"}]
            if _fits_limit(base, more):
                entries = more
                break
    return _format_json(base, entries)


def _fit_failures(failed: Sequence[CheckResult], base: Mapping[str, Any]) -> list[dict[str, str]]:
    for length in MESSAGE_LENGTHS:
        entries = [check.to_json(length) for check in failed]
        if _fits_limit(base, entries):
            return entries
    count = len(failed)
    while count:
        count -= 1
        rest = CheckResult("more", False, f"{len(failed) - count} more checks failed; the log of the pod has them all")
        entries = [*(check.to_json(MESSAGE_LENGTHS[-1]) for check in failed[:count]), rest.to_json(MESSAGE_LENGTHS[0])]
        if _fits_limit(base, entries):
            break
    return entries


def _fits_limit(base: Mapping[str, Any], checks: Sequence[Mapping[str, str]]) -> bool:
    return len(_format_json(base, checks).encode()) <= TERMINATION_BYTES


def _format_json(base: Mapping[str, Any], checks: Sequence[Mapping[str, str]]) -> str:
    return json.dumps({"checks": list(checks), **base}, separators=(",", ":"), ensure_ascii=False)
