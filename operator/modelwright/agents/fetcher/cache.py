"""The shared cache on a volume: one folder per digest, filled by many pods at once without long-held locks.

Layout: <cache>/<digest with '-'>/ is a finished artifact and exists only complete (a single rename puts it there);
<cache>/.modelwright/manifests/<digest>.json lists its content; work/<digest>.<pod>/ is the unfinished work of one pod,
never of another; claims/<digest> names the pod that is downloading, so that the others wait instead of downloading too.

A claim only saves work. If two pods both hold it, both download and one rename wins; their files never mix. So it needs
no lock, which a network file system may lack: exclusive creation of a file and rename are enough. A holder is alive
while its claim changes, by the watcher's own clock.

Nothing on the volume is proof: a writer of the files can also write the manifest. The manifest detects damage.
`verify_cache: full` detects forgeries: it hashes the files and compares their digest with a known one: the artifact's
own, or that of the unpacked tree, which the ModelVersion's status keeps.
Nothing evicts a finished artifact: a full volume is DiskFull (`disk`).
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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class CachedArtifact:
    """Identity of a cached artifact. `digest` is the pinned one.

    `tree`: digest of the files, if it is known and differs from `digest`. `name`: file name of an artifact that is a
    single file. `part`: key of the selection, if not the whole artifact is taken.
    """

    digest: str
    tree: str = ""
    name: str = ""
    part: str = ""


class ArtifactCache:
    """The place of one artifact in the shared cache at `root`, for the pod `holder`."""

    def __init__(
        self, root: Path, content: CachedArtifact, holder: str, settings: FetchSettings, report: FetchReport
    ) -> None:
        place = cache_folder_name(content.digest, content.part)
        self.root = root
        self.place = root / place
        self._digest = content.digest
        self._tree = content.tree
        self._name = content.name
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
        """Return the artifact's size in bytes if it is complete and undamaged, else None. Only reads the volume.
        Blocking."""
        try:
            manifest = json.loads(self._manifest.read_bytes())
            size, listed = int(manifest["sizeBytes"]), _parse_manifest(manifest)
            place = self.place.lstat()
            state = (self._manifest.stat().st_ino, self._manifest.stat().st_mtime_ns, place.st_ino)
            if manifest["digest"] != self._digest or not stat.S_ISDIR(place.st_mode) or state == self._rejected_state:
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        damage = self._find_damage(listed)
        if damage is None:
            return size
        # Waiting pods check every two seconds: a rejected artifact is not hashed again until it is replaced.
        self._rejected_state = state
        self._report.log_event(
            "cache", f"{self.place}: {damage}; the artifact is downloaded again", digest=self._digest
        )
        return None

    def _find_damage(self, listed: FileTree) -> str | None:
        """Describe the damage of the files, None without any. `listed`: the content by the manifest."""
        if not listed.files:
            return "its manifest names no file"
        try:
            actual = scan_tree(self.place)
        except RecursionError:
            return "it is nested too deeply"
        except OSError as error:
            return f"it can't be read ({error.strerror or type(error).__name__})"
        if actual.unsupported:
            return f"{actual.unsupported[0]!a} has no place in an artifact"
        if actual != listed:
            return f"{_first_difference(actual, listed)!a} is missing, changed or unknown"
        if self._settings.verify_cache != "full":
            return None
        try:
            return self._proof_problem(actual, hash_files(self.place, actual.files))
        except OSError as error:
            return f"it can't be read ({error.strerror or type(error).__name__})"

    def _proof_problem(self, tree: FileTree, hashed: Mapping[str, str]) -> str | None:
        """Say why these files aren't proven to be the artifact; None if they are."""
        computed = tree.compute_digest(hashed)
        if computed == (self._tree or self._digest):
            return None
        if self._tree:
            return f"its files have digest {computed}, not {self._tree}"
        alone = [*tree.files] == [self._name] and not tree.links and not tree.folders
        if alone and f"sha256:{hashed[self._name]}" == self._digest:
            return None
        return "nothing proves its files: the digest is of something else, and no digest of theirs is known"

    def prepare_folders(self) -> None:
        """Create the state folders and remove the work of pods that died a day ago. Blocking."""
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
        """Remove abandoned work. Ages are by the file system's clock, since a node's may be wrong."""
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
        """Yield True if this pod should download, False if another pod has filled the cache meanwhile."""
        acquired = await self._acquire_claim()
        if not acquired:
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
        last_content = ""
        changed_at = time.monotonic()
        reported = False
        while True:
            if await run_in_thread(self.find_size) is not None:
                return False
            if self._create_claim():
                return True
            content = self._read_claim()
            if content != last_content:
                last_content, changed_at = content, time.monotonic()
            # an earlier container of this same pod can't be alive any more
            stale = (
                content.startswith(self._holder + ".") or time.monotonic() - changed_at > self._settings.claim_seconds
            )
            if content and stale and await self._take_over_claim():
                return True
            if not reported:
                reported = True
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
        """Return the claim; '' if there is none, and '?' for an empty file: its writer has just created it, or died
        then."""
        try:
            return self._claim.read_text() or "?"
        except (OSError, UnicodeDecodeError):
            return ""

    def _replace_claim(self) -> None:
        draft = self._claim.with_name(f".{self._claim.name}.{self._token}")
        draft.write_text(self._claim_line())
        draft.replace(self._claim)

    async def _take_over_claim(self) -> bool:
        """Take over a stale claim. Of several pods that do so at once, the last writer's name stays, and it alone
        continues."""
        with disk.translate_errors(self.root, "The cache"):
            self._replace_claim()
        await asyncio.sleep(min(1.0, self._settings.claim_seconds / 20))
        won = self._read_claim().startswith(self._token)
        if won:
            self._report.log_event(
                "claim", f"The pod that was downloading {self._digest} is gone; this one continues", digest=self._digest
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
        """Make the finished tree the cached artifact. `known`: sha256 hashes that are already computed, by path.
        Blocking."""
        with disk.translate_errors(self.root, "The cache"):
            actual = scan_tree(tree)
            hashed = {path: known.get(path) or hash_file(tree / path) for path in actual.files}
            if self._proof_problem(actual, hashed):
                # The tree was just downloaded with the artifact's digest: that is the proof.
                self._tree = actual.compute_digest(hashed)
            draft = self._manifest.with_name(f".{self._manifest.name}.{self._token}")
            with draft.open("w") as out:
                json.dump({"digest": self._digest, "sizeBytes": size, **_format_manifest(actual)}, out)
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
    """Return the content by a manifest. Raises KeyError, TypeError or ValueError if it is invalid."""
    files = {str(item["path"]): int(item["size"]) for item in manifest["files"] if not item.get("link")}
    links = {str(item["path"]): str(item["link"]) for item in manifest["files"] if item.get("link")}
    return FileTree(files, links, frozenset(map(str, manifest.get("folders", ()))))


def _format_manifest(tree: FileTree) -> dict[str, Any]:
    files = [{"path": path, "size": size} for path, size in sorted(tree.files.items())]
    links = [{"path": path, "size": 0, "link": target} for path, target in sorted(tree.links.items())]
    return {"files": [*files, *links], "folders": sorted(tree.folders)}


def _first_difference(actual: FileTree, listed: FileTree) -> str:
    """Return a path that only one of the two trees has, or that differs between them."""
    parts = ((actual.files, listed.files), (actual.links, listed.links), (_folder_keys(actual), _folder_keys(listed)))
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
    """Write the folder's file system to its disk, and no other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            os.sync()
    finally:
        os.close(descriptor)


def move_into(tree: Path, dest: Path) -> None:
    """Move the tree's entries into `dest`, replacing entries of the same names. Blocking."""
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
    """Copy a cached artifact into `dest`. Blocking."""
    with disk.translate_errors(dest, "The artifact"):
        shutil.copytree(place, dest, symlinks=True, dirs_exist_ok=True)
