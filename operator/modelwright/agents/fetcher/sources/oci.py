"""oci://: an artifact or image in an OCI registry.

A small own client: oras-py (0.2) reads one blob at a time over blocking connections without time-outs or ranges,
compares no digest, and returns the manifest as parsed JSON, from which its digest can't be computed. docs/adr has the
full reasoning.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlencode

import aiohttp

from modelwright import untrusted_json
from modelwright.agents.fetcher.errors import FetchError, FetchReason, store_unreachable
from modelwright.agents.fetcher.paths import check_relative_path
from modelwright.agents.fetcher.port import (
    ArtifactKind,
    FetchContext,
    Listing,
    RemoteFile,
    detect_archive_form,
)
from modelwright.agents.fetcher.store_http import StoreHttpClient, raise_for_status, read_range
from modelwright.agents.fetcher.verify import digest_mismatch

_MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MAX_MANIFEST_BYTES = 4 << 20
_MANIFEST_BOUNDS = untrusted_json.JsonLimits(_MAX_MANIFEST_BYTES, values=500_000)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE_PARAMETER = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|([^\s",]+))')
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_TITLE = "org.opencontainers.image.title"
_FILE_PATH = "org.cncf.model.filepath"
_ORAS_FOLDER = "io.deis.oras.content.unpack"
_ORAS_PY_FOLDER = "application/vnd.oci.image.layer.v1.tar+gzip"


class RegistryAuth:
    """Authenticates to the registry: converts its entry in .dockerconfigjson into what the registry demands."""

    def __init__(self, context: FetchContext, registry: str, repository: str, base: str) -> None:
        self._base = base
        self._where = context.uri.safe
        self._basic, self._identity, self._bearer = _read_auth_entry(context, registry, repository)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authorize a request; empty before the first challenge."""
        return {"Authorization": self._bearer} if self._bearer else {}

    async def answer_challenge(self, web: StoreHttpClient, challenge: str, scope: str) -> None:
        """Obtain the credentials that the challenge demands. Raises FetchError if there are none."""
        kind, _, rest = challenge.partition(" ")
        values = {name.lower(): quoted or plain for name, quoted, plain in _CHALLENGE_PARAMETER.findall(rest)}
        if kind.lower() == "basic" and self._basic:
            self._bearer = self._basic
            return
        if kind.lower() != "bearer" or not values.get("realm"):
            raise self._access_denied("the registry asks for a user, and the credentials have none for it")
        await self._fetch_token(web, values, scope)

    async def _fetch_token(self, web: StoreHttpClient, values: Mapping[str, str], scope: str) -> None:
        realm = values["realm"]
        if not realm.lower().startswith("https://") and not self._base.startswith("http://"):
            raise self._access_denied("the registry sends its users to a token service without TLS, which is refused")
        query = {"service": values.get("service", ""), "scope": values.get("scope") or scope}
        if self._identity:
            body = {**query, "grant_type": "refresh_token", "refresh_token": self._identity, "client_id": "modelwright"}
            request = web.open_response(realm, {}, method="POST", form=body)
        else:
            separator = "&" if "?" in realm else "?"
            request = web.open_response(
                f"{realm}{separator}{urlencode(query)}", {}, {"Authorization": self._basic} if self._basic else {}
            )
        async with request as response:
            if response.status in (401, 403):
                raise self._access_denied("the registry's token service knows the user or password not")
            raise_for_status(response, f"{self._where}: the registry's token service")
            try:
                answer = untrusted_json.parse_json(await response.content.read(_MAX_MANIFEST_BYTES), _MANIFEST_BOUNDS)
                token = answer.get("token") or answer.get("access_token")
            except (ValueError, AttributeError):
                token = None
        if not isinstance(token, str) or not token:
            raise store_unreachable(f"{self._where}: the registry's token service gave no token")
        self._bearer = f"Bearer {token}"

    def _access_denied(self, why: str) -> FetchError:
        return FetchError(
            FetchReason.ACCESS_DENIED, f"{self._where}: {why}. Check .dockerconfigjson in the credentials Secret."
        )


def find_auth_entry(auths: Mapping[str, Any], registry: str, repository: str) -> Mapping[str, Any]:
    """Return the entry of a Docker configuration for a repository, by the kubelet's rule for imagePullSecrets: the
    longest path that leads to it, on its host or a pattern such as *.azurecr.io; empty if there is none."""
    hosts = [registry, *(("index.docker.io", "docker.io") if registry == "registry-1.docker.io" else ())]
    candidates = []
    for key, entry in auths.items():
        host, _, path = key.removeprefix("https://").removeprefix("http://").partition("/")
        path = re.sub(r"^v[12](/|$)", "", path).strip("/")
        if not f"{repository}/".startswith(f"{path}/" if path else ""):
            continue
        ranks = [(host.lower() == name.lower(), -n) for n, name in enumerate(hosts) if _matches_host(host, name)]
        if ranks:
            candidates.append(((len(path), *max(ranks)), entry))
    return max(candidates, key=lambda it: it[0])[1] if candidates else {}


def _matches_host(pattern: str, host: str) -> bool:
    if pattern.lower() == host.lower():
        return True
    parts, others = pattern.lower().split("."), host.lower().split(".")
    return len(parts) == len(others) and all(map(fnmatchcase, others, parts))


def _read_auth_entry(context: FetchContext, registry: str, repository: str) -> tuple[str, str, str]:
    """Return Basic header, identity token and bearer header for the repository, each '' if there is none."""
    text = context.credentials.get(".dockerconfigjson")
    if not text:
        return "", "", ""
    try:
        entry = find_auth_entry(json.loads(text).get("auths", {}), registry, repository)
        basic = entry.get("auth", "")
        if not basic and entry.get("username"):
            basic = base64.b64encode(f"{entry['username']}:{entry.get('password', '')}".encode()).decode()
        if bearer := entry.get("registrytoken", ""):
            bearer = f"Bearer {bearer}"
        return (f"Basic {basic}" if basic else ""), entry.get("identitytoken", ""), bearer
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            "The credentials Secret's key .dockerconfigjson is not a Docker configuration in JSON.",
        ) from None


class RegistrySource:
    """An artifact or image in a registry: each layer is a file or an archive."""

    def __init__(self, context: FetchContext) -> None:
        self._context = context
        self._where = context.uri.safe
        registry, self._repository = context.uri.authority, context.uri.path
        if registry == "docker.io":
            registry = "registry-1.docker.io"
            self._repository = self._repository if "/" in self._repository else f"library/{self._repository}"
        insecure = context.credentials.is_enabled("REGISTRY_INSECURE")
        self._base = f"{'http' if insecure else 'https'}://{registry}/v2/{self._repository}"
        self._auth = RegistryAuth(context, registry, self._repository, self._base)
        self._web = StoreHttpClient(context.credentials, context.settings)

    @asynccontextmanager
    async def _open_url(self, url: str, headers: Mapping[str, str]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Open the response; a challenge is answered once, also if a token expired in a long download."""
        async with self._web.open_response(url, headers, self._auth.headers) as response:
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status != 401 or not challenge:
                yield response
                return
        await self._auth.answer_challenge(self._web, challenge, f"repository:{self._repository}:pull")
        async with self._web.open_response(url, headers, self._auth.headers) as response:
            yield response

    async def _fetch_manifest(self, reference: str) -> tuple[str, dict[str, Any]]:
        """Return digest and content of a manifest or index.

        The digest is computed from its bytes: the registry's own header is not trusted.
        """
        subject = f"{self._where}: the manifest {reference}"
        async with self._open_url(
            f"{self._base}/manifests/{reference}", {"Accept": ", ".join(_MANIFEST_TYPES + _INDEX_TYPES)}
        ) as response:
            raise_for_status(response, subject)
            body = bytearray()
            async for data in response.content.iter_any():
                body += data
                if len(body) > _MAX_MANIFEST_BYTES:
                    raise FetchError(
                        FetchReason.ARTIFACT_TOO_LARGE, f"{subject} is larger than {_MAX_MANIFEST_BYTES >> 20} MiB."
                    )
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if _DIGEST.fullmatch(reference) and digest != reference:
            raise digest_mismatch(f"{self._where}: the manifest", reference, digest)
        try:
            manifest = untrusted_json.parse_json(body, _MANIFEST_BOUNDS)
            manifest.setdefault("mediaType", kind)
        except (ValueError, AttributeError):
            raise store_unreachable(f"{subject} is not JSON") from None
        return digest, manifest

    async def inspect(self, digest: str) -> Listing:
        reference = self._context.uri.reference
        if not _DIGEST.fullmatch(reference) and digest.startswith("sha256:"):
            # a moved tag doesn't matter as long as the registry still has the pinned content
            reference = digest
        pinned, manifest = await self._context.with_stall_timeout(self._fetch_manifest(reference), self._where)
        varies = False
        if manifest.get("mediaType") in _INDEX_TYPES or ("manifests" in manifest and "layers" not in manifest):
            varies = len(_list_index_entries(manifest)) > 1
            _, manifest = await self._context.with_stall_timeout(
                self._fetch_manifest(self._choose_manifest(manifest)), self._where
            )
        try:
            layers = [
                layer for layer in manifest["layers"] if layer["mediaType"] != "application/vnd.oci.empty.v1+json"
            ]
            files = [self._layer_file(layer, alone=len(layers) == 1) for layer in layers]
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise FetchError(
                FetchReason.ARTIFACT_NOT_FOUND, f"{self._where}: this is not an image or artifact manifest with layers."
            ) from None
        if not files:
            raise FetchError(FetchReason.ARTIFACT_NOT_FOUND, f"{self._where}: the artifact has no content (no layers).")
        if not await self._supports_ranges(files):
            files = [_without_ranges(file, self._context.settings.part_bytes) for file in files]
        return Listing(ArtifactKind.PINNED, tuple(files), pinned=pinned, varies=varies)

    def _choose_manifest(self, index: Mapping[str, Any]) -> str:
        """Return the digest of the index's only manifest, or of the one for this machine."""
        try:
            entries = _list_index_entries(index)
            machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
            fitting = [
                entry
                for entry in entries
                if entry.get("platform", {}).get("os") == "linux" and entry["platform"].get("architecture") == machine
            ]
            chosen = entries if len(entries) == 1 else fitting
            digest = chosen[0]["digest"]
            if _DIGEST.fullmatch(digest):
                return str(digest)
        except (KeyError, TypeError, IndexError, AttributeError):
            pass
        raise FetchError(
            FetchReason.ARTIFACT_NOT_FOUND, f"{self._where}: the index has no manifest for linux/{platform.machine()}."
        )

    def _layer_file(self, layer: Mapping[str, Any], *, alone: bool) -> RemoteFile:
        digest, kind, size = layer["digest"], layer["mediaType"], int(layer["size"])
        if not _DIGEST.fullmatch(digest) or size < 0:
            raise FetchError(FetchReason.ARTIFACT_NOT_FOUND, f"{self._where}: a layer has a digest that is not sha256.")
        notes = layer.get("annotations") or {}
        name = notes.get(_TITLE) or ""
        path, unpack, whiteouts = digest.replace(":", "-"), "", False
        if kind.endswith(("+zstd", ".zstd")):
            raise FetchError(
                FetchReason.UNSAFE_ARCHIVE,
                f"{self._where}: a layer is compressed with zstd, which is not supported. Use gzip.",
            )
        if notes.get(_ORAS_FOLDER) == "true" or (name and kind == _ORAS_PY_FOLDER and not detect_archive_form(name)):
            unpack = "tar"
        elif not name and kind.endswith(("tar", "tar+gzip", "tar.gzip", "tar.gz")):
            unpack, whiteouts = "tar", True
        elif name := name or notes.get(_FILE_PATH) or "":
            path = check_relative_path(name, self._where)
            unpack = detect_archive_form(path) if alone else ""
        return RemoteFile(
            path,
            f"{self._base}/blobs/{digest}",
            size,
            digest,
            sha256=digest.removeprefix("sha256:"),
            unpack=unpack,
            whiteouts=whiteouts,
        )

    async def _supports_ranges(self, files: list[RemoteFile]) -> bool:
        large = next((file for file in files if (file.size or 0) > self._context.settings.part_bytes), None)
        if large is None:
            return True
        return await self._context.with_stall_timeout(self._probe_ranges(large.key), self._where)

    async def _probe_ranges(self, url: str) -> bool:
        async with self._open_url(url, {"Range": "bytes=0-0"}) as response:
            raise_for_status(response, self._where)
            return response.status == 206

    def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        return read_range(self._open_url, file.key, start, stop, size=file.size, ranges=file.ranges)

    async def close(self) -> None:
        await self._web.close()


def _list_index_entries(index: Mapping[str, Any]) -> list[Any]:
    """Return the manifests of an index without attestations; empty if it is invalid."""
    try:
        return [entry for entry in index["manifests"] if entry.get("platform", {}).get("os") != "unknown"]
    except (KeyError, TypeError, AttributeError):
        return []


def _without_ranges(file: RemoteFile, part_bytes: int) -> RemoteFile:
    return RemoteFile(**{**vars(file), "ranges": (file.size or 0) <= part_bytes})
