"""The V2 test server does what its model says: otherwise every test that relies on it would prove nothing."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from devcluster import ports
from devcluster.load.client import v2_body
from tests.servers.v2.server import Behaviour, Latency, ModelError, Server, load_model

SERVER = Path(__file__).parents[1] / "servers" / "v2" / "server.py"


@contextlib.asynccontextmanager
async def serving(**behaviour: object) -> AsyncIterator[tuple[Server, str, aiohttp.ClientSession]]:
    server = Server("digits", "digits-1", Behaviour.from_json(behaviour))
    port = await server.listen("127.0.0.1", 0)
    await server.load()
    async with aiohttp.ClientSession() as session:
        yield server, f"http://127.0.0.1:{port}", session
        await session.close()
    await server.stop(1)


async def infer(session: aiohttp.ClientSession, url: str, model: str = "digits") -> tuple[int, dict]:
    async with session.post(f"{url}/v2/models/{model}/infer", data=v2_body([[1, 2], [3, 4]])) as response:
        return response.status, await response.json()


async def test_answers_the_protocol():
    async with serving() as (_, url, session):
        for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits", "/v2/models/digits/ready"):
            async with session.get(url + path) as response:
                assert response.status == 200, path
        status, body = await infer(session, url)
        assert (status, body["model_name"], body["model_version"]) == (200, "digits", "digits-1")
        assert body["outputs"] == [{"name": "output-0", "datatype": "FP64", "shape": [2], "data": [3.0, 7.0]}]
        async with session.get(f"{url}/v2/models/digits/ready") as response:
            assert response.headers["X-Model-Version"] == "digits-1"
        async with session.get(f"{url}/metrics") as response:
            assert 'v2_requests_total{model="digits",version="digits-1",code="200"} 1' in await response.text()


async def test_refuses_what_it_cannot_answer():
    async with serving() as (_, url, session):
        assert (await infer(session, url, model="other"))[0] == 404
        async with session.get(f"{url}/v2/models/digits/infer") as response:
            assert response.status == 405
        for wrong in (b"{", b"{}", b'{"inputs":[{"shape":[2,2],"data":[1,2,3]}]}'):
            async with session.post(f"{url}/v2/models/digits/infer", data=wrong) as response:
                assert response.status == 400


async def test_accepts_a_chunked_body():
    async def chunks():
        body = v2_body([[1, 2], [3, 4]])
        yield body[:10]
        yield body[10:]

    async with serving() as (_, url, session), session.post(f"{url}/v2/models/digits/infer", data=chunks()) as response:
        assert (await response.json())["outputs"][0]["data"] == [3.0, 7.0]


async def test_behaviour_changes_at_run_time():
    async with serving(shift=1) as (_, url, session):
        assert (await infer(session, url))[1]["outputs"][0]["data"] == [4.0, 8.0]
        async with session.post(f"{url}/admin/behaviour", json={"errorShare": 1}) as response:
            assert (await response.json())["behaviour"]["shift"] == 1
        assert (await infer(session, url))[0] == 500
        async with session.post(f"{url}/admin/behaviour", json={"errorShares": 1}) as response:
            assert response.status == 400
            assert "errorShares" in (await response.json())["error"]


async def test_share_of_errors_is_close_to_what_was_asked():
    async with serving(errorShare=0.3, seed=7) as (server, url, session):
        codes = [(await infer(session, url))[0] for _ in range(400)]
        assert server.faults["error"] == codes.count(500)
        assert 80 < codes.count(500) < 160


async def test_wrong_answers_are_well_formed_and_counted():
    async with serving(wrongShare=0.2, seed=7) as (server, url, session):
        outputs = [(await infer(session, url))[1]["outputs"][0]["data"] for _ in range(200)]
        assert server.faults["wrong"] == outputs.count([4.0, 8.0])
        assert outputs.count([3.0, 7.0]) == 200 - server.faults["wrong"]
        assert 20 < server.faults["wrong"] < 60


async def test_tells_the_memory_it_holds():
    async with serving(memoryMebibytes=8) as (_, url, session), session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
        held = next(line for line in lines if line.startswith("process_resident_memory_bytes "))
        assert int(held.split()[1]) > 8 << 20


@pytest.mark.parametrize("distribution", ["constant", "uniform", "exponential", "lognormal"])
def test_latency_has_the_asked_for_size(distribution: str):
    rng = random.Random(1)
    draws = sorted(Latency(distribution, 0.2).draw(rng) for _ in range(2001))
    assert min(draws) >= 0
    assert 0.12 < draws[1000] < 0.21


async def test_slow_model_is_slow():
    async with serving(latency={"distribution": "constant", "seconds": 0.2}) as (_, url, session):
        started = time.monotonic()
        await infer(session, url)
        assert time.monotonic() - started >= 0.2


async def test_ready_only_after_the_load_delay():
    server = Server("digits", "digits-1", Behaviour(load_seconds=0.2))
    loading = asyncio.create_task(server.load())
    await asyncio.sleep(0.05)
    assert not server.ready
    await loading
    assert server.ready


async def test_open_requests_are_answered_when_it_stops():
    async with serving(latency={"seconds": 0.3}) as (server, url, session):
        asked = asyncio.create_task(infer(session, url))
        await asyncio.sleep(0.1)
        await server.stop(5)
        assert (await asked)[0] == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no model.json"),
        ("{", "corrupt: Expecting"),
        ("[]", "corrupt"),
        ('{"behaviour": {"slow": 1}}', "behaviour.slow is not known"),
        ('{"behaviour": {"errorShare": 2}}', "behaviour.errorShare must be between 0 and 1"),
        ('{"behaviour": {"latency": {"ms": 2}}}', "behaviour.latency"),
    ],
)
def test_a_bad_model_file_is_named(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)


@contextlib.contextmanager
def process(directory: Path, behaviour: object) -> Iterator[tuple[subprocess.Popen, int]]:
    (directory / "model.json").write_text(json.dumps({"behaviour": behaviour}))
    port = ports.free_ports(1)[0]
    env = {**os.environ, "MODEL_DIR": str(directory), "MODEL_NAME": "digits", "MODEL_HTTP_PORT": str(port)}
    child = subprocess.Popen([sys.executable, SERVER], env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield child, port
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("behaviour", "code", "last_line"),
    [
        ({"slow": 1}, 1, "behaviour.slow is not known"),
        ({"crashAtLoad": "weights do not fit", "loadSeconds": 0.1}, 1, "model load failed: weights do not fit"),
    ],
)
def test_a_failed_load_exits_with_a_clear_last_line(tmp_path: Path, behaviour: dict, code: int, last_line: str):
    with process(tmp_path, behaviour) as (child, _):
        output, _ = child.communicate(timeout=10)
        assert child.returncode == code
        assert last_line in output.splitlines()[-1]


def test_a_process_crashes_when_told_and_stops_when_asked(tmp_path: Path):
    async def requests(port: int, count: int) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(count):
                await infer(session, f"http://127.0.0.1:{port}")

    with process(tmp_path, {"crashAfterRequests": 2}) as (child, port):
        assert child.stdout.readline().startswith("listening")
        with pytest.raises(aiohttp.ClientError):
            asyncio.run(requests(port, 3))
        assert child.wait(5) == 3
    with process(tmp_path, {}) as (child, port):
        assert child.stdout.readline().startswith("listening")
        asyncio.run(requests(port, 3))
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == 0
        assert child.stdout.read().splitlines()[-1] == "stopped after 3 infer requests"
