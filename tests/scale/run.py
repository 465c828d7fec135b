"""How many requests, how much CPU, memory and time the operator needs for N Models on simulated nodes."""

from collections.abc import Sequence
from pathlib import Path

from tests.scale.answers import Report
from tests.scale.bench import BEGUN, EDITED, TAKEN_OVER, at_work
from tests.scale.figures import Bounds, Figures
from tests.scale.subjects import PROFILES

BASE = 500
"""The size that larger ones are compared with."""
MOST_EDITED = 2000
"""Above so many Models, edits at a pace are not measured: no bound asks for it."""
COSTS = tuple(
    f"{phase}: {what} a Model"
    for phase in ("create", "change")
    for what in ("CPU ms", "CPU ms of the API server", "writes")
)
SECONDS = ("create: seconds", "change: seconds")
RESTARTED = "restart: seconds to quiet"
WRITES = {"named": (5.0, 6.0), "default": (6.0, 7.0)}
"""The most writes to create a Model, and to change one."""
LARGER = f"times that of {BASE} Models"


def bounds(profile: str) -> Bounds:
    """What issue 12 asks for (and section 7 of the design, where the issue is silent), by number of Models."""
    create, change = WRITES[profile]
    every = {"idle: writes": 0.0, "restart: writes": 0.0, "restart: Events": 0.0}

    def memory(most: float) -> dict[str, float]:
        return dict.fromkeys(("memory MiB", "peak memory MiB", "restart: peak memory MiB"), most)

    return {
        500: {
            **every,
            **memory(110.0),
            "create: writes a Model": create,
            "change: writes a Model": change,
            "create: reads a Model": 0.0,
            "create: CPU ms a Model": 14.0,
            "change: CPU ms a Model": 20.0,
        },
        1000: {
            **every,
            **memory(150.0),
            EDITED: 1.0,
            BEGUN: 5.0,
            TAKEN_OVER: 20.0,
            "idle: CPU seconds a minute": 0.2,
        },
        5000: {
            **every,
            **memory(400.0),
            f"{RESTARTED}, {LARGER}": 11.0,
            **{f"{cost}, {LARGER}": 1.2 for cost in COSTS},
        },
    }


async def measure(profile: str, figures: Figures, idle: float, folder: Path, report: Report) -> None:
    """All figures for so many Models, each as soon as it is known."""
    async with at_work(PROFILES[profile], figures, folder, report) as bench:
        await bench.create()
        await bench.change()
        if figures.models <= MOST_EDITED:
            await bench.edit()
        values = figures.values
        values["peak memory MiB"] = max(value for key, value in values.items() if key.endswith(": peak memory MiB"))
        await bench.idle(idle)
        await bench.restart()
        await bench.kill()


def compare(results: Sequence[Figures]) -> None:
    """Add to each larger size how its cost for one Model, and its restart, are to those of the base size."""
    base = next((result for result in results if result.models == BASE), None)
    for result in results:
        if base is None or result.models <= BASE:
            continue
        for key in (*COSTS, RESTARTED, *SECONDS):
            if key in result.values and key in base.values:
                ratio = result.values[key] / base.values[key]
                if key in SECONDS:
                    result.values[f"{key} a Model, {LARGER}"] = ratio * BASE / result.models
                else:
                    result.values[f"{key}, {LARGER}"] = ratio
