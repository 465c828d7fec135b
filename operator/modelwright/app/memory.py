"""Keeps the operator process small: returns freed memory, and leaves out libraries that it never calls."""

import contextlib
import ctypes
import importlib.util
import sys


def leave_out_synchronous_client() -> None:
    """Keep `import kubernetes` and Kopf from importing the synchronous Kubernetes client with requests and oauthlib.

    The operator uses `kubernetes.aio` only; the other client costs 10 MiB and a sixth of the time until the process
    starts its work. Call this before anything else imports them. Afterwards `import kubernetes.client` raises
    ImportError in this process, which Kopf takes as "not installed".
    """
    spec = importlib.util.find_spec("kubernetes")
    if spec is None or "kubernetes" in sys.modules:
        return
    sys.modules["kubernetes"] = importlib.util.module_from_spec(spec)
    sys.modules["kubernetes.client"] = None  # type: ignore[assignment]


def release_memory() -> None:
    """Return the C library's free pages to the system: after the first lists there are many, and none is needed later.

    Does nothing where the C library has no malloc_trim (musl, macOS).
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
