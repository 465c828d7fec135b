"""The prober judges a real model server: loaded, right, fast and small enough; or inconclusive.

Against the V2 test server in this process; the last test runs the program as its container does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from modelwright.agents.environment import AgentSettingsError
from modelwright.agents.gate_report import TERMINATION_BYTES, truncate_message
from modelwright.agents.prober.command import run_prober
from modelwright.agents.prober.probe import ProbeResult, compute_percentile, run_probe
from modelwright.agents.prober.settings import ProberSettings, ProbeSample, read_prober_settings
from modelwright.agents.program import EXIT_WRONG_SETTINGS
from modelwright.api.reasons import Reason
from modelwright.core import gate_results
from modelwright.core.request_paths import request_path
from tests.servers.v2.server import Behaviour, Server

ROOT = Path(__file__).parents[4]
REQUEST = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}
RIGHT = {"outputs": [{"name": "output-0", "data": [3]}]}


@contextlib.asynccontextmanager
async def model(**behaviour: Any) -> AsyncIterator[ProberSettings]:
    """A model server, and the settings to probe it once with one sample."""
    server = Server("digits", "digits-2", Behaviour.from_json(behaviour))
    port = await server.listen("127.0.0.1", 0)
    await server.load()
    url = f"http://127.0.0.1:{port}"
    try:
        yield ProberSettings(
            url,
            "digits",
            "V2",
            "/v2/models/digits/ready",
            (ProbeSample(REQUEST, RIGHT),),
            1,
            10,
            5,
            None,
            None,
            None,
            (f"{url}/metrics",),
            Path("/nowhere"),
        )
    finally:
        await server.stop(0.1)


async def test_a_good_model_passes_with_its_figures() -> None:
    async with model() as settings:
        result = await run_probe(replace(settings, repeats=4, percentile=0.95, latency_seconds=5, memory_bytes=1 << 40))
    message = result.to_json()
    assert (message["outcome"], message["reason"], message["requests"]) == ("Pass", "GatePassed", 4)
    assert message["latency"].keys() == {"p50", "p95"}
    assert message["memoryBytes"] > 0
    assert "4 requests answered as expected" in message["message"]
    assert gate_results.parse_judged_report("infra", message).outcome == "Pass"


async def test_the_first_round_warms_up_and_does_not_count_for_latency() -> None:
    async with model() as settings:
        assert len((await run_probe(replace(settings, repeats=3))).seconds) == 2
        assert len((await run_probe(settings)).seconds) == 1


async def test_without_samples_it_still_shows_that_the_model_loads() -> None:
    async with model() as settings:
        result = await run_probe(replace(settings, samples=()))
        assert (result.outcome, result.requests) == ("Pass", 0)
        assert "loaded and ready, no samples" in result.message
        expected = replace(settings, samples=(), percentile=0.95, latency_seconds=5)
        assert (await run_probe(expected)).reason == "LatencyNotMeasured"


@pytest.mark.parametrize(
    ("behaviour", "changes", "outcome", "reason", "part"),
    [
        ({"neverReady": True}, {"timeout_seconds": 0.2}, "Fail", "ModelNotReady", "answered 503"),
        ({}, {"url": "http://127.0.0.1:9", "timeout_seconds": 0.2}, "Fail", "ModelNotReady", "Connect"),
        ({"errorShare": 1}, {}, "Fail", "SampleFailed", "samples[0] was answered with status 500: "),
        ({"hangShare": 1}, {"request_seconds": 0.2}, "Fail", "SampleFailed", "samples[0] was not answered within 0.2"),
        ({"hangShare": 1}, {"timeout_seconds": 0.3}, "Fail", "SampleFailed", "only 0 requests were answered"),
        ({"abortShare": 1}, {}, "Fail", "SampleFailed", "3 times in a row"),
        ({"shift": 1}, {}, "Fail", "UnexpectedAnswer", "samples[0]: outputs[0].data[0] is 4.0, not 3"),
        (
            {"latency": {"seconds": 0.05}},
            {"percentile": 0.5, "latency_seconds": 0.01},
            "Fail",
            "LatencyOverBudget",
            "over the budget of 0.01 s",
        ),
        ({}, {"memory_bytes": 1 << 20}, "Fail", "MemoryOverBudget", "over the budget of 1 MiB"),
        ({}, {"memory_bytes": 1 << 40, "metrics_urls": ()}, "Inconclusive", "MemoryNotMeasured", "does not report"),
        ({}, {"protocol": "Custom"}, "Inconclusive", "SamplesNotSent", "protocol Custom"),
        (
            {"latency": {"seconds": 0.05}},
            {"percentile": 0.5, "latency_seconds": 0.01, "memory_bytes": 1, "metrics_urls": ()},
            "Fail",
            "LatencyOverBudget",
            "",
        ),
    ],
)
async def test_wrong_model_fails_with_its_reason(
    behaviour: dict[str, Any],
    changes: dict[str, Any],
    outcome: str,
    reason: str,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelwright.agents.prober.probe._READY_POLL_SECONDS", 0.01)
    async with model(**behaviour) as settings:
        result = await run_probe(replace(settings, **changes))
    assert (result.outcome, result.reason) == (outcome, reason)
    assert part in result.message


async def test_a_model_that_loads_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwright.agents.prober.probe._READY_POLL_SECONDS", 0.01)
    server = Server("digits", "digits-2", Behaviour(load_seconds=0.2))
    port = await server.listen("127.0.0.1", 0)
    async with model() as settings:
        loading = asyncio.create_task(server.load())
        result = await run_probe(replace(settings, url=f"http://127.0.0.1:{port}"))
        await loading
    await server.stop(0.1)
    assert result.outcome == "Pass"


@contextlib.asynccontextmanager
async def telling(*texts: str) -> AsyncIterator[tuple[str, ...]]:
    app = web.Application()
    for number, text in enumerate(texts):
        app.router.add_get(f"/{number}", lambda _, text=text: _text(text))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    yield tuple(f"http://127.0.0.1:{port}/{number}" for number in range(len(texts)))
    await runner.cleanup()


async def _text(text: str) -> web.Response:
    return web.Response(text=text)


HELD = "process_resident_memory_bytes"


@pytest.mark.parametrize(
    ("texts", "held"),
    [
        ((f"{HELD} 1000\n",), 1000),
        ((f"{HELD} 1000\n", f"{HELD} 3000\n"), 3000),
        ((f'{HELD}{{pid="1"}} 1000\n{HELD}{{pid="2"}} 500\n',), 1500),
        ((f"{HELD} 1000\n", "up 1\n"), None),
        ((f"{HELD} NaN\n",), None),
        (("<html>{",), None),
        (("",), None),
    ],
)
async def test_memory_is_the_largest_pods_and_every_pod_must_report(texts: Any, held: int | None) -> None:
    async with model() as settings, telling(*texts) as urls:
        result = await run_probe(replace(settings, metrics_urls=urls, memory_bytes=1 << 40))
    assert result.memory_bytes == held
    assert result.outcome == ("Inconclusive" if held is None else "Pass")


@pytest.mark.parametrize(
    ("protocol", "request_", "wanted"),
    [
        ("V2", {}, "/v2/models/digits/infer"),
        ("TensorFlow", {}, "/v1/models/digits:predict"),
        ("OpenAI", {"messages": []}, "/v1/chat/completions"),
        ("OpenAI", {"prompt": ""}, "/v1/completions"),
        ("OpenAI", {"input": ""}, "/v1/embeddings"),
        ("OpenAI", {}, None),
        ("Custom", {}, None),
    ],
)
def test_samples_go_where_the_protocol_says(protocol: str, request_: dict[str, Any], wanted: str | None) -> None:
    assert request_path(protocol, "digits", request_) == wanted


def test_a_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 21)]
    assert [compute_percentile(values, share) for share in (0.01, 0.5, 0.95, 0.96, 0.999)] == [1, 10, 19, 20, 20]
    assert compute_percentile([7.0], 0.5) == 7


@pytest.mark.parametrize("message", ["short", "long " * 2000, "ö" * 5000, '"\n' * 4000, ""])
def test_the_result_fits_into_a_termination_message(message: str) -> None:
    text = truncate_message(ProbeResult(message=message, requests=9, seconds=[0.1] * 9, memory_bytes=5).to_json())
    assert len(text.encode()) <= TERMINATION_BYTES
    document = json.loads(text)
    assert document["message"] == message or (document["message"].endswith("...") and len(document["message"]) > 100)
    assert document["requests"] == 9


NEEDED = {"URL": "http://digits-a.vision.svc/", "MODEL_NAME": "digits", "PROTOCOL": "V2"}


def test_settings_come_from_the_environment() -> None:
    samples = json.dumps([{"request": REQUEST, "expect": RIGHT}, {"request": {}}])
    given = {"SAMPLES_0": samples[:20], "SAMPLES_1": samples[20:], "LATENCY_SECONDS": "0.2", "MEMORY_BYTES": "1048576"}
    result = read_prober_settings({**NEEDED, **given, "METRICS_URLS": "http://a/metrics,http://b/metrics"})
    assert result.samples == (ProbeSample(REQUEST, RIGHT), ProbeSample({}, None))
    assert (result.url, result.percentile, result.latency_seconds) == ("http://digits-a.vision.svc", 0.95, 0.2)
    assert (result.memory_bytes, len(result.metrics_urls), result.repeats) == (1048576, 2, 3)
    plain = read_prober_settings(NEEDED)
    assert (plain.samples, plain.percentile, plain.memory_bytes, plain.metrics_urls) == ((), None, None, ())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"URL": ""}, "URL"),
        ({"REPEATS": "0"}, "REPEATS"),
        ({"LATENCY_SECONDS": "fast"}, "LATENCY_SECONDS"),
        ({"SAMPLES_0": "["}, "SAMPLES_0"),
        ({"SAMPLES_0": "[{}]"}, "SAMPLES_0"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AgentSettingsError, match=named):
        read_prober_settings(NEEDED | wrong)
    assert run_prober(NEEDED | wrong) == EXIT_WRONG_SETTINGS
    assert named in capsys.readouterr().err


async def test_prober_writes_its_report_and_exits_with_zero(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    async with model(shift=1) as settings:
        environment = {
            **os.environ,
            **NEEDED,
            "URL": settings.url,
            "SAMPLES_0": json.dumps([{"request": REQUEST, "expect": RIGHT}]),
            "READINESS_PATH": "/v2/models/digits/ready",
            "MODELWRIGHT_TERMINATION_LOG": str(log),
            "PYTHONPATH": str(ROOT / "operator"),
        }
        command = [sys.executable, "-m", "modelwright.agents.prober"]
        run = asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)
        done = await run
    assert done.returncode == 0
    assert gate_results.parse_judged_report("infra", json.loads(log.read_text())).reason == "UnexpectedAnswer"
    assert json.loads(done.stdout) == json.loads(log.read_text())


def test_every_reason_is_a_documented_one() -> None:
    source = (ROOT / "operator/modelwright/agents/prober/probe.py").read_text()
    result = {*re.findall(r'ProbeAborted\((?:FAIL|INCONCLUSIVE), "(\w+)"', source), ProbeResult().reason}
    assert len(result) > 7
    assert result <= set(Reason)
