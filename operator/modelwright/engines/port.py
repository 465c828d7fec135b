"""What an engine can do: make the object of a stage, say which pods tell of it, and read where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from modelwright.api.v1alpha1.retraining import Work
from modelwright.core.retraining.stage_reading import StageReading
from modelwright.render.training_stages import StageInputs

Json = dict[str, Any]


class Engine(Protocol):
    """Does stages by one kind of object. It never changes an object that is there: it only makes and reads them."""

    def resolve_kind(self, work: Work) -> tuple[str, str]:
        """apiVersion and kind of the object. Raises MergeError, naming the field, when the manifest has none."""
        ...

    def render_manifest(self, run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
        """The object to be made for this stage of this run. Raises MergeError, naming the field of the policy."""
        ...

    def pod_selector(self, live: Json, work: Work) -> str | None:
        """Label selector of the pods that `read` wants to see; None when it needs none."""
        ...

    def read_stage(self, live: Json, pods: Sequence[Json], work: Work, now: datetime) -> StageReading:
        """Where the live object stands, by itself and its pods (core/v1). What is not understood is never success."""
        ...

    def validate_work(self, work: Work) -> str | None:
        """What a person has to change before the work can be done, by field below the stage; None when nothing."""
        ...
