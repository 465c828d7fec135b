"""Prints findings of `doctor` and determines its exit code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from modelwright.cli.doctor.registry import DoctorFinding, Severity
from modelwright.cli.printing import print_text

MAX_PRINTED = 10
"""The most printed findings of one check; -o json has all."""

NamedFindings = Sequence[tuple[str, DoctorFinding]]


def print_report(findings: NamedFindings, output: str) -> int:
    """Print the findings and return the exit code."""
    counts = Counter(finding.level for _, finding in findings)
    if output == "json":
        reported = [{"check": name, **asdict(finding)} for name, finding in findings]
        print_text(
            json.dumps(
                {
                    "findings": reported,
                    "faults": counts[Severity.FAULT],
                    "warnings": counts[Severity.WARNING],
                    "notPermitted": counts[Severity.HIDDEN],
                },
                indent=2,
            )
        )
    else:
        for line in report_lines(findings):
            print_text(line)
    return 1 if counts[Severity.FAULT] else 0


def report_lines(findings: NamedFindings) -> Iterable[str]:
    """Yield a line for each finding, and one with the totals."""
    printed: Counter[str] = Counter()
    totals = Counter(name for name, _ in findings)
    for name, finding in findings:
        printed[name] += 1
        if printed[name] <= MAX_PRINTED:
            yield _format_finding(name, finding)
        elif printed[name] == totals[name]:
            yield f"{'':15}{name}: {totals[name] - MAX_PRINTED} more; -o json has all"
    counts = Counter(finding.level for _, finding in findings)
    reported = ((Severity.FAULT, "faults"), (Severity.WARNING, "warnings"), (Severity.HIDDEN, "not permitted to see"))
    yield ", ".join(f"{counts[level]} {words}" for level, words in reported)


def _format_finding(name: str, finding: DoctorFinding) -> str:
    about = f"{finding.about}: " if finding.about else ""
    # An object's text may have several lines.
    text = " ".join(f"{about}{finding.text}".split())
    return f"{finding.level:<15}{name}: {text}" + (f"; cure: {finding.cure}" if finding.cure else "")
