"""Settings of the observer, read once from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwright.compare import settings
from modelwright.compare.settings import SettingsError

__all__ = ["Settings", "SettingsError", "from_environment"]


@dataclass(frozen=True)
class Settings:
    """Each field is set by the variable of its name in capitals. Sizes are in bytes, times in seconds."""

    model_namespace: str  # labels of all metrics
    model_name: str
    model_version: str
    serving_url: str  # of the Service of the revision that serves, such as http://digits-abc.vision
    reference: str  # the file with the reference sample, or the folder that holds it alone
    window_seconds: float = 600.0
    min_samples: int = 200  # rows of the window below which nothing is told
    most_rows: int = 10_000  # of the window
    most_batch: int = 1_000  # rows of one request that are counted, the first ones
    reference_bytes: int = 16 << 20
    queue_length: int = 256  # copies that wait; more are dropped
    queue_bytes: int = 32 << 20  # of bodies that wait or are worked on; more are dropped
    max_body_bytes: int = 8 << 20  # a larger copy is dropped
    max_answer_bytes: int = 4 << 20  # a larger answer is not read
    concurrency: int = 8  # copies that are asked at a time
    request_timeout_seconds: float = 30.0
    stop_seconds: float = 5.0  # given to what is under way at the end
    host: str = "0.0.0.0"  # noqa: S104 - the gateway comes from outside the pod
    port: int = 8080


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings with what the environment says; SettingsError names the variable that can't be read."""
    return Settings(**settings.read(Settings, environment, ("serving_url",)))
