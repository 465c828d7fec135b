"""The conditions of a ModelRollout."""

from __future__ import annotations

from datetime import datetime

from modelwright.api.conditions import Condition, ConditionType, find_condition, with_condition
from modelwright.api.reasons import Reason
from modelwright.core.rollout.record import REVERTED_STATES, RolloutRecord


def build_rollout_conditions(
    record: RolloutRecord, now: datetime, *, is_stuck: bool, evidence: tuple[bool, Reason, str] | None
) -> tuple[Condition, ...]:
    """Ready, Reconciling, Stalled and, for a rollout by a policy, EvidenceAsked.

    `is_stuck`: an active rollout continues only after a user has changed something. `evidence`: status, reason and
    message of EvidenceAsked; None keeps the condition as it is.
    """
    stalled = record.state in REVERTED_STATES or (record.is_active and is_stuck)
    ready, reconciling = not record.is_active and not stalled, record.is_active and not stalled
    reason, message = record.status.reason or str(Reason.ROLLOUT_IN_PROGRESS), record.status.message or ""
    conditions = record.status.conditions
    quiet = (str(Reason.UP_TO_DATE), "")
    known = find_condition(conditions, ConditionType.EVIDENCE_ASKED)
    if known is not None and evidence is None:
        evidence = (known.status == "True", Reason(known.reason), known.message)
    evidence_row = () if evidence is None or record.is_manual else ((ConditionType.EVIDENCE_ASKED, *evidence),)
    rows = (
        (ConditionType.READY, ready, reason, message),
        (ConditionType.RECONCILING, reconciling, *((reason, message) if reconciling else quiet)),
        (ConditionType.STALLED, stalled, *((reason, message) if stalled else quiet)),
        *evidence_row,
    )
    for type_, status, why, text in rows:
        conditions = with_condition(conditions, type_, status, why, text, generation=record.generation, now=now)
    return conditions
