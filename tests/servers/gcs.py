"""The part of Google Cloud Storage's XML API that a reader uses: list with prefix, GET with ranges, tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

from tests.servers.threaded import ThreadedServer, send_body

_PAGE = 700


class GcsServer(ThreadedServer):
    """`buckets` maps a bucket to its objects. `public` ones need no token; others a bearer token of `issuer`."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.public: set[str] = set()
        self.issuer = "fetch@test.iam.gserviceaccount.com"
        self.requests: list[str] = []

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/{bucket}", self._list)
        app.router.add_get("/{bucket}/{name:.*}", self._get)

    def _refusal(self, request: web.Request) -> web.Response | None:
        self.requests.append(request.path_qs)
        bucket = request.match_info["bucket"]
        if bucket not in self.public and not self._token_is_ours(request.headers.get("Authorization", "")):
            return web.Response(status=401, text="<Error><Code>AuthenticationRequired</Code></Error>")
        if bucket not in self.buckets:
            return web.Response(status=404, text="<Error><Code>NoSuchBucket</Code></Error>")
        return None

    def _token_is_ours(self, authorization: str) -> bool:
        """Only that the token is a signed JWT of the right issuer: checking the signature would need a library."""
        try:
            _, claims, signature = authorization.removeprefix("Bearer ").split(".")
            content = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        except ValueError:
            return False
        return content.get("iss") == self.issuer and bool(signature)

    async def _list(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        prefix = request.query.get("prefix", "")
        after = request.query.get("continuation-token", "")
        objects = self.buckets[request.match_info["bucket"]]
        names = sorted(name for name in objects if name.startswith(prefix) and name > after)
        page = names[:_PAGE]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{now}</LastModified>"
            f"<ETag>{escape(_etag(objects[name]))}</ETag>"
            f"<Size>{len(objects[name])}</Size></Contents>"
            for name in page
        )
        more = len(names) > len(page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return web.Response(
            content_type="application/xml",
            text=f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>",
        )

    async def _get(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        raw = request.raw_path.partition("?")[0].lstrip("/").partition("/")[2]
        body = self.buckets[request.match_info["bucket"]].get(unquote(raw))
        if body is None:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        stamp = "Sat, 21 Nov 2026 00:00:00 GMT"
        return send_body(request, body, {"ETag": _etag(body), "Last-Modified": stamp})


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'
