"""The drift monitor's server: counts the inputs of callers' requests and the serving revision's answers to them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from random import Random

from aiohttp import web

from modelwright.agents.drift_monitor import rows
from modelwright.agents.drift_monitor.bin_windows import RowWindow, SlicedWindow
from modelwright.agents.drift_monitor.drift_stats import DriftStats
from modelwright.agents.drift_monitor.drift_windows import DriftWindows
from modelwright.agents.drift_monitor.settings import DriftMonitorSettings, build_comparison, parse_seconds
from modelwright.agents.mirror import MirroredRequest, MirrorServer, json_header_length, model_metadata_path
from modelwright.agents.tensors import TensorError, parse_tensors
from modelwright.core.drift import worst_features
from modelwright.core.drift.reference_sample import BinnedReference

_METADATA_SECONDS = 5.0
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 60.0, 3600.0
"""Seconds until the server's metadata is requested again if it had no names: doubled each time."""


class DriftMonitor(MirrorServer):
    """Receives mirrored requests. Without predictions in the reference, no request is sent to the model."""

    decompress = True

    def __init__(self, settings: DriftMonitorSettings, reference: BinnedReference) -> None:
        windows: dict[str, RowWindow | SlicedWindow] = {
            settings.window: RowWindow(reference, parse_seconds(settings.window), settings.most_rows)
        }
        if parse_seconds(settings.long_window):
            windows[settings.long_window] = SlicedWindow(reference, parse_seconds(settings.long_window))
        self.stats = DriftStats(
            settings, DriftWindows(reference, build_comparison(settings), settings.min_samples, windows)
        )
        super().__init__(settings, self.stats, self.stats, {"/worst": self._get_worst})
        self._settings = settings
        self._reference = reference
        self._names_due, self._names_wait = -math.inf, _FIRST_WAIT_SECONDS
        self._random = Random()  # noqa: S311 - a sample, not a secret

    async def process_copy(self, copy: MirroredRequest) -> None:
        """Count the inputs, then send the copy to the model and count its answer."""
        reference, windows = self._reference, self.stats.windows
        try:
            tensors = parse_tensors(copy.body, json_header_length(copy.headers), "inputs")
            count = rows.count_rows(tensors)
            chosen = rows.sample_rows(count, self._settings.rows_per_request, self._random)
            input_rows = rows.read_input_rows(tensors, reference.width, count, chosen)
        except TensorError:
            self.stats.unreadable += 1
            return
        if not windows.names and count:
            windows.names = rows.name_features(tensors, count) or await self._fetch_feature_names(copy)
        placed = [reference.place_row(row) for row in input_rows]
        answers = [] if reference.predictions is None else await self._place_answers(copy, count, chosen)
        self.stats.observed += 1
        self.stats.rows += len(placed)
        windows.add_rows(self.stats.now(), placed, answers)

    def count_failed(self) -> None:
        """Count it as unreadable."""
        self.stats.unreadable += 1

    def total_counts(self) -> Mapping[str, int]:
        """Return the totals of the observed requests."""
        return {"observed": self.stats.observed, "rows": self.stats.rows}

    async def _fetch_feature_names(self, copy: MirroredRequest) -> tuple[str, ...]:
        """Fetch the names in the server's metadata, if the callers write no usable ones; empty if it has none
        either."""
        now = self.stats.now()
        if now < self._names_due:
            return ()
        self._names_due, self._names_wait = now + self._names_wait, min(2 * self._names_wait, _MAX_WAIT_SECONDS)
        answer = await self.get_body(self._settings.serving_url + model_metadata_path(copy.target), _METADATA_SECONDS)
        return rows.names_from_metadata(answer, self._reference.width) if answer is not None else ()

    async def _get_worst(self, _: web.Request) -> web.Response:
        figures = worst_features.select_worst(self.stats.windows.list_figures(self.stats.now()))
        answer = worst_features.build_answer(
            self._settings.model_version, figures, self.stats.windows.unwatched_features
        )
        return web.Response(text=json.dumps(answer), content_type="application/json")

    async def _place_answers(self, copy: MirroredRequest, count: int, chosen: Sequence[int]) -> list[int]:
        """Return the bins of the chosen rows of the answer; empty without a valid answer of `count` rows."""
        # The body was unpacked on receipt.
        copy.headers.popall("Content-Encoding", None)
        answer = await self.send_copy(self._settings.serving_url, copy)
        try:
            if not answer.is_success or not answer.whole:
                raise TensorError("no answer")
            output_rows = rows.read_output_rows(parse_tensors(answer.body, answer.header_length), count, chosen)
        except TensorError:
            self.stats.unanswered += 1
            return []
        places = (self._reference.place_prediction(row) for row in output_rows)
        return [place for place in places if place is not None]
