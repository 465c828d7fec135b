"""A web server, and a TCP proxy for any server, that fail in the ways networks and stores fail."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.servers.threaded import ThreadedServer, send_body


@dataclass
class Page:
    """One file of the web server, and how it misbehaves."""

    body: bytes = b""
    ranges: bool = True
    etag: bool = True
    length: bool = True  # False: chunked, with no Content-Length
    status: list[int] = field(default_factory=list)  # given out first, one a request
    redirect: str = ""
    authorization: str = ""  # only requests with exactly this header are answered
    cut_after: int = -1  # bytes of a body after which the connection is closed
    cuts: int = 0  # how many bodies are cut
    stall_after: int = -1  # bytes of a body after which nothing more comes
    trickle: float = 0.0  # seconds between two bytes, from stall_after on
    next_body: bytes | None = None  # takes the body's place after the first request
    claim_length: int = -1  # Content-Length that is announced instead of the true one
    headers: dict[str, str] = field(default_factory=dict)


class FaultServer(ThreadedServer):
    """`pages` by path. `requests` is what was asked: (path, Range header, Authorization header)."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str, str]] = []

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/{path:.*}", self._get)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        authorization = request.headers.get("Authorization", "")
        self.requests.append((path, request.headers.get("Range", ""), authorization))
        page = self.pages.get(path)
        if page is None:
            return web.Response(status=404)
        if page.authorization and authorization != page.authorization:
            return web.Response(status=403, text=f"you sent {authorization}")
        if page.status and (status := page.status.pop(0)) != 200:
            return web.Response(status=status, headers=page.headers)
        if page.redirect:
            return web.Response(status=302, headers={"Location": page.redirect})
        headers = dict(page.headers)
        if page.etag:
            headers["ETag"] = f'"{hashlib.md5(page.body).hexdigest()}"'
        if page.ranges:
            answer = send_body(request, page.body, headers)
        else:
            answer = web.Response(body=page.body, headers=headers)
        body = answer.body if isinstance(answer.body, bytes) else b""
        if page.next_body is not None:
            page.body, page.next_body = page.next_body, None
        plain = page.cut_after < 0 and page.stall_after < 0 and page.length and page.claim_length < 0
        if plain or (page.ranges and len(body) <= 1):
            return answer
        return await self._send_badly(request, page, answer.status, dict(answer.headers), body)

    async def _send_badly(
        self, request: web.Request, page: Page, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.headers.pop("Content-Length", None)
        if page.length:
            response.content_length = page.claim_length if page.claim_length >= 0 else len(body)
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if page.cuts > 0 and page.cut_after >= 0 and len(body) > page.cut_after:
            page.cuts -= 1
            await response.write(body[: page.cut_after])
            await asyncio.sleep(0.05)
            if request.transport:
                request.transport.close()
            return response
        if page.stall_after >= 0 and len(body) > page.stall_after:
            await response.write(body[: page.stall_after])
            with suppress(ConnectionError):
                for byte in body[page.stall_after :]:
                    await asyncio.sleep(page.trickle or 3600)
                    await response.write(bytes([byte]))
            return response
        await response.write(body)
        if page.claim_length > len(body) and request.transport:
            request.transport.close()
        return response


class FaultProxy:
    """Passes TCP through to `target` (host, port); each way from the server to the client can be made bad at any time.

    With `tls` it ends TLS before the server.
    `down` refuses (closes at once). `cut_after` closes a connection once that many bytes came back on it, `cuts` times.
    `freeze_after` lets no byte through once `seen` would be more. `seen` counts bytes that came back.
    """

    def __init__(self, target: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self._tls = tls
        self.down = False
        self.cut_after = -1
        self.cuts = 0
        self.freeze_after = -1
        self.bytes_per_second = 0
        self.seen = 0
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._closing = False
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def behave(self) -> None:
        """Everything passes again."""
        self.down, self.cut_after, self.cuts, self.freeze_after, self.bytes_per_second = False, -1, 0, -1, 0
        self.drop()

    def drop(self) -> None:
        """Closes all connections."""
        for connection in list(self._open):
            self._close(connection)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        # close() alone does not wake a thread that is in accept()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        self._thread.join(5)

    def _close(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.down:
                client.close()
                continue
            try:
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
                server = socket.create_connection(self.target, 5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
        except OSError:
            pass
        self._close(server)
        self._close(client)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        sent = 0
        try:
            while data := server.recv(65536):
                if self.freeze_after >= 0 and self.seen + len(data) > self.freeze_after:
                    while self.freeze_after >= 0 and client in self._open:
                        time.sleep(0.05)
                if self.cuts > 0 and self.cut_after >= 0 and sent + len(data) > self.cut_after:
                    self.cuts -= 1
                    client.sendall(data[: max(0, self.cut_after - sent)])
                    break
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
                client.sendall(data)
                sent += len(data)
                self.seen += len(data)
        except OSError:
            pass
        self._close(client)
        self._close(server)
