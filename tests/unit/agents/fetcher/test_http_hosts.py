"""HTTP_AUTHORIZATION is sent only to the hosts listed beside it, and to no other that a version's author names."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from modelwright.agents.fetcher.command import run_fetcher
from modelwright.agents.fetcher.errors import FetchError
from modelwright.agents.fetcher.sources.http import _authorization_for
from modelwright.agents.fetcher.store_credentials import StoreCredentials

TOKEN = "Bearer prod-artifactory-token"


def credentials(folder: Path, **secret: str) -> StoreCredentials:
    for name, value in secret.items():
        (folder / name).write_text(value)
    return StoreCredentials(folder, {})


@pytest.mark.parametrize(
    ("hosts", "url", "sent"),
    [
        ("models.example.com", "https://models.example.com/x", True),
        ("models.example.com", "https://MODELS.example.com:443/x", True),
        ("models.example.com:8443", "https://models.example.com:8443/x", True),
        ("a.example.com, models.example.com\nb", "https://models.example.com/x", True),
        ("http://models.svc:8080", "http://models.svc:8080/x", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443/x", True),
        ("models.example.com", "https://evil.example.com/x", False),
        ("models.example.com", "https://models.example.com.evil.example/x", False),
        ("models.example.com", "https://example.com/x", False),
        ("models.example.com", "https://models.example.com:8443/x", False),
        ("models.example.com", "http://models.example.com/x", False),
        ("models.example.com", "http://models.example.com:443/x", False),
        ("http://models.svc", "https://models.svc/x", False),
        ("https://models.example.com", "http://models.example.com/x", False),
    ],
)
def test_a_credential_is_for_named_hosts(tmp_path: Path, hosts: str, url: str, sent: bool) -> None:
    given_hosts = credentials(tmp_path, HTTP_AUTHORIZATION=TOKEN, HTTP_HOSTS=hosts)
    if sent:
        assert _authorization_for(given_hosts, url) == TOKEN
        return
    with pytest.raises(FetchError, match="HTTP_HOSTS") as error:
        _authorization_for(given_hosts, url)
    assert error.value.reason == "AccessDenied"
    assert TOKEN not in error.value.message


@pytest.mark.parametrize("entry", ["*.example.com", "https://a/path", "ftp://a", "a?b", "u@a", "https://", "a:99999"])
def test_an_entry_that_is_no_host_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(FetchError, match="HTTP_HOSTS has an entry that is no host"):
        _authorization_for(
            credentials(tmp_path, HTTP_AUTHORIZATION=TOKEN, HTTP_HOSTS=f"a.example.com {entry}"), "https://a/x"
        )


def test_environment_hosts_do_not_admit_a_secrets_credential(tmp_path: Path) -> None:
    (tmp_path / "HTTP_AUTHORIZATION").write_text(TOKEN)
    mixed = StoreCredentials(tmp_path, {"HTTP_HOSTS": "evil.example.com"})
    with pytest.raises(FetchError, match="Add the key HTTP_HOSTS"):
        _authorization_for(mixed, "https://evil.example.com/x")


@given(st.text(max_size=30))
def test_no_text_as_a_host_list_sends_it_elsewhere(hosts: str) -> None:
    class Given(StoreCredentials):
        def read_mounted(self, name: str) -> str:
            return {"HTTP_AUTHORIZATION": TOKEN, "HTTP_HOSTS": hosts}.get(name, "")

    with pytest.raises(FetchError):
        _authorization_for(Given(Path("/nowhere"), {}), "https://evil.example.com/x")


@pytest.mark.parametrize("hosts", [None, "models.example.com"])
def test_the_host_of_who_names_the_address_sees_nothing(tmp_path: Path, hosts: str | None) -> None:
    """The reviewer's attack: a ModelVersion that names a Secret and a server of its own."""
    (tmp_path / "HTTP_AUTHORIZATION").write_text(TOKEN)
    if hosts is not None:
        (tmp_path / "HTTP_HOSTS").write_text(hosts)
    received: list[str | None] = []

    async def attack() -> int:
        async def answer(request: web.Request) -> web.Response:
            received.append(request.headers.get("Authorization"))
            return web.Response(body=b"x")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        uri = f"http://127.0.0.1:{runner.addresses[0][1]}/x"
        environment = {
            "MODELWRIGHT_CREDENTIALS": str(tmp_path),
            "MODELWRIGHT_TERMINATION_LOG": str(tmp_path / "log"),
        }
        code = await asyncio.to_thread(run_fetcher, ["resolve", "--uri", uri], environment, io.StringIO())
        await runner.cleanup()
        return code

    assert asyncio.run(attack()) == 1
    assert received == [], "not even asked"
    message = json.loads((tmp_path / "log").read_text())
    assert message["reason"] == "AccessDenied"
    assert "HTTP_HOSTS" in message["message"]
