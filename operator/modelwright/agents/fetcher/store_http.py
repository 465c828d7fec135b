"""HTTP for the sources that use it directly (http, hf, oci): redirects, addresses, errors and TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from modelwright.agents.fetcher.errors import (
    ArtifactChanged,
    FetchError,
    FetchReason,
    error_from_status,
    store_unreachable,
    untrusted_certificate,
)
from modelwright.agents.fetcher.settings import FetchSettings
from modelwright.agents.fetcher.store_credentials import StoreCredentials
from modelwright.net.addresses import is_forbidden

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10


class _GuardedResolver(AbstractResolver):
    """The system's resolver. The checked addresses are the ones used, so an answer can't change after the check."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        results = await self._inner.resolve(host, port, family)  # type: ignore[arg-type]
        for result in results:
            if is_forbidden(result["host"]):
                raise _refused_host(host)
        return results

    async def close(self) -> None:
        await self._inner.close()


def _refused_host(host: str) -> FetchError:
    return FetchError(
        FetchReason.INVALID_URI,
        f"The host {host} is, or leads to, a link-local or metadata address, which no artifact may come from.",
    )


def refuse_address(url: str) -> str:
    """Return the URL's host. Raises FetchError if it is a forbidden or invalid address."""
    host = _parse_origin(url)[0][1]
    if is_forbidden(host):
        raise _refused_host(host)
    return host


def refuse_metadata(url: str) -> None:
    """Raise FetchError also if the host resolves to a forbidden address, for clients with uncontrolled connections.
    Blocking."""
    host = refuse_address(url)
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # The client reports this error.
        return
    if any(is_forbidden(str(entry[4][0])) for entry in addresses):
        raise _refused_host(host)


def create_tls_context(credentials: StoreCredentials) -> ssl.SSLContext:
    """Create a context with the system's trusted authorities and those in the credentials' ca.crt."""
    context = ssl.create_default_context()
    extra = credentials.get("ca.crt")
    if extra:
        try:
            context.load_verify_locations(cadata=extra)
        except ssl.SSLError as error:
            raise FetchError(
                FetchReason.ACCESS_DENIED, "The credentials Secret's key ca.crt is not a PEM certificate."
            ) from error
    return context


def strip_url_secrets(url: str) -> str:
    """Return the URL without user, password and query."""
    split = urlsplit(url)
    return f"{split.scheme}://{url_netloc(url)}{split.path}"


def url_netloc(url: str) -> str:
    """Return the URL's host and, if it is given, port."""
    split = urlsplit(url)
    host = f"[{split.hostname}]" if split.hostname and ":" in split.hostname else split.hostname or ""
    return f"{host}{f':{split.port}' if split.port else ''}"


def url_origin(url: str) -> tuple[str, str, int | None]:
    """Return the URL's scheme, host and port."""
    split = urlsplit(url)
    return split.scheme, split.hostname or "", split.port or {"http": 80, "https": 443}.get(split.scheme)


def _parse_origin(url: str) -> tuple[tuple[str, str, int | None], str]:
    """Return the origin of the URL, and its printable form."""
    try:
        return url_origin(url), strip_url_secrets(url)
    except ValueError:
        raise FetchError(FetchReason.INVALID_URI, "A URL's host or port can't be read.") from None


def _join_redirect(url: str, location: str, subject: str) -> str:
    try:
        return str(URL(url, encoded=True).join(URL(location, encoded=True)))
    except ValueError:
        raise FetchError(FetchReason.INVALID_URI, f"{subject}: redirects to something that is no URL.") from None


class StoreHttpClient:
    """A pool of connections.

    `private` headers are sent only to the origin of the original request, never along a redirect.
    """

    def __init__(self, credentials: StoreCredentials, settings: FetchSettings) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=max(settings.parallel, 4), resolver=_GuardedResolver(), ssl=create_tls_context(credentials)
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            auto_decompress=False,
            trust_env=True,
            read_bufsize=1 << 20,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "modelwright-fetch", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    @asynccontextmanager
    async def open_response(
        self,
        url: str,
        headers: Mapping[str, str],
        private: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        form: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Open the response after redirects, with any status. Raises FetchError for network failures."""
        start, subject = _parse_origin(url)
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                refuse_address(url)
                at_home = _parse_origin(url)[0] == start
                if form and not at_home:
                    raise FetchError(FetchReason.ACCESS_DENIED, f"{subject}: redirects credentials to another host.")
                async with self._session.request(
                    method,
                    URL(url, encoded=True),
                    headers={**headers, **(private or {})} if at_home else headers,
                    data=form,
                    allow_redirects=False,
                ) as response:
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or not location:
                        yield response
                        return
                    target = _join_redirect(url, location, subject)
                    if urlsplit(target).scheme not in ("http", "https"):
                        raise FetchError(
                            FetchReason.INVALID_URI, f"{subject}: redirects to something that is not http or https."
                        )
                    if start[0] == "https" and urlsplit(target).scheme == "http":
                        raise FetchError(
                            FetchReason.INVALID_URI, f"{subject}: redirects from https to plain http, which is refused."
                        )
                    url = target
            raise FetchError(FetchReason.STORE_UNREACHABLE, f"{subject}: more than {_MAX_REDIRECTS} redirects.")
        except aiohttp.ClientConnectorCertificateError as error:
            raise untrusted_certificate(subject) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise store_unreachable(f"{subject}: the host name {error.host} can't be resolved") from error
        except aiohttp.ClientConnectorError as error:
            raise store_unreachable(
                f"{subject}: no connection to {error.host}:{error.port} ({_format_os_error(error.os_error)})"
            ) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError) as error:
            raise store_unreachable(f"{subject}: the connection broke ({type(error).__name__})") from error
        except aiohttp.InvalidURL as error:
            raise FetchError(FetchReason.INVALID_URI, f"{subject}: this is not a usable URL.") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise store_unreachable(f"{subject}: {type(error).__name__}") from error

    async def supports_ranges(self, url: str, private: Mapping[str, str]) -> bool:
        """Return whether the server answers a request for a part of the resource with that part."""
        async with self.open_response(url, {"Range": "bytes=0-0"}, private) as response:
            raise_for_status(response, strip_url_secrets(url))
            return response.status == 206

    def read_range(
        self,
        url: str,
        start: int,
        stop: int | None,
        *,
        size: int | None,
        ranges: bool,
        version: str = "",
        private: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Call the module's read_range with these connections."""

        def opener(address: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
            return self.open_response(address, headers, private)

        return read_range(opener, url, start, stop, size=size, ranges=ranges, version=version)


ResponseOpener = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[aiohttp.ClientResponse]]


async def read_range(
    opener: ResponseOpener, url: str, start: int, stop: int | None, *, size: int | None, ranges: bool, version: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a URL from `start` up to `stop`; `size` is that of the whole resource.

    Raises ArtifactChanged if its version differs from `version`, if that is given, or if it has become shorter.
    """
    subject = strip_url_secrets(url)
    # some servers answer a request for the whole resource only without a Range header
    partly = ranges and not (start == 0 and stop in (None, size))
    headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if partly else {}
    async with opener(url, headers) as response:
        if response.status == 416:
            raise ArtifactChanged(f"{subject}: it became shorter while it was read")
        raise_for_status(response, subject)
        if version and resource_version(response.headers) != version:
            raise ArtifactChanged(f"{subject}: it changed while it was read")
        starts_right = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if partly and (response.status != 206 or not starts_right):
            raise ArtifactChanged(f"{subject}: the server no longer answers a part of it")
        async for data in response.content.iter_any():
            yield data


def _format_os_error(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "failed"


def raise_for_status(response: aiohttp.ClientResponse, subject: str, hint: str = "") -> None:
    """Raise the FetchError of a response with status 400 or more."""
    if response.status < 400 and response.status not in _REDIRECTS:
        return
    try:
        wait = float(response.headers.get("Retry-After", "0"))
    except ValueError:
        wait = 0.0
    raise error_from_status(response.status, subject, retry_after=max(wait, 0.0), hint=hint)


def resource_version(headers: Mapping[str, str]) -> str:
    """Return an identifier of the resource's version: a strong ETag, else the modification time, else ''."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified", "")
