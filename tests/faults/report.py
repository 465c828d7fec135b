"""The fault report: docs/figures/faults.json, and the table of docs/concepts/faults.md that is made from it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.disasters import Disaster
from tests.faults.matrix import Outcome
from tests.faults.proxy import Fault

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs/figures/faults.json"
PAGE = ROOT / "docs/concepts/faults.md"
BEGIN, END = "<!-- faults: made by python -m tests.faults --tables -->", "<!-- end of faults -->"
INJECTED, LIVED_THROUGH = "fault: ", "cluster: "


def figures(outcomes: Sequence[Outcome], disasters: Sequence[Disaster]) -> list[dict[str, Any]]:
    """What was injected, by kind; what was lived through; what was lost."""
    injected: Counter[Fault] = Counter()
    for outcome in outcomes:
        injected += outcome.injected
    lost = sum(bool(outcome.wrong) for outcome in outcomes) + sum(bool(one.wrong) for one in disasters)
    writes = sum(outcome.writes for outcome in outcomes)
    undisturbed = sum(outcome.undisturbed for outcome in outcomes)
    return [
        _figure("stories played under faults", len(outcomes), "stories"),
        _figure("faults injected", injected.total(), "faults"),
        *(_figure(f"{INJECTED}{fault}", injected[fault], "faults") for fault in Fault),
        *(_figure(f"{LIVED_THROUGH}{one.name}", round(one.seconds), "s") for one in disasters),
        _figure("writes under faults, to those without", round(writes / max(1, undisturbed), 2), "times"),
        _figure("starts of the operator under faults", sum(outcome.restarts for outcome in outcomes), "starts"),
        _figure("stories that did not end as without faults", lost, "stories", at_most=0),
    ]


def _figure(name: str, value: float, unit: str, at_most: float | None = None) -> dict[str, Any]:
    bound = None if at_most is None else f"at most {at_most:g}"
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "bound": bound,
        "holds": None if at_most is None else value <= at_most,
    }


def write(path: Path, rows: list[dict[str, Any]], command: str) -> None:
    """The figures in the common format of docs/figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    content = {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit.stdout.strip(),
        "host": {"cores": os.cpu_count(), "memoryGiB": round(memory, 1), "machine": platform.machine()},
        "figures": rows,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def table(content: dict[str, Any]) -> str:
    """How often each fault was injected, and what it came to."""
    rows = ["| what | how often or how much |", "|---|---|"]
    for figure in content["figures"]:
        name = figure["name"].removeprefix(INJECTED).removeprefix(LIVED_THROUGH)
        bound = f" ({figure['bound']})" if figure["bound"] else ""
        rows.append(f"| {name} | {figure['value']:g} {figure['unit']}{bound} |")
    host = content["host"]
    rows += ["", f"`{content['command']}`, {content['date'][:10]}, {host['cores']} cores, {host['memoryGiB']} GiB."]
    return "\n".join(rows)


def page(text: str) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(json.loads(FIGURES.read_text()))}\n{END}{after}"
