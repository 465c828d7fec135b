"""Errors meant for people: what failed, which log to look at, and its last lines."""

from __future__ import annotations

from pathlib import Path


class ClusterError(Exception):
    """Something about the cluster failed; the message says what, and where to look."""


def log_tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, cut to a readable width; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join("    " + line[:400] for line in text.splitlines()[-lines:])


def log_failure(what: str, log: Path | None = None) -> ClusterError:
    """An error that points at a log and shows how it ends."""
    if log is None:
        return ClusterError(what)
    end = log_tail(log)
    return ClusterError(f"{what}\n  log: {log}" + (f"\n  it ends with:\n{end}" if end else "\n  (the log is empty)"))
