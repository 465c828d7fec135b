"""Every story under every fault: an operator behind a proxy that fails, started again when it ends, as a kubelet would.

A place is a story and a fault, or a story and all faults by turns (MIXED). What must hold in each: the same end as
without faults, nothing made twice, writes within a bound, and no pass that failed unexpectedly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from devcluster import ControlPlane
from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.stage import Stage, opened
from tests.controlplane.stories import STORIES
from tests.faults.proxy import Fault, Proxy, Written
from tests.lib.api import Refused, eventually
from tests.scale.operator_process import OperatorProcess

MIXED = "mixed"
IMPATIENT = ("-m", "tests.lib.impatient_operator")
DISTURBED = {"sweep_seconds": 5, "sweep_grace_seconds": 2, "lease_seconds": 15, "lease_renew_seconds": 10}
"""Lists are part of what fails, and of what cures; a Lease may be lost, since what ends is started again."""
RATE, RATE_MIXED, BUDGET = 0.3, 0.15, 25
PATIENCE = 600.0
"""Seconds after which a story counts as stuck: far more than one takes beside other tests on two cores."""
LAST_LINES = 40
BUGS = ("this is a bug", "a retry would not help", "the operator failed", "could not be handled")
"""Lines of the log that nothing of this may lead to."""


@dataclass(frozen=True)
class Place:
    """A story, and what fails in it."""

    story: str
    what: str
    seed: int

    @property
    def namespace(self) -> str:
        return f"{self.story}-{self.what}"

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(Fault) if self.what == MIXED else tuple(fault for fault in Fault if fault.key == self.what)


@dataclass
class Outcome:
    """What a place came to; `wrong` is empty when all held."""

    place: Place
    injected: Counter[Fault] = field(default_factory=Counter)
    writes: int = 0
    undisturbed: int = 0
    restarts: int = 0
    seconds: float = 0.0
    wrong: str = ""

    @property
    def told(self) -> str:
        """For a line of output."""
        faults = ", ".join(f"{count} x {fault}" for fault, count in sorted(self.injected.items()))
        return (
            f"{self.seconds:.0f} s, {self.writes} writes ({self.undisturbed} without faults), "
            f"{self.restarts} restarts; {faults or 'no faults'}"
        )


def everywhere(seed: int, stories: Sequence[str] = tuple(STORIES)) -> list[Place]:
    """All places."""
    return [Place(story, what, seed) for story in stories for what in (MIXED, *(fault.key for fault in Fault))]


def sample(seed: int, count: int, among: Sequence[str] = tuple(STORIES)) -> list[Place]:
    """So many places of different stories: half with all faults by turns, which shows most, half with one each."""
    chance = random.Random(seed)
    stories = chance.sample(list(among), min(count, len(among)))
    what = chance.sample([fault.key for fault in Fault], len(stories) // 2)
    what = [MIXED] * (len(stories) - len(what)) + what
    return [Place(story, name, seed) for story, name in zip(stories, what, strict=True)]


async def play(
    plane: ControlPlane,
    folder: Path,
    places: Sequence[Place],
    at_once: int = 4,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Each story of the places without faults, then the places; each outcome is told as it comes."""
    async with opened(plane, folder) as stage:
        gate = asyncio.Semaphore(at_once)
        written: dict[str, Written] = {}

        async def undisturbed(name: str) -> None:
            async with gate, quiet(stage, f"reference-{name}") as (proxy, operator):
                await stage.undisturbed(name, operator)
                written[name] = proxy.written

        await asyncio.gather(*(undisturbed(name) for name in dict.fromkeys(place.story for place in places)))
        await stage.prepare({place.namespace: place.story for place in places}, 2 * at_once)

        async def gated(place: Place) -> Outcome:
            async with gate:
                outcome = await disturbed(stage, place, written[place.story])
                tell(outcome)
                return outcome

        return list(await asyncio.gather(*(gated(place) for place in places)))


@contextlib.asynccontextmanager
async def quiet(stage: Stage, namespace: str) -> AsyncIterator[tuple[Proxy, OperatorProcess]]:
    """An operator behind a proxy that only counts."""
    async with Proxy(stage.plane.kubeconfig, stage.folder / f"{namespace}.kubeconfig") as proxy:
        yield proxy, stage.operator(namespace, kubeconfig=proxy.kubeconfig)


async def disturbed(stage: Stage, place: Place, undisturbed: Written) -> Outcome:
    """One place."""
    outcome, begin = Outcome(place, undisturbed=undisturbed.count), time.monotonic()
    rate = RATE_MIXED if place.what == MIXED else RATE
    file = stage.folder / f"{place.namespace}.kubeconfig"
    seed = f"{place.seed} {place.namespace}"
    async with Proxy(stage.plane.kubeconfig, file, place.faults, seed=seed, rate=rate, budget=BUDGET) as proxy:
        operator = stage.operator(place.namespace, kubeconfig=file, program=IMPATIENT, **DISTURBED)
        try:
            await _to_the_end(stage, place, operator, outcome)
            outcome.wrong = _excess(proxy, undisturbed) or _bugs(stage.log(place.namespace))
        except Exception as error:
            outcome.wrong = f"{type(error).__name__}: {error}\n{await _state(stage, place.namespace)}"
        outcome.injected, outcome.writes = proxy.injected, proxy.written.count
    outcome.seconds = time.monotonic() - begin
    return outcome


async def _to_the_end(stage: Stage, place: Place, operator: OperatorProcess, outcome: Outcome) -> None:
    story, space = STORIES[place.story], stage.space(place.namespace)
    with operator:
        keeping = asyncio.create_task(kept(stage, place.namespace, operator, outcome))
        try:
            await story.people(space)
            await eventually(lambda: story.ended(space), bool, f"{place} ends", PATIENCE)
            expected, what = stage.expected[place.story], f"{place}: the same end"
            sees = _without_generations if Fault.LATE_WRITE in place.faults else str
            await stage.looks(place.namespace, place.story, expected, what, PATIENCE, sees)
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})


async def _state(stage: Stage, namespace: str) -> str:
    """The records' states and the log's last lines, of a place that has not ended."""
    lines = [
        json.dumps({"name": found["metadata"]["name"], "spec": found["spec"], "status": found.get("status")})
        for kind in (kinds.MODEL, kinds.MODEL_ROLLOUT, kinds.TRAINING_RUN)
        for found in await stage.api.list(kind, namespace)
    ]
    return "\n".join((*lines, *lines_of(stage.log(namespace))[-LAST_LINES:]))


def _without_generations(picture: str) -> str:
    """A write that arrives after the operator has decided otherwise is taken back by one more."""
    return re.sub(r"^  generation: \d+\n", "", picture, flags=re.MULTILINE)


async def kept(stage: Stage, namespace: str, operator: OperatorProcess, outcome: Outcome) -> None:
    """Start the operator again whenever it ends, until cancelled."""
    while True:
        await asyncio.sleep(0.2)
        if operator.process is not None and operator.process.poll() is not None:
            outcome.restarts += 1
            # A dead one's Lease would only run out after its time, as it does while there is no API server.
            with contextlib.suppress(aiohttp.ClientError, OSError, Refused):
                await stage.api.delete(kinds.LEASE, namespace, names.OPERATOR_LEASE)
            operator.start()


def _excess(proxy: Proxy, undisturbed: Written) -> str:
    """What was made more often than without faults, and writes beyond the bound: two for each fault, and half more."""
    more = proxy.written.created - undisturbed.created
    if more:
        return f"made more often than without faults: {dict(more)}"
    bound = 1.5 * undisturbed.count + 2 * proxy.injected.total() + 10
    if proxy.written.count > bound:
        return f"{proxy.written.count} writes, {undisturbed.count} without faults, bound {bound:.0f}"
    return ""


def lines_of(log: Path) -> list[str]:
    """The lines of a log; none when there is no log."""
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def _bugs(log: Path) -> str:
    found = [line for line in lines_of(log) if any(text in line for text in BUGS) or _is_panic(line)]
    return "\n".join(found[:5])


def _is_panic(line: str) -> bool:
    """Not a line of the operator's log at all: a traceback of the interpreter."""
    if not line.startswith("{"):
        return line.startswith("Traceback")
    return json.loads(line).get("level") == "critical" and "Lease" not in line
