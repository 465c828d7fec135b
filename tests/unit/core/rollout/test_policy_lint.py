"""What is said of a RolloutPolicy by itself."""

from typing import Any

import pytest

from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.core.rollout.policy_lint import (
    assess_decidability,
    evidence_condition,
    find_problems,
    find_warnings,
    format_rate,
)
from modelwright.core.rollout.steps import compile_steps

Object = dict[str, Any]
ERRORS = {"name": "errors", "builtin": "error-rate", "margin": "0.02"}
SLOW = {"name": "slow", "builtin": "latency-over", "threshold": "100ms", "margin": "0.05"}
P95 = {"name": "p95", "builtin": "latency-percentile", "percentile": "0.95"}
QUERY = {"name": "q", "prometheus": {"query": 'x{pod=~"$(PODS)"}'}, "max": "1"}
COUNTED = {"bad": 'x{pod=~"$(PODS)",code="500"}', "total": 'x{pod=~"$(PODS)"}'}
AGREEMENT = {"name": "same", "builtin": "agreement", "min": "0.9"}
THROUGHPUT = {"name": "rate", "builtin": "throughput", "min": "1"}
HELD_AT_100 = ({"weight": 10, "hold": "20s"}, {"weight": 100, "hold": "60s"})
CANARY = ({"weight": 10, "hold": "2m"}, {"weight": 50, "hold": "2m"}, {"weight": 100})


def policy(*metrics: Object, steps: tuple[Object, ...] = CANARY, **more: Any) -> RolloutPolicySpec:
    analysis = {"analysis": {"metrics": list(metrics)}} if metrics else {}
    return RolloutPolicySpec.model_validate({"strategy": {"steps": list(steps)}, **analysis, **more})


def ab_test(*metrics: Object, winner: str, duration: str = "1h", **more: Any) -> RolloutPolicySpec:
    test = {"duration": duration, "winner": {"metric": winner, "better": "Lower"}, **more.pop("test", {})}
    return RolloutPolicySpec.model_validate(
        {"strategy": {"abTest": test}, "analysis": {"metrics": list(metrics), **more}, "deadline": "720h"}
    )


@pytest.mark.parametrize(
    "spec",
    [
        policy(),
        policy(ERRORS, SLOW, QUERY),
        policy(ERRORS, freeze=[{"schedule": "0 18 * * 5", "duration": "62h", "timeZone": "Europe/Berlin"}]),
        policy(ERRORS, steps=({"mirror": {}}, {"weight": 100})),
        policy({**ERRORS, "max": "0.1"}, steps=({"weight": 0}, {"weight": 100, "hold": "2m"})),
        ab_test(ERRORS, QUERY, winner="q"),
        ab_test(ERRORS, QUERY, winner="errors"),
        RolloutPolicySpec.model_validate({"strategy": {"recreate": {}}}),
        *(RolloutPolicySpec.model_validate({"strategy": {"preset": p}}) for p in ("Canary", "BlueGreen", "Rolling")),
    ],
)
def test_nothing_is_wrong_with(spec: RolloutPolicySpec) -> None:
    assert find_problems(spec) == ()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (policy(freeze=[{"schedule": "0 18 31 2 *", "duration": "1h"}]), "spec.freeze[0].schedule: 0 18 31 2 * is no"),
        (policy(freeze=[{"schedule": "99 18 * * *", "duration": "1h"}]), "spec.freeze[0].schedule"),
        (
            policy(freeze=[{"schedule": "0 18 * * 5", "duration": "1h", "timeZone": "Europe/Atlantis"}]),
            "spec.freeze[0].timeZone: there is no time zone Europe/Atlantis",
        ),
        (policy(surge={"pods": 0}), "spec.surge.pods: 0 leaves no room"),
        (policy(ERRORS, steps=({"weight": 0}, {"weight": 100})), "spec.analysis is never used"),
        (policy({**ERRORS, "dryRun": True}), "spec.analysis is never used"),
        (policy(ERRORS, steps=({"weight": 100, "hold": "2m"},)), "at least one metric needs a max or a min"),
        (
            policy(ERRORS, {**ERRORS, "name": "abs", "max": "0.5", "dryRun": True}, steps=HELD_AT_100),
            "no metric judges step 2 (weight 100 %): nothing serves beside the candidate there",
        ),
        (
            policy(ERRORS, AGREEMENT, steps=({"mirror": {}}, {"weight": 100, "hold": "2m"})),
            "no metric judges step 2 (weight 100 %)",
        ),
        (
            policy(AGREEMENT, steps=({"mirror": {}}, {"weight": 10, "hold": "2m"}, {"weight": 100})),
            "no metric judges step 2 (weight 10 %): those it has are dry runs, or are not measured there",
        ),
        (
            policy(THROUGHPUT, steps=({"mirror": {}}, {"weight": 10}, {"weight": 100})),
            "no metric judges step 1 (mirror 100 %)",
        ),
        (
            policy(AGREEMENT, steps=({"mirror": {}}, {"weight": 10}, {"approval": {}}, {"weight": 100})),
            "no metric judges step 3 (approval 10 %)",
        ),
        (
            RolloutPolicySpec.model_validate({"strategy": {"preset": "BlueGreen"}, "analysis": {"metrics": [ERRORS]}}),
            "no metric judges step 2 (weight 100 %)",
        ),
        (
            RolloutPolicySpec.model_validate(
                {
                    "strategy": {"steps": [{"weight": 60}, {"weight": 100}]},
                    "analysis": {"baseline": "Fresh", "metrics": [ERRORS]},
                    "surge": {"pods": 2},
                }
            ),
            "spec.analysis.baseline: Fresh doesn't go with spec.surge",
        ),
        (
            ab_test(ERRORS, QUERY | {"prometheus": {"query": "$(MODEL)"}}, winner="q"),
            "q can't decide: nothing in its query tells the revisions apart",
        ),
        (
            ab_test(ERRORS, QUERY | {"prometheus": {"bad": "x", "total": "y"}}, winner="q"),
            "q can't decide: nothing in its query tells the revisions apart",
        ),
        (ab_test(ERRORS, P95 | {"max": "1"}, winner="p95"), "p95 can't decide"),
        (ab_test(ERRORS, QUERY, winner="q", duration="14m"), "14m has fewer than 30 measurements, one each 30s"),
        (ab_test(ERRORS, QUERY, winner="q", duration="29m", interval="1m"), "29m has fewer than 30 measurements"),
    ],
)
def test_problem_names_its_field(spec: RolloutPolicySpec, expected: str) -> None:
    assert any(expected in text for text in find_problems(spec)), find_problems(spec)


@pytest.mark.parametrize(
    ("spec", "rate"),
    [
        (policy(), "0"),
        (policy(QUERY), "0"),
        (policy({**ERRORS, "dryRun": True}, QUERY), "0"),
        # The table of docs/concepts/evidence.md.
        (policy(ERRORS, SLOW, deadline="15m"), "11"),
        (policy(ERRORS, SLOW, deadline="30m"), "6"),
        (policy(ERRORS, SLOW, deadline="60m"), "3"),
        (RolloutPolicySpec.model_validate({"strategy": {"recreate": {}}}), "0"),
    ],
)
def test_the_requests_that_a_policy_takes(spec: RolloutPolicySpec, rate: str) -> None:
    result = assess_decidability(spec)
    assert result.rate is not None
    assert format_rate(result.rate) == rate
    assert result.decidable == (float(rate) <= 20)


@pytest.mark.parametrize(
    ("spec", "reason", "expected"),
    [
        (policy(deadline="4m"), "NeverDecidable", "spec.deadline: the holds together are 4m, and the deadline is 4m"),
        (
            RolloutPolicySpec.model_validate(
                {
                    "strategy": {"abTest": {"duration": "2h", "winner": {"metric": "errors", "better": "Lower"}}},
                    "analysis": {"metrics": [ERRORS]},
                }
            ),
            "NeverDecidable",
            "spec.strategy.abTest.duration is 120m, and the deadline is 1h",
        ),
        (policy({**ERRORS, "margin": "0"}), "NeverDecidable", "errors is never decided at step 1"),
        (policy({**ERRORS, "margin": None, "max": "0"}), "NeverDecidable", "errors is never decided at step 1"),
        (policy(ERRORS, SLOW, deadline="7m"), "NeedsMoreRequests", "it takes 27 requests per second"),
        (policy(ERRORS, SLOW, deadline="7m"), "NeedsMoreRequests", "most of them for metric errors at step 1"),
        (
            policy(ERRORS, SLOW, deadline="7m"),
            "NeedsMoreRequests",
            "with 20 per second spec.deadline would have to be",
        ),
        (policy({**ERRORS, "minSamples": 1000000}), "NeedsMoreRequests", "for metric errors at step 1"),
        (
            ab_test({**ERRORS, "minSamples": 1000000}, QUERY, winner="errors"),
            "NeedsMoreRequests",
            "it takes 556 requests per second to decide every step within 720h, for minSamples of the winner's metric",
        ),
    ],
)
def test_policy_not_decided_in_time(spec: RolloutPolicySpec, reason: str, expected: str) -> None:
    result = assess_decidability(spec)
    assert (result.decidable, result.reason) == (False, reason)
    assert expected in result.message
    assert (result.rate is None) == (reason == "NeverDecidable")


def test_the_deadline_that_is_named_is_enough() -> None:
    result = assess_decidability(policy(ERRORS, SLOW, deadline="7m"))
    deadline = result.message.split("would have to be ")[1].split(";")[0]
    assert assess_decidability(policy(ERRORS, SLOW, deadline=deadline)).decidable


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (policy(SLOW), policy(ERRORS, SLOW)),
        (policy(ERRORS), policy({**ERRORS, "burst": 2})),
        (policy({**ERRORS, "margin": "0.05"}), policy(ERRORS)),
        (
            policy(ERRORS, steps=({"weight": 50}, {"weight": 100})),
            policy(ERRORS, steps=({"weight": 5}, {"weight": 100})),
        ),
        (policy(ERRORS, steps=({"mirror": {}}, {"weight": 100})), policy(ERRORS, steps=({"mirror": {"percent": 10}},))),
        (policy({**P95, "max": "1"}), policy({**P95, "max": "1", "margin": "0.02"})),
    ],
)
def test_what_takes_more_requests(less: RolloutPolicySpec, more: RolloutPolicySpec) -> None:
    one, other = assess_decidability(less).rate, assess_decidability(more).rate
    assert one is not None
    assert other is not None
    assert 0 < one < other


def test_a_metric_that_needs_less_takes_no_more_requests() -> None:
    assert assess_decidability(policy(ERRORS, SLOW)).rate == assess_decidability(policy(ERRORS)).rate


@pytest.mark.parametrize(("rate", "text"), [(0.0, "0"), (0.031, "0.04"), (1.0, "1"), (1.01, "2"), (23.2, "24")])
def test_rates_as_text(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        (policy(), False),
        (RolloutPolicySpec.model_validate({"strategy": {"recreate": {}}}), False),
        (RolloutPolicySpec.model_validate({"strategy": {"preset": "BlueGreen"}}), False),
        (policy(ERRORS), True),
        (policy(gates={"infra": {}}), True),
        (policy(steps=({"weight": 10}, {"approval": {}}, {"weight": 100})), True),
        (ab_test(ERRORS, winner="errors"), True),
    ],
    ids=["by time", "recreate", "blue/green", "a metric", "a gate", "an approval", "a test"],
)
def test_whether_a_policy_asks_for_evidence(spec: RolloutPolicySpec, asked: bool) -> None:
    assert evidence_condition(spec, compile_steps(spec.strategy))[0] is asked


ZERO = {**ERRORS, "margin": "0"}
NO_ROOM = [
    ("a margin of 0", ZERO, True),
    ("a margin below 0", {**SLOW, "margin": "-0.01"}, True),
    ("a margin of 0 of counted requests", {**QUERY, "prometheus": COUNTED, "margin": "0.0"}, True),
    ("one above 0", ERRORS, False),
    ("no margin", {"name": "m", "builtin": "error-rate", "max": "0"}, False),
    ("one whose bursts are named", {**ZERO, "burst": 4}, False),
    ("one whose author knows of none", {**ZERO, "burst": 1}, False),
    ("one that decides nothing", {**ZERO, "dryRun": True}, False),
    ("a value", {**QUERY, "margin": "0"}, False),
]


@pytest.mark.parametrize(("case", "metric", "warned"), NO_ROOM, ids=[case for case, *_ in NO_ROOM])
def test_a_margin_without_room_for_bursts_is_warned_of(case: str, metric: Object, warned: bool) -> None:
    result = list(find_warnings(policy(metric)))
    assert len(result) == warned
    for text in result:
        assert text.startswith(f"spec.analysis.metrics[{metric['name']}].margin: {metric['margin']} leaves no room")
        assert "write burst" in text
