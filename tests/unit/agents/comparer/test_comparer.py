"""The comparer acknowledges every copy at once, sends it to both revisions, and counts the results exactly.

The last test runs it as a process between two real model servers, one of which is wrong now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from devcluster import ports
from devcluster.load import client as load
from modelwright.agents.comparer.comparer import Comparer
from modelwright.agents.comparer.settings import ComparerSettings, read_comparer_settings
from modelwright.agents.environment import AgentSettingsError
from modelwright.agents.mirror import SHADOW_HEADER
from modelwright.api import names
from modelwright.core.analysis import comparison_summary as comparison

ROOT = Path(__file__).parents[4]
INFER = "/v2/models/digits/infer"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [2, 2], "data": [1, 2, 3, 4]}]}).encode()
TOKEN_HEADER, TOKEN = names.COPY_TOKEN_HEADER, "sesame"
KNOWN: dict[str, Any] = {"copy_token": TOKEN}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def outputs(*values: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "y", "datatype": "INT64", "shape": [len(values)], "data": list(values)}]}


async def good(_: web.Request) -> web.StreamResponse:
    return web.json_response(outputs(3, 7))


@contextlib.asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class ComparerHarness:
    """A comparer between two handlers, and a client session."""

    def __init__(self, comparer: Comparer, session: aiohttp.ClientSession) -> None:
        self.comparer, self.session = comparer, session
        self.url = f"http://127.0.0.1:{comparer.port}"

    async def copy(self, path: str = INFER, method: str = "POST", **options: Any) -> None:
        options.setdefault("data", BODY)
        options["headers"] = {TOKEN_HEADER: TOKEN, **options.get("headers", {})}
        async with self.session.request(method, self.url + path, **options) as response:
            assert response.status == 202

    async def summary(self, finished: bool = True) -> comparison.ComparisonSummary:
        """Return the published summary, once all copies are `finished`."""
        while finished and self.comparer.stats.pending:  # noqa: ASYNC110 - what counts has no event for a test
            await asyncio.sleep(0.005)
        async with self.session.get(f"{self.url}/summary") as response:
            return comparison.parse_summary(await response.text(), serving="old", candidate="new")


@contextlib.asynccontextmanager
async def comparing(serving: Handler, candidate: Handler, **settings: Any) -> AsyncIterator[ComparerHarness]:
    async with server(serving) as old, server(candidate) as new, aiohttp.ClientSession() as session:
        values = ComparerSettings(
            old, new, "old", "new", host="127.0.0.1", port=0, stop_seconds=0.1, **KNOWN | settings
        )
        comparer = Comparer(values)
        await comparer.start()
        try:
            yield ComparerHarness(comparer, session)
        finally:
            await comparer.stop()


async def test_both_are_asked_the_same_and_agree() -> None:
    received: list[tuple[str, str, bytes]] = []

    async def record(request: web.Request) -> web.StreamResponse:
        received.append((request.method, request.raw_path, await request.read()))
        return web.json_response(outputs(3, 7))

    async with comparing(record, record) as harness:
        await harness.copy("/team%2Fa/v2/models/digits/versions/1/infer?trace=1%202")
        summary = await harness.summary()
    assert received == [("POST", "/team%2Fa/v2/models/digits/versions/1/infer?trace=1%202", BODY)] * 2
    assert (summary.received, summary.compared, summary.rows, summary.disagreements) == (1, 1, 2, 0)
    assert (summary.agreement, summary.errors.candidate, summary.latency.candidate.count) == (1.0, 0, 1)


async def test_copy_forwards_headers_but_connection_session_and_trace() -> None:
    requests: list[tuple[Mapping[str, str], bytes]] = []

    async def record(request: web.Request) -> web.StreamResponse:
        requests.append((request.headers, await request.read()))
        return web.json_response(outputs(3, 7))

    sent = {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "Accept": "application/json",
        "Authorization": "Bearer key",
        "Inference-Header-Content-Length": "5",
        "X-Tenant": "a",
        "User-Agent": "caller/1",
        "Cookie": "session=1",
        "Traceparent": "00-1-2-03",
        "Accept-Encoding": "br",
        "Connection": "close, X-Hop",
        "X-Hop": "1",
        "Host": "models.example.com",
        "Expect": "100-continue",
    }
    async with comparing(record, good) as harness:
        await harness.copy(data=gzip.compress(BODY), headers=sent)
        await harness.summary()
    [(received, body)] = requests
    assert gzip.decompress(body) == BODY
    headers = {name.lower(): value for name, value in received.items()}
    kept = {name.lower() for name in list(sent)[:7]}
    assert {name: headers.get(name) for name in kept} == {n.lower(): v for n, v in sent.items() if n.lower() in kept}
    assert headers.keys() - kept == {"host", "content-length", "accept-encoding", SHADOW_HEADER.lower()}
    assert headers["accept-encoding"] == "identity"
    assert headers["host"].startswith("127.0.0.1")


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [(TOKEN_HEADER, "")],
        [(TOKEN_HEADER, "guess")],
        [(TOKEN_HEADER, TOKEN + "x")],
        [(TOKEN_HEADER, f"{TOKEN}, guess")],
        [(TOKEN_HEADER, TOKEN), (TOKEN_HEADER, "guess")],
        [(TOKEN_HEADER, "\xfc")],
        [("Authorization", TOKEN), (SHADOW_HEADER, "1")],
    ],
    ids=str,
)
async def test_request_without_token_is_refused_and_not_forwarded(sent: list[tuple[str, str]]) -> None:
    """The forged copies of any pod of the cluster were evidence (review, S12d)."""
    requests = []

    async def record(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        return web.json_response(outputs(3, 7))

    async with comparing(record, record) as harness:
        async with harness.session.post(harness.url + INFER, data=BODY, headers=sent) as response:
            assert response.status == 403
        await harness.copy()
        summary = await harness.summary()
        async with harness.session.get(f"{harness.url}/metrics") as response:
            message = await response.text()
    assert (summary.refused, summary.received, summary.compared, len(requests)) == (1, 1, 1, 2)
    assert 'modelwright_comparer_requests_total{result="refused"} 1.0' in message


@pytest.mark.parametrize(("settings", "counted"), [({}, 0), ({"copies_without_token": "Count"}, 1)], ids=str)
async def test_without_a_token_nothing_counts_unless_all_shall(settings: dict[str, Any], counted: int) -> None:
    async with comparing(good, good, copy_token="", **settings) as harness:
        async with harness.session.post(harness.url + INFER, data=BODY, headers={TOKEN_HEADER: ""}):
            pass
        summary = await harness.summary()
    assert (summary.compared, summary.refused) == (counted, 1 - counted)


async def test_it_is_ready_once_it_has_reached_both_and_stays_so() -> None:
    """Copies that came before would count against a candidate whose Service no node knows yet."""

    async def ready(comparer: Comparer) -> tuple[int, str]:
        url = f"http://127.0.0.1:{comparer.port}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    port = ports.free_ports(1)[0]
    async with server(good) as old:
        values = ComparerSettings(
            old, f"http://127.0.0.1:{port}", "old", "new", host="127.0.0.1", port=0, stop_seconds=0.1
        )
        comparer = Comparer(values)
        await comparer.start()
        try:
            assert await ready(comparer) == (503, "the candidate revision has not been reached yet")
            late = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
            assert await ready(comparer) == (200, "ok")
            late.close()
            await late.wait_closed()
            assert await ready(comparer) == (200, "ok")
        finally:
            await comparer.stop()


async def test_request_other_than_inference_is_ignored() -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        raise AssertionError

    async with comparing(never, never) as harness:
        await harness.copy(method="GET")
        await harness.copy("/v2/models/digits/ready")
        await harness.copy("/v1/models/digits:predict")
        await harness.copy("/v2/models/digits/infer/more")
        await harness.copy(headers={SHADOW_HEADER: "1"})
        summary = await harness.summary()
    assert (summary.received, summary.ignored, summary.compared) == (5, 5, 0)
    assert summary.agreement is None


async def test_failing_candidate_differs_in_every_row_and_is_not_fast() -> None:
    async def broken(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "no"}, status=500)

    async with comparing(good, broken) as harness:
        await harness.copy()
        summary = await harness.summary()
    assert (summary.compared, summary.rows, summary.disagreements) == (1, 2, 2)
    assert (summary.mismatches.unanswered, summary.errors.candidate, summary.errors.serving) == (1, 1, 0)
    assert (summary.latency.serving.count, summary.latency.candidate.count) == (1, 0)


async def test_one_that_does_not_answer_is_given_up_and_was_slow() -> None:
    async def hangs(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async with comparing(good, hangs, request_timeout_seconds=0.2) as harness:
        await harness.copy()
        summary = await harness.summary()
    assert (summary.errors.candidate, summary.disagreements, summary.latency.candidate.count) == (1, 2, 1)
    assert summary.latency.candidate.sum >= 0.2


async def test_nothing_at_the_address_is_an_error_and_not_slow() -> None:
    async with comparing(good, good) as harness:
        harness.comparer._settings = ComparerSettings(  # both addresses lead nowhere
            "http://127.0.0.1:9", "http://127.0.0.1:9", "old", "new", host="127.0.0.1", port=0, **KNOWN
        )
        await harness.copy()
        summary = await harness.summary()
    assert (summary.uncomparable, summary.compared) == (1, 0)
    assert (summary.errors.serving, summary.errors.candidate, summary.latency.serving.count) == (1, 1, 0)


async def test_request_rejected_by_serving_revision_is_uncomparable() -> None:
    async def refuses(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "shape"}, status=400)

    async with comparing(refuses, refuses) as harness:
        await harness.copy(data=b"{}")
        summary = await harness.summary()
    assert (summary.uncomparable, summary.errors.serving, summary.errors.candidate) == (1, 0, 0)


async def test_binary_answers_are_compared() -> None:
    async def binary(request: web.Request) -> web.StreamResponse:
        entry = {"name": "y", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}}
        head = json.dumps({"outputs": [entry]}).encode()
        return web.Response(body=head + b"\x03\x07", headers={"Inference-Header-Content-Length": str(len(head))})

    async with comparing(good, binary) as harness:
        await harness.copy()
        summary = await harness.summary()
    assert (summary.rows, summary.disagreements) == (2, 0)


async def test_large_answer_is_compared_and_too_large_one_not_read() -> None:
    async def large(_: web.Request) -> web.StreamResponse:
        return web.json_response(outputs(*range(50_000)))

    async with comparing(large, large) as harness:
        await harness.copy()
        assert (await harness.summary()).rows == 50_000
    async with comparing(good, large, max_answer_bytes=1000) as harness:
        await harness.copy()
        summary = await harness.summary()
    assert (summary.mismatches.unreadable, summary.disagreements) == (1, 2)


async def test_copies_beyond_the_queue_are_answered_and_dropped() -> None:
    gate = asyncio.Event()

    async def waits(_: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.json_response(outputs(3, 7))

    async with comparing(waits, good, queue_length=3, concurrency=2) as harness:
        await harness.copy()
        await harness.copy()
        while not harness.comparer._queue.empty():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        for _ in range(10):
            await harness.copy()
        behind = await harness.summary(finished=False)
        assert (behind.received, behind.dropped, behind.compared) == (12, 7, 0)
        gate.set()
        summary = await harness.summary()
    assert (summary.received, summary.dropped, summary.compared, summary.rows) == (12, 7, 5, 10)


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_bounded_each_and_together(chunked: bool) -> None:
    gate = asyncio.Event()

    async def waits(_: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.json_response(outputs(3, 7))

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        yield body

    def data(body: bytes) -> Any:
        return chunks(body) if chunked else body

    limits = {"max_body_bytes": len(BODY), "queue_bytes": 2 * len(BODY)}
    async with comparing(waits, good, **limits) as harness:
        await harness.copy(data=data(BODY + b" "))
        assert (await harness.summary()).dropped == 1
        for _ in range(3):
            await harness.copy(data=data(BODY))
        gate.set()
        summary = await harness.summary()
        assert (summary.dropped, summary.compared) == (2, 2)
        await harness.copy(data=data(BODY))
        assert (await harness.summary()).compared == 3


async def test_metrics_and_probes() -> None:
    async with comparing(good, good) as harness:
        await harness.copy()
        await harness.summary()
        for path in ("/healthz", "/readyz"):
            async with harness.session.get(harness.url + path) as response:
                assert response.status == 200
        async with harness.session.get(f"{harness.url}/metrics") as response:
            text = await response.text()
    assert 'modelwright_comparer_requests_total{result="compared"} 1.0' in text
    assert 'modelwright_comparer_rows_total{result="agree"} 2.0' in text
    assert 'modelwright_comparer_response_duration_seconds_count{revision="candidate"} 1.0' in text
    assert 'modelwright_comparer_answer_seconds_count{revision="candidate"} 1.0' in text


async def test_stop_drops_queued_copies_and_finishes_those_in_process() -> None:
    requests = asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        requests.set()
        await asyncio.sleep(0.2)
        return web.json_response(outputs(3, 7))

    async with server(slow) as old, server(good) as new, aiohttp.ClientSession() as session:
        comparer = Comparer(
            ComparerSettings(old, new, "old", "new", host="127.0.0.1", port=0, concurrency=1, stop_seconds=10, **KNOWN)
        )
        await comparer.start()
        harness = ComparerHarness(comparer, session)
        for _ in range(3):
            await harness.copy()
        await requests.wait()
        await comparer.stop()
        summary = comparer.stats.build_summary()
    assert (summary.received, summary.compared, summary.dropped, comparer.stats.pending) == (3, 1, 2, 0)


NEEDED = {
    "SERVING_URL": "http://digits-a.vision/",
    "CANDIDATE_URL": "http://digits-b.vision:80",
    "SERVING_REVISION": "a",
    "CANDIDATE_REVISION": "b",
    "COPY_TOKEN": TOKEN,
}


def test_settings_come_from_the_environment() -> None:
    settings = read_comparer_settings({**NEEDED, "RELATIVE_TOLERANCE": "0.01", "QUEUE_LENGTH": "8", "HOST": ""})
    assert (settings.serving_url, settings.candidate_revision) == ("http://digits-a.vision", "b")
    assert (settings.relative_tolerance, settings.queue_length, settings.host) == (0.01, 8, "")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"SERVING_URL": ""}, "SERVING_URL is needed"),
        ({"CANDIDATE_REVISION": ""}, "CANDIDATE_REVISION is needed"),
        ({"CANDIDATE_URL": "digits"}, "CANDIDATE_URL must be http://"),
        ({"CANDIDATE_URL": "https://digits"}, "CANDIDATE_URL must be http://"),
        ({"QUEUE_LENGTH": "0"}, "QUEUE_LENGTH"),
        ({"QUEUE_LENGTH": "1.5"}, "QUEUE_LENGTH"),
        ({"RELATIVE_TOLERANCE": "-1"}, "RELATIVE_TOLERANCE"),
        ({"RELATIVE_TOLERANCE": "nan"}, "RELATIVE_TOLERANCE"),
        ({"COPY_TOKEN": ""}, "COPY_TOKEN is needed, or COPIES_WITHOUT_TOKEN=Count"),
        ({"COPIES_WITHOUT_TOKEN": "Some"}, "COPIES_WITHOUT_TOKEN must be Count or Refuse"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, str], named: str) -> None:
    with pytest.raises(AgentSettingsError, match=named):
        read_comparer_settings(NEEDED | wrong)


@contextlib.asynccontextmanager
async def process(
    *command: str, until: str, **environment: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start a program and yield it with the line of its output that contains `until`."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert child.stdout is not None
    try:
        while until not in (line := (await child.stdout.readline()).decode()):
            assert line, f"{command} ended"
        yield child, line
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def artifact(folder: Path, **behaviour: Any) -> Path:
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"behaviour": behaviour}))
    return folder


@contextlib.asynccontextmanager
async def model(folder: Path, version: str) -> AsyncIterator[str]:
    port = str(ports.free_ports(1)[0])
    settings = {"MODEL_DIR": str(folder), "MODEL_NAME": "digits", "MODEL_VERSION": version, "MODEL_HTTP_PORT": port}
    async with process(str(ROOT / "tests/servers/v2/server.py"), until="loaded", **settings):
        yield f"http://127.0.0.1:{port}"


async def test_candidate_wrong_on_a_fifth_is_counted_exactly(tmp_path: Path) -> None:
    requests, rows = 400, 2
    async with contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(model(artifact(tmp_path / "old"), "v1"))
        new = await stack.enter_async_context(model(artifact(tmp_path / "new", wrongShare=0.2, seed=11), "v2"))
        settings = {
            "SERVING_URL": old,
            "CANDIDATE_URL": new,
            "SERVING_REVISION": "old",
            "CANDIDATE_REVISION": "new",
            "HOST": "127.0.0.1",
            "PORT": str(ports.free_ports(1)[0]),
            "PYTHONPATH": str(ROOT / "operator"),
            "COPIES_WITHOUT_TOKEN": "Count",
        }
        comparer, _ = await stack.enter_async_context(
            process("-m", "modelwright.agents.comparer", until="comparing", **settings)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://127.0.0.1:{settings['PORT']}"
        started = asyncio.get_running_loop().time()
        for number in range(requests):
            await asyncio.sleep(max(0, started + number / 200 - asyncio.get_running_loop().time()))
            async with session.post(url + INFER, data=load.v2_body([[1, 2], [3, 4]])) as response:
                assert response.status == 202
        while True:
            async with session.get(f"{url}/summary") as response:
                summary = comparison.parse_summary(await response.read(), serving="old", candidate="new")
            if summary.compared + summary.uncomparable + summary.dropped == requests:
                break
            await asyncio.sleep(0.05)
        async with session.get(f"{new}/admin/behaviour") as response:
            wrong = (await response.json())["faults"]["wrong"]
        comparer.send_signal(signal.SIGTERM)
        assert await comparer.wait() == 0
    assert (summary.received, summary.compared, summary.dropped) == (requests, requests, 0)
    assert (summary.rows, summary.disagreements) == (requests * rows, wrong * rows)
    assert summary.difference.absolute.sum == wrong * rows
    assert (summary.errors.serving, summary.errors.candidate) == (0, 0)
    assert (summary.latency.serving.count, summary.latency.candidate.count) == (requests, requests)
    assert 0.1 < wrong / requests < 0.3
