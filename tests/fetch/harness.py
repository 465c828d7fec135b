"""Runs the fetch command as a container would, and collects its output."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.agents.fetcher import digest
from modelwright.agents.fetcher.command import run_fetcher
from modelwright.agents.fetcher.digest import FileEntry

QUICK = {
    # this machine may be a cloud's: its metadata service is none of the tests' business
    "MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS": "false",
    "MODELWRIGHT_FETCH_ATTEMPTS": "3",
    "MODELWRIGHT_FETCH_BACKOFF_SECONDS": "0.05",
    "MODELWRIGHT_FETCH_STALL_SECONDS": "10",
    "MODELWRIGHT_FETCH_PROGRESS_SECONDS": "0.5",
    "MODELWRIGHT_FETCH_PART_BYTES": str(256 << 10),
    "MODELWRIGHT_FETCH_LOG": "json",
}


@dataclass
class Outcome:
    """Exit code, termination message, and everything that was printed."""

    code: int
    message: dict[str, Any]
    text: str
    termination: str

    @property
    def reason(self) -> str:
        return str(self.message.get("reason", "Success" if self.code == 0 else "Nothing"))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.text.splitlines()) if line["event"] == name]


@dataclass
class Container:
    """The folders that a fetch container sees, below one temporary folder."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dest = self.folder / "models"
        self.cache = self.folder / "cache"
        self.credentials = self.folder / "credentials"
        self.termination = self.folder / "termination-log"
        self.credentials.mkdir(exist_ok=True)

    def give(self, secret: Mapping[str, str]) -> None:
        """Mounts this Secret in place of the last one."""
        for old in self.credentials.iterdir():
            old.unlink()
        for name, value in secret.items():
            (self.credentials / name).write_text(value)

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {
            **QUICK,
            "MODELWRIGHT_CREDENTIALS": str(self.credentials),
            "MODELWRIGHT_TERMINATION_LOG": str(self.termination),
            **self.environment,
            **extra,
        }

    def run(self, *arguments: str | Path, **extra: str) -> Outcome:
        self.termination.unlink(missing_ok=True)
        out = io.StringIO()
        code = run_fetcher([str(argument) for argument in arguments], self._environment(extra), out)
        return self._outcome(code, out.getvalue())

    def process(self, *arguments: str | Path, **extra: str) -> subprocess.Popen[str]:
        """The same in a process of its own, to be killed or measured."""
        self.termination.unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "modelwright.agents.fetcher", *map(str, arguments)],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": "operator",
                "HOME": str(self.folder),
                **self._environment(extra),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        text, _ = process.communicate(timeout=120)
        return self._outcome(process.returncode, text)

    def _outcome(self, code: int, text: str) -> Outcome:
        termination = self.termination.read_text() if self.termination.exists() else ""
        return Outcome(code, json.loads(termination) if termination else {}, text, termination)

    def resolve(self, uri: str, **extra: str) -> Outcome:
        return self.run("resolve", "--uri", uri, **extra)

    def look(self, uri: str, changed: str = "ETag", **extra: str) -> Outcome:
        return self.run("look", "--uri", uri, "--changed", changed, **extra)

    def get(self, uri: str, wanted: str, **extra: str) -> Outcome:
        return self.run("get", "--uri", uri, "--digest", wanted, "--dest", self.dest, **extra)

    def get_cached(self, uri: str, wanted: str, **extra: str) -> Outcome:
        return self.run("get", "--uri", uri, "--digest", wanted, "--cache", self.cache, **extra)

    def cached(self, wanted: str) -> Path:
        return self.cache / wanted.replace(":", "-")


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def sha256(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def folder_digest(files: Mapping[str, bytes]) -> str:
    return digest.directory_digest(
        FileEntry(path, len(body), hashlib.sha256(body).hexdigest()) for path, body in files.items()
    )


def random_bytes(size: int, seed: int = 0) -> bytes:
    """The same incompressible bytes for the same seed."""
    return hashlib.shake_256(str(seed).encode()).digest(size)
