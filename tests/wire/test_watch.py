"""Kopf as our watch frame on a failing connection: what arrives, what the resync finds, and that Kopf never writes."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from urllib.parse import unquote

import pytest

from modelwright.api.names import MANAGED_SELECTOR
from modelwright.app import kopf_login
from modelwright.handlers import kopf_watch
from modelwright.kube import kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.missing_rights import MISSING, Right
from modelwright.kube.resync import Resync, ResyncConfig, ResyncHooks, WatchedKind
from modelwright.kube.store import Object, Store
from modelwright.obs.clock import SystemClock
from tests.unit.kube.fakes import model
from tests.wire import apiserver
from tests.wire.apiserver import FakeApiServer, answer, refuse

WATCHED = (WatchedKind(kinds.MODEL), WatchedKind(kinds.DEPLOYMENT, MANAGED_SELECTOR))


class Frame:
    """Kopf over a fake API server, with a store behind it.

    It has a thread and an event loop of its own, because at its end it cancels every task it finds in its loop.
    """

    def __init__(self, server: FakeApiServer, inactivity: float = 70.0, namespaces: tuple[str, ...] = ()) -> None:
        self.server = server
        self.namespaces = namespaces
        self.watched = tuple(WatchedKind(what.kind, what.labels, namespaces) for what in WATCHED)
        self.streams: kopf_watch.KopfStreams | None = None
        self.completed: list[str] = []
        self.store = Store()
        self.sink: kopf_watch.EventSink = self.store.apply
        self._inactivity = inactivity
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None
        self.listed: asyncio.Event | None = None

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        configuration = self.server.configuration()
        settings = kopf_watch.build_settings()
        settings.watching.inactivity_timeout = self._inactivity
        settings.watching.reconnect_backoff = 0.05
        settings.networking.error_backoffs = (0.05, 0.05, 0.05)

        async def run() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            login = kopf_login.KopfLogin(configuration, SystemClock())
            streams = kopf_watch.KopfStreams(self.watched, lambda *event: self.sink(*event), settings, self.namespaces)
            streams.completed = self.completed.append
            self.streams, self.listed = streams, streams.listed
            await streams.run(login.connection_info, ready=asyncio.Event(), stop=self._stop)

        try:
            asyncio.run(run())
        except BaseException as error:
            self.error = error

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    async def watching(self) -> None:
        """Until the watch of Models is open."""
        await until(lambda: self.server.watching(kinds.MODEL) == 1)

    async def stop(self) -> None:
        if self._loop is not None and self._stop is not None and not self.ended:
            self._loop.call_soon_threadsafe(self._stop.set)
        await until(lambda: self.ended)

    def names(self) -> set[str]:
        return {name for _, name in self.store.list_names(kinds.MODEL)}


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "not in time"
        await asyncio.sleep(0.01)


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer(kinds.MODEL, kinds.DEPLOYMENT, _NAMESPACE, _CRD)
    await server.start()
    yield server
    await server.stop()


# Kopf reads these two at start although it is configured not to watch them.
_NAMESPACE = kinds.Kind("", "v1", "namespaces", "Namespace", namespaced=False)
_CRD = kinds.Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


@pytest.fixture
async def frame(server: FakeApiServer) -> AsyncIterator[Frame]:
    frame = Frame(server)
    server.save(model("first"))
    server.save(model("second"))
    frame.start()
    await frame.watching()
    yield frame
    await frame.stop()


def resync_of(frame: Frame, client: KubeClient) -> Resync:
    return Resync(
        client,
        frame.store,
        WATCHED,
        ResyncConfig(served=frame.server.served, grace=0.05),
        ResyncHooks(enqueue_all=lambda: None, on_fatal=pytest.fail, on_kinds_changed=lambda _: None),
    )


async def test_what_is_listed_and_what_is_watched_reach_the_store(frame: Frame, server: FakeApiServer) -> None:
    await until(lambda: frame.names() == {"first", "second"})
    third = server.save(model("third"))
    await until(lambda: frame.names() == {"first", "second", "third"})
    server.save(model("third", labels={"a": "b"}, uid=third["metadata"]["uid"]))
    await until(lambda: "labels" in (frame.store.get(kinds.MODEL, "vision", "third") or {})["metadata"])
    server.remove(third)
    await until(lambda: frame.names() == {"first", "second"})


async def test_the_first_lists_are_complete_when_each_kind_was_listed(server: FakeApiServer) -> None:
    held = asyncio.Event()

    async def hold(request: apiserver.web.Request) -> apiserver.web.StreamResponse:
        await held.wait()
        return apiserver.web.Response(status=500)

    server.save(model("first"))
    server.fault("GET", "/deployments?limit", hold)
    frame = Frame(server)
    frame.start()
    await until(lambda: frame.names() == {"first"})
    assert frame.listed is not None
    assert not frame.listed.is_set(), "Deployments were not listed yet"
    held.set()
    await until(frame.listed.is_set)
    await frame.stop()


async def test_children_are_listed_and_watched_by_our_label(frame: Frame, server: FakeApiServer) -> None:
    await until(lambda: server.watching(kinds.DEPLOYMENT) == 1)
    asked = [path for method, path in server.requests if "/deployments?" in path]
    assert len(asked) == 2
    assert all(f"labelSelector={MANAGED_SELECTOR}" in unquote(path) for path in asked)


async def test_the_first_list_is_followed_through_its_pages(server: FakeApiServer) -> None:
    frame = Frame(server)
    for n in range(230):
        server.save(model(f"m-{n}"))
    frame.start()
    await until(lambda: len(frame.names()) == 230)
    await frame.stop()


async def test_after_410_the_resync_drops_what_vanished(frame: Frame, server: FakeApiServer) -> None:
    await until(lambda: frame.names() == {"first", "second"})
    server.remove(server.objects[kinds.MODEL, "vision", "first"], tell=False)
    server.save(model("new"), tell=False)
    server.expire(kinds.MODEL)
    await until(lambda: "new" in frame.names())
    assert frame.names() == {"first", "second", "new"}, "Kopf reports deletions now: the resync may become simpler"

    heard: list[tuple[Object | None, Object | None]] = []
    frame.store.subscribe(lambda kind, old, new: heard.append((old, new)))
    client = KubeClient(server.configuration())
    report = await resync_of(frame, client).resync_once()
    await client.close()
    assert report.stale == [(kinds.MODEL, ("vision", "first"))]
    assert frame.names() == {"second", "new"}
    [(old, new)] = heard
    assert old is not None
    assert old["metadata"]["name"] == "first"
    assert new is None


async def test_a_resync_beside_a_healthy_watch_finds_nothing(frame: Frame, server: FakeApiServer) -> None:
    await until(lambda: frame.names() == {"first", "second"})
    client = KubeClient(server.configuration())
    report = await resync_of(frame, client).resync_once()
    await client.close()
    assert (report.stale, report.behind, report.ahead) == ([], [], [])


async def test_a_stream_that_ends_is_opened_again_where_it_was(frame: Frame, server: FakeApiServer) -> None:
    await until(lambda: frame.names() == {"first", "second"})
    lists = sum("watch" not in p and "/models?" in p for _, p in server.requests)
    server.send(kinds.MODEL, None)
    server.save(model("meanwhile"))
    await until(lambda: "meanwhile" in frame.names())
    assert sum("watch" not in p and "/models?" in p for _, p in server.requests) == lists, "no new list was needed"


async def test_a_stream_cut_in_the_middle_of_an_event_loses_nothing(frame: Frame, server: FakeApiServer) -> None:
    await until(lambda: frame.names() == {"first", "second"})
    obj = server.save(model("cut"), tell=False)
    raw = json.dumps({"type": "ADDED", "object": obj}).encode()

    async def cut(request: apiserver.web.Request) -> apiserver.web.StreamResponse:
        response = apiserver.web.StreamResponse()
        await response.prepare(request)
        await response.write(raw[:50])
        assert request.transport is not None
        request.transport.abort()
        return response

    server.fault("GET", "models?watch", cut)
    server.send(kinds.MODEL, None)
    await until(lambda: "cut" in frame.names())


@pytest.mark.parametrize(
    "fault",
    [answer(429, "", Retry_After="1"), answer(500, "boom"), answer(503, "not yet"), apiserver.reset],
    ids=["429", "500", "503", "reset"],
)
async def test_a_failing_list_is_tried_again(server: FakeApiServer, fault: apiserver.Handler) -> None:
    server.save(model("first"))
    server.fault("GET", "/models?limit", fault)
    frame = Frame(server)
    frame.start()
    await until(lambda: frame.names() == {"first"})
    await frame.stop()


async def test_a_watch_that_is_refused_for_a_moment_is_tried_again(frame: Frame, server: FakeApiServer) -> None:
    server.fault("GET", "models?watch", answer(500, "boom"))
    server.fault("GET", "models?watch", answer(429, "", Retry_After="1"))
    server.send(kinds.MODEL, None)
    server.save(model("meanwhile"))
    await until(lambda: "meanwhile" in frame.names())


async def test_a_watch_that_fails_four_times_in_a_row_ends_the_process(frame: Frame, server: FakeApiServer) -> None:
    server.fault("GET", "models?watch", answer(503, "no healthy upstream"), times=4)
    server.send(kinds.MODEL, None)
    await until(lambda: frame.ended, 30)
    assert frame.error is not None


CANNOT = 'models.modelwright.dev is forbidden: User "op" cannot {} resource "models" in API group "modelwright.dev"{}'


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf_watch, "DENIED_RETRY_SECONDS", (0.05,))
    monkeypatch.setattr(kopf_login, "LOGIN_SECONDS", (0.05,))


async def test_a_revoked_right_is_named_and_events_are_read_afterwards(
    frame: Frame, server: FakeApiServer, impatient: None
) -> None:
    # Kopf sends each of these four times.
    server.fault("GET", "models?watch", refuse(403, CANNOT.format("watch", " at the cluster scope")), times=4)
    server.fault("GET", "/models?limit", refuse(403, CANNOT.format("list", " at the cluster scope")), times=8)
    server.send(kinds.MODEL, None)
    missing = Right("list", "models.modelwright.dev", "")
    await until(lambda: missing in MISSING.list_missing())
    server.save(model("meanwhile"))
    await until(lambda: "meanwhile" in frame.names())
    assert not frame.ended
    assert missing not in MISSING.list_missing()


async def test_a_token_that_is_refused_is_asked_for_again_with_pauses_and_ends_nothing(
    frame: Frame, server: FakeApiServer, impatient: None
) -> None:
    await until(lambda: frame.names() == {"first", "second"})
    server.fault("GET", "models?watch", refuse(401, "Unauthorized"), times=2)
    server.send(kinds.MODEL, None)
    server.save(model("meanwhile"))
    await until(lambda: "meanwhile" in frame.names(), 60)
    assert not frame.ended
    assert not server.faults


async def test_a_namespace_that_may_not_be_read_keeps_no_other_one_waiting(
    server: FakeApiServer, impatient: None
) -> None:
    place = "/namespaces/closed/models?limit"
    server.fault("GET", place, refuse(403, CANNOT.format("list", ' in the namespace "closed"')), times=100)
    server.save(model("first"))
    frame = Frame(server, namespaces=("vision", "closed"))
    frame.start()
    await until(lambda: frame.listed is not None and frame.listed.is_set())
    assert frame.streams is not None
    assert frame.streams.is_unread("closed")
    assert not frame.streams.is_unread("vision")
    assert Right("list", "models.modelwright.dev", "closed") in MISSING.list_missing()
    server.faults.clear()
    await until(lambda: frame.completed == ["closed"])
    assert not frame.streams.is_unread("closed")
    await frame.stop()


async def test_a_stream_that_is_silent_for_too_long_is_given_up(server: FakeApiServer) -> None:
    frame = Frame(server, inactivity=0.5)
    frame.start()
    await frame.watching()
    # The stream stays open and swallows this.
    server.save(model("swallowed"), tell=False)
    await until(lambda: "swallowed" in frame.names())
    await frame.stop()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "internal"}}\n',
        b'{"type": "ADDED", "object": {"metad\n',
    ],
    ids=["error event", "truncated JSON"],
)
async def test_an_event_that_is_not_understood_ends_the_process(
    frame: Frame, server: FakeApiServer, raw: bytes
) -> None:
    server.send(kinds.MODEL, raw)
    # A watch that ended in silence would leave a store that ages.
    await until(lambda: frame.ended, 30)
    assert frame.error is not None


async def test_a_sink_that_fails_is_logged_and_the_next_event_arrives(
    frame: Frame, server: FakeApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    await until(lambda: frame.names() == {"first", "second"})

    def sink(kind: kinds.Kind, type_: str | None, obj: Object) -> None:
        if obj["metadata"]["name"] == "poison":
            raise ZeroDivisionError
        frame.store.apply(kind, type_, obj)

    frame.sink = sink  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        server.save(model("poison"))
        server.save(model("fine"))
        await until(lambda: "fine" in frame.names())
    assert any("could not be handled" in record.message for record in caplog.records)


async def test_kopf_never_writes_whatever_objects_contain(frame: Frame, server: FakeApiServer) -> None:
    odd = [
        {"finalizers": ["kopf.zalando.org/KopfFinalizerMarker", "modelwright.dev/ours", "foregroundDeletion"]},
        {"finalizers": ["other.example/x"], "deletionTimestamp": "2026-01-01T00:00:00Z"},
        {"annotations": {"kopf.zalando.org/last-handled-configuration": "{}", "kopf.zalando.org/touch-dummy": "x"}},
    ]
    for n, more in enumerate(odd):
        server.save(model(f"odd-{n}", **more))
    await until(lambda: len(frame.names()) == 2 + len(odd))
    for n, more in enumerate(odd):
        place = (kinds.MODEL, "vision", f"odd-{n}")
        changed = server.save({**server.objects[place], "spec": {"changed": n}})
        assert {k: v for k, v in changed["metadata"].items() if k in more} == more
    server.expire(kinds.MODEL)
    await frame.watching()
    await asyncio.sleep(0.7)
    for n in range(len(odd)):
        server.remove(server.objects[kinds.MODEL, "vision", f"odd-{n}"])
    await until(lambda: frame.names() == {"first", "second"})
    assert server.writes() == []
