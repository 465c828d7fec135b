"""modelwright.dev/v1alpha1: all kinds of the API."""

from modelwright.api.v1alpha1.approval import Approval, ApprovalSpec
from modelwright.api.v1alpha1.model import Model, ModelSpec, ModelStatus
from modelwright.api.v1alpha1.policy import RolloutPolicy, RolloutPolicySpec
from modelwright.api.v1alpha1.retraining import RetrainingPolicy, RetrainingPolicySpec, RetrainingPolicyStatus
from modelwright.api.v1alpha1.rollout import ModelRollout, ModelRolloutSpec, ModelRolloutStatus
from modelwright.api.v1alpha1.runtime import AnyRuntime, ClusterModelRuntime, ModelRuntime, RuntimeSpec
from modelwright.api.v1alpha1.training import TrainingRun, TrainingRunSpec, TrainingRunStatus
from modelwright.api.v1alpha1.version import ModelVersion, ModelVersionSpec, ModelVersionStatus

__all__ = [
    "AnyRuntime",
    "Approval",
    "ApprovalSpec",
    "ClusterModelRuntime",
    "Model",
    "ModelRollout",
    "ModelRolloutSpec",
    "ModelRolloutStatus",
    "ModelRuntime",
    "ModelSpec",
    "ModelStatus",
    "ModelVersion",
    "ModelVersionSpec",
    "ModelVersionStatus",
    "RetrainingPolicy",
    "RetrainingPolicySpec",
    "RetrainingPolicyStatus",
    "RolloutPolicy",
    "RolloutPolicySpec",
    "RuntimeSpec",
    "TrainingRun",
    "TrainingRunSpec",
    "TrainingRunStatus",
]
