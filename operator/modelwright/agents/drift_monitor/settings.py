"""Settings of the drift monitor, read once from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from modelwright.agents.environment import REFUSE_COPIES, AgentSettingsError, read_mirror_environment
from modelwright.core.drift.distances import DistanceMethod
from modelwright.core.drift.feature_drift import SHARE_FLOOR, Correction, DriftMethods

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True)
class DriftMonitorSettings:
    """Each field is set by the variable of its name in upper case. Sizes are in bytes, times in seconds."""

    model_namespace: str  # labels of all metrics
    model_name: str
    model_version: str
    serving_url: str  # of the serving revision's Service, such as http://digits-abc.vision
    reference: str  # the file with the reference sample, or a folder with this one file
    window: str = "10m"  # a duration such as 90s, 10m or 1h30m; also the window's name in metrics
    long_window: str = "24h"  # the second window; "0s" for none
    min_samples: int = 200  # a window with fewer rows has no figures
    most_rows: int = 10_000  # in the short window
    rows_per_request: int = 1  # counted, chosen at random
    numbers_method: str = DistanceMethod.KOLMOGOROV_SMIRNOV
    categories_method: str = DistanceMethod.CHI_SQUARE
    numbers_floor: str = ""  # the smallest distance that counts as drift; empty for the method's default
    categories_floor: str = ""
    share_floor: float = SHARE_FLOOR  # the smallest difference in the share of missing or unknown values
    correction: str = Correction.BONFERRONI
    reference_bytes: int = 16 << 20
    queue_length: int = 256  # queued copies; more are dropped
    queue_bytes: int = 32 << 20  # of bodies queued or in process; more are dropped
    max_body_bytes: int = 8 << 20  # a larger copy is dropped
    max_answer_bytes: int = 4 << 20  # a larger answer is not read
    concurrency: int = 8  # copies processed at a time
    request_timeout_seconds: float = 30.0
    stop_seconds: float = 5.0  # for copies in process at shutdown
    copy_token: str = ""  # set on copies by the Model's route; a request without it is refused
    copies_without_token: str = REFUSE_COPIES  # or Count: every request counts while copy_token is empty
    host: str = ""
    port: int = 8080


def read_monitor_settings(environment: Mapping[str, str]) -> DriftMonitorSettings:
    """Read the settings from the environment. AgentSettingsError names an invalid variable."""
    settings = DriftMonitorSettings(**read_mirror_environment(DriftMonitorSettings, environment, ("serving_url",)))
    build_comparison(settings)
    if not parse_seconds(settings.window):
        raise AgentSettingsError("WINDOW must be longer than 0s")
    if settings.window == settings.long_window:
        raise AgentSettingsError("LONG_WINDOW must differ from WINDOW, or be 0s")
    parse_seconds(settings.long_window)
    return settings


def build_comparison(settings: DriftMonitorSettings) -> DriftMethods:
    """Build the comparison of features. AgentSettingsError names the invalid variable."""
    try:
        return DriftMethods(
            DistanceMethod(settings.numbers_method),
            DistanceMethod(settings.categories_method),
            float(settings.numbers_floor) if settings.numbers_floor else None,
            float(settings.categories_floor) if settings.categories_floor else None,
            settings.share_floor,
            Correction(settings.correction),
        )
    except ValueError as error:
        raise AgentSettingsError(
            f"one of NUMBERS_METHOD, CATEGORIES_METHOD, NUMBERS_FLOOR, CATEGORIES_FLOOR, CORRECTION is wrong: {error}"
        ) from error


def parse_seconds(time: str) -> float:
    """Convert a duration such as 1h30m into seconds. Raises AgentSettingsError if it is none."""
    match = _DURATION.fullmatch(time)
    if match is None or not time:
        raise AgentSettingsError(f"WINDOW and LONG_WINDOW must be times such as 90s, 10m or 1h30m, not {time!r}")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + rest)
