"""http:// and https://: one file from any web server, with or without ranges."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator
from urllib.parse import unquote, urlsplit, urlunsplit

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.port import (
    ArtifactKind,
    FetchContext,
    Listing,
    RemoteFile,
    detect_archive_form,
)
from modelwright.agents.fetcher.store_credentials import StoreCredentials
from modelwright.agents.fetcher.store_http import (
    StoreHttpClient,
    raise_for_status,
    resource_version,
    strip_url_secrets,
    url_netloc,
    url_origin,
)

_CONTENT_RANGE = re.compile(r"bytes (?:\d{1,19}-\d{1,19}|\*)/(\d{1,19})")


def _authorization_for(credentials: StoreCredentials, url: str) -> str:
    """Return HTTP_AUTHORIZATION, or '' without one.

    Raises FetchError unless HTTP_HOSTS beside it names the URL's host: the author of the address may not have access to
    the credential.
    """
    # Both come from the same place: the owner of a Secret names its hosts.
    value = credentials.read_mounted("HTTP_AUTHORIZATION")
    hosts = credentials.read_mounted("HTTP_HOSTS") if value else credentials.get("HTTP_HOSTS")
    value = value or credentials.get("HTTP_AUTHORIZATION")
    if not value:
        return ""
    host, subject = url_netloc(url), strip_url_secrets(url)
    if not hosts:
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            f"{subject}: the credentials have HTTP_AUTHORIZATION and don't say which hosts may get it. Add the key "
            f"HTTP_HOSTS to the Secret, with host names separated by blanks, such as {host!a}.",
        )
    if url_origin(url) not in {_parse_host_entry(entry) for entry in hosts.replace(",", " ").split()}:
        plain = url.startswith("http:")
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            f"{subject}: HTTP_AUTHORIZATION is not for this host: the Secret's key HTTP_HOSTS must list "
            + (f"{f'http://{host}'!a}, since plain http shows it to others on the way." if plain else f"{host!a}."),
        )
    return value


def _parse_host_entry(entry: str) -> tuple[str, str, int | None]:
    """Return the origin that an entry of HTTP_HOSTS stands for: a host with https, unless it starts with http://."""
    try:
        split = urlsplit(entry if "://" in entry else f"https://{entry}")
        if split.scheme not in ("http", "https") or not split.hostname or split.path not in ("", "/"):
            raise ValueError
        if split.username is not None or split.query or split.fragment or "*" in split.hostname:
            raise ValueError
        return url_origin(f"{split.scheme}://{split.netloc}")
    except ValueError:
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            "The credentials Secret's key HTTP_HOSTS has an entry that is no host[:port], https://host[:port] or "
            "http://host[:port].",
        ) from None


class HttpSource:
    """One file from a web server.

    It uses aiohttp rather than obstore's HTTP store, which implements WebDAV and has no ranges without a size, redirect
    rules or address checks.
    """

    def __init__(self, context: FetchContext) -> None:
        self._context = context
        split = urlsplit(context.uri.raw)
        self._url = urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, split.query, ""))
        self._private: dict[str, str] = {}
        if split.username is not None:
            pair = f"{unquote(split.username)}:{unquote(split.password or '')}"
            self._private["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif authorization := _authorization_for(context.credentials, self._url):
            self._private["Authorization"] = authorization
        # Last, so that an error above leaves no open client.
        self._web = StoreHttpClient(context.credentials, context.settings)

    async def inspect(self, digest: str) -> Listing:
        del digest
        return Listing(
            ArtifactKind.FILE, (await self._context.with_stall_timeout(self._probe_file(), self._context.uri.safe),)
        )

    async def _probe_file(self) -> RemoteFile:
        """Request the first byte: a signed URL is often valid for GET only, and the answer shows whether ranges
        work."""
        name = self._context.uri.basename
        async with self._web.open_response(self._url, {"Range": "bytes=0-0"}, self._private) as response:
            total = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            version = resource_version(response.headers)
            if response.status == 416 and total and total[1] == "0":
                return RemoteFile(name, self._url, 0, version, unpack=detect_archive_form(name))
            raise_for_status(response, self._context.uri.safe)
            if response.status == 206 and total:
                return RemoteFile(name, self._url, int(total[1]), version, unpack=detect_archive_form(name))
            whole = response.content_length if response.status == 200 else None
            return RemoteFile(name, self._url, whole, version, ranges=False, unpack=detect_archive_form(name))

    def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        return self._web.read_range(
            file.key, start, stop, size=file.size, ranges=file.ranges, version=file.version, private=self._private
        )

    async def close(self) -> None:
        await self._web.close()
