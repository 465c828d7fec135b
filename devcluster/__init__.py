"""A real Kubernetes cluster wherever there is none: as a command, and as a library for the demo and the tests."""

from devcluster.controlplane import ControlPlane
from devcluster.errors import ClusterError

__all__ = ["ClusterError", "ControlPlane"]
