"""modelwright.dev/v1alpha1: Model, ModelVersion, ModelRuntime and ClusterModelRuntime."""

from modelwright.api.v1alpha1.model import Model, ModelSpec, ModelStatus
from modelwright.api.v1alpha1.runtime import AnyRuntime, ClusterModelRuntime, ModelRuntime, RuntimeSpec
from modelwright.api.v1alpha1.version import ModelVersion, ModelVersionSpec, ModelVersionStatus

__all__ = [
    "AnyRuntime",
    "ClusterModelRuntime",
    "Model",
    "ModelRuntime",
    "ModelSpec",
    "ModelStatus",
    "ModelVersion",
    "ModelVersionSpec",
    "ModelVersionStatus",
    "RuntimeSpec",
]
