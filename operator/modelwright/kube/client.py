"""The operator's only client of the API server: raw dicts in and out, over the official client's async transport.

Only `ApiClient.param_serialize` and `call_api` of `kubernetes.aio` are used: they bring configuration, TLS and token
refresh. Its typed models are not: building one costs more than the request.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from modelwright.api.names import FIELD_MANAGER
from modelwright.kube import api_errors, codec, kinds, raw_objects
from modelwright.kube.kinds import Kind
from modelwright.kube.missing_rights import MISSING
from modelwright.kube.service_account_token import ServiceAccountToken
from modelwright.kube.write_limiter import RateLimiter
from modelwright.obs import metrics
from modelwright.obs.clock import Clock, SystemClock

Object = dict[str, Any]
Objects = list[Object]

PAGE_OBJECTS = 500
LIST_BYTES = 48 << 20
"""Memory that the objects of a whole list may take, as `estimate_memory` estimates it."""
MAX_CONNECTIONS = 32
CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 30.0

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_YAML = "application/yaml"
_DRY_RUN = {"dryRun": "All"}
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class _RequestOptions(TypedDict, total=False):
    """Body and headers of a request. `verb`: its name in errors and metrics, where the HTTP method does not give it."""

    body: Mapping[str, Any] | str | None
    content_type: str
    accept: str
    verb: str


class ClusterNotConfigured(RuntimeError):
    """No API server is configured; the message says what to do."""


async def load_configuration(kubeconfig: str | None = None) -> Configuration:
    """Load the client configuration: from `kubeconfig` or KUBECONFIG, else the pod's ServiceAccount, else
    ~/.kube/config.

    Raises ClusterNotConfigured when none of them works.
    """
    configuration = Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG")
    if path or not _load_in_cluster(configuration):
        try:
            await load_kube_config(config_file=path or None, client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise ClusterNotConfigured(
                f"no way to reach an API server: {error}. Set KUBECONFIG, or run in a pod with a ServiceAccount."
            ) from error
    if configuration.proxy is None:
        configuration.proxy = _environment_proxy(configuration.host)
    return configuration


def _load_in_cluster(configuration: Configuration) -> bool:
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        return False
    configuration.refresh_api_key_hook = ServiceAccountToken()  # type: ignore[assignment]
    return True


def _environment_proxy(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY give for a URL."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


class KubeClient:
    """A client whose methods raise subclasses of `ApiError`, and nothing else, when a request does not succeed.

    `qps` and `burst` limit writes (reads are few: the store answers them). `write_guard` is called before each write
    and raises when this process may no longer write.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        qps: float = 40.0,
        burst: int = 80,
        clock: Clock | None = None,
        request_seconds: float = REQUEST_SECONDS,
        user_agent: str = "modelwright",
        write_guard: Callable[[], None] | None = None,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        configuration.connection_pool_maxsize = MAX_CONNECTIONS
        configuration.retries = None
        # Reading the environment and ~/.netrc for each request would nearly double its cost.
        configuration.client_session_kwargs = {"trust_env": False}
        self.configuration = configuration
        self._api = ApiClient(configuration)
        self._api.user_agent = user_agent
        self._write_guard = write_guard
        self.on_date: Callable[[datetime], None] | None = None
        """Receives the API server's time of each response."""
        self._limiter = RateLimiter(qps, burst, self._clock)
        self._timeout = aiohttp.ClientTimeout(total=request_seconds, sock_connect=CONNECT_SECONDS)

    async def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        await self._api.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """Return the object as the API server has it now (never a cached copy); None when it does not exist."""
        try:
            return await self._request_object("GET", kind, kind.path(namespace, name))
        except api_errors.NotFound:
            return None

    async def create(
        self, obj: Mapping[str, Any], *, field_manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Object:
        """POST `obj`, refusing unknown and duplicate fields. Raises AlreadyExists when the name is taken.

        This is the only write that can never modify another owner's object. With `dry_run` the API server validates
        the object and stores nothing.
        """
        kind, namespace, _ = _identify_object(obj)
        query = {"fieldManager": field_manager, "fieldValidation": "Strict"}
        if dry_run:
            return await self._request_object(
                "POST", kind, kind.path(namespace), query | _DRY_RUN, body=obj, verb="dry-run"
            )
        if kind == kinds.CONTROLLER_REVISION:
            # Its data may not change by a byte, and any later write (a label, an orphaning deletion) normalizes it into
            # the API server's own form. Only YAML is normalized on creation.
            text = json.dumps(obj)
            return await self._request_object("POST", kind, kind.path(namespace), query, body=text, content_type=_YAML)
        return await self._request_object("POST", kind, kind.path(namespace), query, body=obj)

    async def review(self, kind: Kind, spec: Mapping[str, Any]) -> Object:
        """Create a review (such as a TokenReview), which has no name and is never stored; return it with its status."""
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": spec}
        return await self._request_object("POST", kind, kind.path(), body=body, verb="review")

    async def apply(
        self,
        obj: Mapping[str, Any],
        *,
        subresource: str | None = None,
        field_manager: str = FIELD_MANAGER,
    ) -> Object:
        """Server-side apply of `obj`, forced, refusing unknown and duplicate fields. Returns the whole object.

        `metadata.resourceVersion` or `metadata.uid` in `obj` are preconditions: Conflict when they don't hold. With a
        uid the object is never created again.
        """
        kind, namespace, name = _identify_object(obj)
        query = {"fieldManager": field_manager, "force": "true", "fieldValidation": "Strict"}
        path = kind.path(namespace, name, subresource)
        return await self._request_object("PATCH", kind, path, query, body=obj, content_type=_APPLY, verb="apply")

    async def patch(self, obj: Mapping[str, Any]) -> Object:
        """Merge `obj` into an existing object (JSON merge patch): map members absent from `obj` stay, lists become
        those of `obj`. Refuses unknown and duplicate fields; returns the whole object.

        `metadata.resourceVersion` or `metadata.uid` in `obj` are preconditions: Conflict when they don't hold. Raises
        NotFound when there is no such object; never creates one.
        """
        kind, namespace, name = _identify_object(obj)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        path = kind.path(namespace, name)
        return await self._request_object("PATCH", kind, path, query, body=obj, content_type=_MERGE)

    async def replace(self, obj: Mapping[str, Any]) -> Object:
        """PUT `obj`. Raises Conflict when its `metadata.resourceVersion` is not the newest one."""
        kind, namespace, name = _identify_object(obj)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._request_object("PUT", kind, kind.path(namespace, name), query, body=obj)

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str, resource_version: str | None = None
    ) -> None:
        """Delete this very object (by uid), its dependents in the background. Succeeds when it no longer exists.

        Raises Conflict when the name now belongs to another object, or when it has changed since `resource_version`.
        """
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        }
        try:
            await self._request_object("DELETE", kind, kind.path(namespace, name), body=body)
        except api_errors.NotFound:
            return

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        metadata_only: bool = False,
    ) -> Objects:
        """List all objects of a kind, in pages of at most 500; `labels` is a label selector.

        `metadata_only` returns identity and state only: name, namespace, uid, resourceVersion, generation and times.
        Every item has `apiVersion` and `kind` of its own kind either way. An object that is too large is reduced as by
        `parse_object`; Transient when all together are too large.
        """
        for attempt in (1, 2):
            try:
                return await self._list_once(kind, namespace, labels, metadata_only)
            except api_errors.Transient as error:
                # The continue token has expired between two pages: once more from the start.
                if error.status != 410 or attempt == 2:
                    raise
        raise AssertionError("every turn returns or raises")

    async def _list_once(self, kind: Kind, namespace: str | None, labels: str | None, metadata_only: bool) -> Objects:
        items: Objects = []
        remaining_bytes = LIST_BYTES
        async for page in self.raw_pages(kind, namespace, labels=labels, metadata_only=metadata_only):
            for raw in page.items:
                if metadata_only:
                    items.append(raw_objects.parse_identity(kind, raw))
                    continue
                remaining_bytes -= raw_objects.estimate_memory(bytes(raw))
                if remaining_bytes < 0:
                    reason = ValueError(f"the objects of the list take more than {LIST_BYTES >> 20} MiB in memory")
                    raise api_errors.error_without_response(reason, request=f"list {kind.path(namespace)}")
                items.append(raw_objects.parse_object(kind, raw))
        return items

    async def raw_pages(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, metadata_only: bool = False
    ) -> AsyncIterator[raw_objects.Page]:
        """Yield all objects of a kind at one moment, page by page, as undecoded bytes."""
        accept, path = _METADATA_LIST if metadata_only else _JSON, kind.path(namespace)

        async def read_page(limit: int, token: str) -> bytes:
            query = {"limit": str(limit)} | ({"labelSelector": labels} if labels else {})
            query |= {"continue": token} if token else {}
            return await self._request_bytes(
                "GET", kind, path, query, accept=accept, verb="list", at_most=raw_objects.PAGE_BYTES
            )

        try:
            async for page in raw_objects.read_pages(
                read_page, PAGE_OBJECTS, first=PAGE_OBJECTS if metadata_only else raw_objects.FIRST_PAGE_OBJECTS
            ):
                yield page
        except (raw_objects.ResponseTooLarge, ValueError, RecursionError) as error:
            raise api_errors.error_without_response(error, request=f"list {path}") from error

    async def served_kinds(self, among: Iterable[Kind] = kinds.ALL_KINDS) -> set[Kind]:
        """Return those of `among` that this API server serves. Kinds that every cluster has are assumed, not
        queried."""
        uncertain = {k for k in among if k.optional or k in kinds.OWN_KINDS}
        served = set(among) - uncertain
        for group_path in {k.group_path for k in uncertain}:
            group = {k for k in uncertain if k.group_path == group_path}
            try:
                answer = await self._request_object("GET", next(iter(group)), group_path, verb="discover")
            except api_errors.NotFound:
                continue
            present = {(r.get("name"), r.get("kind")) for r in answer.get("resources") or ()}
            served |= {k for k in group if (k.plural, k.kind) in present}
        return served

    async def _request_object(
        self, method: str, kind: Kind, path: str, query: Mapping[str, str] | None = None, **how: Unpack[_RequestOptions]
    ) -> Object:
        request = f"{how.get('verb') or method.lower()} {path}"
        try:
            raw = await self._request_bytes(method, kind, path, query, **how)
            too_large = raw_objects.estimate_memory(raw) > raw_objects.OBJECT_MEMORY_BYTES
            answer = raw_objects.parse_object(kind, raw) if too_large else codec.loads(raw)
        except (raw_objects.ResponseTooLarge, ValueError, RecursionError) as error:
            raise api_errors.error_without_response(error, request=request) from error
        if not isinstance(answer, dict):
            raise api_errors.error_without_response(ValueError("the answer is not a JSON object"), request=request)
        return answer

    async def _request_bytes(
        self,
        method: str,
        kind: Kind,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        at_most: int = raw_objects.RESPONSE_BYTES,
        **how: Unpack[_RequestOptions],
    ) -> bytes:
        """Send a request and return the body of its response. Raises ResponseTooLarge beside ApiError."""
        verb = how.get("verb") or {"POST": "create", "PUT": "update"}.get(method, method.lower())
        if method != "GET":
            metrics.API_LIMITER_SECONDS.inc(await self._limiter.acquire())
            if self._write_guard is not None:
                self._write_guard()
        request = f"{verb} {path}"
        start = self._clock.monotonic()
        status = 0
        try:
            # The body goes to call_api unchanged: param_serialize would only copy it, node by node.
            method, url, headers, _, _ = await self._api.param_serialize(
                method,
                path,
                query_params=dict(query) if query else None,
                header_params={
                    "Accept": how.get("accept", _JSON),
                    "Content-Type": how.get("content_type", _JSON),
                },
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(
                method, url, headers, body=how.get("body"), _request_timeout=self._timeout
            )
            try:
                status = response.status
                self._read_date(response.headers.get("Date"))
                raw = await raw_objects.read_body(response.response, at_most)
            finally:
                response.response.release()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status = 0
            raise api_errors.error_without_response(error, request=request) from error
        finally:
            metrics.API_SECONDS.labels(verb).observe(self._clock.monotonic() - start)
            metrics.API_REQUESTS.labels(verb, kind.kind, str(status)).inc()
        if status >= 300:
            error_ = api_errors.error_from_response(status, raw, response.headers, request=request)
            if isinstance(error_, api_errors.Throttled):
                self._limiter.pause(error_.retry_after)
            elif isinstance(error_, api_errors.Denied):
                self._handle_denial(error_)
            raise error_
        MISSING.record_success(verb, kind, path)
        return raw

    def _read_date(self, header: str | None) -> None:
        if self.on_date is None or not header:
            return
        with contextlib.suppress(ValueError):
            moment = email.utils.parsedate_to_datetime(header)
            self.on_date(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))

    def _handle_denial(self, error: api_errors.Denied) -> None:
        hook = self.configuration.refresh_api_key_hook
        if error.status == 403:
            MISSING.record_refusal(error.message)
        elif isinstance(hook, ServiceAccountToken):
            hook.expire()


def _identify_object(obj: Mapping[str, Any]) -> tuple[Kind, str | None, str]:
    kind = kinds.kind_of(obj)
    meta = obj.get("metadata") or {}
    namespace = meta.get("namespace") or None
    name = str(meta.get("name") or "")
    if not name or (kind.namespaced and not namespace):
        raise ValueError(f"a {kind} to be written needs metadata.name and metadata.namespace, not {meta!r}")
    return kind, namespace, name
