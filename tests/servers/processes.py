"""Programs that tests start beside themselves: each with a log in one folder, all ended together."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx


@dataclass
class Processes:
    """Use in a `with` block."""

    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        """Its output goes to NAME.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        self._stack.callback(_end, process)

    def wait(self, url: str, seconds: float = 60) -> None:
        """Until this is answered with 200. Raises AssertionError with the ends of all logs."""
        limit = time.monotonic() + seconds
        while True:
            try:
                if httpx.get(url, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > limit:
                raise AssertionError(f"{url} does not answer after {seconds:g} s; the logs end:\n{self._ends()}")
            time.sleep(0.5)

    def _ends(self) -> str:
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            for log in sorted(self.folder.glob("*.log"))
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
