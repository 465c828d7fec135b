"""HTTP client of metrics servers: bounded in time, size and number of requests, with credentials from files."""

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
from urllib.parse import parse_qsl, quote_plus, urlencode
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from modelwright import untrusted_json
from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import MeasurementFailure
from modelwright.measurement.connections import Connection, OAuth2
from modelwright.net.resolver import GuardedResolver
from modelwright.untrusted_json import DocumentError, DocumentTooLarge, JsonLimits

NUMBER_LIMITS = JsonLimits(1 << 20)
"""Limits of an answer of which one number is read."""
SAMPLES_LIMITS = JsonLimits(4 << 20, values=800_000, depth=16)
"""Limits of raw samples, or of a range: 170,000 samples. For more, the caller requests shorter times."""
REQUESTS_PER_CONNECTION = 8
"""Concurrent requests to one server, so that one that hangs delays no other."""
_CREDENTIAL_BYTES = 64 * 1024
_EXCERPT_BYTES = 300
"""Bytes of an answer that messages quote."""
_TOKEN_BYTES = 64 * 1024
_TOKEN_LIMITS = JsonLimits(_TOKEN_BYTES, values=1_000, depth=8)
_TOKEN_SECONDS = 300.0
"""Lifetime of a token without an expiry."""
_MAX_TOKEN_SECONDS = 86_400
_TOKEN_LEEWAY = 30.0
_OAUTH2_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
_MIN_SECRET_CHARACTERS = 8
"""Characters from which on the value of a header may be a secret; "1" is none."""


class MeasurementError(Exception):
    """Nothing could be measured; `failure` says why."""

    def __init__(self, reason: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.failure = MeasurementFailure(reason, message, permanent)


@dataclass(frozen=True, slots=True)
class _Token:
    """A token, the client's secret that it was issued for, and the end of its use (in the event loop's seconds)."""

    token: str
    secret: str
    until: float


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A complete answer: its status, and its JSON document (None for an empty body). An error may quote the request;
    credentials in it are masked."""

    status: int
    document: Any


class JsonClient:
    """One pool of connections for all servers. Used in one event loop; `close` it at the end."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        # Comparers come and go, so semaphores without a waiter are not kept.
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._tls: dict[str, tuple[tuple[int, int], ssl.SSLContext]] = {}
        self._tokens: dict[str, _Token] = {}
        self._token_locks: dict[str, asyncio.Lock] = {}

    async def request_json(
        self,
        connection: Connection,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        limits: JsonLimits = NUMBER_LIMITS,
    ) -> JsonResponse:
        """GET `path` (encoded, with its query) below the connection's URL; POST when there is a `form`.

        Raises MeasurementError when the answer exceeds `limits`, when there is no complete JSON answer, and for 3xx,
        401, 403, 404, 429 and 5xx without a JSON body; returns any other answer, of any status.
        """
        key = f"{connection.name} {connection.url}"
        semaphore = self._semaphores.setdefault(key, asyncio.Semaphore(REQUESTS_PER_CONNECTION))
        async with semaphore:
            url = URL(connection.url + _with_parameters(connection, path), encoded=True)
            try:
                async with asyncio.timeout(connection.timeout_seconds):
                    headers = await self._build_headers(connection)
                async with (
                    asyncio.timeout(connection.timeout_seconds),
                    self._open_session().request(
                        "GET" if form is None else "POST",
                        url,
                        data=form,
                        headers=headers,
                        ssl=self._tls_context(connection, connection.ca_file),
                        allow_redirects=False,
                    ) as response,
                ):
                    if response.status == 401:
                        # A revoked token is not kept until it expires.
                        self._tokens.pop(connection.name, None)
                    return await self._read_response(connection, response, _list_secrets(headers, connection), limits)
            except TimeoutError:
                raise MeasurementError(
                    Reason.METRICS_SERVER_TIMEOUT,
                    f"connection {connection.name}: no answer within {connection.timeout}",
                ) from None
            except aiohttp.ClientPayloadError:
                raise MeasurementError(
                    Reason.METRICS_ANSWER_INVALID, f"connection {connection.name}: the answer was cut off"
                ) from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise MeasurementError(
                    Reason.METRICS_SERVER_UNREACHABLE, f"connection {connection.name}: {_describe_error(error)}"
                ) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, resolver=GuardedResolver(), ttl_dns_cache=10)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "modelwright", "Accept": "application/json"},
            )
        return self._session

    async def _build_headers(self, connection: Connection) -> dict[str, str]:
        headers = dict(connection.headers)
        for name, path in connection.header_files.items():
            headers[name] = _read_credential(connection, path)
        if connection.oauth2 is not None:
            headers["Authorization"] = f"Bearer {await self._get_token(connection, connection.oauth2)}"
        if connection.bearer_token_file is not None:
            token = _read_credential(connection, connection.bearer_token_file)
            headers["Authorization"] = f"Bearer {token}"
        if connection.basic_auth is not None:
            password = _read_credential(connection, connection.basic_auth.password_file)
            headers["Authorization"] = aiohttp.encode_basic_auth(connection.basic_auth.username, password)
        return headers

    async def _get_token(self, connection: Connection, oauth2: OAuth2) -> str:
        """Return a token for the client's credentials; cached until it expires, or the client's secret changes."""
        async with self._token_locks.setdefault(connection.name, asyncio.Lock()):
            secret = _read_credential(connection, oauth2.client_secret_file)
            cached, now = self._tokens.get(connection.name), asyncio.get_running_loop().time()
            if cached is None or cached.secret != secret or cached.until <= now:
                cached = await self._fetch_token(connection, oauth2, secret, now)
                self._tokens[connection.name] = cached
            return cached.token

    async def _fetch_token(self, connection: Connection, oauth2: OAuth2, secret: str, now: float) -> _Token:
        form = {"grant_type": "client_credentials", **oauth2.parameters}
        if oauth2.scopes:
            form["scope"] = " ".join(oauth2.scopes)
        client = aiohttp.encode_basic_auth(quote_plus(oauth2.client_id), quote_plus(secret))
        async with self._open_session().post(
            oauth2.token_url,
            data=form,
            headers={"Authorization": client},
            ssl=self._tls_context(connection, oauth2.ca_file),
            allow_redirects=False,
        ) as response:
            body = await response.content.read(_TOKEN_BYTES)
            while len(body) < _TOKEN_BYTES and (more := await response.content.read(_TOKEN_BYTES - len(body))):
                body += more
            status = response.status
        source = f"connection {connection.name}: oauth2.tokenUrl"
        try:
            document = untrusted_json.parse_json(body, _TOKEN_LIMITS)
        except DocumentError:
            document = None
        answer = document if isinstance(document, dict) else {}
        if status != 200:
            # Only the code is repeated: the answer may quote the request.
            code = str(answer.get("error", ""))
            why = f" ({code})" if code in _OAUTH2_ERRORS else ""
            denied = status in (400, 401, 403)
            reason = Reason.METRICS_ACCESS_DENIED if denied else Reason.METRICS_SERVER_ERROR
            raise MeasurementError(reason, f"{source} answered {status}{why}")
        token, kind = answer.get("access_token"), str(answer.get("token_type", "Bearer"))
        usable = isinstance(token, str) and token and token.isascii() and token.isprintable()
        if not usable or kind.lower() != "bearer":
            raise MeasurementError(Reason.METRICS_ANSWER_INVALID, f"{source} gave no bearer token")
        expires_in = answer.get("expires_in")
        lifetime = _TOKEN_SECONDS
        if isinstance(expires_in, int | float) and not isinstance(expires_in, bool) and expires_in >= 0:
            lifetime = float(min(expires_in, _MAX_TOKEN_SECONDS))
        return _Token(str(token), secret, now + lifetime - min(_TOKEN_LEEWAY, lifetime / 2))

    def _tls_context(self, connection: Connection, ca_file: str | None) -> ssl.SSLContext | bool:
        """Return TLS settings, built again when the CA file has changed."""
        if ca_file is None:
            return True
        try:
            file_stat = os.stat(ca_file)
            stamp = (file_stat.st_mtime_ns, file_stat.st_size)
            cached = self._tls.get(ca_file)
            if cached is None or cached[0] != stamp:
                cached = (stamp, ssl.create_default_context(cafile=ca_file))
                self._tls[ca_file] = cached
        except OSError as error:  # ssl.SSLError is one
            raise MeasurementError(
                Reason.CREDENTIALS_UNREADABLE,
                f"connection {connection.name}: caFile {ca_file}: {_describe_os_error(error)}",
            ) from None
        return cached[1]

    async def _read_response(
        self, connection: Connection, response: aiohttp.ClientResponse, secrets: list[bytes], limits: JsonLimits
    ) -> JsonResponse:
        name, status = connection.name, response.status
        if 300 <= status < 400:
            raise MeasurementError(
                Reason.METRICS_SERVER_ERROR, f"connection {name}: answered {status}, and redirects are not followed"
            )
        if status in (401, 403):
            raise MeasurementError(
                Reason.METRICS_ACCESS_DENIED,
                f"connection {name}: answered {status}: its credentials are missing or refused",
            )
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > limits.size:
                # The connection could only be used again after the rest was read.
                response.close()
                raise MeasurementError(
                    Reason.METRICS_ANSWER_TOO_LARGE,
                    f"connection {name}: the answer is larger than {limits.size} bytes",
                )
        if status >= 400:
            body = _mask_secrets(body, secrets)
        try:
            document = untrusted_json.parse_json(body, limits) if body else None
        except DocumentTooLarge as error:
            raise MeasurementError(Reason.METRICS_ANSWER_TOO_LARGE, f"connection {name}: the answer {error}") from None
        except DocumentError:
            if status >= 400:
                raise MeasurementError(
                    Reason.METRICS_SERVER_ERROR, f"connection {name}: answered {status}{_format_excerpt(body, secrets)}"
                ) from None
            raise MeasurementError(
                Reason.METRICS_ANSWER_INVALID,
                f"connection {name}: the answer is no JSON{_format_excerpt(body, secrets)}",
            ) from None
        if document is None and status >= 400:
            raise MeasurementError(Reason.METRICS_SERVER_ERROR, f"connection {name}: answered {status}")
        return JsonResponse(status, document)


def _read_credential(connection: Connection, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_CREDENTIAL_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = _describe_os_error(error) if isinstance(error, OSError) else "is no text"
        raise MeasurementError(
            Reason.CREDENTIALS_UNREADABLE, f"connection {connection.name}: {path}: {reason}"
        ) from None
    if not text or not text.isprintable():
        raise MeasurementError(
            Reason.CREDENTIALS_UNREADABLE, f"connection {connection.name}: {path} is empty or more than one line"
        )
    return text


def _describe_os_error(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _describe_error(error: Exception) -> str:
    """Describe an error without the headers that some of aiohttp's errors carry."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"can't connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is no HTTP"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__


def _with_parameters(connection: Connection, path: str) -> str:
    """Add the connection's query parameters to `path`; a policy can't set one of them itself."""
    if not connection.query_parameters:
        return path
    base, _, query = path.partition("?")
    given = {name for name, _ in parse_qsl(query.replace(";", "&"), keep_blank_values=True)}
    if twice := sorted(given & connection.query_parameters.keys()):
        message = f"connection {connection.name} sets the query parameter {twice[0]}: leave it out of the path"
        raise MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)
    added = urlencode(connection.query_parameters)
    return f"{base}?{query}&{added}" if query else f"{base}?{added}"


def _list_secrets(headers: Mapping[str, str], connection: Connection) -> list[bytes]:
    """List the secrets of a request in the forms in which a server may quote them, the longest first."""
    secrets = {value for value in headers.values() if len(value) >= _MIN_SECRET_CHARACTERS}
    secrets |= {headers[name] for name in connection.header_files}
    kind, _, credential = headers.get("Authorization", "").partition(" ")
    secrets |= {credential} if credential else set()
    if kind == "Basic":
        secrets.add(base64.b64decode(credential).decode().partition(":")[2])
    quoted = {json.dumps(value)[1:-1] for value in secrets}
    return [value.encode() for value in sorted(secrets | quoted, key=len, reverse=True) if value]


def _mask_secrets(body: bytearray, secrets: list[bytes]) -> bytearray:
    for secret in secrets:
        body = body.replace(secret, b"***")
    return body


def _format_excerpt(body: bytearray, secrets: list[bytes]) -> str:
    text = " ".join(bytes(_mask_secrets(body, secrets)[:_EXCERPT_BYTES]).decode(errors="replace").split())
    return f": {text}" if text else ""
