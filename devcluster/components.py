"""Command lines of the control plane's programs: pure functions, shared by every profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.parts import binary_path
from devcluster.pki import Authority, Identity

# KWOK's heartbeat is slower than the usual grace, so its nodes would flap.
NODE_GRACE_FLAG = "--node-monitor-grace-period=24h"


@dataclass(frozen=True)
class ApiServer:
    """Settings of the API server that differ between profiles."""

    folder: Path
    authority: Authority
    address: str
    port: int
    etcd: str
    service_range: str = "10.96.0.0/16"
    controllers: bool = False
    audit_log: Path | None = None
    admission_plugins: Sequence[str] = ()
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    extra: Sequence[str] = ()

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"


def kube_router(kubeconfig: Path, node: str, service_range: str) -> list[str]:
    """Run only the network policy controller, for the pods of one node."""
    return [
        str(binary_path("kube-router")),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        f"--service-cluster-ip-range={service_range}",
        "--health-port=0",
        "--metrics-port=0",
    ]


def etcd(data: Path, address: str, port: int, peer_port: int) -> list[str]:
    client, peer = f"http://{address}:{port}", f"http://{address}:{peer_port}"
    return [
        str(binary_path("etcd")),
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # No data here must survive a power cut; a crash of the process alone loses nothing.
        "--unsafe-no-fsync",
        "--quota-backend-bytes=4294967296",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=5m",
        "--log-level=warn",
    ]


def api_server(api: ApiServer, server: Identity, kubelet_client: Identity, service_account: Path) -> list[str]:
    folder = api.authority.folder
    loopback = api.address.startswith("127.")
    arguments = [
        str(binary_path("kube-apiserver")),
        f"--etcd-servers={api.etcd}",
        f"--bind-address={api.address}",
        f"--advertise-address={api.address}",
        f"--secure-port={api.port}",
        # A loopback address may not be published as the endpoint of the `kubernetes` Service.
        *(["--endpoint-reconciler-type=none"] if loopback else []),
        f"--service-cluster-ip-range={api.service_range}",
        f"--cert-dir={folder}",
        f"--client-ca-file={api.authority.certificate}",
        f"--tls-cert-file={server.certificate}",
        f"--tls-private-key-file={server.key}",
        f"--kubelet-certificate-authority={api.authority.certificate}",
        f"--kubelet-client-certificate={kubelet_client.certificate}",
        f"--kubelet-client-key={kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={api.authority.certificate}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={service_account}",
        f"--service-account-signing-key-file={service_account}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--profiling=false",
        # High enough that the machine, not these limits, sets the pace of scale runs.
        "--max-requests-inflight=3000",
        "--max-mutating-requests-inflight=2000",
    ]
    plugins = ["NodeRestriction", *api.admission_plugins]
    arguments.append(f"--enable-admission-plugins={','.join(plugins)}")
    if not api.controllers:
        # Without controllers no `default` ServiceAccount exists, which this plugin requires.
        arguments.append("--disable-admission-plugins=ServiceAccount")
    if api.audit_log:
        # Blocking: no event may be lost, since requests are counted from this file.
        arguments += [
            f"--audit-policy-file={audit_policy(api.folder)}",
            f"--audit-log-path={api.audit_log}",
            "--audit-log-mode=blocking",
            "--audit-log-maxsize=2000",
            "--audit-log-maxbackup=1",
        ]
    return [*arguments, *feature_gate_flags(api.feature_gates), *api.extra]


def audit_policy(folder: Path) -> Path:
    """Write a policy that logs each completed request in one line, without bodies."""
    file = folder / "audit-policy.yaml"
    file.write_text(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"
    )
    return file


def controller_manager(
    api: ApiServer, kubeconfig: Path, service_account: Path, port: int, simulated: bool, address: str = "127.0.0.1"
) -> list[str]:
    return [
        str(binary_path("kube-controller-manager")),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={address}",
        f"--secure-port={port}",
        f"--cert-dir={api.authority.folder / 'controller-manager'}",
        f"--root-ca-file={api.authority.certificate}",
        f"--cluster-signing-cert-file={api.authority.certificate}",
        f"--cluster-signing-key-file={api.authority.key}",
        f"--service-account-private-key-file={service_account}",
        f"--service-cluster-ip-range={api.service_range}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--kube-api-qps=2000",
        "--kube-api-burst=4000",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-service-endpoint-syncs=20",
        "--concurrent-job-syncs=20",
        "--concurrent-gc-syncs=40",
        "--concurrent-namespace-syncs=20",
        *([NODE_GRACE_FLAG] if simulated else []),
        *feature_gate_flags(api.feature_gates),
    ]


def scheduler(api: ApiServer, kubeconfig: Path, port: int, address: str = "127.0.0.1") -> list[str]:
    return [
        str(binary_path("kube-scheduler")),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={address}",
        f"--secure-port={port}",
        f"--cert-dir={api.authority.folder / 'scheduler'}",
        "--leader-elect=false",
        "--kube-api-qps=2000",
        "--kube-api-burst=4000",
        *feature_gate_flags(api.feature_gates),
    ]


def kwok(kubeconfig: Path) -> list[str]:
    return [
        str(binary_path("kwok")),
        f"--kubeconfig={kubeconfig}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-ip=127.0.0.1",
        "--cidr=10.0.0.1/8",
        "--node-lease-duration-seconds=40",
    ]


def feature_gate_flags(chosen: Mapping[str, bool]) -> list[str]:
    if not chosen:
        return []
    return ["--feature-gates=" + ",".join(f"{name}={str(on).lower()}" for name, on in sorted(chosen.items()))]
