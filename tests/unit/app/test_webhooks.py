"""Webhooks: who may send them, the responses, and that no sender can exhaust the operator."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from modelwright.app import authentication, webhooks
from modelwright.app.authentication import KeyedRateLimiter
from modelwright.kube.access_review import Audience
from modelwright.obs.clock import FakeClock
from tests.lib.webhooks import SENDER, URL, Door, alert, opened


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with opened() as found:
        yield found


EVENT = {"specversion": "1.0", "id": "1", "source": "/store", "type": "com.example.uploaded"}


async def test_an_alert_is_answered_once_it_has_been_handled(door: Door) -> None:
    door.dealt_with.clear()
    answer = asyncio.create_task(door.post(body=alert(2)))
    await door.came.acquire()
    assert not answer.done()
    door.dealt_with.set()
    status, _, said = await answer
    assert (status, said) == (202, {"accepted": 2})
    ((namespace, policy, trigger, found),) = door.taken
    assert (namespace, policy, trigger) == ("team", "fraud", "drift")
    assert len({identity for identity, _ in found}) == 2


async def test_a_cloud_event_is_handed_over_in_both_modes(door: Door) -> None:
    path = "/triggers/team/fraud/upload"
    binary = {f"ce_{name}": value for name, value in EVENT.items()}
    structured = await door.post(path, EVENT, Content_Type="application/cloudevents+json")
    assert structured[0] == (await door.post(path, {"object": "new.csv"}, **binary))[0] == 202
    first, second = (found for *_, found in door.taken)
    assert [identity for identity, _ in first] == [identity for identity, _ in second]


@pytest.mark.parametrize("body", [alert(status="resolved"), alert(model="digits"), alert(0)])
async def test_what_starts_nothing_is_taken_and_handed_to_nobody(door: Door, body: Any) -> None:
    status, _, said = await door.post(body=body)
    assert (status, said, door.taken) == (202, {"accepted": 0}, [])


@pytest.mark.parametrize(
    ("path", "token", "status", "message"),
    [
        (URL, None, 401, "Authorization: Bearer"),
        (URL, "", 401, "a valid token is needed"),
        (URL, "nobodys", 401, "a valid token is needed"),
        (URL, "two tokens", 401, "a valid token is needed"),
        (URL, "strangers-token", 403, 'eve needs the verb "trigger" on RetrainingPolicy fraud in namespace team'),
        ("/triggers/other/fraud/drift", "good.token-1", 403, "in namespace other"),
        ("/triggers/team/secret/drift", "good.token-1", 403, "RetrainingPolicy secret"),
        ("/triggers/team/gone/drift", "good.token-1", 404, "there is no RetrainingPolicy gone in namespace team"),
        ("/triggers/team/fraud/none", "good.token-1", 404, "RetrainingPolicy fraud has no trigger none"),
        ("/triggers/team/fraud/nightly", "good.token-1", 404, "nightly of RetrainingPolicy fraud is no webhook"),
        ("/triggers/team/gone/drift", "strangers-token", 403, "RetrainingPolicy gone"),
    ],
)
async def test_who_is_not_let_in_is_told_why_and_no_more(
    door: Door, path: str, token: str | None, status: int, message: str
) -> None:
    found, headers, said = await door.post(path, token=token)
    assert found == status
    assert message in said["error"]
    assert ("WWW-Authenticate" in headers) == (status == 401)
    assert door.taken == []


@pytest.mark.parametrize("scheme", ["Basic good.token-1", "good.token-1", "Bearer: good.token-1", "Bearer gööd"])
async def test_only_a_bearer_token_is_one(door: Door, scheme: str) -> None:
    assert (await door.post(token=None, Authorization=scheme))[0] == 401
    assert door.access.asked == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[]", "the body"),
        (b'"alert"', "the body"),
        (b"[" * 200_000, "more than 100000 values"),
        (b"[" * 2_000 + b"]" * 2_000, "nested deeper than 64"),
        (b"{}", "version"),
    ],
    ids=["nothing", "half", "binary", "list", "text", "deep", "closed", "empty"],
)
async def test_a_body_that_is_not_understood_is_refused_with_a_reason(door: Door, body: bytes, message: str) -> None:
    status, _, said = await door.post(body=body)
    assert status == 400
    assert message in said["error"]
    assert door.taken == []


@pytest.mark.parametrize("body", [b"{", b"[" * 200_000, b"[]", b"{}"])
async def test_a_cloud_event_that_is_not_understood_is_refused(door: Door, body: bytes) -> None:
    path, kind = "/triggers/team/fraud/upload", "application/cloudevents+json; charset=utf-8"
    assert (await door.post(path, body, Content_Type=kind))[0] == 400
    assert (await door.post(path, body))[0] == 400


async def test_a_body_of_more_than_a_mebibyte_is_refused(door: Door) -> None:
    assert (await door.post(body=b" " * ((1 << 20) + 1)))[0] == 413
    assert (await door.post(body=json.dumps(alert()).encode().ljust(1 << 20)))[0] == 202


async def test_a_compressed_body_is_never_unpacked(door: Door) -> None:
    status, _, said = await door.post(body=gzip.compress(b" " * (64 << 20)), Content_Encoding="gzip")
    assert status == 415
    assert "without Content-Encoding" in said["error"]


async def test_senders_have_to_retry_while_it_is_not_the_leader(door: Door) -> None:
    door.unready.append("another process is the leader")
    status, headers, said = await door.post()
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "another process is the leader" in said["error"]
    assert door.access.asked == []


@pytest.fixture
async def standby(door: Door) -> AsyncIterator[Door]:
    """The door of a standby; `door` is the leader's."""
    async with opened() as found:
        found.unready.append("this process does not lead")
        found.leader = door.url
        yield found


async def test_a_standby_forwards_requests_and_returns_the_response(door: Door, standby: Door) -> None:
    assert (await standby.post())[0] == 202
    assert (await standby.post(body=b"no json"))[0] == 400
    assert (await standby.post(path="/triggers/team/fraud/other"))[0] == 404
    event = {f"ce_{name}": value for name, value in EVENT.items()}
    assert (await standby.post("/triggers/team/fraud/upload", {"rows": 7}, **event))[0] == 202
    assert [len(found) for *_, found in door.taken] == [1, 1]
    assert standby.taken == []


async def test_a_standby_passes_nothing_on_for_strangers(door: Door, standby: Door) -> None:
    assert (await standby.post(token="forged"))[0] == 401
    assert (await standby.post(path="/triggers/other/fraud/alert"))[0] == 403
    assert door.access.asked == []


async def test_what_was_passed_on_once_goes_no_further(door: Door, standby: Door) -> None:
    """Two that take each other for the leader, just after it has changed, would pass it on for ever."""
    door.unready.append("this process does not lead")
    door.leader = standby.url
    status, headers, said = await standby.post()
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "does not lead" in said["error"]


async def test_a_leader_that_cannot_be_reached_is_told(standby: Door) -> None:
    standby.leader = "http://127.0.0.1:1"
    status, headers, said = await standby.post()
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "cannot be reached" in said["error"]


async def test_undetermined_access_admits_no_sender_and_is_not_cached(door: Door) -> None:
    door.access.broken = "bind the ClusterRole system:auth-delegator"
    status, headers, said = await door.post()
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "system:auth-delegator" in said["error"]
    door.access.broken = ""
    assert (await door.post())[0] == 202


async def test_what_no_pass_deals_with_in_time_is_to_be_sent_again() -> None:
    async with opened(accept_seconds=0.0) as door:
        door.dealt_with.clear()
        status, headers, said = await door.post()
        assert (status, headers["Retry-After"]) == (503, "5")
        assert "send it again" in said["error"]


async def test_a_full_inbox_is_told(door: Door) -> None:
    door.full = "RetrainingPolicy team/fraud has 1000 messages that wait"
    status, headers, said = await door.post()
    assert (status, headers["Retry-After"], said["error"]) == (503, "5", door.full)


async def test_a_token_is_looked_up_once_in_ten_seconds(door: Door) -> None:
    for token in ("good.token-1", "nobodys"):
        door.access.asked.clear()
        statuses = [(await door.post(token=token))[0] for _ in range(3)]
        assert len(set(statuses)) == 1
        assert door.access.asked == [token]
        door.clock.advance(10.0)
        await door.post(token=token)
        assert door.access.asked == [token] * 2


async def test_tokens_are_remembered_by_hash_and_within_a_bound(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "MAX_TOKENS", 2)
    for number in range(4):
        await door.post(token=f"token-{number}")
    await door.post(token="token-3")
    await door.post(token="token-0")
    assert door.access.asked == ["token-0", "token-1", "token-2", "token-3", "token-0"]


async def test_no_token_is_ever_logged_or_told(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    responses = [str(await door.post(token=token)) for token in ("good.token-1", "strangers-token", "nobodys-token")]
    door.access.broken = "no answer"
    responses.append(str(await door.post(token="fresh-token")))
    logged = "".join(str(record.__dict__) for record in caplog.records if record.name.startswith("modelwright"))
    for token in ("good.token-1", "strangers-token", "nobodys-token", "fresh-token"):
        assert token not in "".join(responses)
        assert token not in logged


async def test_an_address_that_sends_too_much_is_asked_to_wait(door: Door) -> None:
    answers = [await door.post(token=None) for _ in range(int(authentication.REQUEST_BURST) + 1)]
    assert [status for status, *_ in answers[:-1]] == [401] * int(authentication.REQUEST_BURST)
    status, headers, said = answers[-1]
    assert (status, headers["Retry-After"]) == (429, "1")
    assert "too many requests from this address" in said["error"]
    assert (await door.post())[0] == 429, "its token has not been reviewed yet"
    door.clock.advance(1.0)
    assert (await door.post())[0] == 202
    while (await door.post(token="nobodys"))[0] != 429:
        pass
    assert (await door.post())[0] == 202, "a token that was good lately"
    door.clock.advance(authentication.TOKEN_SECONDS / 2)
    assert (await door.post())[0] == 202


async def test_users_are_limited_each_for_themselves(door: Door) -> None:
    """Behind a proxy, and from a standby, all come from one address."""
    for number in range(int(authentication.REQUEST_BURST)):
        assert (await door.post(token=f"good.token-{1 + number % 2}"))[0] == 202
    status, headers, said = await door.post()
    assert (status, headers["Retry-After"]) == (429, "1")
    assert SENDER.name in said["error"]
    assert (await door.post(token="strangers-token"))[0] == 403
    door.clock.advance(1.0)
    assert (await door.post())[0] == 202


async def test_tokens_for_the_api_server_are_refused_or_answered_with_a_warning() -> None:
    async with opened() as door:
        assert (await door.post(token="for-the-api-server"))[0] == 401
        assert "Warning" not in (await door.post())[1]
    async with opened(audience=Audience.ANY) as door, opened(audience=Audience.ANY) as standby:
        standby.unready.append("this process does not lead")
        standby.leader = door.url
        for one in (door, standby):
            status, headers, _ = await one.post(token="for-the-api-server")
            assert (status, "modelwright.dev" in headers["Warning"]) == (202, True)


async def test_one_user_leaves_room_for_others(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_CONCURRENT_PER_USER", 2)
    door.dealt_with.clear()
    waiting = [asyncio.create_task(door.post()) for _ in range(2)]
    for _ in waiting:
        await door.came.acquire()
    assert (await door.post())[0] == 429
    assert (await door.post(token="strangers-token"))[0] == 403
    door.dealt_with.set()
    assert [(await task)[0] for task in waiting] == [202, 202]
    assert (await door.post())[0] == 202


async def test_only_so_many_are_under_way_at_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_CONCURRENT", 2)
    door.dealt_with.clear()
    waiting = [asyncio.create_task(door.post()) for _ in range(2)]
    for _ in waiting:
        await door.came.acquire()
    status, _, said = await door.post()
    assert (status, "too many webhooks at once" in said["error"]) == (503, True)
    door.dealt_with.set()
    assert [(await task)[0] for task in waiting] == [202, 202]
    assert (await door.post())[0] == 202


def test_the_least_recently_used_addresses_are_dropped() -> None:
    clock = FakeClock()
    rates = KeyedRateLimiter(clock, rate=1.0, burst=1.0, buckets=2)
    assert rates.take_token("a") == 0
    assert rates.take_token("a") == 1.0
    assert [rates.take_token(remote) for remote in ("b", "a", "c", "d")] == [0, 1.0, 0, 0]
    assert rates.take_token("a") == 0
    clock.advance(0.5)
    assert rates.take_token("a") == pytest.approx(0.5)
    clock.advance(0.5)
    assert rates.take_token("a") == 0


async def test_probes_and_metrics_are_on_another_port(door: Door) -> None:
    async with aiohttp.ClientSession() as session:
        for path, status in (("/livez", 404), ("/readyz", 404), ("/metrics", 404), (URL, 405)):
            async with session.get(door.url + path) as answer:
                assert answer.status == status
