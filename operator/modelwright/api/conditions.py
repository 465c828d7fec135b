"""The Condition type and the pure functions that read and set conditions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelwright.api.cel import Cut, ListType
from modelwright.api.common import INT64_MAX, StatusText, StatusWire, Timestamp


class ConditionType(StrEnum):
    """Types of conditions; the first three follow kstatus, which GitOps tools and `kubectl wait` understand."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    AVAILABLE = "Available"
    MONITORED = "Monitored"
    """On a Model with spec.monitoring: True while its requests are monitored for drift."""
    VERIFIED = "Verified"
    """On a ModelVersion whose Model has spec.signatures: True when a key of the Model has signed it."""
    DECIDABLE = "Decidable"
    """On a RolloutPolicy: True when the expected requests decide it in time."""
    EVIDENCE_ASKED = "EvidenceAsked"
    """On a RolloutPolicy, its Models and their ModelRollouts: True when anything other than time decides."""
    ENDPOINT_APPLIED = "EndpointApplied"
    """On a Model with requestTimeout or filters of spec.endpoint: True when its route has them."""


class Condition(StatusWire):
    """One aspect of an object's state."""

    type: Annotated[str, Cut(63)] = Field(
        description="Aspect: Ready, Reconciling, Stalled, Available, Monitored, Verified, Decidable, "
        "EvidenceAsked or EndpointApplied."
    )
    status: Annotated[str, Cut(7)] = Field(description="True, False or Unknown.")
    reason: Annotated[str, Cut(63)] = Field(description="Why, as one of the documented reasons.")
    message: StatusText = Field(default="", description="Why, as text; names the field or object concerned.")
    last_transition_time: Timestamp = Field(description="When status last changed, UTC.")
    observed_generation: int = Field(
        default=0, ge=0, le=INT64_MAX, description="metadata.generation that this is about."
    )


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16), ListType("map", ("type",))]


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Return the condition of this type, if there is one."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Return whether the condition of this type exists and its status is True."""
    condition = find_condition(conditions, type_)
    return condition is not None and condition.status == "True"


def with_condition(
    conditions: tuple[Condition, ...],
    type_: str,
    status: bool | None,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """Return `conditions` with this one set in its place; `status` None is Unknown, `now` must have a time zone.

    lastTransitionTime is `now` only when the status changes; otherwise it is kept.
    """
    new_status = "Unknown" if status is None else str(status)
    old = find_condition(conditions, type_)
    new = Condition(
        type=type_,
        status=new_status,
        reason=str(reason),
        message=message,
        last_transition_time=old.last_transition_time if old is not None and old.status == new_status else now,
        observed_generation=generation,
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if condition.type == type_ else condition for condition in conditions)
