"""The contract of all sources, each against a real server of its scheme."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.fetch.harness import Container, folder_digest, random_bytes, sha256, tree
from tests.fetch.stores import Store
from tests.servers.http_faults import FaultProxy

pytestmark = pytest.mark.fetch

FILES = {
    "model.bin": random_bytes(3_000_000, 1),
    "config.json": b'{"layers": 2}',
    "empty": b"",
    "vocab/with space.txt": b"a b c",
    "vocab/ümlaut-名.txt": "grüße".encode(),
    "deep/er/still/weights-00001.bin": random_bytes(600_000, 2),
}
WRONG = "sha256:" + "0" * 64


@pytest.fixture
def folder(store: Store, container: Container, request: pytest.FixtureRequest) -> tuple[str, str]:
    """URI and digest of FILES in the store; for a store without folders, of its largest file."""
    name = _name(request)
    store.put(name, FILES)
    container.give(store.secret(store.url))
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
    if store.folders:
        return (uri := store.uri(name)), store.digest(FILES, uri)
    return store.uri(name, "model.bin"), sha256(FILES["model.bin"])


def _name(request: pytest.FixtureRequest) -> str:
    return "t-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")


def _expected(store: Store) -> dict[str, bytes]:
    return FILES if store.folders else {"model.bin": FILES["model.bin"]}


def test_resolve_tells_digest_and_size_and_stores_nothing(
    store: Store, container: Container, folder: tuple[str, str]
) -> None:
    uri, expected = folder
    outcome = container.resolve(uri)
    assert outcome.code == 0, outcome.text
    assert outcome.message["digest"] == expected
    assert outcome.message["sizeBytes"] == sum(map(len, _expected(store).values()))
    assert not container.dest.exists()


def test_get_brings_every_file_and_another_user_can_read_them(
    store: Store, container: Container, folder: tuple[str, str]
) -> None:
    uri, expected = folder
    old = os.umask(0o077)
    try:
        outcome = container.get(uri, expected)
    finally:
        os.umask(old)
    assert outcome.code == 0, outcome.text
    assert outcome.message["fetched"] is True
    assert outcome.message["digest"] == expected
    assert tree(container.dest) == _expected(store)
    for path in (container.dest, *container.dest.rglob("*")):
        wants = 0o005 if path.is_dir() else 0o004
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == wants, path


def test_get_of_one_file_lands_under_its_own_name(
    store: Store, container: Container, request: pytest.FixtureRequest
) -> None:
    if store.pinned:
        pytest.skip("an artifact of a Hub or registry is always a folder: there is no single file to name")
    body = random_bytes(1_500_000, 3)
    store.put(_name(request), {"weights.bin": body})
    container.give(store.secret(store.url))
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
    uri = store.uri(_name(request), "weights.bin")
    assert container.resolve(uri).message["digest"] == sha256(body)
    assert container.get(uri, sha256(body)).code == 0
    assert tree(container.dest) == {"weights.bin": body}


def test_a_wrong_digest_is_refused_and_nothing_of_it_stays(
    store: Store, container: Container, folder: tuple[str, str]
) -> None:
    uri, expected = folder
    wrong = "git:" + "0" * 40 if expected.startswith("git:") else WRONG
    outcome = container.get(uri, wrong)
    assert outcome.code == 1
    # a store that finds content by its digest says that it has none such
    assert outcome.reason == ("ArtifactNotFound" if store.pinned else "DigestMismatch"), outcome.text
    assert tree(container.dest) == {}
    outcome = container.get_cached(uri, wrong)
    assert outcome.code == 1
    assert not container.cached(wrong).exists()


def test_a_missing_artifact_is_not_found(store: Store, container: Container, folder: tuple[str, str]) -> None:
    outcome = container.resolve(store.uri("not-there", "nothing.bin"))
    assert (outcome.code, outcome.reason) == (1, "ArtifactNotFound"), outcome.text
    assert "not-there" in outcome.message["message"]


def test_a_cached_artifact_starts_with_the_store_down(
    store: Store, container: Container, folder: tuple[str, str]
) -> None:
    uri, expected = folder
    first = container.get_cached(uri, expected)
    assert first.code == 0, first.text
    assert first.message["fetched"] is True
    assert tree(container.cached(expected)) == _expected(store)
    container.give({})
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = "/nowhere"
    gone = uri.replace("127.0.0.1", "127.0.0.9")
    second = container.get_cached(gone, expected)
    assert second.code == 0, second.text
    assert second.message["fetched"] is False
    assert second.message["sizeBytes"] == first.message["sizeBytes"]


def test_many_small_files_come_in_pages(store: Store, container: Container, request: pytest.FixtureRequest) -> None:
    if not store.folders:
        pytest.skip("HTTP lists no folders, so that only single files can be named")
    files = {f"part-{number:05d}/data.txt": b"%d" % number for number in range(120 if store.scheme == "oci" else 1200)}
    store.put(_name(request), files)
    container.give(store.secret(store.url))
    container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(store.folder)
    uri = store.uri(_name(request))
    expected = store.digest(files, uri)
    outcome = container.get(uri, expected)
    assert outcome.code == 0, outcome.text
    assert tree(container.dest) == files


def test_wrong_credentials_are_access_denied(
    remote: Store, container: Container, request: pytest.FixtureRequest
) -> None:
    remote.put(_name(request), FILES)
    container.give(remote.wrong_secret(remote.url))
    outcome = container.resolve(remote.uri(_name(request), "" if remote.folders else "model.bin"))
    assert (outcome.code, outcome.reason) == (1, "AccessDenied"), outcome.text
    assert "redential" in outcome.message["message"]


def test_missing_credentials_are_denied_without_the_machines(
    remote: Store, container: Container, request: pytest.FixtureRequest
) -> None:
    remote.put(_name(request), FILES)
    secret = {
        name: value for name, value in remote.secret(remote.url).items() if "ENDPOINT" in name or "INSECURE" in name
    }
    container.give(secret)
    outcome = container.resolve(remote.uri(_name(request), "" if remote.folders else "model.bin"))
    # the Hub doesn't tell a stranger whether a private model exists
    assert outcome.reason == ("ArtifactNotFound" if remote.scheme == "hf" else "AccessDenied"), outcome.text


def _through(
    remote: Store, container: Container, proxy: FaultProxy, name: str, files: dict[str, bytes]
) -> tuple[str, str]:
    """URI and digest of one large file, or of a folder of it, reached through the proxy."""
    remote.put(name, files)
    container.give(remote.secret(proxy.url))
    if remote.folders:
        return remote.uri(name, url=proxy.url), remote.digest(files, remote.uri(name))
    path, body = next(iter(files.items()))
    return remote.uri(name, path, url=proxy.url), sha256(body)


def test_a_store_that_is_down_is_unreachable(
    remote: Store, container: Container, proxy: FaultProxy, request: pytest.FixtureRequest
) -> None:
    uri, expected = _through(remote, container, proxy, _name(request), {"model.bin": random_bytes(100_000)})
    proxy.down = True
    outcome = container.get(uri, expected)
    assert (outcome.code, outcome.reason) == (1, "StoreUnreachable"), outcome.text
    assert len(outcome.events("retry")) == 2
    proxy.behave()
    assert container.get(uri, expected).code == 0


def test_a_store_that_goes_silent_is_a_stalled_download(
    remote: Store, container: Container, proxy: FaultProxy, request: pytest.FixtureRequest
) -> None:
    uri, expected = _through(remote, container, proxy, _name(request), {"model.bin": random_bytes(2_000_000)})
    proxy.freeze_after = 150_000
    outcome = container.get(
        uri,
        expected,
        MODELWRIGHT_FETCH_STALL_SECONDS="0.5",
        MODELWRIGHT_FETCH_ATTEMPTS="2",
        MODELWRIGHT_FETCH_PART_BYTES="1000000",
    )
    proxy.behave()
    assert (outcome.code, outcome.reason) == (1, "DownloadStalled"), outcome.text


def test_a_download_that_breaks_off_goes_on_where_it_was(
    remote: Store, container: Container, proxy: FaultProxy, request: pytest.FixtureRequest
) -> None:
    body = random_bytes(6_000_000)
    uri, expected = _through(remote, container, proxy, _name(request), {"model.bin": body})
    proxy.cut_after, proxy.cuts = 400_000, 6
    outcome = container.get(uri, expected, MODELWRIGHT_FETCH_PART_BYTES="1000000", MODELWRIGHT_FETCH_PARALLEL="2")
    assert outcome.code == 0, outcome.text
    assert (container.dest / "model.bin").read_bytes() == body
    assert proxy.cuts == 0
    # what had come before a cut is not asked for again
    assert proxy.seen < len(body) * 1.3


def test_killed_container_resumes_its_download(
    remote: Store, container: Container, proxy: FaultProxy, request: pytest.FixtureRequest
) -> None:
    body = random_bytes(8_000_000)
    files = {"model.bin": body, "small.txt": b"small"} if remote.folders else {"model.bin": body}
    uri, expected = _through(remote, container, proxy, _name(request), files)
    proxy.bytes_per_second = 3_000_000
    process = container.process(
        "get", "--uri", uri, "--digest", expected, "--dest", container.dest, MODELWRIGHT_FETCH_PARALLEL="2"
    )
    while proxy.seen < 5_000_000 and process.poll() is None:
        pass
    process.kill()
    assert process.wait() == -9
    assert process.stdout is not None
    process.stdout.close()
    assert tree(container.dest / ".modelwright")
    proxy.behave()
    before = proxy.seen
    outcome = container.get(uri, expected)
    assert outcome.code == 0, outcome.text
    assert (container.dest / "model.bin").read_bytes() == body
    assert proxy.seen - before < 6_000_000
    assert not (container.dest / ".modelwright").exists()


def test_nothing_of_the_credentials_is_ever_printed(
    remote: Store, container: Container, proxy: FaultProxy, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = _name(request)
    uri, expected = _through(remote, container, proxy, name, {"model.bin": random_bytes(500_000)})
    secret, wrong = remote.secret(proxy.url), remote.wrong_secret(proxy.url)
    output = [
        container.resolve(uri),
        container.get(uri, WRONG),
        container.get(uri, expected),
        container.resolve(uri + "-no"),
    ]
    container.give(wrong)
    output.append(container.resolve(uri))
    container.give(secret)
    proxy.down = True
    output.append(container.resolve(uri))
    proxy.behave()
    proxy.cut_after, proxy.cuts = 100, 1000
    output.append(container.resolve(uri))
    proxy.behave()
    process = container.process("resolve", "--uri", uri)
    output.append(container.finish(process))
    canaries = {*remote.canaries(secret), *remote.canaries(wrong)}
    assert canaries
    for outcome in output:
        for canary in canaries:
            assert canary not in outcome.text
            assert canary not in outcome.termination
    assert {outcome.code for outcome in output} == {0, 1}


def test_folder_has_one_digest_in_every_store(store: Store, container: Container, folder: tuple[str, str]) -> None:
    if store.scheme != "hf":
        pytest.skip("the tests above ask by this digest already, or by an OCI artifact's own")
    uri, _ = folder
    outcome = container.get(uri, folder_digest(FILES))
    assert outcome.code == 0, outcome.text
    assert tree(container.dest) == FILES


def test_only_the_part_that_is_named_comes(store: Store, container: Container, folder: tuple[str, str]) -> None:
    if not store.folders:
        pytest.skip("one file has no parts")
    uri, whole = folder
    name = "ümlaut-名.txt"
    part = ("--path=vocab", "--include=*.txt", "--exclude=with*")
    expected = whole if store.pinned else folder_digest({name: FILES[f"vocab/{name}"]})
    resolved = container.run("resolve", "--uri", uri, *part)
    assert resolved.message["digest"] == expected, resolved.text
    arguments = ("get", "--uri", uri, "--digest", expected, "--cache", container.cache, *part)
    assert [container.run(*arguments).message["fetched"] for _ in range(2)] == [True, False]
    (place,) = container.cache.glob("*-*.*")
    assert tree(place) == {name: FILES[f"vocab/{name}"]}
    missing = container.run("resolve", "--uri", uri, "--path=vocabulary")
    assert (missing.reason, "'vocabulary'" in missing.message["message"]) == ("ArtifactNotFound", True), missing.text
