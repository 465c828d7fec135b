"""The report of a gate's program: its result as the container's termination message."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TERMINATION_BYTES = 4096
"""Bytes of a termination message that the kubelet keeps."""


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Print the report and write it for the kubelet, truncated to TERMINATION_BYTES."""
    text = truncate_message(report)
    print(text, flush=True)
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        # Outside of a pod there is no such file.
        print(f"the result can't be left in {path}: {error}", file=sys.stderr)


def truncate_message(report: Mapping[str, Any]) -> str:
    """Format the report as JSON of at most TERMINATION_BYTES; its message is truncated until it fits."""
    message, text = str(report["message"]), json.dumps(report)
    while len(text) > TERMINATION_BYTES and message:
        # Escaped, a character takes up to 12 bytes.
        message = message[: -max(1, (len(text) - TERMINATION_BYTES) // 12)]
        text = json.dumps({**report, "message": f"{message}..."})
    return text
