"""Named connections to metrics servers, from a file of the operator's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from modelwright.api.common import DNS_LABEL, parse_duration
from modelwright.net import addresses

MAX_TIMEOUT_SECONDS = 60.0
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})

ConnectionType = Literal["Prometheus", "HTTP"]
NAMESPACE_PLACEHOLDER = "$(NAMESPACE)"
"""In values of queryParameters: the namespace of the measured Model."""
FilePath = Annotated[str, StringConstraints(strict=True, min_length=2, max_length=4096, pattern=r"^/")]


class ConnectionsError(ValueError):
    """The file of connections can't be used; the message names the entry and its error."""


class _ConnectionModel(BaseModel):
    """Base of the entries: camelCase in the file, frozen, unknown members refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class BasicAuth(_ConnectionModel):
    """A user name, and the file that holds the password."""

    username: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256, pattern=r"^[^:]+$")]
    password_file: FilePath


class OAuth2(_ConnectionModel):
    """Client credentials (RFC 6749, section 4.4). The client's secret is sent to tokenUrl only, the token to the
    connection's URL only."""

    token_url: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2048)]
    client_id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256, pattern=r"^[\x20-\x7e]+$")]
    client_secret_file: FilePath
    scopes: tuple[Annotated[str, StringConstraints(strict=True, pattern=r"^[\x21-\x7e]{1,256}$")], ...] = Field(
        default=(), max_length=32
    )
    parameters: dict[str, str] = Field(default_factory=dict, max_length=16)
    ca_file: FilePath | None = None

    @field_validator("token_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return _check_plain_url(url)

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, str]) -> dict[str, str]:
        for name in parameters:
            if name in ("grant_type", "scope", "client_id", "client_secret"):
                raise ValueError(f"{name} is set by the operator: use clientId, clientSecretFile or scopes")
        return parameters

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.ca_file is not None and not self.token_url.startswith("https://"):
            raise ValueError("caFile has no effect with an http URL")
        return self


def _check_plain_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no credentials: use bearerTokenFile, basicAuth, headerFiles or oauth2")
    if parts.query or parts.fragment:
        raise ValueError("must have no query and no fragment: use queryParameters")
    if addresses.is_forbidden(host):
        raise ValueError(f"{host} is a link-local or metadata address, which is never contacted")
    return url


class Connection(_ConnectionModel):
    """Connection to one server. Files are read at each use, so rotated credentials are followed.

    `enforced_label`: label that every selector of a user's query must have, with the Model's namespace as its value;
    None, in the file also "", when users may read everything. `query_parameters`: added to the URL of each request;
    `header_files`: headers whose values are secrets, by the file that holds each.
    """

    name: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=63, pattern=DNS_LABEL)]
    type: ConnectionType
    url: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2048)]
    ca_file: FilePath | None = None
    bearer_token_file: FilePath | None = None
    basic_auth: BasicAuth | None = None
    oauth2: OAuth2 | None = Field(default=None, alias="oauth2")
    headers: dict[str, str] = Field(default_factory=dict)
    header_files: dict[str, FilePath] = Field(default_factory=dict, max_length=16)
    query_parameters: dict[str, str] = Field(default_factory=dict, max_length=16)
    timeout: Annotated[str, StringConstraints(strict=True)] = "10s"
    enforced_label: (
        Annotated[str, StringConstraints(strict=True, max_length=128, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] | None
    ) = None

    @field_validator("enforced_label", mode="before")
    @classmethod
    def _normalize_label(cls, label: Any) -> Any:
        return None if label == "" else label

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return _check_plain_url(url).rstrip("/")

    @field_validator("timeout")
    @classmethod
    def _check_timeout(cls, timeout: str) -> str:
        if not 0 < parse_duration(timeout) <= MAX_TIMEOUT_SECONDS:
            raise ValueError(f"must be more than 0s and at most {MAX_TIMEOUT_SECONDS:.0f}s")
        return timeout

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in SECRET_HEADERS:
                raise ValueError(f"{name} is a credential: use bearerTokenFile, basicAuth, headerFiles or oauth2")
            if not _is_header(name) or not value.isprintable():
                raise ValueError(f"{name!r} is no header, or its value is none")
        return headers

    @field_validator("header_files")
    @classmethod
    def _check_header_files(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if not _is_header(name):
                raise ValueError(f"{name!r} is no header")
        return files

    @field_validator("query_parameters")
    @classmethod
    def _check_query_parameters(cls, parameters: dict[str, str]) -> dict[str, str]:
        for name, value in parameters.items():
            if not name or len(name) + len(value) > 1024:
                raise ValueError(f"{name[:80]!r} has no name, or has more than 1024 characters with its value")
            if "$(" in value.replace(NAMESPACE_PLACEHOLDER, ""):
                raise ValueError(f"{name}: the one placeholder is {NAMESPACE_PLACEHOLDER}")
        return parameters

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        by_file = {name.lower() for name in self.header_files}
        credentials = (
            ("bearerTokenFile", self.bearer_token_file is not None),
            ("basicAuth", self.basic_auth is not None),
            ("oauth2", self.oauth2 is not None),
            ("Authorization in headerFiles", "authorization" in by_file),
        )
        used = [name for name, is_set in credentials if is_set]
        if len(used) > 1:
            raise ValueError(f"{' and '.join(used)} exclude each other")
        if twice := sorted(by_file & {name.lower() for name in self.headers}):
            raise ValueError(f"{twice[0]} is in headers and in headerFiles")
        if len(by_file) < len(self.header_files):
            raise ValueError("headerFiles has a header twice")
        if self.ca_file is not None and not self.url.startswith("https://"):
            raise ValueError("caFile has no effect with an http URL")
        if self.enforced_label is not None and self.type != "Prometheus":
            raise ValueError("enforcedLabel is for type Prometheus")
        return self

    @property
    def timeout_seconds(self) -> float:
        """Timeout of one answer, in seconds."""
        return parse_duration(self.timeout)

    def for_namespace(self, namespace: str) -> Connection:
        """Fill the namespace into the query parameters."""
        if not self.query_parameters:
            return self
        filled = {
            name: value.replace(NAMESPACE_PLACEHOLDER, namespace) for name, value in self.query_parameters.items()
        }
        return self.model_copy(update={"query_parameters": filled})


def _is_header(name: str) -> bool:
    return bool(name) and name.isascii() and name.isprintable() and not set(name) & set(' ":,;=(){}[]')


Connections = Mapping[str, Connection]


def load_connections(path: str) -> dict[str, Connection]:
    """Load the connections in a file, by name; none for an empty `path`. Raises ConnectionsError."""
    if not path:
        return {}
    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectionsError(f"{path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        # The message quotes no text: a token may have been pasted into it.
        mark = getattr(error, "problem_mark", None)
        raise ConnectionsError(f"{path} is no YAML{f', line {mark.line + 1}' if mark else ''}") from None
    return parse_connections(document, path)


def parse_connections(document: Any, where: str) -> dict[str, Connection]:
    """Parse the connections in a document, by name. Raises ConnectionsError, whose message starts with `where`."""
    if document is None:
        return {}
    entries = (document.get("connections") or []) if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, list):
        raise ConnectionsError(f"{where} must have one member, connections, which is a list")
    if unknown := sorted(map(str, document.keys() - {"connections"})):
        raise ConnectionsError(f"{where}: {unknown[0]} is not known; the one member is connections")
    connections: dict[str, Connection] = {}
    for index, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        label = f"{where}: connections[{index}]{f' ({name})' if isinstance(name, str) else ''}"
        try:
            connection = Connection.model_validate(entry)
        except ValidationError as error:
            raise ConnectionsError(f"{label}: {_format_validation_errors(error)}") from None
        if connection.name in connections:
            raise ConnectionsError(f"{label}: the name is used twice")
        connections[connection.name] = connection
    return connections


def _format_validation_errors(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_input=False):
        field = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{field}: {message}" if field else message)
    return "; ".join(problems)
