"""Answers compared in a mirror step, with real copies of real requests: no caller meets nonsense before it is found."""

from __future__ import annotations

import pytest

from demo.kubectl import Json
from devcluster.load import BackgroundLoad, Report
from modelwright.api import names
from tests.e2e.conftest import BOTH_GATEWAYS
from tests.e2e.lib.space import API, Space, eventually

ROLLOUTS = "modelrollouts.modelwright.dev"
RATE = 40
MIRROR = {"mirror": {"percent": 100, "hold": "5s"}}
AGREEMENT = {"name": "same-answers", "builtin": "agreement", "min": "0.9", "minSamples": 100}
ERRORS = {"name": "errors", "builtin": "error-rate", "margin": "0.1", "minSamples": 100}


def shadowed(space: Space, *metrics: Json) -> None:
    """v1 serves, and a policy that looks at copies by these metrics before it sends any caller elsewhere."""
    spec = {
        "strategy": {"steps": [MIRROR]},
        "analysis": {"interval": "2s", "metrics": list(metrics)},
        "deadline": "5m",
    }
    metadata = {"name": "shadow", "namespace": space.name}
    model = space.model("v1")
    model["spec"]["rolloutPolicyRef"] = {"name": "shadow"}
    space.apply({"apiVersion": API, "kind": "RolloutPolicy", "metadata": metadata, "spec": spec})
    space.apply(space.version("v1"), model)
    space.wait_ready("v1")
    space.asks("v1")


def rolled(space: Space, version: str, behaviour: Json, state: str) -> tuple[Json, Report]:
    """Status of the rollout to a version that behaves so, once it is in this state, and what callers got meanwhile."""
    space.apply(space.version(version, behaviour=behaviour))

    def there() -> Json:
        found = (o.get("status", {}) for o in space.items(ROLLOUTS) if o["spec"]["target"]["version"] == version)
        status: Json = next(found, {})
        told = {key: status.get(key) for key in ("state", "reason", "message", "verdicts")}
        assert status.get("state") == state, f"it is {told}"
        return status

    with BackgroundLoad(space.target(), rate=RATE) as load:
        space.set_version(version)
        status: Json = eventually(there, f"the rollout to {version} is {state}", timeout=240)
    assert load.report.lost == []
    return status, load.report


def verdict(status: Json, metric: str) -> Json:
    found: Json = next(v for v in status["verdicts"] if v["metric"] == metric)
    return found


@pytest.mark.parametrize("space", BOTH_GATEWAYS, indirect=True)
@pytest.mark.parametrize(("behaviour", "metric"), [({"wrongShare": 0.5}, AGREEMENT), ({"errorShare": 0.5}, ERRORS)])
def test_a_worse_version_is_never_seen_by_a_caller(space: Space, behaviour: Json, metric: Json) -> None:
    # One metric each: an error agrees with nothing either, so that both could be the first to decide.
    shadowed(space, metric)
    status, report = rolled(space, "v2", behaviour, "RolledBack")
    assert status["reason"] == "AnalysisFailed"
    assert set(report.versions) == {"v1"}
    assert verdict(status, metric["name"])["outcome"] == "Fail"
    comparer = names.comparer_name("digits")
    eventually(lambda: space.get("deployments.apps", comparer) is None, "the comparer is gone")


@pytest.mark.parametrize("space", BOTH_GATEWAYS, indirect=True)
def test_what_answers_the_same_is_promoted(space: Space) -> None:
    shadowed(space, AGREEMENT, ERRORS)
    status, _ = rolled(space, "v2", {}, "Succeeded")
    told = verdict(status, "same-answers")
    # A copy that is sent while the candidate's Service is being programmed gets no answer, and so none that agrees.
    assert told["outcome"] == "Pass" and float(told["candidate"]) >= 0.97, told  # noqa: PT018
    assert told["samples"] >= 100
    space.asks("v2")
