"""Listener of every HTTP server of Modelwright: bounds the cost of clients before it reads a request.

With too many connections, it closes first one that has not sent a complete head, then an idle one. It never closes one
with a request in progress in favour of another, so a flood of half-sent requests locks no client out.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
"""Files of a Secret of type kubernetes.io/tls, and cert-manager's third."""
_CERTIFICATE_CHECK_SECONDS = 10.0
_HEAD_END = b"\r\n\r\n"
_HEAD_TOO_LONG_RESPONSE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_LOG_INTERVAL_SECONDS = 60.0
_ACCEPT_RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the connections to one server. Sizes in bytes, times in seconds.

    `max_connections` in total, and `max_per_address`. `head_seconds`: from the first byte of a request, or from the
    start of the connection, to the end of its head; a TLS handshake has the same time. `request_seconds`: from there
    to the end of the response. `keepalive_seconds`: maximum idle time after a request.
    """

    max_connections: int = 128
    max_per_address: int = 32
    head_seconds: float = 5.0
    head_bytes: int = 16 << 10
    max_headers: int = 64
    request_seconds: float = 60.0
    keepalive_seconds: float = 30.0


class Listener:
    """A listening server. `refused_connections`: connections that were closed to keep the limits."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._all_connections = _ConnectionGroup()
        self._addresses: dict[str, _ConnectionGroup] = {}
        self._by_transport: dict[asyncio.BaseTransport, _Connection] = {}
        self._socket: socket.socket | None = None
        self._runner: web.AppRunner | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._log_throttle = LogThrottle(log)
        self.refused_connections = 0
        self.port = 0

    @classmethod
    async def start(
        cls,
        app: web.Application,
        host: str,
        port: int,
        limits: ConnectionLimits,
        *,
        decompress: bool = False,
        backlog: int = 128,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> Listener:
        """Serve `app`, which must not be frozen yet. Raises OSError when the port is taken.

        An empty `host` is all addresses, IPv4 and IPv6; `port` 0 is any free one. `tls` returns the context of the
        next connection.
        """
        self = cls(limits)
        app.middlewares.append(self._track_request)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            auto_decompress=decompress,
            max_line_size=limits.head_bytes,
            max_field_size=limits.head_bytes,
            max_headers=limits.max_headers,
            logger=_RequestErrorLogger(self._log_throttle),
        )
        await self._runner.setup()
        try:
            self._socket = _bind_socket(host, port, backlog)
        except OSError:
            await self._runner.cleanup()
            raise
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._accepting = asyncio.create_task(
            self._accept_connections(self._socket, self._runner, tls), name=f"port {self.port}"
        )
        return self

    async def close(self) -> None:
        """Accept no more connections; close all, after the time that aiohttp gives to requests in progress."""
        for task in (self._accepting, *self._opening):
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, (self._accepting, *self._opening)), return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def open_connections(self) -> int:
        """Number of open connections."""
        return len(self._all_connections)

    async def _accept_connections(
        self, listening: socket.socket, runner: web.AppRunner, tls: Callable[[], ssl.SSLContext] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:
                self._log_throttle.warn_throttled("a connection can't be accepted", str(error))
                await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
                continue
            address = str(peer[0]).removeprefix("::ffff:")
            if not self._make_room(address):
                accepted.close()
                self._count_refusal(address)
                continue
            server = runner.server
            assert server is not None  # noqa: S101 - set up before
            connection = _Connection(self, address, server())
            self._add_connection(connection)
            connection.opening = task = asyncio.create_task(self._open_connection(connection, accepted, tls))
            self._opening.add(task)
            task.add_done_callback(functools.partial(self._finish_opening, connection, accepted))

    async def _open_connection(
        self, connection: _Connection, accepted: socket.socket, tls: Callable[[], ssl.SSLContext] | None
    ) -> None:
        secure: dict[str, Any] = {}
        if tls is not None:
            secure = {"ssl": tls(), "ssl_handshake_timeout": self._limits.head_seconds}
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted, **secure)

    def _finish_opening(self, connection: _Connection, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        connection.opening = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            accepted.close()
            self._forget_connection(connection)
        if error is not None:
            self._log_throttle.warn_throttled("a connection was not opened", str(error) or type(error).__name__)

    @web.middleware
    async def _track_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._by_transport.get(request.transport) if request.transport is not None else None
        if connection is not None:
            connection.start_request(request)
        try:
            return await handler(request)
        except web.RequestPayloadError:
            return web.Response(status=400, text="the body does not match its head")
        finally:
            if connection is not None:
                connection.finish_request()

    def _make_room(self, address: str) -> bool:
        """Whether `address` may open one more connection; closes a less active one for it if necessary."""
        same_address = self._addresses.get(address)
        for group, limit in (
            (same_address, self._limits.max_per_address),
            (self._all_connections, self._limits.max_connections),
        ):
            if group is None or len(group) < limit:
                continue
            victim = group.pick_to_close()
            if victim is None:
                return False
            self._count_refusal(victim.address)
            victim.close_now()
        return True

    def _count_refusal(self, address: str) -> None:
        self.refused_connections += 1
        self._log_throttle.warn_throttled("too many connections: one was closed", address)

    def _add_connection(self, connection: _Connection) -> None:
        for group in (self._all_connections, self._addresses.setdefault(connection.address, _ConnectionGroup())):
            group.waiting[connection] = None

    def _register_transport(self, connection: _Connection, transport: asyncio.BaseTransport) -> None:
        self._by_transport[transport] = connection

    def _change_state(self, connection: _Connection, state: str) -> None:
        for group in (self._all_connections, self._addresses.get(connection.address)):
            if group is not None:
                group.remove(connection)
                getattr(group, state)[connection] = None

    def _forget_connection(self, connection: _Connection) -> None:
        self._all_connections.remove(connection)
        same_address = self._addresses.get(connection.address)
        if same_address is not None:
            same_address.remove(connection)
            if not len(same_address):
                del self._addresses[connection.address]
        if connection.transport is not None:
            self._by_transport.pop(connection.transport, None)


def _bind_socket(host: str, port: int, backlog: int) -> socket.socket:
    if not host:
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        except (ValueError, OSError):
            # A node without IPv6. The next attempt raises if the port is taken.
            host = "0.0.0.0"  # noqa: S104 - callers come from outside the pod
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)


class _ConnectionGroup:
    """Open connections by state, each in the order in which they entered it."""

    def __init__(self) -> None:
        self.waiting: dict[_Connection, None] = {}
        self.idle: dict[_Connection, None] = {}
        self.busy: dict[_Connection, None] = {}

    def __len__(self) -> int:
        return len(self.waiting) + len(self.idle) + len(self.busy)

    def pick_to_close(self) -> _Connection | None:
        """Return the connection to close first; None when all have a request in progress."""
        return next(iter(self.waiting), None) or next(iter(self.idle), None)

    def remove(self, connection: _Connection) -> None:
        for state in (self.waiting, self.idle, self.busy):
            state.pop(connection, None)


class _Connection(asyncio.Protocol):
    """Wraps aiohttp's protocol, and closes the connection when a time or the size of the head exceeds its limit."""

    def __init__(self, listener: Listener, address: str, inner: asyncio.Protocol) -> None:
        self.address = address
        self.transport: asyncio.Transport | None = None
        self.opening: asyncio.Task[None] | None = None
        self._listener = listener
        self._limits = listener._limits
        self._inner = inner
        self._timer: asyncio.TimerHandle | None = None
        self._content: StreamReader | None = None
        self._expects_head = True
        self._request_started = False
        self._head_length = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._listener._register_transport(self, transport)
        self._request_started = True
        self._set_deadline(self._limits.head_seconds)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._expects_head and not self._accept_head(data):
            return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._listener._forget_connection(self)
        self._inner.connection_lost(exc)  # type: ignore[arg-type]

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def start_request(self, request: web.BaseRequest) -> None:
        """Record that a complete head has arrived."""
        self._content = request.content
        self._expects_head = False
        self._listener._change_state(self, "busy")
        self._set_deadline(self._limits.request_seconds)

    def finish_request(self) -> None:
        """Record the end of the response; the next request may arrive."""
        self._expects_head, self._request_started, self._head_length, self._tail = True, False, 0, b""
        self._listener._change_state(self, "idle")
        self._set_deadline(self._limits.keepalive_seconds)

    def close_now(self) -> None:
        """Close the connection at once."""
        self._listener._forget_connection(self)
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def _accept_head(self, data: bytes) -> bool:
        """Whether `data`, which arrives before the end of a head, is within the limit of the head."""
        if self._content is not None and not self._content.is_eof():
            # The rest of an unread body; aiohttp bounds the time for it.
            return True
        if not self._request_started:
            self._request_started = True
            self._set_deadline(self._limits.head_seconds)
        if self._head_length == 0:
            # Empty lines before a request don't end a head.
            data = data.lstrip(b"\r\n")
        received = self._tail + data
        end = received.find(_HEAD_END)
        self._head_length += len(data) if end < 0 else end + len(_HEAD_END) - len(self._tail)
        if self._head_length > self._limits.head_bytes:
            if self.transport is not None:
                self.transport.write(_HEAD_TOO_LONG_RESPONSE)
                self.transport.close()
            return False
        # A body, or the next request, follows the end.
        self._expects_head = end < 0
        self._tail = received[1 - len(_HEAD_END) :]
        return True

    def _set_deadline(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close_now)


class LogThrottle:
    """Logs warnings that any client can cause: one a minute of each kind, with the number of suppressed ones."""

    def __init__(self, logger: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = logger
        self._now = now
        self._last_logged: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def warn_throttled(self, message: str, why: str) -> None:
        """Log `message`, a constant text, with `why`; or only count it."""
        last = self._last_logged.get(message)
        if last is not None and self._now() - last < _LOG_INTERVAL_SECONDS:
            self._suppressed[message] = self._suppressed.get(message, 0) + 1
            return
        self._last_logged[message] = self._now()
        suppressed = self._suppressed.pop(message, 0)
        self._log.warning(message, extra={"why": why[:200], "not_logged_before": suppressed})


class _RequestErrorLogger(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's error logger: an error of the sender is one line a minute, without a traceback."""

    def __init__(self, noise: LogThrottle) -> None:
        super().__init__(log, {})
        self._log_throttle = noise

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """Log an error of a handler with its traceback."""
        if isinstance(exc_info, HttpProcessingError | web.RequestPayloadError | ConnectionError):
            text = str(exc_info).partition("\n")[0]
            self._log_throttle.warn_throttled("a request was malformed", text or type(exc_info).__name__)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


class TlsCertificate:
    """TLS context of a folder with tls.crt and tls.key, as of a mounted Secret; loaded again when they change.

    Raises OSError (ssl.SSLError is one) when the first load fails; after a later failure the former one stays in use.
    """

    def __init__(self, folder: str, now: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._now = now
        self._log_throttle = LogThrottle(log)
        self._stamp = self._read_stamp()
        self._context = self._load_context()
        self._checked_at = now()

    def get_context(self) -> ssl.SSLContext:
        """Return the context of the next connection; checks the files every 10 s."""
        if self._now() - self._checked_at >= _CERTIFICATE_CHECK_SECONDS:
            self._checked_at = self._now()
            try:
                stamp = self._read_stamp()
                if stamp != self._stamp:
                    self._context = self._load_context()
                    self._stamp = stamp
                    log.info("the TLS certificate was read again", extra={"folder": self._folder})
            except OSError as error:
                self._log_throttle.warn_throttled(
                    "the TLS certificate can't be read: the former one stays in use", str(error)
                )
        return self._context

    def _load_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(os.path.join(self._folder, CERTIFICATE), os.path.join(self._folder, KEY))
        return context

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        stats = (os.stat(os.path.join(self._folder, name)) for name in (CERTIFICATE, KEY))
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in stats)
