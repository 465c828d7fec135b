"""Runs the comparer until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping

from modelwright.agents.comparer.comparer import Comparer
from modelwright.agents.comparer.settings import AgentSettingsError, ComparerSettings, read_comparer_settings
from modelwright.obs import logging as json_logging

log = logging.getLogger(__name__)

SETTINGS_WRONG = 2


def run_comparer(environment: Mapping[str, str] | None = None) -> int:
    """Exit code: 0 as told by SIGTERM, 2 when a setting is wrong, 1 when the port can't be had."""
    try:
        settings = read_comparer_settings(os.environ if environment is None else environment)
    except AgentSettingsError as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return SETTINGS_WRONG
    json_logging.configure_logging()
    try:
        asyncio.run(_serve_until_signal(settings))
    except OSError as error:
        log.error("the comparer can't listen", extra={"error": str(error)})
        return 1
    return 0


async def _serve_until_signal(settings: ComparerSettings) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    comparer = Comparer(settings)
    await comparer.start()
    pair = {"serving": settings.serving_revision, "candidate": settings.candidate_revision}
    log.info("comparing", extra={"port": comparer.port, **pair})
    await told.wait()
    await comparer.stop()
    summary = comparer.stats.build_summary()
    log.info("stopped", extra={"compared": summary.compared, "rows": summary.rows, "differ": summary.disagreements})
