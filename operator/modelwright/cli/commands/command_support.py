"""What handlers share: the Model that is named, data or text as the answer, exit codes."""

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
"""The arguments and options of one call, by the names of its declaration in `verbs`."""

PROMOTED, FAILED, TIMED_OUT = 0, 1, 2
"""Exit codes, as `status --wait` has them; FAILED is also that of everything that could not be done."""
POLL_SECONDS: Final = 1.0
"""Seconds between two measurements of what is waited for."""


def find_model(name: str, kubectl: KubectlClient, *more: str) -> ModelView:
    """The Model of this name; `more`: kinds that must be seen for what is asked."""
    # Verbs that ask for no Model do without the types of the API.
    from modelwright.cli.model_view import build_view, resolve_model_name

    objects = kubectl.list_objects(*more)
    return build_view(resolve_model_name(name, objects), objects)


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def print_result(options: Options, text: str, **data: Any) -> None:
    """What was done, in words or as data."""
    print_text(json.dumps(data, indent=2) if options.output == "json" else text)


def wait_for_exit_code(options: Options, what: str, ended: Callable[[], int | None]) -> int:
    """The exit code that `ended` has once it has one; TIMED_OUT, with a message about `what`, when `options.timeout`
    seconds have passed."""
    limit = time.monotonic() + options.timeout
    while (code := ended()) is None:
        if time.monotonic() > limit:
            print_text(f"error: {what} is still on its way after {options.timeout:g} s", error=True)
            return TIMED_OUT
        time.sleep(POLL_SECONDS)
    return code


def rollout_exit_code(kubectl: KubectlClient, name: str, *wanted: str) -> int | None:
    """Exit code for a ModelRollout: 0 when it ended in a state of `wanted`, FAILED in another; None: it goes on."""
    from modelwright.core.rollout.record import TERMINAL_STATES

    record = find_model(name, kubectl).get_rollout(name)
    if record.status.state not in TERMINAL_STATES:
        return None
    if record.status.state in wanted:
        return 0
    status = record.status
    print_text(f"{name} ended {status.state} ({status.reason}): {status.message or ''}", error=True)
    return FAILED
