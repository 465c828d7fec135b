"""What handlers share: the Model that is named, data or text as the answer, exit codes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final

from modelwright.cli.cluster import Cluster
from modelwright.cli.picture import Picture, model_of, picture
from modelwright.cli.printing import say

Options = SimpleNamespace
"""The arguments and options of one call, by the names of its declaration in `verbs`."""

PROMOTED, FAILED, TIMED_OUT = 0, 1, 2
"""Exit codes, as `status --wait` has them; FAILED is also that of everything that could not be done."""
LOOK_EVERY: Final = 1.0
"""Seconds between two measurements of what is waited for."""


def find_model(name: str, cluster: Cluster, *more: str) -> Picture:
    """The Model of this name; `more`: kinds that must be seen for what is asked."""
    objects = cluster.objects(*more)
    return picture(model_of(name, objects), objects)


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def tell(options: Options, text: str, **told: Any) -> None:
    """What was done, in words or as data."""
    say(json.dumps(told, indent=2) if options.output == "json" else text)
