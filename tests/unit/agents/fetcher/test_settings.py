"""Limits from the environment."""

from __future__ import annotations

import pytest

from modelwright.agents.fetcher.errors import FetchError
from modelwright.agents.fetcher.settings import FetchSettings, read_fetch_settings


def test_without_variables_the_defaults_stand() -> None:
    assert read_fetch_settings({}) == FetchSettings()
    assert read_fetch_settings({"MODELWRIGHT_FETCH_ATTEMPTS": " "}) == FetchSettings()


def test_every_field_has_its_variable() -> None:
    settings = read_fetch_settings(
        {
            "MODELWRIGHT_FETCH_STALL_SECONDS": "2.5",
            "MODELWRIGHT_FETCH_ATTEMPTS": "7",
            "MODELWRIGHT_FETCH_MAX_BYTES": "0",
            "MODELWRIGHT_FETCH_VERIFY_CACHE": "full",
            "MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS": "false",
        }
    )
    assert (settings.stall_seconds, settings.attempts, settings.max_bytes) == (2.5, 7, 0)
    assert (settings.verify_cache, settings.instance_credentials) == ("full", False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STALL_SECONDS", "soon"),
        ("STALL_SECONDS", "0"),
        ("STALL_SECONDS", "nan"),
        ("ATTEMPTS", "-1"),
        ("ATTEMPTS", "1.5"),
        ("VERIFY_CACHE", "maybe"),
        ("INSTANCE_CREDENTIALS", "2"),
    ],
)
def test_a_value_that_can_not_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(FetchError, match=f"MODELWRIGHT_FETCH_{name}"):
        read_fetch_settings({f"MODELWRIGHT_FETCH_{name}": value})
