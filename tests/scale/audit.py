"""Counts of API requests by who sent them, from an API server's audit log."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR_AGENTS = ("modelwright", "kopf")


class Request(NamedTuple):
    """One request that was answered; `at` is the time of day when it arrived."""

    at: float
    verb: str
    resource: str
    name: str


@dataclass
class Counts:
    """Requests of an operator: (verb, resource) -> number; Leases apart."""

    writes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: int = 0
    leases: int = 0
    refused: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)
    """Every one, dry runs and watches among them; Leases apart."""

    @property
    def total_writes(self) -> int:
        """Writes other than Leases and Events."""
        return sum(self.writes.values())

    @property
    def total_reads(self) -> int:
        """Single-object reads and lists, other than the start's."""
        return sum(self.reads.values())

    def add(self, more: "Counts") -> None:
        """Count those of `more` too."""
        self.writes += more.writes
        self.reads += more.reads
        self.events += more.events
        self.leases += more.leases
        self.refused += more.refused
        self.requests += more.requests


class AuditLog:
    """Reads an audit log (JSON lines) piece by piece: each `take` counts what came since the last one, from user agents
    that begin with one of `agents`."""

    def __init__(self, path: Path, agents: tuple[str, ...] = OPERATOR_AGENTS) -> None:
        self._path = path
        self._offset = 0
        self._agents = tuple(agent.encode() for agent in agents)

    def take(self) -> Counts:
        """What the operator asked for since the last call."""
        counts = Counts()
        for entry in self._entries():
            reference = entry.get("objectRef", {})
            resource = reference.get("resource", "")
            if reference.get("subresource"):
                resource += "/" + reference["subresource"]
            verb, code = entry["verb"], entry.get("responseStatus", {}).get("code", 0)
            if code >= 400:
                counts.refused[verb, resource, code] += 1
            if resource != "leases":
                at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
                counts.requests.append(Request(at, verb, resource, reference.get("name", "")))
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

    def _entries(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if self._is_ours(line):
                    yield json.loads(line)

    def _is_ours(self, line: bytes) -> bool:
        """Most requests are others'. Decoding those too would take CPU time from what is measured."""
        _, _, agent = line.partition(b'"userAgent":"')
        return agent[:40].lower().startswith(self._agents)
