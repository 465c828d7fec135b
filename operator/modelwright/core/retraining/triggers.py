"""Triggers of a RetrainingPolicy (a drift trigger is a query) and their firings: one run for each identity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from modelwright import untrusted_json
from modelwright.api.common import parse_duration
from modelwright.api.names import short_hash
from modelwright.api.v1alpha1.retraining import (
    AgeTrigger,
    DataTrigger,
    PrometheusTrigger,
    RetrainingPolicySpec,
    RetrainingPolicyStatus,
    TriggerStatus,
    WebhookTrigger,
)
from modelwright.core.retraining import schedule
from modelwright.net import addresses

BODY_BOUNDS = untrusted_json.JsonLimits(1 << 20)
"""Bounds of the body of a webhook's request."""
IDENTITY_MAX = 253
MESSAGE_MAX = 1024
MAX_ALERTS = 100
"""Maximum number of alerts of one request that are accepted; Alertmanager repeats the others."""

_RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Firing:
    """A firing of a trigger.

    `identity`: identifies the cause, so that the same cause fires once. `at`: time of the firing, UTC. `message`: the
    cause as text. `fingerprint`: of the data, if that has changed. `waits`: the firing is not suppressed when the queue
    of runs is full, but comes again, like the times of a schedule with catchUp All.
    """

    trigger: str
    kind: str
    identity: str
    at: datetime
    message: str
    fingerprint: str | None = None
    waits: bool = False


class InvalidEventError(ValueError):
    """Raised for an invalid request of a webhook; the text names the member and the error."""


def fire_schedules(
    spec: RetrainingPolicySpec, status: RetrainingPolicyStatus, created: datetime, now: datetime
) -> tuple[Firing, ...]:
    """List the firings of schedule triggers that are due, in the order of their times.

    The identity is the time, in RFC 3339. Times count from the one that the trigger's status has as handled, otherwise
    from `at` of the status, and without a status from `created`, the creation of the policy: a restored policy catches
    up nothing from before.
    """
    entries = {entry.name: entry for entry in status.triggers}
    firings = []
    for trigger in spec.triggers:
        if trigger.schedule is None:
            continue
        for time in schedule.list_due_times(trigger.schedule, _handled_until(entries.get(trigger.name), created), now):
            identity = time.strftime(_RFC3339)
            text, waits = f"the schedule's time {identity} has come", trigger.schedule.catch_up == "All"
            firings.append(Firing(trigger.name, "schedule", identity, time, text, waits=waits))
    return tuple(sorted(firings, key=lambda firing: firing.at))


def fire_ages(
    spec: RetrainingPolicySpec,
    status: RetrainingPolicyStatus,
    serving_version: str | None,
    serving_since: datetime | None,
    now: datetime,
) -> tuple[Firing, ...]:
    """List the firings of age triggers whose span has passed once more since `serving_version` started to serve.

    The identity is "<version>/<since>/<n>", n being the number of whole spans that have passed. Of several spans since
    the last reconciliation only the last one fires. A clock that is set back repeats no firing.
    """
    if serving_version is None or serving_since is None:
        return ()
    entries = {entry.name: entry.identity for entry in status.triggers}
    firings = []
    for trigger in spec.triggers:
        if trigger.age is None:
            continue
        count = _count_spans(trigger.age, serving_since, now)
        prefix = _bound_identity(
            f"{serving_version}/{serving_since.astimezone(UTC).strftime(_RFC3339)}", IDENTITY_MAX - 12
        )
        if count < 1 or count <= _parse_age_count(entries.get(trigger.name), prefix):
            continue
        text = f"version {serving_version} has served for {count} times {trigger.age.after}"
        at = serving_since + count * timedelta(seconds=parse_duration(trigger.age.after))
        firings.append(Firing(trigger.name, "age", f"{prefix}/{count}", at, text[:MESSAGE_MAX]))
    return tuple(firings)


def update_breach_streak(trigger: PrometheusTrigger, streak: int, value: float | None) -> int:
    """Return the number of consecutive values beyond the limit after `value`, which is None or NaN without an answer.

    `streak`: the number before.
    """
    if value is None or math.isnan(value):
        return 0
    if trigger.above is not None:
        beyond = _exact_decimal(value) > Decimal(trigger.above)
    else:
        beyond = trigger.below is not None and _exact_decimal(value) < Decimal(trigger.below)
    return streak + 1 if beyond else 0


def is_breached(trigger: PrometheusTrigger, streak: int) -> bool:
    """Whether this number of consecutive values fires the trigger, after which the count restarts at 0."""
    return streak >= trigger.consecutive


def fire_breach(trigger_name: str, trigger: PrometheusTrigger, value: float, count: int, now: datetime) -> Firing:
    """Build the firing of a breached trigger. `count`: number of its firings including this one, the identity."""
    limit = f"above {trigger.above}" if trigger.above is not None else f"below {trigger.below}"
    text = f"the query returned {value:.6g}, {limit}, {trigger.consecutive} consecutive times"
    return Firing(trigger_name, "prometheus", str(count), now, text)


def fire_data_change(
    name: str, trigger: DataTrigger, fingerprint: str, last: TriggerStatus | None, at: datetime
) -> Firing | None:
    """Build the firing for data whose fingerprint differs from the last handled one. The first fingerprint of all does
    not fire: it is the state to compare with.

    The identity is the change, from the last handled fingerprint and its time: data that changes back and forth is
    another cause each time.
    """
    fingerprint = _bound_identity(fingerprint, IDENTITY_MAX)
    if last is None or last.identity is None or last.identity == fingerprint:
        return None
    previous = short_hash(f"{last.identity} {last.at.isoformat() if last.at is not None else ''}")
    text = f"{trigger.changed} of {addresses.redact_uri(trigger.uri)} has changed"
    return Firing(
        name, "data", _bound_identity(f"{previous}/{fingerprint}", IDENTITY_MAX), at, text[:MESSAGE_MAX], fingerprint
    )


def parse_alerts(name: str, trigger: WebhookTrigger, body: Any) -> tuple[tuple[str, str], ...]:
    """Parse a request of Alertmanager (webhook, version 4): (identity, message) of each firing alert with the trigger's
    labels, at most MAX_ALERTS.

    The identity is made of fingerprint and startsAt, since Alertmanager repeats alerts, from each replica. Raises
    InvalidEventError.
    """
    body = _require_object("the body", body)
    if body.get("version") != "4":
        raise InvalidEventError(
            f'"version" of the body is {_quote_value(body.get("version"))}; it must be "4" (Alertmanager\'s webhook)'
        )
    entries = body.get("alerts")
    if not isinstance(entries, list):
        raise InvalidEventError('"alerts" of the body must be a list')
    alerts: dict[str, str] = {}
    for index, raw in enumerate(entries):
        alert = _require_object(f"alerts[{index}]", raw)
        labels = _require_object(f"alerts[{index}].labels", alert.get("labels"))
        if alert.get("status") not in ("firing", "resolved"):
            raise InvalidEventError(
                f'alerts[{index}].status is {_quote_value(alert.get("status"))}; it must be "firing" or "resolved"'
            )
        started = _parse_utc_time(_require_text(f"alerts[{index}].startsAt", alert.get("startsAt")))
        if started is None:
            raise InvalidEventError(f"alerts[{index}].startsAt must be a time in RFC 3339")
        fingerprint = _require_text(f"alerts[{index}].fingerprint", alert.get("fingerprint"))
        if alert["status"] != "firing" or not _labels_match(trigger, labels) or len(alerts) == MAX_ALERTS:
            continue
        annotations = alert.get("annotations")
        summary = annotations.get("summary", "") if isinstance(annotations, Mapping) else ""
        text = (
            f"alert {labels.get('alertname', '')} fires since {started.strftime(_RFC3339)} (trigger {name}): {summary}"
        )
        alerts.setdefault(_build_identity(fingerprint, started.isoformat()), _clean_message(text))
    return tuple(alerts.items())


def parse_cloud_event(
    name: str, trigger: WebhookTrigger, headers: Mapping[str, str], body: bytes
) -> tuple[tuple[str, str], ...]:
    """Parse a CloudEvent 1.0: a tuple with its (identity, message), which is empty unless it has the trigger's labels
    as attributes.

    `body`: of the request. In structured mode it is the event, as JSON; in binary mode (headers ce-*) it is not read.
    The identity is made of source and id. Raises InvalidEventError.
    """
    lowered = {str(key).lower(): str(value) for key, value in headers.items()}
    media = lowered.get("content-type", "").partition(";")[0].strip().lower()
    if media.startswith("application/cloudevents-batch"):
        raise InvalidEventError("batches of CloudEvents are not taken: send one event a request")
    if media == "application/cloudevents+json":
        attributes = _require_object("the body", _parse_body(body))
    elif "ce-specversion" in lowered:
        attributes = {
            key.removeprefix("ce-"): unquote(value) for key, value in lowered.items() if key.startswith("ce-")
        }
    else:
        raise InvalidEventError("no CloudEvent: it needs headers ce-*, or Content-Type: application/cloudevents+json")
    if attributes.get("specversion") != "1.0":
        raise InvalidEventError(f'specversion is {_quote_value(attributes.get("specversion"))}; it must be "1.0"')
    source, id_, type_ = (_require_text(key, attributes.get(key)) for key in ("source", "id", "type"))
    if not _labels_match(trigger, attributes):
        return ()
    return ((_build_identity(source, id_), _clean_message(f"event {type_} {id_} of {source} (trigger {name})")),)


def next_firing_time(
    spec: RetrainingPolicySpec,
    status: RetrainingPolicyStatus,
    serving_since: datetime | None,
    created: datetime,
    now: datetime,
) -> datetime | None:
    """Find the next time at which a schedule or age trigger can fire, in UTC; None without such triggers."""
    return min(_iterate_firing_times(spec, status, serving_since, created, now), default=None)


def _iterate_firing_times(
    spec: RetrainingPolicySpec,
    status: RetrainingPolicyStatus,
    serving_since: datetime | None,
    created: datetime,
    now: datetime,
) -> Iterator[datetime]:
    entries = {entry.name: entry for entry in status.triggers}
    for trigger in spec.triggers:
        if trigger.schedule is not None:
            # Handled times are not repeated when the clock is set back.
            handled = _handled_until(entries.get(trigger.name), created)
            time = schedule.next_time(trigger.schedule, max(now, handled))
            if time is not None:
                yield time
        if trigger.age is not None and serving_since is not None:
            count = max(_count_spans(trigger.age, serving_since, now), 0) + 1
            yield serving_since + count * timedelta(seconds=parse_duration(trigger.age.after))


def anchor_schedules(
    spec: RetrainingPolicySpec, status: RetrainingPolicyStatus, since: datetime, now: datetime
) -> RetrainingPolicyStatus:
    """Record in the status the time from which each schedule counts: one that is added or edited has missed nothing,
    nor has one whose trigger had another type. The entry of a former schedule is reset once its trigger has another
    type.

    `since`: time from which schedules without a status count.
    """
    entries = {entry.name: entry for entry in status.triggers}
    for trigger in spec.triggers:
        entry = entries.get(trigger.name)
        if trigger.schedule is None:
            if entry is not None and entry.schedule is not None:
                entries[trigger.name] = TriggerStatus(name=trigger.name)
            continue
        text = f"{trigger.schedule.cron} {trigger.schedule.time_zone}"
        if entry is None:
            entries[trigger.name] = TriggerStatus(name=trigger.name, at=since, schedule=text)
        elif entry.schedule != text:
            # An older operator recorded no schedule: its status shows no edit, but has a time.
            timed = _parse_utc_time(entry.identity) if entry.identity is not None else entry.at
            edited = entry.since if entry.schedule is None and timed is not None else now
            entries[trigger.name] = entry.model_copy(update={"schedule": text, "since": edited})
    return status.model_copy(update={"triggers": tuple(entries.values())})


def _handled_until(entry: TriggerStatus | None, created: datetime) -> datetime:
    """Return the time up to which the times of a schedule were handled."""
    handled = (_parse_utc_time(entry.identity) or entry.at) if entry is not None else None
    since = entry.since if entry is not None else None
    return max(filter(None, (created, handled, since)))


def _count_spans(trigger: AgeTrigger, since: datetime, now: datetime) -> int:
    return (now - since) // timedelta(seconds=parse_duration(trigger.after))


def _parse_age_count(identity: str | None, prefix: str) -> int:
    """Parse n of an age trigger's identity; 0 if it is of another version or time."""
    head, _, tail = (identity or "").rpartition("/")
    return int(tail) if head == prefix and tail.isascii() and tail.isdigit() else 0


def _exact_decimal(value: float) -> Decimal:
    """Convert to the decimal that is displayed: 0.2 is not above "0.2"."""
    return Decimal(repr(value))


def _parse_utc_time(text: str | None) -> datetime | None:
    """Parse a time in RFC 3339, to UTC; None if `text` is no such time."""
    if text is None or "T" not in text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _require_object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidEventError(f"{where} must be a JSON object")
    return value


def _parse_body(body: bytes) -> Any:
    try:
        return untrusted_json.parse_json(body, BODY_BOUNDS)
    except untrusted_json.DocumentError as error:
        raise InvalidEventError(f"the body {_clean_message(str(error))[:200]}") from None


def _require_text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidEventError(f"{where} must be a text of printable characters")
    return value


def _labels_match(trigger: WebhookTrigger, values: Mapping[str, Any]) -> bool:
    return all(_canonical_attribute(values.get(key)) == wanted for key, wanted in trigger.labels.items())


def _canonical_attribute(value: Any) -> str | None:
    """Return the canonical text of an attribute (CloudEvents 1.0, section 3: type system)."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**31) else None


def _build_identity(*parts: str) -> str:
    """Build an identity that is unique for the parts, and readable if they are short."""
    plain = " ".join(parts)
    if len(plain) <= IDENTITY_MAX and not any(" " in part for part in parts):
        return plain
    return short_hash("\0".join(parts), 52)


def _bound_identity(text: str, limit: int) -> str:
    return text if len(text) <= limit else short_hash(text, 52)


def _clean_message(text: str) -> str:
    """Clean a text from outside for a message: one line of bounded length."""
    line = "".join(char if char.isprintable() else " " for char in text[: 2 * MESSAGE_MAX]).strip(" :")
    return line[:MESSAGE_MAX] or "-"


def _quote_value(value: Any) -> str:
    return _clean_message(repr(value))[:64]
