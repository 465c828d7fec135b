"""The shared cache: complete or absent, one download for many pods, and no pod waits for a dead one."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
from pathlib import Path

import pytest

from modelwright.agents.fetcher.cache import STATE_FOLDER, ArtifactCache, CachedArtifact
from modelwright.agents.fetcher.redact import Redactor
from modelwright.agents.fetcher.report import FetchReport
from modelwright.agents.fetcher.settings import FetchSettings

DIGEST = "sha256:" + "a" * 64


def _cache(root: Path, pod: str, **settings: object) -> ArtifactCache:
    chosen = FetchSettings(**{"claim_seconds": 1.0, **settings})  # type: ignore[arg-type]
    return ArtifactCache(root, CachedArtifact(DIGEST), pod, chosen, FetchReport(Redactor(), stream=io.StringIO()))


def _work(cache: ArtifactCache, body: bytes = b"weights") -> Path:
    tree = cache.work / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "m.bin").write_bytes(body)
    (tree / "latest").symlink_to("sub")
    return tree


def _filled(root: Path, **settings: object) -> ArtifactCache:
    cache = _cache(root, "first", **settings)
    cache.prepare_folders()
    cache.commit_tree(_work(cache), 7, {})
    return cache


def test_an_artifact_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    cache = _cache(tmp_path, "pod")
    assert cache.find_size() is None
    cache.prepare_folders()
    tree = _work(cache)
    assert cache.find_size() is None
    cache.commit_tree(tree, 7, {})
    assert cache.find_size() == 7
    assert (cache.place / "sub" / "m.bin").read_bytes() == b"weights"
    assert not cache.work.exists()


def test_empty_mount_folder_is_no_artifact_and_no_obstacle(tmp_path: Path) -> None:
    cache = _cache(tmp_path, "pod")
    cache.prepare_folders()
    cache.place.mkdir()
    assert cache.find_size() is None
    cache.commit_tree(_work(cache), 7, {})
    assert cache.find_size() == 7


@pytest.mark.parametrize("damage", ["short", "gone", "replaced by a link", "link gone"])
def test_a_damaged_artifact_is_replaced_and_moved_aside(tmp_path: Path, damage: str) -> None:
    place = _filled(tmp_path).place
    file = place / "sub" / "m.bin"
    if damage == "short":
        file.write_bytes(b"weigh")
    elif damage == "gone":
        file.unlink()
    elif damage == "link gone":
        (place / "latest").unlink()
    else:
        file.rename(place / "other")
        file.symlink_to("../other")
    cache = _cache(tmp_path, "second")
    assert cache.find_size() is None
    cache.prepare_folders()
    cache.commit_tree(_work(cache), 7, {})
    assert cache.find_size() == 7
    assert list((tmp_path / STATE_FOLDER / "trash").iterdir()), "pods that run may still have it mounted"


def test_changed_bytes_of_the_same_size_are_found_when_asked_for(tmp_path: Path) -> None:
    place = _filled(tmp_path).place
    (place / "sub" / "m.bin").write_bytes(b"WEIGHTS")
    assert _cache(tmp_path, "second").find_size() == 7
    assert _cache(tmp_path, "second", verify_cache="full").find_size() is None


def test_a_manifest_of_something_else_is_not_believed(tmp_path: Path) -> None:
    _filled(tmp_path)
    manifest = tmp_path / STATE_FOLDER / "manifests" / (DIGEST.replace(":", "-") + ".json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "digest": "sha256:" + "b" * 64}))
    assert _cache(tmp_path, "second").find_size() is None
    manifest.write_text("{")
    assert _cache(tmp_path, "second").find_size() is None


async def _pod(root: Path, name: str, downloads: list[str], seconds: float = 0.3) -> int | None:
    cache = _cache(root, name)
    cache.prepare_folders()
    async with cache.hold_claim() as mine:
        if mine:
            downloads.append(name)
            tree = _work(cache)
            await asyncio.sleep(seconds)
            cache.commit_tree(tree, 7, {"sub/m.bin": hashlib.sha256(b"weights").hexdigest()})
    return cache.find_size()


async def test_many_pods_at_once_download_once(tmp_path: Path) -> None:
    downloads: list[str] = []
    sizes = await asyncio.gather(*(_pod(tmp_path, f"pod-{number}", downloads) for number in range(20)))
    assert sizes == [7] * 20
    assert len(downloads) == 1


async def test_pods_wait_while_the_downloading_pod_is_alive(tmp_path: Path) -> None:
    downloads: list[str] = []
    await asyncio.gather(*(_pod(tmp_path, f"pod-{number}", downloads, seconds=3.0) for number in range(3)))
    assert len(downloads) == 1


async def test_a_dead_pods_claim_is_taken_over_by_one_of_the_waiting(tmp_path: Path) -> None:
    dead = _cache(tmp_path, "dead")
    dead.prepare_folders()
    assert dead._create_claim()
    downloads: list[str] = []
    sizes = await asyncio.gather(*(_pod(tmp_path, f"pod-{number}", downloads) for number in range(5)))
    assert sizes == [7] * 5
    assert len(downloads) == 1


async def test_a_restarted_container_takes_its_own_claim_back_at_once(tmp_path: Path) -> None:
    before = _cache(tmp_path, "pod", claim_seconds=600.0)
    before.prepare_folders()
    assert before._create_claim()
    again = _cache(tmp_path, "pod", claim_seconds=600.0)
    async with asyncio.timeout(10):
        async with again.hold_claim() as mine:
            assert mine
    assert again.work == before.work, "what was downloaded is gone on with"


async def test_a_pod_that_fails_lets_the_next_one_try_at_once(tmp_path: Path) -> None:
    first, second = _cache(tmp_path, "first", claim_seconds=600.0), _cache(tmp_path, "second", claim_seconds=600.0)
    first.prepare_folders()
    with pytest.raises(RuntimeError):
        async with first.hold_claim():
            raise RuntimeError("the download failed")
    async with asyncio.timeout(10):
        async with second.hold_claim() as mine:
            assert mine


def test_two_pods_that_both_downloaded_leave_one_whole_artifact(tmp_path: Path) -> None:
    first, second = _cache(tmp_path, "first"), _cache(tmp_path, "second")
    first.prepare_folders()
    trees = _work(first), _work(second)
    first.commit_tree(trees[0], 7, {})
    second.commit_tree(trees[1], 7, {})
    assert first.find_size() == second.find_size() == 7
    assert list((tmp_path / STATE_FOLDER / "work").iterdir()) == []
    assert list((tmp_path / STATE_FOLDER / "trash").iterdir()) == []


def test_work_of_dead_pods_is_removed_after_a_day(tmp_path: Path) -> None:
    cache = _cache(tmp_path, "pod")
    cache.prepare_folders()
    work = tmp_path / STATE_FOLDER / "work"
    for name, age in (("old", 25 * 3600), ("young", 3600)):
        (work / name).mkdir()
        (work / name / "data").write_bytes(b"x")
        for path in (work / name / "data", work / name):
            stamp = path.stat().st_mtime - age
            os.utime(path, (stamp, stamp))
    cache.prepare_folders()
    assert {path.name for path in work.iterdir()} == {"young"}
