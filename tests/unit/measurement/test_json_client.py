"""One contract for every request over the network: an error is a result with its reason, and none is raised."""

from __future__ import annotations

import asyncio
import base64
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.analysis.evidence import Measurement, MeasurementFailure, MetricValue
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.request import MeasurementRequest
from tests.lib.measurement import Bench, FakeServer, make_request, metric

ASKS: dict[str, Callable[[], MeasurementRequest]] = {
    "prometheus query": lambda: make_request(metric(prometheus={"query": "sum(a)"})),
    "prometheus counters": lambda: make_request(metric(prometheus={"bad": 'a{code="500"}', "total": "a"})),
    "builtin from a gateway": lambda: make_request(metric(builtin="error-rate")),
    "builtin from the runtime": lambda: make_request(
        metric(builtin="latency-over", threshold="250ms", source="Runtime")
    ),
    "http": lambda: make_request(metric(http={"provider": "json", "path": "/score", "value": "/score"})),
    "comparer": lambda: make_request(metric(builtin="error-rate"), mirror=True),
}


@pytest.fixture(params=ASKS)
def measurement_request(request: pytest.FixtureRequest) -> MeasurementRequest:
    return ASKS[request.param]()


def failure(actual: Measurement) -> MeasurementFailure:
    assert isinstance(actual.result, MeasurementFailure), actual
    return actual.result


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
    bench: Bench, server: FakeServer, measurement_request: MeasurementRequest, handler: Any, reason: str
) -> None:
    server.handler = handler
    actual = failure(await bench.measure(measurement_request))
    assert actual.reason == ("ComparerUnreachable" if measurement_request.mirror else reason)
    assert not actual.permanent
    assert ("digits-comparer" if measurement_request.mirror else "connection ") in actual.message


async def test_an_answer_that_would_fill_the_memory_is_refused(
    bench: Bench, server: FakeServer, measurement_request: MeasurementRequest
) -> None:
    """1.3 MiB that were 30 MiB of lists."""
    server.handler = FakeServer.text("[" + "[]," * 450_000 + "1]")
    tracemalloc.start()
    try:
        actual = failure(await bench.measure(measurement_request))
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert actual.reason in ("MetricsAnswerTooLarge", "ComparerUnreachable")


@pytest.mark.parametrize("size", [70_000, 1 << 21])
async def test_a_summary_is_small(bench: Bench, server: FakeServer, size: int) -> None:
    server.handler = FakeServer.text('{"a": "' + "a" * size + '"}')
    actual = failure(await bench.measure(ASKS["comparer"]()))
    assert (actual.reason, "larger than 65536 bytes" in actual.message) == ("ComparerUnreachable", True)


@pytest.mark.parametrize("name", [name for name in ASKS if name != "comparer"])
async def test_a_server_that_hangs_is_given_up(bench: Bench, server: FakeServer, name: str) -> None:
    bench.options["timeout"] = "50ms"
    server.handler = server.hang
    actual = failure(await bench.measure(ASKS[name]()))
    assert actual.reason == "MetricsServerTimeout"
    assert "no answer within 50ms" in actual.message


async def test_a_server_that_is_gone_is_told(
    bench: Bench, server: FakeServer, measurement_request: MeasurementRequest
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    actual = failure(await bench.measure(measurement_request))
    assert actual.reason == ("ComparerUnreachable" if measurement_request.mirror else "MetricsServerUnreachable")
    assert "can't connect to 127.0.0.1" in actual.message


async def test_an_unknown_host_is_told(
    bench: Bench, server: FakeServer, measurement_request: MeasurementRequest
) -> None:
    server.url = "http://nowhere.invalid"
    assert failure(await bench.measure(measurement_request)).reason in (
        "ComparerUnreachable",
        "MetricsServerUnreachable",
    )


async def test_what_speaks_no_http_is_told(
    bench: Bench, server: FakeServer, measurement_request: MeasurementRequest
) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        writer.close()

    other = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with other:
        server.url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        assert failure(await bench.measure(measurement_request)).reason in (
            "ComparerUnreachable",
            "MetricsServerUnreachable",
        )


async def test_a_server_without_tls_is_told(bench: Bench, server: FakeServer) -> None:
    server.url = server.url.replace("http://", "https://")
    actual = failure(await bench.measure(make_request(metric(prometheus={"query": "sum(a)"}))))
    assert actual.reason == "MetricsServerUnreachable"


async def test_a_connection_that_is_not_configured_is_refused_for_good(bench: Bench) -> None:
    actual = failure(await bench.measure(make_request(metric(prometheus={"provider": "other", "query": "a"}))))
    assert actual.reason == "ConnectionUnknown"
    assert actual.permanent
    assert actual.message == ("the operator's configuration has no Prometheus connection called other; it has default")
    wrong_type = failure(await bench.measure(make_request(metric(http={"path": "/", "value": ""}))))
    assert (wrong_type.reason, wrong_type.permanent) == ("ConnectionUnknown", True)


async def test_credentials_are_read_at_each_use_and_never_told(
    bench: Bench, server: FakeServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("hunter2\n")
    bench.options |= {"bearerTokenFile": str(token), "headers": {"X-Scope-OrgID": "models"}}
    measurement_request = make_request(metric(prometheus={"query": "sum(a)"}))
    await bench.measure(measurement_request)
    token.write_text("hunter3")
    server.handler = server.text("denied", status=401)
    actual = await bench.measure(measurement_request)
    sent = [headers for _, _, headers in server.requests]
    assert [headers["Authorization"] for headers in sent] == ["Bearer hunter2", "Bearer hunter3"]
    assert sent[0]["X-Scope-OrgID"] == "models"
    assert "hunter" not in str(actual)


async def test_a_password_goes_with_its_user(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim")
    bench.options["basicAuth"] = {"username": "u", "passwordFile": str(tmp_path / "password")}
    await bench.measure(make_request(metric(prometheus={"query": "sum(a)"})))
    assert server.requests[0][2]["Authorization"] == "Basic dTpnZWhlaW0="


async def test_header_files_are_read_at_each_use_and_never_told(
    bench: Bench, server: FakeServer, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k3y\n")
    bench.options["headerFiles"] = {"DD-API-KEY": str(key)}
    measurement_request = make_request(metric(prometheus={"query": "sum(a)"}))
    await bench.measure(measurement_request)
    assert server.requests[0][2]["DD-API-KEY"] == "k3y"
    key.write_text("n3w")
    server.handler = server.reply({"status": "error", "error": "no access with n3w"}, status=500)
    actual = await bench.measure(measurement_request)
    assert server.requests[1][2]["DD-API-KEY"] == "n3w"
    assert "n3w" not in str(actual)


async def test_query_parameters_are_those_of_the_models_namespace(
    bench: Bench, server: FakeServer, measurement_request: MeasurementRequest
) -> None:
    bench.options["queryParameters"] = {"namespace": "$(NAMESPACE)", "dedup": "true"}
    await bench.measure(measurement_request)
    sent = {path.partition("?")[2] for path, _, _ in server.requests}
    # The comparer's address is no connection of the configuration.
    assert sent == {"" if measurement_request.mirror else "namespace=vision&dedup=true"}


@pytest.mark.parametrize("path", ["/score?namespace=other", "/score?a=1&namespace=", "/score?a=1;namespace=x"])
async def test_a_policys_path_cannot_contradict_a_query_parameter(bench: Bench, server: FakeServer, path: str) -> None:
    bench.options["queryParameters"] = {"namespace": "$(NAMESPACE)"}
    actual = failure(
        await bench.measure(make_request(metric(http={"provider": "json", "path": path, "value": "/score"})))
    )
    assert (actual.reason, actual.permanent) == ("QueryRefused", True)
    assert "sets the query parameter namespace" in actual.message
    assert server.requests == []


@pytest.mark.parametrize("path", ["/score?a=1", "/score"])
async def test_a_policys_path_keeps_its_own_query(bench: Bench, server: FakeServer, path: str) -> None:
    bench.options["queryParameters"] = {"namespace": "$(NAMESPACE)"}
    await bench.measure(make_request(metric(http={"provider": "json", "path": path, "value": "/score"})))
    (sent,) = {actual for actual, _, _ in server.requests}
    assert sent == "/api/score?" + ("a=1&" if "a=1" in path else "") + "namespace=vision"


class Issuer:
    """A server that gives tokens for a client's credentials."""

    def __init__(self, server: FakeServer, tmp_path: Path) -> None:
        self.server, self.secret = server, tmp_path / "secret"
        self.secret.write_text("s:cret value\n")
        self.issue("first-token")

    def issue(self, token: str, **more: Any) -> None:
        self.server.handler = FakeServer.reply({"access_token": token, "token_type": "Bearer", **more})

    @property
    def options(self) -> dict[str, Any]:
        return {
            "oauth2": {
                "tokenUrl": f"{self.server.url}/token",
                "clientId": "model wright",
                "clientSecretFile": str(self.secret),
                "scopes": ["metrics.read", "more"],
                "parameters": {"audience": "prometheus"},
            }
        }


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with FakeServer().serving() as running:
        yield Issuer(running, tmp_path)


QUERY = make_request(metric(prometheus={"query": "sum(a)"}))


async def test_the_issuer_gets_the_secret_and_the_server_the_token(
    bench: Bench, server: FakeServer, issuer: Issuer
) -> None:
    bench.options |= issuer.options
    for _ in range(3):
        await bench.measure(QUERY)
    (measurement_request,) = issuer.server.requests
    assert measurement_request[:2] == (
        "/token",
        {"grant_type": "client_credentials", "scope": "metrics.read more", "audience": "prometheus"},
    )
    client = base64.b64decode(measurement_request[2]["Authorization"].removeprefix("Basic ")).decode()
    assert client == "model+wright:s%3Acret+value"
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer first-token"}
    assert "cret" not in str(server.requests)


async def test_a_token_is_renewed_when_refused_or_the_secret_changes(
    bench: Bench, server: FakeServer, issuer: Issuer
) -> None:
    bench.options |= issuer.options
    server.handler = server.reply({"error": "no first-token"}, status=401)
    actual = failure(await bench.measure(QUERY))
    assert actual.reason == "MetricsAccessDenied"
    issuer.issue("second-token")
    server.handler = server.vector("1")
    await bench.measure(QUERY)
    issuer.issue("third-token")
    issuer.secret.write_text("another")
    await bench.measure(QUERY)
    sent = [headers["Authorization"] for _, _, headers in server.requests]
    assert sent == ["Bearer first-token", "Bearer second-token", "Bearer third-token"]


async def test_a_token_that_has_ended_is_not_used(bench: Bench, server: FakeServer, issuer: Issuer) -> None:
    bench.options |= issuer.options
    issuer.issue("short", expires_in=0)
    await bench.measure(QUERY)
    issuer.issue("next", expires_in=3600)
    await bench.measure(QUERY)
    await bench.measure(QUERY)
    sent = [headers["Authorization"] for _, _, headers in server.requests]
    assert sent == ["Bearer short", "Bearer next", "Bearer next"]


@pytest.mark.parametrize("lives", ["1" + 400 * "0", "1e999", "NaN", "-1e999", "true", '"x"', "null", "[]"])
async def test_whatever_an_issuer_says_of_the_time_a_token_is_used(
    bench: Bench, server: FakeServer, issuer: Issuer, lives: str
) -> None:
    bench.options |= issuer.options
    issuer.server.handler = FakeServer.text(f'{{"access_token": "a-token", "expires_in": {lives}}}')
    server.handler = server.vector("1")
    assert (await bench.measure(QUERY)).result == MetricValue(1.0)


@pytest.mark.parametrize(
    ("handler", "reason", "expected"),
    [
        (
            FakeServer.reply({"error": "invalid_client", "error_description": "s:cret value"}, status=401),
            "MetricsAccessDenied",
            "oauth2.tokenUrl answered 401 (invalid_client)",
        ),
        (FakeServer.reply({"error": "s:cret value"}, status=400), "MetricsAccessDenied", "answered 400"),
        (FakeServer.text("s:cret value", status=500), "MetricsServerError", "answered 500"),
        (FakeServer.reply({}, status=307, Location="http://elsewhere/"), "MetricsServerError", "answered 307"),
        (FakeServer.text("s:cret value"), "MetricsAnswerInvalid", "gave no bearer token"),
        (FakeServer.reply({"access_token": "a\nb"}), "MetricsAnswerInvalid", "gave no bearer token"),
        (FakeServer.reply({"access_token": "t", "token_type": "mac"}), "MetricsAnswerInvalid", "gave no bearer token"),
        (FakeServer.endless, "MetricsAnswerInvalid", "gave no bearer token"),
    ],
)
async def test_an_issuer_without_a_token_leaks_no_secret(
    bench: Bench, server: FakeServer, issuer: Issuer, handler: Any, reason: str, expected: str
) -> None:
    bench.options |= issuer.options
    issuer.server.handler = handler
    actual = failure(await bench.measure(QUERY))
    assert actual.reason == reason
    assert expected in actual.message
    assert "cret" not in actual.message.replace("clientSecretFile", "")
    assert server.requests == []


async def test_an_issuer_that_hangs_or_is_gone_is_told(bench: Bench, server: FakeServer, issuer: Issuer) -> None:
    bench.options |= issuer.options | {"timeout": "50ms"}
    issuer.server.handler = FakeServer.hang
    assert failure(await bench.measure(QUERY)).reason == "MetricsServerTimeout"
    bench.options["oauth2"]["tokenUrl"] = "http://nowhere.invalid"
    bench.options["timeout"] = "5s"
    assert failure(await bench.measure(QUERY)).reason == "MetricsServerUnreachable"
    assert server.requests == []


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe"])
async def test_credentials_that_cannot_be_read_are_told_by_their_file(
    bench: Bench, server: FakeServer, tmp_path: Path, content: bytes | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    bench.options["bearerTokenFile"] = str(token)
    actual = failure(await bench.measure(make_request(metric(prometheus={"query": "sum(a)"}))))
    assert actual.reason == "CredentialsUnreadable"
    assert not actual.permanent
    assert str(token) in actual.message
    assert "two" not in actual.message
    assert server.requests == []


async def test_a_ca_file_that_is_none_is_told(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    server.url = "https://127.0.0.1:1"
    bench.options["caFile"] = str(tmp_path / "ca")
    actual = failure(await bench.measure(make_request(metric(prometheus={"query": "sum(a)"}))))
    assert actual.reason == "CredentialsUnreadable"
    assert str(tmp_path / "ca") in actual.message


async def test_redirects_are_not_followed(
    bench: Bench, server: FakeServer, measurement_request: MeasurementRequest
) -> None:
    server.handler = server.reply({}, status=307, Location=f"{server.url}/elsewhere")
    await bench.measure(measurement_request)
    assert not any("elsewhere" in path for path, _, _ in server.requests)


async def test_a_name_that_leads_to_a_metadata_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(*_: Any) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", ("169.254.169.254", 0))]

    monkeypatch.setattr("modelwright.net.resolver.DnsLookups.resolve_name", find)
    web = JsonClient()
    connection = Bench(FakeServer())
    connection.server.url = "http://evil.example.com"
    with pytest.raises(MeasurementError) as refused:
        await web.request_json(connection.connections()["default"], "/")
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
    measurement_request = make_request(metric(prometheus={"query": "sum(a)"}))
    every = [
        asyncio.create_task(
            measurer.measure_metric(bench.start_round(measurement_request), measurement_request.metrics[0])
        )
        for _ in range(30)
    ]
    await full.wait()
    go.set()
    actual = await asyncio.gather(*every)
    assert server.most_at_once == 8
    assert {one.result for one in actual} == {MetricValue(1.0)}


async def test_a_fault_of_our_own_is_a_result_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("modelwright.measurement.queries.fill_placeholders", broken)
    actual = failure(await bench.measure(make_request(metric(prometheus={"query": "a"}))))
    assert actual.reason == "InternalError"
    assert "secret" not in actual.message
