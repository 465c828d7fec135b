"""Who asks one of the operator's own servers, by a token of the cluster; and how often they may."""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict

from modelwright.kube.access_review import AccessReviewer, AccessUndetermined, Audience, PathAccess, User
from modelwright.obs.clock import Clock

TOKEN_SECONDS = 10.0
"""How long an answer of the API server holds: a busy sender isn't asked after each time."""
MAX_TOKENS = 1024
MAX_BUCKETS = 1024
REQUESTS_PER_SECOND, REQUEST_BURST = 5.0, 50.0
"""Requests a second, and at once: of one address whose tokens nobody knows yet, and of one user."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


class RequestRefused(Exception):
    """A request that goes no further: with this status, for this reason, and to be sent again in `retry` seconds."""

    def __init__(self, status: int, why: str, retry: int = 0) -> None:
        super().__init__(why)
        self.status = status
        self.retry = retry


class CallerAuthenticator:
    """Tokens are kept by their hash only. `audience`: whose tokens are taken."""

    def __init__(self, access: AccessReviewer, clock: Clock, audience: Audience = Audience.OURS) -> None:
        self._access = access
        self._clock = clock
        self._audience = audience
        self._tokens: OrderedDict[bytes, tuple[float, User | None]] = OrderedDict()
        self._addresses = KeyedRateLimiter(clock)
        self._users = KeyedRateLimiter(clock)

    async def identify(self, header: str, address: str) -> User:
        """Who sends a request with this Authorization header. Raises Refused, and AccessUnknown.

        An address is limited only as long as the API server has not said whose its token is: behind a proxy, and from
        a standby, the requests of many come from one address. Users are limited each for themselves.
        """
        given = _BEARER.fullmatch(header.strip())
        key = hashlib.sha256(given[1].encode()).digest() if given is not None else b""
        until, user = self._tokens.get(key, (0.0, None))
        if user is None:
            self._take_token(self._addresses, address, "this address")
        if given is not None and self._clock.monotonic() >= until:
            was_known, user = user is not None, await self._access.who(given[1], self._audience)
            self._cache_user(key, user)
            if user is not None and not was_known:
                self._addresses.return_token(address)
        if user is None:
            raise RequestRefused(401, "a valid token is needed: Authorization: Bearer <token>")
        self._take_token(self._users, user.name, user.name)
        return user

    def _cache_user(self, key: bytes, user: User | None) -> None:
        self._tokens.pop(key, None)
        self._tokens[key] = (self._clock.monotonic() + TOKEN_SECONDS, user)
        while len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)

    @staticmethod
    def _take_token(rates: KeyedRateLimiter, key: str, whose: str) -> None:
        wait = rates.take_token(key)
        if wait > 0:
            raise RequestRefused(429, f"too many requests from {whose}", math.ceil(wait))


class PageReaders:
    """Who may read a page: asked of the API server, and remembered for a short time.

    While the API server doesn't answer, who was let in lately is let in: the page says how the operator stands just
    then.
    """

    GRACE_SECONDS = 600.0

    def __init__(
        self, callers: CallerAuthenticator, access: AccessReviewer, question: PathAccess, clock: Clock
    ) -> None:
        self._callers = callers
        self._access = access
        self._page = question
        self._clock = clock
        self._admitted_until: OrderedDict[bytes, float] = OrderedDict()
        self._allowed: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()

    async def check_allowed(self, header: str, address: str) -> None:
        """Return when they may. Raises Refused, and AccessUnknown."""
        key, now = hashlib.sha256(header.strip().encode()).digest(), self._clock.monotonic()
        try:
            user = await self._callers.identify(header, address)
            allowed = await self._is_allowed(key, user)
        except AccessUndetermined:
            if now < self._admitted_until.get(key, 0.0):
                return
            raise
        if not allowed:
            self._admitted_until.pop(key, None)
            raise RequestRefused(403, f"{user.name} may not {self._page.verb} {self._page.path}")
        self._admitted_until.pop(key, None)
        self._admitted_until[key] = now + self.GRACE_SECONDS
        while len(self._admitted_until) > MAX_TOKENS:
            self._admitted_until.popitem(last=False)

    async def _is_allowed(self, key: bytes, user: User) -> bool:
        """By token, since two tokens of a user may have different groups."""
        until, allowed = self._allowed.get(key, (0.0, False))
        if self._clock.monotonic() >= until:
            allowed = await self._access.may(user, self._page)
            self._allowed.pop(key, None)
            self._allowed[key] = (self._clock.monotonic() + TOKEN_SECONDS, allowed)
            while len(self._allowed) > MAX_TOKENS:
                self._allowed.popitem(last=False)
        return allowed


def metrics_readers(access: AccessReviewer, clock: Clock) -> PageReaders:
    """Who may `get` /metrics, as for the metrics of Kubernetes' own components; with any token of the cluster, since
    Prometheus has one for the API server."""
    return PageReaders(CallerAuthenticator(access, clock, Audience.ANY), access, PathAccess("get", "/metrics"), clock)


class KeyedRateLimiter:
    """A token bucket for each of many; those are forgotten that were not heard of for longest."""

    def __init__(
        self,
        clock: Clock,
        *,
        rate: float = REQUESTS_PER_SECOND,
        burst: float = REQUEST_BURST,
        buckets: int = MAX_BUCKETS,
    ) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._max_buckets = buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take_token(self, key: str) -> float:
        """Take one; seconds until the next one when there is none, 0 when it was taken."""
        now = self._clock.monotonic()
        left, at = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        taken = left >= 1
        self._buckets[key] = (left - 1 if taken else left, now)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._rate

    def return_token(self, key: str) -> None:
        """What was taken last is there again."""
        if key in self._buckets:
            left, at = self._buckets[key]
            self._buckets[key] = (min(self._burst, left + 1), at)
