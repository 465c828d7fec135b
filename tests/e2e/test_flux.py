"""Flux itself drives a Model from a Git repository: when it waits, what it calls failed, and what it never undoes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from demo.kubectl import Json, conditions
from tests.e2e.lib.plugin import plugin
from tests.e2e.lib.rollouts import CANARY, ERRORS, Story
from tests.e2e.lib.space import MODELS, Space, eventually
from tests.servers import flux
from tests.servers.flux import KUSTOMIZATIONS, Flux
from tests.servers.git import GitServer, Repository

pytestmark = [pytest.mark.peer, pytest.mark.timeout(1200)]

EXAMPLES = Path(__file__).parents[2] / "examples/gitops/flux"
FAILS = {"errorShare": 0.6}


@dataclass
class Team:
    """A Model that only commits change, and what Flux says of it."""

    flux: Flux
    space: Space
    repository: Repository
    story: Story

    def commit(self, message: str, version: int) -> str:
        """Name a version in Git; returns the commit."""
        commit = self.repository.commit(message, self.story.model(version, replicas=2))
        self.look_again()
        return commit

    def look_again(self) -> None:
        if self.space.get(KUSTOMIZATIONS, "models") is not None:
            self.flux.look_again(self.space.name, "models")

    def says(self, commit: str, ready: bool, *mentions: str, timeout: float = 180) -> None:
        """Wait until the Kustomization has applied a commit, and is ready or not, and mentions these. While Flux looks,
        Ready is Unknown; between two looks it is False."""

        def said() -> bool:
            found = self.space.get(KUSTOMIZATIONS, "models") or {}
            tried = found.get("status", {}).get("lastAttemptedRevision", "")
            condition = conditions(found).get("Ready", {})
            words = f"{tried}: {condition}"
            assert commit in tried, words
            assert (condition["status"] == "True") is ready, words
            assert all(mention in condition["message"] for mention in mentions), words
            return True

        eventually(said, f"Flux says Ready={ready} of {commit}", timeout=timeout)

    def generation(self) -> int:
        model = self.space.get(MODELS, self.story.name)
        assert model is not None
        return int(model["metadata"]["generation"])


@pytest.fixture
def team(space: Space, tmp_path: Path) -> Iterator[Team]:
    (tmp_path / "flux").mkdir()
    (tmp_path / "git").mkdir()
    repository = Repository(tmp_path / "git" / "models")
    story = Story(space, "digits")
    policy = story.policy({"steps": CANARY}, [ERRORS], deadline="10m")
    repository.commit("versions and policy", policy, *story.versions({}, {}, FAILS))
    with GitServer(repository.folder.parent) as server, flux.running(space.world.cluster, tmp_path / "flux") as ran:
        team = Team(ran, space, repository, story)
        team.commit("serve version 1", 1)
        space.apply(*of_the_example(space, f"{server.url}/models"))
        yield team
        # While Flux runs: it takes its finalizers away.
        space.delete(KUSTOMIZATIONS, "models", wait=True)


def of_the_example(space: Space, url: str) -> list[Json]:
    """The example's source, Kustomization, health checks and rights of one environment, for this repository and this
    namespace."""
    source, environments, checks = (
        next(yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()))
        for name in ("source", "environments", "health-checks")
    )
    source["metadata"] = environments["metadata"] = {"name": "models", "namespace": space.name}
    source["spec"]["url"] = url
    # A commit that comes while a health check waits is looked at when the wait is over.
    environments["spec"] |= checks["spec"] | {"timeout": "15s", "retryInterval": "5s", "path": "./"}
    rights = []
    for obj in yaml.safe_load_all((EXAMPLES / "rights.yaml").read_text()):
        if obj["metadata"].get("namespace") in ("flux-system", "digits-staging"):
            obj["metadata"]["namespace"] = space.name
            for subject in obj.get("subjects", ()):
                subject["namespace"] = space.name
            rights.append(obj)
    return [*rights, source, environments]


def test_commits_promote_and_a_manual_rollback_stays(team: Team) -> None:
    space, story = team.space, team.story
    space.wait_ready("digits-1", timeout=240)
    team.says("main", True)

    with story.load():
        second = team.commit("promote version 2", 2)
        story.until(2, "Progressing")
        team.says(second, False)
        space.wait_ready("digits-2", timeout=240)
        team.says(second, True)

        third = team.commit("promote version 3, which fails", 3)
        story.until(3, "RolledBack")
        team.says(third, False, "Model", "Failed")
        model = space.get(MODELS, "digits")
        assert model is not None
        assert model["status"]["serving"]["version"] == "digits-2"
        back = team.commit("Revert", 2)
        team.says(back, True)

    plugin(story, "rollback", "digits", "--to", "digits-1", "--reason", "wrong answers")
    space.wait("back with version 1", lambda obj: obj["status"]["serving"]["version"] == "digits-1", timeout=120)
    generation = team.generation()
    # Flux applies what Git says once more: the Model is held, and nothing of it was changed.
    team.look_again()
    team.says(back, False, "Failed")
    assert team.generation() == generation
    team.says(team.commit("serve version 1: what serves", 1), True)
