"""How long it takes until the status of an object answers what was asked of it."""

import asyncio
import contextlib
import enum
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.kube.kinds import Kind
from tests.lib.api import Api

Object = dict[str, Any]
Report = Callable[[str], None]

_REPORT_SECONDS = 15.0


class Answer(enum.Enum):
    """What a status may say of a generation."""

    KNOWN = "it knows the generation"
    WORKED_ON = "it says more than that"
    READY = "the object is ready with it"


Reader = Callable[[Object], Iterable[Answer]]
"""What the status of an object says of its `observedGeneration`."""


@dataclass(frozen=True)
class Edit:
    """A generation that somebody asked for, and when; times are those of the day, as in the audit log."""

    name: str
    generation: int
    at: float


class Answers:
    """When the status of each object first gave each answer to each of its generations."""

    def __init__(self, api: Api, kind: Kind, read: Reader) -> None:
        self._api = api
        self._kind = kind
        self._read = read
        self._given: dict[tuple[Answer, str], list[tuple[int, float]]] = {}
        self._news = asyncio.Event()
        self._following: asyncio.Task[None]

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator["Answers"]:
        """Watches all objects of the kind meanwhile."""
        began = asyncio.Event()
        self._following = asyncio.create_task(self._follow(began))
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                await began.wait()
            yield self
        finally:
            self._following.cancel()

    async def edit(self, name: str, request: Awaitable[Object]) -> Edit:
        """Send a request that makes or changes an object, and remember when it was sent."""
        at = time.time()
        stored = await request
        return Edit(name, stored["metadata"]["generation"], at)

    def when(self, edit: Edit, answer: Answer) -> float:
        """The time of the first such answer to this generation or a later one; infinity while there is none."""
        given = self._given.get((answer, edit.name), ())
        return next((at for generation, at in given if generation >= edit.generation), math.inf)

    def waits(self, edits: Iterable[Edit], answer: Answer) -> list[float]:
        """Seconds from each edit to the first such answer, sorted."""
        return sorted(self.when(edit, answer) - edit.at for edit in edits)

    async def all_given(
        self,
        edits: Iterable[Edit],
        answer: Answer,
        patience: float,
        *,
        check: Callable[[], None],
        report: Report | None = None,
    ) -> float:
        """Wait until each edit has this answer, and return when the last one had it; `report` hears how many there are,
        from time to time. Raises RuntimeError after `patience` seconds; what `check` raises ends the wait too."""
        begin = time.monotonic()
        edits, told = tuple(edits), begin
        left = set(edits)
        while left := {edit for edit in left if self.when(edit, answer) == math.inf}:
            check()
            now = time.monotonic()
            if now - begin > patience:
                raise RuntimeError(await self._missing(left, answer, patience))
            if now - told >= _REPORT_SECONDS:
                told = now
                if report is not None:
                    report(f"{len(edits) - len(left)} of {len(edits)} after {now - begin:.0f} s")
            await self._wait()
            # News come by the hundred, and each walk over what is left takes time from what is measured.
            await asyncio.sleep(len(left) / 5000)
        return max((self.when(edit, answer) for edit in edits), default=time.time())

    async def _missing(self, left: set[Edit], answer: Answer, patience: float) -> str:
        edit = min(left, key=lambda each: each.name)
        found = await self._api.list(self._kind)
        shown = next((each for each in found if each["metadata"]["name"] == edit.name), {})
        return (
            f"of {len(left)} objects no status said within {patience:.0f} s that {answer.value}, such as {edit.name}, "
            f"generation {edit.generation}; its status: {shown.get('status')}"
        )

    async def _wait(self) -> None:
        if self._following.done():
            self._following.result()
        self._news.clear()
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                await self._news.wait()
        except TimeoutError:
            # The API server ends a watch after half an hour or more; what happened before the next one is in the list.
            for obj in await self._api.list(self._kind):
                self._note(obj)

    async def _follow(self, began: asyncio.Event) -> None:
        while True:
            async for _, obj in self._api.watch(self._kind, began):
                self._note(obj)

    def _note(self, obj: Object) -> None:
        generation = obj.get("status", {}).get("observedGeneration")
        if generation is None:
            return
        for answer in self._read(obj):
            given = self._given.setdefault((answer, obj["metadata"]["name"]), [])
            if not given or given[-1][0] < generation:
                given.append((generation, time.time()))
                self._news.set()


def read_model(model: Object) -> Iterable[Answer]:
    """What the status of a Model says of the generation it has observed."""
    status = model["status"]
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    reconciling, ready = conditions.get("Reconciling", {}), conditions.get("Ready", {})
    yield Answer.KNOWN
    if reconciling.get("reason") != Reason.NEW_GENERATION:
        yield Answer.WORKED_ON
    if (ready.get("status"), ready.get("observedGeneration")) == ("True", status["observedGeneration"]):
        yield Answer.READY


async def paced(edits: Iterable[Callable[[], Awaitable[Edit]]], rate: float) -> list[Edit]:
    """Make `rate` edits a second, whether the earlier ones were answered or not."""
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        made = []
        for number, edit in enumerate(edits):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            made.append(group.create_task(_awaited(edit)))
    return [task.result() for task in made]


async def together(edits: Iterable[Callable[[], Awaitable[Edit]]], at_once: int = 20) -> list[Edit]:
    """Make all edits, some at once."""
    gate = asyncio.Semaphore(at_once)

    async def one(edit: Callable[[], Awaitable[Edit]]) -> Edit:
        async with gate:
            return await edit()

    return await asyncio.gather(*map(one, edits))


async def _awaited(edit: Callable[[], Awaitable[Edit]]) -> Edit:
    return await edit()


def percentile(waits: list[float], share: float) -> float:
    """Of sorted values, the least that `share` of them do not exceed."""
    return waits[math.ceil(share * len(waits)) - 1]
