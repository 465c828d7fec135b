"""Output of a fetch: progress lines on stdout and the termination message. Everything passes through the redactor."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TextIO

from modelwright.agents.fetcher.redact import Redactor

TERMINATION_BYTES = 4096  # the kubelet keeps no more


class TransferMeter:
    """Counts received bytes and files; `total_bytes` is None until it is known."""

    def __init__(self) -> None:
        self.total_bytes: int | None = None
        self.total_files = 0
        self.bytes = 0
        self.resumed = 0
        self.files = 0
        self.retries = 0


class FetchReport:
    """Writes log lines: JSON objects, or plain text on a terminal."""

    def __init__(self, redact: Redactor, *, plain: bool = False, stream: TextIO | None = None) -> None:
        self.redact = redact
        self._plain = plain
        self._stream = stream or sys.stdout
        self._began = time.monotonic()
        self._last: tuple[float, int] = (self._began, 0)

    def log_event(self, event: str, message: str, **values: object) -> None:
        """Write one line. A closed or full stdout never ends a fetch."""
        if self._plain:
            line = self.redact(f"{time.monotonic() - self._began:7.1f}s  {message}")
        else:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            # redacting after encoding would miss a value that JSON escapes
            clean = {name: self.redact(value) if isinstance(value, str) else value for name, value in values.items()}
            line = json.dumps(
                {"time": at, "event": event, "message": self.redact(message), **clean}, ensure_ascii=False
            )
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    def log_progress(self, meter: TransferMeter) -> None:
        """Log the progress, and the rate since the previous progress line."""
        now = time.monotonic()
        then, before = self._last
        rate = (meter.bytes - before) / max(now - then, 1e-3)
        self._last = (now, meter.bytes)
        done = meter.bytes + meter.resumed
        total = "" if meter.total_bytes is None else f" of {format_size(meter.total_bytes)}"
        percent = "" if not meter.total_bytes else f" ({100 * done / meter.total_bytes:.0f} %)"
        files = f", {meter.files} of {meter.total_files} files" if meter.total_files > 1 else ""
        self.log_event(
            "progress",
            f"{format_size(done)}{total}{percent}{files}, {format_size(int(rate))}/s"
            + (f", {meter.retries} retries" if meter.retries else ""),
            bytes=done,
            totalBytes=meter.total_bytes,
            files=meter.files,
            totalFiles=meter.total_files,
            bytesPerSecond=int(rate),
            retries=meter.retries,
        )


def format_size(size: int) -> str:
    """Format a size for readers: 12 B, 3.4 MB, 1.2 GB (powers of 1000)."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def truncate_utf8(text: str, limit: int) -> str:
    """Cut a text to at most `limit` bytes of UTF-8, between characters."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode("utf-8")
    return encoded[: limit - 3].decode("utf-8", "ignore") + "..."


def format_failure(reason: str, message: str) -> str:
    """Format a failure as JSON of at most TERMINATION_BYTES, even if its characters grow in JSON."""
    limit = TERMINATION_BYTES - 200
    while True:
        text = json.dumps({"reason": reason, "message": truncate_utf8(message, limit)}, ensure_ascii=False)
        if len(text.encode("utf-8")) <= TERMINATION_BYTES:
            return text
        limit //= 2


def write_termination(path: Path, text: str) -> None:
    """Write `text` for the kubelet. Outside a pod there is no such file, which is not an error."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return
