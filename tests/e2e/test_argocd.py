"""Argo CD itself drives a Model from a Git repository: what it shows, what it never fights, and its actions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from demo.kubectl import Json
from tests.e2e.lib.rollouts import CANARY, ERRORS, Story
from tests.e2e.lib.space import MODELS, Space, eventually
from tests.servers.argocd import NAMESPACE, ArgoCd
from tests.servers.git import Repository

pytestmark = [pytest.mark.peer, pytest.mark.timeout(1200)]

EXAMPLES = Path(__file__).parents[2] / "examples/gitops/argocd"
FAILS = {"errorShare": 0.6}


@dataclass
class Team:
    """A Model that only commits change, and what Argo CD says of it."""

    argocd: ArgoCd
    space: Space
    repository: Repository
    story: Story

    def commit(self, message: str, version: int) -> None:
        """Name a version in Git."""
        self.repository.commit(message, self.story.model(version, replicas=2))
        self.argocd.look_again(self.space.name)

    def says(self, health: str, *, sync: str = "Synced", timeout: float = 180) -> None:
        """Wait until Argo CD calls the Application so, of the newest commit."""

        def said() -> bool:
            status = self.argocd.application(self.space.name).get("status", {})
            seen = (status.get("sync", {}).get("status"), status.get("health", {}).get("status"))
            assert seen == (sync, health), f"{seen}: {status.get('conditions')}"
            return True

        eventually(said, f"Argo CD says {sync}, {health}", timeout=timeout)

    def node(self, kind: str, name: str) -> Json:
        """The resource as Argo CD's tree has it."""

        def found() -> Json | None:
            tree = self.argocd.tree(self.space.name)
            return next((each for each in tree if (each["kind"], each["name"]) == (kind, name)), None)

        node: Json = eventually(found, f"{kind} {name} is in Argo CD's tree")
        return node

    def offered(self, kind: str, name: str, *actions: str) -> None:
        """Wait until exactly these actions are offered."""
        node = self.node(kind, name)
        eventually(
            lambda: self.argocd.actions(self.space.name, node) == set(actions),
            f"{kind} {name} offers {actions}",
        )


@pytest.fixture
def team(space: Space, tmp_path: Path) -> Iterator[Team]:
    repository = Repository(tmp_path / "repository")
    (tmp_path / "argocd").mkdir()
    story = Story(space, "digits")
    with ArgoCd(space.world.cluster, tmp_path / "argocd") as argocd:
        told = Team(argocd, space, repository, story)
        policy = story.policy({"steps": CANARY}, [ERRORS], deadline="10m")
        repository.commit("versions and policy", policy, *story.versions({}, {}, FAILS))
        told.commit("serve version 1", 1)
        space.apply(*_of_the_example(space, repository))
        yield told
        space.kubectl.delete("applications.argoproj.io", space.name, NAMESPACE)


def _of_the_example(space: Space, repository: Repository) -> list[Json]:
    """The example's project, application and rights, of this repository and this namespace."""
    project, sets, rights = (
        yaml.safe_load((EXAMPLES / name).read_text()) for name in ("project.yaml", "applications.yaml", "command.yaml")
    )
    here = {"server": "https://kubernetes.default.svc", "namespace": space.name}
    project["spec"] |= {"sourceRepos": [repository.url], "destinations": [here]}
    template = sets["spec"]["template"]
    application = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": space.name, "namespace": NAMESPACE},
        "spec": template["spec"]
        | {"source": {"repoURL": repository.url, "targetRevision": "main", "path": "."}, "destination": here},
    }
    rights["metadata"]["namespace"] = space.name
    return [project, application, rights]


def test_commits_promote_evidence_takes_back_and_actions_act(team: Team) -> None:
    space, story = team.space, team.story
    space.wait_ready("digits-1", timeout=240)
    team.says("Healthy")

    with story.load():
        team.commit("promote version 2", 2)
        story.until(2, "Progressing")
        team.says("Progressing")
        record = story.record(2)
        assert record is not None
        name = record["metadata"]["name"]
        assert team.node("ModelRollout", name)["health"]["status"] == "Progressing"
        team.offered("ModelRollout", name, "pause", "promote", "abort")
        team.argocd.act(space.name, team.node("ModelRollout", name), "pause")
        team.says("Suspended")
        team.argocd.act(space.name, team.node("ModelRollout", name), "resume")
        space.wait_ready("digits-2", timeout=240)
        team.says("Healthy")

        team.commit("promote version 3, which fails", 3)
        story.until(3, "RolledBack")
        team.says("Degraded")
        model = space.get(MODELS, "digits")
        assert model is not None
        assert model["status"]["serving"]["version"] == "digits-2"
        team.commit("Revert", 2)
        team.says("Healthy")

    team.offered("Model", "digits", "rollback")
    team.argocd.act(space.name, team.node("Model", "digits"), "rollback")
    space.wait("back with version 1", lambda obj: obj["status"]["serving"]["version"] == "digits-1", timeout=120)
    team.says("Suspended")
    # Argo CD's self-heal has had its turns meanwhile: the Model is held, whatever Git says.
    held = space.get(MODELS, "digits")
    assert held is not None
    assert held["spec"]["version"] == {"name": "digits-2"}
    assert held["status"]["serving"]["version"] == "digits-1"
    team.commit("serve version 1: what serves", 1)
    team.says("Healthy")
