"""Clusters side by side: ranges of their own, inside one /16 each."""

import ipaddress
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster import network, ports
from devcluster.network import Network
from devcluster.state import State


def test_addresses_of_a_cluster_are_in_its_range_without_overlap() -> None:
    net = Network(3)
    whole = ipaddress.ip_network(net.range)
    link = ipaddress.ip_network(f"{net.host}/24", strict=False)
    pods, services = ipaddress.ip_network(net.pods), ipaddress.ip_network(net.services)
    for part in (link, pods, services):
        assert part.subnet_of(whole)
    assert not pods.overlaps(services)
    assert not pods.overlaps(link)
    assert ipaddress.ip_address(net.api_service) == services[1]
    assert ipaddress.ip_address(net.dns_service) in services
    assert len({net.host, net.address, net.node(0), net.node(1)}) == 4
    assert not ipaddress.ip_network(Network(4).range).overlaps(whole)


def test_a_second_cluster_gets_the_next_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(network, "_routes", list)
    first, second = State(tmp_path / "run" / "a"), State(tmp_path / "run" / "b")
    assert network.choose_network(first).slot == 0
    assert network.choose_network(second).slot == 1
    assert network.choose_network(first).slot == 0


def test_a_range_that_the_host_uses_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(network, "_routes", lambda: [ipaddress.IPv4Network("10.200.7.0/24")])
    assert network.choose_network(State(tmp_path / "run" / "a")).slot == 1


def test_free_ports_differ_and_are_below_the_ephemeral_range() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert all(18000 <= port < 32000 for port in found)


def test_processes_choose_from_ports_of_their_own_and_none_twice() -> None:
    mine = [port for _ in range(50) for port in ports.free_ports(2)]
    program = "from devcluster import ports; print(*[port for _ in range(50) for port in ports.free_ports(2)])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    theirs = [int(port) for port in said.split()]
    assert len({*mine, *theirs}) == 200
