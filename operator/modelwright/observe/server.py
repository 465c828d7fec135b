"""Counts what callers asked, asks the serving revision what it answers, and counts that."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from random import Random

from aiohttp import web

from modelwright.compare.copies import Copy, Taker, header_length, metadata_path
from modelwright.compare.tensors import Unreadable, parse
from modelwright.core.monitoring import worst
from modelwright.core.monitoring.reference import Reference
from modelwright.observe import rows
from modelwright.observe.settings import Settings, comparison, seconds
from modelwright.observe.tally import Tally
from modelwright.observe.window import PartWindow, RowWindow
from modelwright.observe.windows import Windows

_METADATA_SECONDS = 5.0
_FIRST_WAIT, _LONGEST_WAIT = 60.0, 3600.0
"""Seconds until the server is asked for names again, when it had none: doubled each time."""


class Observer(Taker):
    """Takes copies of callers' requests. Without predictions in the reference the model isn't asked."""

    decompress = True

    def __init__(self, settings: Settings, reference: Reference) -> None:
        windows: dict[str, RowWindow | PartWindow] = {
            settings.window: RowWindow(reference, seconds(settings.window), settings.most_rows)
        }
        if seconds(settings.long_window):
            windows[settings.long_window] = PartWindow(reference, seconds(settings.long_window))
        self.tally = Tally(settings, Windows(reference, comparison(settings), settings.min_samples, windows))
        super().__init__(settings, self.tally, self.tally, {"/worst": self._worst})
        self._settings = settings
        self._reference = reference
        self._names_due, self._names_wait = -math.inf, _FIRST_WAIT
        self._random = Random()  # noqa: S311 - a sample, not a secret

    async def work_on(self, copy: Copy) -> None:
        """Count the inputs; then ask, and count the answer."""
        reference, windows = self._reference, self.tally.windows
        try:
            tensors = parse(copy.body, header_length(copy.headers), "inputs")
            count = rows.count(tensors)
            chosen = rows.choose(count, self._settings.rows_per_request, self._random)
            found = rows.inputs(tensors, reference.width, count, chosen)
        except Unreadable:
            self.tally.unreadable += 1
            return
        if not windows.names and count:
            windows.names = rows.names(tensors, count) or await self._names(copy)
        placed = [reference.place(row) for row in found]
        answers = [] if reference.predictions is None else await self._answers(copy, count, chosen)
        self.tally.observed += 1
        self.tally.rows += len(placed)
        windows.add(self.tally.now(), placed, answers)

    def failed(self) -> None:
        """It counts as unreadable."""
        self.tally.unreadable += 1

    async def _names(self, copy: Copy) -> tuple[str, ...]:
        """Names by the server's metadata, for callers who write none that are good; empty when it has none either."""
        now = self.tally.now()
        if now < self._names_due:
            return ()
        self._names_due, self._names_wait = now + self._names_wait, min(2 * self._names_wait, _LONGEST_WAIT)
        answer = await self.get(self._settings.serving_url + metadata_path(copy.target), _METADATA_SECONDS)
        return rows.names_of_server(answer, self._reference.width) if answer is not None else ()

    async def _worst(self, _: web.Request) -> web.Response:
        found = worst.worst(self.tally.windows.figures(self.tally.now()))
        answer = worst.document(self._settings.model_version, found, self.tally.windows.unwatched)
        return web.Response(text=json.dumps(answer), content_type="application/json")

    async def _answers(self, copy: Copy, count: int, chosen: Sequence[int]) -> list[int]:
        """The bins of the chosen rows of the answer; none when there is no answer of the protocol with `count` rows."""
        # The body was unpacked as it came in.
        copy.headers.popall("Content-Encoding", None)
        answer = await self.ask(self._settings.serving_url, copy)
        try:
            if not answer.good or not answer.whole:
                raise Unreadable("no answer")
            found = rows.answers(parse(answer.body, answer.header_length), count, chosen)
        except Unreadable:
            self.tally.unanswered += 1
            return []
        places = (self._reference.place_prediction(row) for row in found)
        return [place for place in places if place is not None]
