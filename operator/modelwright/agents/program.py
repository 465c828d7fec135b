"""The skeleton of the programs that run in pods: settings from the environment, signals, logs and exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from modelwright.agents.environment import AgentSettingsError
from modelwright.obs import logging as json_logging

log = logging.getLogger(__name__)

EXIT_NO_PORT = 1
EXIT_WRONG_SETTINGS = 2

S = TypeVar("S")


class Server(Protocol):
    """A server with an orderly start and stop."""

    port: int

    async def start(self) -> None:
        """Bind the port. Raises OSError if it is taken."""
        ...

    async def stop(self) -> None:
        """Finish the work in process and close the port."""
        ...

    def total_counts(self) -> Mapping[str, int]:
        """Return the counters for the last line of the log."""
        ...


def run_program(
    read_settings: Callable[[Mapping[str, str]], S], run: Callable[[S], int], environment: Mapping[str, str] | None
) -> int:
    """Run a program with its settings and return its exit code: EXIT_WRONG_SETTINGS if a setting is invalid.

    `environment`: in place of the process' own.
    """
    try:
        settings = read_settings(os.environ if environment is None else environment)
    except AgentSettingsError as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return EXIT_WRONG_SETTINGS
    return run(settings)


def serve(create: Callable[[], Server], activity: str, **fields: str) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code: EXIT_NO_PORT if the port is taken.

    `activity` and `fields`: message and fields of the log line at the start.
    """
    json_logging.configure_logging()
    try:
        asyncio.run(_serve_until_signal(create, activity, fields))
    except OSError as error:
        log.error("the server can't listen", extra={"error": str(error)})
        return EXIT_NO_PORT
    return 0


async def _serve_until_signal(create: Callable[[], Server], activity: str, fields: Mapping[str, str]) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = create()
    await server.start()
    log.info(activity, extra={"port": server.port, **fields})
    await stopping.wait()
    await server.stop()
    log.info("stopped", extra=dict(server.total_counts()))
