"""One node: its own containerd and kubelet; both nodes share the sandbox, its CNI and one kube-proxy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from devcluster import parts
from devcluster.network import Network
from devcluster.pki import Authority, Identity
from devcluster.sandbox import cgroup

PAUSE_IMAGE = "localhost/modelwright-pause:1"
REGISTRY_PORT = 5000


@dataclass(frozen=True)
class Node:
    name: str
    cluster: str
    folder: Path
    address: str
    kubeconfig: Path
    serving: Identity

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def cgroup(self) -> str:
        """Its own cgroup: a kubelet kills unknown pods below its root."""
        return f"{cgroup(self.cluster)}/{self.name}"


def containerd(node: Node, shared: Path) -> list[str]:
    root = node.folder / "containerd"
    config = f"""version = 2
root = "{root}"
state = "/run/containerd-{node.name}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "{node.socket}"
[ttrpc]
address = "{node.socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
stream_server_address = "127.0.0.1"
# Without this, where root lacks CAP_SYS_RESOURCE, no sandbox starts ("can't get final child's PID from pipe: EOF").
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{shared / "cni"}"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{shared / "registries"}"
"""
    node.folder.mkdir(parents=True, exist_ok=True)
    file = node.folder / "containerd.toml"
    file.write_text(config)
    return ["containerd", f"--config={file}", "--log-level=warn"]


def share(shared: Path, network: Network) -> None:
    """Write the files that both nodes read: pod addresses, and plain HTTP for the cluster's registry."""
    cni = shared / "cni"
    cni.mkdir(parents=True, exist_ok=True)
    (cni / "10-modelwright.conflist").write_text(
        json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "modelwright",
                "plugins": [
                    {
                        # Not a bridge: traffic between pods is routed, so Services work without br_netfilter.
                        "type": "ptp",
                        "ipam": {
                            "type": "host-local",
                            "dataDir": str(shared / "addresses"),
                            "ranges": [[{"subnet": network.pods}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    },
                    {"type": "portmap", "capabilities": {"portMappings": True}},
                ],
            },
            indent=1,
        )
    )
    registry = f"{network.address}:{REGISTRY_PORT}"
    hosts = shared / "registries" / registry
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "hosts.toml").write_text(
        f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'
    )


def kubelet(node: Node, number: int, authority: Authority, network: Network, resolv_conf: Path) -> list[str]:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248 - 100 * number,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(node.serving.certificate),
        "tlsPrivateKeyFile": str(node.serving.key),
        "clusterDomain": "cluster.local",
        "clusterDNS": [network.dns_service],
        "resolvConf": str(resolv_conf),
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "podLogsDir": str(node.folder / "pods"),
        "volumePluginDir": str(node.folder / "plugins"),
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # The disk is the host's, and may be fuller than a node's ever is.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    }
    node.folder.mkdir(parents=True, exist_ok=True)
    file = node.folder / "kubelet.json"
    file.write_text(json.dumps(config, indent=1))
    return [
        str(parts.binary_path("kubelet")),
        f"--config={file}",
        f"--kubeconfig={node.kubeconfig}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.folder / 'kubelet'}",
        f"--cert-dir={node.folder / 'certificates'}",
    ]


def kube_proxy(kubeconfig: Path, node: str, network: Network, folder: Path) -> list[str]:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node,
        "clusterCIDR": network.pods,
        "bindAddress": network.address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # The connection table is the host's, and must keep its size.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
    file = folder / "kube-proxy.json"
    file.write_text(json.dumps(config, indent=1))
    return [str(parts.binary_path("kube-proxy")), f"--config={file}"]
