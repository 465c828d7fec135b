"""What the operator asked of an API server, from the audit log."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def is_write(entry: dict[str, Any]) -> bool:
    """Whether an entry of the audit log changed something, or tried to: dry runs don't."""
    return entry["verb"] in WRITES and "dryRun=" not in entry["requestURI"]


class Audit:
    """Reads an audit log; `mark` remembers a place, counts are of what came after it."""

    def __init__(self, path: Path, agent: str = "modelwright") -> None:
        self._path = path
        self._agent = agent

    def mark(self) -> int:
        """The end of the log now."""
        return self._path.stat().st_size

    def writes(self, since: int = 0, namespace: str | None = None) -> Counter[tuple[str, str, str]]:
        """(verb, resource, namespace/name) -> how often, Leases apart."""
        return Counter(
            (entry["verb"], _resource(entry), f"{_place(entry)} {entry.get('responseStatus', {}).get('code')}")
            for entry in self.entries(since)
            if is_write(entry)
            and entry["objectRef"].get("resource") != "leases"
            and namespace in (None, entry["objectRef"].get("namespace"))
        )

    def entries(self, since: int = 0) -> list[dict[str, Any]]:
        """The operator's requests about objects."""
        with self._path.open("rb") as file:
            file.seek(since)
            lines = [json.loads(line) for line in file if line.endswith(b"\n")]
        return [e for e in lines if e.get("userAgent", "").startswith(self._agent) and "objectRef" in e]


def _resource(entry: dict[str, Any]) -> str:
    reference = entry["objectRef"]
    sub = reference.get("subresource")
    return f"{reference['resource']}/{sub}" if sub else str(reference["resource"])


def _place(entry: dict[str, Any]) -> str:
    reference = entry["objectRef"]
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}"
