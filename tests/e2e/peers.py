"""The programs of others that are run on our objects by `make test-peers`: the test of each, and what it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """One of them, under the name that PEER= takes."""

    name: str
    tests: tuple[str, ...]
    """The files whose tests with the marker `peer` run it."""
    parts: tuple[str, ...]
    """What is built for it alone, as devcluster/parts.py calls it; the first says its version."""
    files: tuple[str, ...]
    """What of ours it is given, or is run by, as pathspecs of Git."""
    wire: tuple[str, ...]
    """What `make test` has in its place."""

    def depends_on(self) -> tuple[str, ...]:
        """When one of these changes, the last run says nothing any more."""
        return (*self.tests, *self.files, *(f"devcluster/tools/{part}/go.mod" for part in self.parts))


_GIT = ("tests/servers/git.py", "tests/servers/processes.py")

PEERS = (
    Peer(
        "argocd",
        tests=("tests/e2e/test_argocd.py",),
        parts=("argocd", "kustomize"),
        files=("manifests/argocd", "examples/gitops/argocd", "crds", "tests/servers/argocd.py", *_GIT),
        wire=("tests/unit/gitops/test_argocd.py", "tests/controlplane/scenarios/gitops.py"),
    ),
    Peer(
        "flux",
        tests=("tests/e2e/test_flux.py",),
        parts=("kustomize-controller", "source-controller"),
        # The recorded states are what its health checks judge.
        files=("examples/gitops/flux", "manifests/argocd/*/testdata/*", "crds", "tests/servers/flux.py", *_GIT),
        wire=("tests/unit/gitops/test_flux.py", "tests/controlplane/scenarios/gitops.py"),
    ),
    Peer(
        "kube-router",
        tests=("tests/e2e/test_network_policies.py",),
        parts=("kube-router",),
        files=("examples/network-policies", "charts/modelwright/templates/networkpolicy.yaml"),
        wire=("tests/packaging/test_network_policies.py",),
    ),
    Peer(
        "envoy",
        tests=(
            "tests/e2e/test_traffic.py",
            "tests/e2e/test_shadow.py",
            "tests/e2e/test_counters.py",
            "tests/e2e/test_no_request_lost.py",
        ),
        parts=("envoy-gateway",),
        files=(
            "devcluster/envoy.py",
            "devcluster/tools/envoy-gateway/requirements.txt",
            "operator/modelwright/traffic",
            "operator/modelwright/render/routes.py",
            "operator/modelwright/measurement/request_counters.py",
        ),
        wire=("tests/unit/traffic/test_contract.py", "tests/unit/measurement/test_envoy.py"),
    ),
)


def chosen(names: Sequence[str], among: Sequence[Peer] = PEERS) -> list[Peer]:
    """The peers of these names; all when there is none. Raises ValueError for an unknown one."""
    unknown = sorted(set(names) - {peer.name for peer in among})
    if unknown:
        raise ValueError(f"no peer is called {', '.join(unknown)}: there are {', '.join(p.name for p in among)}")
    return [peer for peer in among if not names or peer.name in names]
