"""Waits until the candidate is ready, sends the samples, and judges answers, latency and memory.

After TFX' InfraValidator: a model that passes every offline test may still fail to load in the real server, or not
answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from modelwright import untrusted_json
from modelwright.agents.prober.expectations import find_difference
from modelwright.agents.prober.settings import ProberSettings, ProbeSample
from modelwright.core.request_paths import request_path

PASS, FAIL, INCONCLUSIVE = "Pass", "Fail", "Inconclusive"

ANSWER_BOUNDS = untrusted_json.JsonLimits(8 << 20, values=4_000_000)
METRICS_BYTES = 4 << 20
_CHUNK = 64 << 10
_READY_POLL_SECONDS = 1.0
_MAX_TRIES = 3
_MEMORY_METRIC = "process_resident_memory_bytes"


@dataclass
class ProbeResult:
    """Result of the probe. `seconds`: latency of each measured answer; `memory_bytes`: of the pod that uses most."""

    outcome: str = PASS
    reason: str = "GatePassed"
    message: str = ""
    requests: int = 0
    seconds: list[float] = field(default_factory=list)
    memory_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON; latencies in seconds."""
        document: dict[str, Any] = {"outcome": self.outcome, "reason": self.reason, "message": self.message}
        document["requests"] = self.requests
        if self.seconds:
            document["latency"] = {
                f"p{share:.0%}"[:-1]: round(compute_percentile(self.seconds, share), 6) for share in (0.5, 0.95)
            }
        if self.memory_bytes is not None:
            document["memoryBytes"] = self.memory_bytes
        return document


class ProbeAborted(Exception):
    """Ends the probe early with an outcome, a reason and a message."""

    def __init__(self, outcome: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.outcome, self.reason, self.message = outcome, reason, message


def compute_percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all `values` does not exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


async def run_probe(settings: ProberSettings) -> ProbeResult:
    """Run the whole probe within `timeout_seconds`. Never raises for the candidate's behaviour."""
    result = ProbeResult()
    # A new connection for each request, so that every pod behind the Service gets some.
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=settings.request_seconds)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        try:
            await _probe_within_timeout(settings, session, result)
            _judge_budgets(settings, result)
        except ProbeAborted as failed:
            result.outcome, result.reason, result.message = failed.outcome, failed.reason, failed.message
    return result


async def _probe_within_timeout(settings: ProberSettings, session: aiohttp.ClientSession, result: ProbeResult) -> None:
    step, last_problem = "ready", "no request was sent"
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            while (problem := await _readiness_problem(settings, session)) is not None:
                last_problem = problem
                await asyncio.sleep(_READY_POLL_SECONDS)
            step = "samples"
            await _send_samples(settings, session, result)
            result.memory_bytes = await _read_memory(settings, session)
    except TimeoutError:
        within = f"within {settings.timeout_seconds:g} s"
        if step == "ready":
            raise ProbeAborted(FAIL, "ModelNotReady", f"the candidate was not ready {within}: {last_problem}") from None
        text = f"only {result.requests} requests were answered {within}; see gates.infra.repeats and timeout"
        raise ProbeAborted(FAIL, "SampleFailed", text) from None


async def _readiness_problem(settings: ProberSettings, session: aiohttp.ClientSession) -> str | None:
    try:
        async with session.get(settings.url + (settings.readiness_path or "/")) as response:
            if settings.readiness_path is None or response.status < 400:
                return None
            return f"{settings.readiness_path} answered {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return _format_error(error)


async def _send_samples(settings: ProberSettings, session: aiohttp.ClientSession, result: ProbeResult) -> None:
    for turn in range(settings.repeats):
        for number, sample in enumerate(settings.samples):
            where = request_path(settings.protocol, settings.model, sample.request)
            if where is None:
                known = "V2, TensorFlow, and OpenAI with messages, prompt or input"
                text = f"samples[{number}] can't be sent: no path is known for it with protocol {settings.protocol}"
                raise ProbeAborted(INCONCLUSIVE, "SamplesNotSent", f"{text} (known: {known})")
            seconds = await _send_sample(settings.url + where, session, sample, f"samples[{number}]")
            result.requests += 1
            # The first round warms the model up: what it builds on first use does not represent its later latency.
            if turn > 0 or settings.repeats == 1:
                result.seconds.append(seconds)


async def _send_sample(url: str, session: aiohttp.ClientSession, sample: ProbeSample, name: str) -> float:
    body = json.dumps(sample.request).encode()
    for attempt in range(1, _MAX_TRIES + 1):
        started = time.monotonic()
        try:
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                answer = await _read_body(response, ANSWER_BOUNDS.size)
                seconds = time.monotonic() - started
                status = response.status
            break
        except TimeoutError:
            text = f"{name} was not answered within {time.monotonic() - started:.1f} s"
            raise ProbeAborted(FAIL, "SampleFailed", text) from None
        except (aiohttp.ClientError, OSError) as error:
            # One broken connection need not be the model's fault; a connection that breaks every time is.
            if attempt == _MAX_TRIES:
                raise ProbeAborted(
                    FAIL, "SampleFailed", f"{name}: {_format_error(error)}, {_MAX_TRIES} times in a row"
                ) from error
            await asyncio.sleep(_READY_POLL_SECONDS)
    if status != 200:
        answer_text = answer[:500].decode("utf-8", "replace").strip()
        raise ProbeAborted(FAIL, "SampleFailed", f"{name} was answered with status {status}: {answer_text}")
    if sample.expect is not None:
        try:
            problem = find_difference(sample.expect, untrusted_json.parse_json(answer, ANSWER_BOUNDS))
        except untrusted_json.DocumentTooLarge as error:
            problem = f"the answer {error}"
        except untrusted_json.DocumentError:
            problem = "the answer is no JSON"
        if problem is not None:
            raise ProbeAborted(FAIL, "UnexpectedAnswer", f"{name}: {problem}")
    return seconds


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read the body; of one larger than `max_bytes`, slightly more than that."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            response.close()
            break
    return bytes(body)


async def _read_memory(settings: ProberSettings, session: aiohttp.ClientSession) -> int | None:
    """Return the largest memory of a pod in bytes; None unless every pod reports it."""
    pod_memories: list[int] = []
    for url in settings.metrics_urls:
        try:
            async with session.get(url) as response:
                text = await _read_body(response, METRICS_BYTES) if response.status == 200 else b""
            families = list(text_string_to_metric_families(text[:METRICS_BYTES].decode()))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        values = [sample.value for family in families for sample in family.samples if sample.name == _MEMORY_METRIC]
        if not values or not math.isfinite(sum(values)):
            return None
        pod_memories.append(int(sum(values)))
    return max(pod_memories, default=None)


def _judge_budgets(settings: ProberSettings, result: ProbeResult) -> None:
    budget, used = settings.memory_bytes, result.memory_bytes
    answered = f"{result.requests} requests answered as expected" if result.requests else "no samples to send"
    parts = [f"the model is loaded and ready, {answered}"]
    if settings.latency_seconds is not None and settings.percentile is not None and result.seconds:
        measured = compute_percentile(result.seconds, settings.percentile)
        text = f"p{100 * settings.percentile:g} of {len(result.seconds)} answers {measured:.3f} s"
        if measured > settings.latency_seconds:
            raise ProbeAborted(FAIL, "LatencyOverBudget", f"{text}, over the budget of {settings.latency_seconds:g} s")
        parts.append(f"{text} (budget {settings.latency_seconds:g} s)")
    if budget is not None and used is not None:
        text = f"{_format_mebibytes(used)} of memory"
        if used > budget:
            raise ProbeAborted(
                FAIL, "MemoryOverBudget", f"a pod holds {text}, over the budget of {_format_mebibytes(budget)}"
            )
        parts.append(f"{text} (budget {_format_mebibytes(budget)})")
    if settings.latency_seconds is not None and not result.seconds:
        text = "there is a latency budget, and the version has no samples (spec.samples) to measure by"
        raise ProbeAborted(INCONCLUSIVE, "LatencyNotMeasured", text)
    if budget is not None and used is None:
        text = f"there is a memory budget, and the runtime's metrics port does not report {_MEMORY_METRIC}"
        raise ProbeAborted(INCONCLUSIVE, "MemoryNotMeasured", text)
    result.message = "; ".join(parts)


def _format_mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _format_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
