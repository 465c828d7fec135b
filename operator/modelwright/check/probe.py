"""Waits until the candidate is ready, sends the samples, and judges answers, latency and memory.

After TFX' InfraValidator: a model that passes every offline test may still not load in the real server, or not answer.
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

from modelwright import documents
from modelwright.check.expectations import difference
from modelwright.check.settings import Sample, Settings
from modelwright.core.protocols import request_path

PASS, FAIL, INCONCLUSIVE = "Pass", "Fail", "Inconclusive"

ANSWER = documents.Bounds(8 << 20, values=4_000_000)
METRICS_BYTES = 4 << 20
_CHUNK = 64 << 10
_READY_EVERY = 1.0
_TRIES = 3
_MEMORY = "process_resident_memory_bytes"


@dataclass
class Result:
    """What came of the probe. `seconds`: of the answers that count; `memory_bytes`: of the pod that holds most."""

    outcome: str = PASS
    reason: str = "GatePassed"
    message: str = ""
    requests: int = 0
    seconds: list[float] = field(default_factory=list)
    memory_bytes: int | None = None

    def wire(self) -> dict[str, Any]:
        """As JSON has it; latencies in seconds."""
        told: dict[str, Any] = {"outcome": self.outcome, "reason": self.reason, "message": self.message}
        told["requests"] = self.requests
        if self.seconds:
            told["latency"] = {f"p{share:.0%}"[:-1]: round(percentile(self.seconds, share), 6) for share in (0.5, 0.95)}
        if self.memory_bytes is not None:
            told["memoryBytes"] = self.memory_bytes
        return told


class Failed(Exception):
    """The probe is over before its end: outcome, reason and message."""

    def __init__(self, outcome: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.outcome, self.reason, self.message = outcome, reason, message


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all `values` does not exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


async def probe(settings: Settings) -> Result:
    """The whole check, within `timeout_seconds`. Never raises for what the candidate does."""
    result = Result()
    # A fresh connection for each request, so that every pod behind the Service gets some.
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=settings.request_seconds)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        try:
            await _within(settings, session, result)
            _judge(settings, result)
        except Failed as failed:
            result.outcome, result.reason, result.message = failed.outcome, failed.reason, failed.message
    return result


async def _within(settings: Settings, session: aiohttp.ClientSession, result: Result) -> None:
    step, why = "ready", "it was never asked"
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            while (found := await _not_ready(settings, session)) is not None:
                why = found
                await asyncio.sleep(_READY_EVERY)
            step = "samples"
            await _send_all(settings, session, result)
            result.memory_bytes = await _memory(settings, session)
    except TimeoutError:
        within = f"within {settings.timeout_seconds:g} s"
        if step == "ready":
            raise Failed(FAIL, "ModelNotReady", f"the candidate was not ready {within}: {why}") from None
        text = f"only {result.requests} requests were answered {within}; see gates.infra.repeats and timeout"
        raise Failed(FAIL, "SampleFailed", text) from None


async def _not_ready(settings: Settings, session: aiohttp.ClientSession) -> str | None:
    try:
        async with session.get(settings.url + (settings.readiness_path or "/")) as response:
            if settings.readiness_path is None or response.status < 400:
                return None
            return f"{settings.readiness_path} answered {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return _told(error)


async def _send_all(settings: Settings, session: aiohttp.ClientSession, result: Result) -> None:
    for turn in range(settings.repeats):
        for number, sample in enumerate(settings.samples):
            where = request_path(settings.protocol, settings.model, sample.request)
            if where is None:
                known = "V2, TensorFlow, and OpenAI with messages, prompt or input"
                text = f"samples[{number}] can't be sent: no path is known for it with protocol {settings.protocol}"
                raise Failed(INCONCLUSIVE, "SamplesNotSent", f"{text} (known: {known})")
            seconds = await _send(settings.url + where, session, sample, f"samples[{number}]")
            result.requests += 1
            # The first round warms the model up: what is built on first use is not how it will answer.
            if turn > 0 or settings.repeats == 1:
                result.seconds.append(seconds)


async def _send(url: str, session: aiohttp.ClientSession, sample: Sample, name: str) -> float:
    body = json.dumps(sample.request).encode()
    for tried in range(1, _TRIES + 1):
        began = time.monotonic()
        try:
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                answer = await _body(response, ANSWER.size)
                seconds = time.monotonic() - began
                status = response.status
            break
        except TimeoutError:
            text = f"{name} was not answered within {time.monotonic() - began:.1f} s"
            raise Failed(FAIL, "SampleFailed", text) from None
        except (aiohttp.ClientError, OSError) as error:
            # A connection may break without the model's doing; one that breaks each time doesn't.
            if tried == _TRIES:
                raise Failed(FAIL, "SampleFailed", f"{name}: {_told(error)}, {_TRIES} times in a row") from error
            await asyncio.sleep(_READY_EVERY)
    if status != 200:
        said = answer[:500].decode("utf-8", "replace").strip()
        raise Failed(FAIL, "SampleFailed", f"{name} was answered with status {status}: {said}")
    if sample.expect is not None:
        try:
            wrong = difference(sample.expect, documents.read(answer, ANSWER))
        except documents.TooLarge as error:
            wrong = f"the answer {error}"
        except documents.DocumentError:
            wrong = "the answer is no JSON"
        if wrong is not None:
            raise Failed(FAIL, "UnexpectedAnswer", f"{name}: {wrong}")
    return seconds


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body; of one that is larger than `most`, a little more than that."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > most:
            response.close()
            break
    return bytes(body)


async def _memory(settings: Settings, session: aiohttp.ClientSession) -> int | None:
    """The most that a pod holds; None unless each one tells."""
    found: list[int] = []
    for url in settings.metrics_urls:
        try:
            async with session.get(url) as response:
                text = await _body(response, METRICS_BYTES) if response.status == 200 else b""
            families = list(text_string_to_metric_families(text[:METRICS_BYTES].decode()))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        values = [sample.value for family in families for sample in family.samples if sample.name == _MEMORY]
        if not values or not math.isfinite(sum(values)):
            return None
        found.append(int(sum(values)))
    return max(found, default=None)


def _judge(settings: Settings, result: Result) -> None:
    budget, held = settings.memory_bytes, result.memory_bytes
    answered = f"{result.requests} requests answered as expected" if result.requests else "no samples to send"
    told = [f"the model is loaded and ready, {answered}"]
    if settings.latency_seconds is not None and settings.percentile is not None and result.seconds:
        measured = percentile(result.seconds, settings.percentile)
        text = f"p{100 * settings.percentile:g} of {len(result.seconds)} answers {measured:.3f} s"
        if measured > settings.latency_seconds:
            raise Failed(FAIL, "LatencyOverBudget", f"{text}, over the budget of {settings.latency_seconds:g} s")
        told.append(f"{text} (budget {settings.latency_seconds:g} s)")
    if budget is not None and held is not None:
        text = f"{_mebibytes(held)} of memory"
        if held > budget:
            raise Failed(FAIL, "MemoryOverBudget", f"a pod holds {text}, over the budget of {_mebibytes(budget)}")
        told.append(f"{text} (budget {_mebibytes(budget)})")
    if settings.latency_seconds is not None and not result.seconds:
        text = "there is a latency budget, and the version has no samples (spec.samples) to measure by"
        raise Failed(INCONCLUSIVE, "LatencyNotMeasured", text)
    if budget is not None and held is None:
        text = f"there is a memory budget, and the runtime's metrics port does not tell {_MEMORY}"
        raise Failed(INCONCLUSIVE, "MemoryNotMeasured", text)
    result.message = "; ".join(told)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
