"""Asks both revisions what callers asked, and tells what it counted."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from aiohttp import web

from modelwright.compare.comparison import Tolerance, compare
from modelwright.compare.copies import Copy, Taker
from modelwright.compare.settings import Settings
from modelwright.compare.tally import Tally
from modelwright.core.shadow import Pair

_LARGE = 64 << 10


class Comparer(Taker):
    """Takes copies of callers' requests and compares the answers of the two revisions."""

    def __init__(self, settings: Settings) -> None:
        pair = Pair(serving=settings.serving_revision, candidate=settings.candidate_revision)
        self.tally = Tally(pair, datetime.now(UTC))
        super().__init__(settings, self.tally, self.tally, {"/summary": self._summary})
        self._settings = settings
        self._tolerance = Tolerance(settings.relative_tolerance, settings.absolute_tolerance)
        self._turn = 0
        self._large = asyncio.Lock()

    async def work_on(self, copy: Copy) -> None:
        """Ask both, compare, count."""
        settings = self._settings
        sides = [("serving", settings.serving_url), ("candidate", settings.candidate_url)]
        # Whoever is asked second waits until the first request is written: they take turns.
        self._turn ^= 1
        async with asyncio.TaskGroup() as group:
            asked = {side: group.create_task(self.ask(url, copy)) for side, url in sides[:: 1 - 2 * self._turn]}
        serving, candidate = asked["serving"].result(), asked["candidate"].result()
        if len(serving.body) + len(candidate.body) > _LARGE:
            # Answers that come in meanwhile must not look late; and parsed ones take much memory, so one at a time.
            async with self._large:
                found = await asyncio.to_thread(compare, serving, candidate, self._tolerance)
        else:
            found = compare(serving, candidate, self._tolerance)
        self.tally.add(serving, candidate, found)

    def failed(self) -> None:
        """It counts as uncomparable."""
        self.tally.uncomparable += 1

    async def _summary(self, _: web.Request) -> web.Response:
        return web.Response(text=json.dumps(self.tally.summary().wire()), content_type="application/json")
