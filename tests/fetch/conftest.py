"""Starts each scheme's server once per test session, and gives every test a container's folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fetch.harness import Container
from tests.fetch.stores import STORES, Oci, Store
from tests.lib.fetch_processes import _running, started
from tests.servers.http_faults import FaultProxy


@pytest.fixture(scope="session", autouse=True)
def _stop_stores() -> Iterator[None]:
    yield
    for store in _running.values():
        store.stop()
    _running.clear()


@pytest.fixture(params=STORES, ids=lambda kind: kind.scheme)
def store(request: pytest.FixtureRequest) -> Store:
    kind: type[Store] = request.param
    return started(kind)


@pytest.fixture(params=[kind for kind in STORES if kind.remote], ids=lambda kind: kind.scheme)
def remote(request: pytest.FixtureRequest) -> Store:
    """Only stores that are reached over the network."""
    kind: type[Store] = request.param
    return started(kind)


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


@pytest.fixture
def proxy(remote: Store) -> Iterator[FaultProxy]:
    """Stands between the container and the remote store."""
    with FaultProxy(remote.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A registry of a module's own: who pushes to it may break what is in it."""
    store = Oci()
    store.start()
    yield urlsplit(store.url).netloc
    store.stop()
