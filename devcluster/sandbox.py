"""The cluster's sandbox: namespaces for mounts, network and processes that vanish with their first process.

A killed cluster thus leaves no shim, mount, network namespace, bridge or iptables rule: the kernel removes them.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from devcluster import parts
from devcluster.errors import ClusterError
from devcluster.processes import Daemon, identify, only_child

_CGROUPS = Path("/sys/fs/cgroup")
_CPU_WEIGHTS = {"cpu.shares": "10240", "cpu.weight": "1000"}
"""Ten times the default. The pods of a cluster share one group beside the host's processes, each of which weighs as
much as a whole group of the default weight: beside ten busy ones, all pods would get an eleventh of the CPU."""


def start(folder: Path) -> Daemon:
    """Start the first process, with separate folders where programs insist on fixed paths."""
    log = folder / "logs" / "sandbox.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation=slave", "--"]
    with log.open("ab") as out:
        launcher = subprocess.Popen(
            [*command, str(parts.binary_path("pause"))],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    holder = identify("sandbox", only_child(launcher.pid, "the sandbox", log), log)
    for place in ("/run", "/var/lib/kubelet", "/var/lib/cni"):
        enter(holder, "mkdir", "-p", place)
        enter(holder, "mount", "-t", "tmpfs", "tmpfs", place)
    # kubelet links every pod's log into /var/log/containers, wherever its other folders are.
    (folder / "var-log").mkdir(exist_ok=True)
    enter(holder, "mount", "--bind", str(folder / "var-log"), "/var/log")
    return holder


def enter(holder: Daemon, *command: str) -> str:
    """Run a command in the sandbox and return its output."""
    done = subprocess.run(
        ["nsenter", f"--target={holder.pid}", "--mount", "--net", "--pid", "--", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed in the sandbox: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def cgroup(name: str) -> str:
    return f"/modelwright-{name}"


def make_cgroups(path: str) -> None:
    """Create the kubelet's root cgroup, which it expects in every hierarchy, with a weight for its pods."""
    for controller in _controllers():
        folder = controller
        for step in path.strip("/").split("/"):
            folder = folder / step
            folder.mkdir(exist_ok=True)
            # A new cpuset is empty, and nothing can run in it.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                file = folder / setting
                if file.exists() and not file.read_text().strip():
                    file.write_text((folder.parent / setting).read_text())
            for setting, weight in _CPU_WEIGHTS.items():
                if (folder / setting).exists():
                    (folder / setting).write_text(weight)


def remove_cgroups(path: str, timeout: float = 10) -> None:
    """Remove a cgroup and all below it, once the kernel has released its last process."""
    end = time.monotonic() + timeout
    while True:
        left = []
        for controller in _controllers():
            top = controller / path.strip("/")
            for folder in sorted([*top.rglob("*/"), top], key=lambda each: -len(each.parts)):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    left.append(folder)
        if not left:
            return
        if time.monotonic() > end:
            raise ClusterError(f"control groups are still in use: {', '.join(str(each) for each in left[:5])}")
        time.sleep(0.1)


def _controllers() -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [folder for folder in _CGROUPS.iterdir() if folder.is_dir() and not folder.is_symlink()]
