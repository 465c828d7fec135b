"""Base of the test servers: an aiohttp application on a loopback port, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

from aiohttp import web


class ThreadedServer:
    """Subclasses add routes in `routes`. `port` is free to choose unless given; `url` has no slash at its end."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def routes(self, app: web.Application) -> None:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        self.routes(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        # answers that were told never to end
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def start(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def send_body(request: web.Request, body: bytes, headers: dict[str, str]) -> web.Response:
    """A whole or partial answer, as a well-behaved server gives it: Range, If-Match, 416, HEAD."""
    etag = headers.get("ETag", "")
    wanted = request.headers.get("If-Match")
    if wanted and etag and wanted not in (etag, "*"):
        return web.Response(status=412)
    text = request.headers.get("Range", "")
    if not text.startswith("bytes="):
        return web.Response(body=body, headers=headers)
    first, _, last = text.removeprefix("bytes=").partition("-")
    start = int(first)
    stop = min(int(last) + 1 if last else len(body), len(body))
    if start >= len(body):
        return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{len(body)}"})
    return web.Response(
        status=206, body=body[start:stop], headers={**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
    )
