"""The programs to build: each in the module that go.mod pins, found where its version says."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devcluster import addons, components, parts, paths
from devcluster.errors import ClusterError
from devcluster.network import Network
from devcluster.pki import Authority


@pytest.mark.parametrize("part", parts.GO_TOOLS, ids=lambda part: part.name)
def test_every_part_has_a_pinned_version_and_names_its_tools(part: parts.GoTool) -> None:
    assert re.fullmatch(r"\d+(\.\d+){0,2}", part.version())
    go_mod = (paths.TOOLS / part.name / "go.mod").read_text()
    if part.module:
        for package in part.packages.values():
            if package == ".":
                assert (paths.TOOLS / part.name / "main.go").read_text().startswith("// ")
            else:
                assert re.search(rf"^(tool)?\s+{re.escape(package)}$", go_mod, re.MULTILINE), package


def test_every_program_of_a_profile_is_built_by_some_part() -> None:
    for binary in (*parts.CONTROL_PLANE, *parts.CONTROLLERS, *parts.SIMULATION, *parts.NODE):
        assert parts.binary_path(binary).parent == parts.tool_of(binary).folder()
    with pytest.raises(ClusterError, match="no part"):
        parts.tool_of("dockerd")


def test_kubernetes_knows_its_version() -> None:
    """Without it the API server reports v0.0.0, and clients misbehave."""
    kubernetes = parts.tool_of("kube-apiserver")
    assert f"gitVersion=v{kubernetes.version()}" in kubernetes.ldflags()


def test_an_older_kubernetes_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWRIGHT_KUBERNETES", "1.32")
    assert parts.binary_path("kube-apiserver").parent.name.startswith("kubernetes-1.32.")
    monkeypatch.setenv("MODELWRIGHT_KUBERNETES", "1.20")
    with pytest.raises(ClusterError, match=r"MODELWRIGHT_KUBERNETES is 1.20: it is one of 1.32, or empty"):
        parts.binary_path("kube-apiserver")


@pytest.mark.parametrize("minor", ["", "1.32"])
def test_all_staging_modules_are_replaced_by_the_same_version(monkeypatch: pytest.MonkeyPatch, minor: str) -> None:
    monkeypatch.setenv("MODELWRIGHT_KUBERNETES", minor)
    text = (parts.tool_of("kubelet").source() / "go.mod").read_text()
    version = parts.tool_of("kubelet").version()
    found = re.findall(r"^\s+(k8s\.io/\S+) => (\S+) v0\.(\S+)$", text, re.MULTILINE)
    assert len(found) == 29
    assert {(old == new, minor) for old, new, minor in found} == {(True, version.removeprefix("1."))}


def part(name: str) -> parts.GoTool:
    return next(each for each in parts.GO_TOOLS if each.name == name)


def test_all_tools_are_built_from_one_list_of_versions() -> None:
    shared = {folder.name for folder in parts.shared_folders()}
    runs = {*parts.CONTROL_PLANE, *parts.CONTROLLERS, *parts.NODE}
    assert {parts.tool_of(name).name for name in runs} - {"pause"} <= shared
    assert shared <= {part.name for part in parts.GO_TOOLS if not part.on_request}


def test_what_a_part_replaces_holds_for_it_alone() -> None:
    """Traefik's fork of a router would leave the registry without routes."""
    ours = "\tgithub.com/gorilla/mux => github.com/gorilla/mux v"
    fork = re.compile(r"^\tgithub.com/gorilla/mux => github.com/containous/mux v", re.MULTILINE)
    assert fork.search((paths.TOOLS / "traefik/go.mod").read_text())
    assert ours in parts.common_versions(paths.TOOLS / "registry")
    assert ours not in parts.common_versions(paths.TOOLS / "traefik")
    assert parts.common_versions(paths.TOOLS / "traefik").count(" => ") == parts.WORKSPACE.read_text().count(" => ") - 1
    assert f"\t{paths.TOOLS}/traefik\n" in parts.common_versions(paths.TOOLS / "registry")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the tree's Go modules that a test may change."""
    copy = shutil.copytree(paths.TOOLS, tmp_path / "tools")
    monkeypatch.setattr(paths, "TOOLS", copy)
    monkeypatch.setattr(parts, "WORKSPACE", copy / "go.work")
    parts.shared_folders.cache_clear()
    yield copy
    parts.shared_folders.cache_clear()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("traefik", "traefik/module.patch"),
        ("coredns", "coredns/main.go"),
        ("etcd", "go.work"),
        ("helm", "prometheus/go.mod"),
    ],
    ids=["what is cut off it", "its own main", "a pinned version", "the versions of another part"],
)
def test_what_it_is_built_from_names_the_folder(tools: Path, name: str, changed: str) -> None:
    before = part(name).folder()
    with (tools / changed).open("a") as file:
        file.write("// changed\n")
    assert part(name).folder() != before
    assert part("pause").folder().name == "pause-1"
    assert re.fullmatch(r"argocd-[\d.]+", part("argocd").folder().name)


def test_the_cut_fits_the_version_that_is_built(tools: Path) -> None:
    """Each file that is changed is known to the patch by lines of its own; a new version may have others."""
    patch = (tools / "traefik/module.patch").read_text()
    changed = re.findall(r"^\+\+\+ b/(\S+)$", patch, re.MULTILINE)
    assert {"pkg/config/static/static_config.go", "pkg/provider/aggregator/aggregator.go"} <= set(changed)
    for kept in ("gateway.Provider", "crd.Provider", "Prometheus"):
        assert not re.search(rf"^-.*{kept}", patch, re.MULTILINE), kept


def test_a_patch_that_does_not_fit_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "a.go").write_text("package a\n")
    patch = tmp_path / "module.patch"
    patch.write_text("--- a/a.go\n+++ b/a.go\n@@ -1 +1 @@\n-package b\n+package c\n")
    with pytest.raises(ClusterError, match=r"does not fit its module: make it for the version in go\.mod"):
        parts.apply(patch, folder)
    patch.write_text("--- a/a.go\n+++ b/a.go\n@@ -1 +1 @@\n-package a\n+package c\n")
    parts.apply(patch, folder)
    assert (folder / "a.go").read_text() == "package c\n"


def test_the_corefile_names_only_plugins_that_are_built_in(tmp_path: Path) -> None:
    places = addons.AddonPaths(tmp_path, tmp_path / "kubeconfig", Network(0))
    addons.coredns(places, ["192.0.2.1"])
    used = set(re.findall(r"^  (\w+)", (tmp_path / "coredns/Corefile").read_text(), re.MULTILINE))
    main = (paths.TOOLS / "coredns/main.go").read_text()
    assert used == set(re.findall(r'_ "github.com/coredns/coredns/plugin/(\w+)"', main))


def test_the_registry_is_built_with_the_store_that_it_uses(tmp_path: Path) -> None:
    addons.registry(addons.AddonPaths(tmp_path, tmp_path / "kubeconfig", Network(0)))
    config = yaml.safe_load((tmp_path / "registry/config.yml").read_text())
    assert "filesystem" in config["storage"]
    assert (
        '"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"'
        in (paths.TOOLS / "registry/main.go").read_text()
    )


def test_no_registry_address_or_local_path_is_committed() -> None:
    root = Path(parts.__file__).parent
    listed = subprocess.run(["git", "ls-files", "."], cwd=root, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        text = (root / name).read_text()
        assert str(Path.home()) not in text or Path.home() == Path("/"), name
        assert "GOPROXY" not in text, name


def api(folder: Path, **options: object) -> list[str]:
    authority = Authority.create(folder)
    identity = authority.sign("any", "any")
    wanted = components.ApiServer(folder, authority, "127.0.0.1", 6443, "http://127.0.0.1:2379", **options)
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
    wanted = components.ApiServer(tmp_path, authority, "127.0.0.1", 1, "http://127.0.0.1:2")
    key = tmp_path / "sa.key"
    assert components.NODE_GRACE_FLAG in components.controller_manager(wanted, tmp_path, key, 3, simulated=True)
    assert components.NODE_GRACE_FLAG not in components.controller_manager(wanted, tmp_path, key, 3, simulated=False)
