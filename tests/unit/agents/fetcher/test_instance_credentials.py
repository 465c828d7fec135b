"""A pod without credentials does not act as its node; the message names the switch that allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelwright.agents.fetcher import uri
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.port import FetchContext
from modelwright.agents.fetcher.settings import FetchSettings
from modelwright.agents.fetcher.sources import open_source
from modelwright.agents.fetcher.sources.objectstore import ObjectStoreSource
from modelwright.agents.fetcher.store_credentials import StoreCredentials

ADDRESSES = ["s3://models/x", "gs://models/x", "az://account/models/x"]
IDENTITIES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_FEDERATED_TOKEN_FILE",
)


def refusal(address: str, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch, **secret: str) -> tuple[str, int]:
    """Return the message when all access is denied, and the number of ways tried."""
    tries = []

    async def denied(self: ObjectStoreSource, store: Any) -> Any:
        tries.append(store)
        raise FetchError(FetchReason.ACCESS_DENIED, "denied (HTTP 403).")

    class Given(StoreCredentials):
        def read_mounted(self, name: str) -> str:
            return secret.get(name, "")

    monkeypatch.setattr(ObjectStoreSource, "_list_objects", denied)
    for name in IDENTITIES:
        monkeypatch.delenv(name, raising=False)
    nothing: Mapping[str, str] = {}
    context = FetchContext(uri.parse_uri(address), Given(Path("/nowhere"), nothing), settings)
    with pytest.raises(FetchError) as error:
        asyncio.run(open_source(context).inspect(""))
    assert error.value.reason is FetchReason.ACCESS_DENIED
    return error.value.message, len(tries)


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_credentials_only_public_objects_are_read(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message, ways = refusal(address, FetchSettings(), monkeypatch)
    assert ways == 1, "the metadata service is not asked"
    for part in ("denied (HTTP 403)", "credentialsSecretRef", "MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS", "fetch.env"):
        assert part in message


@pytest.mark.parametrize("address", ADDRESSES)
def test_where_it_is_switched_on_the_node_is_asked_after_that(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message, ways = refusal(address, FetchSettings(instance_credentials=True), monkeypatch)
    assert ways == 2
    assert "INSTANCE_CREDENTIALS" not in message


def test_credentials_that_are_denied_say_nothing_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    message, ways = refusal("s3://models/x", FetchSettings(), monkeypatch, **secret)
    assert (message, ways) == ("denied (HTTP 403).", 1)
