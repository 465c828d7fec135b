"""The command and the choice of where the cluster comes from."""

from pathlib import Path

import pytest

from devcluster import Cluster, ClusterError, cluster, images
from devcluster.__main__ import main


def test_the_backend_is_as_told_else_kind_where_docker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for told in ("existing", "kind", "embedded"):
        assert cluster.backend({"CLUSTER": told}) == told
    monkeypatch.setattr(images, "docker_answers", lambda: True)
    assert cluster.backend({}) == "kind"
    monkeypatch.setattr(images, "docker_answers", lambda: False)
    assert cluster.backend({}) == "embedded"
    with pytest.raises(ClusterError, match="existing, kind, embedded"):
        cluster.backend({"CLUSTER": "minikube"})


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLUSTER", "embedded")
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path))


@pytest.mark.usefixtures("nothing")
def test_commands_on_nothing_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 1
    assert main(["env"]) == 1
    assert "not up: python -m devcluster up" in capsys.readouterr().err
    with pytest.raises(ClusterError, match="unknown profile"):
        Cluster.up(profile="tiny")


def test_an_existing_cluster_needs_a_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLUSTER", "existing")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="set KUBECONFIG"):
        Cluster.up()


def test_a_name_that_is_no_folder_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "--name", "../x"]) == 1
    assert "name" in capsys.readouterr().err
