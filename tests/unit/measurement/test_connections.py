"""The file of connections: what is taken, and what is refused with the entry and the field named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelwright.measurement.connections import ConnectionsError, load_connections, parse_connections

GOOD = {"name": "default", "type": "Prometheus", "url": "http://prometheus.monitoring.svc:9090/"}


OAUTH2 = {"tokenUrl": "https://login.example.com/token", "clientId": "modelwright", "clientSecretFile": "/secret"}


def test_a_file_with_all_there_is(tmp_path: Path) -> None:
    file = tmp_path / "connections.yaml"
    file.write_text(
        """
connections:
- {name: default, type: Prometheus, url: "https://prometheus.example.com/base/", caFile: /ca, bearerTokenFile: /token,
   headers: {X-Scope-OrgID: models}, timeout: 3s, enforcedLabel: namespace}
- {name: tenant, type: Prometheus, url: "https://thanos.example.com", headerFiles: {X-Key: /key},
   queryParameters: {namespace: $(NAMESPACE)}, oauth2: {tokenUrl: "https://login.example.com/token", clientId: m,
   clientSecretFile: /secret, scopes: [read], parameters: {audience: thanos}, caFile: /login-ca}}
- {name: json, type: HTTP, url: "http://10.0.0.1:80", basicAuth: {username: u, passwordFile: /p}}
"""
    )
    actual = load_connections(str(file))
    assert list(actual) == ["default", "tenant", "json"]
    assert actual["tenant"].for_namespace("vision").query_parameters == {"namespace": "vision"}
    assert actual["default"].url == "https://prometheus.example.com/base"
    assert actual["default"].timeout_seconds == 3
    assert actual["json"].timeout_seconds == 10


@pytest.mark.parametrize("text", ["", "connections: []", "connections:"])
def test_no_connections(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert load_connections(str(file)) == {}


def test_no_file() -> None:
    assert load_connections("") == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": None}, "connections[0] (default): url: "),
        ({"name": "De fault"}, "connections[0] (De fault): name: "),
        ({"type": "Graphite"}, "type: Input should be 'Prometheus' or 'HTTP'"),
        ({"url": "ftp://x"}, "url: must begin with http:// or https://"),
        ({"url": "http://"}, "url: must begin with http:// or https://"),
        ({"url": "http://[::1"}, "url: is no URL"),
        ({"url": "http://x:99999"}, "url: is no URL"),
        ({"url": "http://u:hunter2@x"}, "url: must hold no credentials"),
        ({"url": "http://x/?a=b"}, "url: must have no query"),
        ({"url": "http://169.254.169.254"}, "169.254.169.254 is a link-local or metadata address"),
        ({"url": "http://169.254.0.1:9090/x"}, "link-local"),
        ({"url": "http://[fe80::1]:9090"}, "link-local"),
        ({"url": "http://[fe80::1%25eth0]:9090"}, "link-local"),
        ({"url": "http://[::ffff:169.254.169.254]"}, "link-local"),
        ({"url": "http://[fd00:ec2::254]"}, "link-local or metadata"),
        ({"url": "http://metadata.google.internal./x"}, "link-local or metadata"),
        ({"url": "http://METADATA"}, "link-local or metadata"),
        ({"timeout": "10"}, "timeout: "),
        ({"timeout": "2m"}, "timeout: must be more than 0s and at most 60s"),
        ({"timeout": "0s"}, "timeout: must be more than 0s"),
        ({"headers": {"Authorization": "Bearer hunter2"}}, "headers: Authorization is a credential"),
        ({"headers": {"X Y": "z"}}, "is no header"),
        ({"headerFiles": {"X Y": "/z"}}, "is no header"),
        ({"headerFiles": {"X": "z"}}, "headerFiles.X: "),
        ({"headerFiles": {"X": "/z"}, "headers": {"x": "y"}}, "x is in headers and in headerFiles"),
        ({"headerFiles": {"X": "/z", "x": "/z"}}, "headerFiles has a header twice"),
        ({"headerFiles": {"authorization": "/z"}, "bearerTokenFile": "/t"}, "exclude each other"),
        ({"queryParameters": {"": "z"}}, "queryParameters: "),
        ({"queryParameters": {"a": "$(MODEL)"}}, "a: the one placeholder is $(NAMESPACE)"),
        ({"oauth2": OAUTH2, "bearerTokenFile": "/t"}, "bearerTokenFile and oauth2 exclude each other"),
        ({"oauth2": OAUTH2 | {"clientSecret": "hunter2"}}, "oauth2.clientSecret: Extra inputs"),
        ({"oauth2": OAUTH2 | {"tokenUrl": "https://u:hunter2@x"}}, "oauth2.tokenUrl: must hold no credentials"),
        ({"oauth2": OAUTH2 | {"tokenUrl": "http://169.254.169.254/token"}}, "metadata address"),
        ({"oauth2": OAUTH2 | {"parameters": {"client_secret": "hunter2"}}}, "client_secret is set by the operator"),
        ({"sigv4": {"region": "eu-central-1"}}, "sigv4: Extra inputs are not permitted"),
        ({"headers": {"X": "a\nB: c"}}, "is no header"),
        ({"bearerTokenFile": "/t", "basicAuth": {"username": "u", "passwordFile": "/p"}}, "exclude each other"),
        ({"bearerTokenFile": "relative"}, "bearerTokenFile: "),
        ({"caFile": "/ca"}, "caFile has no effect with an http URL"),
        ({"type": "HTTP", "enforcedLabel": "namespace"}, "enforcedLabel is for type Prometheus"),
        ({"enforcedLabel": "a-b"}, "enforcedLabel: "),
        ({"bearerToken": "hunter2"}, "bearerToken: Extra inputs are not permitted"),
    ],
)
def test_a_bad_entry_is_refused_naming_it_without_its_secrets(changes: dict[str, Any], expected: str) -> None:
    entry = {key: value for key, value in (GOOD | changes).items() if value is not None}
    with pytest.raises(ConnectionsError) as refused:
        parse_connections({"connections": [entry]}, "c.yaml")
    assert str(refused.value).startswith("c.yaml: connections[0]")
    assert expected in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_name_is_used_once() -> None:
    with pytest.raises(ConnectionsError, match=r"connections\[1\] \(default\): the name is used twice"):
        parse_connections({"connections": [GOOD, GOOD]}, "c.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connections: {a: b}", "which is a list"),
        ("[]", "which is a list"),
        ("servers: []", "servers is not known"),
        ("connections: [x]", "connections[0]: "),
        ("a: b: hunter2", "is no YAML, line 1"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConnectionsError) as refused:
        load_connections(str(file))
    assert expected in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ConnectionsError, match="can't be read"):
        load_connections("/does/not/exist.yaml")
