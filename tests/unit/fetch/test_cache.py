"""The shared cache: complete or absent, one download for many pods, and no pod waits for a dead one."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
from pathlib import Path

import pytest

from modelwright.fetch.cache import STATE, Cache
from modelwright.fetch.redact import Redactor
from modelwright.fetch.report import Report
from modelwright.fetch.settings import Settings

DIGEST = "sha256:" + "a" * 64


def _cache(root: Path, pod: str, **settings: object) -> Cache:
    chosen = Settings(**{"claim_seconds": 1.0, **settings})  # type: ignore[arg-type]
    return Cache(root, DIGEST, pod, chosen, Report(Redactor(), stream=io.StringIO()))


def _work(cache: Cache, body: bytes = b"weights") -> Path:
    tree = cache.work / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "m.bin").write_bytes(body)
    (tree / "latest").symlink_to("sub")
    return tree


def _filled(root: Path, **settings: object) -> Cache:
    cache = _cache(root, "first", **settings)
    cache.prepare()
    cache.commit(_work(cache), 7, {})
    return cache


def test_an_artifact_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    cache = _cache(tmp_path, "pod")
    assert cache.lookup() is None
    cache.prepare()
    tree = _work(cache)
    assert cache.lookup() is None
    cache.commit(tree, 7, {})
    assert cache.lookup() == 7
    assert (cache.place / "sub" / "m.bin").read_bytes() == b"weights"
    assert not cache.work.exists()


def test_an_empty_folder_that_a_kubelet_made_for_the_mount_is_no_artifact_and_no_obstacle(tmp_path: Path) -> None:
    cache = _cache(tmp_path, "pod")
    cache.prepare()
    cache.place.mkdir()
    assert cache.lookup() is None
    cache.commit(_work(cache), 7, {})
    assert cache.lookup() == 7


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
    assert cache.lookup() is None
    cache.prepare()
    cache.commit(_work(cache), 7, {})
    assert cache.lookup() == 7
    assert list((tmp_path / STATE / "trash").iterdir()), "pods that run may still have it mounted"


def test_changed_bytes_of_the_same_size_are_found_when_asked_for(tmp_path: Path) -> None:
    place = _filled(tmp_path).place
    (place / "sub" / "m.bin").write_bytes(b"WEIGHTS")
    assert _cache(tmp_path, "second").lookup() == 7
    assert _cache(tmp_path, "second", verify_cache="full").lookup() is None


def test_a_manifest_of_something_else_is_not_believed(tmp_path: Path) -> None:
    _filled(tmp_path)
    manifest = tmp_path / STATE / "manifests" / (DIGEST.replace(":", "-") + ".json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "digest": "sha256:" + "b" * 64}))
    assert _cache(tmp_path, "second").lookup() is None
    manifest.write_text("{")
    assert _cache(tmp_path, "second").lookup() is None


async def _pod(root: Path, name: str, downloads: list[str], seconds: float = 0.3) -> int | None:
    cache = _cache(root, name)
    cache.prepare()
    async with cache.claimed() as mine:
        if mine:
            downloads.append(name)
            tree = _work(cache)
            await asyncio.sleep(seconds)
            cache.commit(tree, 7, {"sub/m.bin": hashlib.sha256(b"weights").hexdigest()})
    return cache.lookup()


async def test_many_pods_at_once_download_once(tmp_path: Path) -> None:
    downloads: list[str] = []
    sizes = await asyncio.gather(*(_pod(tmp_path, f"pod-{number}", downloads) for number in range(20)))
    assert sizes == [7] * 20
    assert len(downloads) == 1


async def test_pods_wait_as_long_as_the_downloading_one_gives_signs_of_life(tmp_path: Path) -> None:
    downloads: list[str] = []
    await asyncio.gather(*(_pod(tmp_path, f"pod-{number}", downloads, seconds=3.0) for number in range(3)))
    assert len(downloads) == 1


async def test_a_dead_pods_claim_is_taken_over_by_one_of_the_waiting(tmp_path: Path) -> None:
    dead = _cache(tmp_path, "dead")
    dead.prepare()
    assert dead._create_claim()
    downloads: list[str] = []
    sizes = await asyncio.gather(*(_pod(tmp_path, f"pod-{number}", downloads) for number in range(5)))
    assert sizes == [7] * 5
    assert len(downloads) == 1


async def test_a_restarted_container_takes_its_own_claim_back_at_once(tmp_path: Path) -> None:
    before = _cache(tmp_path, "pod", claim_seconds=600.0)
    before.prepare()
    assert before._create_claim()
    again = _cache(tmp_path, "pod", claim_seconds=600.0)
    async with asyncio.timeout(10):
        async with again.claimed() as mine:
            assert mine
    assert again.work == before.work, "what was downloaded is gone on with"


async def test_a_pod_that_fails_lets_the_next_one_try_at_once(tmp_path: Path) -> None:
    first, second = _cache(tmp_path, "first", claim_seconds=600.0), _cache(tmp_path, "second", claim_seconds=600.0)
    first.prepare()
    with pytest.raises(RuntimeError):
        async with first.claimed():
            raise RuntimeError("the download failed")
    async with asyncio.timeout(10):
        async with second.claimed() as mine:
            assert mine


def test_two_pods_that_both_downloaded_leave_one_whole_artifact(tmp_path: Path) -> None:
    first, second = _cache(tmp_path, "first"), _cache(tmp_path, "second")
    first.prepare()
    trees = _work(first), _work(second)
    first.commit(trees[0], 7, {})
    second.commit(trees[1], 7, {})
    assert first.lookup() == second.lookup() == 7
    assert list((tmp_path / STATE / "work").iterdir()) == []
    assert list((tmp_path / STATE / "trash").iterdir()) == []


def test_what_dead_pods_left_is_swept_after_a_day_and_not_before(tmp_path: Path) -> None:
    cache = _cache(tmp_path, "pod")
    cache.prepare()
    work = tmp_path / STATE / "work"
    for name, age in (("old", 25 * 3600), ("young", 3600)):
        (work / name).mkdir()
        (work / name / "data").write_bytes(b"x")
        for path in (work / name / "data", work / name):
            stamp = path.stat().st_mtime - age
            os.utime(path, (stamp, stamp))
    cache.prepare()
    assert {path.name for path in work.iterdir()} == {"young"}
