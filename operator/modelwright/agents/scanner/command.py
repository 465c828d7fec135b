"""Scans a folder and leaves the result for the kubelet. Exit code 0: there is a result, whatever it says."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from modelwright.agents.prober.command import truncate_message
from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.artifact_scan import ArtifactScan

SETTINGS_WRONG = 2


def run_scanner(environment: Mapping[str, str] | None = None) -> int:
    """CANDIDATE_DIR is the artifact; ALLOWED_GLOBALS and ALLOWED_FILES are lists as JSON; the result goes to
    MODELWRIGHT_TERMINATION_LOG."""
    variables = os.environ if environment is None else environment
    try:
        root = Path(variables["CANDIDATE_DIR"])
        allowed = AllowList(
            json.loads(variables.get("ALLOWED_GLOBALS", "[]")), json.loads(variables.get("ALLOWED_FILES", "[]"))
        )
    except (KeyError, ValueError) as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    findings = ArtifactScan(allowed).scan_folder(root)
    for line in findings.log_lines():
        print(line)
    text = truncate_message(findings.build_report())
    print(text, flush=True)
    path = Path(variables.get("MODELWRIGHT_TERMINATION_LOG", "/dev/termination-log"))
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        # Outside of a pod there is no such file.
        print(f"the result can't be left in {path}: {error}", file=sys.stderr)
    return 0
