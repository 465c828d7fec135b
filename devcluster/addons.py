"""Command lines and objects of the cluster's add-ons: DNS, registry, S3 store, gateway, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import parts, paths
from devcluster.network import Network
from devcluster.node import REGISTRY_PORT

DNS_PORT, GATEWAY_PORT, TRAEFIK_METRICS_PORT, PROMETHEUS_PORT, S3_PORT = 53, 80, 9100, 9090, 7070
OPERATOR_NAMESPACE = "modelwright-system"
PROMETHEUS = {"namespace": "kube-system", "name": "prometheus"}
TOKEN_FILE = "token"
POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# A test cluster that only its own host reaches: these are no secret.
S3_ACCESS_KEY, S3_SECRET_KEY = "modelwright", "modelwright-secret"


@dataclass(frozen=True)
class AddonPaths:
    """The folders and addresses of an add-on."""

    folder: Path
    kubeconfig: Path
    network: Network

    def make_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def coredns(places: AddonPaths, upstream: Sequence[str]) -> list[str]:
    forward = f"forward . {' '.join(upstream)}" if upstream else ""
    file = places.make_folder("coredns") / "Corefile"
    file.write_text(
        f""".:{DNS_PORT} {{
  bind {places.network.address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {places.kubeconfig}
    pods insecure
    ttl 5
  }}
  {forward}
  cache 5
}}
"""
    )
    return [str(parts.binary_path("coredns")), f"-conf={file}"]


def registry(places: AddonPaths) -> list[str]:
    # Content-addressed, so it may outlive the cluster and serve the next: nothing is pushed twice.
    store = paths.cache() / "registry"
    store.mkdir(parents=True, exist_ok=True)
    file = places.make_folder("registry") / "config.yml"
    file.write_text(
        f"""version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {store}}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "{places.network.address}:{REGISTRY_PORT}"}}
"""
    )
    return [str(parts.binary_path("registry")), "serve", str(file)]


def s3(places: AddonPaths) -> list[str]:
    return [
        str(parts.binary_path("versitygw")),
        f"--access={S3_ACCESS_KEY}",
        f"--secret={S3_SECRET_KEY}",
        f"--port={places.network.address}:{S3_PORT}",
        "--keep-alive",
        "--quiet",
        "posix",
        str(places.make_folder("s3")),
    ]


def traefik(places: AddonPaths) -> list[str]:
    address = places.network.address
    return [str(parts.binary_path("traefik")), *traefik_flags(address, address)]


def traefik_flags(listen: str, published: str) -> list[str]:
    return [
        f"--entrypoints.web.address={listen}:{GATEWAY_PORT}",
        f"--entrypoints.metrics.address={listen}:{TRAEFIK_METRICS_PORT}",
        "--ping.entrypoint=metrics",
        "--metrics.prometheus=true",
        "--metrics.prometheus.entrypoint=metrics",
        "--metrics.prometheus.addserviceslabels=true",
        "--metrics.prometheus.buckets=0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10",
        "--providers.kubernetesgateway=true",
        f"--providers.kubernetesgateway.statusaddress.ip={published}",
        # TraefikService (mirroring, sticky sessions) as a route's backend.
        "--providers.kubernetescrd=true",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        "--log.level=INFO",
    ]


def prometheus(places: AddonPaths) -> list[str]:
    address = places.network.address
    folder = places.make_folder("prometheus")
    file = folder / "prometheus.yml"
    config = prometheus_config(f"{address}:{TRAEFIK_METRICS_PORT}", places.kubeconfig, folder / TOKEN_FILE)
    file.write_text(config)
    return [
        str(parts.binary_path("prometheus")),
        *prometheus_flags(f"{address}:{PROMETHEUS_PORT}", file, folder / "data"),
    ]


def prometheus_flags(listen: str, config: Path, data: Path) -> list[str]:
    return [
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=6h",
        f"--web.listen-address={listen}",
        "--web.enable-lifecycle",
        "--log.level=warn",
    ]


def prometheus_config(traefik_metrics: str, kubeconfig: Path | None, token: Path = POD_TOKEN) -> str:
    """Scrapes Traefik and every pod that asks for it by annotation; inside a cluster no kubeconfig is needed. The token
    is sent to the operator's namespace only, because it grants Prometheus' rights."""
    connection = f", kubeconfig_file: {kubeconfig}" if kubeconfig else ""
    ours = "{source_labels: [__meta_kubernetes_namespace], action: %s, regex: " + OPERATOR_NAMESPACE + "}"
    asking = f"""  kubernetes_sd_configs: [{{role: pod{connection}}}]
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], action: keep, regex: "true"}}
  - {{source_labels: [__meta_kubernetes_pod_phase], action: drop, regex: "Pending|Succeeded|Failed"}}
  - {{source_labels: [__meta_kubernetes_pod_container_init], action: drop, regex: "true"}}
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scheme]
    target_label: __scheme__
    regex: "(https?)"
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path]
    target_label: __metrics_path__
    regex: "(.+)"
  - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
    target_label: __address__
    regex: "(.+);(.+)"
    replacement: "$1:$2"
  - {{action: labelmap, regex: "__meta_kubernetes_pod_label_(.+)"}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
  - {{source_labels: [__meta_kubernetes_pod_node_name], target_label: node}}
"""
    return f"""global: {{scrape_interval: 5s, scrape_timeout: 4s, evaluation_interval: 5s}}
scrape_configs:
- job_name: traefik
  static_configs: [{{targets: ["{traefik_metrics}"]}}]
- job_name: pods
{asking}  - {ours % "drop"}
- job_name: operator
  authorization: {{credentials_file: {token}}}
  honor_labels: true
{asking}  - {ours % "keep"}
"""


def dns_objects(network: Network) -> list[dict[str, Any]]:
    """Build the DNS Service, whose server is not a pod."""
    labels = {"kubernetes.io/service-name": "kube-dns"}
    ports = [{"name": "dns", "port": DNS_PORT, "protocol": "UDP"}, {"name": "dns-tcp", "port": DNS_PORT}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "kube-system", "name": "kube-dns"},
            "spec": {"clusterIP": network.dns_service, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": "kube-system", "name": "kube-dns", "labels": labels},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [network.address], "conditions": {"ready": True}}],
        },
    ]


def common_objects() -> list[dict[str, Any]]:
    """Build the objects of every cluster: the Gateway with its class, a class for the prepared volumes, and
    Prometheus' rights."""
    listener = {
        "name": "http",
        "protocol": "HTTP",
        "port": GATEWAY_PORT,
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local"},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "Immediate",
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": PROMETHEUS},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "prometheus"},
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "prometheus"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "prometheus"},
            "subjects": [{"kind": "ServiceAccount", **PROMETHEUS}],
        },
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gateways"}},
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "traefik"},
            "spec": {"controllerName": "traefik.io/gateway-controller"},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"namespace": "gateways", "name": "models"},
            "spec": {"gatewayClassName": "traefik", "listeners": [listener]},
        },
    ]


def volume(name: str, folder: Path, size: str = "10Gi") -> dict[str, Any]:
    """Build a volume in a folder of the host. Both nodes see it, so ReadWriteMany is true."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "local",
            "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
        },
    }
