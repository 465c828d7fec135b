#!/usr/bin/env python3
"""A test inference server: the Open Inference Protocol V2 over HTTP, which behaves as its model tells it to.

The "model" is ``$MODEL_DIR/model.json``: ``{"behaviour": {...}}``. So an artifact decides whether a version is good,
slow, wrong, drifting, hungry or crashing, and the operator under test can't tell it from a real model. The standard
library alone is used: the image stays small and a pod answers in a fraction of a second.

Environment: ``MODEL_NAME``, ``MODEL_VERSION``, ``MODEL_DIR``, ``MODEL_HTTP_PORT``, ``MODEL_METRICS_PORT`` as the
operator sets them, ``V2_HOST`` (address to listen on, default loopback), ``V2_DRAIN_SECONDS`` (longest wait for open
requests).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_BODY = 64 * 1024 * 1024
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large"}
REASONS |= {500: "Internal Server Error", 503: "Service Unavailable"}


class ModelError(Exception):
    """The model can't be loaded; the text is the last line the process prints."""


@dataclasses.dataclass(frozen=True)
class Latency:
    """Extra time before each answer, in seconds.

    ``constant``: always ``seconds``. ``uniform``: between 0 and twice ``seconds``. ``exponential``: mean ``seconds``.
    ``lognormal``: median ``seconds``, with ``sigma`` of the underlying normal distribution.
    """

    distribution: str = "constant"
    seconds: float = 0.0
    sigma: float = 0.5

    def draw(self, rng: random.Random) -> float:
        if self.seconds <= 0:
            return 0.0
        if self.distribution == "uniform":
            return rng.uniform(0, 2 * self.seconds)
        if self.distribution == "exponential":
            return rng.expovariate(1 / self.seconds)
        if self.distribution == "lognormal":
            return self.seconds * rng.lognormvariate(0, self.sigma)
        return self.seconds


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What the model does. JSON names are the field names in camelCase; an unknown one is an error."""

    latency: Latency = Latency()
    error_share: float = 0.0  # of infer requests, answered with 500
    abort_share: float = 0.0  # of infer requests, whose connection is reset without an answer
    hang_share: float = 0.0  # of infer requests, never answered
    wrong_share: float = 0.0  # of infer requests, answered with well-formed nonsense: every output is one too large
    shift: float = 0.0  # added to every output
    crash_after_requests: int | None = None  # exits with crash_exit_code instead of answering the next one
    crash_at_load: str | None = None  # exits with this last line
    crash_exit_code: int = 3
    load_seconds: float = 0.0  # from start to ready
    memory_mebibytes: int = 0  # held from load on
    never_ready: bool = False  # alive, but the model is never ready
    seed: int | None = None  # makes the shares repeatable

    @staticmethod
    def json_name(field: str) -> str:
        head, *tail = field.split("_")
        return head + "".join(part.capitalize() for part in tail)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], base: Behaviour | None = None) -> Behaviour:
        """Reads a behaviour; fields that are absent keep the value of ``base``. Raises ValueError naming the field."""
        fields = {cls.json_name(f.name): f.name for f in dataclasses.fields(cls)}
        changes: dict[str, Any] = {}
        for name, value in data.items():
            if name not in fields:
                raise ValueError(f"behaviour.{name} is not known; known are {', '.join(sorted(fields))}")
            if name == "latency":
                try:
                    value = Latency(**value)
                except TypeError as error:
                    raise ValueError(f"behaviour.latency: {error}") from error
            elif name.endswith("Share") and not (isinstance(value, int | float) and 0 <= value <= 1):
                raise ValueError(f"behaviour.{name} must be between 0 and 1, not {value!r}")
            changes[fields[name]] = value
        return dataclasses.replace(base or cls(), **changes)

    def to_json(self) -> dict[str, Any]:
        return {self.json_name(name): value for name, value in dataclasses.asdict(self).items()}


def load_model(directory: Path) -> Behaviour:
    """Reads ``model.json``, at any depth so that an artifact with one folder works too. Raises ModelError."""
    found = sorted(directory.rglob("model.json"), key=lambda path: len(path.parts))
    if not found:
        raise ModelError(f"no model.json in {directory}")
    try:
        content = json.loads(found[0].read_bytes())
        return Behaviour.from_json(content.get("behaviour", {}))
    except (ValueError, AttributeError, OSError) as error:
        raise ModelError(f"model file {found[0]} is corrupt: {error}") from error


class Metrics:
    """Counters in the Prometheus text format, reset only by a restart."""

    def __init__(self, model: str, version: str) -> None:
        self.labels = f'model="{model}",version="{version}"'
        self.requests: Counter[str] = Counter()
        self.buckets = [0] * (len(LATENCY_BUCKETS) + 1)
        self.total_seconds = 0.0

    def observe(self, code: str, seconds: float) -> None:
        self.requests[code] += 1
        self.total_seconds += seconds
        index = next((i for i, bound in enumerate(LATENCY_BUCKETS) if seconds <= bound), len(LATENCY_BUCKETS))
        self.buckets[index] += 1

    def render(self) -> str:
        lines = ["# HELP v2_requests_total Infer requests by status code.", "# TYPE v2_requests_total counter"]
        lines += [f'v2_requests_total{{{self.labels},code="{code}"}} {n}' for code, n in sorted(self.requests.items())]
        lines += ["# HELP v2_request_seconds Time of infer requests.", "# TYPE v2_request_seconds histogram"]
        cumulated = 0
        for bound, count in zip([*map(str, LATENCY_BUCKETS), "+Inf"], self.buckets, strict=True):
            cumulated += count
            lines.append(f'v2_request_seconds_bucket{{{self.labels},le="{bound}"}} {cumulated}')
        lines.append(f"v2_request_seconds_sum{{{self.labels}}} {self.total_seconds:.6f}")
        lines.append(f"v2_request_seconds_count{{{self.labels}}} {cumulated}")
        lines.append("# HELP process_resident_memory_bytes Memory held by this process.")
        lines.append("# TYPE process_resident_memory_bytes gauge")
        lines.append(f"process_resident_memory_bytes {resident_bytes()}")
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclasses.dataclass
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"


class Abort(Exception):
    """Reset the connection instead of answering."""


def answer(status: int, value: Any) -> Response:
    return Response(status, json.dumps(value, separators=(",", ":")).encode())


def predict(body: bytes, shift: float) -> tuple[list[float], str | None]:
    """One output a row: its sum plus ``shift``. Returns the outputs and the request's id. Raises ValueError."""
    try:
        request = json.loads(body)
        tensor = request["inputs"][0]
        rows, data = int(tensor["shape"][0]), tensor["data"]
        if data and isinstance(data[0], list):
            data = [value for row in data for value in row]
        width = len(data) // rows
        if width * rows != len(data):
            raise ValueError(f"shape {tensor['shape']} does not fit {len(data)} values")
        return [sum(data[i * width : (i + 1) * width]) + shift for i in range(rows)], request.get("id")
    except (KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"not a V2 inference request: {type(error).__name__} {error}") from error


class Server:
    """One model behind one port (and a second one for metrics when asked for)."""

    def __init__(self, model: str, version: str, behaviour: Behaviour | None = None) -> None:
        self.model, self.version = model, version
        self.metrics = Metrics(model, version)
        self.faults: Counter[str] = Counter()
        self.configure(behaviour or Behaviour())
        self.ready = False
        self.draining = False
        self.infer_requests = 0
        self.ballast: bytearray | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._idle: set[asyncio.StreamWriter] = set()
        self._all_closed = asyncio.Event()
        self._listeners: list[asyncio.Server] = []
        self._prefix = f"/v2/models/{model}"
        self._version_header = f"X-Model-Version: {version}\r\n" if version else ""

    def configure(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.rng = random.Random(behaviour.seed)

    async def listen(self, host: str, port: int) -> int:
        """Starts to listen and returns the port (the one chosen by the system when 0 was asked for)."""
        listener = await asyncio.start_server(self._serve, host, port, limit=1 << 16, backlog=1024)
        self._listeners.append(listener)
        port = listener.sockets[0].getsockname()[1]
        return int(port)

    async def load(self) -> None:
        """Does what the behaviour says about loading, then becomes ready. Raises ModelError."""
        behaviour = self.behaviour
        await asyncio.sleep(behaviour.load_seconds)
        if behaviour.memory_mebibytes:
            # Written page by page, so that the memory is really taken and not merely promised by the kernel.
            self.ballast = bytearray()
            for _ in range(behaviour.memory_mebibytes):
                self.ballast += os.urandom(4096) * 256
                await asyncio.sleep(0)
        if behaviour.crash_at_load is not None:
            raise ModelError(behaviour.crash_at_load)
        self.ready = not behaviour.never_ready

    async def stop(self, drain_seconds: float) -> None:
        """Answers what is open, each with ``Connection: close``, for at most ``drain_seconds``; then closes.

        Idle connections are closed at once: whoever routes to this pod has had the preStop time to turn to others.
        """
        self.draining, self.ready = True, False
        for listener in self._listeners:
            listener.close()
        for writer in list(self._idle):
            writer.close()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), drain_seconds)
        for writer in list(self._connections):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while await self._serve_one(reader, writer):
                pass
        except Abort:
            # Linger 0: the close below sends RST, which a client sees as "connection reset".
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError):
            writer.transport.abort()
        finally:
            self._connections.discard(writer)
            self._idle.discard(writer)
            writer.close()
            if self.draining and not self._connections:
                self._all_closed.set()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self._idle.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        self._idle.discard(writer)
        request = await self._read(head, reader, writer)
        response = await self._route(request)
        keep = not self.draining and request.headers.get("connection", "").lower() != "close"
        writer.write(
            (
                f"HTTP/1.1 {response.status} {REASONS[response.status]}\r\n"
                f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n"
                f"{self._version_header}Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
            ).encode()
            + response.body
        )
        await writer.drain()
        return keep

    @staticmethod
    async def _read(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
        start, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = start.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await reader.readline()).split(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
                if len(body) > MAX_BODY:
                    raise ValueError("body too large")
            while (await reader.readline()).strip():
                pass
        elif length := int(headers.get("content-length", "0")):
            if length > MAX_BODY:
                raise ValueError("body too large")
            body = await reader.readexactly(length)
        return Request(method, target.partition("?")[0], headers, body)

    async def _route(self, request: Request) -> Response:
        path = request.path.rstrip("/")
        if path == f"{self._prefix}/infer":
            return await self._infer(request) if request.method == "POST" else answer(405, {"error": "use POST"})
        if path == "/admin/behaviour":
            return self._admin(request)
        response = self._describe(path)
        if response.status != 404 and request.method != "GET":
            return answer(405, {"error": f"{request.method} is not known for {path}"})
        return response

    def _describe(self, path: str) -> Response:
        if path == "/metrics":
            return Response(200, self.metrics.render().encode(), "text/plain; version=0.0.4")
        if path == "/v2":
            return answer(200, {"name": "v2-test", "version": "1", "extensions": []})
        if path == "/v2/health/live":
            return answer(200, {"live": True})
        if path in ("/v2/health/ready", f"{self._prefix}/ready"):
            return answer(200 if self.ready else 503, {"name": self.model, "ready": self.ready})
        if path == self._prefix:
            tensor = {"datatype": "FP64", "shape": [-1]}
            metadata = {"name": self.model, "versions": [self.version], "platform": "v2-test"}
            inputs, outputs = [{"name": "input-0", **tensor, "shape": [-1, -1]}], [{"name": "output-0", **tensor}]
            return answer(200, metadata | {"inputs": inputs, "outputs": outputs})
        return answer(404, {"error": f"nothing at {path}; the model here is {self.model}"})

    def _admin(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                self.configure(Behaviour.from_json(json.loads(request.body), self.behaviour))
            except (ValueError, AttributeError) as error:
                return answer(400, {"error": str(error)})
        state = {"version": self.version, "behaviour": self.behaviour.to_json(), "faults": dict(self.faults)}
        return answer(200, state)

    async def _infer(self, request: Request) -> Response:
        started = time.monotonic()
        behaviour = self.behaviour
        self.infer_requests += 1
        if behaviour.crash_after_requests is not None and self.infer_requests > behaviour.crash_after_requests:
            print(f"crash: told to exit after {behaviour.crash_after_requests} requests", flush=True)
            os._exit(behaviour.crash_exit_code)
        if delay := behaviour.latency.draw(self.rng):
            await asyncio.sleep(delay)
        response = await self._fault(behaviour)
        if response is None:
            try:
                shift = behaviour.shift + self._wrong(behaviour)
                response = self._outputs(*predict(request.body, shift))
            except ValueError as error:
                response = answer(400, {"error": str(error)})
        self.metrics.observe(str(response.status), time.monotonic() - started)
        return response

    async def _fault(self, behaviour: Behaviour) -> Response | None:
        if behaviour.abort_share and self.rng.random() < behaviour.abort_share:
            self.faults["abort"] += 1
            raise Abort
        if behaviour.hang_share and self.rng.random() < behaviour.hang_share:
            self.faults["hang"] += 1
            await asyncio.sleep(3600)
        if behaviour.error_share and self.rng.random() < behaviour.error_share:
            self.faults["error"] += 1
            return answer(500, {"error": "told to fail", "model_version": self.version})
        return None

    def _wrong(self, behaviour: Behaviour) -> float:
        if behaviour.wrong_share and self.rng.random() < behaviour.wrong_share:
            self.faults["wrong"] += 1
            return 1.0
        return 0.0

    def _outputs(self, outputs: list[float], request_id: str | None) -> Response:
        body = {"model_name": self.model, "model_version": self.version, "id": request_id}
        tensor = {"name": "output-0", "datatype": "FP64", "shape": [len(outputs)], "data": outputs}
        return answer(200, {key: value for key, value in body.items() if value} | {"outputs": [tensor]})


async def run() -> None:
    """Serves until SIGTERM. Raises ModelError when the model can't be loaded."""
    env = os.environ
    behaviour = load_model(Path(env.get("MODEL_DIR", "/mnt/models")))
    server = Server(env.get("MODEL_NAME", "model"), env.get("MODEL_VERSION", ""), behaviour)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host, port = env.get("V2_HOST", "127.0.0.1"), int(env.get("MODEL_HTTP_PORT") or 8080)
    port = await server.listen(host, port)
    metrics_port = int(env.get("MODEL_METRICS_PORT") or port)
    if metrics_port != port:
        await server.listen(host, metrics_port)
    print(f"listening on {host}:{port}, model {server.model}, version {server.version or '(none)'}", flush=True)
    stopped = asyncio.create_task(stop.wait())
    loading = asyncio.create_task(server.load())
    await asyncio.wait({stopped, loading}, return_when=asyncio.FIRST_COMPLETED)
    if loading.done():
        loading.result()
        print(f"model {server.model} loaded, ready: {server.ready}", flush=True)
        await stopped
    loading.cancel()
    await server.stop(float(env.get("V2_DRAIN_SECONDS", "20")))
    print(f"stopped after {server.infer_requests} infer requests", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(run())
    except ModelError as failure:
        print(f"model load failed: {failure}", flush=True)
        sys.exit(1)
