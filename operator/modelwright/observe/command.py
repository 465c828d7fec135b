"""Runs the observer until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from modelwright import documents
from modelwright.core.monitoring import reference
from modelwright.core.monitoring.drift import Comparison
from modelwright.core.monitoring.reference import Reference, ReferenceError
from modelwright.documents import Bounds
from modelwright.obs import logging as json_logging
from modelwright.observe.server import Observer
from modelwright.observe.settings import Settings, SettingsError, comparison, from_environment

log = logging.getLogger(__name__)

SETTINGS_WRONG = 2


def main(environment: Mapping[str, str] | None = None) -> int:
    """Exit code: 0 as told by SIGTERM, 2 when a setting or the reference is wrong, 1 when the port can't be had."""
    try:
        settings = from_environment(os.environ if environment is None else environment)
        sample = load(Path(settings.reference), settings.reference_bytes, comparison(settings))
    except SettingsError as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    except ReferenceError as error:
        print(f"spec.reference of ModelVersion {settings.model_version}: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    json_logging.configure()
    try:
        asyncio.run(_run(settings, sample))
    except OSError as error:
        log.error("the observer can't listen", extra={"error": str(error)})
        return 1
    return 0


def load(place: Path, most: int, how: Comparison | None = None) -> Reference:
    """The reference sample of a file, or of the one file in a folder, of at most `most` bytes, with
    bins for the comparison `how`. Raises ReferenceError."""
    try:
        files = [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else [place]
        if len(files) != 1:
            raise ReferenceError(f"it must be one file, and there are {len(files)}")
        if files[0].stat().st_size > most:
            raise ReferenceError(f"the file has {files[0].stat().st_size} bytes, and at most {most} are read")
        return reference.read(documents.read(files[0].read_bytes(), Bounds(most, values=most)), how)
    except OSError as error:
        raise ReferenceError(f"it can't be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, ReferenceError):
            raise
        raise ReferenceError(f"the file {error}") from error


async def _run(settings: Settings, sample: Reference) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    observer = Observer(settings, sample)
    await observer.start()
    log.info("observing", extra={"port": observer.port, "version": settings.model_version})
    await told.wait()
    await observer.stop()
    log.info("stopped", extra={"observed": observer.tally.observed, "rows": observer.tally.rows})
