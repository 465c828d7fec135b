"""The port of traffic routers. One contract suite (`tests/unit/traffic`) runs against every provider."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.steps import RolloutStep, StepKind
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.kube.kinds import Kind

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RoutingObjects:
    """A Model, its endpoint, and the live objects that route its requests."""

    model: Json
    endpoint: Endpoint | None
    service: Json | None
    route: Json | None
    gateways: Mapping[tuple[str, str], Json]
    """Gateways by (namespace, name)."""
    problem: Problem | None = None
    """Why the endpoint is not available (a conflict with an older Model)."""
    traefik: Mapping[str, Json] = field(default_factory=dict)
    """The Model's own TraefikServices by name."""
    ready_pods: Mapping[str, int] = field(default_factory=dict)
    """Ready pods by revision hash, of revisions that have or request any: the weights of a Service that selects all."""


@dataclass(frozen=True, slots=True)
class ObservedSplit:
    """Where the live objects send requests.

    `weights`: percent of callers' requests by revision hash, above 0 only, as written (a manual edit need not sum to
    100). `matched`: the revision of the header match. `targets`: every revision that callers may reach, by weight,
    match, fallback or the Model's Service.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    matched: str | None = None
    mirror_percent: int = 0
    sticky: bool = False
    targets: frozenset[str] = frozenset()
    observe_percent: int = 0
    copy_token: str = ""


@dataclass(frozen=True, slots=True)
class TrafficRequirements:
    """Features of a router that a policy, or the Model, requires.

    `weights`: those of a policy's steps, in percent; `replicas`: pods that 100 % of the requests need.
    `observe_percent`: percent of the requests to copy to the Model's drift monitor.
    """

    weights: tuple[int, ...] = ()
    mirror: bool = False
    mirror_percent_below_100: bool = False
    match: bool = False
    sticky: bool = False
    ab_test: bool = False
    replicas: int = 1
    autoscaling: bool = False
    observe_percent: int = 0

    @classmethod
    def from_steps(cls, steps: Sequence[RolloutStep], *, ab_test: bool, replicas: int, autoscaling: bool) -> Self:
        """Build the requirements of a policy's steps, for a Model with this number of replicas."""
        return cls(
            weights=tuple(step.weight for step in steps if step.kind is StepKind.WEIGHT and 0 < step.weight < 100),
            mirror=any(step.mirror for step in steps),
            mirror_percent_below_100=any(0 < step.mirror < 100 for step in steps),
            match=any(step.match for step in steps),
            sticky=any(step.sticky for step in steps),
            ab_test=ab_test,
            replicas=replicas,
            autoscaling=autoscaling,
        )


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """Whether the latest configuration is in force; `problem` says why not."""

    confirmed: bool
    problem: Problem | None = None


class TrafficRouter(Protocol):
    """Routes the requests of a Model to its revisions."""

    def observe_split(self, objects: RoutingObjects) -> ObservedSplit:
        """Read the split of the live configuration, of any writer."""
        ...

    def list_unsupported_needs(self, objects: RoutingObjects, requirements: TrafficRequirements) -> tuple[str, ...]:
        """List the requirements that are not supported, each with its field; empty when all are."""
        ...

    def list_unsupported_settings(self, objects: RoutingObjects) -> tuple[str, ...]:
        """List requestTimeout and filters of the endpoint that are not supported, each with its field."""
        ...

    def render_revision_objects(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Render the objects that one revision needs to receive requests, in the order to apply them."""
        ...

    def render_manifests(
        self, objects: RoutingObjects, split: TrafficSplit, ports: Mapping[str, Mapping[str, int]]
    ) -> list[Json]:
        """Render the manifests of a split, in the order to apply them.

        `ports`: by revision hash, of all in `split.revision_hashes`. The same split gives the same manifests, but for
        members that remove a surplus from the live objects.
        """
        ...

    def list_obsolete(self, objects: RoutingObjects, split: TrafficSplit) -> list[tuple[Kind, str]]:
        """List the live objects, by kind and name, that `split` does not use.

        They may be removed once the split is confirmed. Sooner loses no request, but may send some to the serving
        revision only.
        """
        ...

    async def check_routing(self, objects: RoutingObjects, readiness_path: str | None) -> RouteStatus:
        """Check whether requests follow the live configuration. Never raises for any answer of a gateway."""
        ...

    def resolve_url(self, objects: RoutingObjects) -> str | None:
        """Return the URL of the Model for callers; None while it is unknown."""
        ...
