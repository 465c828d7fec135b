"""How long people wait for the first word on an edit of theirs."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterable

from modelwright.kube import kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind
from tests.lib.api import Api
from tests.scale.objects import Object


class FirstWords:
    """When the status of an object first spoke of each of its generations; `listening` while it is used."""

    def __init__(self, api: Api, kind: Kind = kinds.MODEL) -> None:
        self._api = api
        self._kind = kind
        self._heard: dict[str, list[tuple[int, float]]] = {}
        self._edited: list[tuple[str, int, float]] = []
        self._news = asyncio.Event()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["FirstWords"]:
        """Watches all objects of the kind meanwhile."""
        began = asyncio.Event()
        watching = asyncio.create_task(self._listen(began))
        await began.wait()
        try:
            yield self
        finally:
            watching.cancel()

    async def edit(self, client: KubeClient, obj: Object) -> None:
        """Apply an object's new spec, and remember when that began."""
        at = time.monotonic()
        stored = await client.apply(obj, field_manager="scale")
        self._edited.append((obj["metadata"]["name"], stored["metadata"]["generation"], at))

    def waits(self) -> list[float]:
        """Seconds from each edit to the first status that knows it, sorted; infinity while there is none."""
        found = []
        for name, generation, at in self._edited:
            heard = (when for seen, when in self._heard.get(name, ()) if seen >= generation)
            found.append(next(heard, math.inf) - at)
        return sorted(found)

    async def all_heard(self, patience: float) -> list[float]:
        """`waits`, once every edit was spoken of. Raises TimeoutError after `patience` seconds."""
        async with asyncio.timeout(patience):
            while (waits := self.waits()) and waits[-1] == math.inf:
                self._news.clear()
                await self._news.wait()
        return waits

    async def _listen(self, began: asyncio.Event) -> None:
        async for _, obj in self._api.watch(self._kind, began):
            generation = obj.get("status", {}).get("observedGeneration", 0)
            heard = self._heard.setdefault(obj["metadata"]["name"], [])
            if not heard or heard[-1][0] < generation:
                heard.append((generation, time.monotonic()))
                self._news.set()


async def paced(client: KubeClient, words: FirstWords, objects: Iterable[Object], rate: float) -> None:
    """Edit `rate` objects a second, whether the earlier ones were answered or not."""
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, obj in enumerate(objects):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            group.create_task(words.edit(client, obj))


def percentile(waits: list[float], share: float) -> float:
    """Of sorted values, the least that `share` of them do not exceed."""
    return waits[math.ceil(share * len(waits)) - 1]
