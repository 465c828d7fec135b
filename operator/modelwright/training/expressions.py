"""Expressions in CEL over an object of another controller, evaluated where they can do no harm.

They are a policy author's. The library bounds the depth of an expression and the steps of its loops, but not memory
and not the time of a step, and it is native code; so it runs in a process of its own, with a bound on memory, which is
ended when an answer takes too long. One such process is kept, since most answers take less than a millisecond.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

Value = Any
"""What an expression gives, as JSON has it; or Unknown."""

ANSWER_BYTES: Final = 64 << 10
"""Longest answer to one question, as JSON."""
ANSWER_SECONDS: Final = 1.0
"""Longest time for all expressions of one object."""
START_SECONDS: Final = 30.0
"""Longest time for the process to start, on a host that has much else to do."""
EXPRESSION_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Unknown:
    """An expression that gave nothing: a member is missing, a type is wrong, or it took too long."""

    why: str


def evaluate(expressions: Sequence[str], live: Mapping[str, Any]) -> list[Value | Unknown]:
    """What each of `expressions` gives for `object`, the live object without metadata.managedFields. Blocks, for
    ANSWER_SECONDS at most (START_SECONDS more, when the process has to be started)."""
    metadata = {key: value for key, value in (live.get("metadata") or {}).items() if key != "managedFields"}
    answer = _EVALUATOR.ask({"expressions": list(expressions), "object": {**live, "metadata": metadata}})
    if isinstance(answer, Unknown):
        return [answer] * len(expressions)
    return [Unknown(str(entry["error"])) if "error" in entry else entry["value"] for entry in answer]


def check(expression: str) -> str | None:
    """What is wrong with an expression, whatever the object: its syntax, a name or function that doesn't exist. None
    when nothing is. Blocks as `evaluate` does."""
    if len(expression) > EXPRESSION_CHARACTERS:
        return f"it has {len(expression)} characters, and may have {EXPRESSION_CHARACTERS}"
    answer = _EVALUATOR.ask({"check": expression})
    if isinstance(answer, Unknown):
        return answer.why
    return str(answer[0]["error"]) if "error" in answer[0] else None


class _Evaluator:
    """The process, one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Mapping[str, Any]) -> list[dict[str, Any]] | Unknown:
        """The answer, or why there is none."""
        line = json.dumps(question).encode() + b"\n"
        with self._lock:
            try:
                process = self._running()
                answer = self._exchange(process, line, ANSWER_SECONDS)
            except TimeoutError:
                self._end()
                return Unknown(f"it took longer than {ANSWER_SECONDS:g} s, and was ended")
            except (OSError, EOFError):
                self._end()
                return Unknown("it needed more memory than it may have, or broke the process that evaluates it")
        found = json.loads(answer)
        return found if isinstance(found, list) else Unknown(str(found))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        process = subprocess.Popen(
            [sys.executable, "-m", "modelwright.training.evaluator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._process = process
        os.set_blocking(process.stdin.fileno(), False)  # type: ignore[union-attr]
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        # Its first line says that it is ready.
        self._exchange(process, b"", START_SECONDS)
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
                        if not data:
                            raise EOFError
                        answer += data
        return bytes(answer)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


_EVALUATOR = _Evaluator()
