"""Counts of API requests by who sent them, from an API server's audit log."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR_AGENTS = ("modelwright", "kopf")


@dataclass
class Counts:
    """Requests of the operator: (verb, resource) -> number; Leases apart."""

    writes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: int = 0
    leases: int = 0
    refused: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    @property
    def total_writes(self) -> int:
        """Writes other than Leases and Events."""
        return sum(self.writes.values())

    @property
    def total_reads(self) -> int:
        """Single-object reads and lists, other than the start's."""
        return sum(self.reads.values())


class AuditLog:
    """Reads an audit log (JSON lines) piece by piece: each `take` counts what came since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def take(self) -> Counts:
        """What the operator asked for since the last call."""
        counts = Counts()
        for entry in self._entries():
            agent = entry.get("userAgent", "")
            if not agent.lower().startswith(OPERATOR_AGENTS):
                continue
            reference = entry.get("objectRef", {})
            resource = reference.get("resource", "")
            if reference.get("subresource"):
                resource += "/" + reference["subresource"]
            verb, code = entry["verb"], entry.get("responseStatus", {}).get("code", 0)
            if code >= 400:
                counts.refused[verb, resource, code] += 1
            if "dryRun=" in entry["requestURI"]:
                continue
            if resource == "leases":
                counts.leases += verb in WRITES
            elif resource == "events":
                counts.events += verb in WRITES
            elif verb in WRITES:
                counts.writes[verb, resource] += 1
            elif verb in ("get", "list") and resource:
                counts.reads[verb, resource] += 1
        return counts

    def _entries(self) -> Iterator[dict]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                yield json.loads(line)
