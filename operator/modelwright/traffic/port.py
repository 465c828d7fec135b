"""What every way of moving traffic offers. One contract suite (`tests/unit/traffic`) runs against all of them."""

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
    """The Model, its endpoint, and the live objects that say where its requests go."""

    model: Json
    endpoint: Endpoint | None
    service: Json | None
    route: Json | None
    gateways: Mapping[tuple[str, str], Json]
    """Gateways by (namespace, name)."""
    problem: Problem | None = None
    """Why the endpoint can't be had (a conflict with an older Model)."""
    traefik: Mapping[str, Json] = field(default_factory=dict)
    """The Model's own TraefikServices by name."""
    ready_pods: Mapping[str, int] = field(default_factory=dict)
    """Ready pods by revision hash, of every revision that has or asks for any: a Service that selects all follows."""


@dataclass(frozen=True, slots=True)
class ObservedSplit:
    """Where the live objects send requests.

    `weights`: percent of callers' requests by revision hash, above 0 only, as written (a hand-made edit need not sum to
    100). `matched`: the revision that the header match sends to. `named`: every revision that callers may come to, by
    weight, match, fallback or the Model's Service.
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
    """What a policy, or the Model, asks of a way of moving traffic.

    `weights`: those of a policy's steps, in percent; `replicas`: pods that 100 % of the requests need. `observe`:
    percent of the requests that the Model wants copied to its observer.
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
        """What the steps of a policy ask for, on a Model with so many replicas."""
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
    """Whether the latest configuration is in force. `problem` says what is missing."""

    confirmed: bool
    problem: Problem | None = None


class TrafficRouter(Protocol):
    """A way of moving traffic."""

    def observe_split(self, scene: RoutingObjects) -> ObservedSplit:
        """What the live configuration says, whoever has written it."""
        ...

    def list_unsupported_needs(self, scene: RoutingObjects, needs: TrafficRequirements) -> tuple[str, ...]:
        """What `needs` asks for and can't be had, each naming the field. Empty: all can be had."""
        ...

    def list_unsupported_settings(self, scene: RoutingObjects) -> tuple[str, ...]:
        """What requestTimeout and filters of the endpoint ask for and can't be had, each naming the field."""
        ...

    def render_revision_objects(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Manifests that a revision needs of its own to be sent traffic, in the order of applying."""
        ...

    def render_manifests(
        self, scene: RoutingObjects, routing: TrafficSplit, ports: Mapping[str, Mapping[str, int]]
    ) -> list[Json]:
        """Manifests that make it so, in the order of applying. `ports` by revision hash, of all in `routing.hashes`.

        The same for the same routing, but for what takes a surplus out of the live objects.
        """
        ...

    def list_obsolete(self, scene: RoutingObjects, routing: TrafficSplit) -> list[tuple[Kind, str]]:
        """Live objects, by kind and name, that `routing` has no use for. To be removed once it is confirmed; sooner
        loses no request, but may send some to the serving revision alone."""
        ...

    async def check_routing(self, scene: RoutingObjects, readiness_path: str | None) -> RouteStatus:
        """Whether requests really go where the live configuration says. Never raises for what a gateway does."""
        ...

    def resolve_url(self, scene: RoutingObjects) -> str | None:
        """Where callers find the Model; None while that isn't known."""
        ...
