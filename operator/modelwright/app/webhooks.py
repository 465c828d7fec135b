"""The door for other systems: POST /triggers/<namespace>/<policy>/<trigger> asks for a training.

Who sends is proved by a token of the cluster, and what they may by the verb `trigger` on the RetrainingPolicy: no
secret is held, and tokens are neither kept nor told. A standby asks the same, and passes the request on to the leader.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web

from modelwright.api.names import GROUP
from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec, Trigger, WebhookTrigger
from modelwright.core.retraining import triggers
from modelwright.kube.access import Access, AccessUnknown, Attempt, User
from modelwright.obs.clock import Clock, SystemClock
from modelwright.reconcile.inbox import InboxFull

log = logging.getLogger(__name__)

PATH = "/triggers/{namespace}/{policy}/{trigger}"
RETRY_SECONDS = 5
READ_SECONDS = 10.0
ACCEPT_SECONDS = 25.0
TOKEN_SECONDS = 10.0
MAX_TOKENS = 1024
MAX_UNDER_WAY = 64
MAX_REMOTES = 1024
PASSED_ON = "Modelwright-Passed-On"
"""Header of what a standby passes on: it goes no further, should the leader have changed meanwhile."""
RATE, BURST = 5.0, 50.0
"""Requests a second of one address, and at once."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)

_TOLD = ("authorization", "content-type", "content-encoding", "ce-")
_BACK = ("Content-Type", "Retry-After", "WWW-Authenticate")

Happening = tuple[str, str]
"""What a webhook tells of: an identity (there is one run for each), and a message for people."""
LookUp = Callable[[str, str], RetrainingPolicySpec | None]
Accept = Callable[[str, str, str, Sequence[Happening]], Awaitable[None]]


class Webhooks:
    """`look_up(namespace, policy)` gives a policy's spec, None when there is none. `unready` says why triggers can't be
    taken now (not the leader, the store is not complete), None when they can. `accept(namespace, policy, trigger,
    happenings)` comes back once a pass has dealt with them; it is cancelled after 25 s, and may be called again with
    the same ones. When it raises InboxFull, the sender is asked to come again. `leader` gives host:port of the process
    that leads, None when it is this one or isn't known.
    """

    def __init__(
        self,
        access: Access,
        look_up: LookUp,
        accept: Accept,
        unready: Callable[[], str | None],
        *,
        leader: Callable[[], str | None] = lambda: None,
        clock: Clock | None = None,
        accept_seconds: float = ACCEPT_SECONDS,
    ) -> None:
        self._access = access
        self._look_up = look_up
        self._accept = accept
        self._unready = unready
        self._leader = leader
        self._clock: Clock = clock or SystemClock()
        self._accept_seconds = accept_seconds
        self._tokens: OrderedDict[bytes, tuple[float, User | None]] = OrderedDict()
        self._rates = Rates(self._clock)
        self._under_way = 0

    def routes(self) -> tuple[web.RouteDef, ...]:
        """For `health.serve`."""
        return (web.post(PATH, self._take),)

    async def _take(self, request: web.Request) -> web.Response:
        wait = self._rates.wait(request.remote or "")
        if wait > 0:
            return _refused(429, "too many requests from this address", retry=math.ceil(wait))
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
            return await self._answer(request, elsewhere)
        except AccessUnknown as error:
            log.warning("a webhook can't be checked", extra={"error": str(error)})
            return _refused(503, f"it can't be checked who sends this: {error}")
        finally:
            self._under_way -= 1

    async def _answer(self, request: web.Request, elsewhere: str | None) -> web.Response:
        namespace, policy, trigger = (request.match_info[name] for name in ("namespace", "policy", "trigger"))
        user = await self._who(request.headers.get("Authorization", ""))
        if user is None:
            return _refused(401, "a valid token is needed: Authorization: Bearer <token>")
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
        try:
            async with (
                aiohttp.ClientSession(timeout=patience, auto_decompress=False) as session,
                session.post(
                    f"http://{leader}{request.rel_url.raw_path}",
                    data=body,
                    headers=told | {PASSED_ON: "true"},
                    allow_redirects=False,
                ) as answer,
            ):
                back = {name: answer.headers[name] for name in _BACK if name in answer.headers}
                return web.Response(status=answer.status, body=await answer.read(), headers=back)
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

    async def _who(self, header: str) -> User | None:
        """Whose token is in the header. An answer holds for 10 s: a busy sender is not asked after each time."""
        given = _BEARER.fullmatch(header.strip())
        if given is None:
            return None
        key, now = hashlib.sha256(given[1].encode()).digest(), self._clock.monotonic()
        known = self._tokens.get(key)
        if known is not None and now < known[0]:
            return known[1]
        user = await self._access.who(given[1])
        self._tokens.pop(key, None)
        self._tokens[key] = (now + TOKEN_SECONDS, user)
        while len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return user


class Rates:
    """A token bucket for each address; of many addresses those are forgotten that were not heard of for longest."""

    def __init__(self, clock: Clock, *, rate: float = RATE, burst: float = BURST, remotes: int = MAX_REMOTES) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._remotes = remotes
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, remote: str) -> float:
        """Take one; seconds until the next one when there is none, 0 when it was taken."""
        now = self._clock.monotonic()
        left, at = self._buckets.pop(remote, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        taken = left >= 1
        self._buckets[remote] = (left - 1 if taken else left, now)
        if len(self._buckets) > self._remotes:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._rate


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
        return triggers.alerts(name, trigger, _json(body))
    except RecursionError:
        raise triggers.BadEvent("the body is nested too deeply") from None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise triggers.BadEvent(f"the body is no JSON: {error}") from None


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
