"""Retraining neither spins nor doubles, whatever happens in whatever order: guards over streams of triggers, and the
table of runs in a simulated cluster."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelwright.api.common import parse_duration
from modelwright.api.v1alpha1.retraining import Guard, RetrainingPolicySpec, RetrainingPolicyStatus, TriggerStatus
from modelwright.api.v1alpha1.training import RunState, StageState
from modelwright.core.problem import Problem
from modelwright.core.retraining import throttle, triggers
from modelwright.core.retraining.run_actions import RegisterVersion, ResolveData, RunDecision, StartStage, StopStage
from modelwright.core.retraining.run_machine import decide_run
from modelwright.core.retraining.run_observation import (
    RUN_TERMINAL_STATES,
    ChildRef,
    ResolvedData,
    RunObservation,
    current_stage,
)
from modelwright.core.retraining.stage_reading import ENDED_STAGE_STATES, StageReading
from modelwright.core.retraining.throttle import AlreadyStarted, PolicyRun, StartRun, SuppressFiring
from modelwright.core.retraining.triggers import Firing
from tests.unit.core.retraining.builders import DIGEST, NOW, REPORTS, policy, run

REASONS = {"Suspended", "BackingOff", "Cooldown", "MaxRuns", "RunActive", "QueueFull"}
ENDINGS = (RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED, RunState.CANCELLED)

guards = st.builds(
    lambda cooldown, count, per, concurrency: Guard.model_validate(
        {"cooldown": cooldown, "concurrency": concurrency, "backoff": {"initial": "1h", "max": "8h"}}
        | ({"maxRuns": {"count": count, "per": per}} if count else {})
    ),
    st.sampled_from(["0s", "30m", "2h", "24h"]),
    st.integers(0, 3),
    st.sampled_from(["1h", "12h", "168h"]),
    st.sampled_from(["Forbid", "Queue", "Replace"]),
)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "minutes": st.integers(0, 300),
            "fired": st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 90)), max_size=4),
            "ends": st.none() | st.sampled_from(ENDINGS),
            "by_hand": st.booleans(),
            "suspended": st.sampled_from([False, False, False, True]),
        }
    ),
    min_size=1,
    max_size=25,
)


@dataclass
class Stream:
    """The runs of a policy, as the API server would hold them."""

    rules: Guard
    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    runs: dict[str, PolicyRun] = field(default_factory=dict)
    identities: dict[tuple[str, str], str] = field(default_factory=dict)

    def active(self) -> list[PolicyRun]:
        return [one for one in self.runs.values() if one.is_active]

    def end(self, name: str, state: RunState) -> None:
        self.runs[name] = replace(self.runs[name], state=state, ended=self.now, failed=state is RunState.FAILED)

    def begin(self, name: str, trigger: str, identity: str, *, manual: bool = False) -> None:
        assert name not in self.runs
        self.runs[name] = PolicyRun(name, trigger, identity, manual, self.now, None, None, False)

    def take(self, firings: list[Firing], suspended: bool) -> None:
        failures, last = throttle.count_failures(list(self.runs.values()))
        until = throttle.compute_retry_time(self.rules.backoff, failures, last)
        before = list(self.runs.values())
        result = throttle.judge_firings(
            firings,
            self.rules,
            before,
            policy="digits",
            policy_uid="u1",
            suspended=suspended,
            now=self.now,
            retry_at=until,
        )
        dealt_with = {id(one.firing) for one in result}
        left = [firing for firing in firings if id(firing) not in dealt_with]
        assert len(dealt_with) == len(result)
        assert not left or (self.rules.concurrency == "Queue" and all(firing.waits for firing in left))
        assert [one.firing.at for one in result] == sorted(one.firing.at for one in result)
        for one in result:
            place = (one.firing.trigger, one.firing.identity)
            if isinstance(one, SuppressFiring):
                assert one.reason in REASONS
                assert one.message
                assert place not in self.identities
            elif isinstance(one, AlreadyStarted):
                assert self.identities[place] == one.run
            else:
                assert not suspended
                assert until is None or self.now >= until
                self.start(one)
                assert self.identities.setdefault(place, one.run) == one.run

    def start(self, one: StartRun) -> None:
        others = list(self.runs.values())
        cooldown = timedelta(seconds=parse_duration(self.rules.cooldown))
        assert all(self.now - other.created >= cooldown for other in others)
        if self.rules.max_runs is not None:
            span = timedelta(seconds=parse_duration(self.rules.max_runs.per))
            assert sum(self.now - other.created < span for other in others) < self.rules.max_runs.count
        for name in one.replaces:
            assert not self.runs[name].manual
            self.end(name, RunState.CANCELLED)
        allowed = 1 if self.rules.concurrency == "Queue" else 0
        assert len(self.active()) <= allowed
        self.begin(one.run, one.firing.trigger, one.firing.identity)


SCHEDULES: list[dict[str, Any]] = [
    {"schedule": {"cron": cron, "catchUp": catch_up, "timeZone": zone}}
    for cron in ("0 * * * *", "*/7 * * * *", "30 2 * * *")
    for catch_up in ("All", "Latest", "None")
    for zone in ("UTC", "Europe/Berlin")
]
KINDS: list[dict[str, Any]] = [
    *SCHEDULES,
    {"age": {"after": "1h"}},
    {"prometheus": {"provider": "default", "query": "up", "above": "1"}},
    {"data": {"uri": "s3://data/x", "every": "10m"}},
]


identities = st.sampled_from([None, "7", "etag", "v/2"])
edits = st.lists(st.tuples(st.none() | st.sampled_from(KINDS), st.integers(0, 3000), identities), max_size=12)


@given(edits)
@settings(deadline=None)
def test_no_edit_of_a_trigger_brings_a_time_from_before_it(
    raw: list[tuple[dict[str, Any] | None, int, str | None]],
) -> None:
    """Nobody who edits a policy, in whatever way, starts a run for a time that had passed when they did."""
    now, edited, before = NOW, NOW, {"": ""}
    status = RetrainingPolicyStatus()
    for kind, minutes, identity in raw:
        schedule = {key: value for key, value in (kind or {}).get("schedule", {}).items() if key != "catchUp"}
        if schedule != before:
            edited, before = now, schedule
        wanted = [{"name": "a", **kind}] if kind is not None else []
        spec = RetrainingPolicySpec.model_validate({**policy().wire(), "triggers": wanted})
        for later in (0, minutes):
            now += timedelta(minutes=later)
            status = triggers.anchor_schedules(spec, status, now, now)
            result = triggers.fire_schedules(spec, status, NOW - timedelta(days=400), now)
            assert all(edited < firing.at <= now for firing in result), (edited, result)
            entries = {entry.name: entry for entry in status.triggers if kind is not None}
            for firing in result:
                entries["a"] = entries["a"].model_copy(update={"identity": firing.identity, "at": firing.at})
            if identity is not None and kind is not None and not schedule:
                # As data whose first state is known, and others that have fired.
                at = None if identity == "etag" else now - timedelta(days=30)
                entries["a"] = TriggerStatus(name="a", identity=identity, at=at)
            status = RetrainingPolicyStatus(triggers=tuple(entries.values()))


@given(guards, steps)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_guards_hold_over_any_stream_of_triggers(rules: Guard, raw: list[dict[str, Any]]) -> None:
    stream = Stream(rules)
    for number, step in enumerate(raw):
        stream.now += timedelta(minutes=step["minutes"])
        if step["ends"] is not None and stream.active():
            stream.end(stream.active()[0].name, step["ends"])
        if step["by_hand"]:
            stream.begin(f"by-hand-{number}", "", "", manual=True)
        stream.take(
            [
                Firing(
                    trigger, "schedule", str(identity), stream.now - timedelta(minutes=ago), "why", waits=trigger == "c"
                )
                for trigger, identity, ago in step["fired"]
            ],
            step["suspended"],
        )
        by_triggers = [one for one in stream.active() if not one.manual]
        assert len(by_triggers) <= (2 if rules.concurrency == "Queue" else 1)
    assert len(set(stream.identities.values())) == len(stream.identities)


@dataclass
class Child:
    """The object of a stage."""

    uid: str
    state: StageState = StageState.PENDING
    report: dict[str, Any] | None = None


BAD_CHECKS = {"checks": [{"name": "rows", "outcome": "Fail"}]}
WORSE = {"metrics": [{"name": "accuracy", "candidate": 0.1, "serving": 0.94}]}
DEADLINE = timedelta(hours=2)


class Runs(RuleBasedStateMachine):
    """Objects of stages run, succeed, fail, vanish and are suspended, the clock moves, a newer run comes, and the
    operator crashes between any two writes.

    An object vanishes only once its uid was written down: before that nobody can tell it from one that was never made.
    """

    @initialize(check=st.booleans(), evaluate=st.booleans(), before=st.booleans(), manual=st.booleans())
    def begin(self, check: bool, evaluate: bool, before: bool, manual: bool) -> None:
        self.policy = policy(check=check, evaluate=evaluate, deadline="2h")
        self.now = NOW
        self.run = run(manual=manual)
        self.before: tuple[str, ...] = ("run-0",) if before else ()
        self.dataset = ResolvedData()
        self.children: dict[str, Child] = {}
        self.made: dict[str, int] = {}
        self.problem: Problem | None = None
        self.registered: bool | Problem = False
        self.cancelled_by: str | None = None
        self.outcome: str | None = None
        self.over: dict[str, Any] | None = None

    def known(self) -> set[str]:
        """Stages whose object's uid is written down."""
        return {entry.name for entry in self.run.status.stages if entry.uid}

    @rule(state=st.sampled_from(sorted(set(StageState) - ENDED_STAGE_STATES)), stage=st.sampled_from(sorted(REPORTS)))
    def the_object_is(self, state: StageState, stage: str) -> None:
        child = self.children.get(stage)
        if child is not None and child.state not in ENDED_STAGE_STATES:
            child.state = state

    @rule(stage=st.sampled_from(sorted(REPORTS)), how=st.sampled_from(["good", "good", "good", "bad", "none"]))
    def the_object_succeeds(self, stage: str, how: str) -> None:
        child = self.children.get(stage)
        if child is None or child.state in ENDED_STAGE_STATES:
            return
        bad = {
            "dataCheck": BAD_CHECKS,
            "train": {"artifact": {"uri": "s3://models/other", "digest": DIGEST}},
            "evaluate": WORSE,
        }
        child.state = StageState.SUCCEEDED
        child.report = {"good": REPORTS[stage], "bad": bad[stage], "none": None}[how]

    @rule(stage=st.sampled_from(sorted(REPORTS)))
    def the_object_fails(self, stage: str) -> None:
        child = self.children.get(stage)
        if child is not None and child.state not in ENDED_STAGE_STATES:
            child.state = StageState.FAILED

    @precondition(lambda self: self.known() & set(self.children))
    @rule(data=st.data())
    def the_object_vanishes(self, data: st.DataObject) -> None:
        del self.children[data.draw(st.sampled_from(sorted(self.known() & set(self.children))))]

    @rule(minutes=st.sampled_from([0, 1, 10, 40, 61, -30]))
    def the_clock_moves(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(problem=st.sampled_from([None, None, "StoreUnreachable", "AccessDenied"]))
    def data_is_resolved_or_not(self, problem: str | None) -> None:
        self.dataset = (
            ResolvedData(DIGEST) if problem is None else ResolvedData(None, Problem(problem, "no", stalled=True))
        )

    @rule()
    def the_run_before_ends(self) -> None:
        self.before = ()

    @rule(
        problem=st.sampled_from([None, None, Problem("WaitingForModel", "no Model"), Problem("NameTaken", "x", True)])
    )
    def something_is_in_the_way_or_not(self, problem: Problem | None) -> None:
        self.problem = problem

    @rule(chance=st.integers(0, 5))
    def a_newer_run_may_come(self, chance: int) -> None:
        if chance == 0:
            self.cancelled_by = "run-2"

    @rule(outcome=st.sampled_from([None, "RollingOut", "Serving", "RolledBack"]))
    def the_version_is_rolled_out(self, outcome: str | None) -> None:
        self.outcome = outcome if self.registered is True else None

    @rule(after=st.integers(0, 2))
    def a_pass_that_crashes_after_some_writes(self, after: int) -> None:
        self.one_pass(crash_after=after)

    @rule()
    def a_pass(self) -> None:
        self.one_pass()

    def observed(self) -> RunObservation:
        entry = current_stage(self.run.status)
        child = self.children.get(entry.name) if entry is not None else None
        return RunObservation(
            now=self.now,
            run=self.run,
            policy=self.policy,
            problem=self.problem,
            earlier_runs=self.before,
            serving="digits-1",
            dataset=self.dataset,
            stage=StageReading(child.state, report=child.report) if child is not None else None,
            child=ChildRef(f"run-1-{entry.name}", child.uid) if child is not None and entry is not None else None,
            registered=self.registered,
            version_outcome=self.outcome,
            cancelled_by=self.cancelled_by,
        )

    def one_pass(self, crash_after: int | None = None) -> RunDecision:
        decision = decide_run(self.observed())
        if crash_after == 0:
            return decision
        self.run = self.run.model_copy(update={"status": decision.status})
        for count, action in enumerate(decision.actions, start=1):
            if count == crash_after:
                return decision
            self.carry_out(action)
        return decision

    def carry_out(self, action: ResolveData | StartStage | StopStage | RegisterVersion) -> None:
        status = self.run.status
        if isinstance(action, StartStage):
            assert status.state not in RUN_TERMINAL_STATES
            if action.stage not in self.children:
                self.made[action.stage] = self.made.get(action.stage, 0) + 1
                self.children[action.stage] = Child(f"{action.stage}-{self.made[action.stage]}")
            if action.stage == "train" and self.policy.run.data_check is not None:
                assert status.checks, "something is trained on data that was not checked"
                assert all(check.outcome == "Pass" for check in status.checks)
            if action.stage == "evaluate":
                assert status.result is not None
        elif isinstance(action, StopStage):
            assert status.state in RUN_TERMINAL_STATES
            self.children.pop(action.stage, None)
        elif isinstance(action, RegisterVersion):
            assert status.result is not None
            assert self.policy.run.evaluate is None or status.figures
            self.registered = True

    @invariant()
    def a_stage_has_one_object_ever(self) -> None:
        assert all(count == 1 for count in self.made.values())

    @invariant()
    def a_run_that_has_ended_stays_as_it_is(self) -> None:
        status = self.run.status
        kept = status.model_dump(exclude={"outcome", "conditions"}) if status.state in RUN_TERMINAL_STATES else None
        assert self.over is None or kept == self.over
        self.over = kept

    @invariant()
    def only_a_good_run_has_a_version(self) -> None:
        status = self.run.status
        assert (status.version is not None) == (status.state == RunState.SUCCEEDED)

    @invariant()
    def looking_changes_nothing(self) -> None:
        picture = self.observed()
        assert decide_run(picture) == decide_run(picture)
        settled = replace(picture, run=self.run.model_copy(update={"status": decide_run(picture).status}))
        entry = current_stage(settled.status)
        if entry == current_stage(picture.status):
            assert decide_run(settled).status == settled.status

    def teardown(self) -> None:
        """When nothing holds it back, the run ends within its deadline, and so does all that it has made."""
        self.before, self.problem = (), None
        for child in self.children.values():
            if child.state in (StageState.QUEUED, StageState.SUSPENDED):
                child.state = StageState.RUNNING
        self.now += timedelta(hours=1)
        self.one_pass()
        # A clock that went back further than that is behind the beginning of the run.
        clock = self.run.status.clock
        self.now = max(self.now, clock.running_since or self.now) if clock is not None else self.now
        self.now += DEADLINE
        self.one_pass()
        assert self.run.status.state in RUN_TERMINAL_STATES
        self.one_pass()
        assert all(child.state in ENDED_STAGE_STATES for child in self.children.values())


Runs.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestRuns = Runs.TestCase
