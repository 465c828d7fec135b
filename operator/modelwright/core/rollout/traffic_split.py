"""The intended destinations of a Model's requests, as data; `traffic/` configures them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwright.core.revision import Revision


@dataclass(frozen=True, slots=True)
class TrafficShare:
    """Share of a revision in the callers' requests, in percent."""

    revision: Revision
    weight: int


@dataclass(frozen=True, slots=True)
class HeaderCondition:
    """Condition that a request header has this value, or matches it as a regular expression."""

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """The destinations of a Model's requests.

    `shares`: sum to 100, the serving revision first. `match`, `matched`: requests with all these headers go to this
    revision. `mirror_percent`: percent of the requests mirrored to the Model's comparer. `observe_percent`: percent
    mirrored to its drift monitor, unless the comparer gets any. `copy_token`: header value that the route sets on
    mirrored requests. `sticky`: a caller stays on the revision of its first request. `service_revision`: the one
    revision that the Model's Service selects; None selects all revisions in `shares`, weighted by their pods.
    """

    shares: tuple[TrafficShare, ...]
    match: tuple[HeaderCondition, ...] = ()
    matched: Revision | None = None
    mirror_percent: int = 0
    observe_percent: int = 0
    copy_token: str = ""
    sticky: bool = False
    service_revision: Revision | None = None

    @classmethod
    def all_to(cls, revision: Revision) -> TrafficSplit:
        """Send all requests to one revision."""
        return cls((TrafficShare(revision, 100),), service_revision=revision)

    @property
    def observed_percent(self) -> int:
        """Percent of the requests mirrored to the drift monitor: none while the comparer gets any."""
        return 0 if self.mirror_percent else self.observe_percent

    @property
    def weights(self) -> Mapping[str, int]:
        """Percent of the requests by revision hash, without revisions that get none."""
        return {share.revision.hash: share.weight for share in self.shares if share.weight > 0}

    @property
    def revision_hashes(self) -> frozenset[str]:
        """Hashes of the revisions that get requests of callers."""
        others = (revision.hash for revision in (self.matched, self.service_revision) if revision is not None)
        return frozenset({*self.weights, *others})
