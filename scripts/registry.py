"""A small client of an OCI registry for signing, with the login of Docker or buildah."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_ACCEPTED = (
    MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
    INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_REFERENCE = re.compile(r"(?P<registry>[^/]+)/(?P<repository>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")
_TOKEN_USER = "<token>"  # noqa: S105 - what credential helpers call a user who has a token instead of a password

Json = dict[str, Any]


class RegistryError(Exception):
    """The registry refused a request, or returned other content than requested."""


@dataclass(frozen=True)
class Image:
    """One image by digest: `registry/repository@sha256:...`."""

    registry: str
    repository: str
    digest: str

    @classmethod
    def parse(cls, reference: str) -> Image:
        """Parse a reference. Raises ValueError for an image named by tag, because a tag may have moved."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ValueError(f"{reference}: name the image by digest, registry/name@sha256:...")
        return cls(**match.groupdict())

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"


@dataclass(frozen=True)
class Login:
    """Credentials for a registry; empty for anonymous access."""

    user: str = ""
    password: str = ""

    @property
    def basic(self) -> str:
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}" if self.user else ""


class Authentication(httpx.Auth):
    """Answers the registry's challenge: with the login itself, or with a token obtained by it."""

    requires_response_body = True

    def __init__(self, login: Login, scope: str) -> None:
        self._login = login
        self._scope = scope
        self._header = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        kind, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if response.status_code != httpx.codes.UNAUTHORIZED or not kind:
            return
        if kind.lower() == "bearer":
            answer = yield self._token_request(dict(_PARAMETER.findall(rest)), secure=request.url.scheme == "https")
            self._header = f"Bearer {_token(answer)}"
        else:
            self._header = self._login.basic
        if self._header:
            request.headers["Authorization"] = self._header
            yield request

    def _token_request(self, challenge: Mapping[str, str], *, secure: bool) -> httpx.Request:
        realm = challenge.get("realm", "")
        if secure and not realm.startswith("https://"):
            raise RegistryError(f"the registry sends its users to {realm or 'nowhere'}, without TLS: refused")
        query = {"service": challenge.get("service", ""), "scope": self._scope}
        if self._login.user == _TOKEN_USER:
            form = {**query, "grant_type": "refresh_token", "refresh_token": self._login.password}
            return httpx.Request("POST", realm, data={**form, "client_id": "modelwright"})
        basic = {"Authorization": self._login.basic} if self._login.basic else {}
        return httpx.Request("GET", realm, params=query, headers=basic)


class Registry:
    """One repository of a registry."""

    def __init__(self, image: Image, login: Login, *, plain_http: bool = False) -> None:
        host = "registry-1.docker.io" if image.registry == "docker.io" else image.registry
        self._base = f"{'http' if plain_http else 'https'}://{host}/v2/{image.repository}"
        self._client = httpx.Client(
            auth=Authentication(login, f"repository:{image.repository}:pull,push"), timeout=60, follow_redirects=True
        )

    def manifest(self, reference: str) -> bytes | None:
        """Return the bytes of a manifest, None when there is none. Content named by digest is verified."""
        accepted = {"Accept": ", ".join(_ACCEPTED)}
        response = self._ask("GET", f"{self._base}/manifests/{reference}", headers=accepted, missing=True)
        return None if response is None else _checked_content(response.content, reference)

    def blob(self, digest: str) -> bytes:
        response = self._ask("GET", f"{self._base}/blobs/{digest}")
        return _checked_content(response.content, digest)

    def put_blob(self, data: bytes) -> str:
        """Store bytes; return their digest."""
        digest = digest_of(data)
        upload = self._ask("POST", f"{self._base}/blobs/uploads/")
        place = upload.url.join(upload.headers.get("Location", "")).copy_merge_params({"digest": digest})
        self._ask("PUT", str(place), content=data, headers={"Content-Type": "application/octet-stream"})
        return digest

    def put_manifest(self, reference: str, data: bytes, kind: str = MANIFEST) -> None:
        self._ask("PUT", f"{self._base}/manifests/{reference}", content=data, headers={"Content-Type": kind})

    def _ask(self, method: str, url: str, *, missing: bool = False, **more: Any) -> Any:
        try:
            response = self._client.request(method, url, **more)
        except httpx.HTTPError as error:
            raise RegistryError(f"{method} {url}: {error}") from error
        if missing and response.status_code == httpx.codes.NOT_FOUND:
            return None
        if response.is_error:
            raise RegistryError(f"{method} {url}: {response.status_code} {response.text[:300]}")
        return response


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _checked_content(data: bytes, reference: str) -> bytes:
    """Return the bytes. Raises RegistryError when they don't match the requested digest."""
    if reference.startswith("sha256:") and digest_of(data) != reference:
        raise RegistryError(f"the registry gave {digest_of(data)} for {reference}")
    return data


def _token(answer: httpx.Response) -> str:
    if answer.is_error:
        raise RegistryError(f"the registry's token service refused the login: {answer.status_code}")
    try:
        body = answer.json()
        token = body.get("token") or body.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str):
        raise RegistryError("the registry's token service gave no token")
    return token


def find_login(image: Image, environment: Mapping[str, str] = os.environ) -> Login:
    """Find the login of buildah or Docker for the image's registry; anonymous when there is none."""
    for file in _login_files(environment):
        try:
            kept: Json = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        login = _login_in(kept, image)
        if login is not None:
            return login
    return Login()


def _login_files(environment: Mapping[str, str]) -> list[Path]:
    home = Path(environment.get("HOME", "/"))
    run = Path(environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}")
    named = environment.get("REGISTRY_AUTH_FILE")
    return [
        *([Path(named)] if named else []),
        run / "containers" / "auth.json",
        run / "auth.json",
        Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json",
    ]


def _login_in(kept: Json, image: Image) -> Login | None:
    helper = (kept.get("credHelpers") or {}).get(image.registry) or kept.get("credsStore")
    if helper:
        return _read_challenge(helper, image.registry)
    entries = {
        re.sub(r"^https?://|/v[12]/?$", "", key).rstrip("/"): value for key, value in (kept.get("auths") or {}).items()
    }
    # Buildah's logins may be for a part of a registry: the longest match wins.
    words = image.name.split("/")
    aliases = ["index.docker.io"] if image.registry == "docker.io" else []
    for name in ["/".join(words[:length]) for length in range(len(words), 0, -1)] + aliases:
        entry = entries.get(name)
        if not entry:
            continue
        if entry.get("identitytoken"):
            return Login(_TOKEN_USER, entry["identitytoken"])
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
        return Login(user, password)
    return None


def _read_challenge(helper: str, registry: str) -> Login | None:
    """Return the login from a credential helper; None when it has none for the registry."""
    try:
        command = [f"docker-credential-{helper}", "get"]
        done = subprocess.run(command, input=registry, capture_output=True, text=True, check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError):
        return None
    return Login(found["Username"], found["Secret"]) if {"Username", "Secret"} <= set(found) else None
