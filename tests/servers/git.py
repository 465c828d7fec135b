"""A Git repository of kustomizations, and a server that gives it out over HTTP as Git's own does."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.servers.threaded import ThreadedServer


@dataclass
class Repository:
    """One with a kustomization of all objects that were committed, each in a file of its own."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("config", "user.name", "tester")
        self._git("config", "user.email", "tester@example.com")

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def commit(self, message: str, *objects: dict[str, Any]) -> str:
        """Write each object into a file of its own, and commit; returns the hash."""
        for obj in objects:
            name = f"{obj['kind']}-{obj['metadata']['name']}".lower()
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(obj))
        resources = sorted(path.name for path in self.folder.glob("*.yaml") if path.name != "kustomization.yaml")
        kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump({**kustomization, "resources": resources}))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True).stdout


class GitServer(ThreadedServer):
    """Gives out the repositories below `folder`, by `git http-backend`; to read only."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(port)
        self.folder = folder

    def routes(self, app: web.Application) -> None:
        app.router.add_route("*", "/{path:.*}", self._backend)

    async def _backend(self, request: web.Request) -> web.Response:
        body = await request.read()
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        }
        pipe = asyncio.subprocess.PIPE
        backend = await asyncio.create_subprocess_exec("git", "http-backend", stdin=pipe, stdout=pipe, env=environment)
        answer, _ = await backend.communicate(body)
        head, _, content = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200 OK").split()[0])
        return web.Response(status=status, headers=headers, body=content)
