"""The status of an object that is too large: written one at a time, and no worker waits for its turn."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelwright.api.common import TOO_LARGE_KEY
from modelwright.api.names import API_VERSION
from modelwright.api.v1alpha1.version import ModelVersionStatus
from modelwright.kube import api_errors
from modelwright.kube.workers import RequeueLater
from modelwright.reconcile.context import Context
from modelwright.reconcile.status_writer import write_status

OLD, NEW = ModelVersionStatus(), ModelVersionStatus(observed_generation=1)


class Slow:
    """An API server that answers when it is allowed to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.error: api_errors.ApiError | None = None

    async def apply(self, obj: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.asked.append(obj["metadata"]["name"])
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return obj


def version(name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1"}
    return {"apiVersion": API_VERSION, "kind": "ModelVersion", "metadata": metadata, **more}


@pytest.fixture
def api() -> Slow:
    return Slow()


@pytest.fixture
def context(api: Slow) -> Context:
    kept = SimpleNamespace(put=lambda obj, quiet: None)
    return cast(Context, SimpleNamespace(client=api, store=kept, large_write_lock=asyncio.Lock()))


async def test_of_those_that_are_too_large_one_is_written_at_a_time(context: Context, api: Slow) -> None:
    first = asyncio.create_task(write_status(context, version("a", **{TOO_LARGE_KEY: "why"}), NEW, OLD))
    await asyncio.sleep(0)
    second = asyncio.create_task(write_status(context, version("b", **{TOO_LARGE_KEY: "why"}), NEW, OLD))
    await asyncio.sleep(0)
    assert second.done(), "it holds its worker"
    with pytest.raises(RequeueLater):
        await second
    assert not await write_status(context, version("b", **{TOO_LARGE_KEY: "why"}), NEW, NEW)
    api.answers.set()
    assert await first
    assert await write_status(context, version("b", **{TOO_LARGE_KEY: "why"}), NEW, OLD)
    assert api.asked == ["a", "b"]


async def test_others_are_written_meanwhile(context: Context, api: Slow) -> None:
    writes = [
        asyncio.create_task(write_status(context, raw, NEW, OLD))
        for raw in (version("a", **{TOO_LARGE_KEY: "why"}), version("b"), version("c"))
    ]
    await asyncio.sleep(0)
    assert api.asked == ["a", "b", "c"]
    api.answers.set()
    assert await asyncio.gather(*writes) == [True] * 3


async def test_after_a_failure_the_next_one_has_its_turn(context: Context, api: Slow) -> None:
    api.answers.set()
    api.error = api_errors.error_without_response(TimeoutError(), request="apply")
    with pytest.raises(api_errors.Transient):
        await write_status(context, version("a", **{TOO_LARGE_KEY: "why"}), NEW, OLD)
    api.error = None
    assert await write_status(context, version("b", **{TOO_LARGE_KEY: "why"}), NEW, OLD)
