"""Small helpers for background tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def cancel_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended, with any result."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


async def run_unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`; None, with `work` cancelled, when `event` is set first. Exceptions of `work`
    propagate."""
    doing = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        await cancel_task(waiting)
        await cancel_task(doing)
