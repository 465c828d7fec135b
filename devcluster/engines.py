"""Controllers that can run training: JobSet and Kueue. Their configuration and objects."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from devcluster import parts
from devcluster.network import Network
from devcluster.pki import Authority, Identity

MANAGED = {"kueue-managed": "true"}
"""Label of the namespaces whose Jobs Kueue manages: others are unaffected while Kueue is stopped."""
_ADMISSION = "admissionregistration.k8s.io"
_FRAMEWORKS = ["batch/job", "jobset.x-k8s.io/jobset"]


@dataclass(frozen=True)
class Engine:
    """One controller as a process in the cluster's network: its ports, settings and webhooks."""

    name: str
    api_version: str
    webhook_port: int
    health_port: int
    resources: Sequence[str]
    settings: dict[str, Any]

    def command(self, folder: Path, network: Network, identity: Identity) -> list[str]:
        """Build the command line; write the configuration and the webhooks' certificate into the folder."""
        certificates = folder / "certificates"
        certificates.mkdir(parents=True, exist_ok=True)
        for source, name in ((identity.certificate, "tls.crt"), (identity.key, "tls.key")):
            (certificates / name).write_bytes(source.read_bytes())
        config = {
            "apiVersion": self.api_version,
            "kind": "Configuration",
            "webhook": {"host": network.address, "port": self.webhook_port, "certDir": str(certificates)},
            "health": {"healthProbeBindAddress": f"{network.address}:{self.health_port}"},
            "metrics": {"bindAddress": "0"},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            **self.settings,
        }
        file = folder / "config.yaml"
        file.write_text(json.dumps(config))
        return [str(parts.binary_path(self.name)), f"--config={file}", "--zap-log-level=info"]

    def crds(self) -> Path:
        """The folder of its CRDs."""
        return parts.module_files(self.name, "config/components/crd/bases")

    def webhooks(self, network: Network, authority: Authority) -> list[dict[str, Any]]:
        """Build its admission webhooks, called at the process's address."""
        (file,) = parts.module_files(self.name, "config/components/webhook", "manifests.yaml").iterdir()
        configurations = [each for each in yaml.safe_load_all(file.read_text()) if each]
        bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
        return [
            {
                "apiVersion": f"{_ADMISSION}/v1",
                "kind": each["kind"],
                "metadata": {"name": f"{self.name}-{each['metadata']['name']}"},
                "webhooks": [
                    self._webhook(hook, f"https://{network.address}:{self.webhook_port}", bundle)
                    for hook in each["webhooks"]
                    if set(hook["rules"][0]["resources"]) & set(self.resources)
                ],
            }
            for each in configurations
        ]

    def _webhook(self, hook: dict[str, Any], url: str, bundle: str) -> dict[str, Any]:
        webhook = {**hook, "clientConfig": {"url": url + hook["clientConfig"]["service"]["path"], "caBundle": bundle}}
        if hook["rules"][0]["resources"] == ["pods"]:
            webhook["objectSelector"] = {
                "matchExpressions": [{"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}]
            }
        if self.name == "kueue" and hook["rules"][0]["resources"][0] in ("jobs", "jobsets"):
            webhook["namespaceSelector"] = {"matchLabels": MANAGED}
        return webhook


ENGINES = (
    Engine("jobset", "config.jobset.x-k8s.io/v1alpha1", 9443, 9444, ("jobsets", "jobsets/status", "pods"), {}),
    Engine(
        "kueue",
        "config.kueue.x-k8s.io/v1beta1",
        9445,
        9446,
        ("jobs", "jobsets", "clusterqueues", "resourceflavors", "workloads", "workloads/status", "cohorts"),
        {
            "namespace": "kube-system",
            "integrations": {"frameworks": _FRAMEWORKS},
            # Its server of queue positions would need an aggregated API.
            "featureGates": {"VisibilityOnDemand": False},
        },
    ),
)
