"""Free ports for control planes that run side by side."""

from __future__ import annotations

import fcntl
import itertools
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from typing import IO

from devcluster import paths

# Below the kernel's ephemeral range, so that no outgoing connection takes a port between its choice and its use.
_LOWEST, _HIGHEST = 18000, 31999
_BLOCK = 200
# Hypothesis sets the seed of `random` in every process alike.
_RANDOM = random.SystemRandom()


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Choose unused ports from a block reserved for this process, so that they stay free until they are used."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = next(_candidates())
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((address, port))
            except OSError:
                continue
            ports.append(port)
    return ports


@cache
def _candidates() -> Iterator[int]:
    """Yield the ports of this process's block; its file stays locked until the process ends."""
    folder = paths.cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    blocks = list(range(_LOWEST, _HIGHEST + 1 - _BLOCK, _BLOCK))
    _RANDOM.shuffle(blocks)
    for first in blocks:
        lock = (folder / f"ports-{first}.lock").open("w")
        if _locked(lock):
            _LOCKS.append(lock)
            return itertools.cycle(range(first, first + _BLOCK))
        lock.close()
    raise RuntimeError(f"all {len(blocks)} blocks of ports are taken by other processes")


_LOCKS: list[IO[str]] = []


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
