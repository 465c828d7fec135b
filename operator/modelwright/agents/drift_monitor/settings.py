"""Settings of the observer, read once from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from modelwright.agents.comparer import settings
from modelwright.agents.comparer.settings import AgentSettingsError
from modelwright.agents.mirror import REFUSE_COPIES
from modelwright.core.drift.distances import DistanceMethod
from modelwright.core.drift.feature_drift import SHARE_FLOOR, Correction, DriftMethods

__all__ = ["AgentSettingsError", "DriftMonitorSettings", "build_comparison", "parse_seconds", "read_monitor_settings"]

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True)
class DriftMonitorSettings:
    """Each field is set by the variable of its name in capitals. Sizes are in bytes, times in seconds."""

    model_namespace: str  # labels of all metrics
    model_name: str
    model_version: str
    serving_url: str  # of the Service of the revision that serves, such as http://digits-abc.vision
    reference: str  # the file with the reference sample, or the folder that holds it alone
    window: str = "10m"  # a time such as 90s, 10m or 1h30m; the name of the window in metrics, too
    long_window: str = "24h"  # beside it; "0s" for none
    min_samples: int = 200  # rows of a window below which it has no figures
    most_rows: int = 10_000  # of the short window
    rows_per_request: int = 1  # that are counted, at random
    numbers_method: str = DistanceMethod.KOLMOGOROV_SMIRNOV
    categories_method: str = DistanceMethod.CHI_SQUARE
    numbers_floor: str = ""  # the least distance that is called drift; empty for the method's own
    categories_floor: str = ""
    share_floor: float = SHARE_FLOOR  # the same of the difference of shares of missing or unknown values
    correction: str = Correction.BONFERRONI
    reference_bytes: int = 16 << 20
    queue_length: int = 256  # copies that wait; more are dropped
    queue_bytes: int = 32 << 20  # of bodies that wait or are worked on; more are dropped
    max_body_bytes: int = 8 << 20  # a larger copy is dropped
    max_answer_bytes: int = 4 << 20  # a larger answer is not read
    concurrency: int = 8  # copies that are asked at a time
    request_timeout_seconds: float = 30.0
    stop_seconds: float = 5.0  # given to what is under way at the end
    copy_token: str = ""  # what the Model's route sets on copies; a request without it is refused
    copies_without_token: str = REFUSE_COPIES  # or Count: all of them, while copy_token is empty
    host: str = ""
    port: int = 8080


def read_monitor_settings(environment: Mapping[str, str]) -> DriftMonitorSettings:
    """Settings with what the environment says; SettingsError names the variable that can't be read."""
    found = DriftMonitorSettings(**settings.read_environment(DriftMonitorSettings, environment, ("serving_url",)))
    build_comparison(found)
    if not parse_seconds(found.window):
        raise AgentSettingsError("WINDOW must be longer than nothing")
    if found.window == found.long_window:
        raise AgentSettingsError("LONG_WINDOW must differ from WINDOW, or be 0s")
    parse_seconds(found.long_window)
    return found


def build_comparison(of: DriftMonitorSettings) -> DriftMethods:
    """How features are compared. SettingsError names the variable that can't be."""
    try:
        return DriftMethods(
            DistanceMethod(of.numbers_method),
            DistanceMethod(of.categories_method),
            float(of.numbers_floor) if of.numbers_floor else None,
            float(of.categories_floor) if of.categories_floor else None,
            of.share_floor,
            Correction(of.correction),
        )
    except ValueError as error:
        raise AgentSettingsError(
            f"one of NUMBERS_METHOD, CATEGORIES_METHOD, NUMBERS_FLOOR, CATEGORIES_FLOOR, CORRECTION is wrong: {error}"
        ) from error


def parse_seconds(time: str) -> float:
    """The seconds of a time such as 1h30m. SettingsError when it is none."""
    found = _DURATION.fullmatch(time)
    if found is None or not time:
        raise AgentSettingsError(f"WINDOW and LONG_WINDOW must be times such as 90s, 10m or 1h30m, not {time!r}")
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + rest)
