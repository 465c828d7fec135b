"""Answers of stores to fetch result in an artifact or a refusal, never in an error that fetch itself calls a bug."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelwright.agents.fetcher.archive import UnpackedPart, unpack_archive
from modelwright.agents.fetcher.errors import FetchError
from modelwright.agents.fetcher.file_tree import scan_tree
from modelwright.agents.fetcher.port import RemoteFile
from modelwright.agents.fetcher.selection import PathCandidates, Selection, parse_selection
from modelwright.agents.fetcher.settings import FetchSettings as Limits
from tests.fetch.harness import Container
from tests.fuzz.strategies import DEEP, bodies, mangled
from tests.servers.http_faults import FaultServer, Page

DIGEST = "sha256:" + "d" * 64
COMMIT = "c" * 40
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "layers": [
        {
            "mediaType": "application/octet-stream",
            "digest": DIGEST,
            "size": 3,
            "annotations": {"org.opencontainers.image.title": "m.bin"},
        }
    ],
}
INDEX = {
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [{"digest": DIGEST, "platform": {"os": "linux", "architecture": "amd64"}}],
}
HUB = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": "m.bin"}]}
LFS = {"oid": "b" * 64, "size": 3, "pointerSize": 134}
TREE = [{"type": "file", "path": "m.bin", "size": 3, "oid": "a" * 40, "lfs": LFS}]
CONFIGURATION = {"auths": {"127.0.0.1": {"auth": "dXNlcjpwYXNz", "username": "u", "password": "p"}}}

# Each example is a fetch of its own. The server and the folders are the same for all of them.
shared = settings(
    max_examples=max(settings().max_examples // 5, 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as result:
        yield result


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with tempfile.TemporaryDirectory() as folder:
        yield Container(Path(folder), {"MODELWRIGHT_FETCH_ATTEMPTS": "1"})


def registry(server: FaultServer, container: Container, secret: str = "") -> str:
    given = {".dockerconfigjson": secret} if secret else {}
    container.give({"REGISTRY_INSECURE": "true", **given})
    return f"oci://{server.url.removeprefix('http://')}/models/m:1"


def answers(server: FaultServer, path: str, body: bytes) -> None:
    server.pages.clear()
    server.requests.clear()
    server.pages[path] = Page(body)


@shared
@given(body=bodies(MANIFEST, INDEX))
@example(body=DEEP.encode())
@example(body=json.dumps({**MANIFEST, "layers": [{**MANIFEST["layers"][0], "size": "x"}]}).encode())  # type: ignore[index]
def test_a_manifest_is_content_or_refused(server: FaultServer, container: Container, body: bytes) -> None:
    uri = registry(server, container)
    answers(server, "/v2/models/m/manifests/1", body)
    outcome = container.resolve(uri)
    assert outcome.reason != "InternalError", outcome.text


@shared
@given(model_info=mangled(HUB), listed=mangled(TREE))
@example(model_info=HUB, listed=[{**TREE[0], "path": None}])
@example(model_info=HUB, listed=[{**TREE[0], "path": "\ud800"}])
@example(model_info=HUB, listed=[{**TREE[0], "size": "3"}])
@example(model_info=HUB, listed=[{**TREE[0], "lfs": {**LFS, "oid": 3}}])
def test_a_hubs_answers_are_content_or_refused(
    server: FaultServer, container: Container, model_info: Any, listed: Any
) -> None:
    container.give({"HF_ENDPOINT": server.url})
    answers(server, "/api/models/org/name/revision/main", json.dumps(model_info).encode())
    server.pages[f"/api/models/org/name/tree/{COMMIT}"] = Page(json.dumps(listed).encode())
    outcome = container.resolve("hf://org/name")
    assert outcome.reason != "InternalError", outcome.text


@shared
@given(secret=bodies(CONFIGURATION).map(lambda body: body.decode(errors="replace")))
@example(secret=DEEP)
def test_a_docker_configuration_is_used_or_refused(server: FaultServer, container: Container, secret: str) -> None:
    uri = registry(server, container, secret)
    answers(server, "/v2/models/m/manifests/1", b"{}")
    outcome = container.resolve(uri)
    assert outcome.reason != "InternalError", outcome.text


signs = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)


@shared
@given(location=signs | signs.map("http://{}".format) | signs.map("//{}".format))
def test_a_redirect_is_followed_or_refused(server: FaultServer, container: Container, location: str) -> None:
    container.give({})
    answers(server, "/m.bin", b"")
    server.pages["/m.bin"] = Page(redirect=location)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelwright.agents.fetcher.store_http.ThreadedResolver.resolve", unknown)
        outcome = container.resolve(f"{server.url}/m.bin")
    assert outcome.reason != "InternalError", outcome.text


async def unknown(*_: object) -> list[object]:
    raise OSError("no name is looked up in tests")


def reject(error: FetchError, reason: str) -> None:
    assert error.reason == reason, error.message


names = st.text("ab./\\-*[]? \0\n\ud800é", max_size=8)


@given(path=names, include=st.lists(names, max_size=3), exclude=st.lists(names, max_size=3), name=names)
def test_a_selection_is_a_part_or_refused(path: str, include: list[str], exclude: list[str], name: str) -> None:
    try:
        selection = parse_selection(path, include, exclude)
    except FetchError as error:
        reject(error, "InvalidURI")
        return
    place = selection.place_of(name)
    assert place is None or name.endswith(place)
    assert PathCandidates(selection).add_names([name]).nothing_selected("here").reason == "ArtifactNotFound"


kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
entries = st.lists(st.sampled_from(["m", "n", ".wh.m", ".wh..wh..opq", "..", ".", "x"]), min_size=1, max_size=3)
members = st.lists(st.tuples(entries.map("/".join), kinds, entries.map("/".join)), max_size=6)


@given(layers=st.lists(members, min_size=1, max_size=3), path=st.sampled_from(["", "m", "m/n"]))
def test_layers_unpack_within_their_folder_or_are_refused(
    layers: list[list[tuple[str, bytes, str]]], path: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tree").mkdir()
        part = UnpackedPart(Selection(path))
        for layer in layers:
            with tarfile.open(folder / "packed", "w") as out:
                for entry, kind, target in layer:
                    info = tarfile.TarInfo(entry)
                    info.type, info.linkname = kind, target
                    out.addfile(info)
            file = RemoteFile("m", "m", None, unpack="tar", whiteouts=True)
            try:
                unpack_archive(folder / "packed", file, folder / "tree", Limits(), "here", part)
            except FetchError as error:
                reject(error, "UnsafeArchive")
                break
        assert {entry.name for entry in folder.iterdir()} == {"tree", "packed"}
        assert not scan_tree(folder / "tree").unsupported
