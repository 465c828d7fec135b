"""Fixtures of the tests that need a real API server."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from modelwright.kube.client import KubeClient, load_configuration
from tests.lib.control_plane import Server, served

_numbers = itertools.count()


@pytest.fixture(scope="session")
def crd_server() -> Iterator[Server]:
    """An API server with the CRDs and admission policies of this repository, established and in force."""
    with served() as server:
        yield server


@pytest.fixture
async def client(crd_server: Server) -> AsyncIterator[KubeClient]:
    """Our client of that server, for an administrator."""
    client = KubeClient(await load_configuration(str(crd_server.plane.kubeconfig)), qps=1000, burst=1000)
    yield client
    await client.close()


@pytest.fixture
def namespace(crd_server: Server) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{next(_numbers)}"
    crd_server.ok("create", "namespace", name)
    yield name
    crd_server.ok("delete", "namespace", name, "--wait=false")
