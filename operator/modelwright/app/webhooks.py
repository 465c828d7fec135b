"""Accepts triggers (POST /triggers/<namespace>/<policy>/<trigger>) from senders with the verb `trigger` on the policy.

Senders are authenticated by a token of the cluster and authorized by the verb `trigger` on the RetrainingPolicy: the
operator holds no secret, and tokens are neither stored nor logged. A standby checks the same, and forwards the request
to the leader.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from modelwright import untrusted_json
from modelwright.api.names import GROUP
from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec, Trigger, WebhookTrigger
from modelwright.app.authentication import CallerAuthenticator, RequestRefused
from modelwright.core.retraining import triggers
from modelwright.kube.access_review import AccessReviewer, AccessUndetermined, Audience, ObjectAccess, User
from modelwright.net.listener import ConnectionLimits, Listener
from modelwright.obs.clock import Clock, SystemClock
from modelwright.reconcile.webhook_queue import WebhookQueueFull

log = logging.getLogger(__name__)

PATH = "/triggers/{namespace}/{policy}/{trigger}"
RETRY_SECONDS = 5
BODY_SECONDS = 10.0
ACCEPT_SECONDS = 25.0
MAX_CONCURRENT = 64
MAX_CONCURRENT_PER_USER = 16
MAX_LEADER_RESPONSE = 64 << 10
MAX_BODY_BYTES = triggers.BODY_BOUNDS.size
LISTENER_LIMITS = ConnectionLimits(request_seconds=2 * (BODY_SECONDS + ACCEPT_SECONDS))
FORWARDED_HEADER = "Modelwright-Passed-On"
"""Header of forwarded requests: they are not forwarded again, should the leader have changed meanwhile."""
LAST_RELEASE_WITH_API_TOKENS = "0.1"
"""The last release that accepts tokens for the API server."""

_FORWARDED_HEADERS = ("authorization", "content-type", "content-encoding", "ce-")
_RETURNED_HEADERS = ("Content-Type", "Retry-After", "Warning", "WWW-Authenticate")
_DEPRECATION_WARNING = (
    f'299 - "tokens for the API server are not accepted after release {LAST_RELEASE_WITH_API_TOKENS}: '
    f'use audience {GROUP}"'
)

TriggerEvent = tuple[str, str]
"""An event of a webhook: an identity (each has one run), and a human-readable message."""
PolicyLookup = Callable[[str, str], RetrainingPolicySpec | None]
AcceptEvents = Callable[[str, str, str, Sequence[TriggerEvent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TriggerBackend:
    """The part of the operator that webhooks trigger."""

    find_policy: PolicyLookup
    """Returns the spec of the policy (namespace, name), None when it does not exist."""
    accept: AcceptEvents
    """Returns once a reconcile has handled the events of (namespace, policy, trigger). It is cancelled after
    ACCEPT_SECONDS, and may be called again with the same events. On WebhookQueueFull the sender retries."""
    unready_reason: Callable[[], str | None]
    """Returns why triggers cannot be accepted now (not the leader, incomplete store); None when they can."""


@dataclass(frozen=True, slots=True)
class LeaderLink:
    """The connection of a standby to the leader."""

    url: Callable[[], str | None] = lambda: None
    """Returns the URL, without a path, of the leader's webhooks; None when this process leads or no leader is known."""
    tls: Callable[[], tuple[ssl.SSLContext, str] | None] = lambda: None
    """Returns the TLS context that verifies the leader and its expected name; None without TLS."""


class WebhookServer:
    """The server of webhooks. `audience`: the tokens that are accepted."""

    def __init__(
        self,
        access: AccessReviewer,
        backend: TriggerBackend,
        leader: LeaderLink | None = None,
        *,
        audience: Audience = Audience.OURS,
        clock: Clock | None = None,
        accept_seconds: float = ACCEPT_SECONDS,
    ) -> None:
        self._access = access
        self._backend = backend
        self._leader = leader or LeaderLink()
        self._accept_seconds = accept_seconds
        self._callers = CallerAuthenticator(access, clock or SystemClock(), audience)
        self._concurrent = 0
        self._concurrent_by_user: Counter[str] = Counter()

    async def serve(self, host: str, port: int, tls: Callable[[], ssl.SSLContext] | None = None) -> Listener:
        """Start the server; bodies are not decompressed. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(PATH, self._handle_request)
        listener = await Listener.start(app, host, port, LISTENER_LIMITS, tls=tls)
        log.info("serving webhooks", extra={"port": listener.port})
        return listener

    async def _handle_request(self, request: web.Request) -> web.Response:
        problem = self._backend.unready_reason()
        leader = self._leader.url() if problem is not None and FORWARDED_HEADER not in request.headers else None
        if leader is not None:
            problem = None
        if problem is None and self._concurrent >= MAX_CONCURRENT:
            problem = "too many webhooks at once"
        if problem is not None:
            return _error_response(503, f"triggers cannot be accepted now: {problem}")
        self._concurrent += 1
        try:
            user = await self._callers.identify(request.headers.get("Authorization", ""), request.remote or "")
            if self._concurrent_by_user[user.name] >= MAX_CONCURRENT_PER_USER:
                return _error_response(429, f"too many webhooks of {user.name} at once")
            self._concurrent_by_user[user.name] += 1
            try:
                answer = await self._authorize_request(request, user, leader)
            finally:
                self._concurrent_by_user[user.name] -= 1
                self._concurrent_by_user += Counter()
            if not user.for_our_audience:
                answer.headers.setdefault("Warning", _DEPRECATION_WARNING)
            return answer
        except RequestRefused as refused:
            return _error_response(refused.status, str(refused), retry=refused.retry or RETRY_SECONDS)
        except AccessUndetermined as error:
            log.warning("the sender of a webhook could not be authenticated", extra={"error": str(error)})
            return _error_response(503, f"the sender could not be authenticated: {error}")
        finally:
            self._concurrent -= 1

    async def _authorize_request(self, request: web.Request, user: User, leader: str | None) -> web.Response:
        namespace, policy, trigger = (request.match_info[name] for name in ("namespace", "policy", "trigger"))
        if not await self._access.is_allowed(
            user, ObjectAccess("trigger", GROUP, "retrainingpolicies", namespace, policy)
        ):
            resource = f"RetrainingPolicy {policy} in namespace {namespace}"
            return _error_response(403, f'{user.name} needs the verb "trigger" on {resource}')
        if leader is not None:
            return await self._forward_to_leader(request, leader)
        spec = self._backend.find_policy(namespace, policy)
        if spec is None:
            return _error_response(404, f"there is no RetrainingPolicy {policy} in namespace {namespace}")
        configured = next((t for t in spec.triggers if t.name == trigger), None)
        if configured is None or configured.webhook is None:
            return _error_response(404, _describe_missing_webhook(policy, trigger, configured))
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            return _error_response(415, "compressed bodies are not supported: send it without Content-Encoding")
        try:
            happenings = _parse_events(trigger, configured.webhook, request.headers, await _read_body(request))
        except TimeoutError:
            return _slow_body_response()
        except triggers.InvalidEventError as error:
            return _error_response(400, str(error))
        return await self._accept_events(namespace, policy, trigger, happenings, user)

    async def _forward_to_leader(self, request: web.Request, leader: str) -> web.Response:
        """Return the leader's response: the leader reviews the token again, and checks everything else."""
        headers = {name: text for name, text in request.headers.items() if name.lower().startswith(_FORWARDED_HEADERS)}
        try:
            body = await _read_body(request)
        except TimeoutError:
            return _slow_body_response()
        timeout = aiohttp.ClientTimeout(total=BODY_SECONDS + self._accept_seconds)
        tls = self._leader.tls()
        tls_options: dict[str, Any] = {} if tls is None else {"ssl": tls[0], "server_hostname": tls[1]}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
                session.post(
                    f"{leader}{request.rel_url.raw_path}",
                    data=body,
                    headers=headers | {FORWARDED_HEADER: "true"},
                    allow_redirects=False,
                    **tls_options,
                ) as answer,
            ):
                returned = {name: answer.headers[name] for name in _RETURNED_HEADERS if name in answer.headers}
                return web.Response(
                    status=answer.status, body=await answer.content.read(MAX_LEADER_RESPONSE), headers=returned
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("a webhook could not be forwarded to the leader", extra={"error": repr(error)})
            return _error_response(503, "the leader cannot be reached: send it again")

    async def _accept_events(
        self, namespace: str, policy: str, trigger: str, happenings: Sequence[TriggerEvent], user: User
    ) -> web.Response:
        if happenings:
            try:
                async with asyncio.timeout(self._accept_seconds):
                    await self._backend.accept(namespace, policy, trigger, happenings)
            except TimeoutError:
                return _error_response(503, "it was not handled in time: send it again, each event starts one run")
            except WebhookQueueFull as error:
                return _error_response(503, str(error))
            log.info(
                "a webhook was accepted",
                extra={
                    "namespace": namespace,
                    "policy": policy,
                    "trigger": trigger,
                    "user": user.name,
                    "accepted": len(happenings),
                },
            )
        return web.json_response({"accepted": len(happenings)}, status=202)


async def _read_body(request: web.Request) -> bytes:
    """Read the body, at most 1 MiB. Raises TimeoutError."""
    async with asyncio.timeout(BODY_SECONDS):
        return await request.read()


def _slow_body_response() -> web.Response:
    return _error_response(408, f"the body was not received within {BODY_SECONDS:g} s")


def _parse_events(
    name: str, trigger: WebhookTrigger, headers: Mapping[str, str], body: bytes
) -> tuple[TriggerEvent, ...]:
    """Parse the events of a body. Raises triggers.InvalidEventError."""
    try:
        if trigger.source == "CloudEvents":
            return triggers.parse_cloud_event(name, trigger, headers, body)
        return triggers.parse_alerts(name, trigger, untrusted_json.parse_json(body, triggers.BODY_BOUNDS))
    except untrusted_json.DocumentError as error:
        raise triggers.InvalidEventError(f"the body {error}") from None


def _describe_missing_webhook(policy: str, name: str, trigger: Trigger | None) -> str:
    if trigger is None:
        return f"RetrainingPolicy {policy} has no trigger {name}"
    return f"the trigger {name} of RetrainingPolicy {policy} is no webhook trigger"


def _error_response(status: int, reason: str, *, retry: int = RETRY_SECONDS) -> web.Response:
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(retry)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response({"error": reason}, status=status, headers=headers)
