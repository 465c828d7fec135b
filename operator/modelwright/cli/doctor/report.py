"""How findings of `doctor` are printed, and its exit code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from modelwright.cli.doctor.registry import Finding, Level
from modelwright.cli.printing import say

MOST = 10
"""Findings of one check that are printed; -o json has all."""

Findings = Sequence[tuple[str, Finding]]


def report(findings: Findings, output: str) -> int:
    """Prints the findings; the exit code."""
    counts = Counter(finding.level for _, finding in findings)
    if output == "json":
        reported = [{"check": name, **asdict(finding)} for name, finding in findings]
        say(json.dumps({"findings": reported, "faults": counts[Level.FAULT], "warnings": counts[Level.WARNING],
                        "notPermitted": counts[Level.HIDDEN]}, indent=2))  # fmt: skip
    else:
        for line in lines(findings):
            say(line)
    return 1 if counts[Level.FAULT] else 0


def lines(findings: Findings) -> Iterable[str]:
    """A line for each finding, and one that counts them."""
    printed: Counter[str] = Counter()
    totals = Counter(name for name, _ in findings)
    for name, finding in findings:
        printed[name] += 1
        if printed[name] <= MOST:
            yield _line(name, finding)
        elif printed[name] == totals[name]:
            yield f"{'':15}{name}: {totals[name] - MOST} more; -o json has all"
    counts = Counter(finding.level for _, finding in findings)
    reported = ((Level.FAULT, "faults"), (Level.WARNING, "warnings"), (Level.HIDDEN, "not permitted to see"))
    yield ", ".join(f"{counts[level]} {words}" for level, words in reported)


def _line(name: str, finding: Finding) -> str:
    about = f"{finding.about}: " if finding.about else ""
    # A text of an object may have several lines.
    text = " ".join(f"{about}{finding.text}".split())
    return f"{finding.level:<15}{name}: {text}" + (f"; cure: {finding.cure}" if finding.cure else "")
