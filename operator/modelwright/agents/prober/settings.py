"""Settings of the prober, read once from the environment. render/gate_jobs.py renders its Job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.agents.environment import AgentSettingsError, parse_number


@dataclass(frozen=True)
class ProbeSample:
    """A request and the expected content of its answer (None: any answer)."""

    request: dict[str, Any]
    expect: dict[str, Any] | None


@dataclass(frozen=True)
class ProberSettings:
    """Times in seconds, sizes in bytes."""

    url: str  # URL: of the candidate's Service
    model: str  # MODEL_NAME
    protocol: str  # PROTOCOL: V2, TensorFlow, OpenAI or Custom
    readiness_path: str | None  # READINESS_PATH; without one, a pod that accepts a connection is ready
    samples: tuple[ProbeSample, ...]  # SAMPLES_0, SAMPLES_1, ...: parts of one JSON list
    repeats: int  # REPEATS: number of times that each sample is sent
    timeout_seconds: float  # TIMEOUT_SECONDS: for everything
    request_seconds: float  # REQUEST_SECONDS: for one answer
    percentile: float | None  # LATENCY_PERCENTILE, between 0 and 1
    latency_seconds: float | None  # LATENCY_SECONDS: the budget at that percentile
    memory_bytes: int | None  # MEMORY_BYTES: the budget of a pod
    metrics_urls: tuple[str, ...]  # METRICS_URLS, separated by commas: one for each pod
    termination_log: Path  # MODELWRIGHT_TERMINATION_LOG


def read_prober_settings(environment: Mapping[str, str]) -> ProberSettings:
    """Read the settings from the environment. AgentSettingsError names an invalid variable."""
    needed = {name: environment.get(name, "") for name in ("URL", "MODEL_NAME", "PROTOCOL")}
    for name, text in needed.items():
        if not text:
            raise AgentSettingsError(f"{name} is needed")
    latency = environment.get("LATENCY_SECONDS")
    memory = environment.get("MEMORY_BYTES")
    return ProberSettings(
        url=needed["URL"].rstrip("/"),
        model=needed["MODEL_NAME"],
        protocol=needed["PROTOCOL"],
        readiness_path=environment.get("READINESS_PATH") or None,
        samples=_read_samples(environment),
        repeats=int(_read_number(environment, "REPEATS", "3")),
        timeout_seconds=_read_number(environment, "TIMEOUT_SECONDS", "600"),
        request_seconds=_read_number(environment, "REQUEST_SECONDS", "30"),
        percentile=_read_number(environment, "LATENCY_PERCENTILE", "0.95") if latency else None,
        latency_seconds=_read_number(environment, "LATENCY_SECONDS", "") if latency else None,
        memory_bytes=int(_read_number(environment, "MEMORY_BYTES", "")) if memory else None,
        metrics_urls=tuple(filter(None, environment.get("METRICS_URLS", "").split(","))),
        termination_log=Path(environment.get("MODELWRIGHT_TERMINATION_LOG") or "/dev/termination-log"),
    )


def _read_number(environment: Mapping[str, str], name: str, default: str) -> float:
    return parse_number(name, environment.get(name) or default)


def _read_samples(environment: Mapping[str, str]) -> tuple[ProbeSample, ...]:
    parts, number = [], 0
    while (part := environment.get(f"SAMPLES_{number}")) is not None:
        parts.append(part)
        number += 1
    if not parts:
        return ()
    try:
        return tuple(ProbeSample(entry["request"], entry.get("expect")) for entry in json.loads("".join(parts)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentSettingsError(f"SAMPLES_0 and on can't be read: {type(error).__name__}: {error}") from error
