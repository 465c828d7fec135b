"""Events are sent once, in the background, and their failures never reach the caller."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from modelwright.kube import api_errors, kinds
from modelwright.kube.events import NOTE_MAX, EventRecorder
from modelwright.kube.kinds import EVENT
from modelwright.obs.clock import FakeClock
from tests.unit.kube.fakes import FakeClient, Object, model, transient

SUBJECT = model(uid="u1", resourceVersion="7")


class EventHarness:
    def __init__(self, capacity: int = 1000) -> None:
        self.clock = FakeClock()
        self.client = FakeClient()
        self.recorder = EventRecorder(self.client, self.clock, instance="op_1", capacity=capacity)  # type: ignore[arg-type]

    @property
    def sent(self) -> list[Object]:
        return [o for (kind, _, _), o in self.client.objects.items() if kind == EVENT]

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)


@pytest.fixture
async def harness() -> AsyncIterator[EventHarness]:
    harness = EventHarness()
    running = asyncio.create_task(harness.recorder.run())
    yield harness
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_an_event_has_what_the_api_asks_for(harness: EventHarness) -> None:
    harness.recorder.record(SUBJECT, "Normal", "Serving", "digits-v1 serves", action="Promote")
    await harness.recorder.drain(1)
    [event] = harness.sent
    assert event["metadata"]["namespace"] == "vision"
    assert event["metadata"]["name"].startswith("digits.")
    assert event["eventTime"] == "2026-01-01T00:00:00.000000Z"
    assert event["regarding"] == {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "Model",
        "namespace": "vision",
        "name": "digits",
        "uid": "u1",
        "resourceVersion": "7",
    }
    assert (event["type"], event["reason"], event["note"]) == ("Normal", "Serving", "digits-v1 serves")
    assert (event["action"], event["reportingInstance"]) == ("Promote", "op_1")
    assert event["reportingController"]


async def test_the_same_event_is_sent_once_in_five_minutes(harness: EventHarness) -> None:
    for _ in range(3):
        harness.recorder.record(SUBJECT, "Warning", "Stalled", "no runtime")
    harness.clock.advance(299)
    harness.recorder.record(SUBJECT, "Warning", "Stalled", "no runtime")
    await harness.settle()
    assert len(harness.sent) == 1
    harness.clock.advance(1)
    harness.recorder.record(SUBJECT, "Warning", "Stalled", "no runtime")
    await harness.settle()
    assert len(harness.sent) == 2


async def test_another_note_reason_or_object_makes_another_event(harness: EventHarness) -> None:
    harness.recorder.record(SUBJECT, "Warning", "Stalled", "no runtime")
    harness.recorder.record(SUBJECT, "Warning", "Stalled", "another note")
    harness.recorder.record(SUBJECT, "Warning", "Other", "no runtime")
    harness.recorder.record(model(uid="u2"), "Warning", "Stalled", "no runtime")
    await harness.settle()
    assert sorted((e["regarding"]["uid"], e["reason"], e["note"]) for e in harness.sent) == [
        ("u1", "Other", "no runtime"),
        ("u1", "Stalled", "another note"),
        ("u1", "Stalled", "no runtime"),
        ("u2", "Stalled", "no runtime"),
    ]


async def test_a_full_queue_drops_and_never_waits() -> None:
    harness = EventHarness(capacity=3)
    for n in range(10):
        harness.recorder.record(SUBJECT, "Normal", "Serving", f"note {n}")
    running = asyncio.create_task(harness.recorder.run())
    await harness.settle()
    running.cancel()
    assert [e["note"] for e in harness.sent] == ["note 0", "note 1", "note 2"]


async def test_a_short_outage_is_overcome(harness: EventHarness) -> None:
    harness.client.failing["create"] = [transient(), transient()]
    harness.recorder.record(SUBJECT, "Normal", "Serving", "x")
    for _ in range(3):
        await harness.settle()
        harness.clock.advance(5)
    await harness.settle()
    assert len(harness.sent) == 1


@pytest.mark.parametrize("error", [api_errors.Denied(403, "Forbidden", "no"), RuntimeError("a bug"), None])
async def test_what_is_refused_is_dropped_and_the_next_one_is_sent(
    harness: EventHarness, error: Exception | None
) -> None:
    harness.client.failing["create"] = [error] if error else [transient() for _ in range(3)]
    harness.recorder.record(SUBJECT, "Normal", "Serving", "first")
    harness.recorder.record(SUBJECT, "Normal", "Serving", "second")
    for _ in range(5):
        await harness.settle()
        harness.clock.advance(5)
    assert [e["note"] for e in harness.sent] == ["second"]


async def test_nonsense_is_swallowed(harness: EventHarness) -> None:
    harness.recorder.record({}, "Normal", "Serving", "about nothing")
    harness.recorder.record({"metadata": None}, "Normal", "Serving", "about nothing")
    harness.recorder.record(SUBJECT, "Normal", "Serving", "fine")
    await harness.settle()
    assert [e["note"] for e in harness.sent] == ["fine"]


async def test_long_notes_and_names_are_cut(harness: EventHarness) -> None:
    name = "a" * 219 + "." + "b" * 33
    harness.recorder.record(model(name=name, uid="u9"), "Normal", "Serving", "n" * 5000)
    await harness.settle()
    [event] = harness.sent
    assert len(event["note"]) == NOTE_MAX
    assert len(event["metadata"]["name"]) <= 253
    assert ".." not in event["metadata"]["name"]


async def test_events_of_cluster_scoped_objects_go_to_default(harness: EventHarness) -> None:
    runtime = {
        "apiVersion": kinds.CLUSTER_MODEL_RUNTIME.api_version,
        "kind": "ClusterModelRuntime",
        "metadata": {"name": "mlserver", "uid": "u"},
    }
    harness.recorder.record(runtime, "Normal", "Serving", "x")
    await harness.settle()
    [event] = harness.sent
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["regarding"]


async def test_drain_gives_up_after_its_time(harness: EventHarness) -> None:
    harness.client.hanging.add("create")
    harness.recorder.record(SUBJECT, "Normal", "Serving", "x")
    await asyncio.wait_for(harness.recorder.drain(0.01), 1)
