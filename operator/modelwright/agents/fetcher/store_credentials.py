"""Credentials of the stores: files of a mounted Secret, or environment variables of the same names."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelwright.agents.fetcher.errors import FetchError, FetchReason

_SECRET_NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_SECRET",
    "HF_TOKEN",
    "HTTP_AUTHORIZATION",
    ".dockerconfigjson",
)
_SECRET_JSON_KEYS = (
    "private_key",
    "private_key_id",
    "client_secret",
    "refresh_token",
    "auth",
    "password",
    "identitytoken",
    "registrytoken",
)
_MAX_VALUE_BYTES = 1 << 20


class StoreCredentials:
    """Reads a name from the mounted Secret first, then from the environment. Its repr shows no values."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment

    def __repr__(self) -> str:
        return f"Credentials({self._folder})"

    def read_mounted(self, name: str) -> str:
        """Return the value in the mounted Secret, or ''."""
        path = self._folder / name
        try:
            if not path.is_file():
                return ""
            if path.stat().st_size > _MAX_VALUE_BYTES:
                raise FetchError(
                    FetchReason.ACCESS_DENIED, f"The credentials Secret's key {name} is larger than 1 MiB."
                )
            return path.read_text("utf-8").strip()
        except PermissionError:
            raise FetchError(
                FetchReason.ACCESS_DENIED,
                f"The credentials Secret's key {name} can't be read by this user (uid). Check defaultMode.",
            ) from None
        except UnicodeDecodeError:
            raise FetchError(
                FetchReason.ACCESS_DENIED, f"The credentials Secret's key {name} is not UTF-8 text."
            ) from None

    def mounted_path(self, name: str) -> Path | None:
        """Return the value's file in the mounted Secret, for libraries that need a file."""
        return self._folder / name if self.read_mounted(name) else None

    def get(self, name: str) -> str:
        """Return the value, or ''."""
        return self.read_mounted(name) or self._environment.get(name, "").strip()

    def is_enabled(self, name: str) -> bool:
        """Return whether the value is true, 1 or yes."""
        return self.get(name).lower() in ("true", "1", "yes")

    def list_secrets(self) -> Iterator[str]:
        """Yield every value that must never be printed, also in its encoded forms."""
        for name in _SECRET_NAMES:
            value = self.get(name)
            if not value:
                continue
            yield value
            if name == "HTTP_AUTHORIZATION":
                yield value.partition(" ")[2] or value
            if name == "AZURE_STORAGE_SAS_TOKEN":
                yield value.removeprefix("?")
            if value.startswith("{"):
                try:
                    yield from _list_json_secrets(json.loads(value), "")
                except (ValueError, RecursionError):
                    continue


def _list_json_secrets(node: object, key: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _list_json_secrets(child, str(name))
    elif isinstance(node, list):
        for child in node:
            yield from _list_json_secrets(child, key)
    elif isinstance(node, str) and key in _SECRET_JSON_KEYS:
        yield node
        if key == "auth":
            try:
                yield base64.b64decode(node, validate=True).decode().partition(":")[2]
            except ValueError:
                return
