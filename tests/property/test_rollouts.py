"""Whatever people do, evidence says, pods do and crashes interrupt: a rollout never succeeds without its evidence.

The real reconcilers on a simulated cluster with a gateway, a policy with metrics, and a scheduler that returns
prepared measurements.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelwright.core.analysis.evidence import Arm, MeasurementFailure, MetricValue, RequestShares
from modelwright.core.rollout.record import TERMINAL_STATES
from modelwright.kube import kinds
from tests.lib.rollout_harness import JUDGED, RolloutHarness, bad, good
from tests.lib.simulated import Died

EVIDENCE: dict[str, Any] = {
    "good": good(),
    "bad": bad(),
    "too few": RequestShares(Arm(5, 0), Arm(50, 0)),
    "one arm": RequestShares(Arm(5000, 0), None),
    "nothing": MetricValue(None, why="the query gave nothing"),
    "server gone": MeasurementFailure("MetricsServerUnreachable", "connection refused"),
}
COMMANDS = ("pause", "resume", "promote", "abort", "retry", "release")


class Rollouts(RuleBasedStateMachine):
    """People, evidence, pods and crashes."""

    @initialize()
    def begin(self) -> None:
        self.world = RolloutHarness(JUDGED)
        self.tokens = 0

    @rule(version=st.sampled_from(["v1", "v2", "v3"]))
    def want(self, version: str) -> None:
        self.world.want(version)

    @rule(said=st.sampled_from([*EVIDENCE, None]))
    def evidence(self, said: str | None) -> None:
        self.world.scheduler.results = {} if said is None else {"errors": EVIDENCE[said]}

    @rule(name=st.sampled_from(COMMANDS), again=st.booleans())
    def command(self, name: str, again: bool) -> None:
        self.tokens += 0 if again else 1
        self.world.command(name, str(self.tokens))

    @rule(version=st.sampled_from(["v2", "v3"]), broken=st.booleans())
    def break_or_mend(self, version: str, broken: bool) -> None:
        self.world.broken = self.world.broken | {version} if broken else self.world.broken - {version}

    @rule(version=st.sampled_from(["v2", "v3"]), short=st.booleans())
    def run_out_of_nodes(self, version: str, short: bool) -> None:
        self.world.short = self.world.short | {version} if short else self.world.short - {version}

    @rule(crowd=st.booleans())
    def others_edit(self, crowd: bool) -> None:
        self.world.crowd = crowd

    @rule(looks=st.integers(1, 6), seconds=st.sampled_from([1, 5, 30]))
    def time_passes(self, looks: int, seconds: int) -> None:
        for _ in range(looks):
            self.one_look(seconds)

    def one_look(self, seconds: int) -> None:
        """While the candidate has requests at a step or in Promoting, its metrics are asked for; a Fail sends none of
        them there any longer."""
        before, asked, candidate = self._exposed(), len(self.world.scheduler.asked), self._newest().get("to")
        self.world.look(seconds)
        if not before or not self._exposed() or self._newest().get("to") != candidate:
            return
        asks = self.world.scheduler.asked[asked:]
        assert asks, f"nobody looked at the candidate: {self._newest()}"
        assert all(ask.candidate.version == candidate["version"] for ask in asks)
        overruled = any(step.get("outcome") == "Fail" for step in self._newest()["steps"])
        assert self.world.scheduler.results.get("errors") is not EVIDENCE["bad"] or overruled

    def _newest(self) -> Any:
        records = self._records()
        return records[-1].get("status", {}) if records else {}

    def _exposed(self) -> bool:
        """Whether requests are sent to a candidate that has come to its steps."""
        status = self._newest()
        candidate = status.get("to", {}).get("version")
        on = status.get("state") in ("Progressing", "Holding", "AwaitingApproval", "Promoting")
        return on and "from" in status and "step" in status and self.world.weights.get(candidate, 0) > 0

    @rule(writes=st.integers(1, 4))
    def it_is_killed_at_a_write(self, writes: int) -> None:
        left = [writes]

        def die(verb: str, obj: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Died

        self.world.api.before_write = die
        try:
            self.world.look()
        except Died:
            self.world.restart()
        self.world.api.before_write = lambda verb, obj: None

    @invariant()
    def no_evidence_is_never_success(self) -> None:
        for record in self._records():
            status = record.get("status", {})
            if status.get("state") != "Succeeded" or status.get("reason") != "Promoted":
                continue
            passed = {v["step"] for v in status.get("verdicts", []) if v["outcome"] == "Pass"}
            assert passed >= {0, 1}, f"{record['metadata']['name']} was promoted on {status.get('verdicts')}"

    @invariant()
    def one_rollout_at_a_time(self) -> None:
        states = [record.get("status", {}).get("state") for record in self._records()]
        assert sum(state not in {str(t) for t in TERMINAL_STATES} for state in states) <= 2, (
            "one, and the one it takes over from"
        )

    @invariant()
    def callers_are_sent_to_pods_that_are_there(self) -> None:
        if hasattr(self, "world"):
            weights = self.world.weights
            assert sum(weights.values()) == 100
            assert all(self.world.pods(version) for version in weights)

    def teardown(self) -> None:
        """When nobody interferes any more, the Model comes to rest: with the wanted version, or stalled and safe."""
        if not hasattr(self, "world"):
            return
        self.world.broken, self.world.short, self.world.scheduler.results = set(), set(), {"errors": good()}
        for _ in range(80):
            self.world.look(5)
        last = self._records()[-1]["status"]
        if last.get("paused") and last["state"] == "Holding":
            return
        assert last["state"] in {str(t) for t in TERMINAL_STATES}
        model = self.world.model
        ready = next(c["status"] for c in model["status"]["conditions"] if c["type"] == "Ready")
        wanted = model["spec"]["version"]["name"]
        assert ready == "True" or last["state"] in ("RolledBack", "Aborted"), model["status"]
        assert self.world.serving == wanted or last["state"] in ("RolledBack", "Aborted")
        writes = len(self.world.api.writes)
        self.world.look(5)
        self.world.restart()
        self.world.look(5)
        assert [w for w in self.world.api.writes[writes:] if w[1] != kinds.EVENT] == []

    def _records(self) -> list[Any]:
        return self.world.records if hasattr(self, "world") else []


Rollouts.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestRollouts = Rollouts.TestCase
