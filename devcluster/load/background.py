"""A load in its own thread, so that a test or the demo can change the cluster meanwhile in plain blocking code."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from devcluster.load.client import Load, Report, Target


class BackgroundLoad:
    """``with BackgroundLoad(target, rate=100) as load:`` sends until the block ends, then awaits the last responses."""

    def __init__(
        self,
        target: Target,
        *,
        rate: float,
        timeout: float = 10.0,
        fresh_share: float = 0.2,
        bodies: Sequence[bytes] = (),
    ) -> None:
        self._make = lambda: Load(target, rate=rate, timeout=timeout, fresh_share=fresh_share, bodies=bodies)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._error: BaseException | None = None
        self._begin = 0.0

    def __enter__(self) -> BackgroundLoad:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def report(self) -> Report:
        """The report so far; complete after the block."""
        return self._load.report

    def elapsed(self) -> float:
        """Seconds since the first request."""
        return time.monotonic() - self._begin

    def recent(self) -> dict[str, int]:
        """Good responses by version in the last full second."""
        return dict(self.report.timeline.get(int(self.elapsed()) - 1, {}))

    def run_until(self, total: int) -> None:
        """Wait until ``total`` requests were sent."""
        while self.report.total < total and self._thread.is_alive():
            time.sleep(0.1)

    def send_no_more(self) -> None:
        """Stop sending and return at once; requests in flight are still awaited."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._load.stop)

    def stop(self) -> Report:
        """Stop sending, await the last responses and return the whole report."""
        self.send_no_more()
        self._thread.join()
        if self._error:
            raise self._error
        return self.report

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._load = self._make()
        self._begin = time.monotonic()
        self._started.set()
        await self._load.run()
