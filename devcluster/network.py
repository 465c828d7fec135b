"""A cluster's network: its own address ranges, and the few settings that the host needs for them."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devcluster import paths
from devcluster.errors import ClusterError
from devcluster.state import State

# 10.200.0.0/16 upwards: one /16 for each cluster.
_FIRST, _SLOTS = 200, 40


@dataclass(frozen=True)
class Network:
    """Address ranges of a cluster. Every server listens on `address`, inside the cluster's network namespace; only
    the host has a route to it."""

    slot: int

    @property
    def base(self) -> str:
        return f"10.{_FIRST + self.slot}"

    @property
    def range(self) -> str:
        return f"{self.base}.0.0/16"

    @property
    def host(self) -> str:
        return f"{self.base}.0.1"

    @property
    def address(self) -> str:
        return f"{self.base}.0.2"

    @property
    def pods(self) -> str:
        return f"{self.base}.16.0/20"

    @property
    def services(self) -> str:
        return f"{self.base}.96.0/20"

    @property
    def api_service(self) -> str:
        return f"{self.base}.96.1"

    @property
    def dns_service(self) -> str:
        return f"{self.base}.96.10"

    @property
    def host_link(self) -> str:
        return f"mwh{self.slot}"

    def node(self, number: int) -> str:
        return f"{self.base}.0.{11 + number}"

    def outside(self) -> list[str]:
        """The host's only firewall rule: pods may reach the outside (a store, a model hub) under the host's address."""
        return ["POSTROUTING", "-s", self.range, "!", "-d", self.range, "-j", "MASQUERADE"]


def choose_network(state: State) -> Network:
    """Choose the cluster's ranges: its recorded ones, else the first that no other cluster and no route of the host
    uses."""
    with paths.locked(paths.cache() / "locks" / "network.lock"):
        if "slot" not in state.facts:
            taken = {State.load(folder).facts.get("slot") for folder in paths.runs().glob("*")}
            routes = _routes()
            for slot in range(_SLOTS):
                wanted = ipaddress.ip_network(Network(slot).range)
                if slot not in taken and not any(wanted.overlaps(route) for route in routes):
                    state.facts["slot"] = slot
                    break
            else:
                raise ClusterError("no free address range from 10.200.0.0/16 to 10.239.0.0/16 on this host")
            state.save()
    return Network(state.facts["slot"])


def _routes() -> list[ipaddress.IPv4Network]:
    listed = json.loads(_run("ip", "-j", "-4", "route", "show", "table", "all"))
    routes = []
    for route in listed:
        if route["dst"] != "default":
            routes.append(ipaddress.IPv4Network(route["dst"], strict=False))
    return routes


def connect(network: Network, holder: int) -> None:
    """Connect host and sandbox by a virtual cable. The cable vanishes with the sandbox; the firewall rule and the
    setting do not."""
    inside = ["nsenter", f"--target={holder}", "--net", "--"]
    link = network.host_link
    _run("ip", "link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", str(holder))
    _run("ip", "addr", "add", f"{network.host}/24", "dev", link)
    _run("ip", "link", "set", link, "up")
    _run(*inside, "ip", "link", "set", "lo", "up")
    addresses = [network.address, network.node(0), network.node(1)]
    for address in addresses:
        _run(*inside, "ip", "addr", "add", f"{address}/24", "dev", "uplink")
    _run(*inside, "ip", "link", "set", "uplink", "up")
    _run(*inside, "ip", "route", "add", "default", "via", network.host)
    for key in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.ip_local_port_range=32768 60999"):
        _run(*inside, "sysctl", "-qw", key)
    _run(*inside, "iptables", "-w", "-t", "nat", "-A", *_from_pods(network))
    for destination in (network.pods, network.services):
        _run("ip", "route", "add", destination, "via", network.address)
    _forward(True)
    if not _succeeds("iptables", "-w", "-t", "nat", "-C", *network.outside()):
        _run("iptables", "-w", "-t", "nat", "-A", *network.outside())


def _from_pods(network: Network) -> list[str]:
    return ["POSTROUTING", "-s", network.pods, "!", "-d", network.range, "-j", "MASQUERADE"]


def disconnect(network: Network, others: bool) -> None:
    """Undo what `connect` did to the host; safe to repeat, and after a crash."""
    while _succeeds("iptables", "-w", "-t", "nat", "-D", *network.outside()):
        pass
    _succeeds("ip", "link", "del", network.host_link)
    if not others:
        _forward(False)


def _forward(wanted: bool) -> None:
    """Let the host forward packets while a cluster is up; a file records that devcluster turned it on."""
    setting, ours = Path("/proc/sys/net/ipv4/ip_forward"), paths.runs() / "forwarding-is-ours"
    with paths.locked(paths.cache() / "locks" / "network.lock"):
        if wanted and setting.read_text().strip() == "0":
            ours.touch()
            setting.write_text("1")
        if not wanted and ours.exists():
            setting.write_text("0")
            ours.unlink()


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
