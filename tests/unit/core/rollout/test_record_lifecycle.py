"""How records start and end, and what they say of the serving revision: without a simulated cluster."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.rollout import ModelRolloutSpec, ModelRolloutStatus
from modelwright.api.v1alpha1.version import Stage
from modelwright.core.revision import Revision
from modelwright.core.rollout.effective_policy import MANUAL_ROLLBACK_POLICY, resolve_policy
from modelwright.core.rollout.observation import Observation, RevisionView, ServingRevision, TrafficView
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.record_lifecycle import (
    find_failed_stage,
    initialize_record,
    is_released_by_spec,
    serving_after_promotion,
    supersede_record,
)
from tests.lib import objects

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=1)
OLD, NEW = Revision("v1", "old"), Revision("v2", "new")


def record(version: str = "v2", *, created: datetime = EARLIER, rollback: bool = False, **status: Any) -> RolloutRecord:
    author = {"rollback": {"by": "alice", "reason": "because"}} if rollback else {"number": 1}
    spec = {"modelRef": {"name": "digits"}, "target": {"version": version}, **author}
    return RolloutRecord(
        "digits-1", "u1", 1, created, ModelRolloutSpec.model_validate(spec), ModelRolloutStatus.model_validate(status)
    )


def model(version: str = "v2") -> Model:
    raw = objects.model("vision", version=version)
    raw["metadata"] |= {"uid": "m1", "generation": 1, "creationTimestamp": "2026-11-21T10:00:00Z"}
    return Model.parse(raw)


def observation(target: Revision = NEW, serving: Revision = OLD) -> Observation:
    return Observation(
        now=NOW,
        target=target,
        revisions={serving.hash: RevisionView(serving, replicas=1, ready=1, available=1)},
        traffic=TrafficView(frozenset({serving.hash}), confirmed=True),
        serving=ServingRevision(serving, EARLIER),
    )


def test_new_record_starts_pending_with_its_revisions() -> None:
    started = initialize_record(record(), model(), observation(), None)
    assert started is not None
    assert (started.state, started.from_revision, started.candidate) == ("Pending", OLD, NEW)
    assert started.status.held_from is None


def test_record_to_the_serving_revision_has_succeeded() -> None:
    started = initialize_record(record(), model(), observation(target=OLD), None)
    assert started is not None
    assert (started.state, started.status.finished_at) == ("Succeeded", NOW)


def test_manual_rollback_is_released_by_another_spec_version() -> None:
    started = initialize_record(record(rollback=True), model(), observation(), None)
    assert not is_released_by_spec(started, model())
    assert is_released_by_spec(started, model("v3"))


def test_superseded_record_without_status_is_as_old_as_its_object() -> None:
    ended = supersede_record(record(), "digits-2", NOW)
    assert (ended.state, ended.status.started_at, ended.status.finished_at) == ("Superseded", EARLIER, NOW)


@pytest.mark.parametrize(
    ("status", "stage"),
    [
        ({"state": "RolledBack", "reason": "AnalysisFailed"}, Stage.QUARANTINED),
        ({"state": "RolledBack", "reason": "GateFailed"}, Stage.REJECTED),
        ({"state": "RolledBack", "reason": "AnalysisFailed", "retried": True}, None),
        ({"state": "Aborted", "reason": "DeadlineExceeded"}, None),
        ({"state": "Succeeded", "reason": "Promoted"}, None),
    ],
)
def test_failed_stage_follows_from_the_last_rollout(status: dict[str, Any], stage: Stage | None) -> None:
    older = record(created=EARLIER - timedelta(hours=1), state="RolledBack", reason="AnalysisFailed")
    assert find_failed_stage([record(**status), older], "v2") == stage
    assert find_failed_stage([record(**status)], "v3") is None


def test_succeeded_rollout_decides_what_serves_where_the_status_is_older() -> None:
    ended = record(state="Succeeded", finishedAt=NOW, to={"version": "v2", "revision": "new"})
    known = ServingRevision(OLD, EARLIER)
    assert serving_after_promotion(ended, known, frozenset({"new"})) == ServingRevision(NEW, NOW)
    assert serving_after_promotion(ended, known, frozenset({"new", "old"})) == known
    assert serving_after_promotion(ended, replace(known, since=NOW), frozenset({"new"})).revision == OLD


def test_active_record_follows_its_own_policy() -> None:
    own = {"name": "steps", "generation": 1, "spec": {"strategy": {"steps": [{"weight": 5}, {"weight": 100}]}}}
    active = record(state="Progressing", step=1, policy=own)
    policy = resolve_policy(active, None)
    assert [step.weight for step in policy.steps] == [5, 100]
    assert policy.problem is None


def test_active_record_with_an_unreadable_policy_keeps_its_step() -> None:
    broken = {"name": "steps", "generation": 1, "spec": {"strategy": {"steps": "none"}}}
    policy = resolve_policy(record(state="Progressing", step=3, policy=broken), None)
    assert policy.snapshot_problem is not None
    assert policy.snapshot_problem.stalled
    assert len(policy.steps) > 3


def test_without_policy_and_record_the_manual_policy_stands() -> None:
    present: RolloutPolicy | None = None
    assert resolve_policy(None, present).spec is MANUAL_ROLLBACK_POLICY
