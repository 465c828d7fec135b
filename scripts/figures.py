"""Writes the table of measured figures into README.md, from docs/figures/*.json; `--check` says whether it differs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures: made by scripts/figures.py -->", "<!-- end of figures -->"


def table() -> str:
    """One row for each figure that has a bound, then one line for each file."""
    rows = ["| what | measured | asked for | holds |", "|---|---|---|---|"]
    sources = []
    for path in sorted((ROOT / "docs" / "figures").glob("*.json")):
        content = json.loads(path.read_text())
        host = content["host"]
        sources.append(
            f"- [{path.name}](docs/figures/{path.name}): `{content['command']}`, {content['date'][:10]}, "
            f"{host['cores']} cores, {host['memoryGiB']} GiB"
        )
        for figure in content["figures"]:
            if figure.get("bound") is not None:
                holds = "yes" if figure["holds"] else "**no**"
                rows.append(
                    f"| {figure['name']} | {figure['value']:g} {figure['unit']} | {figure['bound']} | {holds} |"
                )
    return "\n".join([*rows, "", *sources])


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds a difference."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if text == wanted:
        return 0
    if "--check" in arguments:
        print("README.md doesn't show docs/figures as they are: run `make generate`")
        return 1
    readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
