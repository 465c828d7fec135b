"""The open-loop load client: it asks at a fixed rate whether or not answers come, so a stall can't hide behind itself.

A request is lost when anything but a 200 comes back: an error status, a refused or reset connection, an answer cut
short, no answer in time. Nothing is ever sent twice. Two kinds of callers run at once: keep-alive ones, which share a
pool of connections, and fresh ones, which open a connection for each request. Latency counts from the moment a request
was due, so time it waited inside this client is part of it.

Written on asyncio streams rather than on an HTTP library: a library retries on stale connections (which would hide
losses) and costs several times the CPU, which the cluster under test needs on a small host.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

VERSION_HEADER = b"x-model-version:"
VERSION_FIELD = b'"model_version":'
UNKNOWN = "(no version)"


@dataclasses.dataclass(frozen=True)
class Target:
    """The target of a load: a ``POST`` of one body.

    ``url`` names path and ``Host``; ``address`` (host, port) is where to connect when that differs, such as a
    gateway on a loopback port.
    """

    url: str
    body: bytes
    address: tuple[str, int] | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def connect_to(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{self.url}: the load client speaks http:// only")
        return self.address or (parts.hostname, parts.port or 80)

    def request(self, *, keep_alive: bool) -> bytes:
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": parts.netloc, "Content-Type": "application/json", "Content-Length": str(len(self.body))}
        headers |= {"Connection": "keep-alive" if keep_alive else "close", **self.headers}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclasses.dataclass(frozen=True)
class Lost:
    """One request without a good response."""

    number: int  # which request, from 0
    due: float  # seconds after the start
    clock: float  # Unix time at which it was given up
    seconds: float  # from due to given up
    connection: str  # keep-alive | fresh
    kind: str  # status | refused | reset | closed | timeout | malformed
    cause: str
    version: str | None = None
    status: int | None = None

    def __str__(self) -> str:
        when = time.strftime("%H:%M:%S", time.gmtime(self.clock)) + f".{int(self.clock % 1 * 1000):03d}Z"
        who = f" by {self.version}" if self.version else ""
        return (
            f"{when} request {self.number} (due at {self.due:.3f} s, {self.connection}): {self.kind}{who}: {self.cause}"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One good response: when it was due (seconds after the start), how long it took from then, and which version
    gave it."""

    due: float
    seconds: float
    version: str


@dataclasses.dataclass
class Report:
    """The results of a load. ``versions`` counts good responses; latencies are seconds from the moment each was due."""

    rate: float
    total: int = 0
    lost: list[Lost] = dataclasses.field(default_factory=list)
    versions: Counter[str] = dataclasses.field(default_factory=Counter)
    by_connection: Counter[str] = dataclasses.field(default_factory=Counter)
    timeline: dict[int, Counter[str]] = dataclasses.field(default_factory=dict)
    latencies: list[float] = dataclasses.field(default_factory=list)
    answers: list[Answer] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    latest_start: float = 0.0
    connections_opened: int = 0

    @property
    def answered(self) -> int:
        return len(self.latencies)

    def percentile(self, share: float) -> float:
        """Return the latency in seconds that ``share`` of the good responses met; NaN without any."""
        if not self.latencies:
            return math.nan
        ordered = sorted(self.latencies)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def to_json(self) -> dict[str, object]:
        percentiles = {name: self.percentile(share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
        latency = {name: None if math.isnan(value) else round(value, 6) for name, value in percentiles.items()}
        return {
            "rate": self.rate,
            "seconds": round(self.seconds, 3),
            "total": self.total,
            "answered": self.answered,
            "lost": len(self.lost),
            "lostByKind": dict(Counter(lost.kind for lost in self.lost)),
            "versions": dict(self.versions),
            "connections": dict(self.by_connection) | {"opened": self.connections_opened},
            "latencySeconds": latency | {"max": round(max(self.latencies), 6) if self.latencies else None},
            "latestStartSeconds": round(self.latest_start, 6),
            "lostRequests": [dataclasses.asdict(lost) for lost in self.lost],
        }

    def lines(self, most: int = 10) -> list[str]:
        """Format the report, with at most ``most`` lost requests in detail."""
        versions = ", ".join(f"{version} {count}" for version, count in sorted(self.versions.items())) or "none"
        ways = ", ".join(f"{way} {count}" for way, count in sorted(self.by_connection.items()))
        milliseconds = [f"{name} {self.percentile(share) * 1000:.1f}" for name, share in (("p50", 0.5), ("p95", 0.95))]
        milliseconds += [f"p99 {self.percentile(0.99) * 1000:.1f}", f"max {max(self.latencies, default=0) * 1000:.1f}"]
        lines = [
            f"{self.total} requests in {self.seconds:.1f} s ({self.rate:g} a second asked for; {ways})",
            f"answered by version: {versions}",
            f"latency from due time, ms: {', '.join(milliseconds)}",
            f"lost: {len(self.lost)}",
        ]
        lines += [f"  {lost}" for lost in self.lost[:most]]
        if len(self.lost) > most:
            kinds = Counter(f"{lost.kind}: {lost.cause}" for lost in self.lost)
            lines.append(
                f"  and more; in all: {'; '.join(f'{count} x {kind}' for kind, count in kinds.most_common(8))}"
            )
        if self.latest_start > 0.25:
            lines.append(f"this client was up to {self.latest_start:.2f} s late in sending: its host was busy")
        return lines


class _Failure(Exception):
    def __init__(self, kind: str, cause: str, version: str | None = None, status: int | None = None) -> None:
        super().__init__(cause)
        self.kind, self.cause, self.version, self.status = kind, cause, version, status


@dataclasses.dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def usable(self) -> bool:
        return not (self.reader.at_eof() or self.writer.is_closing() or self.reader.exception())


class Load:
    """Runs one load.

    ``fresh_share`` of the requests, spread evenly, use their own connection. ``check`` reads the body of every
    200 and returns why it is wrong, or None; a wrong response is lost too. ``bodies``, when given, are sent in
    turn instead of the target's.
    """

    def __init__(
        self,
        target: Target,
        *,
        rate: float,
        timeout: float = 10.0,
        fresh_share: float = 0.2,
        check: Callable[[bytes], str | None] | None = None,
        bodies: Sequence[bytes] = (),
    ) -> None:
        if rate <= 0 or not 0 <= fresh_share <= 1:
            raise ValueError("rate must be above 0 and fresh_share between 0 and 1")
        self.target, self.rate, self.timeout = target, rate, timeout
        self.fresh_share, self.check = fresh_share, check
        self.report = Report(rate)
        self._host, self._port = target.connect_to()
        targets = [dataclasses.replace(target, body=body) for body in bodies] or [target]
        self._requests = {
            way: [each.request(keep_alive=way == "keep-alive") for each in targets] for way in ("keep-alive", "fresh")
        }
        self._pool: list[_Connection] = []
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Send no further request; ``run`` returns when those in flight have ended."""
        self._stop.set()

    async def run(self, *, seconds: float | None = None, requests: int | None = None) -> Report:
        """Send until ``seconds`` have passed, ``requests`` were sent or ``stop`` is called, then await the
        responses."""
        tasks: set[asyncio.Task[None]] = set()
        start = time.perf_counter()
        number = 0
        limit = math.inf if requests is None else requests
        end = math.inf if seconds is None else seconds
        while number < limit and not self._stop.is_set():
            # All due requests are sent before sleeping until the next one: a late wake-up catches up, and skips
            # nothing.
            now = time.perf_counter() - start
            while number < limit and (due := number / self.rate) <= now and due < end:
                self.report.latest_start = max(self.report.latest_start, now - due)
                task = asyncio.create_task(self._one(number, start, due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            if number / self.rate >= end:
                break
            await asyncio.sleep(max(0.0, number / self.rate - (time.perf_counter() - start)))
        self.report.seconds = time.perf_counter() - start
        while tasks:
            await asyncio.wait(tasks)
        for connection in self._pool:
            connection.writer.close()
        self._pool.clear()
        return self.report

    async def _one(self, number: int, start: float, due: float) -> None:
        fresh = math.floor((number + 1) * self.fresh_share) > math.floor(number * self.fresh_share)
        way = "fresh" if fresh else "keep-alive"
        report = self.report
        report.total += 1
        report.by_connection[way] += 1
        try:
            async with asyncio.timeout(self.timeout - (time.perf_counter() - start - due)):
                version = await self._exchange(way, number)
        except TimeoutError:
            failure = _Failure("timeout", f"no answer within {self.timeout:g} s")
        except _Failure as error:
            failure = error
        else:
            seconds = time.perf_counter() - start - due
            report.latencies.append(seconds)
            report.answers.append(Answer(due, seconds, version))
            report.versions[version] += 1
            report.timeline.setdefault(int(due + seconds), Counter())[version] += 1
            return
        seconds = time.perf_counter() - start - due
        why = (failure.kind, failure.cause, failure.version, failure.status)
        report.lost.append(Lost(number, due, time.time(), seconds, way, *why))

    async def _exchange(self, way: str, number: int) -> str:
        connection = await self._connection(way)
        keep = False
        try:
            requests = self._requests[way]
            connection.writer.write(requests[number % len(requests)])
            status, keep, head, body = await self._answer(connection.reader)
        except asyncio.IncompleteReadError as error:
            raise _Failure("closed", f"connection closed after {len(error.partial)} bytes of an answer") from error
        except OSError as error:
            raise _Failure("reset", str(error) or type(error).__name__) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise _Failure("malformed", f"not an HTTP answer: {error}") from error
        finally:
            if keep and way == "keep-alive":
                self._pool.append(connection)
            else:
                connection.writer.transport.abort()
        version = version_of(head, body)
        if status != 200:
            raise _Failure("status", f"{status} {body[:200].decode(errors='replace').strip()}", version, status)
        if self.check and (wrong := self.check(body)):
            raise _Failure("wrong", wrong, version)
        return version or UNKNOWN

    async def _connection(self, way: str) -> _Connection:
        if way == "keep-alive":
            while self._pool:
                connection = self._pool.pop()
                if connection.usable():
                    return connection
                # The server closed it while idle, before its next use: any client opens another connection.
                connection.writer.transport.abort()
        try:
            connection = _Connection(*await asyncio.open_connection(self._host, self._port))
        except OSError as error:
            raise _Failure("refused", str(error)) from error
        self.report.connections_opened += 1
        return connection

    @staticmethod
    async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes, bytes]:
        head = await reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        status = int(head[9:12])
        keep = b"\r\nconnection: close" not in lowered
        if (at := lowered.find(b"\r\ncontent-length:")) >= 0:
            length = int(lowered[at + 17 : lowered.index(b"\r\n", at + 2)])
            return status, keep, head, await reader.readexactly(length)
        if b"\r\ntransfer-encoding: chunked" in lowered:
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
            while (await reader.readuntil(b"\r\n")) != b"\r\n":
                pass
            return status, keep, head, body
        return status, False, head, await reader.read()


def version_of(head: bytes, body: bytes) -> str | None:
    """Return the version that responded: header ``X-Model-Version``, else the V2 field ``model_version``."""
    lowered = head.lower()
    if (at := lowered.find(b"\r\n" + VERSION_HEADER)) >= 0:
        start = at + 2 + len(VERSION_HEADER)
        return head[start : head.index(b"\r\n", start)].strip().decode()
    if VERSION_FIELD in body:
        try:
            value = json.loads(body).get("model_version")
        except (ValueError, AttributeError):
            return None
        return str(value) if value else None
    return None


def v2_body(rows: Sequence[Sequence[float]], *, name: str = "input-0", datatype: str = "FP64") -> bytes:
    """Build a V2 inference request for a batch: one tensor of shape (rows, columns), as JSON."""
    data = [value for row in rows for value in row]
    tensor = {"name": name, "shape": [len(rows), len(rows[0])], "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
