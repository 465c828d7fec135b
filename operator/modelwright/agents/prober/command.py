"""Runs the probe and leaves its result for the kubelet. Exit code 0: there is a result, whatever it says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.agents.prober.probe import run_probe
from modelwright.agents.prober.settings import ProberSettingsError, read_prober_settings

TERMINATION_BYTES = 4096
SETTINGS_WRONG = 2


def run_prober(environment: Mapping[str, str] | None = None) -> int:
    """The exit code: 0 with a result, 2 when a setting is wrong."""
    try:
        settings = read_prober_settings(os.environ if environment is None else environment)
    except ProberSettingsError as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    text = truncate_message(asyncio.run(run_probe(settings)).to_json())
    print(text, flush=True)
    _write_result(settings.termination_log, text)
    return 0


def truncate_message(result: dict[str, Any]) -> str:
    """`told` as JSON of at most TERMINATION_BYTES: its message is shortened until that fits."""
    message, text = str(result["message"]), json.dumps(result)
    while len(text) > TERMINATION_BYTES and message:
        # Escaped, a character takes up to 12 bytes.
        message = message[: -max(1, (len(text) - TERMINATION_BYTES) // 12)]
        text = json.dumps(result | {"message": f"{message}..."})
    return text


def _write_result(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        # Outside of a pod there is no such file.
        print(f"the result can't be left in {path}: {error}", file=sys.stderr)
