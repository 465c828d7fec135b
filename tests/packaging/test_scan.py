"""`make scan`: what was not compared is never called clean. A stand-in for grype answers from the database's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import scan

# The database is a folder with `rows.json`: a list of (package, id, severity).
GRYPE = """#!/usr/bin/env python3
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["GRYPE_DB_CACHE_DIR"])
assert os.environ["GRYPE_DB_AUTO_UPDATE"] == "false"
if sys.argv[1:3] == ["db", "import"]:
    folder.mkdir(parents=True)
    (folder / "rows.json").write_text(pathlib.Path(sys.argv[3]).read_text())
elif sys.argv[1:3] == ["db", "status"]:
    there = (folder / "rows.json").exists()
    print(json.dumps({"valid": there, "built": "2026-11-29T00:00:00Z" if there else None}))
else:
    held = json.loads(pathlib.Path(sys.argv[1].removeprefix("sbom:")).read_text())["components"]
    rows = json.loads((folder / "rows.json").read_text())
    print(json.dumps({"matches": [
        {"vulnerability": {"id": row[1], "severity": row[2], "fix": {"versions": ["2.0"]}},
         "artifact": {"name": c["name"], "version": c["version"]}}
        for c in held for row in rows if row[0] == c["name"]
    ]}))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with `grype`, a bill of materials in `sbom` and an empty database in `db`."""
    (tmp_path / "sbom").mkdir()
    held = {"components": [{"name": "aiohttp", "version": "3.12.0"}, {"name": "kopf", "version": "1.45.0"}]}
    (tmp_path / "sbom" / "operator.cdx.json").write_text(json.dumps(held))
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "rows.json").write_text("[]")
    (tmp_path / "grype").write_text(GRYPE)
    (tmp_path / "grype").chmod(0o755)
    return tmp_path


def run(place: Path, **environment: str) -> int:
    given = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GRYPE": str(place / "grype"), **environment}
    return scan.main(["--folder", str(place / "sbom")], given)


def test_a_seeded_row_is_found_and_fails(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "db" / "rows.json").write_text('[["aiohttp", "CVE-2026-0001", "High"]]')
    assert run(place, GRYPE_DB=str(place / "db")) == scan.FINDINGS
    assert "operator: aiohttp 3.12.0: CVE-2026-0001 (high; 2.0)" in capsys.readouterr().out


def test_an_archive_is_a_database_too(place: Path) -> None:
    (place / "db.tar.gz").write_text('[["kopf", "CVE-2026-0002", "Critical"]]')
    assert run(place, GRYPE_DB=str(place / "db.tar.gz")) == scan.FINDINGS


@pytest.mark.parametrize(("severity", "code"), [("Low", 0), ("Negligible", 0), ("Medium", 1), ("Unknown", 1), ("", 1)])
def test_what_counts_is_graver_than_low_or_not_rated(place: Path, severity: str, code: int) -> None:
    (place / "db" / "rows.json").write_text(json.dumps([["kopf", "CVE-2026-0003", severity]]))
    assert run(place, GRYPE_DB=str(place / "db")) == code


def test_nothing_found_names_the_database(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, GRYPE_DB=str(place / "db")) == scan.CLEAN
    assert "0 findings from medium on, by the database of 2026-11-29" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "environment", "text"),
    [
        ("none is named", {}, "no database"),
        ("it isn't there", {"GRYPE_DB": "{place}/nowhere"}, "no database"),
        ("it is empty", {"GRYPE_DB": "{place}/empty"}, "no database that can be used"),
        ("grype is missing", {"GRYPE_DB": "{place}/db", "GRYPE": "", "PATH": ""}, "no grype"),
        ("grype can't be run", {"GRYPE_DB": "{place}/db", "GRYPE": "{place}/sbom"}, "can't be run"),
        ("grype fails", {"GRYPE_DB": "{place}/db", "GRYPE": "/bin/false"}, "ended with 1"),
        ("grype says nothing", {"GRYPE_DB": "{place}/db", "GRYPE": "/bin/true"}, "no JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_was_not_compared_is_not_clean(
    place: Path, capsys: pytest.CaptureFixture[str], what: str, environment: dict[str, str], text: str
) -> None:
    (place / "empty").mkdir()
    assert run(place, **{name: value.format(place=place) for name, value in environment.items()}) == scan.NOT_SCANNED
    said = capsys.readouterr()
    assert text in said.err
    assert "findings" not in said.out + said.err


def test_without_a_bill_of_materials_nothing_was_looked_at(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "sbom" / "operator.cdx.json").unlink()
    assert run(place, GRYPE_DB=str(place / "db")) == scan.NOT_SCANNED
    assert "no bill of materials" in capsys.readouterr().err
