"""A real Kubernetes cluster wherever there is none: as a command, and as a library for the demo and the tests."""

from devcluster.cluster import Cluster, S3Store
from devcluster.controlplane import ControlPlane
from devcluster.errors import ClusterError
from devcluster.images import build_image, ensure_base_image, push_image

__all__ = ["Cluster", "ClusterError", "ControlPlane", "S3Store", "build_image", "ensure_base_image", "push_image"]
