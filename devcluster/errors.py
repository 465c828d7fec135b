"""Errors for users: what failed, the relevant log, and its last lines."""

from __future__ import annotations

from pathlib import Path


class ClusterError(Exception):
    """The cluster failed; the message says what, and names the log."""


def log_tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, cut to a readable width; empty without a log."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join("    " + line[:400] for line in text.splitlines()[-lines:])


def log_failure(what: str, log: Path | None = None) -> ClusterError:
    """Build an error that names a log and shows its end."""
    if log is None:
        return ClusterError(what)
    end = log_tail(log)
    return ClusterError(f"{what}\n  log: {log}" + (f"\n  it ends with:\n{end}" if end else "\n  (the log is empty)"))
