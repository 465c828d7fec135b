"""HTTP to metrics servers: bounded in time, size and number, with credentials from files, and every fault told."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from modelwright import documents
from modelwright.analysis.connections import Connection
from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Failure
from modelwright.documents import Bounds, DocumentError, TooLarge
from modelwright.guard import GuardedResolver

ONE = Bounds(1 << 20)
"""An answer of which one number is taken."""
SAMPLES = Bounds(4 << 20, values=800_000, depth=16)
"""Raw samples of a time, or a course: 170,000 of them; who asks for more asks for a shorter time."""
REQUESTS_PER_CONNECTION = 8
"""At once, so that one server that hangs keeps nobody from asking another."""
_CREDENTIAL_BYTES = 64 * 1024
_SHOWN = 300
_SHORTEST_SECRET = 8
"""Characters of a header's value that can be a secret; "1" is none."""


class Fault(Exception):
    """Nothing was measured; `failure` says why. Never leaves this package."""

    def __init__(self, reason: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.failure = Failure(reason, message, permanent)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a server, whole: its status and the JSON document in it; None for an empty body. An answer that is
    an error may quote the request; its credentials are taken out."""

    status: int
    document: Any


class Web:
    """One pool of connections for all servers. Used in one event loop; `close` it at the end."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        # Comparers come and go: what nobody waits for is not kept.
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._tls: dict[str, tuple[tuple[int, int], ssl.SSLContext]] = {}

    async def ask(
        self, connection: Connection, path: str, *, form: Mapping[str, str] | None = None, bounds: Bounds = ONE
    ) -> Answer:
        """GET `path` (encoded, with its query) below the connection's URL; POST when there is a `form`.

        Raises Fault when the answer is beyond `bounds`, when there is no whole JSON answer, and for 3xx, 401, 403, 404,
        429 and 5xx without a JSON body; any other answer is returned, whatever its status.
        """
        key = f"{connection.name} {connection.url}"
        turn = self._turns.setdefault(key, asyncio.Semaphore(REQUESTS_PER_CONNECTION))
        async with turn:
            url = URL(connection.url + path, encoded=True)
            try:
                headers = self._headers(connection)
                async with (
                    asyncio.timeout(connection.timeout_seconds),
                    self._client().request(
                        "GET" if form is None else "POST",
                        url,
                        data=form,
                        headers=headers,
                        ssl=self._context(connection),
                        allow_redirects=False,
                    ) as response,
                ):
                    return await self._read(connection, response, _secrets(headers), bounds)
            except TimeoutError:
                raise Fault(
                    Reason.METRICS_SERVER_TIMEOUT,
                    f"connection {connection.name}: no answer within {connection.timeout}",
                ) from None
            except aiohttp.ClientPayloadError:
                raise Fault(
                    Reason.METRICS_ANSWER_INVALID, f"connection {connection.name}: the answer was cut off"
                ) from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Fault(
                    Reason.METRICS_SERVER_UNREACHABLE, f"connection {connection.name}: {_told(error)}"
                ) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, resolver=GuardedResolver(), ttl_dns_cache=10)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "modelwright", "Accept": "application/json"},
            )
        return self._session

    def _headers(self, connection: Connection) -> dict[str, str]:
        headers = dict(connection.headers)
        if connection.bearer_token_file is not None:
            token = _credential(connection, connection.bearer_token_file)
            headers["Authorization"] = f"Bearer {token}"
        if connection.basic_auth is not None:
            password = _credential(connection, connection.basic_auth.password_file)
            headers["Authorization"] = aiohttp.encode_basic_auth(connection.basic_auth.username, password)
        return headers

    def _context(self, connection: Connection) -> ssl.SSLContext | bool:
        """TLS settings; made anew when the CA file has changed."""
        if connection.ca_file is None:
            return True
        try:
            seen = os.stat(connection.ca_file)
            stamp = (seen.st_mtime_ns, seen.st_size)
            kept = self._tls.get(connection.ca_file)
            if kept is None or kept[0] != stamp:
                kept = (stamp, ssl.create_default_context(cafile=connection.ca_file))
                self._tls[connection.ca_file] = kept
        except OSError as error:  # ssl.SSLError is one
            raise Fault(
                Reason.CREDENTIALS_UNREADABLE,
                f"connection {connection.name}: caFile {connection.ca_file}: {_reason(error)}",
            ) from None
        return kept[1]

    async def _read(
        self, connection: Connection, response: aiohttp.ClientResponse, secrets: list[bytes], bounds: Bounds
    ) -> Answer:
        name, status = connection.name, response.status
        if 300 <= status < 400:
            raise Fault(
                Reason.METRICS_SERVER_ERROR, f"connection {name}: answered {status}, and redirects are not followed"
            )
        if status in (401, 403):
            raise Fault(
                Reason.METRICS_ACCESS_DENIED,
                f"connection {name}: answered {status}: its credentials are missing or refused",
            )
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > bounds.size:
                # What is left would have to be read before the connection could be used again.
                response.close()
                raise Fault(
                    Reason.METRICS_ANSWER_TOO_LARGE,
                    f"connection {name}: the answer is larger than {bounds.size} bytes",
                )
        if status >= 400:
            body = _without(body, secrets)
        try:
            document = documents.read(body, bounds) if body else None
        except TooLarge as error:
            raise Fault(Reason.METRICS_ANSWER_TOO_LARGE, f"connection {name}: the answer {error}") from None
        except DocumentError:
            if status >= 400:
                raise Fault(
                    Reason.METRICS_SERVER_ERROR, f"connection {name}: answered {status}{_excerpt(body, secrets)}"
                ) from None
            raise Fault(
                Reason.METRICS_ANSWER_INVALID, f"connection {name}: the answer is no JSON{_excerpt(body, secrets)}"
            ) from None
        if document is None and status >= 400:
            raise Fault(Reason.METRICS_SERVER_ERROR, f"connection {name}: answered {status}")
        return Answer(status, document)


def _credential(connection: Connection, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_CREDENTIAL_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        told = _reason(error) if isinstance(error, OSError) else "is no text"
        raise Fault(Reason.CREDENTIALS_UNREADABLE, f"connection {connection.name}: {path}: {told}") from None
    if not text or not text.isprintable():
        raise Fault(
            Reason.CREDENTIALS_UNREADABLE, f"connection {connection.name}: {path} is empty or more than one line"
        )
    return text


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _told(error: Exception) -> str:
    """What went wrong, without the headers that some of aiohttp's errors carry."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"can't connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is no HTTP"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__


def _secrets(headers: Mapping[str, str]) -> list[bytes]:
    """What of a request must never be told, in the forms in which a server may quote it; the longest first."""
    found = {value for value in headers.values() if len(value) >= _SHORTEST_SECRET}
    kind, _, credential = headers.get("Authorization", "").partition(" ")
    found |= {credential} if credential else set()
    if kind == "Basic":
        found.add(base64.b64decode(credential).decode().partition(":")[2])
    quoted = {json.dumps(value)[1:-1] for value in found}
    return [value.encode() for value in sorted(found | quoted, key=len, reverse=True) if value]


def _without(body: bytearray, secrets: list[bytes]) -> bytearray:
    for secret in secrets:
        body = body.replace(secret, b"***")
    return body


def _excerpt(body: bytearray, secrets: list[bytes]) -> str:
    text = " ".join(bytes(_without(body, secrets)[:_SHOWN]).decode(errors="replace").split())
    return f": {text}" if text else ""
