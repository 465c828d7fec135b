"""The input of a rollout decision: a frozen observation of a Model and its children, one per reconciliation."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import ChangeStatus
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.analysis.evidence import Outcome, Verdict
from modelwright.core.approvals import ApprovalDecision
from modelwright.core.commands import CommandDecision
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.pod_failures import PodFailure
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision's pods as its Deployment reports them. `replicas`: of the Deployment's spec, None without one."""

    revision: Revision
    replicas: int | None = None
    pods: int = 0
    """Pods that exist, ready or not, without those that are terminating."""
    ready: int = 0
    available: int = 0
    current: bool = True
    """Whether the Deployment controller has observed the latest spec, so that the counts belong to it."""
    started: datetime | None = None
    failure: PodFailure | None = None

    def has_available(self, replicas: int) -> bool:
        """Whether the Deployment has at least `replicas` available pods."""
        return self.replicas is not None and self.current and self.available >= max(replicas, 0)


@dataclass(frozen=True, slots=True)
class TrafficView:
    """The destinations of requests. `named`: revisions that the Service or the route name now; both of them during a
    switch.

    `confirmed`: the gateway has reported that it follows the latest configuration; without a gateway, it is written.
    """

    named: frozenset[str] = frozenset()
    confirmed: bool = False
    problem: Problem | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    """Percent of the requests by revision hash, as the route or the Service has it, without revisions that get none."""
    matched: str | None = None
    """Hash of the revision that receives the requests with certain headers."""
    mirror: int = 0
    """Percent of the requests that are mirrored to the comparer."""
    sticky: bool = False
    stale_token: bool = False
    """Whether the mirrored requests carry another token than the comparer expects, or none: it rejects them."""


@dataclass(frozen=True, slots=True)
class ServingRevision:
    """The revision last confirmed to take all traffic, and the time of that."""

    revision: Revision
    since: datetime


@dataclass(frozen=True, slots=True)
class RolloutInput:
    """Input of a rollout by a policy, besides pods and traffic.

    `policy` and `steps`: of the record, as of its start; without an active record, those of the next one.
    """

    policy: RolloutPolicySpec
    steps: tuple[RolloutStep, ...]
    record: RolloutRecord | None = None
    next_number: int = 1
    """Number of the next record."""
    problem: Problem | None = None
    """Why no rollout can start with this policy."""
    snapshot_problem: Problem | None = None
    """Why the policy with which the active record started can't be read; no other one takes its place."""
    evidence_condition: tuple[bool, Reason, str] | None = None
    """The condition EvidenceAsked of the policy: status, reason, message; None without a policy."""
    policy_problem: Problem | None = None
    """Same as `problem`, if the content of this policy is the cause."""
    outcome: Outcome | None = None
    """Combined outcome of the metrics of the current step; None if it has none."""
    earlier_outcome: Outcome | None = None
    """Combined outcome of the metrics of the previous step, while the current one has no evidence of its own. Only a
    Fail has an effect."""
    verdicts: tuple[Verdict, ...] = ()
    gates: Mapping[str, GateResult] = field(default_factory=dict)
    """Results of the gates that have ended, by name."""
    report_problem: Problem | None = None
    """Why no report of a Job counts now; None if admission prevents forged ones."""
    changes: tuple[ChangeStatus, ...] | None = None
    """Authors of the changes, to be kept in the status; None if no approval is required: the status keeps its own."""
    approval: ApprovalDecision | None = None
    """Evaluation of the approvals that the current gate or step waits for."""
    command: CommandDecision | None = None
    """Evaluation of the command that was not executed yet."""
    longest_request: timedelta = timedelta(0)
    """Maximum duration of a request to the Model."""
    frozen_until: datetime | None = None
    comparer_ready: bool = False
    replica_weighted: bool = False
    """Whether the share of a revision is its share of the pods, for lack of a gateway."""
    surge: int | None = None
    """Pods allowed in addition to those of the serving revision; None without a limit."""
    rollback_window: frozenset[str] = frozenset()
    """Hashes of the revisions that served before, to which the Model may return without steps."""
    released_by_spec: bool = False
    """Whether spec.version was changed since the manual rollback started."""
    has_policy: bool = True
    """Whether the Model has a policy; a manual rollback needs none."""
    ab_test_won: bool | None = None
    """Whether the candidate has won the A/B test; None before its end."""
    ab_test_message: str = ""
    last_failure: str = ""
    """Last problem in the Model's status."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The whole input of the rollout table."""

    now: datetime
    target: Revision | None
    problem: Problem | None = None
    """Why there is no target, or why it must not be acted upon: a child's name is taken, or the spec is invalid."""
    replicas: int = 1
    """Number of pods that the target needs before it may take traffic."""
    revisions: Mapping[str, RevisionView] = field(default_factory=dict)
    traffic: TrafficView = TrafficView()
    serving: ServingRevision | None = None
    suspended: bool = False
    settle_time: timedelta = timedelta(seconds=5)
    """Time for which an old revision stays after traffic has left it."""
    start_timeout: timedelta = timedelta(minutes=10)
    rollout: RolloutInput | None = None
    """None for a Model without a policy and without a manual rollback."""

    @property
    def record(self) -> RolloutRecord | None:
        """The newest ModelRollout of the Model."""
        return self.rollout.record if self.rollout is not None else None

    @property
    def active_record(self) -> RolloutRecord | None:
        """The newest ModelRollout, if it has not ended."""
        record = self.record
        return record if record is not None and record.is_active else None

    @property
    def target_view(self) -> RevisionView | None:
        """The target's pods; None before its Deployment exists."""
        return self.revisions.get(self.target.hash) if self.target else None

    @property
    def target_ready(self) -> bool:
        """Whether all the pods that the target needs are available."""
        return self.target_view is not None and self.target_view.has_available(self.replicas)

    @property
    def target_serves(self) -> bool:
        """Whether the target was confirmed to take all traffic, and traffic has not moved since."""
        return (
            self.target is not None
            and self.serving is not None
            and self.serving.revision.hash == self.target.hash
            and self.traffic.named == {self.target.hash}
        )

    @property
    def never_served(self) -> bool:
        """Whether no revision was ever confirmed, and none that traffic names has an available pod."""
        named = (self.revisions.get(key) for key in self.traffic.named)
        return self.serving is None and not any(view is not None and view.available for view in named)

    @property
    def fallback_revision(self) -> Revision | None:
        """The serving revision, if requests have to stay with it, or return to it, until the target may take them.

        It is None without a serving revision or its pods' Deployment; if another revision that traffic names has an
        available pod, so that requests would leave pods that answer; and if traffic names another revision while the
        serving one has no available pod, so that requests would go where no pod answers.
        """
        view = self.revisions.get(self.serving.revision.hash) if self.serving is not None else None
        if view is None:
            return None
        others = [self.revisions[key] for key in self.traffic.named - {view.revision.hash} if key in self.revisions]
        return None if others and (not view.available or any(o.available for o in others)) else view.revision

    @property
    def obsolete_revisions(self) -> tuple[Revision, ...]:
        """Revisions with a Deployment that are neither needed nor named by traffic, ordered by hash."""
        kept = set(self.traffic.named)
        if self.active_record is not None:
            kept.update(
                revision.hash
                for revision in (self.active_record.candidate, self.active_record.from_revision)
                if revision is not None
            )
        if self.target is not None and not self.waits_for_retry:
            kept.add(self.target.hash)
        elif self.serving:
            kept.add(self.serving.revision.hash)
        return tuple(view.revision for key, view in sorted(self.revisions.items()) if key not in kept)

    @property
    def waits_for_retry(self) -> bool:
        """Whether the target was rolled back or aborted, and may not be tried again yet."""
        record = self.record
        return (
            record is not None
            and record.waits_for_retry
            and record.candidate is not None
            and self.target is not None
            and record.candidate.hash == self.target.hash
            and (self.serving is None or self.serving.revision.hash != self.target.hash)
        )

    @property
    def traffic_moved_at(self) -> datetime | None:
        """Time since which no traffic reaches the obsolete revisions; None until that is confirmed."""
        if not self.traffic.confirmed or self.serving is None:
            return None
        if self.traffic.named != {self.serving.revision.hash}:
            return None
        record = self.record
        ended = record.status.finished_at if record is not None else None
        return max(self.serving.since, ended or self.serving.since)

    def removable_at(self, revision: Revision) -> datetime | None:
        """Return the time from which an obsolete revision may be removed; None until traffic has left it."""
        if self.traffic_moved_at is None:
            return None
        history = self.serving is not None and self.record is not None and revision == self.record.from_revision
        return self.traffic_moved_at + (self.retention if history else self.settle_time)

    @property
    def retention(self) -> timedelta:
        """Time for which the previous revision stays: keepPrevious of the policy, so that a return is a mere switch."""
        record = self.record
        if self.rollout is None or record is None or record.is_active or record.state is not RolloutState.SUCCEEDED:
            return self.settle_time
        test = self.rollout.policy.strategy.ab_test
        if test is not None and test.loser == "Remove":
            return self.settle_time
        return max(self.settle_time, timedelta(seconds=parse_duration(self.rollout.policy.keep_previous)))


def infer_serving(
    revisions: Mapping[str, RevisionView], targets: frozenset[str], moving_to: Set[str | None]
) -> Revision | None:
    """Infer the serving revision when the Model's status was lost, as after the restore of a backup without statuses.

    It is the one revision with available pods that requests go to, besides those that the Model is `moving_to`
    (hashes). Otherwise a candidate in the middle of its steps would be taken for a first revision, and get all
    requests.
    """
    others = [revisions[key] for key in targets - moving_to if key in revisions]
    return others[0].revision if len(others) == 1 and others[0].has_available(1) else None


def confirm_serving(observed: Observation, record: RolloutRecord | None) -> ServingRevision | None:
    """Determine the serving revision as of this observation. `record`: the newest rollout.

    A revision starts to serve when traffic names it alone, that is confirmed, and its pods are available. It remains
    the serving one, with pods or without, until another takes over.
    """
    if not observed.traffic.confirmed or len(observed.traffic.named) != 1:
        return observed.serving
    is_stepping = record is not None and record.is_active and record.state is not RolloutState.PROMOTING
    if is_stepping and observed.serving is not None:
        # A step may send all requests to the candidate, which serves only once it is promoted.
        return observed.serving
    (key,) = observed.traffic.named
    view = observed.revisions.get(key)
    if view is None or (observed.serving is not None and observed.serving.revision.hash == key):
        return observed.serving
    needed = observed.replicas if observed.target is not None and observed.target.hash == key else 1
    return ServingRevision(view.revision, observed.now) if view.has_available(needed) else observed.serving
