"""The drift monitor acknowledges every copy at once, counts inputs and answers, and measures their drift.

Over real HTTP, before a model server of the test; the last test runs it as a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from modelwright.agents.drift_monitor.command import load_reference, run_drift_monitor
from modelwright.agents.drift_monitor.settings import (
    build_comparison,
    parse_seconds,
    read_monitor_settings,
)
from modelwright.agents.environment import AgentSettingsError
from modelwright.agents.mirror import SHADOW_HEADER
from modelwright.api.names import COPY_TOKEN_HEADER
from modelwright.core.drift import worst_features
from modelwright.core.drift.reference_sample import InvalidReferenceSample
from tests.lib.drift_monitor import (
    INFER,
    SAMPLE,
    TOKEN,
    Handler,
    Series,
    alike,
    body,
    monitoring,
    parity,
    parse_metrics,
)

ROOT = Path(__file__).parents[4]


async def test_requests_like_the_reference_are_no_drift() -> None:
    async with monitoring() as harness:
        await harness.copy(alike())
        result = await harness.metrics()
    assert result["modelwright_observed_rows_total"] == {(): 60}
    assert result["modelwright_observed_window_rows"] == {("input", "10m"): 60, ("prediction", "10m"): 60}
    assert result["modelwright_drift_distance"].keys() == {
        ("x[0]", "input", "KolmogorovSmirnov", "10m"),
        ("x[1]", "input", "KolmogorovSmirnov", "10m"),
        ("output", "prediction", "ChiSquare", "10m"),
    }
    assert all(value < 0.1 for value in result["modelwright_drift_excess"].values())


async def test_changed_requests_are_drift_of_inputs_and_answers() -> None:
    async with monitoring() as harness:
        for _ in range(6):
            await harness.copy(body(*([9, number % 3] for number in range(10))))
        result = await harness.metrics()
    excess, worst = result["modelwright_drift_excess"], result["modelwright_drift_worst_excess"]
    assert excess["input", "10m"] > 1
    assert excess["prediction", "10m"] > 1
    assert worst["distance", "x[0]", "input", "10m"] == excess["input", "10m"]
    assert result["modelwright_drift_distance"]["x[1]", "input", "KolmogorovSmirnov", "10m"] < 0.1


async def test_worst_features_are_reported_with_their_numbers() -> None:
    async with monitoring(long_window="12h") as harness:
        for _ in range(6):
            await harness.copy(body(*([9, number % 3] for number in range(10))))
        await harness.metrics()
        async with harness.session.get(f"{harness.url}/worst") as response:
            first, *_ = result = worst_features.parse_answer(await response.json(), "v1")
    assert first.feature_key == ("input", "x[0]")
    assert (first.rows, first.figure.method, first.figure.floor) == (60, "KolmogorovSmirnov", 0.05)
    assert first.figure.excess > 1
    assert [one.feature_key for one in result].count(("input", "x[0]")) == 1


async def test_below_the_least_number_of_rows_nothing_is_worst() -> None:
    async with monitoring() as harness:
        await harness.copy(alike(49))
        await harness.metrics()
        async with harness.session.get(f"{harness.url}/worst") as response:
            assert await response.json() == {"version": "v1", "worst": [], "unwatched": []}


async def test_below_the_least_number_of_rows_there_is_no_figure() -> None:
    async with monitoring() as harness:
        await harness.copy(alike(49))
        result = await harness.metrics()
    assert result["modelwright_observed_window_rows"]["input", "10m"] == 49
    assert "modelwright_drift_distance" not in result
    assert "modelwright_drift_excess" not in result


async def test_reference_without_predictions_sends_no_request() -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        raise AssertionError

    async with monitoring(never, {"inputs": SAMPLE["inputs"]}) as harness:
        await harness.copy(alike())
        result = await harness.metrics()
    assert result["modelwright_drift_excess"].keys() == {("input", "10m")}


async def test_model_gets_the_callers_request_with_the_shadow_header() -> None:
    received: list[tuple[str, str | None, str | None, bytes]] = []

    async def record(request: web.Request) -> web.StreamResponse:
        received.append(
            (
                request.raw_path,
                request.headers.get(SHADOW_HEADER),
                request.headers.get("X-Tenant"),
                await request.read(),
            )
        )
        return await parity(request)

    packed = gzip.compress(json.dumps(alike()).encode())
    headers = {"Content-Encoding": "gzip", "X-Tenant": "a", "Cookie": "session=1"}
    async with monitoring(record) as harness:
        await harness.copy(packed, f"{INFER}?trace=1%202", headers=headers)
        result = await harness.results()
    assert received == [(f"{INFER}?trace=1%202", "1", "a", json.dumps(alike()).encode())]
    assert (result["observed"], result["unanswered"]) == (1, 0)


async def test_binary_tensors_and_several_inputs_are_rows_like_others() -> None:
    first, second = struct.pack("<60d", *(number % 10 for number in range(60))), [number % 3 for number in range(60)]
    head = {
        "inputs": [
            {"name": "a", "datatype": "FP64", "shape": [60], "parameters": {"binary_data_size": len(first)}},
            {"name": "b", "datatype": "INT64", "shape": [60, 1], "data": second},
        ]
    }
    text = json.dumps(head).encode()
    async with monitoring(sample={"inputs": SAMPLE["inputs"]}) as harness:
        await harness.copy(text + first, headers={"Inference-Header-Content-Length": str(len(text))})
        result = await harness.metrics()
    assert result["modelwright_drift_excess"]["input", "10m"] < 0.1


UNREADABLE = [
    ("no JSON", b"{"),
    ("no inputs", {"outputs": []}),
    ("rows of another width", body([1, 2, 3])),
    ("a shape that lies", {"inputs": [{"name": "x", "datatype": "FP64", "shape": [9, 2], "data": [1]}]}),
    (
        "two numbers of rows",
        {"inputs": [{"name": n, "datatype": "FP64", "shape": [s], "data": [1] * s} for n, s in (("a", 1), ("b", 2))]},
    ),
]


@pytest.mark.parametrize("data", [case[1] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
async def test_unreadable_request_is_counted_and_not_forwarded(data: Any) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        raise AssertionError

    async with monitoring(never) as harness:
        await harness.copy(data)
        result = await harness.results()
        rows = (await harness.metrics())["modelwright_observed_rows_total"]
    assert (result["unreadable"], result["observed"], rows) == (1, 0, {(): 0})


async def test_request_other_than_inference_is_ignored() -> None:
    async with monitoring() as harness:
        await harness.copy(b"", method="GET")
        await harness.copy(b"", "/v2/models/digits/ready")
        await harness.copy(alike(), headers={SHADOW_HEADER: "1"})
        assert (await harness.results())["ignored"] == 3


async def broken(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": "no"}, status=500)


async def nonsense(_: web.Request) -> web.StreamResponse:
    return web.Response(text="hello")


async def too_few(_: web.Request) -> web.StreamResponse:
    return web.json_response({"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [1]}]})


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError


@pytest.mark.parametrize("model", [broken, nonsense, too_few, hangs])
async def test_a_model_that_fails_to_answer_is_observed_by_its_inputs(model: Handler) -> None:
    async with monitoring(model, request_timeout_seconds=0.2) as harness:
        await harness.copy(alike())
        assert (await harness.results())["unanswered"] == 1
        result = await harness.metrics()
    assert result["modelwright_observed_window_rows"] == {("input", "10m"): 60, ("prediction", "10m"): 0}
    assert result["modelwright_drift_excess"].keys() == {("input", "10m")}


async def test_of_a_batch_so_many_rows_count_drawn_at_random() -> None:
    async with monitoring(rows_per_request=2, min_samples=1) as harness:
        for _ in range(30):
            await harness.copy(body([0, 0], [9, 0], [9, 0], [9, 0], [9, 0]))
        result = await harness.metrics()
        (window,) = harness.monitor.stats.windows.windows.values()
        counts = window.current_counts(harness.monitor.stats.now())
    assert result["modelwright_observed_window_rows"] == {("input", "10m"): 60, ("prediction", "10m"): 60}
    # A fifth of the rows are 0; the first two of each request would be half.
    assert 0 < counts.features[0][0] < 28
    assert counts.predictions[0] == counts.features[0][0]


async def test_a_long_window_is_reported_beside_the_short_one() -> None:
    async with monitoring(window="90s", long_window="12h") as harness:
        await harness.copy(alike())
        result = await harness.metrics()
    assert result["modelwright_drift_excess"].keys() == {
        (kind, window) for kind in ("input", "prediction") for window in ("90s", "12h")
    }


async def test_features_are_named_by_reference_or_by_tensors() -> None:
    inputs = [
        {"name": "age", "datatype": "FP64", "shape": [60, 1], "data": [number % 10 for number in range(60)]},
        {"name": "plan", "datatype": "FP64", "shape": [60], "data": [number % 3 for number in range(60)]},
    ]
    for sample, names in (({}, {"age", "plan"}), ({"features": ["years", "tariff"]}, {"years", "tariff"})):
        async with monitoring(sample={"inputs": SAMPLE["inputs"], **sample}) as harness:
            await harness.copy({"inputs": inputs})
            result = await harness.metrics()
        assert {key[0] for key in result["modelwright_drift_distance"]} == names


TENSOR = {"datatype": "FP64", "shape": [1], "data": [1]}
WILD = [
    ("a long name", [{**TENSOR, "name": "x" * 64, "shape": [1, 2], "data": [1, 1]}]),
    ("a name with a line break", [{**TENSOR, "name": "x\n", "shape": [1, 2], "data": [1, 1]}]),
    (
        "two names that come to the same",
        [{**TENSOR, "name": "x", "shape": [1, 2], "data": [1, 1]}, {**TENSOR, "name": "x[0]"}],
    ),
]


@pytest.mark.parametrize("inputs", [case[1] for case in WILD], ids=[case[0] for case in WILD])
async def test_unusable_names_of_callers_become_no_labels(inputs: list[dict[str, Any]]) -> None:
    width = sum(len(tensor["data"]) for tensor in inputs)
    async with monitoring(sample={"inputs": [[1] * width] * 9}, min_samples=1) as harness:
        await harness.copy({"inputs": inputs})
        result = await harness.metrics()
    assert {key[0] for key in result["modelwright_drift_distance"]} == {str(place) for place in range(width)}


NAMELESS = [{**TENSOR, "name": "\n", "shape": [1, 2], "data": [1, 1]}]


def metadata(*inputs: tuple[Any, Any]) -> bytes:
    return json.dumps(
        {"inputs": [{"name": name, "datatype": "FP64", "shape": shape} for name, shape in inputs]}
    ).encode()


SERVERS = {
    "inputs of one value each": (metadata(("age", [-1, 1]), ("plan", [-1])), {"age", "plan"}),
    "one input, whose columns are numbered": (metadata(("x", [-1, 2])), {"x[0]", "x[1]"}),
    "one input of open size": (metadata(("x", [-1, -1])), {"x[0]", "x[1]"}),
    "inputs of more values than a row has": (metadata(("x", [-1, 2]), ("y", [-1])), {"0", "1"}),
    "two inputs of open size": (metadata(("x", [-1, -1]), ("y", [-1])), {"0", "1"}),
    "the same name twice": (metadata(("x", [-1]), ("x", [-1])), {"0", "1"}),
    "a name that is no text": (metadata((3, [-1, 2])), {"0", "1"}),
    "a size beyond all bounds": (metadata(("x", [-1, 2**60])), {"0", "1"}),
    "no inputs": (b"{}", {"0", "1"}),
    "no JSON": (b"hello", {"0", "1"}),
    "an answer without end": (b" " * 5_000_000, {"0", "1"}),
}


@pytest.mark.parametrize("case", SERVERS)
async def test_unusable_names_are_replaced_by_the_servers_metadata(case: str) -> None:
    answer, names = SERVERS[case]
    requests: list[str] = []

    async def server(request: web.Request) -> web.StreamResponse:
        requests.append(f"{request.method} {request.raw_path} {request.headers.get(SHADOW_HEADER)}")
        return web.Response(body=answer, content_type="application/json")

    async with monitoring(server, {"inputs": [[1, 1]] * 9}, min_samples=1) as harness:
        for _ in range(3):
            await harness.copy({"inputs": NAMELESS}, f"{INFER}?trace=1")
        result = await harness.metrics()
    assert {key[0] for key in result["modelwright_drift_distance"]} == names
    assert requests == ["GET /v2/models/digits 1"]


@pytest.mark.parametrize("model", [broken, nonsense])
async def test_metadata_without_names_is_requested_ever_more_rarely(model: Handler) -> None:
    requests: list[float] = []
    now = 0.0

    async def server(request: web.Request) -> web.StreamResponse:
        requests.append(now)
        return await model(request)

    async with monitoring(server, {"inputs": [[1, 1]] * 9}, min_samples=1) as harness:
        harness.monitor.stats.now = lambda: now
        for now in range(0, 600, 20):  # noqa: B007 - the clock
            await harness.copy({"inputs": NAMELESS})
            await harness.metrics()
    assert requests == [0, 60, 180, 420]


async def test_missing_and_unknown_values_and_free_text_are_reported() -> None:
    sample = {"inputs": [[["a", "b"][number % 2], f"sentence {number}"] for number in range(600)]}
    data = ["a", "hello", "c", "hello", "", "hello"]
    async with monitoring(sample=sample, min_samples=1) as harness:
        await harness.copy({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [3, 2], "data": data}]})
        result = await harness.metrics()
        async with harness.session.get(f"{harness.url}/worst") as response:
            unwatched = worst_features.parse_unwatched(await response.json())
    assert result["modelwright_drift_missing_ratio"]["x[0]", "10m"] == pytest.approx(1 / 3)
    assert result["modelwright_drift_unknown_ratio"]["x[0]", "10m"] == pytest.approx(1 / 3)
    assert result["modelwright_drift_unwatched_features"] == {("input", "10m"): 1}
    assert [kind for kind, _ in unwatched] == ["input"]


async def test_a_body_that_is_too_large_is_dropped_packed_or_not() -> None:
    async with monitoring(max_body_bytes=1000) as harness:
        await harness.copy(b" " * 2000)
        await harness.copy(gzip.compress(b" " * 100_000), headers={"Content-Encoding": "gzip"})
        result = await harness.results()
    assert (result["dropped"], result["observed"]) == (2, 0)


async def test_request_without_token_is_refused_and_not_counted() -> None:
    wrong: list[dict[str, str]] = [{}, {COPY_TOKEN_HEADER: "guess"}]
    async with monitoring() as harness:
        for headers in wrong:
            async with harness.session.post(harness.url + INFER, json=alike(), headers=headers) as response:
                assert response.status == 403
        await harness.copy(alike())
        result = await harness.results()
    assert (result["refused"], result["observed"]) == (2, 1)


def test_settings_come_from_the_environment() -> None:
    needed = {
        "MODEL_NAMESPACE": "vision",
        "MODEL_NAME": "digits",
        "MODEL_VERSION": "v1",
        "SERVING_URL": "http://a.b/",
        "REFERENCE": "/r",
        "COPY_TOKEN": TOKEN,
    }
    result = read_monitor_settings({**needed, "WINDOW": "1h30m", "MIN_SAMPLES": "20", "NUMBERS_METHOD": "PSI"})
    assert (result.serving_url, parse_seconds(result.window), result.min_samples, result.port) == (
        "http://a.b",
        5400,
        20,
        8080,
    )
    assert build_comparison(result).numbers == "PSI"
    for name, value in (
        ("WINDOW", "soon"),
        ("WINDOW", "0s"),
        ("LONG_WINDOW", "10m"),
        ("NUMBERS_METHOD", "Guess"),
        ("CATEGORIES_METHOD", "Wasserstein"),
        ("NUMBERS_FLOOR", "much"),
        ("CORRECTION", "none"),
    ):
        with pytest.raises(AgentSettingsError, match=name):
            read_monitor_settings({**needed, name: value})
    for name in needed:
        with pytest.raises(AgentSettingsError, match=name):
            read_monitor_settings({key: value for key, value in needed.items() if key != name})


def test_a_reference_is_one_file_or_the_one_file_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidReferenceSample, match="there are 0"):
        load_reference(tmp_path, 10_000)
    file = tmp_path / "sub" / "reference.json"
    file.parent.mkdir()
    file.write_text(json.dumps(SAMPLE))
    assert load_reference(tmp_path, 10_000).width == load_reference(file, 10_000).width == 2
    with pytest.raises(InvalidReferenceSample, match="at most 100 are read"):
        load_reference(tmp_path, 100)
    file.write_text("{" + "[" * 100_000)
    with pytest.raises(InvalidReferenceSample, match="no JSON"):
        load_reference(tmp_path, 1_000_000)
    (tmp_path / "other").touch()
    with pytest.raises(InvalidReferenceSample, match="there are 2"):
        load_reference(tmp_path, 10_000)
    with pytest.raises(InvalidReferenceSample, match="can't be read"):
        load_reference(tmp_path / "none", 10_000)


def test_a_reference_that_is_wrong_ends_it_with_the_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reference.json").write_text("{}")
    environment = {
        "MODEL_NAMESPACE": "vision",
        "MODEL_NAME": "digits",
        "MODEL_VERSION": "v1",
        "SERVING_URL": "http://a.b",
        "REFERENCE": str(tmp_path),
        "COPY_TOKEN": TOKEN,
    }
    assert run_drift_monitor(environment) == 2
    assert "spec.reference of ModelVersion v1: the file must be" in capsys.readouterr().err
    assert run_drift_monitor({}) == 2
    assert "MODEL_NAMESPACE" in capsys.readouterr().err


async def test_process_observes_until_sigterm(tmp_path: Path) -> None:
    (tmp_path / "reference.json").write_text(json.dumps({"inputs": SAMPLE["inputs"]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "operator"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "MODEL_NAMESPACE": "vision",
        "MODEL_NAME": "digits",
        "MODEL_VERSION": "v1",
        "SERVING_URL": "http://127.0.0.1:9",
        "REFERENCE": str(tmp_path),
        "MIN_SAMPLES": "50",
        "ROWS_PER_REQUEST": "60",
        "COPIES_WITHOUT_TOKEN": "Count",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modelwright.agents.drift_monitor", env=environment
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get("/readyz") as ready:
                        if ready.status == 200:
                            break
                assert process.returncode is None
                await asyncio.sleep(0.05)
            async with session.post(INFER, json=alike()) as response:
                assert response.status == 202
            result: dict[str, Series] = {}
            while "modelwright_drift_excess" not in result:
                async with session.get("/metrics") as response:
                    result = parse_metrics(await response.text())
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert result["modelwright_drift_excess"]["input", "10m"] < 0.1
