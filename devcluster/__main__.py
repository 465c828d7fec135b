"""The command: python -m devcluster up|down|status|build|env."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import get_args

from devcluster import cluster, host, images, parts
from devcluster.cluster import Cluster, Profile
from devcluster.errors import ClusterError
from devcluster.progress import LiveProgress


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devcluster", description="A real Kubernetes cluster on this host.")
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "up": "bring the cluster up (nothing happens when it is)",
        "down": "take it down, with everything it left on the host",
        "status": "show what runs",
        "build": "build every program and the base image into the cache",
        "env": "print export lines for a shell",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        if name != "build":
            command.add_argument("--name", default="dev", help="several may stand side by side (default: dev)")
        if name == "up":
            command.add_argument("--profile", choices=get_args(Profile), default="full")
            command.add_argument("--kwok-nodes", type=int, default=None, help="simulated nodes (default: 10 with kwok)")
            command.add_argument(
                "--gateway", choices=("traefik", "envoy"), default="traefik", help="envoy: Envoy Gateway beside Traefik"
            )
    options = parser.parse_args(arguments)
    try:
        return {"up": up, "down": down, "status": status, "build": build, "env": env}[options.command](options)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def up(options: argparse.Namespace) -> int:
    start = time.monotonic()
    with LiveProgress(f"cluster {options.name}") as progress:
        ready = Cluster.up(options.profile, options.name, options.kwok_nodes, progress)
        if options.gateway == "envoy" and not ready.envoy(progress):
            raise ClusterError("Envoy Gateway is installed in the full embedded cluster only")
    print(f"cluster {options.name} is up ({ready.backend}, {ready.profile}) after {time.monotonic() - start:.1f}s")
    for key, value in ready.environment().items():
        print(f"  {key}={value}")
    print(f"  logs: {ready.logs}")
    return 0


def down(options: argparse.Namespace) -> int:
    start = time.monotonic()
    cluster.down(options.name)
    print(f"cluster {options.name} is down after {time.monotonic() - start:.1f}s")
    return 0


def status(options: argparse.Namespace) -> int:
    rows = cluster.status(options.name)
    if not rows:
        print(f"cluster {options.name} is not up")
        return 1
    for name, pid, state in rows:
        print(f"{name:30} {pid:>8}  {state}")
    return 0 if all(state == "running" for _, _, state in rows) else 1


def build(_: argparse.Namespace) -> int:
    with LiveProgress("build") as progress:
        host.install({**host.CLUSTER_PACKAGES, **host.IMAGE_PACKAGES}, progress)
        parts.build([name for part in parts.GO_TOOLS if not part.on_request for name in part.packages], progress)
        parts.gateway_api_crds()
        parts.traefik_crds()
        images.ensure_base_image(progress)
    return 0


def env(options: argparse.Namespace) -> int:
    cluster = Cluster.attach(options.name)
    for key, value in cluster.environment().items():
        print(f"export {key}={shlex.quote(value)}")
    print(f"export PATH={shlex.quote(str(cluster.kubectl.parent))}:{shlex.quote(str(cluster.helm.parent))}:$PATH")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
