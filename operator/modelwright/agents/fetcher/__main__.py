"""`python -m modelwright.agents.fetcher`: entry point of the fetch image."""

import ctypes

from modelwright.agents.fetcher.command import run_fetcher

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def _keep_memory() -> None:
    """Make glibc reuse freed buffers instead of returning each one: a third less system time for a large file."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)
        mallopt(_M_TOP_PAD, 8 << 20)


if __name__ == "__main__":
    _keep_memory()
    raise SystemExit(run_fetcher())
