"""A part of an artifact from each kind of store: the files in the pod, the pinned digest, and the message."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.agents.fetcher import signature
from tests.fetch.harness import Container, folder_digest, sha256, tree
from tests.servers.gcs import GcsServer
from tests.servers.http_faults import FaultServer, Page
from tests.servers.hub import HubServer

MODEL = {"model.joblib": b"m", "sub/config.json": b"{}"}
FORMATS = {
    "config.json": b"{}",
    "model.safetensors": b"s" * 9,
    "pytorch_model.bin": b"p" * 9,
    "tf_model.h5": b"t",
    "onnx/config.json": b"{1}",
    "onnx/model.onnx": b"o",
}


@pytest.fixture
def container(tmp_path: Path) -> Container:
    (tmp_path / "mnt" / "claim").mkdir(parents=True)
    return Container(tmp_path, {"MODELWRIGHT_SOURCE_ROOT": str(tmp_path / "mnt")})


@pytest.fixture(scope="module")
def web() -> Iterator[FaultServer]:
    with FaultServer() as result:
        yield result


def layer(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


def image(web: FaultServer, container: Container, *layers: bytes) -> tuple[str, str]:
    """Publish an image and return its address and digest."""
    container.give({"REGISTRY_INSECURE": "true"})
    entries = []
    for body in layers:
        name = f"sha256:{hashlib.sha256(body).hexdigest()}"
        web.pages[f"/v2/models/m/blobs/{name}"] = Page(body)
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        entries.append({"mediaType": kind, "digest": name, "size": len(body)})
    manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": entries}).encode()
    for name in ("1", f"sha256:{hashlib.sha256(manifest).hexdigest()}"):
        web.pages[f"/v2/models/m/manifests/{name}"] = Page(manifest)
    return f"oci://{web.url.removeprefix('http://')}/models/m:1", name


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def test_a_modelcar_works_with_its_path_and_says_so_without(web: FaultServer, container: Container) -> None:
    base = layer({"bin/busybox": b"x"}, {"bin/sh": "/bin/busybox"})
    models = layer({f"models/{name}": body for name, body in MODEL.items()})
    uri, digest = image(web, container, base, models)
    outcome = container.get(uri, digest)
    assert outcome.reason == "UnsafeArchive"
    assert "artifact.path: models" in outcome.message["message"]
    result = container.run("get", "--uri", uri, "--digest", digest, "--dest", container.dest, "--path=models")
    assert result.code == 0, result.text
    assert result.message["digest"] == digest
    assert "hint" not in result.message
    assert tree(container.dest) == MODEL
    wrong = container.run(
        "get", "--uri", uri, "--digest", digest, "--dest", container.folder / "b", "--path=models/digits"
    )
    assert wrong.reason == "ArtifactNotFound"
    assert "in 'models' there are 'model.joblib', 'sub'" in wrong.message["message"]


def test_an_image_from_scratch_unpacks_and_hints_at_its_folder(web: FaultServer, container: Container) -> None:
    for others in ({}, {"README": b"r"}):
        uri, digest = image(web, container, layer({"models/1/m": b"m", **others}))
        result = container.run("get", "--uri", uri, "--digest", digest, "--dest", container.folder / str(len(others)))
        assert "'models'" in result.message["hint"]
        assert "artifact.path" in result.message["hint"]


def test_parts_of_one_image_are_kept_apart_in_the_cache(web: FaultServer, container: Container) -> None:
    uri, digest = image(web, container, layer({"a/m": b"a", "b/m": b"b"}))
    arguments = ("get", "--uri", uri, "--digest", digest, "--cache", container.cache)
    trees = {}
    for path in ("a", "b"):
        resolved = container.run("resolve", "--uri", uri, "--tree", f"--path={path}")
        trees[path] = resolved.message["tree"]
        assert resolved.message["digest"] == digest
    for path in ("a", "b"):
        for fetched in (True, False):
            result = container.run(
                *arguments, f"--path={path}", "--tree", trees[path], MODELWRIGHT_FETCH_VERIFY_CACHE="full"
            )
            assert result.message["fetched"] is fetched, result.text
    places = {place.name: tree(place) for place in container.cache.glob("sha256-*")}
    assert sorted(places.values(), key=str) == [{"m": b"a"}, {"m": b"b"}]
    assert all(name.startswith(digest.replace(":", "-") + ".") for name in places)


def test_archive_with_one_top_folder_hints_at_its_path(container: Container) -> None:
    body = layer({f"my-model/{name}": body for name, body in MODEL.items()})
    write(container.folder / "mnt" / "claim", {"m.tar.gz": body})
    arguments = ("get", "--uri", "pvc://claim/m.tar.gz", "--digest", sha256(body), "--dest")
    result = container.run(*arguments, container.dest)
    assert "nothing but the folder 'my-model'" in result.message["hint"]
    assert container.run(*arguments, container.folder / "b", "--path=my-model").code == 0
    assert tree(container.folder / "b") == MODEL
    alone = container.run(*arguments, container.folder / "c", "--path=my-model/model.joblib")
    assert (alone.code, tree(container.folder / "c")) == (0, {"model.joblib": b"m"})
    missing = container.run(*arguments, container.folder / "d", "--path=model")
    assert missing.reason == "ArtifactNotFound"
    assert "at its top there are 'my-model'" in missing.message["message"]


def test_a_part_of_a_claim_is_as_if_the_address_named_it(container: Container) -> None:
    claim = container.folder / "mnt" / "claim"
    write(claim, {f"digits/{name}": body for name, body in MODEL.items()} | {"other/x": b"x"})
    os.symlink("/etc/passwd", claim / "out")
    for uri, arguments in (("pvc://claim/digits", ()), ("pvc://claim", ("--path=digits",))):
        result = container.run("resolve", "--uri", uri, *arguments)
        assert result.message["digest"] == folder_digest(MODEL), result.text
    one = container.run("resolve", "--uri", "pvc://claim", "--path=digits/model.joblib")
    assert one.message["digest"] == sha256(b"m")
    some = container.run("resolve", "--uri", "pvc://claim/", "--path=digits", "--exclude=*.json")
    assert some.message["digest"] == folder_digest({"model.joblib": b"m"})
    for path in ("digit", "digits/model.joblib/x"):
        gone = container.run("resolve", "--uri", "pvc://claim", f"--path={path}")
        assert (gone.reason, path in gone.message["message"]) == ("ArtifactNotFound", True)
    none = container.run("resolve", "--uri", "pvc://claim", "--path=digits", "--include=*.onnx")
    assert none.reason == "ArtifactNotFound"
    assert "none of 2 files fits" in none.message["message"]
    file = container.run("resolve", "--uri", "pvc://claim/other/x", "--path=y")
    assert (file.reason, "one file and no archive" in file.message["message"]) == ("InvalidURI", True)


def test_a_part_of_a_bucket_is_as_if_the_address_named_it(container: Container) -> None:
    with GcsServer() as server:
        server.public.add("models")
        server.buckets["models"] = {f"a/digits/{name}": body for name, body in MODEL.items()} | {"a/x.zip": b"z"}
        container.give({"GOOGLE_ENDPOINT_URL": server.url})
        for uri, arguments, digest in (
            ("gs://models/a", ["--path=digits"], folder_digest(MODEL)),
            ("gs://models/a/", ["--path=digits", "--include=*.json"], folder_digest({"sub/config.json": b"{}"})),
            ("gs://models/a", ["--path=digits/model.joblib"], sha256(b"m")),
        ):
            result = container.run("resolve", "--uri", uri, *arguments)
            assert result.message["digest"] == digest, result.text
        kept = container.run(
            "get", "--uri", "gs://models/a", "--digest", sha256(b"z"), "--dest", container.dest, "--path=x.zip"
        )
        assert (kept.code, tree(container.dest)) == (0, {"x.zip": b"z"}), "what a path names stays packed"
        gone = container.run("resolve", "--uri", "gs://models/a", "--path=iris")
        assert (gone.reason, "'iris'" in gone.message["message"]) == ("ArtifactNotFound", True)


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["--include=*.json", "--include=*.safetensors"], {"config.json", "model.safetensors", "onnx/config.json"}),
        (["--exclude=*.bin", "--exclude=*.h5", "--exclude=onnx/"], {"config.json", "model.safetensors"}),
        (["--path=onnx"], {"config.json", "model.onnx"}),
        (["--path=onnx/model.onnx"], {"model.onnx"}),
    ],
)
def test_only_selected_files_of_a_hub_repository_are_read(
    container: Container, arguments: list[str], files: set[str]
) -> None:
    with HubServer() as server:
        commit = server.commit("org/bert", FORMATS)
        container.give({"HF_ENDPOINT": server.url})
        resolved = container.run("resolve", "--uri", "hf://org/bert", *arguments)
        assert resolved.message["digest"] == f"git:{commit}"
        get = ("get", "--uri", "hf://org/bert", "--digest", f"git:{commit}", *arguments)
        result = container.run(*get, "--dest", container.dest)
        assert (result.code, set(tree(container.dest))) == (0, files), result.text
        assert resolved.message["sizeBytes"] == sum(map(len, tree(container.dest).values()))
        whole = container.run("get", "--uri", "hf://org/bert", "--digest", f"git:{commit}", "--cache", container.cache)
        part = container.run(*get, "--cache", container.cache)
        assert (whole.message["fetched"], part.message["fetched"]) == (True, True), "another part is another artifact"
        none = container.run("resolve", "--uri", "hf://org/bert", "--include=*.gguf")
        assert "'config.json'" in none.message["message"]


def test_a_signature_of_one_file_is_looked_for_beside_that_file(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(container.folder / "mnt" / "claim", {"digits/m.onnx": b"m", "digits/m.onnx.sig": b"bundle"})
    received: list[bytes] = []
    monkeypatch.setattr(
        signature,
        "judge_signature",
        lambda bundle, *_, **__: received.append(bundle) or signature.invalid_signature("no"),
    )
    verify = ("resolve", "--uri", "pvc://claim/digits", "--trusted-key", "k=pem")
    container.run(*verify, "--path=m.onnx")
    assert received == [b"bundle"]
    missing = container.run("resolve", "--uri", "pvc://claim", "--trusted-key", "k=pem", "--path=digits/m.onnx.sig")
    assert "digits/m.onnx.sig is not signed: there is no m.onnx.sig.sig beside it" in str(missing.message)


@pytest.mark.parametrize("arguments", [["--path=../x"], ["--include=/x"], ["--exclude="], ["--path=a\\b"]])
def test_invalid_selection_is_refused_with_its_field(container: Container, arguments: list[str]) -> None:
    refused = container.run("resolve", "--uri", "pvc://claim", *arguments)
    assert refused.reason == "InvalidURI"
    assert f"artifact.{arguments[0][2:9].partition('=')[0]}" in refused.message["message"]
