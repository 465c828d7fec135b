"""Findings of `lint` for other programs: GitHub workflow commands, and SARIF 2.1.0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from modelwright.cli.manifest_lint import LintFinding

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}
_SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def github_commands(findings: Iterable[LintFinding]) -> Iterator[str]:
    """Yield a workflow command for each finding, which GitHub shows at its line:
    https://docs.github.com/actions/reference/workflow-commands-for-github-actions"""
    for finding in findings:
        place = [f"file={_escape_property(finding.file)}", *([f"line={finding.line}"] if finding.line else [])]
        yield f"::{_LEVELS[finding.level]} {','.join(place)}::{_escape_data(_finding_message(finding))}"


def sarif_report(findings: Iterable[LintFinding]) -> dict[str, Any]:
    """Build a SARIF log with one run, and a result for each finding."""
    return {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "kubectl-modelwright lint", "rules": []}},
                "results": [_sarif_result(finding) for finding in findings],
            }
        ],
    }


def _sarif_result(finding: LintFinding) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": finding.file}}
    if finding.line:
        place["region"] = {"startLine": finding.line}
    return {
        "level": finding.level,
        "message": {"text": _finding_message(finding)},
        "locations": [{"physicalLocation": place}],
    }


def _finding_message(finding: LintFinding) -> str:
    """Format subject and text of a finding, without the file."""
    return f"{finding.subject}: {finding.text}" if finding.subject else finding.text


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")
