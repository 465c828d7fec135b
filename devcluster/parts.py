"""The programs of a cluster: each is built from a Go module below `tools/`, once per version, into the cache."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from devcluster import paths
from devcluster.errors import ClusterError, log_failure
from devcluster.progress import NoProgress, Progress


@dataclass(frozen=True)
class GoTool:
    """One Go module below `tools/`; its go.mod determines the version."""

    name: str
    module: str
    packages: dict[str, str]
    weight: int = 0
    """CPU seconds of a build from an empty cache, after the tools before it, by the amount of code; used to estimate
    the remaining time."""
    tags: str = ""
    on_request: bool = False
    """Built only on request, not with all the others."""

    def source(self) -> Path:
        """The folder of its go.mod. Kubernetes has one for each tested minor version: `MODELWRIGHT_KUBERNETES`."""
        minor = os.environ.get("MODELWRIGHT_KUBERNETES") if self.name == "kubernetes" else None
        folder = paths.TOOLS / (f"{self.name}-{minor}" if minor else self.name)
        if not folder.is_dir():
            minor_versions = sorted(each.name.removeprefix("kubernetes-") for each in paths.TOOLS.glob("kubernetes-*"))
            raise ClusterError(f"MODELWRIGHT_KUBERNETES is {minor}: it is one of {', '.join(minor_versions)}, or empty")
        return folder

    def version(self) -> str:
        return self._version(self.source()) if self.module else "1"

    def versions(self) -> set[str]:
        """All versions that the tree names: for Kubernetes, one for each tested minor version."""
        if not self.module:
            return {"1"}
        return {self._version(folder) for folder in self._sources()}

    def folders(self) -> set[str]:
        """Names of the cache folders of all versions that the tree names."""
        return {self._cache_key(folder) for folder in self._sources()}

    def _sources(self) -> list[Path]:
        folders = paths.TOOLS.glob("kubernetes*") if self.name == "kubernetes" else [paths.TOOLS / self.name]
        return sorted(folders)

    def _version(self, source: Path) -> str:
        text = (source / "go.mod").read_text()
        match = re.search(rf"^(?:require)?\s*{re.escape(self.module)} v(\S+)", text, re.MULTILINE)
        if not match:
            raise ClusterError(f"{source / 'go.mod'} does not require {self.module}")
        return match[1]

    def folder(self) -> Path:
        return paths.binaries() / self._cache_key(self.source())

    def _cache_key(self, source: Path) -> str:
        """The version; for tools built from the common list of versions, also a hash of all dependencies."""
        version = self._version(source) if self.module else "1"
        if source not in shared_folders():
            return f"{self.name}-{version}"
        files = [
            WORKSPACE,
            *(each / "go.mod" for each in shared_folders()),
            *source.glob("*.go"),
            *source.glob("*.patch"),
        ]
        whole = sha256(f"{self.tags} {self._ldflags(version)} {' '.join(SLIM)}".encode())
        for file in sorted(files):
            whole.update(file.read_bytes())
        return f"{self.name}-{version}-{whole.hexdigest()[:8]}"

    def ldflags(self) -> str:
        return self._ldflags(self.version())

    def _ldflags(self, version: str) -> str:
        if self.name != "kubernetes":
            return "-s -w"
        # Without these the API server reports v0.0.0, and clients misbehave.
        stamp = "k8s.io/component-base/version.git"
        major, minor, _ = version.split(".")
        return f"-s -w -X {stamp}Version=v{version} -X {stamp}Major={major} -X {stamp}Minor={minor}"


WORKSPACE = paths.TOOLS / "go.work"
REPLACED = r"^\t(\S+) => "
SLIM = ("-gcflags=all=-dwarf=false",)
"""Omit debugging information, which takes a tenth of the CPU time; stack traces and profiles do not need it."""


@cache
def shared_folders() -> tuple[Path, ...]:
    """Return the folders whose tools are built from the common list of versions."""
    return tuple(paths.TOOLS / name for name in re.findall(r"^\s+\./(\S+)$", WORKSPACE.read_text(), re.MULTILINE))


def _kubernetes(*names: str) -> dict[str, str]:
    return {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}


def _flux(name: str) -> GoTool:
    return GoTool(name, f"github.com/fluxcd/{name}", {name: f"github.com/fluxcd/{name}"}, on_request=True)


GO_TOOLS = (
    # The slowest build comes first, because it sets the estimated pace of the others.
    GoTool(
        "kubernetes",
        "k8s.io/kubernetes",
        _kubernetes("kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
        weight=340,
    ),
    GoTool("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}, weight=15),
    GoTool(
        "versitygw",
        "github.com/versity/versitygw",
        {"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
        weight=85,
    ),
    GoTool(
        "prometheus",
        "github.com/prometheus/prometheus",
        {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")},
        weight=60,
        # The clients of two dozen clouds would triple the build.
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    GoTool(
        "traefik", "github.com/traefik/traefik/v3", {"traefik": "github.com/traefik/traefik/v3/cmd/traefik"}, weight=50
    ),
    GoTool("coredns", "github.com/coredns/coredns", {"coredns": "."}, weight=10),
    GoTool("registry", "github.com/distribution/distribution/v3", {"registry": "."}, weight=10),
    GoTool("helm", "helm.sh/helm/v3", {"helm": "helm.sh/helm/v3/cmd/helm"}, weight=18),
    GoTool("pause", "", {"pause": "."}, weight=1),
    GoTool("kwok", "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, weight=110),
    GoTool("jobset", "sigs.k8s.io/jobset", {"jobset": "sigs.k8s.io/jobset"}, weight=10),
    GoTool("kueue", "sigs.k8s.io/kueue", {"kueue": "sigs.k8s.io/kueue/cmd/kueue"}, weight=170),
    GoTool(
        "kube-score",
        "github.com/zegl/kube-score",
        {"kube-score": "github.com/zegl/kube-score/cmd/kube-score"},
        weight=30,
    ),
    GoTool(
        "helm-docs",
        "github.com/norwoodj/helm-docs",
        {"helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs"},
        weight=28,
    ),
    GoTool(
        "operator-verify",
        "github.com/operator-framework/api",
        {"operator-verify": "github.com/operator-framework/api/cmd/operator-verify"},
        weight=68,
    ),
    GoTool("kind", "sigs.k8s.io/kind", {"kind": "sigs.k8s.io/kind"}, on_request=True),
    GoTool(
        "argocd", "github.com/argoproj/argo-cd/v3", {"argocd": "github.com/argoproj/argo-cd/v3/cmd"}, on_request=True
    ),
    _flux("source-controller"),
    _flux("kustomize-controller"),
    GoTool(
        "kube-router",
        "github.com/cloudnativelabs/kube-router/v2",
        {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
        on_request=True,
    ),
    GoTool(
        "kustomize",
        "sigs.k8s.io/kustomize/kustomize/v5",
        {"kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
        on_request=True,
    ),
    GoTool(
        "envoy-gateway",
        "github.com/envoyproxy/gateway",
        {"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway"},
        on_request=True,
    ),
)

CONTROL_PLANE = ("etcd", "kube-apiserver", "kubectl")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
SIMULATION = ("kwok",)
NODE = ("pause", "kubelet", "kube-proxy", "coredns", "registry", "versitygw", "traefik", "prometheus", "helm")


def tool_of(binary: str) -> GoTool:
    for part in GO_TOOLS:
        if binary in part.packages:
            return part
    raise ClusterError(f"no part of the cluster builds {binary!r}")


def binary_path(binary: str) -> Path:
    """Return the path of a binary, built or not."""
    return tool_of(binary).folder() / binary


def build(binaries: Iterable[str], progress: Progress | None = None) -> None:
    """Build the binaries missing in the cache: one tool after the other, each on all cores. Two at once would
    compile shared code twice."""
    shown = progress or NoProgress()
    wanted = [name for name in binaries if not binary_path(name).exists()]
    if not wanted:
        return
    if not shutil.which("go"):
        raise ClusterError(
            f"Go is needed to build {', '.join(wanted)} and isn't there: install Go 1.26 or newer (https://go.dev/dl/)"
        )
    missing = [(part, names) for part in GO_TOOLS if (names := _missing(part, wanted))]
    for part, _ in missing:
        shown.add(f"build {part.name}", part.weight)
    for part, names in missing:
        with shown.step(f"build {part.name}"), paths.locked(paths.cache() / "locks" / f"build-{part.name}.lock"):
            # Another process may have built them meanwhile.
            _build(part, _missing(part, names))


def _missing(part: GoTool, binaries: Iterable[str]) -> list[str]:
    return [name for name in binaries if name in part.packages and not (part.folder() / name).exists()]


def _build(part: GoTool, names: list[str]) -> None:
    if not names:
        return
    folder = part.folder()
    folder.mkdir(parents=True, exist_ok=True)
    log = paths.cache() / "logs" / f"build-{part.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as new,
        log.open("wb") as out,
        _workspace(part) as work,
    ):
        # go build names several binaries by the last word of their packages and links them in parallel, in one command.
        target = f"{new}/" if len(names) > 1 else f"{new}/{names[0]}"
        command = [
            "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            *(SLIM if work else ()),
            "-ldflags",
            part.ldflags(),
            "-o",
            target,
        ]
        command += ["-tags", part.tags] if part.tags else []
        done = subprocess.run(
            [*command, *(part.packages[name] for name in names)],
            cwd=part.source(),
            env={**os.environ, "CGO_ENABLED": "0", "GOWORK": str(work or "off")},
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise log_failure(f"building {', '.join(names)} {part.version()} failed", log)
        for name in names:
            (Path(new) / name).rename(folder / name)


@contextlib.contextmanager
def _workspace(part: GoTool) -> Iterator[Path | None]:
    """Yield the file with the common list of versions; None for a tool with its own list. A tool with a
    `module.patch` is built from a patched copy of its module."""
    source = part.source()
    patch = source / "module.patch"
    if source not in shared_folders():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="source-", dir=paths.cache()) as folder:
        work = Path(folder) / "go.work"
        text = common_versions(source)
        if patch.exists():
            copy = Path(folder) / "module"
            shutil.copytree(_download(source, part.module, part.version()), copy, copy_function=shutil.copyfile)
            apply(patch, copy)
            text += f"\nreplace {part.module} => {copy}\n"
        work.write_text(text)
        shutil.copyfile(WORKSPACE.with_suffix(".work.sum"), work.with_suffix(".work.sum"))
        yield work


def common_versions(source: Path) -> str:
    """Return the common list of versions for a build outside the workspace, without the replacements of the tool's
    own go.mod."""
    text = re.sub(r"^(\s+)\./", rf"\g<1>{source.parent}/", WORKSPACE.read_text(), flags=re.MULTILINE)
    own = re.findall(REPLACED, (source / "go.mod").read_text(), re.MULTILINE)
    return re.sub(rf"{REPLACED}.*\n", lambda line: "" if line[1] in own else line[0], text, flags=re.MULTILINE)


def apply(patch: Path, folder: Path) -> None:
    """Apply a patch in a folder outside any repository, wherever the cache is."""
    command = ["git", "apply", "--whitespace=nowarn", str(patch)]
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, check=False)
    if done.returncode:
        raise log_failure(f"{patch} does not fit its module: make it for the version in go.mod\n{done.stderr.strip()}")


def gateway_api_crds() -> Path:
    """Return the folder of Gateway API's CRDs, from the Go module that holds them."""
    return _copy_from_module("gateway-api", "sigs.k8s.io/gateway-api", "config/crd/standard")


def module_files(binary: str, inside: str, *files: str) -> Path:
    """Return a folder with files of the Go module that a binary is built from: a whole folder, or the named files."""
    part = tool_of(binary)
    return _copy_from_module(part.name, part.module, inside, *files)


def olm_crds() -> Path:
    """Return the folder with the CRD of ClusterServiceVersions."""
    return module_files("operator-verify", "crds", "operators.coreos.com_clusterserviceversions.yaml")


def traefik_crds() -> Path:
    """Return the folder with Traefik's own CRDs (TraefikService and others)."""
    inside = "docs/content/reference/dynamic-configuration"
    return module_files("traefik", inside, "kubernetes-crd-definition-v1.yml")


def module(binary: str) -> Path:
    """Return the read-only folder of a binary's Go module in Go's own cache."""
    part = tool_of(binary)
    return _download(paths.TOOLS / part.name, part.module, part.version())


def _copy_from_module(folder: str, module: str, inside: str, *files: str) -> Path:
    """Copy files out of a Go module into the cache, once per version."""
    version = GoTool(folder, module, {}).version()
    kept = paths.cache() / "crds" / f"{folder}-{version}" / inside.replace("/", "-")
    if kept.exists():
        return kept
    source = _download(paths.TOOLS / folder, module, version) / inside
    new = kept.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name in files or [each.name for each in source.iterdir()]:
        shutil.copyfile(source / name, new / name)
    new.rename(kept)
    return kept


def _download(folder: Path, module: str, version: str) -> Path:
    """Return the folder of a module in Go's cache, downloading it first when needed."""
    log = paths.cache() / "logs" / f"module-{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        done = subprocess.run(
            ["go", "mod", "download", "-json", f"{module}@v{version}"],
            cwd=folder,
            env={**os.environ, "GOWORK": "off"},
            stdout=subprocess.PIPE,
            stderr=out,
            check=False,
        )
        out.write(done.stdout)
    if done.returncode:
        raise log_failure(f"downloading {module} v{version} failed", log)
    return Path(json.loads(done.stdout)["Dir"])
