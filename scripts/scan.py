"""Scans the images' packages for known vulnerabilities: `make scan GRYPE_DB=...`.

grype compares the bills of materials of `make sbom` with a local database: a folder that grype maintains, or an
archive of one. Nothing is downloaded. Exit codes: 0 no finding of that severity or above, 1 findings, 2 not
scanned.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEVERITIES = ("negligible", "low", "medium", "high", "critical")
CLEAN, FINDINGS, NOT_SCANNED = 0, 1, 2


class ScanFailed(Exception):
    """The scan did not run; the text says why, and what to do."""


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Scan each bill of materials; print the findings and the database's date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "sbom", help="bills of materials, *.cdx.json")
    parser.add_argument("--fail-on", choices=SEVERITIES, default="medium", help="severity from which on it fails")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            program, settings = _grype(environment, Path(scratch))
            built = _database(program, settings)
            bills = sorted(options.folder.glob("*.cdx.json"))
            if not bills:
                raise ScanFailed(f"no bill of materials in {options.folder}: run `make sbom` first")
            grave = sum(_scan(program, settings, bill, options.fail_on) for bill in bills)
    except ScanFailed as error:
        print(f"not scanned: {error}", file=sys.stderr)
        return NOT_SCANNED
    print(f"{len(bills)} images, {grave} findings from {options.fail_on} on, by the database of {built}")
    return FINDINGS if grave else CLEAN


def _grype(environment: Mapping[str, str], scratch: Path) -> tuple[str, dict[str, str]]:
    """Return the program, and an environment in which it uses the given database and no network."""
    location = environment.get("GRYPE_DB", "")
    if not location:
        raise ScanFailed("no database. Name a folder or an archive of grype's: make scan GRYPE_DB=...")
    database = Path(location)
    if not database.exists():
        raise ScanFailed(f"no database: GRYPE_DB is {database}, and nothing is there")
    program = environment.get("GRYPE") or shutil.which("grype", path=environment.get("PATH"))
    if not program:
        raise ScanFailed("no grype on the PATH. Install it, or name it: GRYPE=...")
    settings = {
        **environment,
        "GRYPE_DB_CACHE_DIR": str(database if database.is_dir() else scratch / "db"),
        "GRYPE_DB_AUTO_UPDATE": "false",
        "GRYPE_DB_REQUIRE_UPDATE_CHECK": "false",
        # The owner decides how old the database may be; its date is printed.
        "GRYPE_DB_VALIDATE_AGE": "false",
        "GRYPE_CHECK_FOR_APP_UPDATE": "false",
    }
    if not database.is_dir():
        _run(program, settings, "db", "import", str(database))
    return program, settings


def _database(program: str, settings: Mapping[str, str]) -> str:
    """Return when the database was built. Raises ScanFailed for one that grype rejects, which would give no
    findings."""
    status = _json(_run(program, settings, "db", "status", "-o", "json"), "db status")
    if not isinstance(status, dict) or status.get("valid") is not True or not status.get("built"):
        raise ScanFailed(f"no database that can be used: grype says {json.dumps(status)[:300]}")
    return str(status["built"])


def _scan(program: str, settings: Mapping[str, str], bill: Path, fail_on: str) -> int:
    """Print all findings, and return how many are severe."""
    report = _json(_run(program, settings, f"sbom:{bill}", "-o", "json"), bill.name)
    matches = report.get("matches") if isinstance(report, dict) else None
    if not isinstance(matches, list):
        raise ScanFailed(f"{bill.name}: grype's answer has no list of matches")
    grave = 0
    for match in matches:
        vulnerability, artifact = match["vulnerability"], match["artifact"]
        severity = str(vulnerability.get("severity", "")).lower()
        # A finding without a severity counts as severe.
        counts = severity not in SEVERITIES or SEVERITIES.index(severity) >= SEVERITIES.index(fail_on)
        grave += counts
        fixes = ", ".join((vulnerability.get("fix") or {}).get("versions") or ()) or "no fix"
        image = bill.name.removesuffix(".cdx.json")
        finding = f"{image}: {artifact['name']} {artifact['version']}: {vulnerability['id']}"
        print(f"{finding} ({severity or 'unrated'}; {fixes}){'' if counts else ', below the bound'}")
    return grave


def _run(program: str, settings: Mapping[str, str], *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], env=dict(settings), capture_output=True, text=True, check=False)
    except OSError as error:
        raise ScanFailed(f"{program} can't be run: {error.strerror}") from error
    if done.returncode:
        raise ScanFailed(f"grype {' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ScanFailed(f"{what}: grype's answer is no JSON") from None


if __name__ == "__main__":
    sys.exit(main())
