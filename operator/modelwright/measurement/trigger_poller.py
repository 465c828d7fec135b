"""Polls Prometheus triggers: one query each per interval, at a phase of the policy's own."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import PrometheusTrigger
from modelwright.core.retraining import triggers
from modelwright.kube.queue import Key
from modelwright.measurement import queries, servers
from modelwright.measurement.connections import Connections
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.prometheus import PrometheusClient
from modelwright.obs.clock import Clock, SystemClock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PolledTrigger:
    """A trigger to poll. `placeholders`: values of the placeholders of its query, by name."""

    trigger: PrometheusTrigger
    placeholders: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BreachStreak:
    """Consecutive polls beyond the limit. `value`: result of the last poll; `problem`: why it has none (reason,
    message)."""

    count: int = 0
    value: float | None = None
    problem: tuple[str, str] | None = None


@dataclass(slots=True)
class _TriggerEntry:
    polled: PolledTrigger
    task: asyncio.Task[None]
    streak: BreachStreak = field(default_factory=BreachStreak)


class TriggerPoller:
    """Holds the streak of every polled trigger. Belongs to one event loop; only `close` waits.

    `notify` is called when a streak is long enough to fire, and when a trigger starts or ceases to give a number.
    Streaks are kept in memory only and restart from 0 with the operator, so that no poll needs a write.
    """

    def __init__(self, connections: Connections, notify: Callable[[Key], None], *, clock: Clock | None = None) -> None:
        self._connections = connections
        self._notify = notify
        self._clock: Clock = clock or SystemClock()
        self._web = JsonClient()
        self._entries: dict[Key, dict[str, _TriggerEntry]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def sync_triggers(self, policy: Key, uid: str, wanted: Mapping[str, PolledTrigger]) -> Mapping[str, BreachStreak]:
        """Poll exactly these triggers of a policy, by name; return their streaks."""
        entries = self._entries.setdefault(policy, {})
        for name in [name for name, entry in entries.items() if wanted.get(name) != entry.polled]:
            self._stop_entry(entries.pop(name))
        for name, polled in wanted.items():
            if name not in entries:
                task = asyncio.ensure_future(self._poll_trigger(policy, uid, name))
                entries[name] = _TriggerEntry(polled, task)
        if not entries:
            del self._entries[policy]
        return {name: entry.streak for name, entry in entries.items()}

    def reset_streak(self, policy: Key, name: str) -> None:
        """Restart the streak of a trigger that has fired."""
        entry = self._entries.get(policy, {}).get(name)
        if entry is not None:
            entry.streak = BreachStreak(0, entry.streak.value, entry.streak.problem)

    async def close(self) -> None:
        """Stop all polls, and wait until they have ended."""
        for policy in list(self._entries):
            self.sync_triggers(policy, "", {})
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._web.close()

    def _stop_entry(self, entry: _TriggerEntry) -> None:
        entry.task.cancel()
        self._ending.add(entry.task)
        entry.task.add_done_callback(self._ending.discard)

    async def _poll_trigger(self, policy: Key, uid: str, name: str) -> None:
        # The caller adds the entry after this task was created.
        await asyncio.sleep(0)
        entry = self._entries[policy][name]
        interval = parse_duration(entry.polled.trigger.interval)
        # The phase follows from the policy's uid, so that a thousand policies don't poll at once.
        await self._clock.sleep(_phase_share(uid, name) * interval)
        due = self._clock.monotonic()
        while True:
            before, entry.streak = entry.streak, await self._poll_once(entry, policy)
            fires = triggers.is_breached(entry.polled.trigger, entry.streak.count)
            if fires or (entry.streak.problem is None) != (before.problem is None):
                self._notify(policy)
            due = max(due + interval, self._clock.monotonic())
            await self._clock.sleep(due - self._clock.monotonic())

    async def _poll_once(self, entry: _TriggerEntry, policy: Key) -> BreachStreak:
        trigger = entry.polled.trigger
        problem = None
        try:
            value, why = await self._query_value(entry.polled, policy.namespace)
            if value is None:
                problem = (str(Reason.NO_DATA), why)
        except MeasurementError as error:
            value, problem = None, (error.failure.reason, error.failure.message)
        except Exception as error:
            # A bug in one poll must not end those that follow.
            log.exception("a trigger of %s could not be polled", policy)
            value, problem = None, (str(Reason.INTERNAL_ERROR), repr(error))
        return BreachStreak(triggers.update_breach_streak(trigger, entry.streak.count, value), value, problem)

    async def _query_value(self, polled: PolledTrigger, namespace: str) -> tuple[float | None, str]:
        trigger = polled.trigger
        connection = servers.find_connection(self._connections, trigger.provider, "Prometheus", namespace)
        query = queries.fill_placeholders(trigger.query, polled.placeholders)
        if connection.enforced_label is not None:
            query = await queries.enforce_label(query, connection.enforced_label, namespace, "prometheus.query")
        else:
            await queries.parse_query(query, "prometheus.query", namespace)
        return await PrometheusClient(self._web, connection).query_number(query, self._clock.now().timestamp())


def _phase_share(uid: str, name: str) -> float:
    """Derive a share of the interval, 0 to 1, from the policy and the trigger."""
    return zlib.crc32(f"{uid}/{name}".encode()) / 2**32
