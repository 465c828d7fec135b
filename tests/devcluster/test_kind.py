"""kind: what would be run and applied. There is no Docker engine here, so the whole is never run by these tests."""

from pathlib import Path

from devcluster import kind

NAMES = kind.KindNames("dev")


def test_the_cluster_has_two_workers_that_share_a_folder() -> None:
    nodes = kind.config(Path("/v"))["nodes"]
    assert [node["role"] for node in nodes] == ["control-plane", "worker", "worker"]
    assert nodes[1]["extraMounts"] == nodes[2]["extraMounts"] == [{"hostPath": "/v", "containerPath": "/volumes"}]


def test_create_and_delete_leave_the_users_kubeconfig_alone() -> None:
    create = kind.create("kind", NAMES, Path("/c.json"), Path("/k"))
    assert create == [
        *("kind", "create", "cluster", "--name", "modelwright-dev", "--config", "/c.json"),
        *("--kubeconfig", "/k", "--wait", "5m"),
    ]
    assert kind.create("kind", NAMES, Path("/c.json"), Path("/k"), "node:v1")[-2:] == ["--image", "node:v1"]
    assert kind.delete("kind", NAMES, Path("/k")) == [
        ["kind", "delete", "cluster", "--name", "modelwright-dev", "--kubeconfig", "/k"],
        ["docker", "rm", "--force", "--volumes", "modelwright-dev-registry"],
    ]


def test_the_registry_takes_pushes_on_loopback_and_pulls_by_name() -> None:
    command = kind.start_registry(NAMES)
    assert command[command.index("--publish") + 1].startswith("127.0.0.1::")
    assert command[command.index("--name") + 1] == NAMES.registry.partition(":")[0]
    trust = kind.trust_registry(NAMES, NAMES.nodes[0])
    assert trust[:3] == ["docker", "exec", "modelwright-dev-worker"]
    assert f"/etc/containerd/certs.d/{NAMES.registry}/hosts.toml" in trust[-1]


def test_addons_run_in_the_versions_of_the_embedded_cluster() -> None:
    applied = kind.addon_objects(NAMES, "172.18.0.2")
    deployments = {each["metadata"]["name"]: each for each in applied if each["kind"] == "Deployment"}
    assert set(deployments) == {"traefik", "prometheus", "s3"}
    containers = {name: each["spec"]["template"]["spec"]["containers"][0] for name, each in deployments.items()}
    assert containers["traefik"]["image"].endswith(":v3.6.12")
    assert containers["prometheus"]["image"].endswith(":v3.15.0")
    assert "--providers.kubernetesgateway.statusaddress.ip=172.18.0.2" in containers["traefik"]["args"]
    assert "--entrypoints.web.address=172.18.0.2:80" in containers["traefik"]["args"]
    for each in deployments.values():
        assert each["spec"]["template"]["spec"]["nodeName"] == NAMES.control_plane
    (config,) = [each for each in applied if each["kind"] == "ConfigMap"]
    assert "kubeconfig_file" not in config["data"]["prometheus.yml"]
