"""Downloads one artifact from its source: hashed without storing (resolve), or as a verified tree in a workspace
(get)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from modelwright.agents.fetcher import archive, digest, disk, paths, selection
from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.errors import ArtifactChanged, FetchError, FetchReason
from modelwright.agents.fetcher.port import ArtifactKind, ArtifactSource, FetchContext, Listing, RemoteFile
from modelwright.agents.fetcher.report import FetchReport, TransferMeter, format_size
from modelwright.agents.fetcher.threads import run_in_thread
from modelwright.agents.fetcher.transfer import Pieces, Transfer, artifact_too_large
from modelwright.agents.fetcher.verify import FileHasher, digest_mismatch
from modelwright.agents.fetcher.workspace import PartialFile, Workspace

T = TypeVar("T")

_GROUP_FILES = 16
_GROUP_BYTES = 1 << 20


@dataclass(frozen=True)
class DownloadResult:
    """Digest of the artifact, its size in bytes as stored (packed), and the sha256 of its files by path."""

    digest: str
    size: int
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactContent:
    """Content of an artifact: digest, size, and hashes of its files.

    `single`: it is one file and not a folder. `within`: the store resolved the selection's path. `signature`: content
    of that file in a folder. `unknown`: why the digest does not determine the files.
    """

    result: DownloadResult
    entries: tuple[FileEntry, ...] = ()
    single: bool = False
    within: bool = False
    signature: bytes | None = None
    unknown: str = ""


class ChangeDetection(StrEnum):
    """How a change of the data is detected."""

    ETAG = "ETag"  # the store's version of each object: its ETag, or size and time
    DIGEST = "Digest"  # the content, which must be read
    COUNT = "Count"  # the number of objects


@dataclass(frozen=True)
class Fingerprint:
    """State of the data at one moment: different data has a different fingerprint. `size` is in bytes, as far as it is
    known."""

    fingerprint: str
    objects: int
    size: int


class Downloader:
    """Resolves, fingerprints or downloads one artifact. All methods raise FetchError."""

    def __init__(self, context: FetchContext, source: ArtifactSource, report: FetchReport) -> None:
        self._context = context
        self._settings = context.settings
        self._source = source
        self._report = report
        self._meter = TransferMeter()
        self._transfer = Transfer(source, context.settings, self._meter, report)

    async def resolve(self) -> DownloadResult:
        """Return digest and size without storing anything."""
        async with self._report_progress():
            return await self._retry_while_changing(self._resolve_once)

    async def examine_files(self, expected: str, signature: str, limit: int) -> ArtifactContent:
        """Return digest, size and the hashes of all files without storing them, and the content of the file
        `signature`, of at most `limit` bytes.

        `expected`: the digest it must have, or ''.
        """
        async with self._report_progress():
            return await self._retry_while_changing(lambda: self._examine_once(expected, signature, limit))

    async def read_single_file(self, limit: int) -> bytes:
        """Return the content of an artifact that is one file of at most `limit` bytes. Raises ArtifactNotFound for a
        folder."""
        listing = await self._inspect_source("")
        if listing.kind is not ArtifactKind.FILE:
            raise FetchError(FetchReason.ARTIFACT_NOT_FOUND, f"{self._context.uri.safe} is no single file.")
        return await self._read_content(listing.files[0], limit)

    async def take_fingerprint(self, changed: ChangeDetection) -> Fingerprint:
        """Return a fingerprint of the present data. Content is read only for DIGEST, and nothing is stored."""
        if changed is ChangeDetection.DIGEST:
            result = await self.resolve()
            return Fingerprint(result.digest, self._meter.total_files, result.size)
        listing = await self._inspect_source("")
        count, size = len(listing.files), sum(file.size or 0 for file in listing.files)
        if changed is ChangeDetection.COUNT:
            return Fingerprint(str(count), count, size)
        fingerprint = (
            listing.pinned
            if listing.kind is ArtifactKind.PINNED
            else _compute_fingerprint(listing, self._context.uri.safe)
        )
        return Fingerprint(fingerprint, count, size)

    async def download_verified(self, expected: str, workspace: Workspace) -> DownloadResult:
        """Leave the verified artifact in `workspace.tree`, with archives unpacked. `expected`: its digest, or '' for
        the present one."""
        async with self._report_progress():
            try:
                return await self._retry_while_changing(lambda: self._get_once(expected, workspace))
            except FetchError as error:
                if error.reason is not FetchReason.DIGEST_MISMATCH or not workspace.used_leftovers:
                    raise
            # leftovers of an earlier try may be the cause: only a download from the first byte proves a mismatch
            self._report.log_event(
                "restart", "The leftovers of an earlier try don't match; downloading everything again"
            )
            await run_in_thread(workspace.wipe_folder)
            return await self._retry_while_changing(lambda: self._get_once(expected, workspace))

    async def _retry_while_changing(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Repeat the operation a few times while the artifact changes during the read."""
        for attempt in range(1, self._settings.attempts + 1):
            try:
                return await operation()
            except ArtifactChanged as error:
                if attempt == self._settings.attempts:
                    raise FetchError(
                        FetchReason.DIGEST_MISMATCH,
                        f"{error.message}, {attempt} times. Publish to a new address and register that, instead of "
                        "overwriting.",
                    ) from error
                self._report.log_event("changed", f"{error.message}; reading it again")
                await asyncio.sleep(self._settings.backoff_seconds)
        raise AssertionError("unreachable")

    async def _inspect_source(self, expected: str) -> Listing:
        listing = await self._transfer.with_retries(lambda: self._source.inspect(expected))
        where = self._context.uri.safe
        if not listing.files and listing.kind is not ArtifactKind.PINNED:
            raise FetchError(
                FetchReason.ARTIFACT_NOT_FOUND,
                f"{where}: nothing is there. Check the path and its upper and lower case.",
            )
        if len(listing.files) > self._settings.max_entries:
            raise FetchError(
                FetchReason.ARTIFACT_TOO_LARGE,
                f"{where} has {len(listing.files)} files, over the limit of {self._settings.max_entries} "
                "(MODELWRIGHT_FETCH_MAX_ENTRIES). Pack them, or raise it for the pods that fetch: spec.helperPods.env "
                "and spec.serving.podTemplate of the Model, or fetch.env of the chart.",
            )
        listing = await run_in_thread(_select_files, listing, self._context.selection, where)
        paths.check_listing_paths((file.path for file in listing.files if not file.unpack), where)
        sizes = [file.size for file in listing.files]
        known = sum(size for size in sizes if size is not None)
        if self._settings.max_bytes and known > self._settings.max_bytes:
            raise artifact_too_large(self._settings.max_bytes, f"{where} ({format_size(known)})")
        self._meter.total_files = len(listing.files)
        self._meter.total_bytes = known if None not in sizes else None
        self._meter.bytes = self._meter.resumed = self._meter.files = 0
        if expected.startswith("git:") and listing.kind is not ArtifactKind.PINNED:
            raise FetchError(
                FetchReason.INVALID_URI, f"{where}: a git: digest is only for hf:// artifacts; give a sha256: digest."
            )
        return listing

    async def _resolve_once(self) -> DownloadResult:
        listing = await self._inspect_source("")
        if listing.kind is ArtifactKind.PINNED:
            return _pinned_result(listing)
        return _build_result(listing, await self._map_groups(listing.files, self._hash_group))

    async def _examine_once(self, expected: str, signature: str, limit: int) -> ArtifactContent:
        listing = await self._inspect_source(expected)
        if listing.pinned.startswith("git:"):
            # Only the Hub's listing connects a commit to its files, so the files themselves are pinned.
            listing = replace(listing, kind=ArtifactKind.DIRECTORY, pinned="")
        single = listing.kind is ArtifactKind.FILE
        unknown = "" if single else _unknown_files_reason(listing)
        entries = await self._map_groups(listing.files, self._hash_group) if not unknown else []
        result = _build_result(listing, entries) if not unknown else _pinned_result(listing)
        if expected and result.digest != expected:
            raise digest_mismatch(self._context.uri.safe, expected, result.digest)
        if unknown:
            return ArtifactContent(result, within=listing.within, unknown=unknown)
        signature_file = None if single else next((file for file in listing.files if file.path == signature), None)
        bundle = await self._read_content(signature_file, limit) if signature_file is not None else None
        if signature_file is not None and hashlib.sha256(bundle or b"").hexdigest() not in {
            entry.sha256 for entry in entries if entry.path == signature
        }:
            raise ArtifactChanged(f"{self._context.uri.safe}: {signature} changed while it was read")
        return ArtifactContent(result, tuple(entries), single, listing.within, bundle)

    async def _read_content(self, file: RemoteFile, limit: int) -> bytes:
        sink = _MemorySink(file, limit)
        await self._transfer.fetch_file(file, sink)
        return bytes(sink.data)

    async def _get_once(self, expected: str, workspace: Workspace) -> DownloadResult:
        where = self._context.uri.safe
        listing = await self._inspect_source(expected)
        if expected and listing.kind is ArtifactKind.PINNED and listing.pinned != expected:
            raise digest_mismatch(where, expected, listing.pinned)
        await run_in_thread(workspace.open)
        disk.require_space(workspace.root, await run_in_thread(_missing_bytes, workspace, listing.files), where)
        try:
            entries = await self._map_groups(listing.files, lambda group: self._store_group(group, workspace))
            result = _build_result(listing, entries)
            if expected and result.digest != expected:
                raise digest_mismatch(where, expected, result.digest)
        finally:
            workspace.close()
        await run_in_thread(workspace.keep_only, {file.path for file in listing.files if not file.unpack})
        await self._unpack_archives(tuple(file for file in listing.files if file.unpack), workspace)
        return result

    async def _unpack_archives(self, files: tuple[RemoteFile, ...], workspace: Workspace) -> None:
        """Unpack the archives, or the layers of an image, in their order."""
        where, selected = self._context.uri.safe, self._context.selection
        part = archive.UnpackedPart(selected)
        for file in files:
            packed = workspace.finished_path(file)
            self._report.log_event("unpack", f"Unpacking {file.path}", file=file.path)
            try:
                await run_in_thread(archive.unpack_archive, packed, file, workspace.tree, self._settings, where, part)
            except FetchError as error:
                if not file.whiteouts or selected.path or error.reason is not FetchReason.UNSAFE_ARCHIVE:
                    raise
                # Above all modelcars: base images hold links and devices that have no place in an artifact.
                text = f"{error.message} Of an image that holds more than its model, only the model's folder is wanted"
                raise FetchError(error.reason, f"{text}: name it, as in artifact.path: models.") from error
            await run_in_thread(packed.unlink)
        if files and selected and not await run_in_thread(_has_entries, workspace.tree):
            raise part.candidates.nothing_selected(where)

    async def _map_groups(
        self, files: tuple[RemoteFile, ...], operation: Callable[[list[RemoteFile]], Awaitable[list[FileEntry]]]
    ) -> list[FileEntry]:
        """Run the operation on all files, `parallel` groups at a time; the first failure ends all."""
        entries: list[FileEntry] = []
        queue = self._group_files(files)

        async def work(groups: Iterator[list[RemoteFile]]) -> None:
            for group in groups:
                entries.extend(await operation(group))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._settings.parallel, len(files))):
                    tasks.create_task(work(queue))
        except BaseExceptionGroup as failures:
            raise _first_failure(failures) from failures
        return entries

    def _group_files(self, files: tuple[RemoteFile, ...]) -> Iterator[list[RemoteFile]]:
        """Group small files, which one thread then writes or hashes together; each other file is alone.

        A group is kept in memory until it is complete. Its bound leaves room for all groups at once; otherwise each
        could hold memory that another waits for.
        """
        max_bytes = min(_GROUP_BYTES, self._settings.memory_bytes // (2 * self._settings.parallel))
        # if there are few files, each should have its own request
        count = max(1, min(_GROUP_FILES, len(files) // (4 * self._settings.parallel)))
        group: list[RemoteFile] = []
        size = 0
        for file in files:
            if not self._is_small(file):
                yield [file]
                continue
            length = file.size or 0
            if group and (size + length > max_bytes or len(group) >= count):
                yield group
                group, size = [], 0
            group.append(file)
            size += length
        if group:
            yield group

    def _is_small(self, file: RemoteFile) -> bool:
        return file.ranges and file.size is not None and file.size <= self._transfer.part_bytes

    async def _hash_group(self, group: list[RemoteFile]) -> list[FileEntry]:
        if self._is_small(group[0]):
            return await self._with_content(group, _hash_contents)
        sink = _HashSink(group[0])
        await self._transfer.fetch_file(group[0], sink)
        self._meter.files += 1
        return [sink.hasher.verified_entry()]

    async def _store_group(self, group: list[RemoteFile], workspace: Workspace) -> list[FileEntry]:
        finished = await run_in_thread(workspace.verify_finished, group) if workspace.has_leftovers else {}
        entries = list(finished.values())
        self._meter.resumed += sum(entry.size for entry in entries)
        self._meter.files += len(entries)
        missing = [file for file in group if file.path not in finished]
        if not missing:
            return entries
        if self._is_small(missing[0]):
            return entries + await self._with_content(missing, workspace.write_small)
        partial = await run_in_thread(workspace.open_partial, missing[0], self._meter)
        try:
            await self._transfer.fetch_file(missing[0], _FileSink(partial))
            self._meter.files += 1
            return [*entries, await run_in_thread(partial.finish_file)]
        finally:
            partial.close()

    async def _with_content(
        self, group: list[RemoteFile], operation: Callable[[list[tuple[RemoteFile, Pieces]]], list[FileEntry]]
    ) -> list[FileEntry]:
        """Run the blocking operation, in a thread, on small files with their bytes."""
        content: list[tuple[RemoteFile, Pieces]] = []
        with ExitStack() as memory:
            for file in group:
                pieces, grant = await self._transfer.read_small(file)
                if grant is not None:
                    memory.callback(grant.release_all)
                content.append((file, pieces))
                self._meter.files += 1
            return await run_in_thread(operation, content)

    @asynccontextmanager
    async def _report_progress(self) -> AsyncIterator[None]:
        async def log_progress() -> None:
            while True:
                await asyncio.sleep(self._settings.progress_seconds)
                self._report.log_progress(self._meter)

        task = asyncio.create_task(log_progress())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _hash_contents(content: list[tuple[RemoteFile, Pieces]]) -> list[FileEntry]:
    entries = []
    for file, pieces in content:
        hasher = FileHasher(file)
        hasher.update_all(pieces)
        entries.append(hasher.verified_entry())
    return entries


class _HashSink:
    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.hasher = FileHasher(file)

    @property
    def offset(self) -> int:
        return self.hasher.size

    async def write(self, data: Pieces) -> None:
        await run_in_thread(self.hasher.update_all, data)

    async def reset(self) -> None:
        self.hasher = FileHasher(self._file)


class _MemorySink:
    def __init__(self, file: RemoteFile, limit: int) -> None:
        self._file = file
        self._limit = limit
        self.data = bytearray()

    @property
    def offset(self) -> int:
        return len(self.data)

    async def write(self, data: Pieces) -> None:
        self.data.extend(b"".join(data))
        if len(self.data) > self._limit:
            raise FetchError(
                FetchReason.ARTIFACT_TOO_LARGE, f"{self._file.path} is over the limit of {format_size(self._limit)}."
            )

    async def reset(self) -> None:
        self.data.clear()


class _FileSink:
    def __init__(self, partial: PartialFile) -> None:
        self._partial = partial

    @property
    def offset(self) -> int:
        return self._partial.offset

    async def write(self, data: Pieces) -> None:
        await run_in_thread(self._partial.append, data)

    async def reset(self) -> None:
        await run_in_thread(self._partial.restart)


def _select_files(listing: Listing, part: selection.Selection, where: str) -> Listing:
    """Return the listing with the selected files only.

    An archive stays: its selected members are known when it is unpacked.
    """
    if not part:
        return listing
    rest = replace(part, path="") if listing.within else part
    if listing.kind is ArtifactKind.FILE and rest.path and not listing.files[0].unpack:
        raise FetchError(
            FetchReason.INVALID_URI,
            f"{where} is one file and no archive: artifact.path names a part of a folder, an archive or an image. "
            "Leave it out.",
        )
    alone = [replace(file, path=rest.name) for file in listing.files if rest.path and file.path == rest.path]
    if alone and not alone[0].unpack:
        chosen = [file for file in alone if rest.matches_patterns(file.path)]
    else:
        places = [(file, file.path if file.unpack else rest.place_of(file.path)) for file in listing.files]
        chosen = [replace(file, path=place) for file, place in places if place is not None]
    if not chosen:
        raise selection.PathCandidates(rest).add_names(file.path for file in listing.files).nothing_selected(where)
    return replace(listing, files=tuple(chosen))


def _has_entries(folder: Path) -> bool:
    return any(folder.iterdir())


def _compute_fingerprint(listing: Listing, where: str) -> str:
    """Return the sha256 over the lines `path NUL size NUL version NEWLINE`, sorted by the path's UTF-8 bytes."""
    whole = hashlib.sha256()
    for file in sorted(listing.files, key=lambda file: file.path.encode("utf-8", "surrogateescape")):
        if not file.version:
            raise FetchError(
                FetchReason.INVALID_URI,
                f"{where}: the store gives neither a strong ETag nor a time of change; compare by Digest instead.",
            )
        size = "" if file.size is None else str(file.size)
        line = f"{file.path}\0{size}\0{file.version}\n"
        whole.update(line.encode("utf-8", "surrogateescape"))
    return f"sha256:{whole.hexdigest()}"


def _unknown_files_reason(listing: Listing) -> str:
    if listing.varies:
        return "It is an index, from which machines of another architecture get other files: name one manifest."
    if any(file.unpack for file in listing.files):
        return "It is packed in layers, whose files are not known: push its files one by one, each under its own name."
    return ""


def _pinned_result(listing: Listing) -> DownloadResult:
    """Return the result for an artifact that its store names by digest, without reading it."""
    return DownloadResult(listing.pinned, sum(file.size or 0 for file in listing.files))


def _build_result(listing: Listing, entries: list[FileEntry]) -> DownloadResult:
    size = sum(entry.size for entry in entries)
    if listing.kind is ArtifactKind.PINNED:
        result_digest = listing.pinned
    elif listing.kind is ArtifactKind.FILE:
        result_digest = f"sha256:{entries[0].sha256}"
    else:
        result_digest = digest.directory_digest(entries)
    packed = any(file.unpack for file in listing.files)
    return DownloadResult(result_digest, size, {} if packed else {entry.path: entry.sha256 for entry in entries})


def _missing_bytes(workspace: Workspace, files: tuple[RemoteFile, ...]) -> int:
    """Return the bytes that still have to be stored, as far as sizes are known."""
    return max(0, sum(file.size or 0 for file in files) - workspace.stored_bytes())


def _first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure to report: preferably one that a retry would not cure."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    leaves.sort(key=lambda error: (not isinstance(error, FetchError), isinstance(error, FetchError) and error.retry))
    return leaves[0]
