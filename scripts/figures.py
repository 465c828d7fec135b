"""Writes the measured figures into README.md (the main ones) and docs/figures/README.md (all that have a bound), from
docs/figures/*.json; `--check` says whether they differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "figures"
BEGIN, END = "<!-- figures: made by scripts/figures.py -->", "<!-- end of figures -->"

MAIN = (
    ("A bad version: from the last bad sample to 0 % of the callers, beyond scrape and query interval",
     "rollback", "bad version: to 0 %, beyond scrape and query interval"),
    ("Requests lost, of 20,000 through changes of version, drained nodes and killed pods",
     "no-request-lost", "requests lost"),
    ("Requests lost while the API server is away in the middle of two canaries", "outage", "requests lost"),
    ("Harm beyond the margins: rolled out nevertheless, default policy",
     "simulate", "default policy, 20 requests/s, harm beyond the margins, 5 cases: promoted, most"),
    ("A good version that is the same as the old one: rolled back", "simulate", "A/A, default margins: rolled back"),
    ("From drift to the newly trained model in service, in the demo",
     "demo", "drift: from the first shifted request to the new model in service"),
    ("Stories under every fault of the API server that ended otherwise than without",
     "faults", "stories that did not end as without faults"),
    ("A canary of five steps: writes", "scale-rollouts", "N=100 rollouts: writes each"),
    ("From an edit to the first word of the status, p99, while 100 rollouts go on",
     "scale-rollouts", "N=100 spec edit to first status write, p99 seconds"),
    ("500 Models: from nothing to serving", "scale", "N=500 create: seconds"),
    ("500 Models: all to another version", "scale", "N=500 change: seconds"),
    ("500 Models: CPU of the operator for each", "scale", "N=500 create: CPU ms a Model"),
    ("500 Models: writes to make each", "scale", "N=500 create: writes a Model"),
    ("500 Models: writes while nothing happens", "scale", "N=500 idle: writes"),
    ("500 Models: writes at a restart of the operator", "scale", "N=500 restart: writes"),
    ("500 Models: memory", "scale", "N=500 memory MiB"),
    ("1,000 Models: memory at its peak (at most 200 MiB)", "scale-1000", "N=1000 peak memory MiB"),
    ("Fetching one large file, to the best S3 client (rclone)",
     "fetch", "one file of 400 MB: modelwright fetch to the best S3 client (rclone)"),
    ("Fetching 10,000 small files, to the same",
     "fetch", "10000 files of 10 kB: modelwright fetch to the best S3 client (rclone)"),
)  # fmt: skip
"""What it is, in a reader's words; the file that has it; its name there."""


def _files() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob("*.json")):
        yield path.stem, json.loads(path.read_text())


def _row(what: str, figure: dict[str, Any]) -> str:
    unit = figure["unit"].replace("count", "")
    asked = figure.get("bound")
    holds = "–" if asked is None else "yes" if figure["holds"] else "**no**"
    return f"| {what} | {figure['value']:g} {unit} | {'–' if asked is None else asked} | {holds} |"


def main_ones() -> str:
    """One row for each of MAIN. Raises KeyError for one that is in no file."""
    found = {(name, figure["name"]): figure for name, content in _files() for figure in content["figures"]}
    rows = [_row(what, found[file, name]) for what, file, name in MAIN]
    return "\n".join(["| what | measured | asked for | holds |", "|---|---|---|---|", *rows])


def all_of_them() -> str:
    """One table for each file, with the figures that have a bound."""
    parts = []
    for name, content in _files():
        host = content["host"]
        rows = [_row(figure["name"], figure) for figure in content["figures"] if figure.get("bound") is not None]
        parts += [
            f"### {name}\n",
            f"[{name}.json]({name}.json): `{content['command']}`, {content['date'][:10]}, commit "
            f"{content['commit'][:7]}, {host['cores']} cores, {host['memoryGiB']} GiB.\n",
            *(["| figure | measured | asked for | holds |", "|---|---|---|---|", *rows, ""] if rows else []),
        ]
    return "\n".join(parts).strip()


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds a difference."""
    for page, table in ((ROOT / "README.md", main_ones()), (FOLDER / "README.md", all_of_them())):
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
