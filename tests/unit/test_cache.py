"""What `make cache` finds, and what it drops: never what `make test` needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devcluster import parts
from scripts import cache
from scripts.cache import Entry, Plan
from tests.e2e.peers import PEERS


def theirs(name: str, size: int, newest: float) -> Entry:
    return Entry(f"bin/{name}", size, newest, peer=True)


OLD, MIDDLE, NEW = theirs("argocd-3.0.0", 4, 1.0), theirs("argocd-3.1.0", 3, 2.0), theirs("flux-2.0.0", 2, 3.0)
OURS = Entry("bin/kubernetes-1.34.4", 100, 0.0)
LEFT = Entry("bin/etcd-3.5.0", 50, 0.0, leftover=True)
THEIRS_LEFT = Entry("bin/argocd-2.0.0", 5, 4.0, peer=True, leftover=True)


@pytest.mark.parametrize(
    ("entries", "limit", "dropped"),
    [
        ([OURS, LEFT], 0, []),
        ([NEW, OURS, MIDDLE, OLD], 9, []),
        ([NEW, OURS, MIDDLE, OLD], 8, [OLD]),
        ([NEW, OURS, MIDDLE, OLD], 5, [OLD]),
        ([NEW, OURS, MIDDLE, OLD], 4, [OLD, MIDDLE]),
        ([NEW, OURS, MIDDLE, OLD], 0, [OLD, MIDDLE, NEW]),
        ([NEW, THEIRS_LEFT], 5, [NEW]),
    ],
    ids=[
        "none are theirs",
        "all fit",
        "a byte too much",
        "the rest fits",
        "two",
        "all",
        "oldest, whatever the tree names",
    ],
)
def test_what_peers_have_beyond_the_limit_goes_oldest_first(
    entries: list[Entry], limit: int, dropped: list[Entry]
) -> None:
    plan = Plan.of(entries, limit)
    assert list(plan.beyond) == dropped
    assert plan.pruned == ()


def test_leftovers_are_listed_and_go_when_asked() -> None:
    there = [OURS, LEFT, NEW, THEIRS_LEFT]
    assert Plan.of(there, 100) == Plan(beyond=(), pruned=(), leftover=(LEFT, THEIRS_LEFT))
    assert Plan.of(there, 100, prune=True) == Plan(beyond=(), pruned=(LEFT, THEIRS_LEFT), leftover=())
    # What is pruned makes room.
    assert Plan.of(there, 2, prune=True).beyond == ()
    assert Plan.of(there, 2) == Plan(beyond=(NEW, THEIRS_LEFT), pruned=(), leftover=(LEFT,))


@pytest.mark.parametrize("minor", ["", "1.32"])
def test_the_tree_names_all_that_it_builds(minor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = {f"bin/{part.folder().name}" for part in parts.GO_TOOLS}
    monkeypatch.setenv("MODELWRIGHT_KUBERNETES", minor)
    named = cache.named_versions()
    assert built | {f"bin/{part.folder().name}" for part in parts.GO_TOOLS} <= named
    prefix = os.path.basename(os.path.realpath(".venv"))
    assert any(name == prefix for name in named if name.startswith("venv-"))


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a bit of everything, each file larger and younger than the one before."""
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path))
    monkeypatch.delenv("MODELWRIGHT_KUBERNETES", raising=False)
    argocd, etcd = (part for name in ("argocd", "etcd") for part in parts.GO_TOOLS if part.name == name)
    files = (
        "locks/etcd.lock",
        f"crds/argocd-{argocd.version()}/manifests/install.yaml",
        f"bin/{argocd.folder().name}/argocd",
        "bin/argocd-0.1.0/argocd",
        f"bin/{etcd.folder().name}/etcd",
        "bin/etcd-0.1.0/etcd",
        "bin/kind-0.1.0/kind",
        "base/base-0123.tar",
        "base/context/Containerfile",
        "venv-0123/bin/python",
        "buildah/storage/layer",
    )
    for number, name in enumerate(files, start=1):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100_000 * number)
        os.utime(file, (2e9 + number, 2e9 + number))
    return tmp_path


def test_entries_are_parts_by_version_the_largest_last(there: Path) -> None:
    found = cache.entries(there, cache.named_versions())
    assert [entry.size for entry in found] == sorted(entry.size for entry in found)
    assert all(entry.size >= 100_000 for entry in found)
    assert {entry.path.rpartition("-")[0] for entry in found if entry.peer} == {"bin/argocd", "crds/argocd"}
    left = {entry.path for entry in found if entry.leftover}
    assert left == {"bin/argocd-0.1.0", "bin/etcd-0.1.0", "bin/kind-0.1.0", "base/base-0123.tar", "venv-0123"}
    assert {entry.path for entry in found} >= {"locks", "buildah", "base/context"}
    assert next(entry.newest for entry in found if entry.path == "bin/argocd-0.1.0") == 2e9 + 4


def test_a_file_of_two_names_is_counted_once(there: Path) -> None:
    before = sum(entry.size for entry in cache.entries(there, set()))
    (there / "base/context/base.tar").hardlink_to(there / "base/base-0123.tar")
    assert sum(entry.size for entry in cache.entries(there, set())) - before < 100_000


def test_nothing_goes_that_fits(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(there.rglob("*"))
    assert cache.main([]) == 0
    assert sorted(there.rglob("*")) == before
    said = capsys.readouterr().out
    assert "bin/etcd-0.1.0 is no longer named by the tree: `make cache PRUNE=1` drops it" in said
    assert "dropped" not in said


def test_beyond_the_limit_the_oldest_of_peers_goes(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 800_000)
    assert cache.main([]) == 0
    assert list(there.glob("crds/*")) == []
    assert len(list(there.glob("bin/argocd-*"))) == 2


def test_pruning_drops_what_the_tree_does_not_name(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache.main(["--prune"]) == 0
    assert "bin/etcd-0.1.0 is dropped" in capsys.readouterr().out
    assert [entry.path for entry in cache.entries(there, cache.named_versions()) if entry.leftover] == []
    assert len(list(there.glob("bin/*"))) == 2
    assert (there / "base/context").is_dir()


def test_nothing_is_pruned_while_a_cluster_is_up(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (there / "run/dev").mkdir(parents=True)
    assert cache.main(["--prune"]) == 1
    assert (there / "bin/etcd-0.1.0").exists()
    assert "nothing is pruned while clusters are up, which may be of another tree: dev" in capsys.readouterr().err


def test_an_empty_cache_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path / "none"))
    assert cache.main([]) == 0


def test_no_part_of_a_peer_is_built_for_all() -> None:
    asked = {part.name for part in parts.GO_TOOLS if part.on_request}
    assert {name for peer in PEERS for name in peer.parts} <= asked
    # The cluster of `make test` itself, where there is a Docker engine.
    assert "kind" not in {name for peer in PEERS for name in peer.parts}


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (10**13, "10000.0 GB")]
)
def test_sizes(size: int, text: str) -> None:
    assert cache.format_size(size) == text
