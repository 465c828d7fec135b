"""DNS resolver of the operator's HTTP clients: never returns forbidden addresses, and bounds the cost of a slow DNS.

aiohttp connects to the addresses that it returns, so no second lookup can bypass the check.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from modelwright.net import addresses

LOOKUP_SECONDS = 5.0
"""Timeout of a lookup for its callers; the lookup itself continues, since nothing can cancel it."""
MAX_CONCURRENT_LOOKUPS = 4
MAX_WAITING_LOOKUPS = 1000
SLOW_SECONDS = 60.0
"""Time for which a name whose lookup timed out is not looked up again."""

AddressInfo = list[tuple[Any, Any, int, str, Any]]


class DnsLookups:
    """Looks names up in a few threads of its own.

    `getaddrinfo` can't be cancelled, and takes half a minute when a server of the zone doesn't answer. In the event
    loop's shared threads, four such names would block all other lookups, that of the API server included. So each
    purpose has its own threads, a name is looked up once at a time, and a slow name is not retried at once.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, Any], asyncio.Task[AddressInfo]] = {}
        self._slow: dict[str, float] = {}
        self._slots: asyncio.Semaphore | None = None

    async def resolve_name(self, host: str, family: Any) -> AddressInfo:
        """Return the addresses of a name. Raises OSError within LOOKUP_SECONDS."""
        if time.monotonic() < self._slow.get(host, 0.0):
            raise OSError(errno.ETIMEDOUT, f"the DNS took too long for {host}: it is looked up again in a minute")
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await asyncio.shield(self._start_lookup(host, family))
        except TimeoutError:
            text = f"the DNS did not answer for {host} within {LOOKUP_SECONDS:g} s"
            raise OSError(errno.ETIMEDOUT, text) from None

    def _start_lookup(self, host: str, family: Any) -> asyncio.Task[AddressInfo]:
        task = self._running.get((host, family))
        if task is None:
            if len(self._running) >= MAX_WAITING_LOOKUPS:
                raise OSError(errno.EAGAIN, f"{host} is not looked up: too many names wait for the DNS")
            task = self._running[host, family] = asyncio.create_task(self._run_lookup(host, family))
            # Retrieve the exception: its waiter may have been cancelled.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _run_lookup(self, host: str, family: Any) -> AddressInfo:
        if self._slots is None:
            self._slots = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)
        try:
            async with self._slots:
                start = time.monotonic()
                try:
                    return await _resolve_in_thread(host, family)
                finally:
                    self._note_duration(host, time.monotonic() - start)
        finally:
            del self._running[host, family]

    def _note_duration(self, host: str, took: float) -> None:
        now = time.monotonic()
        self._slow = {name: until for name, until in self._slow.items() if until > now}
        if took > LOOKUP_SECONDS:
            self._slow[host] = now + SLOW_SECONDS


async def _resolve_in_thread(host: str, family: Any) -> AddressInfo:
    """Look a name up in a daemon thread, which the process does not wait for at its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[AddressInfo] = loop.create_future()

    def set_outcome(infos: AddressInfo | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(infos or [])

    def look_up() -> None:
        infos, failure = None, None
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
        except (OSError, UnicodeError) as error:
            failure = error if isinstance(error, OSError) else OSError(errno.EINVAL, f"{host!r} is no name: {error}")
        if not loop.is_closed():
            loop.call_soon_threadsafe(set_outcome, infos, failure)

    threading.Thread(target=look_up, name="dns", daemon=True).start()
    return await future


class GuardedResolver(AbstractResolver):
    """Leaves out forbidden addresses, by any name. Resolvers with the same `lookups` share their threads."""

    def __init__(self, lookups: DnsLookups | None = None) -> None:
        self._lookups = lookups or DnsLookups()

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        resolved = await self._lookups.resolve_name(host, family)
        allowed = [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in resolved
            if not addresses.is_forbidden(str(address[0]))
        ]
        if not allowed:
            raise OSError(
                errno.EACCES, f"{host} leads to link-local or metadata addresses only, which are never contacted"
            )
        return allowed

    async def close(self) -> None:
        return
