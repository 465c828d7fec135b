"""Versions without a digest in great number: their namespace has a bounded number of resolve pods, all get theirs in
the end, and a Model that serves nothing yet does not wait for versions that nobody wants."""

import json
from typing import Any

import pytest

from modelwright.core.resolve_queue import ResolveQueue
from modelwright.kube import kinds
from modelwright.obs.clock import FakeClock
from tests.lib import objects
from tests.lib.simulated import SimulatedApi
from tests.lib.stepped import Operator

Object = dict[str, Any]
NS = "vision"


class Namespace:
    """A namespace with versions, its operator, and the time."""

    def __init__(self, most: int = 10) -> None:
        self.api, self.clock, self.most = SimulatedApi(), FakeClock(), most
        self.api.user_create(objects.runtime())
        self.seen: set[str] = set()
        self.restart()

    def restart(self) -> None:
        self.operator = Operator(self.api, self.clock, turns=ResolveQueue(self.most))

    def add(self, *versions: str) -> None:
        for name in versions:
            self.api.user_create(objects.version(NS, name, digest=None))

    @property
    def pods(self) -> list[Object]:
        found = [o for (kind, _, _), o in self.api.objects.items() if kind == kinds.POD]
        return [pod for pod in found if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]

    def of(self, pod: Object) -> str:
        return str(pod["metadata"]["ownerReferences"][0]["name"])

    def look(self, seconds: float = 10, ends: int = 0) -> None:
        """`ends`: so many pods end well, the oldest first."""
        for pod in self.pods[:ends]:
            report = json.dumps({"digest": objects.DIGEST, "sizeBytes": 7})
            state = {"terminated": {"exitCode": 0, "message": report}}
            told = [{"name": "fetch", "image": "i", "state": state}]
            self.api.set_status(pod, {"phase": "Succeeded", "containerStatuses": told})
        self.clock.advance(seconds)
        self.operator.hear(len(self.api.told))
        self.operator.look_again()
        self.operator.work()
        self.seen |= {self.of(pod) for pod in self.pods}

    def reason(self, name: str, kind: kinds.Kind = kinds.MODEL_VERSION) -> str:
        told = self.api.objects[kind, NS, name]["status"]["conditions"]
        return str(next(c["reason"] for c in told if c["type"] == "Ready"))


def many(count: int) -> list[str]:
    return [f"h{number:03}" for number in range(count)]


def test_ninety_versions_have_eight_pods_and_the_others_wait() -> None:
    """On a cluster they filled all nodes (issue 14)."""
    space = Namespace()
    space.add(*many(90))
    for _ in range(3):
        space.look()
        assert len(space.pods) == 8
    assert {space.reason(name) for name in many(90)} == {"WaitingForDigest", "WaitingForTurn"}
    assert [space.reason(name) for name in many(90)].count("WaitingForTurn") == 82


def test_all_get_a_pod_the_oldest_first_and_none_twice() -> None:
    space = Namespace()
    space.add(*many(30))
    made: list[str] = []
    for _ in range(40):
        space.look(ends=3)
        assert len(space.pods) <= 8
        made += [name for name in sorted(map(space.of, space.pods)) if name not in made]
    assert made == many(30)
    assert {space.reason(name) for name in many(30)} == {"DigestPinned"}
    assert space.pods == []


@pytest.mark.parametrize("serves", [False, True], ids=["a Model that serves nothing", "a Model that serves"])
def test_what_a_model_wants_does_not_wait_for_what_nobody_wants(serves: bool) -> None:
    space = Namespace()
    space.add(*many(90))
    space.look()
    space.add("v1")
    space.api.user_create(objects.model(NS, version="v1"))
    if serves:
        status = {"serving": {"version": "v0", "revision": "aaaaaaaaaa", "since": "2026-12-01T00:00:00Z"}}
        space.api.set_status(space.api.objects[kinds.MODEL, NS, "digits"], status)
    space.look()
    space.look()
    assert "v1" in {space.of(pod) for pod in space.pods}


def test_a_version_that_becomes_wanted_while_it_waits_is_next() -> None:
    space = Namespace()
    space.add(*many(90))
    space.look()
    space.api.user_create(objects.model(NS, version="h089"))
    space.look()
    space.look()
    assert "h089" in {space.of(pod) for pod in space.pods}


def test_pods_of_before_a_restart_count() -> None:
    space = Namespace()
    space.add(*many(90))
    space.look()
    before = {space.of(pod) for pod in space.pods}
    space.restart()
    for _ in range(3):
        space.look()
        assert {space.of(pod) for pod in space.pods} == before


def test_deleted_waiting_versions_delay_no_others() -> None:
    space = Namespace()
    space.add(*many(40))
    space.look()
    for name in many(39)[8:]:
        space.api.user_delete(kinds.MODEL_VERSION, NS, name)
    space.look(ends=1)
    space.look()
    assert "h039" in {space.of(pod) for pod in space.pods}
