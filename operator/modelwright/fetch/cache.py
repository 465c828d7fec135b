"""The shared cache on a volume: one folder per digest, filled by many pods at once without long-held locks.

Layout: <cache>/<digest with '-'>/ is a finished artifact and exists only complete (it arrives by one rename);
<cache>/.modelwright/manifests/<digest>.json lists its files; work/<digest>.<pod>/ is one pod's unfinished work, never
another's;
claims/<digest> says which pod is downloading, so that the others wait instead of downloading too.

A claim only saves work. Two pods that both believe to hold it download twice and one rename wins; nothing is ever
mixed.
That is why it needs no lock that a network file system may not have: creating a file that must not exist yet, and
rename,
are enough. Whether the holder is alive is judged by watching its claim change, by the watcher's own clock.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelwright.fetch import disk
from modelwright.fetch.digest import directory_name
from modelwright.fetch.errors import FetchError, Reason
from modelwright.fetch.report import Report
from modelwright.fetch.settings import Settings
from modelwright.fetch.threads import in_thread
from modelwright.fetch.workspace import make_folder, remove

STATE = ".modelwright"
_ABANDONED_SECONDS = 24 * 3600
_READ = 1 << 20


@dataclass(frozen=True)
class Stored:
    """One file of a cached tree: relative path, size in bytes, sha256; a symbolic link has its target instead."""

    path: str
    size: int
    sha256: str
    link: str = ""


class Cache:
    """One digest's place in the shared cache at `root`."""

    def __init__(self, root: Path, digest: str, holder: str, settings: Settings, report: Report) -> None:
        name = directory_name(digest)
        self.root = root
        self.place = root / name
        self._digest = digest
        self._holder = hashlib.sha256(holder.encode()).hexdigest()[:16]
        self._settings = settings
        self._report = report
        self._state = root / STATE
        self._manifest = self._state / "manifests" / f"{name}.json"
        self._claim = self._state / "claims" / name
        self._token = f"{self._holder}.{secrets.token_hex(8)}"
        self.work = self._state / "work" / f"{name}.{self._holder}"

    def lookup(self) -> int | None:
        """The artifact's size in bytes when it is there and whole, else None. Touches nothing but the volume.
        Blocking."""
        try:
            manifest = json.loads(self._manifest.read_bytes())
            files = [
                Stored(item["path"], item["size"], item["sha256"], item.get("link", "")) for item in manifest["files"]
            ]
            size = int(manifest["sizeBytes"])
            if manifest["digest"] != self._digest:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not self.place.is_dir():
            return None
        full = self._settings.verify_cache == "full"
        damage = next((file.path for file in files if not _matches(self.place, file, full=full)), None)
        if damage is None:
            return size
        self._report.event(
            "cache",
            f"{self.place}: {damage} is missing or changed; the artifact is downloaded again",
            digest=self._digest,
        )
        return None

    def prepare(self) -> None:
        """Creates the state folders and clears what dead pods left a day ago. Blocking."""
        with disk.writing(self.root, "The cache"):
            make_folder(self.root)
            for name in ("manifests", "claims", "work", "trash"):
                folder = self._state / name
                folder.mkdir(parents=True, exist_ok=True)
                # pods of other users (uid) share the volume through its group
                for place in (self._state, folder):
                    with suppress(PermissionError):
                        place.chmod(0o2775)
            self._sweep()

    def _sweep(self) -> None:
        """Ages are taken from the file system's own clock: a node's may be wrong."""
        probe = self._state / f".clock.{self._token}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        for folder in ("work", "trash"):
            for child in (self._state / folder).iterdir():
                with suppress(OSError):
                    if child != self.work and now - _newest(child) > _ABANDONED_SECONDS:
                        remove(child)

    @asynccontextmanager
    async def claimed(self) -> AsyncIterator[bool]:
        """Yields True when this pod should download, False when another pod has meanwhile filled the cache."""
        mine = await self._acquire()
        if not mine:
            yield False
            return
        beat = asyncio.create_task(self._beat())
        try:
            yield True
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat
            self._release()

    async def _acquire(self) -> bool:
        seen = ""
        since = time.monotonic()
        told = False
        while True:
            if await in_thread(self.lookup) is not None:
                return False
            if self._create_claim():
                return True
            content = self._read_claim()
            if content != seen:
                seen, since = content, time.monotonic()
            # an earlier container of this same pod can't be alive any more
            stale = content.startswith(self._holder + ".") or time.monotonic() - since > self._settings.claim_seconds
            if content and stale and await self._take_over():
                return True
            if not told:
                told = True
                self._report.event(
                    "wait", f"Another pod is downloading {self._digest}; waiting for it", digest=self._digest
                )
            await asyncio.sleep(min(2.0, self._settings.claim_seconds / 10))

    def _line(self) -> str:
        return f"{self._token} {time.monotonic_ns()}"

    def _create_claim(self) -> bool:
        with disk.writing(self.root, "The cache"):
            try:
                descriptor = os.open(self._claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w") as file:
                file.write(self._line())
            return True

    def _read_claim(self) -> str:
        """'' when there is none (any more). An empty file is one whose writer is just about to fill it, or died
        doing so."""
        try:
            return self._claim.read_text() or "?"
        except (OSError, UnicodeDecodeError):
            return ""

    def _replace_claim(self) -> None:
        draft = self._claim.with_name(f".{self._claim.name}.{self._token}")
        draft.write_text(self._line())
        draft.replace(self._claim)

    async def _take_over(self) -> bool:
        """Several waiters may do this in the same moment: the last one's name stays in the file, and it alone goes
        on."""
        with disk.writing(self.root, "The cache"):
            self._replace_claim()
        await asyncio.sleep(min(1.0, self._settings.claim_seconds / 20))
        won = self._read_claim().startswith(self._token)
        if won:
            self._report.event(
                "claim", f"The pod that was downloading {self._digest} is gone; this one goes on", digest=self._digest
            )
        return won

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.claim_seconds / 6)
            with suppress(OSError):
                if self._read_claim().startswith(self._token):
                    self._replace_claim()

    def _release(self) -> None:
        with suppress(OSError):
            if self._read_claim().startswith(self._token):
                self._claim.unlink()

    def commit(self, tree: Path, size: int, hashes: Mapping[str, str]) -> None:
        """Makes the finished tree the cached artifact. `hashes` are the sha256 already known, by path. Blocking."""
        with disk.writing(self.root, "The cache"):
            files = _stored(tree, hashes)
            draft = self._manifest.with_name(f".{self._manifest.name}.{self._token}")
            manifest = {"digest": self._digest, "sizeBytes": size, "files": [vars(file) for file in files]}
            with draft.open("w") as out:
                json.dump(manifest, out)
            draft.chmod(0o644)
            # a node that loses power must not keep the name and lose the content
            sync(tree)
            draft.replace(self._manifest)
            tree.chmod(0o755)
            for _ in range(3):
                try:
                    tree.rename(self.place)
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                if self.lookup() is not None:
                    break
                # damaged: moved aside, since pods that run may still have it mounted
                with suppress(FileNotFoundError):
                    self.place.rename(self._state / "trash" / f"{self.place.name}.{secrets.token_hex(8)}")
            if self.lookup() is None:
                raise FetchError(
                    Reason.INTERNAL_ERROR, f"{self.place}: the cached artifact was changed while it was put there."
                )
            sync(self.root)
            remove(self.work)


def _matches(folder: Path, file: Stored, *, full: bool) -> bool:
    place = folder / file.path
    try:
        if file.link:
            return place.is_symlink() and os.readlink(place) == file.link
        stat = place.lstat()
        if stat.st_size != file.size or place.is_symlink():
            return False
        return not full or hash_file(place) == file.sha256
    except OSError:
        return False


def hash_file(place: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal. Blocking."""
    with place.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _stored(tree: Path, hashes: Mapping[str, str]) -> list[Stored]:
    found = []
    for folder, subfolders, names in os.walk(tree):
        for name in names + [name for name in subfolders if os.path.islink(os.path.join(folder, name))]:
            place = Path(folder, name)
            path = place.relative_to(tree).as_posix()
            if place.is_symlink():
                found.append(Stored(path, 0, "", os.readlink(place)))
            else:
                found.append(Stored(path, place.stat().st_size, hashes.get(path) or hash_file(place)))
    return sorted(found, key=lambda file: file.path)


def _newest(path: Path) -> float:
    newest = path.lstat().st_mtime
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            newest = max([newest, *(os.lstat(os.path.join(folder, name)).st_mtime for name in names)])
    return newest


def sync(folder: Path) -> None:
    """Writes the folder's file system, and no other, out to its disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            os.sync()
    finally:
        os.close(descriptor)


def place_into(tree: Path, dest: Path) -> None:
    """Moves the tree's entries into `dest`, replacing entries of the same names. Blocking."""
    with disk.writing(dest, "The artifact"):
        for child in sorted(tree.iterdir()):
            target = dest / child.name
            if target.is_symlink() or target.exists():
                aside = tree.parent / f"replaced.{secrets.token_hex(8)}"
                target.rename(aside)
                child.rename(target)
                remove(aside)
            else:
                child.rename(target)


def copy_into(place: Path, dest: Path) -> None:
    """Copies a cached artifact into `dest`. Blocking."""
    with disk.writing(dest, "The artifact"):
        shutil.copytree(place, dest, symlinks=True, dirs_exist_ok=True)
