"""Requirements on the host: Debian packages, installed when missing, and name servers that a sandbox can reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from devcluster import paths
from devcluster.errors import ClusterError, log_failure
from devcluster.progress import Progress

CLUSTER_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "sysctl": "procps",
    "openssl": "openssl",
}
IMAGE_PACKAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
EMULATOR_PACKAGES = {"qemu-aarch64-static": "qemu-user-static"}


def missing(wanted: dict[str, str]) -> list[str]:
    """Return the packages of missing programs."""
    return [package for program, package in wanted.items() if not shutil.which(program)]


def install(wanted: dict[str, str], progress: Progress) -> None:
    if not missing(wanted):
        return
    # The cluster and the images may install packages at the same time.
    with paths.locked(paths.cache() / "locks" / "apt-get.lock"):
        _install(missing(wanted), progress)


def _install(packages: list[str], progress: Progress) -> None:
    if not packages:
        return
    by_hand = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterError(f"these packages are missing, and only root on Debian can install them: {by_hand}")
    log = paths.cache() / "logs" / "apt-get.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with progress.step("Debian packages"), log.open("ab") as out:
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        for step in (["apt-get", "update"], command):
            done = subprocess.run(
                step,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                check=False,
            )
        if done.returncode:
            raise log_failure(f"`{by_hand}` failed", log)


def name_servers() -> list[str]:
    """Return the host's name servers, without those on its loopback, which a sandbox cannot reach."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return []
    servers = [line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1]
    return [server for server in servers if not server.startswith("127.") and ":" not in server]
