"""The end of an A/B test that a query decides, pass by pass."""

from collections.abc import Sequence
from typing import Any

import pytest

from modelwright.core.analysis.evidence import Arm, MeasurementFailure, MetricValue, RequestShares, ValuePairs
from modelwright.kube import kinds
from tests.lib.rollout_harness import NS, RolloutHarness, bad, good

BETTER = tuple(10.0 + n % 3 for n in range(30))
WORSE = tuple(8.0 + n % 3 for n in range(30))
SALES = {"name": "sales", "prometheus": {"query": 'sum(sales{pod=~"$(PODS)"})'}, "min": "0"}
ERRORS = {"name": "errors", "builtin": "error-rate", "margin": "0.02", "minSamples": 100}


def policy(**winner: Any) -> dict[str, Any]:
    test = {"duration": "5m", "sticky": False, "winner": {"metric": "sales", "better": "Higher", **winner}}
    return {
        "strategy": {"abTest": test},
        "analysis": {"interval": "10s", "metrics": [ERRORS, SALES]},
        "deadline": "15m",
    }


def both(candidate: Sequence[float], serving: Sequence[float]) -> ValuePairs:
    return ValuePairs(tuple(zip(candidate, serving, strict=False)))


def running(spec: dict[str, Any]) -> RolloutHarness:
    """A test that has only just begun, without harm."""
    world = RolloutHarness(spec)
    world.scheduler.results |= {"errors": good(), "sales": MetricValue(1.0, 1.0)}
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    return world


def ended(world: RolloutHarness) -> tuple[str, str]:
    world.go(lambda: world.record.get("state") in ("Succeeded", "RolledBack", "Aborted"), looks=200)
    return world.record["state"], world.record["reason"]


def test_the_candidate_wins_by_proof() -> None:
    world = running(policy())
    world.scheduler.points = both(BETTER, WORSE)
    assert ended(world) == ("Succeeded", "Promoted")
    (asked,) = set(world.scheduler.ends)
    entry = world.record["steps"][0]
    assert asked.isoformat().replace("+00:00", "Z") > entry["confirmedAt"]


@pytest.mark.parametrize(
    ("winner", "points", "told"),
    [
        ({}, both(WORSE, BETTER), "lower by 2"),
        ({"better": "Lower"}, both(BETTER, WORSE), "higher by 2"),
        ({"margin": "3"}, both(BETTER, WORSE), "higher by 2"),
        ({}, both(BETTER, BETTER), "30 time points"),
        ({}, both(BETTER[:29], WORSE), "29 time points"),
        ({}, ValuePairs(why="the query gives no data"), "the query gives no data"),
        ({}, both((float("nan"),) * 40, WORSE), "0 time points"),
        (
            {},
            ValuePairs(failure=MeasurementFailure("MetricsServerError", "answered 503")),
            "answered 503; nothing is proven",
        ),
    ],
    ids=["worse", "better is lower", "within the margin", "alike", "too few points", "empty", "NaN", "server down"],
)
def test_without_proof_it_loses(winner: dict[str, str], points: ValuePairs, told: str) -> None:
    world = running(policy(**winner))
    world.scheduler.points = points
    assert ended(world) == ("Aborted", "ABTestLost")
    assert told in world.record["message"]
    assert world.weights == {"v1": 100}


def test_undecided_without_values_until_the_deadline() -> None:
    world = running(policy())
    world.go(lambda: bool(world.scheduler.ends), looks=100)
    world.look()
    assert world.weights == {"v1": 50, "v2": 50}
    assert ended(world) == ("Aborted", "DeadlineExceeded")


def test_harm_ends_it_early() -> None:
    world = running(policy())
    world.scheduler.results["errors"] = MeasurementFailure("MetricsServerUnreachable", "connection refused")
    world.look()
    assert world.weights == {"v1": 50, "v2": 50}
    world.scheduler.results["errors"] = bad()
    assert ended(world) == ("RolledBack", "AnalysisFailed")
    assert world.scheduler.ends == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prometheus": None, "http": {"path": "/sales", "value": "/n"}}, "not the value of one moment"),
        ({"prometheus": None, "builtin": "throughput"}, "not the value of one moment"),
        ({"dryRun": True}, "not a dry run"),
        ({"versus": "None"}, "a winner is found by comparing"),
    ],
    ids=["http", "throughput", "dry run", "versus None"],
)
def test_what_can_not_decide_is_refused(change: dict[str, Any], told: str) -> None:
    spec = policy()
    metric = {key: value for key, value in {**SALES, **change}.items() if value is not None}
    spec["analysis"] = {"interval": "10s", "metrics": [ERRORS, metric]}
    world = RolloutHarness(policy())
    world.set_policy(spec)
    world.want("v2")
    for _ in range(5):
        world.look()
    failure = world.model["status"]["failure"]
    assert failure["reason"] == "InvalidPolicy"
    assert told in failure["message"]
    assert world.weights == {"v1": 100}
    assert (kinds.MODEL_ROLLOUT, NS, "digits-2") not in world.api.objects


SHARES = {"metric": "errors", "better": "Lower"}
AT_THE_END: dict[str, dict[str, Any]] = {
    "the operator starts again, and no look has ended": {},
    "the metrics server is down": {"errors": MeasurementFailure("MetricsServerUnreachable", "connection refused")},
}


@pytest.mark.parametrize("case", AT_THE_END)
def test_a_test_is_not_lost_for_want_of_one_look_at_its_end(case: str) -> None:
    world = running(policy(**SHARES))
    world.scheduler.results["errors"] = RequestShares(Arm(20000, 200), Arm(20000, 1000))
    for _ in range(55):
        world.look(5)
    world.scheduler.results = AT_THE_END[case] | {"sales": MetricValue(1.0, 1.0)}
    world.restart()
    for _ in range(30):
        world.look(5)
    assert world.weights == {"v1": 50, "v2": 50}
    world.scheduler.results["errors"] = RequestShares(Arm(20000, 200), Arm(20000, 1000))
    assert ended(world) == ("Succeeded", "Promoted")


@pytest.mark.parametrize("case", AT_THE_END)
def test_it_does_not_wait_for_ever(case: str) -> None:
    world = running(policy(**SHARES))
    world.scheduler.results = AT_THE_END[case] | {"sales": MetricValue(1.0, 1.0)}
    assert ended(world) == ("Aborted", "ABTestLost")
    assert "nothing could be measured" in world.record["message"]
    assert world.weights == {"v1": 100}


def test_promote_during_a_test_is_without_evidence() -> None:
    world = running(policy(**SHARES))
    world.look()
    world.command("promote")
    assert ended(world) == ("Succeeded", "PromotedWithoutEvidence")
