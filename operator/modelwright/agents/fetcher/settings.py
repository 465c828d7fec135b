"""Limits and timing of a fetch, read once from the environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from modelwright.agents.fetcher.errors import FetchError, FetchReason

_PREFIX = "MODELWRIGHT_FETCH_"


@dataclass(frozen=True)
class FetchSettings:
    """Each field is set by MODELWRIGHT_FETCH_<NAME>; sizes are in bytes, times in seconds."""

    stall_seconds: float = 30.0  # a request that receives less than a kilobyte in this time is cancelled and repeated
    attempts: int = 5  # tries of one request without progress before the fetch fails
    backoff_seconds: float = 1.0  # wait before the second try; doubles, with jitter, up to max_backoff_seconds
    max_backoff_seconds: float = 30.0
    parallel: int = 16  # requests at a time
    part_bytes: int = 8 << 20  # a larger file is read in ranges of this size
    memory_bytes: int = 96 << 20  # most data held in memory
    max_bytes: int = 0  # of the download; 0 is no limit
    max_unpacked_bytes: int = 256 << 30  # total of an unpacked archive
    max_unpacked_ratio: float = 200.0  # unpacked to packed, checked from 64 MiB unpacked
    max_entries: int = 100_000  # of an archive, or files of a folder
    progress_seconds: float = 5.0
    claim_seconds: float = 60.0  # a claim on the shared cache that does not change for this long is stale
    verify_cache: str = "size"  # `size`: check the sizes of a cached artifact's files; `full`: hash them again
    instance_credentials: bool = (
        False  # without credentials, ask the cloud's metadata service after an anonymous try is denied
    )


def read_fetch_settings(environment: Mapping[str, str]) -> FetchSettings:
    """Read the settings from the environment. FetchError names an invalid variable."""
    values: dict[str, object] = {}
    for field in fields(FetchSettings):
        name = _PREFIX + field.name.upper()
        text = environment.get(name, "").strip()
        if not text:
            continue
        default = field.default
        try:
            if isinstance(default, bool):
                values[field.name] = {"true": True, "false": False}[text.lower()]
            elif isinstance(default, int | float):
                number = type(default)(text)
                if not math.isfinite(number) or number < 0 or (number == 0 and field.name != "max_bytes"):
                    raise ValueError
                values[field.name] = number
            elif text in ("size", "full"):
                values[field.name] = text
            else:
                raise ValueError
        except (ValueError, KeyError):
            expected = (
                "true or false"
                if isinstance(default, bool)
                else "size or full"
                if isinstance(default, str)
                else "a number above 0"
            )
            raise FetchError(
                FetchReason.INTERNAL_ERROR, f"The environment variable {name} must be {expected}."
            ) from None
    return FetchSettings(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ContainerPaths:
    """Folders and files of the container; tests use others."""

    credentials: Path
    termination_log: Path
    source_root: Path
    holder: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], hostname: str) -> ContainerPaths:
        """Read the paths from the environment; `hostname` names the pod if it has no uid."""
        return cls(
            credentials=Path(environment.get("MODELWRIGHT_CREDENTIALS") or "/var/run/modelwright/credentials"),
            termination_log=Path(environment.get("MODELWRIGHT_TERMINATION_LOG") or "/dev/termination-log"),
            source_root=Path(environment.get("MODELWRIGHT_SOURCE_ROOT") or "/mnt/source"),
            # a restarted container must find the unfinished work of its own pod, and of no other
            holder=environment.get("MODELWRIGHT_POD_UID") or environment.get("POD_UID") or hostname,
        )
