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

from modelwright.sandbox import limits
from modelwright.sandbox.limits import Language

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A question without an answer: why, for people ("it took ...")."""

    why: str


class SandboxBusy(Exception):
    """A question of the same namespace has its turn already."""


class PriorityLock:
    """One place, and who waits for it: those with `last` after all others, each in the order in which they came."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = deque(), deque()

    @asynccontextmanager
    async def acquire_place(self, last: bool) -> AsyncIterator[None]:
        """Hold the place."""
        if self._is_held:
            mine = asyncio.get_running_loop().create_future()
            self._waiting[last].append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._pass_on()
                raise
        self._is_held = True
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
        self._is_held = False


class Sandbox:
    """The process, one question at a time; what it answered; and whose turn it is.

    `ask` and `known` may be called from any thread; the rest belongs to one event loop at a time.
    """

    def __init__(self) -> None:
        self._exchange_lock = threading.Lock()
        self._cache_lock = threading.Lock()
        """Held for moments only: the event loop may wait for it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: set[Language] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._namespace_locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cache_bytes = 0
        self._queue = PriorityLock()
        self._violations = 0
        """Questions that broke the bounds."""
        self._violators: OrderedDict[str, float] = OrderedDict()
        """Namespaces that asked them, and until when that counts."""
        self._failures: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def get_cached(self, language: Language, question: Any) -> Any | NoAnswer | None:
        """The answer to a question that was asked with `keep`, None when it is not kept (any more)."""
        key = _question_key(language, question)
        with self._cache_lock:
            answer = self._cache.get(key)
            if answer is not None:
                self._cache.move_to_end(key)
        return json.loads(answer) if answer is not None else self._recent_failure(key)

    def send_question(
        self, language: Language, question: Any, *, keep: bool = False, about: Any = None
    ) -> Any | NoAnswer:
        """The answer, or why there is none. Blocks for CPU_SECONDS of that process at most (ANSWER_SECONDS on the
        clock), and for START_SECONDS more when it has to be started.

        `keep`: the answer follows from the question alone, and may be asked for again. `about`: what of the question is
        the tenant's text: once it broke the bounds, no question about it is asked for ENDED_SECONDS. When None, all of
        the question.
        """
        key = _question_key(language, about if about is not None else question)
        line = json.dumps([language, question]).encode() + b"\n"
        with self._exchange_lock:
            if (ended := self._recent_failure(key)) is not None:
                return ended
            try:
                answer = self._exchange_line(self._ensure_process(language), line, limits.QUESTION_SECONDS)
            except TimeoutError:
                return self._fail_question(key, f"it took longer than {limits.QUESTION_SECONDS:g} s, and was ended")
            except (OSError, EOFError):
                if self._exit_signal() == signal.SIGPROF:
                    why = f"it took longer than {limits.QUESTION_CPU_SECONDS:g} s of CPU time, and was ended"
                else:
                    why = "it needed more memory than it may have, or broke the process that reads it"
                return self._fail_question(key, why)
            if keep:
                self._cache_answer(key, answer)
        return json.loads(answer)

    async def run_in_turn(self, who: str, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Call `function`, which asks, in the sandbox's one thread, when it is the turn of the namespace `who`. Each
        namespace has one turn at a time, so that none waits for more than one question of each other one; and those
        whose questions broke the bounds lately come after all others, so that nobody waits for them again."""
        turn = self._namespace_locks.setdefault(who, asyncio.Lock())
        self._waiting[who] += 1
        try:
            async with turn, self._queue.acquire_place(self._violated_recently(who)):
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "sandbox")
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._run_and_note, who, partial(function, *args, **options)
                )
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._namespace_locks[who], self._waiting[who]

    async def run_if_free(self, who: str, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """As `in_turn`, for a pass, which has a worker of the queue: raises Busy instead of waiting for another
        question of the same namespace, so that no namespace holds more than one worker here."""
        if self._waiting[who]:
            raise SandboxBusy
        return await self.run_in_turn(who, function, *args, **options)

    def _violated_recently(self, who: str) -> bool:
        return time.monotonic() < self._violators.get(who, 0.0)

    def _run_and_note(self, who: str, function: Callable[[], T]) -> T:
        """Call `function` in the sandbox's thread, and note when a question of it breaks the bounds."""
        broken = self._violations
        try:
            return function()
        finally:
            if self._violations != broken:
                with self._cache_lock:
                    self._violators[who] = time.monotonic() + limits.FAILED_QUESTION_SECONDS
                    self._violators.move_to_end(who)
                    if len(self._violators) > limits.MAX_FAILED_QUESTIONS:
                        self._violators.popitem(last=False)

    def _recent_failure(self, key: bytes) -> NoAnswer | None:
        with self._cache_lock:
            until, why = self._failures.get(key, (0.0, ""))
        return NoAnswer(why) if time.monotonic() < until else None

    def _fail_question(self, key: bytes, why: str) -> NoAnswer:
        self._kill_process()
        self._violations += 1
        with self._cache_lock:
            self._failures[key] = (time.monotonic() + limits.FAILED_QUESTION_SECONDS, why)
            self._failures.move_to_end(key)
            if len(self._failures) > limits.MAX_FAILED_QUESTIONS:
                self._failures.popitem(last=False)
        return NoAnswer(why)

    def _cache_answer(self, key: bytes, answer: bytes) -> None:
        with self._cache_lock:
            self._cache_bytes += len(answer) - len(self._cache.get(key, b""))
            self._cache[key] = answer
            while self._cache_bytes > limits.CACHE_BYTES:
                _, oldest = self._cache.popitem(last=False)
                self._cache_bytes -= len(oldest)

    def _ensure_process(self, language: Language) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or process.poll() is not None:
            self._kill_process()
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
            self._exchange_line(process, b"", limits.START_SECONDS)
        if language not in self._loaded:
            self._exchange_line(process, json.dumps([language, None]).encode() + b"\n", limits.START_SECONDS)
            self._loaded.add(language)
        return process

    def _exchange_line(self, process: subprocess.Popen[bytes], line: bytes, patience: float) -> bytes:
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
                        if not data or len(answer) > limits.MAX_ANSWER_BYTES:
                            raise EOFError
        return bytes(answer)

    def _exit_signal(self) -> int | None:
        """What has ended the process, None while it runs."""
        if self._process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    def _kill_process(self) -> None:
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


def _question_key(language: Language, question: Any) -> bytes:
    return sha256(json.dumps([language, question]).encode()).digest()


SANDBOX = Sandbox()
"""The one of this process."""
