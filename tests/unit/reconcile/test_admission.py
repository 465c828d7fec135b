"""What the operator concludes from how forged names are answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelwright.kube import api_errors
from modelwright.obs.clock import FakeClock
from modelwright.reconcile.admission_check import AdmissionCheck, build_forgeries

Object = dict[str, Any]


class Server:
    """Refuses forgeries as the policies do, but for the kinds in `open`; raises `error` at all when it is set."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.open_in: set[str] = set()
        """Namespaces that the policies are not bound to."""
        self.error: api_errors.ApiError | None = None
        self.asked: list[tuple[str, str]] = []
        self.missing: set[str] = set()

    async def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        assert dry_run
        namespace = obj["metadata"]["namespace"]
        self.asked.append((obj["kind"], namespace))
        if self.error is not None:
            raise self.error
        if namespace in self.missing:
            raise api_errors.NotFound(404, "NotFound", f'namespaces "{namespace}" not found')
        if obj["kind"] in self.open or namespace in self.open_in:
            return obj
        refusal = next(words for forged, words in build_forgeries(namespace) if forged == obj)
        raise api_errors.Denied(403, "Forbidden", f"ValidatingAdmissionPolicy 'x' denied request: {refusal} \"op\"")


class AdmissionHarness:
    def __init__(self, *namespaces: str) -> None:
        self.server = Server()
        self.clock = FakeClock()
        self.changes = 0
        self.changed: list[str | None] = []
        self.places: set[str] = set()
        self.check = AdmissionCheck(
            self.server,  # type: ignore[arg-type]
            self.clock,
            namespaces or ("ns",),
            places=lambda: self.places,
            changed=self._changed,
        )

    def _changed(self, namespace: str | None) -> None:
        self.changes += 1
        self.changed.append(namespace)

    @property
    def in_force(self) -> bool | None:
        return self.check.admission("ns").in_force

    async def looks_after(self, seconds: float) -> int:
        """How often it looks meanwhile, when it runs as a task."""
        self.server.asked.clear()
        self.clock.advance(seconds)
        for _ in range(10):
            await asyncio.sleep(0)
        return sum(kind == "Approval" for kind, _ in self.server.asked)


async def test_nothing_is_known_before_the_first_look() -> None:
    assert AdmissionHarness().in_force is None


async def test_refusals_of_every_forgery_are_proof() -> None:
    world = AdmissionHarness()
    assert await world.check.check_cluster()
    assert world.in_force is True
    assert world.check.admission("ns").since is None
    asked = ["Approval", "ModelRollout", "ModelRollout", "TrainingRun", "ModelVersion", "ControllerRevision"]
    assert [kind for kind, _ in world.server.asked] == asked


@pytest.mark.parametrize("kind", ["Approval", "ModelRollout", "TrainingRun", "ModelVersion", "ControllerRevision"])
async def test_one_accepted_forgery_is_enough_to_honour_nobody(kind: str) -> None:
    world = AdmissionHarness()
    world.server.open = {kind}
    assert await world.check.check_cluster()
    assert world.in_force is False
    assert f"lets any user write {kind}s in the name of others" in world.check.admission("ns").problem


async def test_what_was_written_while_it_was_missing_proves_nothing() -> None:
    world = AdmissionHarness()
    world.server.open = {"Approval"}
    await world.check.check_cluster()
    world.server.open = set()
    world.clock.advance(60)
    await world.check.check_cluster()
    back = world.clock.now()
    assert (world.in_force, world.check.admission("ns").since) == (True, back)
    world.clock.advance(60)
    await world.check.check_cluster()
    assert world.check.admission("ns").since == back
    assert world.changes == 2


@pytest.mark.parametrize(
    "error",
    [
        api_errors.Denied(403, "Forbidden", 'User "op" cannot create resource "approvals"'),
        api_errors.Invalid(422, "Invalid", "spec.target: Required value"),
        api_errors.NotFound(404, "NotFound", "the server could not find the requested resource"),
    ],
)
async def test_a_refusal_for_another_reason_is_no_proof(error: api_errors.ApiError) -> None:
    world = AdmissionHarness()
    world.server.error = error
    assert await world.check.check_cluster()
    assert world.in_force is False
    assert error.message in world.check.admission("ns").problem


async def test_no_answer_changes_nothing() -> None:
    world = AdmissionHarness()
    world.server.error = api_errors.Transient(0, "Timeout", "no answer")
    assert not await world.check.check_cluster()
    assert world.in_force is None
    world.server.error = None
    await world.check.check_cluster()
    world.server.error = api_errors.Throttled(429, "TooManyRequests", "later")
    assert not await world.check.check_cluster()
    assert world.in_force is True


async def test_the_first_namespace_that_exists_is_asked() -> None:
    world = AdmissionHarness("one", "two", "three")
    world.server.missing = {"one"}
    await world.check.check_cluster()
    assert world.in_force is True
    assert {namespace for _, namespace in world.server.asked} == {"one", "two"}


async def test_checks_hourly_and_each_half_minute_while_not_in_force() -> None:
    world = AdmissionHarness()
    world.server.open = {"Approval"}
    task = asyncio.create_task(world.check.run())
    assert await world.looks_after(0) == 1
    assert await world.looks_after(29) == 0
    world.server.open = set()
    assert await world.looks_after(1) == 1
    assert await world.looks_after(3599) == 0
    assert await world.looks_after(1) == 1
    task.cancel()


async def test_without_an_answer_retries_soon_then_less_often() -> None:
    world = AdmissionHarness()
    world.server.error = api_errors.Transient(503, "ServiceUnavailable", "not now")
    task = asyncio.create_task(world.check.run())
    assert await world.looks_after(0) == 1
    for wait in (1, 2, 4, 8, 16, 30, 30):
        assert await world.looks_after(wait - 0.5) == 0
        assert await world.looks_after(0.5) == 1
    world.server.error = None
    assert await world.looks_after(30) == 1
    assert world.in_force is True
    world.server.error = api_errors.Transient(503, "ServiceUnavailable", "not now")
    assert await world.looks_after(3600) == 1
    assert await world.looks_after(1) == 1
    task.cancel()


async def test_each_minute_another_namespace_is_checked() -> None:
    world = AdmissionHarness("op")
    world.places = {"a", "b"}
    task = asyncio.create_task(world.check.run())
    await world.looks_after(0)
    turns = []
    for _ in range(3):
        assert await world.looks_after(60) == 1
        turns.append(world.server.asked[0][1])
    world.places = {"a", "b", "c"}
    assert await world.looks_after(60) == 1
    turns.append(world.server.asked[0][1])
    assert turns == ["a", "b", "a", "c"]
    task.cancel()


async def test_unbound_policies_block_only_their_namespace() -> None:
    world = AdmissionHarness("op")
    world.places = {"a", "b"}
    world.server.open_in = {"b"}
    await world.check.check_cluster()
    await world.check.check_next_namespace()
    await world.check.check_next_namespace()
    assert world.check.admission("a").in_force is True
    assert world.check.admission("b").in_force is False
    assert "in namespace b" in world.check.admission("b").problem
    assert world.check.admission("elsewhere").in_force is True
    assert world.changed == [None, "b"]


async def test_failing_namespace_is_checked_each_half_minute() -> None:
    world = AdmissionHarness("op")
    world.places = {"a", "b"}
    world.server.open_in = {"a"}
    task = asyncio.create_task(world.check.run())
    await world.looks_after(0)
    await world.looks_after(60)
    assert world.check.admission("a").in_force is False
    await world.looks_after(30)
    assert {place for _, place in world.server.asked} == {"a", "b"}
    world.server.open_in = set()
    await world.looks_after(30)
    back = world.check.admission("a")
    assert (back.in_force, back.since) == (True, world.clock.now())
    assert world.changed == [None, "a", "a"]
    task.cancel()


async def test_without_an_answer_a_namespace_keeps_the_last_one() -> None:
    world = AdmissionHarness("op")
    world.places = {"a"}
    world.server.open_in = {"a"}
    await world.check.check_cluster()
    await world.check.check_next_namespace()
    world.server.error = api_errors.Transient(0, "Timeout", "no answer")
    await world.check.check_next_namespace()
    assert world.check.admission("a").in_force is False
    world.server.error = None
    world.server.missing = {"a"}
    world.places = set()
    await world.check.check_next_namespace()
    assert world.check.admission("a").in_force is True


async def test_terminating_namespace_disproves_no_policy() -> None:
    world = AdmissionHarness("op")
    world.places = {"a"}
    await world.check.check_cluster()
    cause = api_errors.Cause("metadata.namespace", "NamespaceTerminating", "namespace a is being terminated")
    world.server.error = api_errors.Denied(403, "Forbidden", "namespace a is being terminated", (cause,))
    await world.check.check_next_namespace()
    assert world.check.admission("a").in_force is True
