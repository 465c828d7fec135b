"""A rollout is safe and comes to an end, whatever happens in whatever order: the table in a simulated cluster."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.pod_failures import PodFailure
from modelwright.core.revision import Revision
from modelwright.core.rollout.actions import EnsureRevision, RemoveRevision, SetTraffic
from modelwright.core.rollout.machine import decide_actions, determine_state
from modelwright.core.rollout.observation import (
    Observation,
    RevisionView,
    ServingRevision,
    TrafficView,
    confirm_serving,
)

VERSIONS = ["one", "two", "three"]


@dataclass
class SimulatedModel:
    """What the API server and the pods would hold."""

    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    views: dict[str, RevisionView] = field(default_factory=dict)
    named: frozenset[str] = frozenset()
    followed: frozenset[str] = frozenset()
    serving: ServingRevision | None = None
    target: Revision | None = None
    replicas: int = 1
    broken: frozenset[str] = frozenset()


class Rollouts(RuleBasedStateMachine):
    """Versions come and go, pods start, fail and die, the gateway lags, the operator crashes between any two writes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SimulatedModel()
        self.removed_last: list[str] = []

    @initialize(version=st.sampled_from(VERSIONS))
    def ask_for_a_first_version(self, version: str) -> None:
        self.model.target = Revision(version, version)

    @rule(version=st.sampled_from(VERSIONS))
    def ask_for_a_version(self, version: str) -> None:
        self.model.target = Revision(version, version)

    @rule()
    def delete_the_wanted_version(self) -> None:
        self.model.target = None

    @rule(replicas=st.integers(0, 3))
    def scale(self, replicas: int) -> None:
        self.model.replicas = replicas

    @rule(version=st.sampled_from(VERSIONS), broken=st.booleans())
    def break_or_mend(self, version: str, broken: bool) -> None:
        self.model.broken = self.model.broken | {version} if broken else self.model.broken - {version}

    @rule()
    def pods_start(self) -> None:
        for key, view in self.model.views.items():
            good = key not in self.model.broken
            self.model.views[key] = replace(
                view,
                ready=(view.replicas or 0) if good else 0,
                available=(view.replicas or 0) if good else 0,
                current=True,
                failure=None if good else PodFailure("ModelLoadFailed", "broken"),
            )

    @rule(version=st.sampled_from(VERSIONS))
    def pods_die(self, version: str) -> None:
        if version in self.model.views:
            self.model.views[version] = replace(self.model.views[version], ready=0, available=0)

    @rule()
    def gateway_follows(self) -> None:
        self.model.followed = self.model.named

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.model.now += timedelta(seconds=seconds)

    @rule(write=st.integers(0, 4))
    def a_pass_that_crashes_after_some_writes(self, write: int) -> None:
        self.one_pass(crash_after=write)

    @rule()
    def a_pass(self) -> None:
        self.one_pass()

    @precondition(lambda self: self.model.serving is not None)
    @rule()
    def status_is_lost(self) -> None:
        self.model.serving = None

    def observed(self) -> Observation:
        model = self.model
        picture = Observation(
            now=model.now,
            target=model.target,
            replicas=model.replicas,
            revisions=dict(model.views),
            traffic=TrafficView(model.named, confirmed=bool(model.named) and model.followed == model.named),
            serving=model.serving,
        )
        return replace(picture, serving=confirm_serving(picture, picture.record))

    def one_pass(self, crash_after: int | None = None) -> None:
        before = self.observed()
        decision = decide_actions(before)
        assert sum(isinstance(action, SetTraffic) for action in decision.actions) <= 1
        for count, action in enumerate(decision.actions):
            if count == crash_after:
                return
            self.carry_out(action, before)
        self.model.serving = before.serving

    def carry_out(self, action: EnsureRevision | SetTraffic | RemoveRevision, before: Observation) -> None:
        revision = action.split.shares[0].revision if isinstance(action, SetTraffic) else action.revision
        model, key = self.model, revision.hash
        if isinstance(action, EnsureRevision):
            view = model.views.get(key, RevisionView(action.revision, started=model.now, current=False))
            if view.replicas != model.replicas:
                view = replace(
                    view, replicas=model.replicas, current=False, available=min(view.available, model.replicas)
                )
            model.views[key] = view
        elif isinstance(action, SetTraffic):
            others = [view for other, view in model.views.items() if other != key]
            if key not in model.named and any(v.available for v in others if v.revision.hash in model.named):
                assert before.revisions[key].available >= model.replicas, (
                    "traffic left pods that answer for pods that don't"
                )
            model.named = frozenset({key})
        else:
            assert key not in model.named, "a revision was removed that traffic names"
            assert model.target is None or key != model.target.hash, "the wanted revision was removed"
            if before.serving is not None:
                waited = model.now - before.serving.since
                assert waited >= before.settle_time or key not in model.followed, "removed before traffic had settled"
            del model.views[key]
            model.followed -= {key}

    @invariant()
    def traffic_names_at_most_one_revision_and_it_exists(self) -> None:
        assert len(self.model.named) <= 1
        assert self.model.named <= self.model.views.keys()

    @invariant()
    def looking_changes_nothing(self) -> None:
        picture = self.observed()
        assert decide_actions(picture) == decide_actions(picture)
        assert determine_state(picture) == determine_state(picture)

    def teardown(self) -> None:
        """When everything stands still and works, the wanted version serves alone within a few passes."""
        if self.model.target is None:
            return
        self.model.broken = frozenset()
        for _ in range(12):
            self.pods_start()
            self.gateway_follows()
            self.model.now += timedelta(seconds=10)
            self.one_pass()
        end = self.observed()
        assert determine_state(end).state is RolloutState.SUCCEEDED
        assert set(self.model.views) == {self.model.target.hash} == self.model.named


Rollouts.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestRollouts = Rollouts.TestCase
