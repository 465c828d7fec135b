"""The chart's Grafana dashboards, and their queries as Grafana asks them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "charts" / "modelwright" / "files" / "dashboards"
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([a-z_]+))")


@dataclass(frozen=True)
class Query:
    """What one line of a panel asks; `text` is as written."""

    board: str
    panel: str
    number: int
    ref: str
    text: str
    legend: str

    def __str__(self) -> str:
        return f"{self.board} {self.number}: {self.panel} ({self.ref})"


def panels(board: str) -> list[dict[str, Any]]:
    """Those that show something: rows only have a title."""
    return [panel for panel in BOARDS[board]["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Of all dashboards."""
    for board in BOARDS:
        for panel in panels(board):
            for target in panel["targets"]:
                told = (target["refId"], target["expr"], target["legendFormat"])
                yield Query(board, panel["title"], panel["id"], *told)


def variables(board: str) -> dict[str, dict[str, Any]]:
    """By name."""
    return {variable["name"]: variable for variable in BOARDS[board]["templating"]["list"]}


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with its variables as Grafana puts them in; KeyError for one that has no value. $1 is not one."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)
