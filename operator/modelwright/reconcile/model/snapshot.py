"""A Model and its children as one reconciliation sees them: built by `observe`, read by all others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import versions
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.observation import Observation
from modelwright.core.runtime_choice import RuntimeChoice
from modelwright.reconcile.model.observed_routing import ModelRouting
from modelwright.reconcile.model.rollout_history import RolloutHistory
from modelwright.reconcile.model.step_measurements import StepAnalysis
from modelwright.render import stored_revision as revisions

Object = dict[str, Any]


@dataclass(frozen=True)
class RevisionPlan:
    """A revision to run: its version, its runtime, and the ControllerRevision that stores it, or is about to."""

    revision: Revision
    version: ModelVersion
    digest: str
    choice: RuntimeChoice
    stored: Object
    outdated: str | None
    """Why a new rendering would differ from the stored one; None when it would not."""


@dataclass(frozen=True)
class ModelChildren:
    """The Model's own objects of each revision, by revision hash; objects that are being deleted are left out."""

    stored: Mapping[str, Object]
    """ControllerRevisions."""
    deployments: Mapping[str, Object]


@dataclass(frozen=True)
class ModelGoal:
    """Where the Model goes: to the version of its spec, or to that of a manual rollback."""

    revision: Revision | None
    """None while there is no target; `problem` says why, unless a version must be created first."""
    problem: Problem | None
    plan: RevisionPlan | None
    """The revision of spec.version, as far as it can be run."""
    manual_plan: RevisionPlan | None
    """The revision of the manual rollback, where that had to be rendered."""
    version_to_create: versions.VersionToCreate | None

    @property
    def followed_plan(self) -> RevisionPlan | None:
        """The plan that decides where requests go: the manual rollback's, else that of spec.version."""
        return self.manual_plan or self.plan

    def templates(self, children: ModelChildren) -> Mapping[str, Object]:
        """ControllerRevisions by revision hash, with the one of the plan where it is not stored yet."""
        planned = {self.plan.revision.hash: self.plan.stored} if self.plan is not None else {}
        return {**children.stored, **planned}


@dataclass(frozen=True)
class ModelSnapshot:
    """A Model and its children as one reconciliation sees them."""

    raw: Object
    model: Model
    goal: ModelGoal
    children: ModelChildren
    routing: ModelRouting
    observation: Observation
    history: RolloutHistory
    analysis: StepAnalysis

    def stored_template(self, key: str) -> Object | None:
        """The ControllerRevision of a revision hash, stored or about to be."""
        for plan in (self.goal.plan, self.goal.manual_plan):
            if plan is not None and plan.revision.hash == key:
                return plan.stored
        record = self.observation.active_record
        if record is not None and record.baseline is not None and record.from_revision is not None:
            source = self.children.stored.get(record.from_revision.hash)
            if source is not None and key == record.baseline.hash:
                return revisions.copy_for_revision(source, record.baseline)
        return self.children.stored.get(key)
