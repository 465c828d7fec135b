"""A test's event loop, watched: no callback may hold it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

MOST_CPU_SECONDS = 0.1


@contextmanager
def none_holds_the_loop(most: float = MOST_CPU_SECONDS) -> Iterator[None]:
    """Fail when one callback of asyncio's own loop takes more than `most` seconds of its thread's CPU time. (uvloop's
    callbacks aren't seen.) CPU time, so that a busy host fails nothing; the garbage of other tests is not counted."""
    too_long: list[tuple[float, str]] = []
    run = asyncio.Handle._run

    def watched(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        if (took := time.thread_time() - began) > most:
            too_long.append((took, repr(handle)))

    gc.collect()
    gc.disable()
    asyncio.Handle._run = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.enable()
    assert not too_long, "; ".join(f"{took:.3f} s of CPU time in {what}" for took, what in too_long)
