"""Probes of a gateway at the address in its status, which another program writes."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from modelwright.core.attachment import ListenerAddress
from modelwright.traffic.gateway_probe import GatewayProbe


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    tried: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: tried.append(address))
    return tried


async def send_probe_to(host: str) -> str:
    answer = await GatewayProbe().send_probe(ListenerAddress("http", (host,), 80), path="/", headers={})
    assert answer.status == 0
    return answer.error


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "fe80::1", "metadata.google.internal"])
async def test_a_gateway_at_a_metadata_address_is_not_asked(host: str, connections: list[object]) -> None:
    assert "never contacted" in await send_probe_to(host)
    assert not connections


async def test_a_gateway_whose_name_leads_there_is_not_asked(
    connections: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*_: Any) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", ("169.254.169.254", 0))]

    monkeypatch.setattr("modelwright.net.resolver.DnsLookups.resolve_name", find)
    assert "metadata addresses" in await send_probe_to("gateway.example.com")
    assert not connections
