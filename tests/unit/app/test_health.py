"""Who may read /metrics, and that the probes are anybody's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from modelwright.app import authentication
from modelwright.app.authentication import metrics_readers
from modelwright.app.health import HealthChecks, start_server
from modelwright.kube.access_review import AccessUndetermined, Audience, ObjectAccess, PathAccess, User
from modelwright.obs.clock import FakeClock

TOKENS = {
    "prometheus": User("prometheus", for_our_audience=False),
    "projected": User("prometheus"),
    "tenant": User("tenant"),
}


@dataclass
class FakeAccess:
    """`readers` may get /metrics."""

    readers: set[str] = field(default_factory=lambda: {"prometheus"})
    broken: bool = False
    asked: list[str] = field(default_factory=list)

    async def authenticate(self, token: str, audience: Audience) -> User | None:
        self._ask(token)
        assert audience is Audience.ANY
        return TOKENS.get(token)

    async def is_allowed(self, user: User, attempt: ObjectAccess | PathAccess) -> bool:
        self._ask(user.name)
        assert attempt == PathAccess("get", "/metrics")
        return user.name in self.readers

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.broken:
            raise AccessUndetermined("no answer")


@dataclass
class Page:
    """A served /metrics."""

    access: FakeAccess
    clock: FakeClock
    url: str

    async def get(self, token: str | None = None, path: str = "/metrics") -> tuple[int, str]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as session, session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def opened(*, authenticated: bool = True) -> AsyncIterator[Page]:
    access, clock = FakeAccess(), FakeClock()
    readers = metrics_readers(access, clock) if authenticated else None
    listener = await start_server(HealthChecks(), "127.0.0.1", 0, readers=readers)
    try:
        yield Page(access, clock, f"http://127.0.0.1:{listener.port}")
    finally:
        await listener.close()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with opened() as found:
        yield found


@pytest.mark.parametrize(
    ("token", "status", "message"),
    [
        (None, 401, "a valid token is needed"),
        ("forged", 401, "a valid token is needed"),
        ("tenant", 403, "tenant may not get /metrics"),
        ("prometheus", 200, "modelwright_"),
        ("projected", 200, "modelwright_"),
    ],
)
async def test_metrics_are_for_who_may_get_them(page: Page, token: str | None, status: int, message: str) -> None:
    found, text = await page.get(token)
    assert (found, message in text) == (status, True)
    assert "modelwright_" not in text or status == 200


async def test_probes_are_anybodys(page: Page) -> None:
    assert [(await page.get(path=path))[0] for path in ("/livez", "/readyz")] == [200, 200]
    assert page.access.asked == []


async def test_without_authentication_metrics_are_anybodys() -> None:
    async with opened(authenticated=False) as page:
        assert (await page.get())[0] == 200


async def test_a_review_is_cached_for_ten_seconds_then_repeated(page: Page) -> None:
    for _ in range(5):
        assert (await page.get("prometheus"))[0] == 200
    assert page.access.asked == ["prometheus", "prometheus"]
    page.access.readers.clear()
    page.clock.advance(authentication.TOKEN_SECONDS)
    assert (await page.get("prometheus"))[0] == 403


async def test_recent_readers_stay_admitted_while_the_api_is_down(page: Page) -> None:
    assert (await page.get("prometheus"))[0] == 200
    page.access.broken = True
    page.clock.advance(authentication.TOKEN_SECONDS)
    assert (await page.get("prometheus"))[0] == 200
    assert (await page.get("projected"))[0] == 503
    page.clock.advance(authentication.PageReaders.GRACE_SECONDS)
    assert (await page.get("prometheus"))[0] == 503


async def test_a_guessing_address_is_limited_and_others_are_not(page: Page) -> None:
    assert (await page.get("prometheus"))[0] == 200
    found = [(await page.get("forged"))[0] for _ in range(int(authentication.REQUEST_BURST) + 1)]
    assert (found[0], found[-1]) == (401, 429)
    assert (await page.get("prometheus"))[0] == 200


async def test_a_webhook_of_a_former_standby_is_to_be_sent_again(page: Page) -> None:
    async with aiohttp.ClientSession() as session, session.post(page.url + "/triggers/a/b/c", data=b"{}") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
