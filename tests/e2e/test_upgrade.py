"""The chart of the commit before, this one, and back again: models and a canary under way don't notice."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from demo import platform
from demo.kubectl import Json
from tests.e2e.conftest import chart_values
from tests.e2e.lib.plugin import plugin
from tests.e2e.lib.rollouts import Story
from tests.e2e.lib.space import ModelwrightCluster, Space, eventually

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]

MODELS = 8
FOREVER = {"steps": [{"weight": 50, "hold": "1h"}, {"weight": 100}]}
BEFORE = os.environ.get("MODELWRIGHT_UPGRADE_FROM", "HEAD~1")


@pytest.fixture(scope="module")
def before(
    world: ModelwrightCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, str]]]:
    """The commit before: its files, and its images in the registry. This one is installed again at the end."""
    done = subprocess.run(["git", "archive", BEFORE], cwd=platform.ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"there is no commit before this one here: {done.stderr.decode().strip()}")
    root = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(root, filter="data")
    yield root, world.images | platform.images(world.cluster, ("operator", "fetch"), root=root, tag="before")
    install(world, platform.ROOT, world.images)


def install(world: ModelwrightCluster, root: Path, images: dict[str, str]) -> None:
    for _ in platform.install(world.cluster, images, chart_values(world.cluster), root=root):
        pass


def uids(space: Space) -> dict[str, str]:
    """All serving pods of the space that are not on their way out, with their uids."""
    pods = space.items("pods", "modelwright.dev/role=serving")
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
    }


def settled(space: Space, name: str, uri: str) -> None:
    """The operator that is at work now has passed over every Model: one that came later, and so last, serves."""
    space.apply(space.version(f"{name}-1", name, uri=uri), small(space, name))
    space.wait_ready(f"{name}-1", name)


def small(space: Space, name: str) -> Json:
    return space.model(f"{name}-1", name, endpoint=False, resources={"requests": {"cpu": "10m"}})


def test_no_pod_goes_and_a_canary_ends_as_it_would_have(
    world: ModelwrightCluster, before: tuple[Path, dict[str, str]], shared_space: Space
) -> None:
    install(world, *before)
    names = [f"m{number:02}" for number in range(MODELS)]
    # One artifact for all of them: what differs is the Model.
    uri = shared_space.artifact("all")
    for name in names:
        shared_space.apply(shared_space.version(f"{name}-1", name, uri=uri), small(shared_space, name))
    canary = Story(shared_space, "canary")
    canary.prepare(FOREVER, {}, {}, deadline="2h")
    for name in names:
        shared_space.wait_ready(f"{name}-1", name, timeout=300)
    with canary.load(20) as load:
        canary.wants(2)
        canary.until(2, "Progressing", step=0)
        pods = uids(shared_space)

        install(world, platform.ROOT, world.images)
        eventually(lambda: len(world.operators()) == 2, "the new operator is ready")
        settled(shared_space, "after-upgrade", uri)
        assert pods.items() <= uids(shared_space).items(), "upgraded"
        canary.until(2, "Progressing", step=0)
        plugin(canary, "promote", canary.name, "--reason", "the operator was upgraded meanwhile")
        canary.until(2, "Succeeded")
        canary.ready(2)
        eventually(lambda: not canary.uids(1), "the pods of the first version are gone, as they would be")

        canary.wants(3)
        canary.until(3, "Progressing", step=0)
        pods = uids(shared_space)
        install(world, *before)
        settled(shared_space, "after-downgrade", uri)
        assert pods.items() <= uids(shared_space).items(), "downgraded"
        canary.until(3, "Progressing", step=0)
        plugin(canary, "abort", canary.name, "--reason", "the operator was downgraded meanwhile")
        canary.until(3, "Aborted")
        canary.space.asks(canary.version(2), canary.name)
    assert not load.report.lost, load.report.lines()
