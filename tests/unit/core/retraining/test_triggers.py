"""What makes triggers fire, and what is understood of other systems' requests."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.v1alpha1.retraining import (
    DataTrigger,
    PrometheusTrigger,
    RetrainingPolicySpec,
    RetrainingPolicyStatus,
    TriggerStatus,
    WebhookTrigger,
)
from modelwright.core.retraining import triggers
from modelwright.core.retraining.triggers import InvalidEventError

NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UNTIMED = settings(deadline=None, max_examples=300)


def policy(*raw: dict[str, Any]) -> RetrainingPolicySpec:
    run = {
        "dataset": {"uri": "s3://data/digits/"},
        "train": {"job": {"template": {}}},
        "output": {"uri": "s3://models/digits", "format": {"name": "sklearn"}},
    }
    return RetrainingPolicySpec.model_validate({"modelRef": {"name": "digits"}, "triggers": list(raw), "run": run})


def status(*entries: dict[str, Any]) -> RetrainingPolicyStatus:
    return RetrainingPolicyStatus.model_validate({"triggers": list(entries)})


def daily(**more: Any) -> dict[str, Any]:
    return {"name": "daily", "schedule": {"cron": "0 3 * * *", **more}}


@pytest.mark.parametrize(
    ("entry", "created", "fires"),
    [
        (None, NOW - 3 * HOUR, []),
        (None, NOW - 10 * HOUR, ["2026-11-04T03:00:00Z"]),
        ({"name": "daily", "identity": "2026-11-04T03:00:00Z"}, NOW - 900 * HOUR, []),
        (
            {"name": "daily", "identity": "2026-11-02T03:00:00Z"},
            NOW - 900 * HOUR,
            ["2026-11-03T03:00:00Z", "2026-11-04T03:00:00Z"],
        ),
        # The status of the policy before it was restored says less than its own beginning.
        ({"name": "daily", "identity": "2026-10-02T03:00:00Z"}, NOW - 3 * HOUR, []),
        ({"name": "daily", "at": "2026-11-04T02:00:00Z"}, NOW - 900 * HOUR, ["2026-11-04T03:00:00Z"]),
        ({"name": "daily", "identity": "what is this"}, NOW - 10 * HOUR, ["2026-11-04T03:00:00Z"]),
        ({"name": "daily", "identity": "2027-01-01T03:00:00Z"}, NOW - 900 * HOUR, []),
    ],
)
def test_times_count_from_handled_one_and_policy_creation(
    entry: dict[str, Any] | None, created: datetime, fires: list[str]
) -> None:
    known = status(entry) if entry is not None else status()
    result = triggers.fire_schedules(policy(daily(catchUp="All")), known, created, NOW)
    assert [firing.identity for firing in result] == fires
    assert all(firing.at.strftime("%Y-%m-%dT%H:%M:%SZ") == firing.identity and firing.waits for firing in result)


def test_times_of_several_schedules_come_in_their_order() -> None:
    spec = policy(daily(catchUp="All"), {"name": "hourly", "schedule": {"cron": "0 */12 * * *", "catchUp": "All"}})
    result = triggers.fire_schedules(spec, status(), NOW - 24 * HOUR, NOW)
    assert [firing.trigger for firing in result] == ["hourly", "daily", "hourly"]


@pytest.mark.parametrize(
    ("hours", "identity", "fires"),
    [
        (9.99, None, None),
        (10, None, "digits-1/2026-11-01T00:00:00Z/1"),
        (10, "digits-1/2026-11-01T00:00:00Z/1", None),
        (19, "digits-1/2026-11-01T00:00:00Z/1", None),
        (20, "digits-1/2026-11-01T00:00:00Z/1", "digits-1/2026-11-01T00:00:00Z/2"),
        (55, "digits-1/2026-11-01T00:00:00Z/1", "digits-1/2026-11-01T00:00:00Z/5"),
        (10, "digits-0/2026-10-01T00:00:00Z/7", "digits-1/2026-11-01T00:00:00Z/1"),
        # The clock went back.
        (20, "digits-1/2026-11-01T00:00:00Z/5", None),
        (-3, None, None),
    ],
)
def test_age_fires_once_for_each_span_that_the_version_has_served(
    hours: float, identity: str | None, fires: str | None
) -> None:
    spec = policy({"name": "old", "age": {"after": "10h"}})
    since = datetime(2026, 11, 1, tzinfo=UTC)
    known = status({"name": "old", "identity": identity}) if identity else status()
    result = triggers.fire_ages(spec, known, "digits-1", since, since + hours * HOUR)
    assert [firing.identity for firing in result] == ([fires] if fires else [])


def test_without_a_serving_version_nothing_is_old() -> None:
    spec = policy({"name": "old", "age": {"after": "10h"}})
    assert triggers.fire_ages(spec, status(), None, None, NOW) == ()
    assert triggers.next_firing_time(spec, status(), None, NOW, NOW) is None


def test_a_long_name_of_a_version_is_hashed_and_still_counted() -> None:
    spec, name, since = policy({"name": "old", "age": {"after": "10h"}}), "v" * 253, NOW - 25 * HOUR
    (firing,) = triggers.fire_ages(spec, status(), name, since, NOW)
    assert len(firing.identity) <= 253
    known = status({"name": "old", "identity": firing.identity})
    assert triggers.fire_ages(spec, known, name, since, NOW) == ()
    assert len(triggers.fire_ages(spec, known, name, since, NOW + 10 * HOUR)) == 1


@pytest.mark.parametrize(
    ("limit", "values", "rows"),
    [
        ({"above": "0.2"}, [0.3, 0.3, 0.3], [1, 2, 3]),
        ({"above": "0.2"}, [0.3, 0.2, 0.3], [1, 0, 1]),
        ({"above": "0.2"}, [0.3, None, 0.3], [1, 0, 1]),
        ({"above": "0.2"}, [0.3, math.nan, 0.3], [1, 0, 1]),
        ({"above": "0.2"}, [math.inf, -math.inf], [1, 0]),
        ({"below": "0.9"}, [0.8, 0.9, -1], [1, 0, 1]),
        ({"below": "0"}, [0.0, -0.0, -1e-300], [0, 0, 1]),
    ],
)
def test_value_without_an_answer_restarts_the_breach_streak(
    limit: dict[str, str], values: list[float | None], rows: list[int]
) -> None:
    trigger = PrometheusTrigger.model_validate({"query": "drift", **limit})
    row, result = 0, []
    for value in values:
        row = triggers.update_breach_streak(trigger, row, value)
        result.append(row)
    assert result == rows


def test_firing_of_a_query_has_value_limit_and_count() -> None:
    trigger = PrometheusTrigger.model_validate({"query": "drift", "above": "0.2", "consecutive": 2})
    assert [triggers.is_breached(trigger, row) for row in (0, 1, 2, 3)] == [False, False, True, True]
    firing = triggers.fire_breach("drift", trigger, 0.31, 4, NOW)
    assert (firing.identity, firing.kind) == ("4", "prometheus")
    assert firing.message == "the query returned 0.31, above 0.2, 2 consecutive times"


def test_only_a_fingerprint_after_the_first_fires() -> None:
    trigger = DataTrigger.model_validate({"uri": "s3://data/digits/"})

    def last(identity: str | None, at: datetime = NOW) -> TriggerStatus:
        return TriggerStatus(name="new", identity=identity, at=at)

    assert triggers.fire_data_change("new", trigger, "a", None, NOW) is None
    assert triggers.fire_data_change("new", trigger, "a", last(None), NOW) is None
    assert triggers.fire_data_change("new", trigger, "a", last("a"), NOW) is None
    firing = triggers.fire_data_change("new", trigger, "b", last("a"), NOW)
    assert firing is not None
    assert (firing.kind, firing.fingerprint, firing.at) == ("data", "b", NOW)
    assert firing == triggers.fire_data_change("new", trigger, "b", last("a"), NOW), "the same cause, whoever looks"
    again = triggers.fire_data_change("new", trigger, "b", last("a", NOW + timedelta(hours=1)), NOW)
    assert again is not None
    assert again.identity != firing.identity, "data that changes and comes back is another cause"
    long = triggers.fire_data_change("new", trigger, "x" * 300, last("a"), NOW)
    assert long is not None
    assert long.fingerprint is not None
    assert max(len(long.identity), len(long.fingerprint)) <= 253
    assert triggers.fire_data_change("new", trigger, "x" * 300, last(long.fingerprint), NOW) is None


@pytest.mark.parametrize(
    ("raw", "now", "then"),
    [
        ([daily()], NOW, datetime(2026, 11, 5, 3, tzinfo=UTC)),
        ([daily(), {"name": "old", "age": {"after": "10h"}}], NOW, datetime(2026, 11, 4, 20, tzinfo=UTC)),
        ([{"name": "old", "age": {"after": "10h"}}], NOW + 30 * HOUR, datetime(2026, 11, 6, 2, tzinfo=UTC)),
        ([{"name": "new", "data": {"uri": "s3://data/digits/"}}], NOW, None),
        ([daily(timeZone="Europe/Atlantis")], NOW, None),
    ],
)
def test_the_next_look_is_the_first_time_that_something_can_fire(
    raw: list[dict[str, Any]], now: datetime, then: datetime | None
) -> None:
    since = datetime(2026, 11, 4, 10, tzinfo=UTC)
    assert triggers.next_firing_time(policy(*raw), status(), since, NOW - 900 * HOUR, now) == then


def hook(source: str = "Alertmanager", **labels: str) -> WebhookTrigger:
    return WebhookTrigger.model_validate({"source": source, "labels": labels})


def alert(**more: Any) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "Drift", "model": "digits"},
        "annotations": {"summary": "inputs have moved"},
        "startsAt": "2026-11-04T10:00:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "c0ffee",
        **more,
    }


def body(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "receiver": "retrain", "alerts": list(entries), **more}


def test_an_alert_that_several_replicas_repeat_is_one() -> None:
    again = alert(startsAt="2026-11-04T11:00:00.123456+01:00", annotations={})
    result = triggers.parse_alerts("drift", hook(), body(alert(), alert(), again))
    assert result == (
        (
            "c0ffee 2026-11-04T10:00:00.123456+00:00",
            "alert Drift fires since 2026-11-04T10:00:00Z (trigger drift): inputs have moved",
        ),
    )


@pytest.mark.parametrize(
    ("entry", "labels", "taken"),
    [
        (alert(), {}, 1),
        (alert(), {"model": "digits"}, 1),
        (alert(), {"model": "other"}, 0),
        (alert(), {"team": ""}, 0),
        (alert(status="resolved"), {}, 0),
        (alert(annotations=None), {}, 1),
    ],
)
def test_alerts_that_fire_and_have_the_labels_are_taken(entry: Any, labels: dict[str, str], taken: int) -> None:
    assert len(triggers.parse_alerts("drift", hook(**labels), body(entry))) == taken


def test_other_start_is_another_alert_and_a_hundred_are_accepted() -> None:
    many = [alert(startsAt=f"2026-11-04T10:{n // 60:02}:{n % 60:02}Z") for n in range(150)]
    result = triggers.parse_alerts("drift", hook(), body(*many))
    assert len({identity for identity, _ in result}) == len(result) == 100


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "the body must be a JSON object"),
        ({}, '"version" of the body'),
        (body() | {"version": "5"}, 'it must be "4"'),
        (body() | {"alerts": {}}, '"alerts" of the body must be a list'),
        (body("x"), "alerts[0] must be a JSON object"),
        (body(alert(labels=None)), "alerts[0].labels"),
        (body(alert(status="on")), "alerts[0].status"),
        (body(alert(startsAt="yesterday")), "alerts[0].startsAt must be a time"),
        (body(alert(startsAt="2026-11-04T10:00:00")), "alerts[0].startsAt must be a time"),
        (body(alert(startsAt="0001-01-01T00:00:00+14:00")), "alerts[0].startsAt must be a time"),
        (body(alert(), alert(fingerprint="")), "alerts[1].fingerprint"),
        (body(alert(fingerprint="\ud800")), "alerts[0].fingerprint"),
    ],
)
def test_invalid_alertmanager_request_is_refused_by_member(raw: Any, message: str) -> None:
    with pytest.raises(InvalidEventError, match=message.replace("[", r"\[").replace(".", r"\.")):
        triggers.parse_alerts("drift", hook(), raw)


EVENT = {"specversion": "1.0", "id": "7", "source": "/data/digits", "type": "dev.data.landed", "rows": 12, "last": True}
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}


def binary(**more: str) -> dict[str, str]:
    return {"Ce-Specversion": "1.0", "ce-id": "7", "CE-Source": "/data/digits", "ce-type": "dev.data.landed", **more}


def test_an_event_is_the_same_one_in_both_modes() -> None:
    structured = triggers.parse_cloud_event("landed", hook("CloudEvents"), STRUCTURED, json.dumps(EVENT).encode())
    assert structured == triggers.parse_cloud_event("landed", hook("CloudEvents"), binary(), b"\x00 no JSON")
    assert structured == (("/data/digits 7", "event dev.data.landed 7 of /data/digits (trigger landed)"),)


@pytest.mark.parametrize(
    ("labels", "taken"),
    [({"type": "dev.data.landed"}, 1), ({"rows": "12", "last": "true"}, 1), ({"type": "other"}, 0), ({"team": ""}, 0)],
)
def test_events_with_the_attributes_are_taken(labels: dict[str, str], taken: int) -> None:
    assert (
        len(triggers.parse_cloud_event("landed", hook("CloudEvents", **labels), STRUCTURED, json.dumps(EVENT).encode()))
        == taken
    )


def test_source_and_id_make_the_identity_however_they_are_cut() -> None:
    pairs = [("a b", "c"), ("a", "b c"), ("a", "b"), ("x" * 300, "1"), ("x" * 300, "2")]
    result = {
        triggers.parse_cloud_event(
            "e", hook("CloudEvents"), STRUCTURED, json.dumps({**EVENT, "source": s, "id": i}).encode()
        )[0][0]
        for s, i in pairs
    }
    assert len(result) == len(pairs)
    assert all(len(identity) <= 253 for identity in result)


@pytest.mark.parametrize(
    ("headers", "raw", "message"),
    [
        ({}, b"{}", "no CloudEvent"),
        (STRUCTURED, b"", "the body is no JSON"),
        (STRUCTURED, b"[" * 100000, "the body is no JSON"),
        (STRUCTURED, b"[]", "the body must be a JSON object"),
        (STRUCTURED, b"{}", "specversion is None"),
        (STRUCTURED, json.dumps({**EVENT, "id": 7}).encode(), "id must be a text"),
        (STRUCTURED, json.dumps({**EVENT, "source": ""}).encode(), "source must be a text"),
        ({"Content-Type": "application/cloudevents-batch+json"}, b"[]", "batches"),
        ({"ce-specversion": "0.3"}, b"", 'specversion is .* it must be "1.0"'),
        (binary(**{"ce-id": "%00"}), b"", "id must be a text"),
    ],
)
def test_invalid_event_is_refused_naming_the_attribute(headers: dict[str, str], raw: bytes, message: str) -> None:
    with pytest.raises(InvalidEventError, match=message):
        triggers.parse_cloud_event("landed", hook("CloudEvents"), headers, raw)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


def almost(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A good request with any of its members replaced by anything."""
    return st.dictionaries(st.sampled_from(sorted(whole)), JSON, max_size=3).map(lambda wrong: {**whole, **wrong})


@given(st.one_of(JSON, almost(body(alert())), almost(alert()).map(lambda entry: body(entry))))
@UNTIMED
def test_any_alerts_are_parsed_or_refused(raw: Any) -> None:
    try:
        result = triggers.parse_alerts("drift", hook(model="digits"), raw)
    except InvalidEventError:
        return
    sound(result)


@given(
    st.dictionaries(st.sampled_from(["content-type", *binary()]), ANY_TEXT, max_size=4).map(lambda w: {**binary(), **w})
    | st.just(STRUCTURED),
    st.binary(max_size=50) | st.one_of(JSON, almost(EVENT)).map(lambda raw: json.dumps(raw).encode()),
)
@UNTIMED
def test_any_event_is_parsed_or_refused(headers: dict[str, str], raw: bytes) -> None:
    try:
        result = triggers.parse_cloud_event("landed", hook("CloudEvents"), headers, raw)
    except InvalidEventError:
        return
    sound(result)


def sound(result: tuple[tuple[str, str], ...]) -> None:
    for identity, message in result:
        assert 0 < len(identity) <= 253
        assert 0 < len(message) <= 1024
        (identity + message).encode()
