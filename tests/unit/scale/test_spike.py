"""The bare operator that the pace is compared with."""

import asyncio
from typing import Any

import pytest

from tests.scale import spike
from tests.scale.spike.handlers import GENERATION, LABEL, Handlers, children, is_ready


class Recorder(Handlers):
    """Keeps what it would apply."""

    def __init__(self) -> None:
        super().__init__(None)
        self.applied: list[tuple[str, Any]] = []
        self.during: Any = None

    async def _apply(self, kind: Any, body: dict, subresource: str | None = None) -> None:
        self.applied.append((kind.kind, body["status"]["phase"] if subresource else body["metadata"]["name"]))
        if subresource and self.during:
            await self.during()


def spike_object(generation: int = 1, observed: int | None = None) -> dict:
    return {
        "apiVersion": spike.KIND.api_version,
        "kind": "Spike",
        "metadata": {"name": "m", "namespace": "default", "uid": "1", "generation": generation},
        "spec": {"image": "example.com/scale:1"},
        "status": {"observedGeneration": observed} if observed else {},
    }


def deployment(generation: int, available: int) -> dict:
    (_, found), *_ = children(spike_object(generation))
    metadata = {**found["metadata"], "generation": 4}
    status = {"observedGeneration": 4, "replicas": 1, "updatedReplicas": 1, "availableReplicas": available}
    return {**found, "metadata": metadata, "status": status}


async def test_three_applies_and_two_status_writes_an_object():
    handlers = Recorder()
    await handlers.serve(type="ADDED", body=spike_object())
    await handlers.follow(type="MODIFIED", body=deployment(1, 0))
    await handlers.follow(type="MODIFIED", body=deployment(1, 1))
    await handlers.follow(type="MODIFIED", body=deployment(1, 1))
    await handlers.serve(type="MODIFIED", body=spike_object(observed=1))
    assert handlers.applied == [
        ("Deployment", "m"),
        ("Service", "m"),
        ("HTTPRoute", "m"),
        ("Spike", "Progressing"),
        ("Spike", "Ready"),
    ]


async def test_a_restart_writes_nothing():
    handlers = Recorder()
    await asyncio.gather(
        handlers.serve(type=None, body=spike_object(3, observed=3)), handlers.follow(type=None, body=deployment(3, 1))
    )
    assert handlers.applied == []


async def test_ready_is_not_overwritten_by_the_write_under_way():
    handlers = Recorder()

    async def becomes_ready() -> None:
        handlers.during = None
        await handlers.follow(type="MODIFIED", body=deployment(1, 1))

    handlers.during = becomes_ready
    await handlers.serve(type="ADDED", body=spike_object())
    assert handlers.applied[3:] == [("Spike", "Progressing"), ("Spike", "Ready")]


async def test_what_is_ready_before_its_first_status_has_one_write_less():
    handlers = Recorder()
    await handlers.follow(type="ADDED", body=deployment(1, 1))
    await handlers.serve(type="ADDED", body=spike_object())
    assert [phase for kind, phase in handlers.applied if kind == "Spike"] == ["Ready"]


@pytest.mark.parametrize(
    ("key", "value"), [("observedGeneration", 3), ("updatedReplicas", 0), ("replicas", 2), ("availableReplicas", 0)]
)
def test_a_deployment_in_change_is_not_ready(key: str, value: int):
    whole = deployment(1, 1)
    assert is_ready(whole)
    whole["status"][key] = value
    assert not is_ready(whole)


def test_the_deployment_says_for_whom_it_is_and_of_which_generation():
    (_, found), *_ = children(spike_object(7))
    assert found["metadata"]["labels"] == {LABEL: "true"}
    assert found["metadata"]["annotations"] == {GENERATION: "7"}
    assert found["metadata"]["ownerReferences"][0]["uid"] == "1"
