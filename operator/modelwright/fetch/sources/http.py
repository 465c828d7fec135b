"""http:// and https://: one file from any web server, with or without ranges."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator
from urllib.parse import unquote, urlsplit, urlunsplit

from modelwright.fetch.port import Context, Kind, Listing, RemoteFile, Source, archive_form
from modelwright.fetch.web import Web, check, version_of

_CONTENT_RANGE = re.compile(r"bytes (?:\d{1,19}-\d{1,19}|\*)/(\d{1,19})")


class HttpSource:
    """aiohttp rather than obstore's HTTP store: that one knows WebDAV and has no ranges without a size, redirect
    rules or address checks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._web = Web(context.credentials, context.settings)
        split = urlsplit(context.uri.raw)
        netloc = split.netloc.rpartition("@")[2]
        self._url = urlunsplit((split.scheme, netloc, split.path, split.query, ""))
        self._private: dict[str, str] = {}
        if split.username is not None:
            pair = f"{unquote(split.username)}:{unquote(split.password or '')}"
            self._private["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif authorization := context.credentials.get("HTTP_AUTHORIZATION"):
            self._private["Authorization"] = authorization

    async def inspect(self, digest: str) -> Listing:
        del digest
        return Listing(Kind.FILE, (await self._context.guard(self._look(), self._context.uri.safe),))

    async def _look(self) -> RemoteFile:
        """Asks for the first byte: a signed URL is often good for GET only, and the answer says whether ranges work."""
        name = self._context.uri.basename
        async with self._web.get(self._url, {"Range": "bytes=0-0"}, self._private) as response:
            total = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            version = version_of(response.headers)
            if response.status == 416 and total and total[1] == "0":
                return RemoteFile(name, self._url, 0, version, unpack=archive_form(name))
            check(response, self._context.uri.safe)
            if response.status == 206 and total:
                return RemoteFile(name, self._url, int(total[1]), version, unpack=archive_form(name))
            whole = response.content_length if response.status == 200 else None
            return RemoteFile(name, self._url, whole, version, ranges=False, unpack=archive_form(name))

    def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        return self._web.read_range(
            file.key, start, stop, size=file.size, ranges=file.ranges, version=file.version, private=self._private
        )

    async def close(self) -> None:
        await self._web.close()


def open_source(context: Context) -> Source:
    return HttpSource(context)
