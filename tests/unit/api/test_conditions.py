"""Conditions move their time only with their status, and what is written is read back the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelwright.api.conditions import Condition, find_condition, is_true, with_condition
from modelwright.api.reasons import Reason

NOW = datetime(2026, 11, 21, 3, 0, 0, 999999, tzinfo=UTC)
TYPES = ["Ready", "Reconciling", "Stalled", "Available"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TYPES), st.sampled_from([True, False, None]), st.sampled_from(list(Reason)), st.text()
        ),
        max_size=12,
    )
)
def test_time_moves_only_with_status(changes: list[tuple[str, bool | None, Reason, str]]) -> None:
    conditions: tuple[Condition, ...] = ()
    for step, (type_, status, reason, message) in enumerate(changes):
        now = NOW + timedelta(seconds=step)
        before = find_condition(conditions, type_)
        conditions = with_condition(conditions, type_, status, reason, message, generation=step, now=now)
        after = find_condition(conditions, type_)
        assert after is not None
        assert (after.reason, after.observed_generation) == (reason.value, step)
        if before is not None and before.status == after.status:
            assert after.last_transition_time == before.last_transition_time
        else:
            assert after.last_transition_time == now.replace(microsecond=0)
    assert len({condition.type for condition in conditions}) == len(conditions)


def test_setting_an_equal_condition_changes_nothing() -> None:
    once = with_condition((), "Ready", True, Reason.SERVING, "x", generation=1, now=NOW)
    again = with_condition(once, "Ready", True, Reason.SERVING, "x", generation=1, now=NOW + timedelta(hours=1))
    assert once == again


def test_order_is_kept() -> None:
    conditions: tuple[Condition, ...] = ()
    for type_ in TYPES:
        conditions = with_condition(conditions, type_, type_ == "Ready", "Serving", "", generation=1, now=NOW)
    changed = with_condition(conditions, "Reconciling", True, "WaitingForPods", "", generation=2, now=NOW)
    assert [condition.type for condition in changed] == TYPES
    assert is_true(changed, "Ready")
    assert not is_true(changed, "Stalled")
    assert not is_true(changed, "NoSuchType")


def test_written_objects_are_read_back() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5)))
    (condition,) = with_condition((), "Ready", None, Reason.SERVING, "x", generation=3, now=east)
    wire = condition.wire()
    assert wire == {
        "type": "Ready",
        "status": "Unknown",
        "reason": "Serving",
        "message": "x",
        "lastTransitionTime": "2026-11-21T03:00:00Z",
        "observedGeneration": 3,
    }
    assert Condition.model_validate(wire) == condition


def test_a_long_message_is_cut_instead_of_refused() -> None:
    (condition,) = with_condition((), "Ready", False, Reason.MODEL_LOAD_FAILED, "x" * 9999, generation=1, now=NOW)
    assert len(condition.message) == 4096
    assert condition.message.endswith("…")


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="time zone"):
        with_condition((), "Ready", True, Reason.SERVING, "", generation=1, now=datetime(2026, 1, 1))


def test_every_reason_is_documented_and_unique() -> None:
    assert len({reason.value for reason in Reason}) == len(Reason)
    assert len({reason.doc for reason in Reason}) == len(Reason)
    for reason in Reason:
        assert reason.doc.endswith("."), reason
        assert reason.value.isalnum(), reason
        assert reason.value[0].isupper(), reason
        assert reason.name.replace("_", "").lower() == reason.value.lower()
