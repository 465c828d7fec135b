"""The port of engines: each runs stages of a TrainingRun as one kind of object."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from modelwright.api.v1alpha1.retraining import Work
from modelwright.core.retraining.stage_reading import StageReading
from modelwright.render.training_stages import StageInputs

Json = dict[str, Any]


class Engine(Protocol):
    """Renders and reads the objects of stages. It never changes an existing object."""

    def resolve_kind(self, work: Work) -> tuple[str, str]:
        """Return apiVersion and kind of the object. Raises MergeError, with the field, when the manifest has none."""
        ...

    def render_manifest(self, run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
        """Render the object of a stage of a run. Raises MergeError, with the field of the policy."""
        ...

    def pod_selector(self, live: Json, work: Work) -> str | None:
        """Return the label selector of the pods that `read_stage` needs; None when it needs none."""
        ...

    def read_stage(self, live: Json, pods: Sequence[Json], work: Work, now: datetime) -> StageReading:
        """Read the state of a stage from its live object and the object's pods (core/v1). An unknown state is never
        success."""
        ...

    def validate_work(self, work: Work) -> str | None:
        """Return what users must change before the work can start, by field below the stage; None when nothing."""
        ...
