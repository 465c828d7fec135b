"""Counts what callers asked, asks the serving revision what it answers, and counts that."""

from __future__ import annotations

from modelwright.compare.copies import Copy, Taker, header_length
from modelwright.compare.tensors import Unreadable, parse
from modelwright.core.monitoring.reference import Reference
from modelwright.observe import rows
from modelwright.observe.settings import Settings
from modelwright.observe.tally import Tally
from modelwright.observe.window import Window


class Observer(Taker):
    """Takes copies of callers' requests. Without predictions in the reference the model isn't asked."""

    decompress = True

    def __init__(self, settings: Settings, reference: Reference) -> None:
        window = Window(reference, settings.window_seconds, settings.min_samples, settings.most_rows)
        self.tally = Tally(settings, window)
        super().__init__(settings, self.tally, self.tally)
        self._settings = settings
        self._reference = reference

    async def work_on(self, copy: Copy) -> None:
        """Count the inputs; then ask, and count the answer."""
        reference, most = self._reference, self._settings.most_batch
        try:
            tensors = parse(copy.body, header_length(copy.headers), "inputs")
            found = rows.inputs(tensors, reference.width, most)
        except Unreadable:
            self.tally.unreadable += 1
            return
        placed = [reference.place(row) for row in found]
        answers = [] if reference.predictions is None else await self._answers(copy, len(placed))
        self.tally.observed += 1
        self.tally.rows += len(placed)
        self.tally.window.add(self.tally.now(), placed, answers)

    def failed(self) -> None:
        """It counts as unreadable."""
        self.tally.unreadable += 1

    async def _answers(self, copy: Copy, wanted: int) -> list[int]:
        """The bins of the answer's rows; none when there is no answer of the protocol with as many rows."""
        # The body was unpacked as it came in.
        copy.headers.popall("Content-Encoding", None)
        answer = await self.ask(self._settings.serving_url, copy)
        try:
            if not answer.good or not answer.whole:
                raise Unreadable("no answer")
            found = rows.answers(parse(answer.body, answer.header_length), self._settings.most_batch)
            places = [self._reference.place_prediction(row) for row in found]
            if len(places) != wanted or not all(found):
                raise Unreadable("the answer has other rows than the request")
        except Unreadable:
            self.tally.unanswered += 1
            return []
        return [place for place in places if place is not None]
