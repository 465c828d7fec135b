"""The shared cache on a volume: one folder per digest, filled by many pods at once without long-held locks.

Layout: <cache>/<digest with '-'>/ is a finished artifact and exists only complete (it arrives by one rename);
<cache>/.modelwright/manifests/<digest>.json lists what is in it; work/<digest>.<pod>/ is one pod's unfinished work,
never another's;
claims/<digest> says which pod is downloading, so that the others wait instead of downloading too.

A claim only saves work. Two pods that both believe to hold it download twice and one rename wins; nothing is ever
mixed.
That is why it needs no lock that a network file system may not have: creating a file that must not exist yet, and
rename,
are enough. Whether the holder is alive is judged by watching its claim change, by the watcher's own clock.

Nothing on the volume is proof of anything: whoever can write it can write the manifest too. It finds damage. Forgeries
are found by `verify_cache: full`, which hashes the files and compares their digest with one from elsewhere: the
artifact's own, or that of the unpacked tree, which the ModelVersion's status keeps.
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
import stat
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from modelwright.agents.fetcher import disk
from modelwright.agents.fetcher.digest import cache_folder_name
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.file_tree import FileTree, hash_file, hash_files, scan_tree
from modelwright.agents.fetcher.report import FetchReport
from modelwright.agents.fetcher.settings import FetchSettings
from modelwright.agents.fetcher.threads import run_in_thread
from modelwright.agents.fetcher.workspace import make_folder, remove_path

STATE_FOLDER = ".modelwright"
_ABANDONED_SECONDS = 24 * 3600


class ArtifactCache:
    """One digest's place in the shared cache at `root`."""

    def __init__(
        self,
        root: Path,
        digest: str,
        holder: str,
        settings: FetchSettings,
        report: FetchReport,
        *,
        tree: str = "",
        name: str = "",
        part: str = "",
    ) -> None:
        """`tree`: digest of the files, where it is known and `digest` isn't that of the files itself; `name`: how the
        file is called when the artifact is a single one; `part`: key of the selection, when not all is taken."""
        place = cache_folder_name(digest, part)
        self.root = root
        self.place = root / place
        self._digest = digest
        self._tree = tree
        self._name = name
        self._holder = hashlib.sha256(holder.encode()).hexdigest()[:16]
        self._settings = settings
        self._report = report
        self._state = root / STATE_FOLDER
        self._manifest = self._state / "manifests" / f"{place}.json"
        self._claim = self._state / "claims" / place
        self._token = f"{self._holder}.{secrets.token_hex(8)}"
        self._rejected_state: tuple[int, ...] = ()
        self.work = self._state / "work" / f"{place}.{self._holder}"

    def find_size(self) -> int | None:
        """The artifact's size in bytes when it is there and whole, else None. Touches nothing but the volume.
        Blocking."""
        try:
            manifest = json.loads(self._manifest.read_bytes())
            size, named = int(manifest["sizeBytes"]), _parse_manifest(manifest)
            place = self.place.lstat()
            seen = (self._manifest.stat().st_ino, self._manifest.stat().st_mtime_ns, place.st_ino)
            if manifest["digest"] != self._digest or not stat.S_ISDIR(place.st_mode) or seen == self._rejected_state:
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        damage = self._find_damage(named)
        if damage is None:
            return size
        # Who waits looks every two seconds: what was refused isn't hashed again until it is replaced.
        self._rejected_state = seen
        self._report.log_event(
            "cache", f"{self.place}: {damage}; the artifact is downloaded again", digest=self._digest
        )
        return None

    def _find_damage(self, named: FileTree) -> str | None:
        """What is wrong with the files, None for nothing. `named` is what the manifest says."""
        if not named.files:
            return "its manifest names no file"
        try:
            found = scan_tree(self.place)
        except RecursionError:
            return "it is nested too deeply"
        except OSError as error:
            return f"it can't be read ({error.strerror or type(error).__name__})"
        if found.unsupported:
            return f"{found.unsupported[0]!a} has no place in an artifact"
        if found != named:
            return f"{_first_difference(found, named)!a} is missing, changed or unknown"
        if self._settings.verify_cache != "full":
            return None
        try:
            return self._proof_problem(found, hash_files(self.place, found.files))
        except OSError as error:
            return f"it can't be read ({error.strerror or type(error).__name__})"

    def _proof_problem(self, found: FileTree, hashed: Mapping[str, str]) -> str | None:
        """Why these files aren't proven to be the artifact; None when they are."""
        computed = found.compute_digest(hashed)
        if computed == (self._tree or self._digest):
            return None
        if self._tree:
            return f"its files have digest {computed}, not {self._tree}"
        alone = [*found.files] == [self._name] and not found.links and not found.folders
        if alone and f"sha256:{hashed[self._name]}" == self._digest:
            return None
        return "nothing proves its files: the digest is of something else, and no digest of theirs is known"

    def prepare_folders(self) -> None:
        """Creates the state folders and clears what dead pods left a day ago. Blocking."""
        with disk.translate_errors(self.root, "The cache"):
            make_folder(self.root)
            for name in ("manifests", "claims", "work", "trash"):
                folder = self._state / name
                folder.mkdir(parents=True, exist_ok=True)
                # pods of other users (uid) share the volume through its group
                for place in (self._state, folder):
                    with suppress(PermissionError):
                        place.chmod(0o2775)
            self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        """Ages are taken from the file system's own clock: a node's may be wrong."""
        probe = self._state / f".clock.{self._token}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        for folder in ("work", "trash"):
            for child in (self._state / folder).iterdir():
                with suppress(OSError):
                    if child != self.work and now - _newest_mtime(child) > _ABANDONED_SECONDS:
                        remove_path(child)

    @asynccontextmanager
    async def hold_claim(self) -> AsyncIterator[bool]:
        """Yields True when this pod should download, False when another pod has meanwhile filled the cache."""
        mine = await self._acquire_claim()
        if not mine:
            yield False
            return
        beat = asyncio.create_task(self._renew_claim())
        try:
            yield True
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat
            self._release_claim()

    async def _acquire_claim(self) -> bool:
        seen = ""
        since = time.monotonic()
        told = False
        while True:
            if await run_in_thread(self.find_size) is not None:
                return False
            if self._create_claim():
                return True
            content = self._read_claim()
            if content != seen:
                seen, since = content, time.monotonic()
            # an earlier container of this same pod can't be alive any more
            stale = content.startswith(self._holder + ".") or time.monotonic() - since > self._settings.claim_seconds
            if content and stale and await self._take_over_claim():
                return True
            if not told:
                told = True
                self._report.log_event(
                    "wait", f"Another pod is downloading {self._digest}; waiting for it", digest=self._digest
                )
            await asyncio.sleep(min(2.0, self._settings.claim_seconds / 10))

    def _claim_line(self) -> str:
        return f"{self._token} {time.monotonic_ns()}"

    def _create_claim(self) -> bool:
        with disk.translate_errors(self.root, "The cache"):
            try:
                descriptor = os.open(self._claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w") as file:
                file.write(self._claim_line())
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
        draft.write_text(self._claim_line())
        draft.replace(self._claim)

    async def _take_over_claim(self) -> bool:
        """Several waiters may do this in the same moment: the last one's name stays in the file, and it alone goes
        on."""
        with disk.translate_errors(self.root, "The cache"):
            self._replace_claim()
        await asyncio.sleep(min(1.0, self._settings.claim_seconds / 20))
        won = self._read_claim().startswith(self._token)
        if won:
            self._report.log_event(
                "claim", f"The pod that was downloading {self._digest} is gone; this one goes on", digest=self._digest
            )
        return won

    async def _renew_claim(self) -> None:
        while True:
            await asyncio.sleep(self._settings.claim_seconds / 6)
            with suppress(OSError):
                if self._read_claim().startswith(self._token):
                    self._replace_claim()

    def _release_claim(self) -> None:
        with suppress(OSError):
            if self._read_claim().startswith(self._token):
                self._claim.unlink()

    def commit_tree(self, tree: Path, size: int, known: Mapping[str, str]) -> None:
        """Makes the finished tree the cached artifact. `known` are the sha256 already known, by path. Blocking."""
        with disk.translate_errors(self.root, "The cache"):
            found = scan_tree(tree)
            hashed = {path: known.get(path) or hash_file(tree / path) for path in found.files}
            if self._proof_problem(found, hashed):
                # What was just brought has the artifact's digest: that is the proof.
                self._tree = found.compute_digest(hashed)
            draft = self._manifest.with_name(f".{self._manifest.name}.{self._token}")
            with draft.open("w") as out:
                json.dump({"digest": self._digest, "sizeBytes": size, **_format_manifest(found)}, out)
            draft.chmod(0o644)
            # a node that loses power must not keep the name and lose the content
            sync_filesystem(tree)
            draft.replace(self._manifest)
            tree.chmod(0o755)
            for _ in range(3):
                try:
                    tree.rename(self.place)
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                if self.find_size() is not None:
                    break
                # damaged: moved aside, since pods that run may still have it mounted
                with suppress(FileNotFoundError):
                    self.place.rename(self._state / "trash" / f"{self.place.name}.{secrets.token_hex(8)}")
            if self.find_size() is None:
                raise FetchError(
                    FetchReason.INTERNAL_ERROR, f"{self.place}: the cached artifact was changed while it was put there."
                )
            sync_filesystem(self.root)
            remove_path(self.work)


def _parse_manifest(manifest: Mapping[str, Any]) -> FileTree:
    """What a manifest says is there. KeyError, TypeError or ValueError for one that can't be read."""
    files = {str(item["path"]): int(item["size"]) for item in manifest["files"] if not item.get("link")}
    links = {str(item["path"]): str(item["link"]) for item in manifest["files"] if item.get("link")}
    return FileTree(files, links, frozenset(map(str, manifest.get("folders", ()))))


def _format_manifest(tree: FileTree) -> dict[str, Any]:
    files = [{"path": path, "size": size} for path, size in sorted(tree.files.items())]
    links = [{"path": path, "size": 0, "link": target} for path, target in sorted(tree.links.items())]
    return {"files": [*files, *links], "folders": sorted(tree.folders)}


def _first_difference(found: FileTree, named: FileTree) -> str:
    """A path that only one of the two has, or that is another thing in each."""
    parts = ((found.files, named.files), (found.links, named.links), (_folder_keys(found), _folder_keys(named)))
    return min(path for one, other in parts for path, _ in set(one.items()) ^ set(other.items()))


def _folder_keys(tree: FileTree) -> Mapping[str, int]:
    return dict.fromkeys(tree.folders, 0)


def _newest_mtime(path: Path) -> float:
    newest = path.lstat().st_mtime
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            newest = max([newest, *(os.lstat(os.path.join(folder, name)).st_mtime for name in names)])
    return newest


def sync_filesystem(folder: Path) -> None:
    """Writes the folder's file system, and no other, out to its disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            os.sync()
    finally:
        os.close(descriptor)


def move_into(tree: Path, dest: Path) -> None:
    """Moves the tree's entries into `dest`, replacing entries of the same names. Blocking."""
    with disk.translate_errors(dest, "The artifact"):
        for child in sorted(tree.iterdir()):
            target = dest / child.name
            if target.is_symlink() or target.exists():
                aside = tree.parent / f"replaced.{secrets.token_hex(8)}"
                target.rename(aside)
                child.rename(target)
                remove_path(aside)
            else:
                child.rename(target)


def copy_into(place: Path, dest: Path) -> None:
    """Copies a cached artifact into `dest`. Blocking."""
    with disk.translate_errors(dest, "The artifact"):
        shutil.copytree(place, dest, symlinks=True, dirs_exist_ok=True)
