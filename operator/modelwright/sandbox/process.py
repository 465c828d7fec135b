"""Sends questions to the process that reads tenants' languages, one at a time, and caches its answers.

Parsers of languages are native code without bounds on memory or time, or Python that blocks the event loop. So they
run in one process with bounded memory, which is killed when an answer takes too long. It starts with the first
question, and keeps running, since most answers take less than a millisecond.
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
    """The result of a question without an answer; `why` is for messages ("it took ...")."""

    why: str


class SandboxBusy(Exception):
    """Another question of the same namespace is being answered."""


class PriorityLock:
    """A lock with two queues of waiters, first in, first out: those with `last` come after all others."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = deque(), deque()

    @asynccontextmanager
    async def acquire_place(self, last: bool) -> AsyncIterator[None]:
        """Hold the lock."""
        if self._is_held:
            turn = asyncio.get_running_loop().create_future()
            self._waiting[last].append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        self._is_held = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Hand the lock to the next waiter, without a moment at which another task could take it."""
        for waiting in self._waiting:
            while waiting:
                turn = waiting.popleft()
                if not turn.done() and not turn.get_loop().is_closed():
                    turn.set_result(None)
                    return
        self._is_held = False


class Sandbox:
    """The process, which answers one question at a time; the cache of its answers; and the turns of namespaces.

    `send_question` and `get_cached` may be called from any thread; the rest belongs to one event loop at a time.
    """

    def __init__(self) -> None:
        self._exchange_lock = threading.Lock()
        self._cache_lock = threading.Lock()
        """Held briefly only: the event loop may wait for it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: set[Language] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._namespace_locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cache_bytes = 0
        self._queue = PriorityLock()
        self._violations = 0
        """Number of questions that exceeded the limits."""
        self._violators: OrderedDict[str, float] = OrderedDict()
        """Namespaces of such questions, with the end of their last place in the queue."""
        self._failures: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def get_cached(self, language: Language, question: Any) -> Any | NoAnswer | None:
        """Return the cached answer to a question that was sent with `keep`; None when there is none (any more)."""
        key = _question_key(language, question)
        with self._cache_lock:
            answer = self._cache.get(key)
            if answer is not None:
                self._cache.move_to_end(key)
        return json.loads(answer) if answer is not None else self._recent_failure(key)

    def send_question(
        self, language: Language, question: Any, *, keep: bool = False, about: Any = None
    ) -> Any | NoAnswer:
        """Return the answer, or why there is none.

        Blocks for at most QUESTION_CPU_SECONDS of the process (QUESTION_SECONDS on the clock), and for START_SECONDS
        more when the process must be started. `keep`: the answer depends on the question only, and is cached.
        `about`: the tenant's text in the question, by default all of it. Once it has exceeded the limits, no question
        about it is sent for FAILED_QUESTION_SECONDS.
        """
        key = _question_key(language, about if about is not None else question)
        line = json.dumps([language, question]).encode() + b"\n"
        with self._exchange_lock:
            if (failure := self._recent_failure(key)) is not None:
                return failure
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

    async def run_in_turn(self, namespace: str, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Call `function`, which sends questions, in the sandbox's one thread, in the turn of `namespace`.

        Each namespace has one turn at a time, so that none waits for more than one question of each other one.
        Namespaces whose questions have recently exceeded the limits come after all others, which then don't wait for
        them again.
        """
        lock = self._namespace_locks.setdefault(namespace, asyncio.Lock())
        self._waiting[namespace] += 1
        try:
            async with lock, self._queue.acquire_place(self._violated_recently(namespace)):
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "sandbox")
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._run_and_note, namespace, partial(function, *args, **options)
                )
        finally:
            self._waiting[namespace] -= 1
            if not self._waiting[namespace]:
                del self._namespace_locks[namespace], self._waiting[namespace]

    async def run_if_free(self, namespace: str, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """As `run_in_turn`, for a reconciliation, which holds a worker of the queue.

        Raises SandboxBusy instead of waiting for another question of the same namespace, so that no namespace blocks
        more than one worker here.
        """
        if self._waiting[namespace]:
            raise SandboxBusy
        return await self.run_in_turn(namespace, function, *args, **options)

    def _violated_recently(self, namespace: str) -> bool:
        return time.monotonic() < self._violators.get(namespace, 0.0)

    def _run_and_note(self, namespace: str, function: Callable[[], T]) -> T:
        """Call `function` in the sandbox's thread, and record when one of its questions exceeds the limits."""
        violations_before = self._violations
        try:
            return function()
        finally:
            if self._violations != violations_before:
                with self._cache_lock:
                    self._violators[namespace] = time.monotonic() + limits.FAILED_QUESTION_SECONDS
                    self._violators.move_to_end(namespace)
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
            # The first line of the process reports that it is ready.
            self._exchange_line(process, b"", limits.START_SECONDS)
        if language not in self._loaded:
            self._exchange_line(process, json.dumps([language, None]).encode() + b"\n", limits.START_SECONDS)
            self._loaded.add(language)
        return process

    def _exchange_line(self, process: subprocess.Popen[bytes], line: bytes, timeout: float) -> bytes:
        """Write `line`, and read one. Raises TimeoutError after `timeout` seconds, EOFError and OSError."""
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        source, sink = process.stdout.fileno(), process.stdin.fileno()
        deadline, rest, answer = time.monotonic() + timeout, memoryview(line), bytearray()
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
        """Return the signal that has ended the process; None while it runs."""
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
"""The sandbox of this process."""
