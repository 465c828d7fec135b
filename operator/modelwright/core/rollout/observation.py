"""What a rollout decision is made from: one frozen picture of a Model and its children, gathered once a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import ChangeStatus
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.analysis.evidence import Outcome, Verdict
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.people import ApprovalDecision, CommandDecision
from modelwright.core.pod_failures import PodFailure
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision's pods as its Deployment reports them. `replicas`: what the Deployment asks for, None without one."""

    revision: Revision
    replicas: int | None = None
    pods: int = 0
    """Pods that exist, ready or not; those that are ending don't count."""
    ready: int = 0
    available: int = 0
    current: bool = True
    """The Deployment controller has seen the latest spec, so the counts speak of it."""
    started: datetime | None = None
    failure: PodFailure | None = None

    def has_available(self, replicas: int) -> bool:
        """All of at least `replicas` pods answer."""
        return self.replicas is not None and self.current and self.available >= max(replicas, 0)


@dataclass(frozen=True, slots=True)
class TrafficView:
    """Where requests go. `named`: revisions that the Service or the route name now (both, in the middle of a switch).

    `confirmed`: the gateway was seen to follow the latest configuration; without a gateway, that it is written.
    """

    named: frozenset[str] = frozenset()
    confirmed: bool = False
    problem: Problem | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    """Percent of the requests by revision hash, as the route or the Service has it; absent means none."""
    matched: str | None = None
    """The revision that requests with certain headers go to."""
    mirror: int = 0
    """Percent of the requests that is copied to the comparer."""
    sticky: bool = False
    stale_token: bool = False
    """The copies for the comparer carry another token than it asks for, or none: it refuses them."""


@dataclass(frozen=True, slots=True)
class ServingRevision:
    """The revision last confirmed to take all traffic, and since when."""

    revision: Revision
    since: datetime


@dataclass(frozen=True, slots=True)
class RolloutInput:
    """What a policy-led rollout is decided from, beside pods and traffic.

    `policy` and `steps` are the record's own as it began; without a live record, those that the next would have.
    """

    policy: RolloutPolicySpec
    steps: tuple[RolloutStep, ...]
    record: RolloutRecord | None = None
    next_number: int = 1
    """Number of the next record."""
    problem: Problem | None = None
    """Why no rollout can begin by this policy."""
    snapshot_problem: Problem | None = None
    """Why the policy that the live record began with can't be read: it goes on by no other."""
    evidence_condition: tuple[bool, Reason, str] | None = None
    """Whether the policy asks for evidence, and which; None without a policy."""
    policy_problem: Problem | None = None
    """The same as `problem`, where the cause is what this very policy asks for."""
    outcome: Outcome | None = None
    """What the metrics of the present step come to; None when none is asked for in it."""
    earlier_outcome: Outcome | None = None
    """What the metrics of the step before come to, while the present one has no evidence of its own; only a Fail is
    acted on."""
    verdicts: tuple[Verdict, ...] = ()
    gates: Mapping[str, GateResult] = field(default_factory=dict)
    """What gates came to that have ended; a gate that runs is not among them."""
    report_problem: Problem | None = None
    """Why no report of a Job counts now; None when admission keeps others from forging one."""
    changes: tuple[ChangeStatus, ...] | None = None
    """Who has changed what, to remember it; None when no approval is asked for, and what is known stays."""
    approval: ApprovalDecision | None = None
    """What people say to the approval that is waited for now."""
    command: CommandDecision | None = None
    """A command that was not taken up yet."""
    longest_request: timedelta = timedelta(0)
    """How long a request of the Model may take."""
    frozen_until: datetime | None = None
    comparer_ready: bool = False
    replica_weighted: bool = False
    """Without a gateway: the share of a revision is its share of the pods."""
    surge: int | None = None
    """Pods allowed beyond those that serve; None without a bound."""
    rollback_window: frozenset[str] = frozenset()
    """Revisions that served before, to which the Model may go back without steps."""
    released_by_spec: bool = False
    """spec.version was changed since the rollback by hand began."""
    has_policy: bool = True
    """Whether the Model has a policy; a rollback by hand needs none."""
    ab_test_won: bool | None = None
    """Whether the candidate has won the A/B test; None before its end."""
    ab_test_message: str = ""
    last_failure: str = ""
    """What the Model's status last said was in the way."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The whole input of `determine` and `decide`."""

    now: datetime
    target: Revision | None
    problem: Problem | None = None
    """Why there is no target, or why it must not be acted upon (a child's name is taken, the spec is refused)."""
    replicas: int = 1
    """Pods that the target needs before it may take traffic."""
    revisions: Mapping[str, RevisionView] = field(default_factory=dict)
    traffic: TrafficView = TrafficView()
    serving: ServingRevision | None = None
    suspended: bool = False
    settle_time: timedelta = timedelta(seconds=5)
    """How long an old revision stays after traffic has left it."""
    start_timeout: timedelta = timedelta(minutes=10)
    rollout: RolloutInput | None = None
    """None for a Model that moves without a policy and was never taken back by hand."""

    @property
    def record(self) -> RolloutRecord | None:
        """The newest ModelRollout of this Model."""
        return self.rollout.record if self.rollout is not None else None

    @property
    def active_record(self) -> RolloutRecord | None:
        """The ModelRollout that goes on, if one does."""
        record = self.record
        return record if record is not None and record.is_active else None

    @property
    def target_view(self) -> RevisionView | None:
        """The target's pods, None before they were asked for."""
        return self.revisions.get(self.target.hash) if self.target else None

    @property
    def target_ready(self) -> bool:
        """The target's pods answer, all that it needs."""
        return self.target_view is not None and self.target_view.has_available(self.replicas)

    @property
    def target_serves(self) -> bool:
        """The target was confirmed to take all traffic, and nothing has moved since."""
        return (
            self.target is not None
            and self.serving is not None
            and self.serving.revision.hash == self.target.hash
            and self.traffic.named == {self.target.hash}
        )

    @property
    def never_served(self) -> bool:
        """No revision was ever confirmed, and none that traffic names has a pod that answers."""
        named = (self.revisions.get(key) for key in self.traffic.named)
        return self.serving is None and not any(view is not None and view.available for view in named)

    @property
    def fallback_revision(self) -> Revision | None:
        """The revision that serves, when requests have to stay with it, or come back to it, until the target may take
        them. None when that would move requests from pods that answer, or to where none do."""
        view = self.revisions.get(self.serving.revision.hash) if self.serving is not None else None
        if view is None:
            return None
        others = [self.revisions[key] for key in self.traffic.named - {view.revision.hash} if key in self.revisions]
        return None if others and (not view.available or any(o.available for o in others)) else view.revision

    @property
    def obsolete_revisions(self) -> tuple[Revision, ...]:
        """Revisions with pods that are neither wanted nor named by traffic, in a fixed order."""
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
        """The target was rolled back or aborted, and nothing has let it be tried again."""
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
        """Since when traffic has been away from what is left over; None while it isn't confirmed to be."""
        if not self.traffic.confirmed or self.serving is None:
            return None
        if self.traffic.named != {self.serving.revision.hash}:
            return None
        record = self.record
        ended = record.status.finished_at if record is not None else None
        return max(self.serving.since, ended or self.serving.since)

    def removable_at(self, revision: Revision) -> datetime | None:
        """When a revision that is left over may go; None while traffic isn't confirmed to be elsewhere."""
        if self.traffic_moved_at is None:
            return None
        history = self.serving is not None and self.record is not None and revision == self.record.from_revision
        return self.traffic_moved_at + (self.retention if history else self.settle_time)

    @property
    def retention(self) -> timedelta:
        """How long revisions that are left over stay: the previous one for keepPrevious of a policy, so that going back
        is a switch."""
        record = self.record
        if self.rollout is None or record is None or record.is_active or record.state is not RolloutState.SUCCEEDED:
            return self.settle_time
        test = self.rollout.policy.strategy.ab_test
        if test is not None and test.loser == "Remove":
            return self.settle_time
        return max(self.settle_time, timedelta(seconds=parse_duration(self.rollout.policy.keep_previous)))


def infer_serving(observed: Observation, candidate: str | None) -> Revision | None:
    """Who serves where the Model's status does not say it any more, as after the restore of a backup without status:
    the one revision whose pods answer that traffic names beside the target and the `candidate` of the newest record.
    Otherwise a candidate in the middle of its steps would be taken for a first revision, and get all requests."""
    moving_to = {candidate, observed.target.hash if observed.target is not None else None}
    others = [observed.revisions[key] for key in observed.traffic.named - moving_to if key in observed.revisions]
    return others[0].revision if len(others) == 1 and others[0].has_available(1) else None


def confirm_serving(observed: Observation) -> ServingRevision | None:
    """Who serves, as of this picture: a revision begins to serve when traffic names it alone, that is confirmed, and
    its pods answer. It goes on being the one that serves, with pods or without, until another takes over."""
    if not observed.traffic.confirmed or len(observed.traffic.named) != 1:
        return observed.serving
    if (
        observed.active_record is not None
        and observed.active_record.state is not RolloutState.PROMOTING
        and observed.serving is not None
    ):
        # A step may send everything to the candidate: it serves once it is promoted.
        return observed.serving
    (key,) = observed.traffic.named
    view = observed.revisions.get(key)
    if view is None or (observed.serving is not None and observed.serving.revision.hash == key):
        return observed.serving
    needed = observed.replicas if observed.target is not None and observed.target.hash == key else 1
    return ServingRevision(view.revision, observed.now) if view.has_available(needed) else observed.serving
