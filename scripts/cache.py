"""Prints the content of the cache, the largest last. Removes peers' entries beyond 10 GB, oldest first, and with
`--prune` versions that the tree no longer names. Entries that `make test` needs are kept."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from devcluster import images, parts, paths
from tests.e2e.peers import PEERS, Peer
from tests.scale.bench_fetch import RCLONE

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 10 * 10**9
"""Bytes of all peers together."""
VERSIONED = ("bin/", "crds/", "source-", "base/base-", "venv-", "npm-azurite-")
"""Prefixes of the paths with one entry for each version."""


@dataclass(frozen=True)
class Entry:
    """One entry of the cache: a version of a tool, or everything that has no version."""

    path: str
    size: int
    newest: float
    """When its newest file was written, as Unix time."""
    peer: bool = False
    leftover: bool = False
    """The tree names another version."""


@dataclass(frozen=True)
class Plan:
    """Entries to remove, and the remaining leftovers."""

    beyond: tuple[Entry, ...]
    pruned: tuple[Entry, ...]
    leftover: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Sequence[Entry], limit: int, *, prune: bool = False) -> Plan:
        """Plan to remove peers' entries beyond the limit, oldest first, and leftovers if requested."""
        leftover = tuple(entry for entry in entries if entry.leftover)
        pruned = leftover if prune else ()
        theirs = sorted((e for e in entries if e.peer and e not in pruned), key=lambda e: (e.newest, e.path))
        excess, beyond = sum(entry.size for entry in theirs) - limit, []
        for entry in theirs:
            if excess <= 0:
                break
            beyond.append(entry)
            excess -= entry.size
        return cls(tuple(beyond), pruned, tuple(e for e in leftover if e not in pruned and e not in beyond))


def named_versions() -> set[str]:
    """Return the paths of all versions that the tree names."""
    tools = [*parts.GO_TOOLS, parts.GoTool("gateway-api", "sigs.k8s.io/gateway-api", {})]
    versions = {f"{part.name}-{version}" for part in tools for version in part.versions()}
    built = {key for part in parts.GO_TOOLS for key in part.folders()}
    lock = json.loads((ROOT / "tests/servers/azurite/package-lock.json").read_text())
    return {
        *(f"bin/{key}" for key in built),
        *(f"crds/{version}" for version in versions),
        f"bin/rclone-{RCLONE}",
        *(f"base/{images.base_archive(architecture).name}" for architecture in ("amd64", "arm64")),
        f"venv-{sha256((ROOT / 'requirements/dev.txt').read_bytes()).hexdigest()[:12]}",
        f"npm-azurite-{lock['packages']['node_modules/azurite']['version']}",
    }


def entries(cache: Path, known: set[str], peers: Sequence[Peer] = PEERS) -> list[Entry]:
    """List all entries, the largest last."""
    theirs = re.compile(rf"(?:bin|crds)/(?:{'|'.join(re.escape(part) for peer in peers for part in peer.parts)})-\d")
    counted_inodes: set[int] = set()
    listed = []
    for path in _paths(cache):
        name = str(path.relative_to(cache))
        size, newest = _measure(path, counted_inodes)
        leftover = name.startswith(VERSIONED) and name not in known
        listed.append(Entry(name, size, newest, theirs.match(name) is not None, leftover))
    return sorted(listed, key=lambda entry: (entry.size, entry.path))


def _paths(cache: Path) -> Iterator[Path]:
    for path in sorted(cache.iterdir()) if cache.is_dir() else ():
        if path.name in ("bin", "crds", "base"):
            yield from sorted(path.iterdir())
        else:
            yield path


def _measure(path: Path, seen: set[int]) -> tuple[int, float]:
    """Return the bytes on disk and the time of the newest file. A file with several names counts once; mounts are
    skipped."""
    size, newest, device = 0, 0.0, path.lstat().st_dev
    waiting = [path]
    while waiting:
        each = waiting.pop()
        # Builds and clusters may change files meanwhile.
        with contextlib.suppress(FileNotFoundError):
            status = each.lstat()
            if status.st_dev != device or status.st_ino in seen:
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                seen.add(status.st_ino)
            size += status.st_blocks * 512
            newest = max(newest, status.st_mtime)
            if stat.S_ISDIR(status.st_mode):
                waiting += each.iterdir()
    return size, newest


def drop(cache: Path, entry: Entry) -> None:
    path = cache / entry.path
    if path.is_dir():
        paths.remove(path)
    else:
        path.unlink()


def format_size(size: int) -> str:
    """Format bytes in a readable unit."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{size} B"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prune", action="store_true", help="drop the versions that the tree no longer names")
    prune, cache = parser.parse_args(arguments).prune, paths.cache()
    cached = entries(cache, named_versions())
    for entry in cached:
        print(f"{format_size(entry.size):>10}  {entry.path}")
    print(f"{format_size(sum(entry.size for entry in cached)):>10}  in all, in {cache}; Go's own caches are elsewhere")
    print(
        f"{format_size(sum(entry.size for entry in cached if entry.peer)):>10}  of them peers', of at most "
        f"{format_size(LIMIT)}"
    )
    up = sorted(path.name for path in paths.runs().glob("*/"))
    if prune and up:
        print(
            f"nothing is pruned while clusters are up, which may be of another tree: {', '.join(up)}", file=sys.stderr
        )
    plan = Plan.of(cached, LIMIT, prune=prune and not up)
    for entry in plan.leftover:
        print(
            f"{format_size(entry.size):>10}  {entry.path} is no longer named by the tree: `make cache PRUNE=1` drops it"
        )
    for entry in (*plan.pruned, *plan.beyond):
        drop(cache, entry)
        print(f"{format_size(entry.size):>10}  {entry.path} is dropped")
    return 1 if prune and up else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
