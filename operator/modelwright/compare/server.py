"""Asks both revisions what callers asked, and tells what it counted."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from aiohttp import web
from yarl import URL

from modelwright.compare.comparison import Tolerance, compare
from modelwright.compare.copies import Copy, Taker
from modelwright.compare.settings import Settings
from modelwright.compare.tally import Tally
from modelwright.core.shadow import Pair

_LARGE = 64 << 10
_REACH_SECONDS = 1.0


class Comparer(Taker):
    """Takes copies of callers' requests and compares the answers of the two revisions."""

    def __init__(self, settings: Settings) -> None:
        pair = Pair(serving=settings.serving_revision, candidate=settings.candidate_revision)
        self.tally = Tally(pair, datetime.now(UTC))
        super().__init__(settings, self.tally, self.tally, {"/summary": self._summary})
        self._settings = settings
        self._tolerance = Tolerance(settings.relative_tolerance, settings.absolute_tolerance)
        self._unreached = {"serving": URL(settings.serving_url), "candidate": URL(settings.candidate_url)}
        self._turn = 0
        self._large = asyncio.Lock()

    async def lacks(self) -> str:
        """A revision that was never reached: its Service is new, and this node doesn't know its pods yet. Copies taken
        before that would count against it; what fails later is evidence."""
        for side, url in list(self._unreached.items()):
            try:
                async with asyncio.timeout(_REACH_SECONDS):
                    _, writer = await asyncio.open_connection(url.host, url.port)
            except (OSError, TimeoutError):
                return f"the {side} revision has not been reached yet"
            writer.close()
            self._unreached.pop(side, None)
        return ""

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
