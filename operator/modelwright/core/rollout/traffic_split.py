"""Where the requests of a Model are to go, as data; `traffic/` makes it so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwright.core.revision import Revision


@dataclass(frozen=True, slots=True)
class TrafficShare:
    """A revision's share of the callers' requests, in percent."""

    revision: Revision
    weight: int


@dataclass(frozen=True, slots=True)
class HeaderCondition:
    """A request header that must have this value, or match it as a regular expression."""

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """Where the requests of a Model are to go.

    `shares` sum to 100, the serving revision first. Requests with all the headers of `match` go to `matched`.
    `mirror_percent`: copies of that share go to the Model's comparer. `observe_percent`: copies of that share go to its
    observer, but for while they go to the comparer. `copy_token`: what the route sets on requests that it copies.
    `sticky`: a caller who was given a revision stays on it. `inside`: the one revision that the Model's Service
    selects; None selects all revisions in `shares`, weighted by their pods.
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
        """Everything to one revision."""
        return cls((TrafficShare(revision, 100),), service_revision=revision)

    @property
    def observed_percent(self) -> int:
        """Percent of the requests that is copied to the observer: none while the comparer gets copies."""
        return 0 if self.mirror_percent else self.observe_percent

    @property
    def weights(self) -> Mapping[str, int]:
        """Percent of the requests by revision hash; only what has any."""
        return {share.revision.hash: share.weight for share in self.shares if share.weight > 0}

    @property
    def revision_hashes(self) -> frozenset[str]:
        """Every revision that gets requests of callers."""
        found = set(self.weights)
        found.update(revision.hash for revision in (self.matched, self.service_revision) if revision is not None)
        return frozenset(found)
