"""Chooses the engine for the work of a stage."""

from __future__ import annotations

from modelwright.api.v1alpha1.retraining import Work
from modelwright.engines.job import JobEngine
from modelwright.engines.port import Engine
from modelwright.engines.resource import ResourceEngine

_JOB_ENGINE, _RESOURCE_ENGINE = JobEngine(), ResourceEngine()


def choose_engine(work: Work) -> Engine:
    """Choose the engine that does `work`: Jobs, or objects of other controllers."""
    return _JOB_ENGINE if work.job is not None else _RESOURCE_ENGINE
