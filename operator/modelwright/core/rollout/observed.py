"""What a rollout decision is made from: one frozen picture of a Model and its children, gathered once a pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelwright.core.pods import Failure


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something wanted can't be had. `stalled`: waiting won't mend it, a person has to change something."""

    reason: str
    message: str
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """A ModelVersion as served by one runtime with one pod shape. `hash` names it in children and in status."""

    version: str
    hash: str


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision's pods as its Deployment reports them. `replicas`: what the Deployment asks for, None without one."""

    revision: Revision
    replicas: int | None = None
    ready: int = 0
    available: int = 0
    current: bool = True
    """The Deployment controller has seen the latest spec, so the counts speak of it."""
    started: datetime | None = None
    failure: Failure | None = None

    def has(self, replicas: int) -> bool:
        """All of at least `replicas` pods answer."""
        return self.replicas is not None and self.current and self.available >= max(replicas, 0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where requests go. `named`: revisions that the Service or the route name now (both, in the middle of a switch).

    `confirmed`: the gateway was seen to follow the latest configuration; without a gateway, that it is written.
    """

    named: frozenset[str] = frozenset()
    confirmed: bool = False
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """The revision last confirmed to take all traffic, and since when."""

    revision: Revision
    since: datetime


@dataclass(frozen=True, slots=True)
class Observed:
    """The whole input of `determine` and `decide`."""

    now: datetime
    target: Revision | None
    problem: Problem | None = None
    """Why there is no target, or why it must not be acted upon (a child's name is taken, the spec is refused)."""
    replicas: int = 1
    """Pods that the target needs before it may take traffic."""
    revisions: Mapping[str, RevisionView] = field(default_factory=dict)
    traffic: Traffic = Traffic()
    serving: Serving | None = None
    suspended: bool = False
    settle: timedelta = timedelta(seconds=5)
    """How long an old revision stays after traffic has left it."""
    start_timeout: timedelta = timedelta(minutes=10)

    @property
    def target_view(self) -> RevisionView | None:
        """The target's pods, None before they were asked for."""
        return self.revisions.get(self.target.hash) if self.target else None

    @property
    def target_ready(self) -> bool:
        """The target's pods answer, all that it needs."""
        return self.target_view is not None and self.target_view.has(self.replicas)

    @property
    def target_serves(self) -> bool:
        """The target was confirmed to take all traffic, and nothing has moved since."""
        return (
            self.target is not None
            and self.serving is not None
            and self.serving.revision.hash == self.target.hash
            and self.traffic.named == {self.target.hash}
        )

    @property
    def never_served(self) -> bool:
        """No revision was ever confirmed, and none that traffic names has a pod that answers."""
        named = (self.revisions.get(key) for key in self.traffic.named)
        return self.serving is None and not any(view is not None and view.available for view in named)

    @property
    def keeper(self) -> Revision | None:
        """The revision that serves, when requests have to stay with it, or come back to it, until the target may take
        them. None when that would move requests from pods that answer, or to where none do."""
        view = self.revisions.get(self.serving.revision.hash) if self.serving is not None else None
        if view is None:
            return None
        others = [self.revisions[key] for key in self.traffic.named - {view.revision.hash} if key in self.revisions]
        return None if others and (not view.available or any(o.available for o in others)) else view.revision

    @property
    def leftovers(self) -> tuple[Revision, ...]:
        """Revisions with pods that are neither wanted nor named by traffic, in a fixed order."""
        kept = set(self.traffic.named)
        if self.target:
            kept.add(self.target.hash)
        elif self.serving:
            kept.add(self.serving.revision.hash)
        return tuple(view.revision for key, view in sorted(self.revisions.items()) if key not in kept)

    @property
    def settled_at(self) -> datetime | None:
        """When traffic has been away from the old revisions long enough; None while it isn't confirmed to be."""
        if not self.traffic.confirmed or self.serving is None:
            return None
        if self.traffic.named != {self.serving.revision.hash}:
            return None
        return self.serving.since + self.settle


def confirmed_serving(observed: Observed) -> Serving | None:
    """Who serves, as of this picture: a revision begins to serve when traffic names it alone, that is confirmed, and
    its pods answer. It goes on being the one that serves, with pods or without, until another takes over."""
    if not observed.traffic.confirmed or len(observed.traffic.named) != 1:
        return observed.serving
    (key,) = observed.traffic.named
    view = observed.revisions.get(key)
    if view is None or (observed.serving is not None and observed.serving.revision.hash == key):
        return observed.serving
    needed = observed.replicas if observed.target is not None and observed.target.hash == key else 1
    return Serving(view.revision, observed.now) if view.has(needed) else observed.serving
