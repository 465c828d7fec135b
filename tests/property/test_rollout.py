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
class World:
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
        self.world = World()
        self.removed_last: list[str] = []

    @initialize(version=st.sampled_from(VERSIONS))
    def ask_for_a_first_version(self, version: str) -> None:
        self.world.target = Revision(version, version)

    @rule(version=st.sampled_from(VERSIONS))
    def ask_for_a_version(self, version: str) -> None:
        self.world.target = Revision(version, version)

    @rule()
    def delete_the_wanted_version(self) -> None:
        self.world.target = None

    @rule(replicas=st.integers(0, 3))
    def scale(self, replicas: int) -> None:
        self.world.replicas = replicas

    @rule(version=st.sampled_from(VERSIONS), broken=st.booleans())
    def break_or_mend(self, version: str, broken: bool) -> None:
        self.world.broken = self.world.broken | {version} if broken else self.world.broken - {version}

    @rule()
    def pods_start(self) -> None:
        for key, view in self.world.views.items():
            good = key not in self.world.broken
            self.world.views[key] = replace(
                view,
                ready=(view.replicas or 0) if good else 0,
                available=(view.replicas or 0) if good else 0,
                current=True,
                failure=None if good else PodFailure("ModelLoadFailed", "broken"),
            )

    @rule(version=st.sampled_from(VERSIONS))
    def pods_die(self, version: str) -> None:
        if version in self.world.views:
            self.world.views[version] = replace(self.world.views[version], ready=0, available=0)

    @rule()
    def gateway_follows(self) -> None:
        self.world.followed = self.world.named

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule(write=st.integers(0, 4))
    def a_pass_that_crashes_after_some_writes(self, write: int) -> None:
        self.one_pass(crash_after=write)

    @rule()
    def a_pass(self) -> None:
        self.one_pass()

    @precondition(lambda self: self.world.serving is not None)
    @rule()
    def status_is_lost(self) -> None:
        self.world.serving = None

    def observed(self) -> Observation:
        world = self.world
        picture = Observation(
            now=world.now,
            target=world.target,
            replicas=world.replicas,
            revisions=dict(world.views),
            traffic=TrafficView(world.named, confirmed=bool(world.named) and world.followed == world.named),
            serving=world.serving,
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
        self.world.serving = before.serving

    def carry_out(self, action: EnsureRevision | SetTraffic | RemoveRevision, before: Observation) -> None:
        revision = action.split.shares[0].revision if isinstance(action, SetTraffic) else action.revision
        world, key = self.world, revision.hash
        if isinstance(action, EnsureRevision):
            view = world.views.get(key, RevisionView(action.revision, started=world.now, current=False))
            if view.replicas != world.replicas:
                view = replace(
                    view, replicas=world.replicas, current=False, available=min(view.available, world.replicas)
                )
            world.views[key] = view
        elif isinstance(action, SetTraffic):
            others = [view for other, view in world.views.items() if other != key]
            if key not in world.named and any(v.available for v in others if v.revision.hash in world.named):
                assert before.revisions[key].available >= world.replicas, (
                    "traffic left pods that answer for pods that don't"
                )
            world.named = frozenset({key})
        else:
            assert key not in world.named, "a revision was removed that traffic names"
            assert world.target is None or key != world.target.hash, "the wanted revision was removed"
            if before.serving is not None:
                waited = world.now - before.serving.since
                assert waited >= before.settle_time or key not in world.followed, "removed before traffic had settled"
            del world.views[key]
            world.followed -= {key}

    @invariant()
    def traffic_names_at_most_one_revision_and_it_exists(self) -> None:
        assert len(self.world.named) <= 1
        assert self.world.named <= self.world.views.keys()

    @invariant()
    def looking_changes_nothing(self) -> None:
        picture = self.observed()
        assert decide_actions(picture) == decide_actions(picture)
        assert determine_state(picture) == determine_state(picture)

    def teardown(self) -> None:
        """When everything stands still and works, the wanted version serves alone within a few passes."""
        if self.world.target is None:
            return
        self.world.broken = frozenset()
        for _ in range(12):
            self.pods_start()
            self.gateway_follows()
            self.world.now += timedelta(seconds=10)
            self.one_pass()
        end = self.observed()
        assert determine_state(end).state is RolloutState.SUCCEEDED
        assert set(self.world.views) == {self.world.target.hash} == self.world.named


Rollouts.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestRollouts = Rollouts.TestCase
