"""Reads bytes from a source in order: parallel ranges, stall detection, retries with back-off, bounded memory."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from modelwright.agents.fetcher.errors import ArtifactChanged, FetchError, FetchReason, store_unreachable
from modelwright.agents.fetcher.port import ArtifactSource, RemoteFile
from modelwright.agents.fetcher.report import FetchReport, TransferMeter, format_size
from modelwright.agents.fetcher.settings import FetchSettings

T = TypeVar("T")

_PROGRESS_BYTES = 64 << 10  # a try that received this much counts as progress and resets the number of tries
_PIECE_BYTES = 128 << 10
_MIN_BYTES = 1024  # in stall_seconds; less is a stall


Pieces = list[bytes | bytearray]
"""Bytes in order, as received: joining them would cost a copy of everything."""


class Sink(Protocol):
    """Destination of a file's bytes, in order."""

    @property
    def offset(self) -> int:
        """Number of bytes written."""
        ...

    async def write(self, data: Pieces) -> None: ...

    async def reset(self) -> None:
        """Discard everything; the file starts again."""
        ...


class BudgetGrant:
    """Room for one request and its bytes. Each is returned exactly once, however often it is released."""

    def __init__(self, budget: TransferBudget, size: int) -> None:
        self._budget = budget
        self._size = size
        self._requesting = True

    def end_request(self) -> None:
        """End the request; its bytes are still in memory."""
        if self._requesting:
            self._requesting = False
            self._budget.release_room(0, 1)

    def release_all(self) -> None:
        """End the request and release its bytes."""
        self.end_request()
        size, self._size = self._size, 0
        self._budget.release_room(size, 0)


class TransferBudget:
    """Bounds the bytes in memory and the concurrent requests, for all files together."""

    def __init__(self, memory: int, requests: int) -> None:
        self._memory = memory
        self._free = memory
        self._requests = requests
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def _has_room(self, size: int) -> bool:
        return self._requests > 0 and self._free >= size

    def _take_room(self, size: int) -> None:
        self._requests -= 1
        self._free -= size

    async def acquire(self, size: int) -> BudgetGrant:
        """Wait for room for one request of `size` bytes, first come, first served."""
        size = min(size, self._memory)
        if not self._waiting and self._has_room(size):
            self._take_room(size)
            return BudgetGrant(self, size)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release_room(size, 1)
            else:
                # a later waiter may fit where this one did not
                future.cancel()
                self.release_room(0, 0)
            raise
        return BudgetGrant(self, size)

    def try_acquire(self, size: int) -> BudgetGrant | None:
        """Take room for reading ahead, only if there are no waiters.

        So a file's first missing range always precedes another's later ones.
        """
        if self._waiting or size > self._memory or not self._has_room(size):
            return None
        self._take_room(size)
        return BudgetGrant(self, size)

    def release_room(self, size: int, requests: int) -> None:
        """Return room for bytes and requests, and serve the waiters that now fit."""
        self._free += size
        self._requests += requests
        while self._waiting:
            size_needed, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
            elif self._has_room(size_needed):
                self._waiting.popleft()
                self._take_room(size_needed)
                future.set_result(None)
            else:
                return


class Transfer:
    """Reads files of one source. One object serves all files of an artifact."""

    def __init__(
        self, source: ArtifactSource, settings: FetchSettings, meter: TransferMeter, report: FetchReport
    ) -> None:
        self._source = source
        self._settings = settings
        self._meter = meter
        self._report = report
        self._budget = TransferBudget(settings.memory_bytes, settings.parallel)
        # several parts must fit into the memory with any settings
        self.part_bytes = min(settings.part_bytes, max(settings.memory_bytes // 4, 1))

    async def with_retries(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run the operation; repeat it after a retryable failure, at most `attempts` times in all."""
        attempt = 0
        while True:
            try:
                return await operation()
            except FetchError as error:
                attempt += 1
                await self._wait_or_raise(error, attempt)

    async def _wait_or_raise(self, error: FetchError, attempt: int) -> None:
        if not error.retry:
            raise error
        if attempt >= self._settings.attempts:
            tries = f"{attempt} tries" if attempt > 1 else "1 try"
            raise FetchError(
                error.reason,
                f"{error.message} ({tries}). The pod tries again; check that the store answers inside the cluster.",
            ) from error
        delay = min(self._settings.backoff_seconds * 2 ** (attempt - 1), self._settings.max_backoff_seconds)
        jitter = random.uniform(0.75, 1.25)  # noqa: S311 (spreads load, is no secret)
        delay = max(delay * jitter, min(error.retry_after, 120.0))
        self._meter.retries += 1
        self._report.log_event(
            "retry", f"{error.message}; next try in {delay:.1f} s", reason=str(error.reason), attempt=attempt
        )
        await asyncio.sleep(delay)

    async def fetch_file(self, file: RemoteFile, sink: Sink) -> None:
        """Write all bytes of `file` that `sink` lacks. Raises ArtifactChanged if it differs from the listed file."""
        if file.ranges and file.size is not None:
            async with aclosing(self._read_ranges(file, sink.offset, file.size)) as pieces:
                async for data in pieces:
                    await sink.write(data)
        else:
            await self._read_whole(file, sink)

    async def read_small(self, file: RemoteFile) -> tuple[Pieces, BudgetGrant | None]:
        """Return the content of a file no larger than a part; the caller releases the grant afterwards."""
        if not file.size:
            return [], None
        grant = await self._budget.acquire(file.size)
        return await self._read_part(file, 0, file.size, grant), grant

    async def _read_ranges(self, file: RemoteFile, start: int, end: int) -> AsyncGenerator[Pieces, None]:
        """Yield ranges of the file in order; they are read in parallel."""
        running: deque[tuple[asyncio.Task[Pieces], BudgetGrant]] = deque()
        position = start
        try:
            while position < end or running:
                while position < end:
                    stop = min(position + self.part_bytes, end)
                    size = stop - position
                    grant = self._budget.try_acquire(size) if running else await self._budget.acquire(size)
                    if grant is None:
                        break
                    running.append((asyncio.create_task(self._read_part(file, position, stop, grant)), grant))
                    position = stop
                task, grant = running[0]
                yield await task
                grant.release_all()
                running.popleft()
        finally:
            for task, _ in running:
                task.cancel()
            await asyncio.gather(*(task for task, _ in running), return_exceptions=True)
            for _, grant in running:
                grant.release_all()

    async def _read_part(self, file: RemoteFile, start: int, stop: int, grant: BudgetGrant) -> Pieces:
        """Return one range. Its request has ended on return; the caller releases its bytes."""
        pieces: Pieces = []
        received = attempt = 0
        try:
            while True:
                before = received
                try:
                    async for data in self._read_request(file, start + received, stop):
                        received += len(data)
                        _append_piece(pieces, data)
                    grant.end_request()
                    return pieces
                except FetchError as error:
                    attempt = 1 if received - before >= _PROGRESS_BYTES else attempt + 1
                    await self._wait_or_raise(error, attempt)
        except BaseException:
            grant.release_all()
            raise

    async def _read_whole(self, file: RemoteFile, sink: Sink) -> None:
        """Read a file that is only served as a whole: every try starts at its first byte."""
        attempt = 0
        while True:
            before = self._meter.bytes
            if sink.offset:
                await sink.reset()
            grant = await self._budget.acquire(1 << 20)
            try:
                async for data in self._read_request(file, 0, None):
                    self._check_size(sink.offset + len(data), file)
                    await sink.write([data])
                return
            except FetchError as error:
                attempt += 1
                self._meter.bytes = before
                await self._wait_or_raise(error, attempt)
            finally:
                grant.release_all()

    def _check_size(self, size: int, file: RemoteFile) -> None:
        if self._settings.max_bytes and size > self._settings.max_bytes:
            raise artifact_too_large(self._settings.max_bytes, f"{file.path} alone")

    async def _read_request(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        """Yield one request's bytes. It ends only after all of them; a stall and an early end are retryable errors."""
        loop = asyncio.get_running_loop()
        expected = (file.size if stop is None else stop - start) if file.size is not None or stop is not None else None
        received = recent = 0
        pieces = self._source.read(file, start, stop)
        deadline = loop.time() + self._settings.stall_seconds
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        data = await anext(pieces)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    raise FetchError(
                        FetchReason.DOWNLOAD_STALLED,
                        f"{file.path}: the store sent less than {_MIN_BYTES} bytes in "
                        f"{self._settings.stall_seconds:g} s at byte {start + received}",
                        retry=True,
                    ) from None
                received += len(data)
                recent += len(data)
                if expected is not None and received > expected:
                    raise ArtifactChanged(f"{file.path}: the store sent more than the {expected} bytes of the request")
                self._meter.bytes += len(data)
                yield data
                if recent >= _MIN_BYTES:
                    recent = 0
                    deadline = loop.time() + self._settings.stall_seconds
        finally:
            await pieces.aclose()
        if expected is not None and received < expected:
            raise store_unreachable(f"{file.path}: the connection ended after {received} of {expected} bytes")


def _append_piece(pieces: Pieces, data: bytes) -> None:
    """Append data. Small pieces are joined, since each one costs a call to write it."""
    if len(data) >= _PIECE_BYTES or not pieces or len(pieces[-1]) >= _PIECE_BYTES:
        pieces.append(data)
        return
    if isinstance(pieces[-1], bytes):
        pieces[-1] = bytearray(pieces[-1])
    pieces[-1] += data


def artifact_too_large(limit: int, subject: str) -> FetchError:
    """Build the error for an artifact over the limit."""
    return FetchError(
        FetchReason.ARTIFACT_TOO_LARGE,
        f"The artifact is too large: {subject} is over the limit of {format_size(limit)} "
        "(MODELWRIGHT_FETCH_MAX_BYTES). Publish less; a limit that an administrator has set (fetch.env of the chart) "
        "can be raised there.",
    )
