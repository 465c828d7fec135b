"""Shared by all handlers: finding the named Model, printing a result as text or JSON, waiting, exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from modelwright.cli.kubectl import KubectlClient
from modelwright.cli.printing import print_text

if TYPE_CHECKING:
    from modelwright.cli.model_view import ModelView

Options = SimpleNamespace
"""The arguments and options of one call, under the names of their declaration in `verbs`."""

PROMOTED, FAILED, TIMED_OUT = 0, 1, 2
"""Exit codes of `status --wait`; FAILED also covers every other failure."""
POLL_SECONDS: Final = 1.0
"""Seconds between two polls while waiting."""


def find_model(name: str, kubectl: KubectlClient, *more: str) -> ModelView:
    """Read the Model that `name` stands for. `more`: further kinds that the user must be allowed to list."""
    # Verbs without a Model do without the types of the API, whose import is slow.
    from modelwright.cli.model_view import build_view, resolve_model_name

    objects = kubectl.list_objects(*more)
    return build_view(resolve_model_name(name, objects), objects)


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def print_result(options: Options, text: str, **data: Any) -> None:
    """Print the outcome as text, or `data` as JSON."""
    print_text(json.dumps(data, indent=2) if options.output == "json" else text)


def wait_for_exit_code(options: Options, what: str, ended: Callable[[], int | None]) -> int:
    """Poll `ended` until it returns an exit code. After `options.timeout` seconds print an error about `what` and
    return TIMED_OUT."""
    limit = time.monotonic() + options.timeout
    while (code := ended()) is None:
        if time.monotonic() > limit:
            print_text(f"error: {what} is still in progress after {options.timeout:g} s", error=True)
            return TIMED_OUT
        time.sleep(POLL_SECONDS)
    return code


def rollout_exit_code(kubectl: KubectlClient, name: str, *wanted: str) -> int | None:
    """Return 0 when a ModelRollout ended in a state of `wanted`, FAILED for another final state, None while it is
    running."""
    from modelwright.core.rollout.record import TERMINAL_STATES

    record = find_model(name, kubectl).get_rollout(name)
    if record.status.state not in TERMINAL_STATES:
        return None
    if record.status.state in wanted:
        return 0
    status = record.status
    print_text(f"{name} ended {status.state} ({status.reason}): {status.message or ''}", error=True)
    return FAILED
