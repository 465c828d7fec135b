"""The resolver of the operator's own HTTP clients: what it finds is what is connected to, and some is never found."""

from __future__ import annotations

import errno
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from modelwright import addresses


class GuardedResolver(AbstractResolver):
    """Leaves out addresses that must not be asked, whatever name leads to them."""

    def __init__(self) -> None:
        self._inner = DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        kept = [entry for entry in found if not addresses.refused(entry["host"])]
        if not kept:
            raise OSError(errno.EACCES, f"{host} leads to link-local or metadata addresses only, which are never asked")
        return kept

    async def close(self) -> None:
        await self._inner.close()
