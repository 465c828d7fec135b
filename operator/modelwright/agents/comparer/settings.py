"""Settings of the comparer, read once from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwright.agents.environment import REFUSE_COPIES, read_mirror_environment


@dataclass(frozen=True)
class ComparerSettings:
    """Each field is set by the variable of its name in upper case. Sizes are in bytes, times in seconds."""

    serving_url: str  # of the serving revision's Service, such as http://digits-abc.vision
    candidate_url: str
    serving_revision: str  # hashes, repeated in the summary
    candidate_revision: str
    relative_tolerance: float = 1e-3  # numbers agree within this share of the larger one,
    absolute_tolerance: float = 1e-6  # or when they are this close
    queue_length: int = 256  # queued copies; more are dropped
    queue_bytes: int = 64 << 20  # of bodies queued or in comparison; more are dropped
    max_body_bytes: int = 16 << 20  # a larger copy is dropped
    max_answer_bytes: int = 8 << 20  # a larger answer is not read
    concurrency: int = 16  # copies processed at a time
    request_timeout_seconds: float = 30.0
    stop_seconds: float = 5.0  # for copies in process at shutdown
    copy_token: str = ""  # set on copies by the Model's route; a request without it is refused
    copies_without_token: str = REFUSE_COPIES  # or Count: every request counts while copy_token is empty
    host: str = ""
    port: int = 8080


def read_comparer_settings(environment: Mapping[str, str]) -> ComparerSettings:
    """Read the settings from the environment. AgentSettingsError names an invalid variable."""
    return ComparerSettings(**read_mirror_environment(ComparerSettings, environment, ("serving_url", "candidate_url")))
