"""A tenant attacks with all that `edit` allows, while another's canary goes on: nothing of it reaches the neighbour."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from demo import figures, platform
from demo.kubectl import Json
from tests.e2e.lib.attacker import Attacker
from tests.e2e.lib.rollouts import CANARY, ERRORS, Story
from tests.e2e.lib.space import ModelwrightCluster, Space

MEASURE = bool(os.environ.get("MODELWRIGHT_FIGURES"))
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        not MEASURE and not os.environ.get("MODELWRIGHT_FULL_MATRIX"), reason="keeps a small host busy: make test-all"
    ),
]
SECONDS = 600.0 if MEASURE else 60.0
RATE = 20
STEPS = [{"weight": 10, "hold": "20s"}, {"weight": 50, "hold": "20s"}, CANARY[-1]]
PAUSE = 1.0


@pytest.fixture
def attacker(world: ModelwrightCluster) -> Iterator[Attacker]:
    space = Space.create(world, "hostile")
    yield Attacker.enter(space)
    space.remove()


@contextmanager
def under_attack(attacker: Attacker) -> Iterator[None]:
    """All attacks at once, each again a second after it has ended."""
    over = threading.Event()

    def repeat(attack: Callable[[], None]) -> None:
        while not over.is_set():
            attack()
            over.wait(PAUSE)

    threads = [threading.Thread(target=repeat, args=(attack,), daemon=True) for attack in attacker.attacks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def restarts(world: ModelwrightCluster) -> dict[str, int]:
    """How often each container of the operator's pods was started again."""
    pods = world.kubectl.items("pods", platform.SYSTEM, "app.kubernetes.io/component=operator")
    return {
        pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
        for pod in pods
    }


def changes_of_leader(world: ModelwrightCluster) -> int:
    lease: Json | None = world.kubectl.get("leases.coordination.k8s.io", "modelwright-operator", platform.SYSTEM)
    assert lease is not None
    return int(lease["spec"].get("leaseTransitions", 0))


@pytest.mark.timeout(1200)
def test_a_canary_goes_on_while_a_tenant_attacks(space: Space, attacker: Attacker) -> None:
    world, story = space.world, Story(space, "good")
    # Going back is a canary too, and takes as long.
    story.prepare({"steps": STEPS}, {}, {}, metrics=[ERRORS], rollbackWindow=0)
    before, leader, number, begin = restarts(world), changes_of_leader(world), 2, time.monotonic()
    ended: list[float] = []
    with story.load(RATE) as load, under_attack(attacker):
        while time.monotonic() - begin < SECONDS:
            asked, last = time.monotonic(), story.record(number)
            story.wants(number)
            record = story.until(number, "Succeeded", "RolledBack", after=last)
            assert (record["status"]["state"], record["status"]["reason"]) == ("Succeeded", "Promoted")
            ended.append(time.monotonic() - asked)
            story.ready(number)
            number = 5 - number
    print(dict(sorted(attacker.answers.items())))
    after = restarts(world)
    if MEASURE:
        _write(load.report.total, len(load.report.lost), ended, sum(after.values()) - sum(before.values()))
    assert after == before, "no replica of the operator was started again"
    assert changes_of_leader(world) == leader, "the same replica leads"
    assert load.report.lost == [], "\n".join(load.report.lines(20))


def _write(asked: int, lost: int, ended: list[float], again: int) -> None:
    found = [
        figures.build_figure("attacked for", SECONDS, "s"),
        figures.build_figure("the neighbour's requests", asked, "requests"),
        figures.build_figure("the neighbour's requests that were lost", lost, "requests", "0", not lost),
        figures.build_figure("the neighbour's canaries that were promoted", len(ended), "rollouts"),
        figures.build_figure("the longest of them", round(max(ended), 1), "s"),
        figures.build_figure("replicas of the operator that were started again", again, "restarts", "0", not again),
    ]
    command = "MODELWRIGHT_FIGURES=1 python -m pytest tests/e2e/test_hostile.py"
    figures.write(figures.ROOT / "docs" / "figures" / "hostile.json", command, found)
