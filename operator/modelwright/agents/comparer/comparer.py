"""The comparer's server: sends each copy to both revisions and publishes the counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
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
    """Receives mirrored requests and compares the answers of the two revisions."""

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
        """Name a revision that has not been reached yet: its Service is new, and this node does not know its pods.

        Copies received before that would count against the revision; later failures are evidence.
        """
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
        """Send the copy to both revisions, compare the answers and count the result."""
        settings = self._settings
        sides = [("serving", settings.serving_url), ("candidate", settings.candidate_url)]
        # The second request waits until the first is written, so the revisions take turns.
        self._candidate_first ^= 1
        async with asyncio.TaskGroup() as group:
            requests = {
                side: group.create_task(self.send_copy(url, copy))
                for side, url in sides[:: 1 - 2 * self._candidate_first]
            }
        serving, candidate = requests["serving"].result(), requests["candidate"].result()
        if len(serving.body) + len(candidate.body) > _LARGE_BYTES:
            # Answers received meanwhile must not appear late; parsed ones take much memory, so one at a time.
            async with self._large_answers:
                comparison = await asyncio.to_thread(compare_answers, serving, candidate, self._tolerance)
        else:
            comparison = compare_answers(serving, candidate, self._tolerance)
        self.stats.add(serving, candidate, comparison)

    def count_failed(self) -> None:
        """Count it as uncomparable."""
        self.stats.uncomparable += 1

    def total_counts(self) -> Mapping[str, int]:
        """Return the totals of the comparison."""
        stats = self.stats
        return {"compared": stats.compared, "rows": stats.rows, "differ": stats.disagreements}

    async def _get_summary(self, _: web.Request) -> web.Response:
        return web.Response(text=json.dumps(self.stats.build_summary().wire()), content_type="application/json")
