"""What a stage of a training run gets and gives, by the training contract (docs/how-to/training.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TERMINATION_BYTES = 4096


def inputs() -> dict[str, Any]:
    """The stage's inputs. Raises ValueError outside of a run."""
    path = os.environ.get("INPUTS_FILE")
    if not path:
        raise ValueError("INPUTS_FILE is not set: this is a stage of a TrainingRun")
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


def number(inputs: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A whole number among the run's parameters. Raises ValueError with the parameter's name."""
    text = inputs.get("parameters", {}).get(name, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ValueError(f"parameter {name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def finish(result: Mapping[str, Any]) -> None:
    """Prints the result and leaves it as the termination message. Raises ValueError when it is too long for one."""
    message = json.dumps(result, separators=(",", ":"))
    print(message, flush=True)
    if len(message.encode()) > TERMINATION_BYTES:
        raise ValueError(f"the result has {len(message.encode())} bytes; a termination message holds 4096")
    log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    if log.exists():
        log.write_text(message)
