"""The programs a cluster is made of: each from a Go module of its own, built once per version into the cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from devcluster import paths
from devcluster.errors import ClusterError, failed
from devcluster.progress import Progress, Quiet


@dataclass(frozen=True)
class Part:
    """One Go module below `tools/`; its go.mod says which version is built."""

    name: str
    module: str
    packages: dict[str, str]
    tags: str = ""
    asked: bool = False
    """Built when it is asked for, and not with all the others."""

    def source(self) -> Path:
        """Where its go.mod is. Kubernetes has one for each minor version that is tried: `MODELWRIGHT_KUBERNETES`."""
        minor = os.environ.get("MODELWRIGHT_KUBERNETES") if self.name == "kubernetes" else None
        folder = paths.TOOLS / (f"{self.name}-{minor}" if minor else self.name)
        if not folder.is_dir():
            known = sorted(each.name.removeprefix("kubernetes-") for each in paths.TOOLS.glob("kubernetes-*"))
            raise ClusterError(f"MODELWRIGHT_KUBERNETES is {minor}: it is one of {', '.join(known)}, or empty")
        return folder

    def version(self) -> str:
        return self._version(self.source()) if self.module else "1"

    def versions(self) -> set[str]:
        """All that the tree names: of Kubernetes one for each minor version that is tried."""
        if not self.module:
            return {"1"}
        folders = paths.TOOLS.glob("kubernetes*") if self.name == "kubernetes" else [paths.TOOLS / self.name]
        return {self._version(folder) for folder in folders}

    def _version(self, source: Path) -> str:
        text = (source / "go.mod").read_text()
        found = re.search(rf"^(?:require)?\s*{re.escape(self.module)} v(\S+)", text, re.MULTILINE)
        if not found:
            raise ClusterError(f"{source / 'go.mod'} does not require {self.module}")
        return found[1]

    def folder(self) -> Path:
        return paths.binaries() / f"{self.name}-{self.version()}"

    def ldflags(self) -> str:
        if self.name != "kubernetes":
            return "-s -w"
        # Without these the API server reports v0.0.0, and clients misbehave.
        stamp = "k8s.io/component-base/version.git"
        major, minor, _ = self.version().split(".")
        return f"-s -w -X {stamp}Version=v{self.version()} -X {stamp}Major={major} -X {stamp}Minor={minor}"


def _kubernetes(*names: str) -> dict[str, str]:
    return {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}


def _flux(name: str) -> Part:
    return Part(name, f"github.com/fluxcd/{name}", {name: f"github.com/fluxcd/{name}"}, asked=True)


PARTS = (
    Part("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Part(
        "kubernetes",
        "k8s.io/kubernetes",
        _kubernetes("kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    ),
    Part("pause", "", {"pause": "."}),
    Part("coredns", "github.com/coredns/coredns", {"coredns": "github.com/coredns/coredns"}),
    Part(
        "registry",
        "github.com/distribution/distribution/v3",
        {"registry": "github.com/distribution/distribution/v3/cmd/registry"},
    ),
    Part("versitygw", "github.com/versity/versitygw", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    Part("helm", "helm.sh/helm/v3", {"helm": "helm.sh/helm/v3/cmd/helm"}),
    Part("helm-docs", "github.com/norwoodj/helm-docs", {"helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs"}),
    Part("kube-score", "github.com/zegl/kube-score", {"kube-score": "github.com/zegl/kube-score/cmd/kube-score"}),
    Part(
        "operator-verify",
        "github.com/operator-framework/api",
        {"operator-verify": "github.com/operator-framework/api/cmd/operator-verify"},
    ),
    Part("traefik", "github.com/traefik/traefik/v3", {"traefik": "github.com/traefik/traefik/v3/cmd/traefik"}),
    Part(
        "prometheus",
        "github.com/prometheus/prometheus",
        {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")},
        # The clients of two dozen clouds would triple the build.
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    Part("kwok", "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Part("kind", "sigs.k8s.io/kind", {"kind": "sigs.k8s.io/kind"}, asked=True),
    Part("jobset", "sigs.k8s.io/jobset", {"jobset": "sigs.k8s.io/jobset"}),
    Part("kueue", "sigs.k8s.io/kueue", {"kueue": "sigs.k8s.io/kueue/cmd/kueue"}),
    Part("argocd", "github.com/argoproj/argo-cd/v3", {"argocd": "github.com/argoproj/argo-cd/v3/cmd"}, asked=True),
    _flux("source-controller"),
    _flux("kustomize-controller"),
    Part(
        "kube-router",
        "github.com/cloudnativelabs/kube-router/v2",
        {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
        asked=True,
    ),
    Part(
        "kustomize",
        "sigs.k8s.io/kustomize/kustomize/v5",
        {"kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
        asked=True,
    ),
    Part(
        "envoy-gateway",
        "github.com/envoyproxy/gateway",
        {"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway"},
        asked=True,
    ),
)

CONTROL_PLANE = ("etcd", "kube-apiserver", "kubectl")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
SIMULATION = ("kwok",)
NODE = ("pause", "kubelet", "kube-proxy", "coredns", "registry", "versitygw", "traefik", "prometheus", "helm")


def part_of(binary: str) -> Part:
    for part in PARTS:
        if binary in part.packages:
            return part
    raise ClusterError(f"no part of the cluster builds {binary!r}")


def path(binary: str) -> Path:
    """Where a binary is, or will be once built."""
    return part_of(binary).folder() / binary


def build(binaries: Iterable[str], progress: Progress | None = None) -> None:
    """Build what isn't in the cache yet; two at a time, since linking uses one core only."""
    shown = progress or Quiet()
    missing = [name for name in binaries if not path(name).exists()]
    if not missing:
        return
    if not shutil.which("go"):
        raise ClusterError(
            f"Go is needed to build {', '.join(missing)} and isn't there: install Go 1.26 or newer (https://go.dev/dl/)"
        )
    for name in missing:
        shown.add(f"build {name}")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: _build_one(name, shown), missing))


def _build_one(binary: str, progress: Progress) -> None:
    part = part_of(binary)
    folder = part.folder()
    log = paths.cache() / "logs" / f"build-{binary}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with progress.step(f"build {binary}"), paths.locked(paths.cache() / "locks" / f"{binary}.lock"):
        if (folder / binary).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f".{binary}.new"
        command = ["go", "build", "-trimpath", "-ldflags", part.ldflags(), "-o", str(new)]
        command += ["-tags", part.tags] if part.tags else []
        with log.open("wb") as out:
            done = subprocess.run(
                [*command, part.packages[binary]],
                cwd=part.source(),
                env={**os.environ, "CGO_ENABLED": "0"},
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise failed(f"building {binary} {part.version()} failed", log)
        new.rename(folder / binary)


def gateway_api_crds() -> Path:
    """The folder of Gateway API's CRDs, from the Go module that holds them."""
    return _from_module("gateway-api", "sigs.k8s.io/gateway-api", "config/crd/standard")


def module_files(binary: str, inside: str, *files: str) -> Path:
    """A folder with files of the Go module that a binary is built from: all of a folder there, or the named ones."""
    part = part_of(binary)
    return _from_module(part.name, part.module, inside, *files)


def olm_crds() -> Path:
    """The folder with the CRD of ClusterServiceVersions."""
    return module_files("operator-verify", "crds", "operators.coreos.com_clusterserviceversions.yaml")


def traefik_crds() -> Path:
    """The folder with Traefik's own CRDs (TraefikService and others)."""
    inside = "docs/content/reference/dynamic-configuration"
    return module_files("traefik", inside, "kubernetes-crd-definition-v1.yml")


def module(binary: str) -> Path:
    """The folder of the Go module that a binary is built from, in Go's own cache: to be read only."""
    part = part_of(binary)
    return _downloaded(part.name, part.module)


def _from_module(folder: str, module: str, inside: str, *files: str) -> Path:
    """Copy files out of a Go module into the cache, once per version."""
    version = Part(folder, module, {}).version()
    kept = paths.cache() / "crds" / f"{folder}-{version}" / inside.replace("/", "-")
    if kept.exists():
        return kept
    source = _downloaded(folder, module) / inside
    new = kept.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name in files or [each.name for each in source.iterdir()]:
        shutil.copyfile(source / name, new / name)
    new.rename(kept)
    return kept


def _downloaded(folder: str, module: str) -> Path:
    version = Part(folder, module, {}).version()
    log = paths.cache() / "logs" / f"module-{folder}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        found = subprocess.run(
            ["go", "mod", "download", "-json", f"{module}@v{version}"],
            cwd=paths.TOOLS / folder,
            stdout=subprocess.PIPE,
            stderr=out,
            check=False,
        )
        out.write(found.stdout)
    if found.returncode:
        raise failed(f"downloading {module} v{version} failed", log)
    return Path(json.loads(found.stdout)["Dir"])
