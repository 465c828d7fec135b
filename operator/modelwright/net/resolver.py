"""The resolver of the operator's own HTTP clients: what it finds is what is connected to, some is never found, and a
slow DNS takes no more than it is given."""

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
"""How long a name is waited for; the lookup itself goes on, since nothing can end it."""
MAX_CONCURRENT_LOOKUPS = 4
MAX_WAITING_LOOKUPS = 1000
SLOW_SECONDS = 60.0
"""How long a name that took longer isn't looked up again."""

AddressInfo = list[tuple[Any, Any, int, str, Any]]


class DnsLookups:
    """Lookups of names in a few threads of their own.

    `getaddrinfo` can't be ended, and takes half a minute when a server of the zone doesn't answer. In the threads that
    a loop has for everybody, four such names would keep all others, and the API server's, from being found. So each
    purpose has its own threads, a name is looked up once at a time, and one that was slow has to wait.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, Any], asyncio.Task[AddressInfo]] = {}
        self._slow: dict[str, float] = {}
        self._slots: asyncio.Semaphore | None = None

    async def resolve_name(self, host: str, family: Any) -> AddressInfo:
        """The addresses of a name. Raises OSError, within LOOKUP_SECONDS."""
        if time.monotonic() < self._slow.get(host, 0.0):
            raise OSError(errno.ETIMEDOUT, f"the DNS took too long for {host}: it is asked again in a minute")
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
            # Its exception is the waiter's, and there may be none any more.
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
    """In a thread that the process does not wait for at its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[AddressInfo] = loop.create_future()

    def told(found: AddressInfo | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found or [])

    def look() -> None:
        found, failed = None, None
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
        except (OSError, UnicodeError) as error:
            failed = error if isinstance(error, OSError) else OSError(errno.EINVAL, f"{host!r} is no name: {error}")
        if not loop.is_closed():
            loop.call_soon_threadsafe(told, found, failed)

    threading.Thread(target=look, name="dns", daemon=True).start()
    return await future


class GuardedResolver(AbstractResolver):
    """Leaves out addresses that must not be asked, whatever name leads to them. Those with the same `lookups` share
    their threads."""

    def __init__(self, lookups: DnsLookups | None = None) -> None:
        self._lookups = lookups or DnsLookups()

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        found = await self._lookups.resolve_name(host, family)
        kept = [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
            if not addresses.is_forbidden(str(address[0]))
        ]
        if not kept:
            raise OSError(
                errno.EACCES, f"{host} leads to link-local or metadata addresses only, which are never contacted"
            )
        return kept

    async def close(self) -> None:
        return
