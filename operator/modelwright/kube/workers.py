"""Workers that take keys from the queue, run the reconciler of their kind, and decide when to reconcile again.

| outcome | next reconcile |
|---|---|
| `ReconcileResult(requeue_after)` | after that time, if one was requested; resets the failure count |
| RequeueLater | after 1 s, 2 s, 4 s ... 5 min |
| Conflict, AlreadyExists, NotFound | at once, three times in a row; then as Transient |
| Transient | after 1 s, 2 s, 4 s ... 5 min (not before a Retry-After) |
| Throttled | after Retry-After; the failure count stays |
| Denied | after 1 s, 2 s, 4 s ... 1 min, or when anything about the object changes |
| ObjectTooLarge | after 1 s, 2 s, 4 s ... 5 min, so that deadlines are still observed |
| Invalid | when something changes, or after the next resync |
| any other exception | a bug: logged with its traceback, counted, then as Transient |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from modelwright.kube import api_errors
from modelwright.kube.queue import Key, ShutDown, WorkQueue
from modelwright.obs import metrics
from modelwright.obs.clock import Clock, SystemClock

log = logging.getLogger(__name__)

IMMEDIATE_RETRIES = 3
DENIED_DELAY = 60.0
"""A revoked right may be granted again at any time, and a rollout must not wait long for that."""


@dataclass(frozen=True)
class ReconcileResult:
    """The result of a successful reconcile. `requeue_after`: seconds until the next one; None leaves it to events."""

    requeue_after: float | None = None


class RequeueLater(Exception):
    """Raised by a reconciler: nothing is wrong, but its next action has to wait, and no worker should block for it."""


Reconciler = Callable[[Key], Awaitable[ReconcileResult]]


@dataclass(frozen=True)
class ActiveReconcile:
    """A reconcile in progress, with its duration so far in seconds."""

    key: Key
    seconds: float


class WorkerPool:
    """A pool of `workers` tasks over one queue; `reconcilers` maps a kind's name to its reconcile function."""

    def __init__(
        self,
        queue: WorkQueue,
        reconcilers: Mapping[str, Reconciler],
        workers: int = 8,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._queue = queue
        self._reconcilers = dict(reconcilers)
        self._workers = workers
        self._clock: Clock = clock or SystemClock()
        self._tasks: list[asyncio.Task[None]] = []
        self._gate: asyncio.Event | None = None
        self._started_at: dict[Key, float] = {}
        self._immediate_retries: dict[Key, int] = {}

    def start(self, gate: asyncio.Event | None = None) -> None:
        """Start the workers, which take no key from the queue until `gate` is set. Must be called once."""
        if self._tasks:
            raise RuntimeError("the workers have been started already")
        self._gate = gate
        self._tasks = [asyncio.create_task(self._run_worker(gate), name=f"worker-{n}") for n in range(self._workers)]

    async def stop(self, patience: float = 25.0) -> None:
        """Take no more keys and wait up to `patience` seconds for reconciles in progress; then cancel them."""
        self._queue.shutdown()
        if not self._tasks:
            return
        if self._gate is not None and not self._gate.is_set():
            # Nothing has been started, so there is nothing to wait for.
            patience = 0.0
        _, late = await asyncio.wait(self._tasks, timeout=patience)
        for task in late:
            task.cancel()
        if cut := [str(r.key) for r in self.list_active()]:
            log.warning("reconciles were cancelled at shutdown", extra={"keys": cut})
        if late:
            await asyncio.wait(late)

    def list_active(self, longer_than: float = 0.0) -> list[ActiveReconcile]:
        """List the reconciles in progress for at least `longer_than` seconds, longest first (for /livez)."""
        now = self._clock.monotonic()
        active = [
            ActiveReconcile(key, now - start) for key, start in self._started_at.items() if now - start >= longer_than
        ]
        return sorted(active, key=lambda r: -r.seconds)

    async def _run_worker(self, gate: asyncio.Event | None) -> None:
        if gate is not None:
            await gate.wait()
        while True:
            try:
                key = await self._queue.get()
            except ShutDown:
                return
            try:
                await self._reconcile_key(key)
            finally:
                self._started_at.pop(key, None)
                self._queue.done(key)
            # A reconcile without I/O never yields to the event loop: ten thousand of them, as after a restart with
            # 5,000 Models, would cost the Lease.
            await asyncio.sleep(0)

    async def _reconcile_key(self, key: Key) -> None:
        start = self._started_at[key] = self._clock.monotonic()
        outcome = "bug"
        try:
            reconcile = self._reconcilers.get(key.kind)
            if reconcile is None:
                raise LookupError(f"no reconciler for kind {key.kind}")
            result = await reconcile(key)
            outcome = self._handle_success(key, result)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except RequeueLater:
            self._queue.add_rate_limited(key)
            outcome = "requeued"
        except api_errors.ApiError as error:
            outcome = self._handle_api_error(key, error)
        except Exception:
            metrics.RECONCILE_PANICS.labels(key.kind).inc()
            delay = self._queue.add_rate_limited(key)
            log.exception("a reconcile failed unexpectedly: this is a bug", extra=_key_fields(key, retry_in=delay))
        finally:
            metrics.RECONCILE_SECONDS.labels(key.kind).observe(self._clock.monotonic() - start)
            metrics.RECONCILES.labels(key.kind, outcome).inc()

    def _handle_success(self, key: Key, result: ReconcileResult) -> str:
        self._queue.reset_failures(key)
        self._immediate_retries.pop(key, None)
        if result.requeue_after is None:
            return "done"
        self._queue.add_after(key, result.requeue_after)
        return "requeued"

    def _handle_api_error(self, key: Key, error: api_errors.ApiError) -> str:
        if isinstance(error, api_errors.Conflict | api_errors.AlreadyExists | api_errors.NotFound):
            tries = self._immediate_retries.get(key, 0)
            if tries < IMMEDIATE_RETRIES:
                self._immediate_retries[key] = tries + 1
                self._queue.requeue(key)
                text = "the object changed during the reconcile, trying again"
                log.info(text, extra=_key_fields(key, error=str(error)))
                return "conflict"
        self._immediate_retries.pop(key, None)
        if isinstance(error, api_errors.Throttled):
            self._queue.add_after(key, error.retry_after)
            fields = _key_fields(key, error=str(error), retry_in=error.retry_after)
            log.warning("the API server throttles requests", extra=fields)
            return "throttled"
        if isinstance(error, api_errors.Denied):
            delay = self._queue.add_rate_limited(key, at_most=DENIED_DELAY)
            log.error(
                "the API server refuses access", extra=_key_fields(key, error=str(error), retry_in=round(delay, 3))
            )
            return "denied"
        if isinstance(error, api_errors.ObjectTooLarge):
            # Time-based decisions, such as a deadline, must be made nevertheless.
            delay = self._queue.add_rate_limited(key)
            text = "the API server refuses an object because of its size"
            log.error(text, extra=_key_fields(key, error=str(error), retry_in=round(delay, 3)))
            return "invalid"
        if isinstance(error, api_errors.Invalid):
            log.error(
                "the API server refuses an object: a retry would not help", extra=_key_fields(key, error=str(error))
            )
            return "invalid"
        retry_after = error.retry_after if isinstance(error, api_errors.Transient) else None
        delay = self._queue.add_rate_limited(key, at_least=retry_after or 0.0)
        fields = _key_fields(key, error=str(error), retry_in=round(delay, 3))
        log.warning("a reconcile failed, trying again", extra=fields)
        return "transient"


def _key_fields(key: Key, **more: object) -> dict[str, object]:
    return {"kind": key.kind, "namespace": key.namespace, "object": key.name, **more}
