"""A Model and its children as one pass sees them: what `observe` gathers, and all others read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import versions
from modelwright.core.revision import Revision
from modelwright.core.rollout.observed import Observed
from modelwright.core.runtimes import Choice
from modelwright.reconcile import rollouts
from modelwright.serving import revision as revisions
from modelwright.traffic.port import Scene
from modelwright.traffic.port import Traffic as TrafficPort

Object = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What the target is made of: the version, its runtime, and the ControllerRevision that keeps (or will keep) it."""

    revision: Revision
    version: ModelVersion
    digest: str
    choice: Choice
    stored: Object
    outdated: str | None


@dataclass(frozen=True)
class Picture:
    """A Model and its children as one pass sees them."""

    raw: Object
    model: Model
    plan: Plan | None
    stamp: versions.Stamp | None
    stored: Mapping[str, Object]
    """ControllerRevisions by revision hash."""
    deployments: Mapping[str, Object]
    traffic: TrafficPort
    scene: Scene
    observed: Observed
    records: rollouts.Records
    looked: rollouts.Looked
    other: Plan | None = None
    """The revision that a person's rollback goes to, when that isn't the plan."""

    def template(self, key: str) -> Object | None:
        """What is stored, or about to be stored, for a revision."""
        for plan in (self.plan, self.other):
            if plan is not None and plan.revision.hash == key:
                return plan.stored
        record = self.observed.live
        if record is not None and record.baseline is not None and record.source is not None:
            kept = self.stored.get(record.source.hash)
            if kept is not None and key == record.baseline.hash:
                return revisions.fresh(kept, record.baseline)
        return self.stored.get(key)
