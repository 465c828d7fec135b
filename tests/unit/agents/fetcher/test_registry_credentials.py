"""Of several entries of a Docker configuration, a repository gets the one that the kubelet would choose."""

from __future__ import annotations

import pytest

from modelwright.agents.fetcher.sources.oci import find_auth_entry

CASES = [
    ("its own project's, not the last one", ["r.io/a", "r.io/b"], "r.io", "a/digits", "r.io/a"),
    ("the longest path", ["r.io", "r.io/a/b", "r.io/a"], "r.io", "a/b/digits", "r.io/a/b"),
    ("the repository itself", ["r.io", "r.io/a/digits"], "r.io", "a/digits", "r.io/a/digits"),
    ("the host's where no path leads to it", ["r.io/b", "r.io"], "r.io", "a/digits", "r.io"),
    ("none where only others' paths are there", ["r.io/b"], "r.io", "a/digits", None),
    ("a path is made of parts", ["r.io/team"], "r.io", "team-b/digits", None),
    ("a pattern of hosts", ["*.azurecr.io"], "mine.azurecr.io", "digits", "*.azurecr.io"),
    ("a pattern is for one part", ["*.io"], "a.b.io", "digits", None),
    ("a host before a pattern", ["*.azurecr.io", "mine.azurecr.io"], "mine.azurecr.io", "digits", "mine.azurecr.io"),
    ("a longer path of a pattern before a host", ["m.io", "*.io/a"], "m.io", "a/digits", "*.io/a"),
    ("another port", ["r.io:5000"], "r.io", "digits", None),
    ("its port", ["r.io", "r.io:5000"], "r.io:5000", "digits", "r.io:5000"),
    ("an IPv6 address", ["[fd00::1]:5000"], "[fd00::1]:5000", "digits", "[fd00::1]:5000"),
    ("whatever the case of the host", ["R.io"], "r.IO", "digits", "R.io"),
    ("with a scheme and the path of the API", ["https://r.io/v2/"], "r.io", "digits", "https://r.io/v2/"),
    (
        "Docker Hub by its old name",
        ["https://index.docker.io/v1/"],
        "registry-1.docker.io",
        "library/digits",
        "https://index.docker.io/v1/",
    ),
    ("Docker Hub's project", ["docker.io", "docker.io/acme"], "registry-1.docker.io", "acme/digits", "docker.io/acme"),
    ("none at all", [], "r.io", "digits", None),
]


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "chosen"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_which_credentials_a_repository_gets(
    keys: list[str], registry: str, repository: str, chosen: str | None
) -> None:
    result = find_auth_entry({key: {"auth": key} for key in keys}, registry, repository)
    assert result.get("auth") == chosen
    backwards = find_auth_entry({key: {"auth": key} for key in reversed(keys)}, registry, repository)
    assert backwards == result
