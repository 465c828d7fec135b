"""Fingerprints of data, each from a real server of its scheme: a different fingerprint means different data."""

from __future__ import annotations

import pytest

from tests.fetch.harness import Container, folder_digest, random_bytes, sha256
from tests.fetch.stores import Store
from tests.servers.http_faults import FaultServer, Page

pytestmark = pytest.mark.fetch

FILES = {"a.csv": random_bytes(300_000, 1), "b/c.csv": b"1,2", "b/empty": b""}
CHANGED = ("ETag", "Digest", "Count")


class _Data:
    """Data in a store, as a look sees it; a store without folders has the largest file alone."""

    def __init__(self, store: Store, container: Container, name: str) -> None:
        self._store, self._container, self._name = store, container, name
        container.give(store.secret(store.url))
        container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
        self.put(FILES)

    def put(self, files: dict[str, bytes]) -> None:
        self._store.put(self._name, files)

    def look(self, changed: str) -> tuple[str, int, int]:
        uri = self._store.uri(self._name) if self._store.folders else self._store.uri(self._name, "a.csv")
        outcome = self._container.look(uri, changed)
        assert outcome.code == 0, outcome.text
        assert set(outcome.message) == {"fingerprint", "objects", "bytes"}
        return outcome.message["fingerprint"], outcome.message["objects"], outcome.message["bytes"]


@pytest.fixture
def data(store: Store, container: Container, request: pytest.FixtureRequest) -> _Data:
    if store.scheme == "oci":
        pytest.skip("an OCI artifact is no dataset that is looked at for new data")
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")
    return _Data(store, container, f"look-{name}")


@pytest.mark.parametrize("changed", CHANGED)
def test_data_that_stays_looks_the_same(data: _Data, store: Store, changed: str) -> None:
    first = data.look(changed)
    assert data.look(changed) == first
    count = len(FILES) if store.folders else 1
    assert first[1:] == (count, sum(map(len, FILES.values())) if store.folders else len(FILES["a.csv"]))
    assert 0 < len(first[0]) <= 253


def test_object_overwritten_in_the_same_size_is_other_data(data: _Data) -> None:
    before = {changed: data.look(changed)[0] for changed in CHANGED}
    data.put({**FILES, "a.csv": random_bytes(300_000, 2)})
    after = {changed: data.look(changed)[0] for changed in CHANGED}
    assert [changed for changed in CHANGED if before[changed] != after[changed]] == ["ETag", "Digest"]


def test_one_object_more_is_other_data(data: _Data, store: Store) -> None:
    if not store.folders:
        pytest.skip("HTTP lists no folders, so that only single files can be named")
    before = {changed: data.look(changed) for changed in CHANGED}
    data.put({**FILES, "b/d.csv": b""})
    after = {changed: data.look(changed) for changed in CHANGED}
    assert all(before[changed][0] != after[changed][0] for changed in CHANGED)
    assert after["Count"] == (str(len(FILES) + 1), len(FILES) + 1, before["Count"][2])


def test_the_digest_is_that_of_a_resolve(data: _Data, store: Store) -> None:
    if not store.pinned:
        assert data.look("Digest")[0] == (folder_digest(FILES) if store.folders else sha256(FILES["a.csv"]))


def test_content_is_read_for_its_digest_only(container: Container) -> None:
    with FaultServer() as server:
        server.pages["/d.csv"] = Page(b"x" * 1000)
        assert container.look(f"{server.url}/d.csv").code == 0
        assert [requests[1] for requests in server.requests] == ["bytes=0-0"]
        assert container.look(f"{server.url}/d.csv", "Digest").message["fingerprint"] == sha256(b"x" * 1000)


@pytest.mark.parametrize("headers", [{"Last-Modified": "Sat, 21 Nov 2026 12:00:00 GMT"}, {}, {"ETag": 'W/"1"'}])
def test_a_server_that_tells_nothing_of_changes_is_refused(container: Container, headers: dict[str, str]) -> None:
    with FaultServer() as server:
        server.pages["/d.csv"] = Page(b"x", etag=False, headers=headers)
        outcome = container.look(f"{server.url}/d.csv")
        if "Last-Modified" in headers:
            assert outcome.code == 0
            server.pages["/d.csv"].headers = {"Last-Modified": "Sat, 21 Nov 2026 12:00:01 GMT"}
            assert container.look(f"{server.url}/d.csv").message["fingerprint"] != outcome.message["fingerprint"]
        else:
            assert outcome.reason == "InvalidURI"
            assert "compare by Digest" in outcome.message["message"]


def test_nothing_at_the_address_is_no_look(store: Store, container: Container) -> None:
    container.give(store.secret(store.url))
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
    outcome = container.look(store.uri("not-there", "nothing.csv"))
    assert (outcome.code, outcome.reason) == (1, "ArtifactNotFound"), outcome.text


def test_more_objects_than_are_listed_are_refused(container: Container) -> None:
    folder = container.folder / "source" / "claim"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"{number}.csv").touch()
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(container.folder / "source")
    assert container.look("pvc://claim/", "Count").message["objects"] == 30
    outcome = container.look("pvc://claim/", "Count", MODELWRIGHT_FETCH_MAX_ENTRIES="20")
    assert outcome.reason == "ArtifactTooLarge"


def test_a_look_without_credentials_says_so(remote: Store, container: Container) -> None:
    remote.put("look-denied", FILES)
    container.give(remote.wrong_secret(remote.url))
    outcome = container.look(remote.uri("look-denied", "" if remote.folders else "a.csv"))
    assert (outcome.code, outcome.reason) == (1, "AccessDenied"), outcome.text
