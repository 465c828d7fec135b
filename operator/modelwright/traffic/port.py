"""What every way of moving traffic offers. One contract suite (`tests/unit/traffic`) runs against all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.rollout.observed import Problem, Revision

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """The Model, its endpoint, and the live objects that say where its requests go."""

    model: Json
    endpoint: Endpoint | None
    service: Json | None
    route: Json | None
    gateways: Mapping[tuple[str, str], Json]
    """Gateways by (namespace, name)."""
    problem: Problem | None = None
    """Why the endpoint can't be had (a conflict with an older Model)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Whether the latest configuration is in force. `problem` says what is missing."""

    confirmed: bool
    problem: Problem | None = None


class Traffic(Protocol):
    """A way of moving traffic."""

    def named(self, scene: Scene) -> frozenset[str]:
        """Hashes of the revisions that the live configuration sends requests to."""
        ...

    def per_revision(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Manifests that a revision needs of its own to be sent traffic, in the order of applying."""
        ...

    def manifests(self, scene: Scene, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Manifests that send everything to `revision`, in the order of applying."""
        ...

    async def evidence(self, scene: Scene, readiness_path: str | None) -> Evidence:
        """Whether requests really go where the live configuration says. Never raises for what a gateway does."""
        ...

    def url(self, scene: Scene) -> str | None:
        """Where callers find the Model; None while that isn't known."""
        ...
