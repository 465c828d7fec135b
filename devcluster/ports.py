"""Free ports for control planes that run side by side."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the kernel's ephemeral range, so that no outgoing connection takes a port between its choice and its use.
_LOWEST, _HIGHEST = 18000, 31999
# Hypothesis sets the seed of `random` in every process alike.
_RANDOM = random.SystemRandom()


def free(count: int, address: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on, chosen at random so that two callers don't choose the same."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = _RANDOM.randint(_LOWEST, _HIGHEST)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((address, port))
            except OSError:
                continue
            found.append(port)
    return found
