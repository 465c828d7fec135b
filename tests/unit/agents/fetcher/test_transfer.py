"""The transfer over a store in memory: order, bounds, tries, and the state after a failure."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from modelwright.agents.fetcher.digest import FileEntry, directory_digest
from modelwright.agents.fetcher.download import Downloader
from modelwright.agents.fetcher.errors import ArtifactChanged, FetchError, FetchReason, store_unreachable
from modelwright.agents.fetcher.port import ArtifactKind, FetchContext, Listing, RemoteFile
from modelwright.agents.fetcher.redact import Redactor
from modelwright.agents.fetcher.report import FetchReport, TransferMeter
from modelwright.agents.fetcher.settings import FetchSettings
from modelwright.agents.fetcher.store_credentials import StoreCredentials
from modelwright.agents.fetcher.transfer import Pieces, Transfer, TransferBudget
from modelwright.agents.fetcher.uri import parse_uri
from modelwright.agents.fetcher.workspace import Workspace

QUICK = FetchSettings(
    part_bytes=1000, memory_bytes=5000, parallel=4, backoff_seconds=0.001, stall_seconds=0.3, attempts=3
)


class MemorySource:
    """Files by path. `trouble(file, start)` may raise, or sleep, before anything is sent; `cut` ends bodies early."""

    def __init__(self, files: dict[str, bytes], *, ranges: bool = True) -> None:
        self.files = files
        self.ranges = ranges
        self.version = "1"
        self.reads: list[tuple[str, int, int | None]] = []
        self.trouble: Callable[[str, int], None] = lambda path, start: None
        self.silent_from = -1
        self.cut = 0
        self.running = self.most = 0

    async def inspect(self, digest: str) -> Listing:
        listed = (RemoteFile(path, path, len(body), self.version, self.ranges) for path, body in self.files.items())
        return Listing(ArtifactKind.DIRECTORY, tuple(listed))

    async def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        self.reads.append((file.path, start, stop))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(random.random() * 0.005)
            self.trouble(file.path, start)
            body = self.files[file.path][start:stop]
            if 0 <= self.silent_from <= start:
                await asyncio.sleep(60)
            if self.cut:
                self.cut -= 1
                body = body[: len(body) // 2]
            for position in range(0, len(body), 300):
                yield body[position : position + 300]
        finally:
            self.running -= 1

    async def close(self) -> None:
        return


class ListSink:
    def __init__(self) -> None:
        self.data = bytearray()
        self.resets = 0

    @property
    def offset(self) -> int:
        return len(self.data)

    async def write(self, data: Pieces) -> None:
        for piece in data:
            self.data += piece

    async def reset(self) -> None:
        self.data.clear()
        self.resets += 1


def _transfer(source: MemorySource, settings: FetchSettings = QUICK) -> tuple[Transfer, TransferMeter]:
    meter = TransferMeter()
    return Transfer(source, settings, meter, FetchReport(Redactor(), stream=io.StringIO())), meter


def _downloader(source: MemorySource, settings: FetchSettings = QUICK) -> Downloader:
    context = FetchContext(parse_uri("s3://bucket/m"), StoreCredentials(Path("/nowhere"), {}), settings)
    return Downloader(context, source, FetchReport(Redactor(), stream=io.StringIO()))


def _file(source: MemorySource, path: str = "f") -> RemoteFile:
    return RemoteFile(path, path, len(source.files[path]), "1", source.ranges)


async def test_ranges_come_side_by_side_and_are_given_out_in_order() -> None:
    source = MemorySource({"f": random.Random(1).randbytes(20_500)})
    transfer, meter = _transfer(source)
    sink = ListSink()
    await transfer.fetch_file(_file(source), sink)
    assert bytes(sink.data) == source.files["f"]
    assert len(source.reads) == 21
    assert 2 <= source.most <= QUICK.parallel
    assert meter.bytes == 20_500


async def test_only_missing_bytes_are_requested() -> None:
    source = MemorySource({"f": random.Random(1).randbytes(3_500)})
    transfer, _ = _transfer(source)
    sink = ListSink()
    sink.data += source.files["f"][:2_700]
    await transfer.fetch_file(_file(source), sink)
    assert bytes(sink.data) == source.files["f"]
    assert source.reads == [("f", 2_700, 3_500)]


async def test_a_range_that_breaks_off_goes_on_within_itself() -> None:
    source = MemorySource({"f": random.Random(1).randbytes(3_000)})
    source.cut = 2
    transfer, meter = _transfer(source)
    sink = ListSink()
    await transfer.fetch_file(_file(source), sink)
    assert bytes(sink.data) == source.files["f"]
    assert meter.bytes == 3_000, "no byte came twice"
    assert meter.retries == 2


async def test_broken_download_without_ranges_starts_again() -> None:
    source = MemorySource({"f": random.Random(1).randbytes(3_000)}, ranges=False)
    source.cut = 2
    transfer, meter = _transfer(source)
    sink = ListSink()
    await transfer.fetch_file(_file(source), sink)
    assert bytes(sink.data) == source.files["f"]
    assert sink.resets == 2
    assert meter.bytes == 3_000


@pytest.mark.parametrize("ranges", [True, False])
async def test_tries_without_progress_are_counted_and_end(ranges: bool) -> None:
    source = MemorySource({"f": bytes(900)}, ranges=ranges)

    def trouble(path: str, start: int) -> None:
        raise store_unreachable("f: no connection")

    source.trouble = trouble
    transfer, _ = _transfer(source)
    with pytest.raises(FetchError, match="3 tries") as caught:
        await transfer.fetch_file(_file(source), ListSink())
    assert caught.value.reason is FetchReason.STORE_UNREACHABLE
    assert len(source.reads) == 3


async def test_permanent_failure_is_not_retried() -> None:
    source = MemorySource({"f": bytes(900)})

    def trouble(path: str, start: int) -> None:
        raise FetchError(FetchReason.ACCESS_DENIED, "no")

    source.trouble = trouble
    transfer, _ = _transfer(source)
    with pytest.raises(FetchError, match="no"):
        await transfer.fetch_file(_file(source), ListSink())
    assert len(source.reads) == 1


async def test_silence_is_a_stall() -> None:
    source = MemorySource({"f": bytes(5_000)})
    source.silent_from = 3_000
    transfer, _ = _transfer(source, FetchSettings(**{**vars(QUICK), "stall_seconds": 0.05}))
    with pytest.raises(FetchError) as caught:
        await transfer.fetch_file(_file(source), ListSink())
    assert caught.value.reason is FetchReason.DOWNLOAD_STALLED


async def test_more_than_was_asked_for_is_a_change() -> None:
    source = MemorySource({"f": bytes(900)})
    transfer, _ = _transfer(source)
    with pytest.raises(ArtifactChanged):
        await transfer.fetch_file(RemoteFile("f", "f", 500, "1", ranges=False), ListSink())


async def test_a_failure_gives_all_memory_and_requests_back() -> None:
    source = MemorySource({"f": bytes(20_000)})

    def trouble(path: str, start: int) -> None:
        if start == 7_000:
            raise FetchError(FetchReason.ACCESS_DENIED, "no")

    source.trouble = trouble
    transfer, _ = _transfer(source)
    for _ in range(20):
        with pytest.raises(FetchError, match="no"):
            await transfer.fetch_file(_file(source), ListSink())
    source.trouble = lambda path, start: None
    sink = ListSink()
    await transfer.fetch_file(_file(source), sink)
    assert len(sink.data) == 20_000
    assert source.running == 0


async def test_many_large_files_share_the_memory_without_deadlock() -> None:
    generator = random.Random(2)
    source = MemorySource({f"f{number}": generator.randbytes(7_777) for number in range(12)})
    async with asyncio.timeout(20):
        result = await _downloader(source).resolve()
    assert result.size == 12 * 7_777


async def test_the_budget_is_never_overdrawn_and_serves_in_turn() -> None:
    budget = TransferBudget(100, 3)
    order: list[int] = []

    async def one(number: int) -> None:
        grant = await budget.acquire(60)
        order.append(number)
        await asyncio.sleep(0.001)
        grant.release_all()

    first = await budget.acquire(60)
    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert not budget.try_acquire(10), "who waits comes first"
    tasks[2].cancel()
    first.release_all()
    first.release_all()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4]
    assert budget.try_acquire(100)
    assert not budget.try_acquire(1)
    async with asyncio.timeout(1):
        await TransferBudget(100, 1).acquire(500)


async def test_who_gives_up_waiting_does_not_hold_up_those_behind() -> None:
    budget = TransferBudget(100, 3)
    held = await budget.acquire(50)
    large = asyncio.create_task(budget.acquire(80))
    small = asyncio.create_task(budget.acquire(20))
    await asyncio.sleep(0)
    large.cancel()
    async with asyncio.timeout(1):
        await small
    held.release_all()


async def test_many_small_files_are_grouped_within_the_memory() -> None:
    source = MemorySource({f"{number:03d}": bytes([number % 256]) * (number % 900) for number in range(400)})
    async with asyncio.timeout(20):
        result = await _downloader(source).resolve()
    assert result.digest == _wanted(source.files)


FILES = {"large": random.Random(3).randbytes(9_500), "small": b"abc", "sub/empty": b""}


def _wanted(files: dict[str, bytes]) -> str:
    return directory_digest(
        FileEntry(path, len(body), hashlib.sha256(body).hexdigest()) for path, body in files.items()
    )


async def test_second_try_reads_only_missing_bytes(tmp_path: Path) -> None:
    source = MemorySource(dict(FILES))

    def trouble(path: str, start: int) -> None:
        if path == "large" and start >= 6_000:
            raise FetchError(FetchReason.ACCESS_DENIED, "no")

    source.trouble = trouble
    with pytest.raises(FetchError, match="no"):
        await _downloader(source).download_verified(_wanted(FILES), Workspace(tmp_path))
    source.trouble = lambda path, start: None
    source.reads.clear()
    await _downloader(source).download_verified(_wanted(FILES), Workspace(tmp_path))
    assert (tmp_path / "tree" / "large").read_bytes() == FILES["large"]
    assert min(start for path, start, _ in source.reads if path == "large") >= 1_000
    assert not [path for path, _, _ in source.reads if path == "small"]


async def test_leftovers_of_another_version_are_read_again(tmp_path: Path) -> None:
    source = MemorySource(dict(FILES))
    await _downloader(source).download_verified(_wanted(FILES), Workspace(tmp_path))
    newer = {**FILES, "large": random.Random(4).randbytes(9_500)}
    source.files, source.version = newer, "2"
    await _downloader(source).download_verified(_wanted(newer), Workspace(tmp_path))
    assert (tmp_path / "tree" / "large").read_bytes() == newer["large"]


@pytest.mark.parametrize("victim", ["large", "small"])
async def test_damaged_leftovers_are_read_again(tmp_path: Path, victim: str) -> None:
    source = MemorySource(dict(FILES))
    await _downloader(source).download_verified(_wanted(FILES), Workspace(tmp_path))
    (tmp_path / "tree" / victim).write_bytes(bytes(len(FILES[victim])))
    await _downloader(source).download_verified(_wanted(FILES), Workspace(tmp_path))
    assert (tmp_path / "tree" / victim).read_bytes() == FILES[victim]


async def test_leftovers_of_another_listing_are_removed(tmp_path: Path) -> None:
    source = MemorySource({**FILES, "sub/stray": b"x", "other/stray": b"y"})
    await _downloader(source).download_verified(_wanted(source.files), Workspace(tmp_path))
    (tmp_path / "tree" / "link").symlink_to("sub")
    source.files = dict(FILES)
    await _downloader(source).download_verified(_wanted(FILES), Workspace(tmp_path))
    tree = tmp_path / "tree"
    assert {path.relative_to(tree).as_posix() for path in tree.rglob("*")} == {"large", "small", "sub", "sub/empty"}


async def test_an_artifact_that_never_keeps_still_is_given_up() -> None:
    source = MemorySource(dict(FILES))

    def trouble(path: str, start: int) -> None:
        raise ArtifactChanged("m changed")

    source.trouble = trouble
    with pytest.raises(FetchError, match="3 times") as caught:
        await _downloader(source).resolve()
    assert caught.value.reason is FetchReason.DIGEST_MISMATCH


async def test_too_many_files_or_bytes_are_refused_before_a_read() -> None:
    source = MemorySource(dict(FILES))
    for limit in ({"max_entries": 2}, {"max_bytes": 9_000}):
        with pytest.raises(FetchError) as caught:
            await _downloader(source, FetchSettings(**{**vars(QUICK), **limit})).resolve()
        assert caught.value.reason is FetchReason.ARTIFACT_TOO_LARGE
    assert source.reads == []


@pytest.mark.parametrize("path", ["../evil", "/evil", "a//b"])
async def test_listed_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    source = MemorySource({path: b"x"})
    with pytest.raises(FetchError) as caught:
        await _downloader(source).download_verified("sha256:" + "0" * 64, Workspace(tmp_path / "work"))
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE
    assert source.reads == []
