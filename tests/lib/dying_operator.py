"""The operator, dying at its n-th write: `python -m tests.lib.dying_operator WRITE before|after|asleep`.

Writes are counted in the client, Leases, Events and dry runs apart. `before` dies without sending the write, `after`
once the API server has answered it; both at once and without any clean-up, as kill -9 would. `asleep` doesn't die: it
stops before it sends the write, as a paused virtual machine would, and sends it when it is woken (SIGCONT). WRITE 0
never dies. After each write it tells how many there were, in the file of DYING_OPERATOR_COUNT.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from modelwright.app.main import main
from modelwright.kube import kinds
from modelwright.kube.client import KubeClient

DIED = 86


def install(write: int, when: str, count_file: Path) -> None:
    """Make every KubeClient of this process die at the given write."""
    call = KubeClient._request_object
    count = 0

    async def counted(self: KubeClient, method: str, kind: Any, *args: Any, **more: Any) -> Any:
        nonlocal count
        if method == "GET" or kind in (kinds.LEASE, kinds.EVENT) or more.get("verb") == "dry-run":
            return await call(self, method, kind, *args, **more)
        count += 1
        if count == write and when == "before":
            os._exit(DIED)
        if count == write and when == "asleep":
            os.kill(os.getpid(), signal.SIGSTOP)
        try:
            return await call(self, method, kind, *args, **more)
        finally:
            if count == write and when == "after":
                os._exit(DIED)
            _tell(count_file, count)

    KubeClient._request_object = counted  # type: ignore[method-assign]


def _tell(file: Path, count: int) -> None:
    file.write_text(str(count))


if __name__ == "__main__":
    install(int(sys.argv[1]), sys.argv[2], Path(os.environ["DYING_OPERATOR_COUNT"]))
    sys.exit(main())
