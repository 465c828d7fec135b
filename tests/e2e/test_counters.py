"""What a gateway counts is evidence: by `source: Gateway` a failing version goes back, a good one goes on."""

from __future__ import annotations

import pytest

from demo.kubectl import Json
from tests.e2e.conftest import BOTH_GATEWAYS
from tests.e2e.lib.rollouts import CANARY, ERRORS, SLOW, Story
from tests.e2e.lib.space import Space

METRICS = [{**metric, "source": "Gateway"} for metric in (ERRORS, SLOW)]
FAILS = {"errorShare": 0.6}


def verdicts(record: Json) -> dict[str, Json]:
    """The last verdict of each metric, by name."""
    found: dict[str, Json] = {verdict["metric"]: verdict for verdict in record["status"]["verdicts"]}
    return found


@pytest.mark.parametrize("space", BOTH_GATEWAYS, indirect=True)
def test_a_rollout_is_decided_by_what_the_gateway_counts(space: Space) -> None:
    story = Story(space, "digits")
    story.prepare({"steps": CANARY}, FAILS, {}, metrics=METRICS)
    failing = story.under_load(2)
    assert failing.end == ("RolledBack", "AnalysisFailed")
    errors = verdicts(failing.record)["errors"]
    assert (errors["outcome"], errors["query"].partition(":")[0]) == ("Fail", "Gateway")
    assert failing.load.versions["digits-1"] > failing.load.versions["digits-2"]

    good = story.under_load(3)
    assert good.end[0] == "Succeeded"
    assert {name: found["outcome"] for name, found in verdicts(good.record).items()} == {
        "errors": "Pass",
        "slow": "Pass",
    }
    assert good.load.lost == []
    space.asks("digits-3")
