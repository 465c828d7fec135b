"""Reads the tables of objects that must be refused or accepted, for the tests of the types and of the API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent


class _Loader(yaml.SafeLoader):
    """Safe YAML that also knows `!repeat [text, n]`."""


def _repeat(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    assert isinstance(node, yaml.SequenceNode)
    text, times = loader.construct_sequence(node)
    return str(text) * int(times)


_Loader.add_constructor("!repeat", _repeat)


@dataclass(frozen=True)
class Case:
    """One object, or one change of an object, and what must be said to it."""

    name: str
    given: dict[str, Any] | None
    """The whole object that exists before, if any."""
    when: dict[str, Any]
    """The whole object that is created or, with `given`, the merge patch on it."""
    refused: tuple[str, ...]
    """Fragments of the refusal, the first naming the field; empty when it must be accepted."""
    python_refuses: bool

    @property
    def whole(self) -> dict[str, Any]:
        """The object that there would be afterwards."""
        return self.when if self.given is None else merged(self.given, self.when)


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the JSON merge patch `patch` (RFC 7386)."""
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def cases() -> list[Case]:
    """Every case of every table in this folder."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        table = yaml.load(path.read_text(), Loader=_Loader)  # a subclass of SafeLoader
        for row in table["cases"]:
            given = merged(table["defaults"], row["given"]) if "given" in row else None
            refused = tuple(row.get("refused", ()))
            assert bool(refused) != bool(row.get("accepted")), f"{path.name}: {row['name']}: refused or accepted?"
            found.append(
                Case(
                    name=f"{path.stem}: {row['name']}",
                    given=given,
                    when=row["when"] if given else merged(table["defaults"], row["when"]),
                    refused=refused,
                    python_refuses=bool(refused) and row.get("python") != "accepts",
                )
            )
    return found
