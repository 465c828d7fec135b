"""Kopf as a watch frame: one event handler per watched kind, which hands the object to the sink, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelwright.kube.kinds import Kind

Sink = Callable[[Kind, str | None, Mapping[str, Any]], None]
