"""Runs the observer until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from modelwright import untrusted_json
from modelwright.agents.drift_monitor.monitor import DriftMonitor
from modelwright.agents.drift_monitor.settings import (
    AgentSettingsError,
    DriftMonitorSettings,
    build_comparison,
    read_monitor_settings,
)
from modelwright.core.drift import reference_sample
from modelwright.core.drift.feature_drift import DriftMethods
from modelwright.core.drift.reference_sample import BinnedReference, InvalidReferenceSample
from modelwright.obs import logging as json_logging
from modelwright.untrusted_json import JsonLimits

log = logging.getLogger(__name__)

SETTINGS_WRONG = 2


def run_drift_monitor(environment: Mapping[str, str] | None = None) -> int:
    """Exit code: 0 as told by SIGTERM, 2 when a setting or the reference is wrong, 1 when the port can't be had."""
    try:
        settings = read_monitor_settings(os.environ if environment is None else environment)
        sample = load_reference(Path(settings.reference), settings.reference_bytes, build_comparison(settings))
    except AgentSettingsError as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    except InvalidReferenceSample as error:
        print(f"spec.reference of ModelVersion {settings.model_version}: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    json_logging.configure_logging()
    try:
        asyncio.run(_serve_until_signal(settings, sample))
    except OSError as error:
        log.error("the observer can't listen", extra={"error": str(error)})
        return 1
    return 0


def load_reference(path: Path, max_bytes: int, comparison: DriftMethods | None = None) -> BinnedReference:
    """The reference sample of a file, or of the one file in a folder, of at most `most` bytes, with
    bins for the comparison `how`. Raises ReferenceError."""
    try:
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        if len(files) != 1:
            raise InvalidReferenceSample(f"it must be one file, and there are {len(files)}")
        if files[0].stat().st_size > max_bytes:
            raise InvalidReferenceSample(
                f"the file has {files[0].stat().st_size} bytes, and at most {max_bytes} are read"
            )
        return reference_sample.parse_reference(
            untrusted_json.parse_json(files[0].read_bytes(), JsonLimits(max_bytes, values=max_bytes)), comparison
        )
    except OSError as error:
        raise InvalidReferenceSample(f"it can't be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, InvalidReferenceSample):
            raise
        raise InvalidReferenceSample(f"the file {error}") from error


async def _serve_until_signal(settings: DriftMonitorSettings, sample: BinnedReference) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    observer = DriftMonitor(settings, sample)
    await observer.start()
    log.info("observing", extra={"port": observer.port, "version": settings.model_version})
    await told.wait()
    await observer.stop()
    log.info("stopped", extra={"observed": observer.stats.observed, "rows": observer.stats.rows})
