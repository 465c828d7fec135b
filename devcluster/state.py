"""The recorded state of a cluster: its profile, its daemons, its network."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from devcluster.processes import Daemon


@dataclass
class State:
    """Written before and after everything that must be undone, so that `down` does not depend on `up`."""

    folder: Path
    profile: str = ""
    ready: bool = False
    daemons: dict[str, Daemon] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    # Nodes and add-ons are started at the same time.
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @property
    def file(self) -> Path:
        return self.folder / "state.json"

    @classmethod
    def load(cls, folder: Path) -> State:
        """Load the state; an empty one when it is missing or unreadable."""
        try:
            raw = json.loads((folder / "state.json").read_text())
            daemons = {name: _daemon(fields) for name, fields in raw["daemons"].items()}
            return cls(folder, raw["profile"], raw["ready"], daemons, raw["facts"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls(folder)

    def save(self) -> None:
        with self.lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            raw = {
                "profile": self.profile,
                "ready": self.ready,
                "daemons": {name: asdict(daemon) for name, daemon in self.daemons.items()},
                "facts": self.facts,
            }
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps(raw, indent=1))
            os.replace(new, self.file)

    def record(self, daemon: Daemon) -> Daemon:
        with self.lock:
            self.daemons[daemon.name] = daemon
            self.save()
        return daemon

    def dead(self) -> list[str]:
        """List the daemons that should run and don't."""
        return [name for name, daemon in self.daemons.items() if not daemon.alive()]


def _daemon(fields: dict[str, Any]) -> Daemon:
    argv, env = tuple(fields.pop("argv")), tuple((key, value) for key, value in fields.pop("env"))
    return Daemon(**fields, argv=argv, env=env)
