"""The operator behind an API server that fails: the same end as without faults, nothing made twice, nothing lost.

A sample of stories and faults runs each time, another one each time, and of what happens to the whole control plane;
MODELWRIGHT_SEED repeats one. MODELWRIGHT_FULL_MATRIX=1 runs every story under every fault and all disasters,
MODELWRIGHT_SAMPLE says how many places, MODELWRIGHT_STORIES (comma-separated) keeps to some stories, and
MODELWRIGHT_DISASTERS (comma-separated) to some disasters.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from devcluster import ControlPlane
from tests.controlplane.stories import STORIES
from tests.faults import disasters, matrix

pytestmark = [pytest.mark.kwok, pytest.mark.timeout(7200)]

FULL = os.environ.get("MODELWRIGHT_FULL_MATRIX") == "1"
SEED = int(os.environ.get("MODELWRIGHT_SEED", time.time_ns() % 2**32))
SAMPLE = int(os.environ.get("MODELWRIGHT_SAMPLE", "4"))
SAMPLED_DISASTERS = 2


def _places() -> list[matrix.Place]:
    wanted = os.environ.get("MODELWRIGHT_STORIES", "")
    stories = wanted.split(",") if wanted else list(STORIES)
    return matrix.everywhere(SEED, stories) if FULL else matrix.sample(SEED, SAMPLE, stories)


def test_whatever_fails_on_the_way_the_end_is_the_same(tmp_path: Path) -> None:
    places = _places()
    print(f"MODELWRIGHT_SEED={places[0].seed}; {', '.join(place.namespace for place in places)}")
    with ControlPlane(kwok_nodes=2) as plane:
        outcomes = asyncio.run(matrix.play(plane, tmp_path, places))
    for outcome in outcomes:
        print(f"{outcome.place.namespace}: {outcome.told}")
    assert sum(outcome.injected.total() for outcome in outcomes) >= len(places), "hardly anything failed"
    wrong = [f"{outcome.place}: {outcome.wrong}" for outcome in outcomes if outcome.wrong]
    assert not wrong, "\n\n".join(wrong)


def test_api_server_and_etcd_go_and_come_back_a_leader_is_cut_off_and_an_object_is_poisoned(tmp_path: Path) -> None:
    only = [name for name in os.environ.get("MODELWRIGHT_DISASTERS", "").split(",") if name]
    if not only and not FULL:
        only = random.Random(SEED).sample(disasters.NAMES, SAMPLED_DISASTERS)
        print(f"MODELWRIGHT_SEED={SEED}: {', '.join(only)}")
    with ControlPlane(kwok_nodes=2) as plane:
        outcomes = asyncio.run(disasters.play(plane, tmp_path, only=only))
    for outcome in outcomes:
        print(f"{outcome.name}: {outcome.seconds:.0f} s")
    wrong = [f"{outcome.name}: {outcome.wrong}" for outcome in outcomes if outcome.wrong]
    assert not wrong, "\n\n".join(wrong)
