"""The operator as the chart installs it: `helm test` is content, and another replica goes on where the leader ends."""

from __future__ import annotations

import pytest

from demo import platform
from tests.e2e.lib.space import ModelwrightCluster, Space, eventually

pytestmark = pytest.mark.alone


def test_helm_test_finds_a_leader_that_is_ready(world: ModelwrightCluster) -> None:
    said = platform.helm(world.cluster, "test", "modelwright", "-n", platform.SYSTEM, "--logs", "--timeout", "2m")
    assert "ok      CRDs: " in said
    assert "leads and is ready" in said


def test_when_the_leader_goes_another_goes_on(world: ModelwrightCluster, space: Space) -> None:
    space.apply(space.version("digits-1"), space.model("digits-1", endpoint=False))
    space.wait_ready("digits-1")
    leader = world.operators()[0]["metadata"]["name"]
    world.kubectl.run("delete", "pod", leader, "-n", platform.SYSTEM, "--grace-period=0", "--force")
    space.apply(space.version("digits-2"))
    space.set_version("digits-2")
    space.wait_ready("digits-2", timeout=90)
    eventually(lambda: len(world.operators()) == 2, "two replicas are ready again")
    assert leader not in [pod["metadata"]["name"] for pod in world.operators()]
