"""Writes the measured figures into README.md (the main ones) and docs/figures/README.md (all with a bound, and the
recorded runs), from docs/figures/*.json; `--check` reports differences."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.flakes import BOUND, LOAD, Summary

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "figures"
BEGIN, END = "<!-- figures: made by scripts/figures.py -->", "<!-- end of figures -->"

MAIN = (
    (
        "Rollback of a bad version: from the last bad sample to 0 % of callers, beyond scrape and query interval",
        "rollback",
        "bad version: to 0 %, beyond scrape and query interval",
    ),
    (
        "Requests lost, of 20,000, during changes of version, drained nodes and killed pods",
        "no-request-lost",
        "requests lost",
    ),
    ("Requests lost during an API server outage in two canaries", "outage", "requests lost"),
    (
        "Versions with harm beyond the margins that the default policy promoted",
        "simulate",
        "default policy, 20 requests/s, harm beyond the margins, 5 cases: promoted, most",
    ),
    ("Versions equal to the old one that were rolled back", "simulate", "A/A, default margins: rolled back"),
    (
        "Equal candidates that passed an evaluation gate with five slices, at the documented number of examples",
        "gates",
        "equal candidate, five slices, documented n, 12 cases: passes, least",
    ),
    (
        "Candidates worse by twice the limit that passed the evaluation gate, at any number of examples",
        "gates",
        "worse by twice the limit, 144 cases: passes, most",
    ),
    (
        "From drift to the retrained model in service, in the demo",
        "demo",
        "drift: from the first shifted request to the new model in service",
    ),
    (
        "Stories that ended differently under a fault of the API server",
        "faults",
        "stories that did not end as without faults",
    ),
    ("A canary of five steps: writes", "scale-rollouts", "N=100 rollouts: writes each"),
    (
        "From an edit to the first status write, p99, during 100 rollouts",
        "scale-rollouts",
        "N=100 spec edit to first status write, p99 seconds",
    ),
    (
        "500 Models: time to create all, relative to a bare operator in the same run",
        "scale-spike",
        "N=500 named, create: seconds, times the spike's",
    ),
    (
        "500 Models: time to change all, relative to it",
        "scale-spike",
        "N=500 named, change: seconds, times the spike's",
    ),
    (
        "500 Models: restart of the operator, relative to it",
        "scale-spike",
        "N=500 named, restart: seconds to quiet, times the spike's",
    ),
    ("500 Models: CPU of the operator to create each", "scale-spike", "N=500 named, create: CPU ms a Model"),
    ("500 Models: CPU of the operator to change each", "scale-spike", "N=500 named, change: CPU ms a Model"),
    ("500 Models: writes to create each", "scale-spike", "N=500 named, create: writes a Model"),
    ("500 Models: writes to change each", "scale-spike", "N=500 named, change: writes a Model"),
    ("500 Models: writes while idle", "scale", "N=500 idle: writes"),
    ("500 Models: writes at a restart of the operator", "scale-spike", "N=500 named, restart: writes"),
    ("500 Models: peak memory, while all change", "scale-spike", "N=500 named, change: peak memory MiB"),
    ("1,000 Models: peak memory", "scale-1000", "N=1000 peak memory MiB"),
    (
        "Fetch of one large file: speed relative to the best S3 client (rclone)",
        "fetch",
        "one file of 400 MB: modelwright fetch to the best S3 client (rclone)",
    ),
    (
        "Fetch of 10,000 small files, relative to it",
        "fetch",
        "10000 files of 10 kB: modelwright fetch to the best S3 client (rclone)",
    ),
)
"""The figure's name in README, its file, and its name in the file."""


def _files() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob("*.json")):
        content = json.loads(path.read_text())
        if "figures" in content:
            yield path.stem, content


def _row(what: str, figure: dict[str, Any]) -> str:
    unit = figure["unit"].replace("count", "")
    bound = figure.get("bound")
    holds = "–" if bound is None else "yes" if figure["holds"] else "**no**"
    span = " ({:g} to {:g})".format(*figure["interval"]) if "interval" in figure else ""
    return f"| {what} | {figure['value']:g} {unit}{span} | {'–' if bound is None else bound} | {holds} |"


def main_table() -> str:
    """Render a row for each of MAIN whose file exists. Raises KeyError for a missing figure."""
    figures_by_file = {file: {figure["name"]: figure for figure in content["figures"]} for file, content in _files()}
    rows = [_row(label, figures_by_file[file][name]) for label, file, name in MAIN if file in figures_by_file]
    return "\n".join(["| what | measured | target | holds |", "|---|---|---|---|", *rows])


def all_tables() -> str:
    """Render a table for each file, with the figures that have a bound."""
    parts = []
    for name, content in _files():
        host = content["host"]
        rows = [_row(figure["name"], figure) for figure in content["figures"] if figure.get("bound") is not None]
        parts += [
            f"### {name}\n",
            f"[{name}.json]({name}.json): `{content['command']}`, {content['date'][:10]}, commit "
            f"{content['commit'][:7]}, {host['cores']} cores, {host['memoryGiB']} GiB.\n",
            *(["| figure | measured | target | holds |", "|---|---|---|---|", *rows, ""] if rows else []),
        ]
    return "\n".join([*parts, _flake_table(), _peer_table()]).strip()


def _figure_rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())["rows"]
    return rows


def _flake_table() -> str:
    """Render whole runs of the suite: the bound, and each run."""
    rows = _figure_rows("flakes")
    totals = Summary.of(rows)
    since = f"; since then {totals.streak} passed" if totals.failed else ""
    measured = f"{totals.failed} of {totals.runs}{since}, {totals.beside_load} beside a load of {LOAD}"
    holds = "yes" if totals.holds else "**not yet**"
    runs = [
        f"| {row['date'][:10]} | {row['commit'][:7]} | {row['seed']} | {row['load']} | {row['seconds']} s "
        f"| {', '.join(row['failed']) or '–'} | {row['cause'] or '–'} |"
        for row in rows
    ]
    return "\n".join(
        [
            "### flakes\n",
            "[flakes.json](flakes.json): `make flakes`, or runs made elsewhere.\n",
            "| figure | measured | target | holds |",
            "|---|---|---|---|",
            f"| whole runs of `make test` that failed | {measured} | {BOUND} | {holds} |\n",
            *_table("date | commit | seed | load | took | failed | cause", runs),
        ]
    )


def _peer_table() -> str:
    """Render the newest run of each peer."""
    runs = [
        f"| {row['peer']} | {row['version']} | {row['outcome']} | {row['date'][:10]} | {row['commit'][:7]} "
        f"| {row['seconds']} s |"
        for row in _figure_rows("peers")
    ]
    return "\n".join(
        [
            "### peers\n",
            "[peers.json](peers.json): `make test-peers`. `make verify` lists what is to be run again since.\n",
            *_table("peer | version | outcome | date | commit | took", runs),
        ]
    )


def _table(columns: str, rows: list[str]) -> list[str]:
    if not rows:
        return ["No run is recorded yet.\n"]
    return [f"| {columns} |", "|---" * (columns.count("|") + 1) + "|", *rows, ""]


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds a difference."""
    for page, table in ((ROOT / "README.md", main_table()), (FOLDER / "README.md", all_tables())):
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        wanted = f"{before}{BEGIN}\n{table}\n{END}{after}"
        if text == wanted:
            continue
        if "--check" in arguments:
            print(f"{page.relative_to(ROOT)} doesn't show docs/figures as they are: run `make generate`")
            return 1
        page.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
