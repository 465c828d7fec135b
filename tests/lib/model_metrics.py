"""Metrics of a Model whose canary is held at 10 %."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelwright.obs.metrics import REGISTRY
from tests.lib.rollout_harness import JUDGED, NS, RolloutHarness, good

LIVE = ("modelwright_rollout_info", "modelwright_rollout_verdict", "modelwright_rollout_outcome")


NOTHING: list[dict[tuple[str, ...], float]] = [{}] * len(LIVE)


def series(name: str) -> dict[tuple[str, ...], float]:
    """Values by the labels beside the Model's, as a scrape sees them."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(REGISTRY).decode()):
        for sample in family.samples if family.name == name else ():
            if (sample.labels.pop("namespace"), sample.labels.pop("model")) == (NS, "digits"):
                found[tuple(label for _, label in sorted(sample.labels.items()))] = sample.value
    return found


def held_at_ten() -> RolloutHarness:
    world = RolloutHarness(JUDGED)
    assert [series(name) for name in LIVE] == NOTHING, "what serves is no rollout"
    world.scheduler.results["errors"] = good(candidate=50)
    world.want("v2")
    world.go_to("Holding")
    return world
