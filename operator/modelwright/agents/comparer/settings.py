"""Settings of the comparer, read once from the environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from modelwright.agents.mirror import COUNT_COPIES, REFUSE_COPIES


class AgentSettingsError(ValueError):
    """A variable is missing or wrong; the text names it."""


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
    """Settings with what the environment says; SettingsError names the variable that can't be read."""
    return ComparerSettings(**read_environment(ComparerSettings, environment, ("serving_url", "candidate_url")))


def read_environment(kind: type[Any], environment: Mapping[str, str], urls: Sequence[str]) -> dict[str, Any]:
    """Members of the dataclass `kind` that the environment says, `urls` among them; SettingsError names the variable
    that can't be read. Numbers are those with a default that is one."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        name = field.name.upper()
        text = environment.get(name, "").strip()
        if not text:
            if field.default is MISSING:
                raise AgentSettingsError(f"{name} is needed")
            continue
        type_ = type(field.default)
        values[field.name] = _parse_number(name, text, type_) if type_ in (int, float) else text
    if values.get("copies_without_token", REFUSE_COPIES) not in (COUNT_COPIES, REFUSE_COPIES):
        raise AgentSettingsError(f"COPIES_WITHOUT_TOKEN must be {COUNT_COPIES} or {REFUSE_COPIES}")
    if "copy_token" not in values and values.get("copies_without_token") != COUNT_COPIES:
        raise AgentSettingsError(f"COPY_TOKEN is needed, or COPIES_WITHOUT_TOKEN={COUNT_COPIES}")
    for name in urls:
        url = urlsplit(values[name])
        if url.scheme != "http" or not url.hostname or url.query or url.fragment:
            raise AgentSettingsError(f"{name.upper()} must be http://<host>[:<port>], not {values[name]!r}")
        values[name] = values[name].rstrip("/")
    return values


def _parse_number(name: str, text: str, kind: type) -> float:
    try:
        number: float = kind(text)
    except ValueError:
        number = -1.0
    if not math.isfinite(number) or number < 0 or (kind is int and number < 1 and name != "PORT"):
        raise AgentSettingsError(f"{name} must be a number above 0, not {text!r}")
    return number
