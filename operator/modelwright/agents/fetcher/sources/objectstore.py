"""Common part of s3, gs and az: objects and prefixes, read with obstore."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from modelwright.agents.fetcher.errors import (
    ArtifactChanged,
    FetchError,
    FetchReason,
    error_from_status,
    store_unreachable,
    untrusted_certificate,
)
from modelwright.agents.fetcher.paths import list_parents
from modelwright.agents.fetcher.port import ArtifactKind, FetchContext, Listing, RemoteFile, detect_archive_form
from modelwright.agents.fetcher.store_http import refuse_address, refuse_metadata

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig, S3Store

    Store = S3Store | GCSStore | AzureStore

T = TypeVar("T")

_MIN_PIECE_BYTES = 256 << 10  # minimum size of a piece; larger pieces would make a slow link appear stalled
_PAGE_SIZE = 1000
_ERROR_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_HOST_STYLE_CODES = {
    "SecondLevelDomainForbidden",  # Alibaba Cloud OSS
    "InvalidPathAccess",  # Volcengine TOS
    "VirtualHostDomainRequired",  # Huawei Cloud OBS
    "PathStyleDomainForbidden",  # Tencent Cloud COS
}
_HTTP_STATUS = re.compile(r"non-2xx status code: (\d{3})")
# the transfer retries: obstore's own retries would hide stalls and delay the report of a failure
NO_RETRIES: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}


def client_options(context: FetchContext, endpoint: str) -> ClientConfig:
    """Build the client's options: no timeouts (a request may last for gigabytes; the transfer detects stalls), plain
    HTTP only for an endpoint with http://."""
    options: ClientConfig = {"timeout": "30 days", "connect_timeout": "10s", "user_agent": "modelwright-fetch"}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    if authority := context.credentials.get("ca.crt"):
        options["root_certificate"] = authority
    return options


def check_endpoint(name: str, endpoint: str) -> str:
    """Return the endpoint without its trailing slash. Raises FetchError if it is not a URL, or is a metadata
    service."""
    if endpoint and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", endpoint):
        raise FetchError(
            FetchReason.INVALID_URI, f"{name} must be http://host[:port] or https://host[:port], without user or query."
        )
    refuse_address(endpoint)
    return endpoint.rstrip("/")


def open_anonymous(
    context: FetchContext, endpoint: str, anonymous: Callable[[], Store], instance: Callable[[], Store], cure: str
) -> ObjectStoreSource:
    """Open the source without given credentials: public objects, and the cloud's metadata service where the
    administrator allows it.

    `cure`: how to give credentials.
    """
    ways = [anonymous, instance] if context.settings.instance_credentials else [anonymous]
    text = f"anonymous access is denied, and no credentials were given. {cure}"
    off = (
        f"No credentials were given. {cure} Credentials of the node, and GKE workload identity, come from the cloud's "
        "metadata service, which pods don't ask unless an administrator sets "
        "MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS to true in the chart's fetch.env."
    )
    denied = "" if context.settings.instance_credentials else off
    return ObjectStoreSource(context, endpoint, ways, text, denied)


class ObjectStoreSource:
    """Reads objects of one store.

    `endpoint`: of a store other than the cloud's own, else ''. `stores`: factories of clients, best first: without
    credentials an anonymous one, then the cloud's own for this pod. `denied`: added to the message if the last of them
    is denied.
    """

    def __init__(
        self,
        context: FetchContext,
        endpoint: str,
        stores: Sequence[Callable[[], Store]],
        no_credentials: str = "",
        denied: str = "",
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._where = context.uri.safe
        self._store_factories = list(stores)
        self._no_credentials = no_credentials
        self._denied = denied
        self._store: Store | None = None

    async def inspect(self, digest: str) -> Listing:
        del digest
        if self._endpoint:
            await asyncio.to_thread(refuse_metadata, self._endpoint)
        denied: FetchError | None = None
        while self._store_factories:
            if self._store is None:
                try:
                    self._store = self._store_factories[0]()
                except (BaseError, ValueError) as error:
                    # the configuration error's own text may quote a secret
                    raise FetchError(
                        FetchReason.ACCESS_DENIED,
                        f"{self._where}: the credentials or the endpoint can't be used ({type(error).__name__}).",
                    ) from None
            try:
                return await self._list_objects(self._store)
            except FetchError as error:
                if error.reason is FetchReason.ACCESS_DENIED and len(self._store_factories) > 1:
                    denied = error
                    self._store_factories.pop(0)
                    self._store = None
                elif denied is not None:
                    raise denied from error
                elif error.reason is FetchReason.ACCESS_DENIED and self._denied:
                    raise FetchError(FetchReason.ACCESS_DENIED, f"{error.message} {self._denied}") from error
                else:
                    raise
        raise AssertionError("unreachable")

    async def _list_objects(self, store: Store) -> Listing:
        path, part = self._context.uri.path, self._context.selection.path
        if not self._context.uri.prefix and (meta := await self._head_object(store, path)) is not None:
            name = path.rsplit("/", 1)[-1]
            return Listing(ArtifactKind.FILE, (_build_remote_file(meta, name, detect_archive_form(name)),))
        if part:
            path = f"{path}/{part}"
            if (meta := await self._head_object(store, path)) is not None:
                return Listing(
                    ArtifactKind.FILE, (_build_remote_file(meta, self._context.selection.name, ""),), within=True
                )
        files: list[RemoteFile] = []
        pages = obstore.list(store, path + "/", chunk_size=_PAGE_SIZE)
        try:
            while len(files) <= self._context.settings.max_entries:
                page = await self._call_store(anext(pages))
                for meta in page:
                    name = meta["path"].removeprefix(path + "/")
                    # consoles represent folders by an empty object with a name that ends in a slash
                    if name and not (meta["size"] == 0 and (name.endswith("/") or meta["path"] == path)):
                        files.append(_build_remote_file(meta, name, ""))
        except StopAsyncIteration:
            pass
        paths = {file.path for file in files}
        folders = {parent for file in files for parent in list_parents(file.path)}
        files = [file for file in files if file.size or file.path not in folders or file.path not in paths]
        if not files:
            missing = f"no object {part!a} (artifact.path)" if part else "no object of that name"
            raise FetchError(
                FetchReason.ARTIFACT_NOT_FOUND,
                f"{self._where}: there is {missing} and none below it. Check the path, and its upper and lower case.",
            )
        return Listing(ArtifactKind.DIRECTORY, tuple(files), within=bool(part))

    async def _head_object(self, store: Store, path: str) -> ObjectMeta | None:
        """Return the object at `path`; None if there is none."""
        try:
            return await self._call_store(obstore.head_async(store, path))
        except FetchError as error:
            if error.reason is FetchReason.ACCESS_DENIED and self._context.uri.scheme == "s3":
                # An answer to HEAD has no body and so no reason; an answer to GET has one.
                await self._call_store(obstore.get_range_async(store, path, start=0, end=1))
            if error.reason is not FetchReason.ARTIFACT_NOT_FOUND:
                raise
            return None

    async def _call_store(self, awaitable: Awaitable[T]) -> T:
        try:
            return await self._context.with_stall_timeout(awaitable, self._where)
        except (BaseError, FileNotFoundError, PermissionError, ValueError) as error:
            raise self._translate_error(error, self._where) from None

    async def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        if self._store is None:
            raise RuntimeError("read before inspect")
        end = (file.size or 0) if stop is None else stop
        options: GetOptions = {}
        if file.version:
            options["if_match"] = file.version
        if start > 0 or end != file.size:
            options["range"] = (start, end)
        try:
            result = await obstore.get_async(self._store, file.key, options=options)
            if result.meta["size"] != file.size:
                raise ArtifactChanged(f"{self._where}: {file.path} changed its size while it was read")
            if end - start <= _MIN_PIECE_BYTES:
                yield bytes(await result.bytes_async())
                return
            async for data in result.stream(min_chunk_size=_MIN_PIECE_BYTES):
                yield bytes(data)
        except (BaseError, FileNotFoundError, PermissionError, ValueError) as error:
            raise self._translate_error(error, f"{self._where}: {file.path}") from None

    def _translate_error(self, error: Exception, subject: str) -> FetchError:
        """Convert obstore's error. Its own text has many lines and the whole request; only facts are taken from it."""
        text = str(error)
        status, code = _HTTP_STATUS.search(text), _ERROR_CODE.search(text)
        if code and code[1] in _HOST_STYLE_CODES:
            return FetchError(
                FetchReason.INVALID_URI,
                f"{subject}: the store takes a bucket in the host name only ({code[1]}). Set "
                'AWS_VIRTUAL_HOSTED_STYLE_REQUEST to "true" in the credentials Secret.',
            )
        hint = f" The store says {code[1]}." if code else ""
        if self._no_credentials and ("169.254." in text or "token request" in text):
            return FetchError(FetchReason.ACCESS_DENIED, f"{subject}: {self._no_credentials}")
        if "configured region" in text or (status and status[1] in ("301", "400") and self._context.uri.scheme == "s3"):
            return FetchError(
                FetchReason.STORE_UNREACHABLE,
                f"{subject}: the store refuses the request. The bucket may be in another region: set AWS_REGION (and "
                "AWS_ENDPOINT_URL, where it isn't AWS) in the credentials Secret.",
            )
        if isinstance(error, PreconditionError):
            return ArtifactChanged(f"{subject}: the object changed while it was read")
        if isinstance(error, FileNotFoundError):
            return error_from_status(404, subject)
        if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
            return error_from_status(int(status[1]) if status else 403, subject, hint=hint)
        if status:
            return error_from_status(int(status[1]), subject, hint=hint)
        if "UnknownIssuer" in text or "certificate" in text.lower():
            return untrusted_certificate(subject)
        for sign, meaning in (
            ("dns error", "the store's host name can't be resolved"),
            ("ConnectionRefused", "the store refuses connections"),
            ("Connect", "no connection to the store"),
            ("Timeout", "the store doesn't answer"),
        ):
            if sign in text:
                return store_unreachable(f"{subject}: {meaning}")
        if isinstance(error, ValueError) or "URL scheme is not allowed" in text:
            return FetchError(
                FetchReason.INVALID_URI,
                f"{subject}: the store's client refuses this address ({text.splitlines()[0][:200]}).",
            )
        return store_unreachable(f"{subject}: the connection to the store broke")

    async def close(self) -> None:
        self._store = None


def _build_remote_file(meta: ObjectMeta, name: str, unpack: str) -> RemoteFile:
    return RemoteFile(name, meta["path"], meta["size"], meta["e_tag"] or "", unpack=unpack)
