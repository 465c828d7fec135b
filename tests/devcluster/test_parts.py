"""The programs to build: each in the module that go.mod pins, found where its version says."""

import re
import subprocess
from pathlib import Path

import pytest

from devcluster import components, parts, paths
from devcluster.errors import ClusterError
from devcluster.pki import Authority


@pytest.mark.parametrize("part", parts.PARTS, ids=lambda part: part.name)
def test_every_part_has_a_pinned_version_and_names_its_tools(part: parts.Part) -> None:
    assert re.fullmatch(r"\d+(\.\d+){0,2}", part.version())
    go_mod = (paths.TOOLS / part.name / "go.mod").read_text()
    if part.module:
        for package in part.packages.values():
            assert re.search(rf"^(tool)?\s+{re.escape(package)}$", go_mod, re.MULTILINE), package


def test_every_program_of_a_profile_is_built_by_some_part() -> None:
    for binary in (*parts.CONTROL_PLANE, *parts.CONTROLLERS, *parts.SIMULATION, *parts.NODE):
        assert parts.path(binary).parent == parts.part_of(binary).folder()
    with pytest.raises(ClusterError, match="no part"):
        parts.part_of("dockerd")


def test_kubernetes_knows_its_version() -> None:
    """Without it the API server reports v0.0.0, and clients misbehave."""
    kubernetes = parts.part_of("kube-apiserver")
    assert f"gitVersion=v{kubernetes.version()}" in kubernetes.ldflags()


def test_an_older_kubernetes_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWRIGHT_KUBERNETES", "1.32")
    assert parts.path("kube-apiserver").parent.name.startswith("kubernetes-1.32.")
    monkeypatch.setenv("MODELWRIGHT_KUBERNETES", "1.20")
    with pytest.raises(ClusterError, match=r"MODELWRIGHT_KUBERNETES is 1.20: it is one of 1.32, or empty"):
        parts.path("kube-apiserver")


@pytest.mark.parametrize("minor", ["", "1.32"])
def test_all_staging_modules_are_replaced_by_the_same_version(monkeypatch: pytest.MonkeyPatch, minor: str) -> None:
    monkeypatch.setenv("MODELWRIGHT_KUBERNETES", minor)
    text = (parts.part_of("kubelet").source() / "go.mod").read_text()
    version = parts.part_of("kubelet").version()
    found = re.findall(r"^\s+(k8s\.io/\S+) => (\S+) v0\.(\S+)$", text, re.MULTILINE)
    assert len(found) == 29
    assert {(old == new, minor) for old, new, minor in found} == {(True, version.removeprefix("1."))}


def test_no_registry_address_and_no_path_of_this_machine_is_committed() -> None:
    root = Path(parts.__file__).parent
    listed = subprocess.run(["git", "ls-files", "."], cwd=root, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        text = (root / name).read_text()
        assert str(Path.home()) not in text or Path.home() == Path("/"), name
        assert "GOPROXY" not in text, name


def api(folder: Path, **options: object) -> list[str]:
    authority = Authority.create(folder)
    identity = authority.sign("any", "any")
    wanted = components.Api(folder, authority, "127.0.0.1", 6443, "http://127.0.0.1:2379", **options)
    return components.api_server(wanted, identity, identity, folder / "sa.key")


def test_without_controllers_pods_need_no_service_account(tmp_path: Path) -> None:
    assert "--disable-admission-plugins=ServiceAccount" in api(tmp_path)
    assert "--disable-admission-plugins=ServiceAccount" not in api(tmp_path, controllers=True)


def test_the_audit_log_holds_one_line_for_each_answered_request(tmp_path: Path) -> None:
    arguments = api(tmp_path, audit_log=tmp_path / "audit.log")
    assert f"--audit-log-path={tmp_path / 'audit.log'}" in arguments
    assert "RequestReceived" in (tmp_path / "audit-policy.yaml").read_text()


def test_flags_are_passed_on(tmp_path: Path) -> None:
    arguments = api(tmp_path, feature_gates={"B": False, "A": True}, admission_plugins=["X"], extra=["--v=4"])
    assert "--feature-gates=A=true,B=false" in arguments
    assert "--enable-admission-plugins=NodeRestriction,X" in arguments
    assert arguments[-1] == "--v=4"


def test_simulated_nodes_do_not_flap(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    wanted = components.Api(tmp_path, authority, "127.0.0.1", 1, "http://127.0.0.1:2")
    key = tmp_path / "sa.key"
    assert components.PATIENT_WITH_NODES in components.controller_manager(wanted, tmp_path, key, 3, simulated=True)
    assert components.PATIENT_WITH_NODES not in components.controller_manager(wanted, tmp_path, key, 3, simulated=False)
