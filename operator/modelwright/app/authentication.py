"""Authenticates callers of the operator's own servers by tokens of the cluster, and limits their requests."""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict

from modelwright.kube.access_review import AccessReviewer, AccessUndetermined, Audience, PathAccess, User
from modelwright.obs.clock import Clock

TOKEN_SECONDS = 10.0
"""Cache time of a review: the token of a busy sender is not reviewed for each request."""
MAX_TOKENS = 1024
MAX_BUCKETS = 1024
REQUESTS_PER_SECOND, REQUEST_BURST = 5.0, 50.0
"""Requests a second, and at once: from one address without an authenticated token yet, and of one user."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


class RequestRefused(Exception):
    """A rejected request: HTTP status, reason, and seconds after which the caller may retry."""

    def __init__(self, status: int, reason: str, retry: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.retry = retry


class CallerAuthenticator:
    """Identifies callers by their tokens, which are cached by hash only. `audience`: the tokens that are accepted."""

    def __init__(self, access: AccessReviewer, clock: Clock, audience: Audience = Audience.OURS) -> None:
        self._access = access
        self._clock = clock
        self._audience = audience
        self._tokens: OrderedDict[bytes, tuple[float, User | None]] = OrderedDict()
        self._addresses = KeyedRateLimiter(clock)
        self._users = KeyedRateLimiter(clock)

    async def identify(self, header: str, address: str) -> User:
        """Return the user who sends this Authorization header. Raises RequestRefused and AccessUndetermined.

        An address is limited only until the API server has authenticated its token: behind a proxy, and from a standby,
        the requests of many users come from one address. Each user has a limit of their own.
        """
        match = _BEARER.fullmatch(header.strip())
        key = hashlib.sha256(match[1].encode()).digest() if match is not None else b""
        until, user = self._tokens.get(key, (0.0, None))
        if user is None:
            self._take_token(self._addresses, address, "this address")
        if match is not None and self._clock.monotonic() >= until:
            was_known, user = user is not None, await self._access.authenticate(match[1], self._audience)
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
    def _take_token(rates: KeyedRateLimiter, key: str, source: str) -> None:
        wait = rates.take_token(key)
        if wait > 0:
            raise RequestRefused(429, f"too many requests from {source}", math.ceil(wait))


class PageReaders:
    """Authorizes readers of a page by the API server, and caches the result for a short time.

    While the API server is unreachable, recent readers stay admitted: the page shows the operator's state just when it
    is needed.
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
        """Return if the caller may read the page. Raises RequestRefused and AccessUndetermined."""
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
        """Return whether the user may read the page. Cached by token, since tokens of one user may differ in groups."""
        until, allowed = self._allowed.get(key, (0.0, False))
        if self._clock.monotonic() >= until:
            allowed = await self._access.is_allowed(user, self._page)
            self._allowed.pop(key, None)
            self._allowed[key] = (self._clock.monotonic() + TOKEN_SECONDS, allowed)
            while len(self._allowed) > MAX_TOKENS:
                self._allowed.popitem(last=False)
        return allowed


def metrics_readers(access: AccessReviewer, clock: Clock) -> PageReaders:
    """Build the authorization of /metrics: verb `get` on the path, as for Kubernetes' own components, with any token of
    the cluster, since Prometheus has one for the API server."""
    return PageReaders(CallerAuthenticator(access, clock, Audience.ANY), access, PathAccess("get", "/metrics"), clock)


class KeyedRateLimiter:
    """A token bucket for each key; beyond the limit, the least recently used are dropped."""

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
        """Take a token. Returns 0 on success, else the seconds until the next one."""
        now = self._clock.monotonic()
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        is_available = tokens >= 1
        self._buckets[key] = (tokens - 1 if is_available else tokens, now)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return 0.0 if is_available else (1 - tokens) / self._rate

    def return_token(self, key: str) -> None:
        """Return the last token taken."""
        if key in self._buckets:
            tokens, at = self._buckets[key]
            self._buckets[key] = (min(self._burst, tokens + 1), at)
