"""How many writes a Model's life takes: a status is written when somebody acts on it (docs/adr/0017)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.workers import ReconcileResult
from tests.lib.rollout_harness import NS, RolloutHarness, policy

TEMPLATE = {"artifact": {"uri": "s3://models/v9", "digest": "sha256:" + "9" * 64, "format": {"name": "plain"}}}
CHILDREN = Counter(["create Deployment", "create ControllerRevision", "patch Service", "delete Deployment"])


class Counted(RolloutHarness):
    """A Model without a gateway, whose writes are counted."""

    def __init__(self, spec: dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__(spec, **more)
        self.looks()
        self.mark = len(self.api.writes)

    def looks(self, count: int = 8) -> None:
        """All that there is to do was done."""
        for _ in range(count):
            self.look()

    @property
    def counted(self) -> Counter[str]:
        return Counter(f"{verb} {kind.kind}" for verb, kind, _ in self.api.writes[self.mark :])


def test_a_change_takes_six_writes() -> None:
    world = Counted(endpoint=False, replicas=1)
    world.want("v2")
    world.looks()
    assert world.serving == "v2"
    assert world.counted == CHILDREN + Counter({"status Model": 2})


def test_a_change_among_others_takes_no_more() -> None:
    world = Counted(endpoint=False, replicas=1)
    world.crowd = world.busy = True
    world.want("v2")
    world.look()
    world.crowd = False
    world.looks()
    assert world.serving == "v2"
    assert world.counted == CHILDREN + Counter({"status Model": 2})


def test_template_change_takes_seven_writes() -> None:
    world = Counted(endpoint=False, replicas=1)
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"version": {"name": None, "template": TEMPLATE}}})
    world.looks()
    assert world.serving is not None
    assert "status" not in world.api.objects[kinds.MODEL_VERSION, NS, world.serving]
    assert world.counted == CHILDREN + Counter({"status Model": 2, "create ModelVersion": 1})


def test_a_canary_of_five_steps_takes_at_most_thirty() -> None:
    steps = [{"weight": weight, "hold": "30s"} for weight in (5, 10, 25, 50)] + [{"weight": 100}]
    world = Counted(policy(*steps), replicas=2)
    world.want("v2")
    world.looks(60)
    assert world.record["state"] == "Succeeded"
    assert sum(world.counted.values()) <= 30, world.counted


def test_serving_change_enqueues_the_runs_of_both_versions() -> None:
    world = Counted(endpoint=False, replicas=1)
    for name in ("v1", "v2"):
        world.api.user_patch(kinds.MODEL_VERSION, NS, name, {"spec": {"lineage": {"trainingRun": f"run-of-{name}"}}})
    world.looks()
    heard: list[str] = []

    async def hear(key: Key) -> ReconcileResult:
        heard.append(key.name)
        return ReconcileResult()

    world.operator.reconcilers["TrainingRun"] = hear
    world.want("v2")
    world.looks()
    assert world.serving == "v2"
    assert {"run-of-v1", "run-of-v2"} <= set(heard)
