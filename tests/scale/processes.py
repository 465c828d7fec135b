"""CPU time and memory of a process, from /proc."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system CPU time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_mib(pid: int, peak: bool = False) -> float:
    """Resident memory in MiB: now, or its peak since the start or `forget_peak`."""
    key = "VmHWM:" if peak else "VmRSS:"
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) / 1024


def forget_peak(pid: int) -> None:
    """Let the peak count from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
