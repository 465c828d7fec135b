"""Scans a folder and writes the report for the kubelet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwright.agents import program
from modelwright.agents.environment import AgentSettingsError
from modelwright.agents.gate_report import write_report
from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.artifact_scan import ArtifactScan


@dataclass(frozen=True)
class ScannerSettings:
    """Settings of the scanner, read once from the environment."""

    root: Path  # CANDIDATE_DIR: the artifact
    allowed: AllowList  # ALLOWED_GLOBALS and ALLOWED_FILES, lists as JSON
    termination_log: Path  # MODELWRIGHT_TERMINATION_LOG


def run_scanner(environment: Mapping[str, str] | None = None) -> int:
    """Return the exit code: 0 with a report, of any outcome; 2 if a setting is invalid."""
    return program.run_program(read_scanner_settings, _report_scan, environment)


def read_scanner_settings(environment: Mapping[str, str]) -> ScannerSettings:
    """Read the settings from the environment. AgentSettingsError names a missing variable."""
    try:
        return ScannerSettings(
            Path(environment["CANDIDATE_DIR"]),
            AllowList(
                json.loads(environment.get("ALLOWED_GLOBALS", "[]")), json.loads(environment.get("ALLOWED_FILES", "[]"))
            ),
            Path(environment.get("MODELWRIGHT_TERMINATION_LOG", "/dev/termination-log")),
        )
    except (KeyError, ValueError) as error:
        raise AgentSettingsError(str(error)) from error


def _report_scan(settings: ScannerSettings) -> int:
    findings = ArtifactScan(settings.allowed).scan_folder(settings.root)
    for line in findings.log_lines():
        print(line)
    write_report(findings.build_report(), settings.termination_log)
    return 0
