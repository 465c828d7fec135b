"""The part of the Hugging Face Hub's API that a download uses: model info, tree, resolve with LFS redirects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from urllib.parse import quote

from aiohttp import web

from tests.servers.threaded import ThreadedServer, send_body

_PAGE = 500
_LFS_FROM = 100_000  # larger files are in LFS, as models' are


@dataclass
class HubModel:
    """`commits` maps a commit to its files, `branches` a branch or tag to a commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False


class HubServer(ThreadedServer):
    """`models` by organisation/name. Private models need `token`."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.models: dict[str, HubModel] = {}
        self.token = "hf_TestTokenOfTheHubServer"
        self.ranges = True
        self.damage: bytes | None = None  # sent in place of every LFS file
        self.storage_authorization: list[str] = []  # what clients told the storage that they were redirected to

    def commit(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit on the branch; returns its id."""
        model = self.models.setdefault(repository, HubModel())
        text = repository + "".join(f"{path}{hashlib.sha1(body).hexdigest()}" for path, body in sorted(files.items()))
        commit = hashlib.sha1(text.encode()).hexdigest()
        model.commits[commit] = files
        model.branches[branch] = commit
        return commit

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/api/models/{org}/{name}/revision/{revision}", self._info)
        app.router.add_get("/api/models/{org}/{name}", self._info)
        app.router.add_get("/api/models/{org}/{name}/tree/{revision}", self._tree)
        app.router.add_get("/{org}/{name}/resolve/{revision}/{path:.*}", self._resolve)
        app.router.add_get("/storage/{digest}", self._storage)

    def _find(self, request: web.Request) -> tuple[HubModel, str] | web.Response:
        repository = f"{request.match_info['org']}/{request.match_info['name']}"
        model = self.models.get(repository)
        authorization = request.headers.get("Authorization", "")
        if authorization and authorization != f"Bearer {self.token}":
            message = "Invalid credentials in Authorization header"
            return web.Response(status=401, headers={"X-Error-Message": message})
        if model is None or (model.private and not authorization):
            return web.Response(status=401, headers={"X-Error-Code": "RepoNotFound"})
        if model.gated:
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        revision = request.match_info.get("revision", "main")
        commit = model.branches.get(revision, revision)
        if commit not in model.commits:
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        return model, commit

    async def _info(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        model, commit = found
        repository = f"{request.match_info['org']}/{request.match_info['name']}"
        return web.json_response(
            {
                "id": repository,
                "modelId": repository,
                "sha": commit,
                "private": model.private,
                "siblings": [{"rfilename": path} for path in model.commits[commit]],
                "tags": [],
                "downloads": 0,
            }
        )

    async def _tree(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        model, commit = found
        entries: list[dict[str, object]] = []
        folders: set[str] = set()
        for path, body in sorted(model.commits[commit].items()):
            parent = path.rpartition("/")[0]
            if parent and parent not in folders:
                folders.add(parent)
                entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": parent})
            entry: dict[str, object] = {"type": "file", "oid": _blob(body), "size": len(body), "path": path}
            if len(body) > _LFS_FROM:
                entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
            entries.append(entry)
        start = int(request.query.get("cursor", "0"))
        headers = {}
        if start + _PAGE < len(entries):
            headers["Link"] = f'<{self.url}{request.path}?recursive=true&cursor={start + _PAGE}>; rel="next"'
        return web.json_response(entries[start : start + _PAGE], headers=headers)

    async def _resolve(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        model, commit = found
        body = model.commits[commit].get(request.match_info["path"])
        if body is None:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if len(body) > _LFS_FROM:
            digest = hashlib.sha256(body).hexdigest()
            # another origin, as the Hub's storage is: the token must not follow
            location = (
                f"http://localhost:{request.url.port}/storage/{digest}?X-Amz-Signature={quote('signature-of-storage')}"
            )
            return web.Response(status=302, headers={"Location": location, "X-Linked-Etag": f'"{digest}"'})
        return send_body(request, body, {"ETag": f'"{_blob(body)}"'})

    async def _storage(self, request: web.Request) -> web.Response:
        self.storage_authorization.append(request.headers.get("Authorization", ""))
        if request.query.get("X-Amz-Signature") != "signature-of-storage":
            return web.Response(status=403)
        for model in self.models.values():
            for files in model.commits.values():
                for body in files.values():
                    if len(body) > _LFS_FROM and hashlib.sha256(body).hexdigest() == request.match_info["digest"]:
                        sent = body if self.damage is None else self.damage[:1] * len(body)
                        if not self.ranges:
                            return web.Response(body=sent)
                        return send_body(request, sent, {})
        return web.Response(status=404)


def _blob(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
