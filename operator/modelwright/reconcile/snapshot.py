"""A Model and its children as one pass sees them: what `observe` gathers, and all others read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import versions
from modelwright.core.revision import Revision
from modelwright.core.rollout.observation import Observation
from modelwright.core.runtime_choice import RuntimeChoice
from modelwright.reconcile import rollout_records
from modelwright.render import stored_revision as revisions
from modelwright.traffic.port import RoutingObjects
from modelwright.traffic.port import TrafficRouter as TrafficPort

Object = dict[str, Any]


@dataclass(frozen=True)
class RevisionPlan:
    """What the target is made of: the version, its runtime, and the ControllerRevision that keeps (or will keep) it."""

    revision: Revision
    version: ModelVersion
    digest: str
    choice: RuntimeChoice
    stored: Object
    outdated: str | None


@dataclass(frozen=True)
class ModelSnapshot:
    """A Model and its children as one pass sees them."""

    raw: Object
    model: Model
    plan: RevisionPlan | None
    version_to_create: versions.VersionToCreate | None
    stored: Mapping[str, Object]
    """ControllerRevisions by revision hash."""
    deployments: Mapping[str, Object]
    traffic: TrafficPort
    routing: RoutingObjects
    observation: Observation
    history: rollout_records.RolloutHistory
    analysis: rollout_records.StepAnalysis
    manual_plan: RevisionPlan | None = None
    """The revision that a person's rollback goes to, when that isn't the plan."""

    def stored_template(self, key: str) -> Object | None:
        """What is stored, or about to be stored, for a revision."""
        for plan in (self.plan, self.manual_plan):
            if plan is not None and plan.revision.hash == key:
                return plan.stored
        record = self.observation.active_record
        if record is not None and record.baseline is not None and record.from_revision is not None:
            kept = self.stored.get(record.from_revision.hash)
            if kept is not None and key == record.baseline.hash:
                return revisions.copy_for_revision(kept, record.baseline)
        return self.stored.get(key)
