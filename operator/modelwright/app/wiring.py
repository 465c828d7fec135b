"""Builds the parts of the operator that follow from its settings alone, and the reconciler of each kind."""

from __future__ import annotations

from modelwright.app.settings import Settings
from modelwright.kube import kinds
from modelwright.kube.workers import Reconciler
from modelwright.reconcile import watches
from modelwright.reconcile.context import Context
from modelwright.reconcile.model.reconciler import ModelReconciler
from modelwright.reconcile.model_rollout import OrphanedRolloutReconciler
from modelwright.reconcile.model_version import ModelVersionReconciler
from modelwright.reconcile.policy_snapshots import PolicySnapshotReconciler
from modelwright.reconcile.retraining_policy import RetrainingPolicyReconciler
from modelwright.reconcile.rollout_policy import RolloutPolicyReconciler
from modelwright.reconcile.training_run.reconciler import TrainingRunReconciler
from modelwright.render.images import Images


def build_images(settings: Settings) -> Images:
    """Return the images and settings that rendered children use."""
    return Images(
        settings.fetch_image,
        settings.image_pull_policy,
        settings.operator_image,
        copy_token=settings.copy_token == "Required",  # noqa: S105 - a switch
        fetch_env=settings.fetch_env,
        helper_pods=settings.helper_pods,
        platform_ids=settings.pod_security == "Platform",
    )


def build_reconcilers(context: Context) -> dict[str, Reconciler]:
    """Return the reconcile function of each kind of key, by its name."""
    return {
        kinds.MODEL.kind: ModelReconciler(context).reconcile,
        kinds.MODEL_VERSION.kind: ModelVersionReconciler(context).reconcile,
        kinds.MODEL_ROLLOUT.kind: OrphanedRolloutReconciler(context).reconcile,
        kinds.CONTROLLER_REVISION.kind: PolicySnapshotReconciler(context).reconcile,
        kinds.ROLLOUT_POLICY.kind: RolloutPolicyReconciler(context).reconcile,
        kinds.RETRAINING_POLICY.kind: RetrainingPolicyReconciler(context).reconcile,
        kinds.TRAINING_RUN.kind: TrainingRunReconciler(context).reconcile,
        watches.ALL_VERSIONS_KIND: watches.VersionEnqueuer(context.store, context.enqueue).reconcile,
    }
