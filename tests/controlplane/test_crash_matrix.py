"""Killing the operator at any of its writes, before or after it, gives the same end as not killing it; so does one that
falls asleep over a write, is followed by its standby, and sends that write when it wakes.

A sample runs each time, another one each time: some stories, and of each a place; MODELWRIGHT_FULL_MATRIX=1 runs all,
MODELWRIGHT_SEED repeats a sample, MODELWRIGHT_SAMPLE says how many places of each story, MODELWRIGHT_STORIES and
MODELWRIGHT_WHEN (comma-separated) keep to some stories, and to before, after or asleep.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane
from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.stage import Stage, opened
from tests.controlplane.stories import STORIES
from tests.lib.api import eventually
from tests.lib.dying_operator import DIED
from tests.scale.operator_process import OperatorProcess

pytestmark = [pytest.mark.kwok, pytest.mark.timeout(7200)]

FULL = os.environ.get("MODELWRIGHT_FULL_MATRIX") == "1"
SEED = int(os.environ.get("MODELWRIGHT_SEED", time.time_ns() % 2**32))
SAMPLE = int(os.environ.get("MODELWRIGHT_SAMPLE", "1"))
"""Places of each story that are tried each time."""
SAMPLED_STORIES = 6
"""Stories that are tried each time."""
AT_ONCE = 4
SHORT_TERM = {"lease_seconds": 6, "lease_renew_seconds": 4, "lease_retry_seconds": 0.5}
WHEN = os.environ.get("MODELWRIGHT_WHEN", "before,after,asleep").split(",")


@dataclass(frozen=True)
class Place:
    """Where the operator dies: at which write of which story."""

    story: str
    write: int
    when: str

    @property
    def namespace(self) -> str:
        return f"{self.story}-{self.write}-{self.when}"


async def _undisturbed(stage: Stage, name: str) -> int:
    """A story once without a death; how many writes it takes."""
    namespace = f"reference-{name}"
    await stage.undisturbed(name, _operator(stage, namespace, 0))
    counted = _count_file(stage, namespace)
    return int(counted.read_text()) if counted.exists() else 0


def _operator(stage: Stage, namespace: str, write: int, when: str = "before", **settings: Any) -> OperatorProcess:
    """One that dies, or falls asleep, at this write (0: only counts)."""
    return stage.operator(
        namespace,
        program=("-m", "tests.lib.dying_operator", str(write), when),
        environment={"DYING_OPERATOR_COUNT": str(_count_file(stage, namespace))},
        **settings,
    )


def _count_file(stage: Stage, namespace: str) -> Path:
    return stage.folder / f"{namespace}.count"


async def _one(stage: Stage, place: Place) -> str:
    """Die there, start again, compare; what is wrong, or nothing."""
    begin, story, space = time.monotonic(), STORIES[place.story], stage.space(place.namespace)
    dying = _operator(stage, place.namespace, place.write, place.when)
    with dying:
        await asyncio.to_thread(dying.wait_ready)
        people = asyncio.ensure_future(story.people(space))
        assert dying.process is not None
        while dying.process.poll() is None and not await story.ended(space):
            await asyncio.sleep(0.1)
            assert time.monotonic() - begin < 120, f"{place}: neither dead nor at the end"
        died = dying.process.poll() == DIED
        if not died and dying.process.poll() is None:
            await asyncio.to_thread(dying.stop)
    # The dead one's Lease would only run out after its time.
    await stage.api.delete(kinds.LEASE, place.namespace, names.OPERATOR_LEASE)
    again = stage.operator(place.namespace)
    with again:
        await asyncio.to_thread(again.wait_ready)
        await people
        await eventually(lambda: story.ended(space), bool, f"{place} ends")
        expected, what = stage.expected[place.story], f"{place} (died: {died}): the same end"
        await stage.looks(place.namespace, place.story, expected, what, 40)
        await asyncio.to_thread(again.stop)
    return "" if died else f"{place}: the operator did not get that far"


async def _overtaken(stage: Stage, place: Place) -> str:
    """Fall asleep there, until the standby leads, and go on; what is wrong, or nothing."""
    begin, story, space = time.monotonic(), STORIES[place.story], stage.space(place.namespace)
    first = _operator(stage, place.namespace, place.write, place.when, **SHORT_TERM)
    standby = stage.operator(place.namespace, **SHORT_TERM)
    with first:
        await asyncio.to_thread(first.wait_ready)
        await eventually(lambda: asyncio.to_thread(first.leads), bool, f"{place}: it leads")
        with standby:
            await asyncio.to_thread(standby.wait_ready)
            people = asyncio.ensure_future(story.people(space))
            assert first.process is not None
            while not (asleep := _is_asleep(first)) and not await story.ended(space):
                await asyncio.sleep(0.1)
                assert time.monotonic() - begin < 120, f"{place}: neither asleep nor at the end"
            if asleep:
                await eventually(lambda: asyncio.to_thread(standby.leads), bool, f"{place}: the standby leads")
                first.process.send_signal(signal.SIGCONT)
                await asyncio.to_thread(first.process.wait, 30)
            await people
            await eventually(lambda: story.ended(space), bool, f"{place} ends")
            expected = stage.expected[place.story]
            await stage.looks(place.namespace, place.story, expected, f"{place}: the same end", 40)
            for operator in (standby, first):
                if operator.process is not None and operator.process.poll() is None:
                    await asyncio.to_thread(operator.stop)
    return "" if asleep else f"{place}: the operator did not get that far"


def _is_asleep(operator: OperatorProcess) -> bool:
    assert operator.process is not None
    stat = Path(f"/proc/{operator.process.pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] == "T"


async def _run(plane: ControlPlane, folder: Path) -> tuple[list[Place], list[str]]:
    async with opened(plane, folder) as stage:
        gate = asyncio.Semaphore(AT_ONCE)

        async def undisturbed(name: str) -> tuple[str, int]:
            async with gate:
                return name, await _undisturbed(stage, name)

        places = _chosen(dict(await asyncio.gather(*(undisturbed(name) for name in _stories()))))
        await stage.prepare({place.namespace: place.story for place in places}, 2 * AT_ONCE)

        async def gated(place: Place) -> str:
            async with gate:
                try:
                    return await (_overtaken if place.when == "asleep" else _one)(stage, place)
                except Exception as error:
                    return f"{place}: {type(error).__name__}: {error}\n{await _told(stage, place.namespace)}"

        wrong = await asyncio.gather(*(gated(place) for place in places))
        return places, [text for text in wrong if text]


async def _told(stage: Stage, namespace: str) -> str:
    """What the records of the story say of themselves."""
    found = [(o["metadata"]["name"], o.get("status", {})) for o in await stage.api.list(kinds.MODEL_ROLLOUT, namespace)]
    return "\n".join(f"{n}: {s.get('state')} ({s.get('reason')}): {s.get('message')}" for n, s in found)


def _stories() -> list[str]:
    wanted = os.environ.get("MODELWRIGHT_STORIES", "")
    if wanted or FULL:
        return wanted.split(",") if wanted else list(STORIES)
    return random.Random(SEED).sample(list(STORIES), SAMPLED_STORIES)


def _chosen(writes: dict[str, int]) -> list[Place]:
    everywhere = {
        story: [Place(story, write, when) for write in range(1, count + 1) for when in WHEN]
        for story, count in writes.items()
    }
    total = sum(map(len, everywhere.values()))
    print(f"writes: {writes}; {total} places to die; MODELWRIGHT_SEED={SEED}")
    if FULL:
        return [place for places in everywhere.values() for place in places]
    chance = random.Random(SEED)
    return [
        place for story in everywhere for place in chance.sample(everywhere[story], min(SAMPLE, len(everywhere[story])))
    ]


def test_wherever_the_operator_dies_the_end_is_the_same(tmp_path: Path) -> None:
    with ControlPlane(kwok_nodes=2) as plane:
        places, wrong = asyncio.run(_run(plane, tmp_path))
    missed = [text for text in wrong if text.endswith("did not get that far")]
    worse = [text for text in wrong if text not in missed]
    assert not worse, "\n\n".join(worse)
    # How many status writes there are depends on timing a little.
    assert len(missed) <= len(places) // 4, missed
