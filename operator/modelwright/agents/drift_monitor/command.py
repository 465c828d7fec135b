"""Runs the drift monitor until SIGTERM."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from modelwright import untrusted_json
from modelwright.agents import program
from modelwright.agents.drift_monitor.monitor import DriftMonitor
from modelwright.agents.drift_monitor.settings import DriftMonitorSettings, build_comparison, read_monitor_settings
from modelwright.core.drift import reference_sample
from modelwright.core.drift.feature_drift import DriftMethods
from modelwright.core.drift.reference_sample import BinnedReference, InvalidReferenceSample
from modelwright.untrusted_json import JsonLimits


def run_drift_monitor(environment: Mapping[str, str] | None = None) -> int:
    """Return the exit code: 0 after SIGTERM, 2 if a setting or the reference is invalid, 1 if the port is taken."""
    return program.run_program(read_monitor_settings, _serve_monitor, environment)


def _serve_monitor(settings: DriftMonitorSettings) -> int:
    try:
        sample = load_reference(Path(settings.reference), settings.reference_bytes, build_comparison(settings))
    except InvalidReferenceSample as error:
        print(f"spec.reference of ModelVersion {settings.model_version}: {error}", file=sys.stderr)
        return program.EXIT_WRONG_SETTINGS
    return program.serve(lambda: DriftMonitor(settings, sample), "observing", version=settings.model_version)


def load_reference(path: Path, max_bytes: int, methods: DriftMethods | None = None) -> BinnedReference:
    """Read the reference sample of a file, or of the only file in a folder, of at most `max_bytes`.

    `methods`: those that its bins are for. Raises InvalidReferenceSample.
    """
    try:
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        if len(files) != 1:
            raise InvalidReferenceSample(f"it must be one file, and there are {len(files)}")
        size = files[0].stat().st_size
        if size > max_bytes:
            raise InvalidReferenceSample(f"the file has {size} bytes, and at most {max_bytes} are read")
        document = untrusted_json.parse_json(files[0].read_bytes(), JsonLimits(max_bytes, values=max_bytes))
        return reference_sample.parse_reference(document, methods)
    except OSError as error:
        raise InvalidReferenceSample(f"it can't be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, InvalidReferenceSample):
            raise
        raise InvalidReferenceSample(f"the file {error}") from error
