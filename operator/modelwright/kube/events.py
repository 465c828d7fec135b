"""Sends Kubernetes Events about our objects: in the background, never twice within five minutes, never blocking."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.obs import metrics
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

REPEAT_SECONDS = 300.0
NOTE_MAX = 1024
MAX_ATTEMPTS = 3
REPORTING_CONTROLLER = "modelwright.dev/operator"


class EventRecorder:
    """A recorder whose `record` only puts the Event into a bounded queue; one worker (`run`) sends them in order."""

    def __init__(self, client: KubeClient, clock: Clock, *, instance: str, capacity: int = 1000) -> None:
        self._client = client
        self._clock = clock
        self._instance = instance[:128]
        self._capacity = capacity
        self._queue: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sent: dict[bytes, float] = {}

    def record(
        self,
        obj: Mapping[str, Any],
        type_: Literal["Normal", "Warning"],
        reason: str,
        note: str,
        *,
        action: str = "Reconcile",
    ) -> None:
        """Queue an Event about `obj`: `reason` is a CamelCase constant, `note` a sentence (cut at 1024 characters).

        Never raises and never waits. The same (object, reason, note) is sent once in five minutes; when 1000 Events
        are queued already, the new one is dropped and counted.
        """
        try:
            event, key = self._build_event(obj, type_, reason, note, action)
        except Exception:
            log.exception("an Event could not be built", extra={"reason": reason})
            metrics.EVENTS_RECORDED.labels("failed").inc()
            return
        now = self._clock.monotonic()
        if self._is_repeated(key, now):
            metrics.EVENTS_RECORDED.labels("repeated").inc()
        elif len(self._queue) >= self._capacity:
            metrics.EVENTS_RECORDED.labels("dropped").inc()
        else:
            self._sent[key] = now
            self._queue.append(event)
            self._idle.clear()
            self._wake.set()

    async def run(self) -> None:
        """Send recorded Events until cancelled."""
        while True:
            while self._queue:
                await self._send_event(self._queue.popleft())
            self._idle.set()
            self._wake.clear()
            await self._wake.wait()

    async def drain(self, seconds: float) -> None:
        """Wait until all recorded Events have been sent, at most `seconds`; `run` must be running."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)

    async def _send_event(self, event: dict[str, Any]) -> None:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                await self._client.create(event)
            except (api_errors.Throttled, api_errors.Transient) as error:
                if attempt < MAX_ATTEMPTS:
                    await self._clock.sleep(error.retry_after or float(attempt))
                    continue
                self._log_failure(event, error)
            except api_errors.AlreadyExists:
                # Our first attempt succeeded although its response was lost.
                metrics.EVENTS_RECORDED.labels("sent").inc()
            except Exception as error:
                self._log_failure(event, error)
            else:
                metrics.EVENTS_RECORDED.labels("sent").inc()
            return

    def _log_failure(self, event: dict[str, Any], error: Exception) -> None:
        metrics.EVENTS_RECORDED.labels("failed").inc()
        log.warning("an Event could not be sent", extra={"reason": event["reason"], "error": str(error)})

    def _is_repeated(self, key: bytes, now: float) -> bool:
        # The dict is ordered by age: expired entries are at the front.
        while self._sent and now - next(iter(self._sent.values())) >= REPEAT_SECONDS:
            del self._sent[next(iter(self._sent))]
        return key in self._sent

    def _build_event(
        self, obj: Mapping[str, Any], type_: str, reason: str, note: str, action: str
    ) -> tuple[dict[str, Any], bytes]:
        meta = obj["metadata"]
        name = str(meta["name"])
        namespace = str(meta.get("namespace") or "")
        uid = str(meta.get("uid") or "")
        regarding = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": name,
            "uid": uid,
            "resourceVersion": str(meta.get("resourceVersion") or ""),
        }
        if namespace:
            regarding["namespace"] = namespace
        if len(note) > NOTE_MAX:
            note = note[: NOTE_MAX - 3] + "..."
        digest = hashlib.sha256("\0".join((uid, type_, reason, note)).encode()).digest()[:8]
        now = self._clock.now()
        event = {
            "apiVersion": kinds.EVENT.api_version,
            "kind": "Event",
            # The time alone would collide when two Events about one name are recorded at once.
            "metadata": {
                "name": f"{name[:220].rstrip('-.')}.{int(now.timestamp() * 1e6):x}{digest[:4].hex()}",
                "namespace": namespace or "default",
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "note": note,
            "type": type_,
            "regarding": regarding,
        }
        return event, digest
