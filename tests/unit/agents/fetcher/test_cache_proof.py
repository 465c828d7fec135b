"""The shared cache against writers of the volume: nothing on it is proof of anything."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.agents.fetcher import digest
from modelwright.agents.fetcher.cache import STATE_FOLDER, ArtifactCache, CachedArtifact
from modelwright.agents.fetcher.command import run_fetcher
from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.file_tree import folder_digest
from modelwright.agents.fetcher.redact import Redactor
from modelwright.agents.fetcher.report import FetchReport
from modelwright.agents.fetcher.settings import FetchSettings

PINNED = "sha256:" + "a" * 64
EVIL = b"import os; os.system('id')\n"


def cache(root: Path, wanted: str, verify: str, tree: str = "", name: str = "") -> ArtifactCache:
    report = FetchReport(Redactor(), stream=io.StringIO())
    content = CachedArtifact(wanted, tree=tree, name=name)
    return ArtifactCache(root, content, "pod", FetchSettings(verify_cache=verify), report)


def manifest(root: Path, wanted: str) -> Path:
    return root / STATE_FOLDER / "manifests" / f"{wanted.replace(':', '-')}.json"


def forge(root: Path, wanted: str, files: list[dict[str, Any]]) -> None:
    """Write a manifest with these files, as every pod that mounts the claim can."""
    manifest(root, wanted).write_text(json.dumps({"digest": wanted, "sizeBytes": 7, "files": files}))


def manifest_entry(path: str, body: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def fill(place: Path, files: dict[str, bytes]) -> None:
    for path, body in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(body)


FILES = {"model.bin": b"weights", "sub/config.json": b"{}"}
DIRECTORY = digest.directory_digest(FileEntry(p, len(b), hashlib.sha256(b).hexdigest()) for p, b in FILES.items())


def extra(place: Path, root: Path) -> None:
    (place / "model-settings.json").write_text('{"implementation": "evil.Runtime"}')


def nothing_named(place: Path, root: Path) -> None:
    forge(root, DIRECTORY, [])


def linked_root(place: Path, root: Path) -> None:
    place.rename(root / "elsewhere")
    place.symlink_to(root / "elsewhere")


def link_out(place: Path, root: Path) -> None:
    (place / "model.bin").unlink()
    (place / "model.bin").symlink_to("/etc/passwd")
    named = [
        {"path": "model.bin", "size": 0, "sha256": "", "link": "/etc/passwd"},
        manifest_entry("sub/config.json", b"{}"),
    ]
    forge(root, DIRECTORY, named)


def linked_folder(place: Path, root: Path) -> None:
    (place / "sub").rename(root / "sub")
    (place / "sub").symlink_to(root / "sub")


def pipe(place: Path, root: Path) -> None:
    os.mkfifo(place / "pipe")


@pytest.mark.parametrize("verify", ["size", "full"])
@pytest.mark.parametrize("attack", [extra, nothing_named, linked_root, link_out, linked_folder, pipe])
def test_both_modes_refuse_files_outside_the_manifest(
    tmp_path: Path, verify: str, attack: Callable[[Path, Path], None]
) -> None:
    mine = cache(tmp_path, DIRECTORY, verify)
    mine.prepare_folders()
    fill(mine.work / "tree", FILES)
    mine.commit_tree(mine.work / "tree", 9, {})
    assert cache(tmp_path, DIRECTORY, verify).find_size() == 9
    attack(mine.place, tmp_path)
    assert cache(tmp_path, DIRECTORY, verify).find_size() is None


@pytest.mark.parametrize(
    ("wanted", "tree", "name"),
    [
        (DIRECTORY, "", "digits"),
        ("sha256:" + hashlib.sha256(b"weights").hexdigest(), "", "m.bin"),
        (PINNED, DIRECTORY, "m.zip"),
        ("git:" + "a" * 40, DIRECTORY, ""),
        (PINNED, "", "m.zip"),
        ("git:" + "a" * 40, "", ""),
    ],
    ids=["a folder", "one file", "an archive", "a commit", "an archive of old status", "a commit of old status"],
)
def test_a_forged_manifest_is_found_in_full(tmp_path: Path, wanted: str, tree: str, name: str) -> None:
    mine = cache(tmp_path, wanted, "full", tree, name)
    mine.prepare_folders()
    fill(mine.place, {"model.py": EVIL})
    forge(tmp_path, wanted, [manifest_entry("model.py", EVIL)])
    assert mine.find_size() is None


def test_one_file_under_another_name_is_found_in_full(tmp_path: Path) -> None:
    expected = "sha256:" + hashlib.sha256(EVIL).hexdigest()
    mine = cache(tmp_path, expected, "full", name="notes.txt")
    mine.prepare_folders()
    fill(mine.place, {"sitecustomize.py": EVIL})
    forge(tmp_path, expected, [manifest_entry("sitecustomize.py", EVIL)])
    assert mine.find_size() is None


def test_tree_without_proof_is_downloaded_again_and_served(tmp_path: Path) -> None:
    """A ModelVersion whose status is of an older release: the cache is filled again, and nothing is stuck."""
    for _ in range(2):
        mine = cache(tmp_path, PINNED, "full", name="m.zip")
        mine.prepare_folders()
        assert mine.find_size() is None
        fill(mine.work / "tree", FILES)
        mine.commit_tree(mine.work / "tree", 9, {})
        assert mine.find_size() == 9, "this pod knows what it has brought"


def test_another_unpacker_of_the_same_archive_is_no_obstacle(tmp_path: Path) -> None:
    mine = cache(tmp_path, PINNED, "full", tree="sha256:" + "c" * 64, name="m.zip")
    mine.prepare_folders()
    fill(mine.work / "tree", FILES)
    mine.commit_tree(mine.work / "tree", 9, {})
    assert mine.find_size() == 9


names = st.sampled_from(["a", "b", "model.bin", "x/y", "x/z", "deep/er/f"])
bodies = st.binary(max_size=8)
trees = st.dictionaries(names, bodies, min_size=1, max_size=5).filter(
    lambda files: not any(one.startswith(other + "/") for one in files for other in files)
)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[dict[str, bytes], str, str, bytes]:
    files = draw(trees)
    what = draw(st.sampled_from(["add", "remove", "change", "link", "folder", "rename", "swap"]))
    return files, what, draw(st.sampled_from(sorted(files))), draw(bodies)


def mutate(place: Path, files: dict[str, bytes], what: str, path: str, body: bytes) -> None:
    target = place / path
    if what == "add":
        fill(place, {"added": body})
    elif what == "remove":
        target.unlink()
    elif what == "change":
        target.write_bytes(files[path] + body + b"!")
    elif what == "link":
        # A link to the very same content: what it leads to can change later.
        target.rename(place / "moved")
        target.symlink_to(os.path.relpath(place / "moved", target.parent))
    elif what == "folder":
        (place / "empty").mkdir()
    elif what == "rename":
        target.rename(target.with_name("renamed"))
    else:
        shutil.rmtree(place)
        fill(place, {"swapped": body})


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=mutations(), packed=st.booleans(), honest=st.booleans())
def test_any_change_of_the_tree_is_found_in_full(
    tmp_path: Path, change: tuple[dict[str, bytes], str, str, bytes], packed: bool, honest: bool
) -> None:
    """Also when the manifest is written to fit the change."""
    files, what, path, body = change
    root = tmp_path / "cache"
    shutil.rmtree(root, ignore_errors=True)
    tree = digest.directory_digest(FileEntry(p, len(b), hashlib.sha256(b).hexdigest()) for p, b in files.items())
    expected, known = (PINNED, tree) if packed else (tree, "")
    mine = cache(root, expected, "full", known)
    mine.prepare_folders()
    fill(mine.work / "tree", files)
    mine.commit_tree(mine.work / "tree", 9, {})
    assert cache(root, expected, "full", known).find_size() == 9
    mutate(mine.place, files, what, path, body)
    if not honest:
        result = [
            {
                "path": p.relative_to(mine.place).as_posix(),
                "size": p.lstat().st_size,
                "sha256": "",
                **({"link": os.readlink(p)} if p.is_symlink() else {}),
            }
            for p in mine.place.rglob("*")
            if p.is_symlink() or p.is_file()
        ]
        folders = ["empty"] if what == "folder" else []
        content = {"digest": expected, "sizeBytes": 9, "files": result, "folders": folders}
        manifest(root, expected).write_text(json.dumps(content))
    assert cache(root, expected, "full", known).find_size() is None


def test_resolve_reports_the_tree_digest_and_leaves_nothing(tmp_path: Path) -> None:
    claim = tmp_path / "source" / "models"
    claim.mkdir(parents=True)
    with tarfile.open(claim / "m.tar", "w") as archive:
        for path, body in FILES.items():
            member = tarfile.TarInfo(path)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
        link = tarfile.TarInfo("latest")
        link.type, link.linkname = tarfile.SYMTYPE, "model.bin"
        archive.addfile(link)
    log = tmp_path / "log"
    environment = {"MODELWRIGHT_SOURCE_ROOT": str(tmp_path / "source"), "MODELWRIGHT_TERMINATION_LOG": str(log)}
    out = io.StringIO()
    assert run_fetcher(["resolve", "--uri", "pvc://models/m.tar", "--tree"], environment, out) == 0, out.getvalue()
    message = json.loads(log.read_text())
    expected = tmp_path / "expected"
    fill(expected, FILES)
    (expected / "latest").symlink_to("model.bin")
    assert message["tree"] == folder_digest(expected) != DIRECTORY
    # A pod that is given both fills the cache once, and the next one proves it, with the store gone.
    arguments = ["get", "--uri", "pvc://models/m.tar", "--digest", message["digest"], "--tree", message["tree"]]
    arguments += ["--cache", str(tmp_path / "cache")]
    full = {**environment, "MODELWRIGHT_FETCH_VERIFY_CACHE": "full"}
    assert run_fetcher(arguments, full, out) == 0, out.getvalue()
    (claim / "m.tar").unlink()
    assert run_fetcher(arguments, full, out) == 0, out.getvalue()
    assert json.loads(log.read_text())["fetched"] is False
    place = tmp_path / "cache" / message["digest"].replace(":", "-")
    (place / "latest").unlink()
    (place / "latest").symlink_to("sub/config.json")
    assert run_fetcher(arguments, full, out) == 1
    assert json.loads(log.read_text())["reason"] == "ArtifactNotFound"


def test_only_cached_verifies_without_store_access_or_writes(tmp_path: Path) -> None:
    claim, root, log = tmp_path / "source" / "models", tmp_path / "cache", tmp_path / "log"
    fill(claim / "digits", FILES)
    environment = {
        "MODELWRIGHT_SOURCE_ROOT": str(tmp_path / "source"),
        "MODELWRIGHT_TERMINATION_LOG": str(log),
        "MODELWRIGHT_FETCH_VERIFY_CACHE": "full",
    }
    arguments = ["get", "--uri", "pvc://models/digits", "--digest", DIRECTORY, "--cache", str(root)]

    def run(*more: str) -> tuple[int, dict[str, Any]]:
        code = run_fetcher([*arguments, *more], environment, io.StringIO())
        return code, json.loads(log.read_text())

    code, message = run("--only-cached")
    assert (code, message["reason"]) == (1, "NotCached")
    assert not root.exists(), "the store was there, and was not asked"
    assert run()[0] == 0
    shutil.rmtree(claim)
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*"))
    code, message = run("--only-cached")
    assert (code, message["digest"], message["fetched"]) == (0, DIRECTORY, False)
    (root / DIRECTORY.replace(":", "-") / "model.bin").write_bytes(b"weighty")
    code, message = run("--only-cached")
    assert (code, message["reason"]) == (1, "NotCached"), "what is forged is as if it wasn't there"
    assert [path for path, _ in before] == sorted(str(path) for path in root.rglob("*"))


def test_pods_without_proof_take_turns_and_all_finish(tmp_path: Path) -> None:
    async def pod(number: int) -> int | None:
        report = FetchReport(Redactor(), stream=io.StringIO())
        chosen = FetchSettings(verify_cache="full", claim_seconds=1.0)
        mine = ArtifactCache(tmp_path, CachedArtifact(PINNED, name="m.zip"), f"pod-{number}", chosen, report)
        mine.prepare_folders()
        async with mine.hold_claim() as own:
            if own:
                fill(mine.work / "tree", FILES)
                mine.commit_tree(mine.work / "tree", 9, {})
        return mine.find_size()

    async def all_pods() -> list[int | None]:
        async with asyncio.timeout(60):
            return await asyncio.gather(*(pod(number) for number in range(3)))

    assert asyncio.run(all_pods()) == [9] * 3
