"""One contract for all that is asked over the network: every fault is a result with its reason; nothing is raised."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.analysis.port import Ask
from modelwright.analysis.web import Fault, Web
from modelwright.core.analysis.evidence import Failure, Measurement, Value
from tests.unit.measuring.conftest import Bench, FakeServer, ask, metric

ASKS: dict[str, Callable[[], Ask]] = {
    "prometheus query": lambda: ask(metric(prometheus={"query": "sum(a)"})),
    "prometheus counters": lambda: ask(metric(prometheus={"bad": 'a{code="500"}', "total": "a"})),
    "builtin from a gateway": lambda: ask(metric(builtin="error-rate")),
    "builtin from the runtime": lambda: ask(metric(builtin="latency-over", threshold="250ms", source="Runtime")),
    "http": lambda: ask(metric(http={"provider": "json", "path": "/score", "value": "/score"})),
    "comparer": lambda: ask(metric(builtin="error-rate"), mirror=True),
}


@pytest.fixture(params=ASKS)
def asked(request: pytest.FixtureRequest) -> Ask:
    return ASKS[request.param]()


def failure(found: Measurement) -> Failure:
    assert isinstance(found.result, Failure), found
    return found.result


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (FakeServer.reply({"error": "no"}, status=401), "MetricsAccessDenied"),
        (FakeServer.text("no", status=403), "MetricsAccessDenied"),
        (FakeServer.text("slow down", status=429), "MetricsServerError"),
        (FakeServer.text("oh", status=500), "MetricsServerError"),
        (FakeServer.reply({"oh": 1}, status=503), "MetricsServerError"),
        (FakeServer.text("", status=503), "MetricsServerError"),
        (FakeServer.text("<html>", status=404), "MetricsServerError"),
        (FakeServer.reply({}, status=302, Location="http://elsewhere/"), "MetricsServerError"),
        (FakeServer.text("<html>login</html>"), "MetricsAnswerInvalid"),
        (FakeServer.text("[" * 100_000), "MetricsAnswerInvalid"),
        (FakeServer.cut_off, "MetricsAnswerInvalid"),
        (FakeServer.endless, "MetricsAnswerTooLarge"),
    ],
)
async def test_a_fault_is_told_with_its_reason(
    bench: Bench, server: FakeServer, asked: Ask, handler: Any, reason: str
) -> None:
    server.handler = handler
    found = failure(await bench.measure(asked))
    assert found.reason == ("ComparerUnreachable" if asked.mirror else reason)
    assert not found.permanent
    assert ("digits-comparer" if asked.mirror else "connection ") in found.message


async def test_an_answer_that_would_fill_the_memory_is_refused(bench: Bench, server: FakeServer, asked: Ask) -> None:
    """1.3 MiB that were 30 MiB of lists."""
    server.handler = FakeServer.text("[" + "[]," * 450_000 + "1]")
    tracemalloc.start()
    try:
        found = failure(await bench.measure(asked))
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert found.reason in ("MetricsAnswerTooLarge", "ComparerUnreachable")


@pytest.mark.parametrize("size", [70_000, 1 << 21])
async def test_a_summary_is_small(bench: Bench, server: FakeServer, size: int) -> None:
    server.handler = FakeServer.text('{"a": "' + "a" * size + '"}')
    found = failure(await bench.measure(ASKS["comparer"]()))
    assert (found.reason, "larger than 65536 bytes" in found.message) == ("ComparerUnreachable", True)


@pytest.mark.parametrize("name", [name for name in ASKS if name != "comparer"])
async def test_a_server_that_hangs_is_given_up(bench: Bench, server: FakeServer, name: str) -> None:
    bench.options["timeout"] = "50ms"
    server.handler = server.hang
    found = failure(await bench.measure(ASKS[name]()))
    assert found.reason == "MetricsServerTimeout"
    assert "no answer within 50ms" in found.message


async def test_a_server_that_is_gone_is_told(bench: Bench, server: FakeServer, asked: Ask) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    found = failure(await bench.measure(asked))
    assert found.reason == ("ComparerUnreachable" if asked.mirror else "MetricsServerUnreachable")
    assert "can't connect to 127.0.0.1" in found.message


async def test_an_unknown_host_is_told(bench: Bench, server: FakeServer, asked: Ask) -> None:
    server.url = "http://nowhere.invalid"
    assert failure(await bench.measure(asked)).reason in ("ComparerUnreachable", "MetricsServerUnreachable")


async def test_what_speaks_no_http_is_told(bench: Bench, server: FakeServer, asked: Ask) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        writer.close()

    other = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with other:
        server.url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        assert failure(await bench.measure(asked)).reason in ("ComparerUnreachable", "MetricsServerUnreachable")


async def test_a_server_without_tls_is_told(bench: Bench, server: FakeServer) -> None:
    server.url = server.url.replace("http://", "https://")
    found = failure(await bench.measure(ask(metric(prometheus={"query": "sum(a)"}))))
    assert found.reason == "MetricsServerUnreachable"


async def test_a_connection_that_is_not_configured_is_refused_for_good(bench: Bench) -> None:
    found = failure(await bench.measure(ask(metric(prometheus={"provider": "other", "query": "a"}))))
    assert found.reason == "ConnectionUnknown"
    assert found.permanent
    assert found.message == (
        "the operator's configuration has no Prometheus connection called other; it has default"
    )  # fmt: skip
    wrong_type = failure(await bench.measure(ask(metric(http={"path": "/", "value": ""}))))
    assert (wrong_type.reason, wrong_type.permanent) == ("ConnectionUnknown", True)


async def test_credentials_are_read_at_each_use_and_never_told(
    bench: Bench, server: FakeServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("hunter2\n")
    bench.options |= {"bearerTokenFile": str(token), "headers": {"X-Scope-OrgID": "models"}}
    asked = ask(metric(prometheus={"query": "sum(a)"}))
    await bench.measure(asked)
    token.write_text("hunter3")
    server.handler = server.text("denied", status=401)
    found = await bench.measure(asked)
    sent = [headers for _, _, headers in server.requests]
    assert [headers["Authorization"] for headers in sent] == ["Bearer hunter2", "Bearer hunter3"]
    assert sent[0]["X-Scope-OrgID"] == "models"
    assert "hunter" not in str(found)


async def test_a_password_goes_with_its_user(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim")
    bench.options["basicAuth"] = {"username": "u", "passwordFile": str(tmp_path / "password")}
    await bench.measure(ask(metric(prometheus={"query": "sum(a)"})))
    assert server.requests[0][2]["Authorization"] == "Basic dTpnZWhlaW0="


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe"])
async def test_credentials_that_cannot_be_read_are_told_by_their_file(
    bench: Bench, server: FakeServer, tmp_path: Path, content: bytes | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    bench.options["bearerTokenFile"] = str(token)
    found = failure(await bench.measure(ask(metric(prometheus={"query": "sum(a)"}))))
    assert found.reason == "CredentialsUnreadable"
    assert not found.permanent
    assert str(token) in found.message
    assert "two" not in found.message
    assert server.requests == []


async def test_a_ca_file_that_is_none_is_told(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    server.url = "https://127.0.0.1:1"
    bench.options["caFile"] = str(tmp_path / "ca")
    found = failure(await bench.measure(ask(metric(prometheus={"query": "sum(a)"}))))
    assert found.reason == "CredentialsUnreadable"
    assert str(tmp_path / "ca") in found.message


async def test_redirects_are_not_followed(bench: Bench, server: FakeServer, asked: Ask) -> None:
    server.handler = server.reply({}, status=307, Location=f"{server.url}/elsewhere")
    await bench.measure(asked)
    assert not any("elsewhere" in path for path, _, _ in server.requests)


async def test_a_name_that_leads_to_a_metadata_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(*_: Any) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", ("169.254.169.254", 0))]

    monkeypatch.setattr("modelwright.guard.Lookups.find", find)
    web = Web()
    connection = Bench(FakeServer())
    connection.server.url = "http://evil.example.com"
    with pytest.raises(Fault) as refused:
        await web.ask(connection.connections()["default"], "/")
    await web.close()
    assert refused.value.failure.reason == "MetricsServerUnreachable"
    assert "metadata addresses" in refused.value.failure.message


async def test_a_server_is_asked_a_bounded_number_of_times_at_once(bench: Bench, server: FakeServer) -> None:
    full, go = asyncio.Event(), asyncio.Event()

    async def wait(request: Any) -> Any:
        if server.at_once == 8:
            full.set()
        await go.wait()
        return await FakeServer.vector("1")(request)

    server.handler = wait
    measurer = bench.measurer()
    asked = ask(metric(prometheus={"query": "sum(a)"}))
    every = [asyncio.create_task(measurer.measure(bench.look(asked), asked.metrics[0])) for _ in range(30)]
    await full.wait()
    go.set()
    found = await asyncio.gather(*every)
    assert server.most_at_once == 8
    assert {one.result for one in found} == {Value(1.0)}


async def test_a_fault_of_our_own_is_a_result_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("modelwright.analysis.promql.fill", broken)
    found = failure(await bench.measure(ask(metric(prometheus={"query": "a"}))))
    assert found.reason == "InternalError"
    assert "secret" not in found.message
