"""Asks the process that reads tenants' languages, in turns, and keeps what it answered.

Parsers of languages are native code that bounds neither memory nor time, or Python that holds the event loop. So they
run in one process with a bound on memory, which is ended when an answer takes too long. It starts with the first
question, and is kept, since most answers take less than a millisecond.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, ParamSpec, TypeVar

from modelwright.sandbox import bounds
from modelwright.sandbox.bounds import Language

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A question without an answer: why, for people ("it took ...")."""

    why: str


class Busy(Exception):
    """A question of the same namespace has its turn already."""


class Line:
    """One place, and who waits for it: those with `last` after all others, each in the order in which they came."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = deque(), deque()

    @asynccontextmanager
    async def place(self, last: bool) -> AsyncIterator[None]:
        """Hold the place."""
        if self._taken:
            mine = asyncio.get_running_loop().create_future()
            self._waiting[last].append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._pass_on()
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the place to the next, who has it from now on: nobody comes between."""
        for waiting in self._waiting:
            while waiting:
                mine = waiting.popleft()
                if not mine.done() and not mine.get_loop().is_closed():
                    mine.set_result(None)
                    return
        self._taken = False


class Sandbox:
    """The process, one question at a time; what it answered; and whose turn it is.

    `ask` and `known` may be called from any thread; the rest belongs to one event loop at a time.
    """

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._keeping = threading.Lock()
        """Held for moments only: the event loop may wait for it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: set[Language] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._turns: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._line = Line()
        self._broken = 0
        """Questions that broke the bounds."""
        self._breakers: OrderedDict[str, float] = OrderedDict()
        """Namespaces that asked them, and until when that counts."""
        self._ended: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def known(self, language: Language, question: Any) -> Any | Unknown | None:
        """The answer to a question that was asked with `keep`, None when it is not kept (any more)."""
        key = _key(language, question)
        with self._keeping:
            answer = self._kept.get(key)
            if answer is not None:
                self._kept.move_to_end(key)
        return json.loads(answer) if answer is not None else self._why_ended(key)

    def ask(self, language: Language, question: Any, *, keep: bool = False, about: Any = None) -> Any | Unknown:
        """The answer, or why there is none. Blocks for CPU_SECONDS of that process at most (ANSWER_SECONDS on the
        clock), and for START_SECONDS more when it has to be started.

        `keep`: the answer follows from the question alone, and may be asked for again. `about`: what of the question is
        the tenant's text: once it broke the bounds, no question about it is asked for ENDED_SECONDS. When None, all of
        the question.
        """
        key = _key(language, about if about is not None else question)
        line = json.dumps([language, question]).encode() + b"\n"
        with self._asking:
            if (ended := self._why_ended(key)) is not None:
                return ended
            try:
                answer = self._exchange(self._running(language), line, bounds.ANSWER_SECONDS)
            except TimeoutError:
                return self._end_for(key, f"it took longer than {bounds.ANSWER_SECONDS:g} s, and was ended")
            except (OSError, EOFError):
                if self._signal() == signal.SIGPROF:
                    why = f"it took longer than {bounds.CPU_SECONDS:g} s of CPU time, and was ended"
                else:
                    why = "it needed more memory than it may have, or broke the process that reads it"
                return self._end_for(key, why)
            if keep:
                self._keep(key, answer)
        return json.loads(answer)

    async def in_turn(self, who: str, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Call `function`, which asks, in the sandbox's one thread, when it is the turn of the namespace `who`. Each
        namespace has one turn at a time, so that none waits for more than one question of each other one; and those
        whose questions broke the bounds lately come after all others, so that nobody waits for them again."""
        turn = self._turns.setdefault(who, asyncio.Lock())
        self._waiting[who] += 1
        try:
            async with turn, self._line.place(self._broke_lately(who)):
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "sandbox")
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._watched, who, partial(function, *args, **options)
                )
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._turns[who], self._waiting[who]

    async def in_free_turn(self, who: str, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """As `in_turn`, for a pass, which has a worker of the queue: raises Busy instead of waiting for another
        question of the same namespace, so that no namespace holds more than one worker here."""
        if self._waiting[who]:
            raise Busy
        return await self.in_turn(who, function, *args, **options)

    def _broke_lately(self, who: str) -> bool:
        return time.monotonic() < self._breakers.get(who, 0.0)

    def _watched(self, who: str, function: Callable[[], T]) -> T:
        """Call `function` in the sandbox's thread, and note when a question of it breaks the bounds."""
        broken = self._broken
        try:
            return function()
        finally:
            if self._broken != broken:
                with self._keeping:
                    self._breakers[who] = time.monotonic() + bounds.ENDED_SECONDS
                    self._breakers.move_to_end(who)
                    if len(self._breakers) > bounds.KEPT_ENDED:
                        self._breakers.popitem(last=False)

    def _why_ended(self, key: bytes) -> Unknown | None:
        with self._keeping:
            until, why = self._ended.get(key, (0.0, ""))
        return Unknown(why) if time.monotonic() < until else None

    def _end_for(self, key: bytes, why: str) -> Unknown:
        self._end()
        self._broken += 1
        with self._keeping:
            self._ended[key] = (time.monotonic() + bounds.ENDED_SECONDS, why)
            self._ended.move_to_end(key)
            if len(self._ended) > bounds.KEPT_ENDED:
                self._ended.popitem(last=False)
        return Unknown(why)

    def _keep(self, key: bytes, answer: bytes) -> None:
        with self._keeping:
            self._kept_bytes += len(answer) - len(self._kept.get(key, b""))
            self._kept[key] = answer
            while self._kept_bytes > bounds.KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= len(oldest)

    def _running(self, language: Language) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or process.poll() is not None:
            self._end()
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "modelwright.sandbox.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            os.set_blocking(process.stdin.fileno(), False)  # type: ignore[union-attr]
            os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
            # Its first line says that it is ready.
            self._exchange(process, b"", bounds.START_SECONDS)
        if language not in self._loaded:
            self._exchange(process, json.dumps([language, None]).encode() + b"\n", bounds.START_SECONDS)
            self._loaded.add(language)
        return process

    def _exchange(self, process: subprocess.Popen[bytes], line: bytes, patience: float) -> bytes:
        """Write `line`, and read one. Raises TimeoutError, EOFError, OSError."""
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        source, sink = process.stdout.fileno(), process.stdin.fileno()
        deadline, rest, answer = time.monotonic() + patience, memoryview(line), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            if rest:
                selector.register(sink, selectors.EVENT_WRITE)
            while not answer.endswith(b"\n"):
                left = deadline - time.monotonic()
                ready = selector.select(left) if left > 0 else []
                if not ready:
                    raise TimeoutError
                for key, _ in ready:
                    if key.fd == sink:
                        rest = rest[os.write(sink, rest) :]
                        if not rest:
                            selector.unregister(sink)
                    else:
                        data = os.read(source, 1 << 16)
                        answer += data
                        if not data or len(answer) > bounds.ANSWER_BYTES:
                            raise EOFError
        return bytes(answer)

    def _signal(self) -> int | None:
        """What has ended the process, None while it runs."""
        if self._process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    def _end(self) -> None:
        process, self._process = self._process, None
        self._loaded.clear()
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


def _key(language: Language, question: Any) -> bytes:
    return sha256(json.dumps([language, question]).encode()).digest()


SANDBOX = Sandbox()
"""The one of this process."""
