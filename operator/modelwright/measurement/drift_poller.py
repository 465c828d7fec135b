"""Polls the drift monitors of Models: one request a minute each, spread over the minute."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from modelwright.api import names
from modelwright.api.v1alpha1.model import DriftStatus
from modelwright.core.drift import worst_features
from modelwright.core.status import drift_status
from modelwright.kube.queue import Key
from modelwright.measurement.connections import Connection
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.obs.clock import Clock, SystemClock
from modelwright.untrusted_json import JsonLimits

log = logging.getLogger(__name__)

POLL_SECONDS = 60.0
"""Seconds between two polls of one drift monitor."""
WORST_LIMITS = JsonLimits(64 << 10, values=10_000, depth=16)

DriftMonitorUrl = Callable[[str, str], str]
"""Builds the base URL of the drift monitor of (namespace, model)."""


def drift_monitor_service_url(namespace: str, model: str) -> str:
    """Build the URL of the drift monitor's Service inside the cluster."""
    return f"http://{names.observer_name(model)}.{namespace}.svc"


@dataclass(slots=True)
class _DriftEntry:
    version: str
    reported: DriftStatus | None
    task: asyncio.Task[None]


class DriftPoller:
    """Holds the latest report of each drift monitor. Belongs to one event loop; only `close` waits.

    `notify` is called when a report is worth a write of the Model's status. A failed poll changes nothing, and is
    retried with the next one.
    """

    def __init__(
        self,
        notify: Callable[[Key], None],
        *,
        url: DriftMonitorUrl = drift_monitor_service_url,
        clock: Clock | None = None,
    ) -> None:
        self._notify = notify
        self._url = url
        self._clock: Clock = clock or SystemClock()
        self._web = JsonClient()
        self._entries: dict[Key, _DriftEntry] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def sync_model(self, model: Key, version: str, reported: DriftStatus | None) -> DriftStatus | None:
        """Poll the drift monitor of this Model from now on; return its latest report against the reference of
        `version`. `reported`: the drift in the Model's status."""
        entry = self._entries.get(model)
        if entry is not None and entry.version != version:
            self.forget_model(model)
            entry = None
        if entry is None:
            task = asyncio.ensure_future(self._poll_model(model))
            entry = self._entries[model] = _DriftEntry(
                version, drift_status.summarize_drift(reported, version, (), self._clock.now()), task
            )
        return entry.reported

    def forget_model(self, model: Key) -> None:
        """Stop polling the drift monitor of this Model."""
        entry = self._entries.pop(model, None)
        if entry is not None:
            entry.task.cancel()
            self._ending.add(entry.task)
            entry.task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Stop all polls, and wait until they have ended."""
        for model in list(self._entries):
            self.forget_model(model)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._web.close()

    async def _poll_model(self, model: Key) -> None:
        # The caller adds the entry after this task was created.
        await asyncio.sleep(0)
        entry = self._entries[model]
        await self._clock.sleep(zlib.crc32(str(model).encode()) / 2**32 * POLL_SECONDS)
        while True:
            before = entry.reported
            entry.reported = await self._poll_once(model, entry)
            if drift_status.is_worth_writing(before, entry.reported):
                self._notify(model)
            await self._clock.sleep(POLL_SECONDS)

    async def _poll_once(self, model: Key, entry: _DriftEntry) -> DriftStatus | None:
        url = self._url(model.namespace, model.name)
        connection = Connection(name=names.observer_name(model.name), type="HTTP", url=url, timeout="5s")
        try:
            answer = await self._web.request_json(connection, "/worst", limits=WORST_LIMITS)
            worst = worst_features.parse_answer(answer.document, entry.version)
            unwatched = worst_features.parse_unwatched(answer.document)
        except (MeasurementError, worst_features.InvalidDriftAnswer) as error:
            log.debug("no drift from the drift monitor of %s/%s: %s", model.namespace, model.name, error)
            return entry.reported
        except Exception:
            # A bug in one poll must not end those that follow.
            log.exception("the drift monitor of %s/%s could not be polled", model.namespace, model.name)
            return entry.reported
        return drift_status.summarize_drift(entry.reported, entry.version, worst, self._clock.now(), unwatched)
