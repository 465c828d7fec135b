"""Our client on a wire that breaks in every way: always the right exception, and nothing left hanging."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from modelwright.app.main import RECURSION_LIMIT
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import PAGE_OBJECTS, KubeClient, load_configuration
from modelwright.kube.store import Store
from tests.unit.kube.fakes import model
from tests.wire import apiserver
from tests.wire.apiserver import FakeApiServer, Handler, answer


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[KubeClient]:
    client = KubeClient(server.configuration(), request_seconds=0.5, qps=1000, burst=1000)
    yield client
    await client.close()


async def get(client: KubeClient) -> Any:
    return await client.get(kinds.MODEL, "vision", "digits")


async def apply(client: KubeClient) -> Any:
    return await client.apply(model())


async def create(client: KubeClient) -> Any:
    return await client.create(model())


async def delete(client: KubeClient) -> Any:
    return await client.delete(kinds.MODEL, "vision", "digits", uid="u1")


async def listing(client: KubeClient) -> Any:
    return await client.list(kinds.MODEL)


CALLS = {"GET": get, "PATCH": apply, "POST": create, "DELETE": delete}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answer(500, "boom"), api_errors.Transient),
        (answer(503, '{"reason":"ServiceUnavailable"}'), api_errors.Transient),
        (answer(403, '{"kind":"Status","reason":"Forbidden","message":"may not"}'), api_errors.Denied),
        (answer(429, "", Retry_After="2"), api_errors.Throttled),
        (answer(200, "<html>a proxy's page</html>"), api_errors.Transient),
        (answer(200, "[1, 2]"), api_errors.Transient),
        (apiserver.reset, api_errors.Transient),
        (apiserver.half_close, api_errors.Transient),
        (apiserver.truncated, api_errors.Transient),
        (apiserver.hang, api_errors.Transient),
    ],
    ids=["500", "503", "403", "429", "html", "no-object", "reset", "half-close", "truncated", "hang"],
)
async def test_every_fault_is_an_api_error(
    server: FakeApiServer, client: KubeClient, method: str, fault: Handler, expected: type[api_errors.ApiError]
) -> None:
    # aiohttp itself tries an idempotent request once more when its connection was reset.
    server.fault(method, "/models", fault, times=2 if fault is apiserver.reset else 1)
    with pytest.raises(api_errors.ApiError) as caught:
        await CALLS[method](client)
    assert type(caught.value) is expected


async def test_a_server_that_is_not_there_is_transient() -> None:
    server = FakeApiServer()
    await server.start()
    client = KubeClient(server.configuration())
    await server.stop()
    with pytest.raises(api_errors.Transient, match="get /apis"):
        await get(client)
    await client.close()


async def test_a_hang_ends_by_timeout_and_the_pool_recovers(server: FakeApiServer, client: KubeClient) -> None:
    server.fault("GET", "/models", apiserver.hang, times=40)
    outcomes = await asyncio.gather(*(get(client) for _ in range(40)), return_exceptions=True)
    assert all(isinstance(o, api_errors.Transient) for o in outcomes)
    server.faults.clear()
    assert await get(client) is None


async def test_throttling_holds_back_every_later_write(server: FakeApiServer) -> None:
    client = KubeClient(server.configuration(), qps=1000, burst=1000)
    server.fault("PATCH", "/models", answer(429, "", Retry_After="0.4"))
    with pytest.raises(api_errors.Throttled) as caught:
        await apply(client)
    assert caught.value.retry_after == 0.4
    start = asyncio.get_running_loop().time()
    await get(client)
    assert asyncio.get_running_loop().time() - start < 0.3, "reads go on"
    await create(client)
    assert asyncio.get_running_loop().time() - start >= 0.35
    await client.close()


async def test_the_limiter_counts_writes_only(server: FakeApiServer) -> None:
    client = KubeClient(server.configuration(), qps=10, burst=1)
    start = asyncio.get_running_loop().time()
    for _ in range(10):
        await get(client)
    assert asyncio.get_running_loop().time() - start < 0.5
    start = asyncio.get_running_loop().time()
    await create(client)
    for _ in range(3):
        await apply(client)
    assert asyncio.get_running_loop().time() - start >= 0.29
    await client.close()


async def test_the_guard_is_called_before_writes_and_never_for_reads(server: FakeApiServer) -> None:
    def guard() -> None:
        raise RuntimeError("may not write")

    client = KubeClient(server.configuration(), write_guard=guard)
    assert await get(client) is None
    for call in (create, apply, delete):
        with pytest.raises(RuntimeError, match="may not write"):
            await call(client)
    assert server.writes() == []
    await client.close()


async def test_what_is_sent(server: FakeApiServer, client: KubeClient) -> None:
    await create(client)
    await apply(client)
    await client.apply(model(), subresource="status", field_manager="modelwright-status")
    await client.delete(kinds.MODEL, "vision", "digits", uid="u1", resource_version="7")
    assert server.requests == [
        (
            "POST",
            "/apis/modelwright.dev/v1alpha1/namespaces/vision/models?fieldManager=modelwright&fieldValidation=Strict",
        ),
        (
            "PATCH",
            "/apis/modelwright.dev/v1alpha1/namespaces/vision/models/digits"
            "?fieldManager=modelwright&force=true&fieldValidation=Strict",
        ),
        (
            "PATCH",
            "/apis/modelwright.dev/v1alpha1/namespaces/vision/models/digits/status"
            "?fieldManager=modelwright-status&force=true&fieldValidation=Strict",
        ),
        ("DELETE", "/apis/modelwright.dev/v1alpha1/namespaces/vision/models/digits"),
    ]
    options = json.loads(server.bodies[-1])
    assert options["preconditions"] == {"uid": "u1", "resourceVersion": "7"}
    assert options["propagationPolicy"] == "Background"


async def test_a_list_follows_its_pages_and_fills_in_the_kind(server: FakeApiServer, client: KubeClient) -> None:
    for n in range(PAGE_OBJECTS * 2 + 1):
        server.save(model(f"m-{n:05}"))
    found = await client.list(kinds.MODEL, labels="a=b")
    assert len(found) == PAGE_OBJECTS * 2 + 1
    assert {(o["apiVersion"], o["kind"]) for o in found} == {("modelwright.dev/v1alpha1", "Model")}
    asked = [parse_qs(urlsplit(path).query) for _, path in server.requests]
    assert [query["limit"] for query in asked] == [["8"], ["32"], ["128"], ["500"], ["500"]]
    assert {query["labelSelector"][0] for query in asked} == {"a=b"}
    server.requests.clear()
    assert len(await client.list(kinds.MODEL, metadata_only=True)) == PAGE_OBJECTS * 2 + 1
    assert len(server.requests) == 3, "what tells which objects there are is small"


async def test_a_list_whose_pages_expire_starts_anew_once(server: FakeApiServer, client: KubeClient) -> None:
    for n in range(PAGE_OBJECTS + 1):
        server.save(model(f"m-{n:05}"))
    server.fault("GET", "continue=", answer(410, '{"reason":"Expired"}'))
    assert len(await client.list(kinds.MODEL)) == PAGE_OBJECTS + 1
    server.fault("GET", "continue=", answer(410, '{"reason":"Expired"}'), times=2)
    with pytest.raises(api_errors.Transient):
        await client.list(kinds.MODEL)


async def test_metadata_only_lists_are_of_the_kind_they_are_about(server: FakeApiServer, client: KubeClient) -> None:
    server.save(model())
    [found] = await client.list(kinds.MODEL, metadata_only=True)
    assert found["kind"] == "Model"
    assert "spec" not in found


async def test_gone_counts_as_deleted(client: KubeClient) -> None:
    await delete(client)


async def test_optional_kinds_are_found_when_they_are_served() -> None:
    server = FakeApiServer(*kinds.OWN_KINDS, kinds.HTTP_ROUTE, kinds.DEPLOYMENT)
    await server.start()
    client = KubeClient(server.configuration())
    served = await client.served_kinds()
    assert kinds.HTTP_ROUTE in served
    assert kinds.GRPC_ROUTE not in served
    assert set(kinds.OWN_KINDS) <= served
    await client.close()
    await server.stop()


@pytest.mark.parametrize("obj", [{**model(), "metadata": {"name": "x"}}, {**model(), "metadata": {"namespace": "x"}}])
async def test_an_object_without_an_address_is_a_bug_of_ours(client: KubeClient, obj: dict[str, Any]) -> None:
    for write in (client.create, client.apply, client.replace):
        with pytest.raises(ValueError, match=r"metadata\.name and metadata\.namespace"):
            await write(obj)


async def test_a_proxy_of_the_environment_is_used_unless_excluded(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://cluster.test:6443"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await load_configuration()).proxy == "http://proxy.test:3128"
    monkeypatch.setenv("no_proxy", "cluster.test")
    assert (await load_configuration()).proxy is None


async def test_no_way_to_a_cluster_is_said_in_words(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(RuntimeError, match="Set KUBECONFIG, or run in a pod"):
        await load_configuration()


async def test_the_token_of_the_kubeconfig_is_sent(
    server: FakeApiServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    async def look(request: Any) -> Any:
        seen.append(request.headers.get("Authorization"))
        return await answer(404, '{"kind":"Status","reason":"NotFound"}')(request)

    server.fault("GET", "/models", look)
    configuration = server.configuration()
    configuration.api_key["BearerToken"] = "Bearer secret"
    client = KubeClient(configuration)
    await get(client)
    assert seen == ["Bearer secret"]
    await client.close()


async def test_an_object_that_is_nested_as_deep_as_the_api_server_takes_does_not_hide_the_others(
    server: FakeApiServer, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user could blind the operator for all namespaces otherwise."""
    deep = '{"metadata": {"name": "deep"}, "spec": ' + '{"a":' * 9900 + "1" + "}" * 9900 + "}"
    body = f'{{"metadata": {{"resourceVersion": "1"}}, "items": [{deep}, {{"metadata": {{"name": "other"}}}}]}}'
    before = sys.getrecursionlimit()
    try:
        server.faults.append(("GET", "models", answer(200, body, Content_Type="application/json")))
        with pytest.raises(api_errors.Transient):
            await client.list(kinds.MODEL)
        sys.setrecursionlimit(RECURSION_LIMIT)
        server.faults.append(("GET", "models", answer(200, body, Content_Type="application/json")))
        found = await client.list(kinds.MODEL)
        assert [obj["metadata"]["name"] for obj in found] == ["deep", "other"]
        store = Store({})
        for obj in found:
            obj["metadata"] |= {"uid": obj["metadata"]["name"], "namespace": "vision", "resourceVersion": "1"}
            store.apply(kinds.MODEL, "ADDED", obj)
        assert store.get(kinds.MODEL, "vision", "other") is not None
    finally:
        sys.setrecursionlimit(before)
