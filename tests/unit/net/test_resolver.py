"""A slow DNS: its callers time out soon, and slow names delay no other name."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from modelwright.net import resolver
from modelwright.net.resolver import DnsLookups, GuardedResolver


class Dns:
    """Answers at once, but for names that begin with `slow`: those have to wait until `release`."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.lookups: Counter[str] = Counter()

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> Any:
        self.lookups[host] += 1
        if host.startswith("slow"):
            self.release.wait(30)
        if host == "metadata":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    dns = Dns()
    monkeypatch.setattr(resolver.socket, "getaddrinfo", dns.getaddrinfo)
    monkeypatch.setattr(resolver, "LOOKUP_SECONDS", 1.0)
    yield dns
    dns.release.set()


async def test_a_name_is_found_with_its_port(dns: Dns) -> None:
    actual = await GuardedResolver().resolve("example.com", 8080)
    assert [(entry["host"], entry["port"]) for entry in actual] == [("192.0.2.1", 8080)]


async def test_a_metadata_address_is_not_found(dns: Dns) -> None:
    with pytest.raises(OSError, match="never contacted"):
        await GuardedResolver().resolve("metadata", 80)


async def test_a_slow_name_fails_in_time_and_uses_one_thread(dns: Dns) -> None:
    guarded = GuardedResolver()
    for _ in range(3):
        with pytest.raises(OSError, match="did not answer for slow"):
            await guarded.resolve("slow", 80)
    assert dns.lookups["slow"] == 1


async def test_slow_names_of_one_purpose_keep_no_other_purpose_waiting(dns: Dns) -> None:
    probes, metrics = GuardedResolver(), GuardedResolver()
    slow = [asyncio.create_task(probes.resolve(f"slow{n}", 80)) for n in range(20)]
    await asyncio.sleep(0.05)
    assert await metrics.resolve("prometheus", 80)
    assert sum(dns.lookups[f"slow{n}"] for n in range(20)) == resolver.MAX_CONCURRENT_LOOKUPS
    outcomes = await asyncio.gather(*slow, return_exceptions=True)
    assert all(isinstance(error, OSError) for error in outcomes)


async def test_a_name_that_was_slow_is_left_alone_for_a_while(dns: Dns) -> None:
    lookups = DnsLookups()
    with pytest.raises(OSError, match="did not answer"):
        await lookups.resolve_name("slow", socket.AF_UNSPEC)
    dns.release.set()
    await asyncio.sleep(0.1)
    with pytest.raises(OSError, match="looked up again in a minute"):
        await lookups.resolve_name("slow", socket.AF_UNSPEC)
    assert dns.lookups["slow"] == 1


async def test_what_is_no_name_is_an_error_of_the_network(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise UnicodeError("label too long")

    monkeypatch.setattr(resolver.socket, "getaddrinfo", refuse)
    with pytest.raises(OSError, match="is no name"):
        await GuardedResolver().resolve("x" * 300, 80)
