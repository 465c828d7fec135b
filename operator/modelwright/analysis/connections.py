"""Named connections to metrics servers, from a file of the operator's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from modelwright import addresses
from modelwright.api.common import DNS_LABEL, seconds

MAX_TIMEOUT = 60.0
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})

ConnectionType = Literal["Prometheus", "HTTP"]
FilePath = Annotated[str, StringConstraints(strict=True, min_length=2, max_length=4096, pattern=r"^/")]


class ConnectionsError(ValueError):
    """The file of connections can't be used; the message names the entry and what is wrong with it."""


class _Part(BaseModel):
    """camelCase in the file, frozen, unknown members refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class BasicAuth(_Part):
    """A user name, and the file that holds the password."""

    username: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256, pattern=r"^[^:]+$")]
    password_file: FilePath


class Connection(_Part):
    """How to reach one server. Files are read at each use, so what rotates is followed.

    `enforced_label`: label that every selector of a user's query must have, with the Model's namespace as its value;
    None, in the file also "", when users may read everything.
    """

    name: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=63, pattern=DNS_LABEL)]
    type: ConnectionType
    url: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2048)]
    ca_file: FilePath | None = None
    bearer_token_file: FilePath | None = None
    basic_auth: BasicAuth | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    timeout: Annotated[str, StringConstraints(strict=True)] = "10s"
    enforced_label: (
        Annotated[str, StringConstraints(strict=True, max_length=128, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] | None
    ) = None

    @field_validator("enforced_label", mode="before")
    @classmethod
    def _decided(cls, label: Any) -> Any:
        return None if label == "" else label

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("is no URL") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no credentials: use bearerTokenFile or basicAuth")
        if parts.query or parts.fragment:
            raise ValueError("must have no query and no fragment")
        if addresses.refused(host):
            raise ValueError(f"{host} is a link-local or metadata address, which is never asked")
        return url.rstrip("/")

    @field_validator("timeout")
    @classmethod
    def _bounded(cls, timeout: str) -> str:
        if not 0 < seconds(timeout) <= MAX_TIMEOUT:
            raise ValueError(f"must be more than 0s and at most {MAX_TIMEOUT:.0f}s")
        return timeout

    @field_validator("headers")
    @classmethod
    def _plain(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in SECRET_HEADERS:
                raise ValueError(f"{name} is a credential: use bearerTokenFile or basicAuth")
            if not name.isascii() or not name or not (name + value).isprintable() or set(name) & set(' ":,;=(){}[]'):
                raise ValueError(f"{name!r} is no header, or its value is none")
        return headers

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bearer_token_file is not None and self.basic_auth is not None:
            raise ValueError("bearerTokenFile and basicAuth exclude each other")
        if self.ca_file is not None and not self.url.startswith("https://"):
            raise ValueError("caFile has no effect with an http URL")
        if self.enforced_label is not None and self.type != "Prometheus":
            raise ValueError("enforcedLabel is for type Prometheus")
        return self

    @property
    def timeout_seconds(self) -> float:
        """Time for one answer."""
        return seconds(self.timeout)


Connections = Mapping[str, Connection]


def load(path: str) -> dict[str, Connection]:
    """The connections in a file, by name; none for an empty `path`. Raises ConnectionsError."""
    if not path:
        return {}
    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectionsError(f"{path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        # The text is not repeated: a token may have been pasted into it.
        mark = getattr(error, "problem_mark", None)
        raise ConnectionsError(f"{path} is no YAML{f', line {mark.line + 1}' if mark else ''}") from None
    return parse(document, path)


def parse(document: Any, where: str) -> dict[str, Connection]:
    """The connections in a document of the file, by name. Raises ConnectionsError, which begins with `where`."""
    if document is None:
        return {}
    entries = (document.get("connections") or []) if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, list):
        raise ConnectionsError(f"{where} must have one member, connections, which is a list")
    if unknown := sorted(map(str, document.keys() - {"connections"})):
        raise ConnectionsError(f"{where}: {unknown[0]} is not known; the one member is connections")
    found: dict[str, Connection] = {}
    for index, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        label = f"{where}: connections[{index}]{f' ({name})' if isinstance(name, str) else ''}"
        try:
            connection = Connection.model_validate(entry)
        except ValidationError as error:
            raise ConnectionsError(f"{label}: {_told(error)}") from None
        if connection.name in found:
            raise ConnectionsError(f"{label}: the name is used twice")
        found[connection.name] = connection
    return found


def _told(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_input=False):
        field = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{field}: {message}" if field else message)
    return "; ".join(problems)
