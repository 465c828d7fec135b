"""Asks both revisions what callers asked, and tells what it counted."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from aiohttp import web
from yarl import URL

from modelwright.agents.comparer.comparison import NumberTolerance, compare_answers
from modelwright.agents.comparer.comparison_stats import ComparisonStats
from modelwright.agents.comparer.settings import ComparerSettings
from modelwright.agents.mirror import MirroredRequest, MirrorServer
from modelwright.core.analysis.comparison_summary import RevisionPair

_LARGE_BYTES = 64 << 10
_CONNECT_SECONDS = 1.0


class Comparer(MirrorServer):
    """Takes copies of callers' requests and compares the answers of the two revisions."""

    def __init__(self, settings: ComparerSettings) -> None:
        pair = RevisionPair(serving=settings.serving_revision, candidate=settings.candidate_revision)
        self.stats = ComparisonStats(pair, datetime.now(UTC))
        super().__init__(settings, self.stats, self.stats, {"/summary": self._get_summary})
        self._settings = settings
        self._tolerance = NumberTolerance(settings.relative_tolerance, settings.absolute_tolerance)
        self._unreached = {"serving": URL(settings.serving_url), "candidate": URL(settings.candidate_url)}
        self._candidate_first = 0
        self._large_answers = asyncio.Lock()

    async def readiness_problem(self) -> str:
        """A revision that was never reached: its Service is new, and this node doesn't know its pods yet. Copies taken
        before that would count against it; what fails later is evidence."""
        for side, url in list(self._unreached.items()):
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(url.host, url.port)
            except (OSError, TimeoutError):
                return f"the {side} revision has not been reached yet"
            writer.close()
            self._unreached.pop(side, None)
        return ""

    async def process_copy(self, copy: MirroredRequest) -> None:
        """Ask both, compare, count."""
        settings = self._settings
        sides = [("serving", settings.serving_url), ("candidate", settings.candidate_url)]
        # Whoever is asked second waits until the first request is written: they take turns.
        self._candidate_first ^= 1
        async with asyncio.TaskGroup() as group:
            asked = {
                side: group.create_task(self.send_copy(url, copy))
                for side, url in sides[:: 1 - 2 * self._candidate_first]
            }
        serving, candidate = asked["serving"].result(), asked["candidate"].result()
        if len(serving.body) + len(candidate.body) > _LARGE_BYTES:
            # Answers that come in meanwhile must not look late; and parsed ones take much memory, so one at a time.
            async with self._large_answers:
                found = await asyncio.to_thread(compare_answers, serving, candidate, self._tolerance)
        else:
            found = compare_answers(serving, candidate, self._tolerance)
        self.stats.add(serving, candidate, found)

    def count_failed(self) -> None:
        """It counts as uncomparable."""
        self.stats.uncomparable += 1

    async def _get_summary(self, _: web.Request) -> web.Response:
        return web.Response(text=json.dumps(self.stats.build_summary().wire()), content_type="application/json")
