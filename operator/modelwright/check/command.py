"""Runs the probe and leaves its result for the kubelet. Exit code 0: there is a result, whatever it says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.check.probe import probe
from modelwright.check.settings import SettingsError, from_environment

TERMINATION_BYTES = 4096
SETTINGS_WRONG = 2


def main(environment: Mapping[str, str] | None = None) -> int:
    """The exit code: 0 with a result, 2 when a setting is wrong."""
    try:
        settings = from_environment(os.environ if environment is None else environment)
    except SettingsError as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    text = cut(asyncio.run(probe(settings)).wire())
    print(text, flush=True)
    _leave(settings.termination_log, text)
    return 0


def cut(told: dict[str, Any]) -> str:
    """`told` as JSON of at most TERMINATION_BYTES: its message is shortened until that fits."""
    message, text = str(told["message"]), json.dumps(told)
    while len(text) > TERMINATION_BYTES and message:
        # Escaped, a character takes up to 12 bytes.
        message = message[: -max(1, (len(text) - TERMINATION_BYTES) // 12)]
        text = json.dumps(told | {"message": f"{message}..."})
    return text


def _leave(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        # Outside of a pod there is no such file.
        print(f"the result can't be left in {path}: {error}", file=sys.stderr)
