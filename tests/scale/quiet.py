"""When an operator has come to rest: by its requests, and by its CPU time."""

import bisect
from collections.abc import Sequence

REQUEST_SECONDS = 5.0
"""At rest, no request but the Lease's comes for so long,"""
CPU_SECONDS = 2.0
CPU_SHARE = 0.05
"""and for so long the process uses less than this share of a core."""


def quiet_since(samples: Sequence[tuple[float, float]], requests: Sequence[float]) -> float | None:
    """The first moment of rest, None when there is none yet.

    `samples` are (time, CPU seconds used until then) in order, `requests` the times of all requests. The moment looks
    ahead: what follows it is quiet, so that it doesn't depend on how long one has to watch to know.
    """
    times, arrived = [at for at, _ in samples], sorted(requests)
    for at, used in samples:
        after = bisect.bisect_left(times, at + CPU_SECONDS)
        if after == len(times) or times[-1] < at + REQUEST_SECONDS:
            return None
        following = bisect.bisect_right(arrived, at)
        if following < len(arrived) and arrived[following] <= at + REQUEST_SECONDS:
            continue
        if samples[after][1] - used <= CPU_SHARE * (times[after] - at):
            return at
    return None
