"""The status of a RolloutPolicy: one write an edit, and none when nothing is new."""

import asyncio
from typing import Any

import pytest

from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.obs.clock import FakeClock
from tests.lib import objects
from tests.lib.simulated import SimulatedApi
from tests.lib.stepped import Operator

Object = dict[str, Any]
NS = "vision"
ERRORS = {"name": "errors", "builtin": "error-rate", "margin": "0.02"}
SPEC = {"strategy": {"preset": "Canary"}, "analysis": {"metrics": [ERRORS]}, "deadline": "1h"}


class PolicyHarness:
    """A cluster with one RolloutPolicy, and the operator."""

    def __init__(self, spec: Object) -> None:
        self.api, self.clock = SimulatedApi(), FakeClock()
        self.api.user_create(
            {
                "apiVersion": objects.API_VERSION,
                "kind": "RolloutPolicy",
                "metadata": {"name": "canary", "namespace": NS},
                "spec": spec,
            }
        )
        self.restart()

    def restart(self) -> None:
        self.operator = Operator(self.api, self.clock)
        self.look()

    def edit(self, **spec: Any) -> None:
        self.api.user_patch(kinds.ROLLOUT_POLICY, NS, "canary", {"spec": spec})
        self.look()

    def look(self) -> None:
        self.clock.advance(60)
        self.operator.hear(len(self.api.told))
        self.operator.look_again()
        self.operator.work()

    @property
    def status(self) -> Object:
        found: Object = self.api.objects[kinds.ROLLOUT_POLICY, NS, "canary"].get("status", {})
        return found

    @property
    def conditions(self) -> dict[str, tuple[str, str]]:
        return {c["type"]: (c["status"], c["reason"]) for c in self.status["conditions"]}


def test_a_policy_is_ready_and_says_what_it_takes() -> None:
    world = PolicyHarness(SPEC)
    assert world.status["requestsPerSecond"] == "3"
    assert world.status["observedGeneration"] == 1
    assert world.conditions == {
        "Ready": ("True", "PolicyAccepted"),
        "Reconciling": ("False", "UpToDate"),
        "Stalled": ("False", "UpToDate"),
        "Decidable": ("True", "DecidableInTime"),
        "EvidenceAsked": ("True", "EvidenceAsked"),
    }


def test_policy_promoting_by_time_alone_reports_it() -> None:
    world = PolicyHarness({"strategy": {"preset": "Canary"}})
    assert world.conditions["EvidenceAsked"] == ("False", "PromotesByTimeAlone")
    assert world.conditions["Ready"] == ("True", "PolicyAccepted")


def test_each_edit_is_one_write_and_a_restart_is_none() -> None:
    world = PolicyHarness(SPEC)
    world.look()
    world.restart()
    assert len(world.api.writes) == 1
    world.edit(deadline="5m")
    world.look()
    assert len(world.api.writes) == 2
    assert world.conditions["Decidable"] == ("False", "NeedsMoreRequests")
    assert world.conditions["Ready"][0] == "True"
    assert world.status["observedGeneration"] == 2


def test_unfollowable_policy_is_stalled_until_edited() -> None:
    world = PolicyHarness(SPEC | {"freeze": [{"schedule": "0 18 31 2 *", "duration": "1h"}]})
    assert world.conditions["Stalled"] == ("True", "InvalidPolicy")
    assert "spec.freeze[0].schedule" in next(c["message"] for c in world.status["conditions"] if c["type"] == "Stalled")
    world.edit(freeze=[])
    assert world.conditions["Stalled"][0] == "False"
    assert world.conditions["Ready"][0] == "True"


def query(name: str, **prometheus: str) -> Object:
    return {"name": name, "prometheus": prometheus, "max": "1"}


NOT_SENT = [
    (query("deep", query="abs(" * 33 + "up" + ")" * 33), "prometheus.query has more than 32 brackets in each other"),
    (query("long", query="+".join(["a"] * 200)), "prometheus.query has 199 operators, and may have 128"),
    (query("pod", query='up{pod="$(POD)"}'), "prometheus.query: $(POD) is no placeholder"),
    (query("share", bad="sum(lost)", total="orders"), "prometheus.bad must be a plain selector of counters"),
]


@pytest.mark.parametrize(("metric", "told"), NOT_SENT, ids=[metric["name"] for metric, _ in NOT_SENT])
def test_a_query_that_is_never_sent_is_told_by_metric_and_field(metric: Object, told: str) -> None:
    world = PolicyHarness(SPEC | {"analysis": {"metrics": [ERRORS, metric]}})
    assert world.conditions["Stalled"] == ("True", "InvalidPolicy")
    message = next(c["message"] for c in world.status["conditions"] if c["type"] == "Stalled")
    assert message.startswith(f"spec.analysis.metrics[{metric['name']}].{told}")
    world.edit(analysis={"metrics": [ERRORS]})
    assert world.conditions["Ready"][0] == "True"


def test_a_query_that_only_a_newer_server_reads_is_let_pass() -> None:
    world = PolicyHarness(SPEC | {"analysis": {"metrics": [query("new", query="function_of_next_year(up)")]}})
    assert world.conditions["Ready"] == ("True", "PolicyAccepted")


def test_a_policy_that_is_never_decided_names_no_rate() -> None:
    world = PolicyHarness(SPEC | {"deadline": "3m"})
    assert "requestsPerSecond" not in world.status
    assert world.conditions["Decidable"] == ("False", "NeverDecidable")


def test_a_spec_that_this_operator_can_not_read_is_stalled() -> None:
    world = PolicyHarness({"strategy": {"preset": "Newer"}})
    assert world.conditions["Stalled"] == ("True", "InvalidPolicy")
    assert len(world.api.writes) == 1


def test_a_policy_that_is_gone_is_nothing() -> None:
    world = PolicyHarness(SPEC)
    world.api.user_delete(kinds.ROLLOUT_POLICY, NS, "canary")
    world.operator.hear(len(world.api.told))
    world.operator.queue[Key("RolloutPolicy", NS, "canary")] = None
    world.operator.work()
    assert len(world.api.writes) == 1


def test_a_large_policy_is_planned_beside_the_loop() -> None:
    steps = [{"weight": weight, "hold": "1m"} for weight in range(10, 100, 10)]
    world = PolicyHarness({"strategy": {"steps": steps}, "analysis": {"metrics": [ERRORS]}, "deadline": "24h"})
    assert world.conditions["Decidable"][0] == "True"
    metrics = [ERRORS | {"name": f"errors-{n}"} for n in range(2)]
    world.api.user_patch(kinds.ROLLOUT_POLICY, NS, "canary", {"spec": {"analysis": {"metrics": metrics}}})
    world.operator.hear(len(world.api.told))
    asyncio.run(world.operator.reconcilers["RolloutPolicy"](Key("RolloutPolicy", NS, "canary")))
    assert world.status["observedGeneration"] == 2
    assert world.conditions["Decidable"][0] == "True"
