"""The door for other systems: POST /triggers/<namespace>/<policy>/<trigger> asks for a training.

Who sends is proved by a token of the cluster, and what they may by the verb `trigger` on the RetrainingPolicy: no
secret is held, and tokens are neither kept nor told. A standby asks the same, and passes the request on to the leader.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web

from modelwright import documents
from modelwright.api.names import GROUP
from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec, Trigger, WebhookTrigger
from modelwright.app.callers import Callers, Refused
from modelwright.core.retraining import triggers
from modelwright.kube.access import Access, AccessUnknown, Attempt, Audience, User
from modelwright.listener import Listener, Room
from modelwright.obs.clock import Clock, SystemClock
from modelwright.reconcile.inbox import InboxFull

log = logging.getLogger(__name__)

PATH = "/triggers/{namespace}/{policy}/{trigger}"
RETRY_SECONDS = 5
READ_SECONDS = 10.0
ACCEPT_SECONDS = 25.0
MAX_UNDER_WAY = 64
MAX_OF_ONE_USER = 16
MAX_BACK = 64 << 10
MAX_BODY = triggers.BODY.size
ROOM = Room(request_seconds=2 * (READ_SECONDS + ACCEPT_SECONDS))
PASSED_ON = "Modelwright-Passed-On"
"""Header of what a standby passes on: it goes no further, should the leader have changed meanwhile."""
LAST_RELEASE = "0.1"
"""After it, tokens for the API server are not taken any more."""

_TOLD = ("authorization", "content-type", "content-encoding", "ce-")
_BACK = ("Content-Type", "Retry-After", "Warning", "WWW-Authenticate")
_DEPRECATED = f'299 - "tokens for the API server are not taken after release {LAST_RELEASE}: use audience {GROUP}"'

Happening = tuple[str, str]
"""What a webhook tells of: an identity (there is one run for each), and a message for people."""
LookUp = Callable[[str, str], RetrainingPolicySpec | None]
Accept = Callable[[str, str, str, Sequence[Happening]], Awaitable[None]]


class Webhooks:
    """`look_up(namespace, policy)` gives a policy's spec, None when there is none. `unready` says why triggers can't be
    taken now (not the leader, the store is not complete), None when they can. `accept(namespace, policy, trigger,
    happenings)` comes back once a pass has dealt with them; it is cancelled after 25 s, and may be called again with
    the same ones. When it raises InboxFull, the sender is asked to come again. `leader` gives the URL, without a path,
    of the webhooks of the process that leads, None when it is this one or isn't known; `tls`, how its certificate is
    checked. `audience`: whose tokens are taken.
    """

    def __init__(
        self,
        access: Access,
        look_up: LookUp,
        accept: Accept,
        unready: Callable[[], str | None],
        *,
        leader: Callable[[], str | None] = lambda: None,
        tls: Callable[[], tuple[ssl.SSLContext, str] | None] = lambda: None,
        audience: Audience = Audience.OURS,
        clock: Clock | None = None,
        accept_seconds: float = ACCEPT_SECONDS,
    ) -> None:
        self._access = access
        self._look_up = look_up
        self._accept = accept
        self._unready = unready
        self._leader = leader
        self._tls = tls
        self._accept_seconds = accept_seconds
        self._callers = Callers(access, clock or SystemClock(), audience)
        self._under_way = 0
        self._of_user: Counter[str] = Counter()

    async def serve(self, host: str, port: int, tls: Callable[[], ssl.SSLContext] | None = None) -> Listener:
        """Start the server; bodies are taken as they were sent. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post(PATH, self._take)
        listener = await Listener.start(app, host, port, ROOM, tls=tls)
        log.info("serving webhooks", extra={"port": listener.port})
        return listener

    async def _take(self, request: web.Request) -> web.Response:
        why = self._unready()
        elsewhere = self._leader() if why is not None and PASSED_ON not in request.headers else None
        if elsewhere is not None:
            why = None
        if why is None and self._under_way >= MAX_UNDER_WAY:
            why = "too many webhooks at once"
        if why is not None:
            return _refused(503, f"triggers can't be taken now: {why}")
        self._under_way += 1
        try:
            user = await self._callers.identify(request.headers.get("Authorization", ""), request.remote or "")
            if self._of_user[user.name] >= MAX_OF_ONE_USER:
                return _refused(429, f"too many webhooks of {user.name} at once")
            self._of_user[user.name] += 1
            try:
                answer = await self._answer(request, user, elsewhere)
            finally:
                self._of_user[user.name] -= 1
                self._of_user += Counter()
            if not user.ours:
                answer.headers.setdefault("Warning", _DEPRECATED)
            return answer
        except Refused as refused:
            return _refused(refused.status, str(refused), retry=refused.retry or RETRY_SECONDS)
        except AccessUnknown as error:
            log.warning("a webhook can't be checked", extra={"error": str(error)})
            return _refused(503, f"it can't be checked who sends this: {error}")
        finally:
            self._under_way -= 1

    async def _answer(self, request: web.Request, user: User, elsewhere: str | None) -> web.Response:
        namespace, policy, trigger = (request.match_info[name] for name in ("namespace", "policy", "trigger"))
        if not await self._access.may(user, Attempt("trigger", GROUP, "retrainingpolicies", namespace, policy)):
            what = f"RetrainingPolicy {policy} in namespace {namespace}"
            return _refused(403, f'{user.name} needs the verb "trigger" on {what}')
        if elsewhere is not None:
            return await self._pass_on(request, elsewhere)
        spec = self._look_up(namespace, policy)
        if spec is None:
            return _refused(404, f"there is no RetrainingPolicy {policy} in namespace {namespace}")
        found = next((t for t in spec.triggers if t.name == trigger), None)
        if found is None or found.webhook is None:
            return _refused(404, _no_webhook(policy, trigger, found))
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            return _refused(415, "compressed bodies are not read: send it without Content-Encoding")
        try:
            happenings = _read(trigger, found.webhook, request.headers, await _body(request))
        except TimeoutError:
            return _slow()
        except triggers.BadEvent as error:
            return _refused(400, str(error))
        return await self._hand_over(namespace, policy, trigger, happenings, user)

    async def _pass_on(self, request: web.Request, leader: str) -> web.Response:
        """The leader's own answer: it looks at the token again, and at all else for the first time."""
        told = {name: text for name, text in request.headers.items() if name.lower().startswith(_TOLD)}
        try:
            body = await _body(request)
        except TimeoutError:
            return _slow()
        patience = aiohttp.ClientTimeout(total=READ_SECONDS + self._accept_seconds)
        tls = self._tls()
        secure: dict[str, Any] = {} if tls is None else {"ssl": tls[0], "server_hostname": tls[1]}
        try:
            async with (
                aiohttp.ClientSession(timeout=patience, auto_decompress=False) as session,
                session.post(
                    f"{leader}{request.rel_url.raw_path}",
                    data=body,
                    headers=told | {PASSED_ON: "true"},
                    allow_redirects=False,
                    **secure,
                ) as answer,
            ):
                back = {name: answer.headers[name] for name in _BACK if name in answer.headers}
                return web.Response(status=answer.status, body=await answer.content.read(MAX_BACK), headers=back)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("a webhook could not be passed on to the leader", extra={"error": repr(error)})
            return _refused(503, "the process that leads can't be reached: send it again")

    async def _hand_over(
        self, namespace: str, policy: str, trigger: str, happenings: Sequence[Happening], user: User
    ) -> web.Response:
        if happenings:
            try:
                async with asyncio.timeout(self._accept_seconds):
                    await self._accept(namespace, policy, trigger, happenings)
            except TimeoutError:
                return _refused(503, "it was not dealt with in time: send it again, there is one run for each event")
            except InboxFull as error:
                return _refused(503, str(error))
            log.info(
                "a webhook was taken",
                extra={
                    "namespace": namespace,
                    "policy": policy,
                    "trigger": trigger,
                    "user": user.name,
                    "accepted": len(happenings),
                },
            )
        return web.json_response({"accepted": len(happenings)}, status=202)


async def _body(request: web.Request) -> bytes:
    """The body, at most 1 MiB. Raises TimeoutError."""
    async with asyncio.timeout(READ_SECONDS):
        return await request.read()


def _slow() -> web.Response:
    return _refused(408, f"the body has not come within {READ_SECONDS:g} s")


def _read(name: str, trigger: WebhookTrigger, headers: Mapping[str, str], body: bytes) -> tuple[Happening, ...]:
    """What a body tells of. Raises triggers.BadEvent."""
    try:
        if trigger.source == "CloudEvents":
            return triggers.event(name, trigger, headers, body)
        return triggers.alerts(name, trigger, documents.read(body, triggers.BODY))
    except documents.DocumentError as error:
        raise triggers.BadEvent(f"the body {error}") from None


def _no_webhook(policy: str, name: str, trigger: Trigger | None) -> str:
    if trigger is None:
        return f"RetrainingPolicy {policy} has no trigger {name}"
    return f"the trigger {name} of RetrainingPolicy {policy} is no webhook trigger"


def _refused(status: int, why: str, *, retry: int = RETRY_SECONDS) -> web.Response:
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(retry)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response({"error": why}, status=status, headers=headers)
