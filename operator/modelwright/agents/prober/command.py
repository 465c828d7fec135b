"""Runs the probe and writes its report for the kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from modelwright.agents import program
from modelwright.agents.gate_report import write_report
from modelwright.agents.prober.probe import run_probe
from modelwright.agents.prober.settings import ProberSettings, read_prober_settings


def run_prober(environment: Mapping[str, str] | None = None) -> int:
    """Return the exit code: 0 with a report, of any outcome; 2 if a setting is invalid."""
    return program.run_program(read_prober_settings, _report_probe, environment)


def _report_probe(settings: ProberSettings) -> int:
    write_report(asyncio.run(run_probe(settings)).to_json(), settings.termination_log)
    return 0
