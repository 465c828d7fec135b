"""Who the authors of a revision are: who has changed what it is made of, since what serves was made of it.

Admission proves each name: spec.changedBy is the writer's own whenever it, or what approvals are about, changes
(manifests/policies/author.yaml). So it names who answers for an object as it stands. Here is remembered who did before
them; docs/adr/0031-authors-answer-for-what-a-revision-is-made-of.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.common import MAX_AUTHORS
from modelwright.api.v1alpha1.model import ChangeStatus, ModelSpec, pod_shape
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec
from modelwright.api.v1alpha1.rollout import AuthorsStatus
from modelwright.api.v1alpha1.runtime import RuntimeSpec
from modelwright.api.v1alpha1.version import ModelVersionSpec

RETRAINING_AUTHOR = "modelwright:retraining"
"""Author of versions that were trained by a RetrainingPolicy for which nobody answers: an unknown one."""
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
VERSION_KIND = "ModelVersion"
RUNTIME_KINDS = ("ModelRuntime", "ClusterModelRuntime")


@dataclass(frozen=True, slots=True)
class AuthoredPart:
    """An object that a revision is made of.

    `content`: hash of what approvals are about. `by`: who answers for it as it stands; empty when nobody says so.
    `same`: whether what serves was made of the same; None where only memory tells. `whole`: `by` made all of it, so
    that nobody before them counts.
    """

    kind: str
    name: str
    content: str
    by: tuple[str, ...]
    same: bool | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Authors:
    """Everybody who counts as an author. `unknown`: per object, why somebody is not known and what to do about it.
    `nameless`: the version itself has no author, which nothing but another version can mend."""

    names: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    nameless: bool = False

    def includes(self, name: str) -> bool:
        """Whether `name` is one of them, in whatever case it is written."""
        return normalize_name(name) in {normalize_name(author) for author in self.names}


def normalize_name(name: str) -> str:
    """One person's name, however it is written: identity providers differ in case, people don't."""
    return name.strip().casefold()


def is_service_account(name: str) -> bool:
    """Whether this is no person's name: everybody who may impersonate a ServiceAccount, or make its tokens, has it."""
    return normalize_name(name).startswith(SERVICE_ACCOUNT_PREFIX)


def hash_spec(spec: RuntimeSpec | RolloutPolicySpec) -> str:
    """Hash of a spec without who answers for it."""
    return names.content_hash(spec.model_dump(mode="json", by_alias=True, exclude={"changed_by"}), 32)


def hash_model_spec(spec: ModelSpec) -> str:
    """Hash of what of a Model decides about a revision: what shapes its pods, whose signatures it needs, and the policy
    it goes by. Not the version, which has authors of its own."""
    signatures, policy = spec.signatures, spec.rollout_policy_ref
    content = {
        "serving": pod_shape(spec.serving),
        "signatures": signatures.wire() if signatures is not None else None,
        "rolloutPolicyRef": policy.wire() if policy is not None else None,
    }
    return names.content_hash(content, 32)


def build_version_part(name: str, spec: ModelVersionSpec, digest: str | None, serving: str | None) -> AuthoredPart:
    """The version; it never changes, so its own authors are all there are. `serving`: the version that serves."""
    content = spec.wire()
    for mutable in ("card", "metrics"):
        content.pop(mutable, None)
    hashed = names.content_hash({"name": name, "content": content, "digest": digest}, 32)
    return AuthoredPart(
        VERSION_KIND, name, hashed, spec.all_authors, same=None if name == serving else False, whole=True
    )


def build_runtime_part(
    live: RuntimeSpec, kind: str, name: str, generation: int | None, served: Mapping[str, Any] | None
) -> AuthoredPart:
    """The runtime as it is now. `served`: data of the ControllerRevision of what serves."""
    content = hash_spec(live)
    same = is_same_runtime(served, kind, name, generation, content)
    return AuthoredPart(kind, name, content, (live.changed_by,) if live.changed_by is not None else (), same)


def is_same_runtime(
    served: Mapping[str, Any] | None, kind: object, name: object, generation: object, content: object
) -> bool:
    """Whether a stored revision was rendered by this very content of this runtime. Ones that an older operator stored
    know its generation only."""
    if served is None:
        return False
    runtime, was = served.get("runtime", {}), served.get("inputs", {}).get("runtimeGeneration")
    if (runtime.get("kind"), runtime.get("name")) != (kind, name):
        return False
    return (was is not None and was == generation) or (content is not None and runtime.get("content") == content)


def track_changes(
    known: Sequence[ChangeStatus], parts: Iterable[AuthoredPart], served: Mapping[str, str], *, settled: bool
) -> tuple[ChangeStatus, ...]:
    """What to remember of `parts` now, beside what was `known`.

    `served`: content of what serves by kind, as far as its ModelRollout tells. `settled`: what is wanted serves, so
    that what is looked at for the first time is what serves. Who changed a part is forgotten when it is again as what
    serves was made of it, and never before.
    """
    before = {change.kind: change for change in known}
    found = {part.kind: _track_change(before.get(part.kind), part, served, settled and not known) for part in parts}
    now = {**before, **found}
    if any(kind in found for kind in RUNTIME_KINDS):
        now = {kind: change for kind, change in now.items() if kind not in RUNTIME_KINDS or kind in found}
    return tuple(now[kind] for kind in sorted(now))


def _track_change(
    known: ChangeStatus | None, part: AuthoredPart, served: Mapping[str, str], first: bool
) -> ChangeStatus:
    base = served.get(part.kind) or (known.base if known is not None else None) or (part.content if first else None)
    same = base == part.content if part.same is None else part.same
    if same:
        return ChangeStatus(kind=part.kind, name=part.name, content=part.content, base=part.content)
    goes_on = known is not None and known.name == part.name and known.content != base and not part.whole
    earlier = known.by if known is not None and goes_on else ()
    everybody = tuple(dict.fromkeys((*earlier, *part.by)))
    return ChangeStatus(
        kind=part.kind,
        name=part.name,
        content=part.content,
        base=base,
        by=everybody[:MAX_AUTHORS],
        unknown=not part.by or RETRAINING_AUTHOR in part.by or len(everybody) > MAX_AUTHORS,
    )


def record_authors(
    known: Sequence[AuthorsStatus],
    changes: Iterable[ChangeStatus],
    rendered: Mapping[str, Any] | None,
    served: Mapping[str, Any] | None,
) -> tuple[AuthorsStatus, ...]:
    """The authors that a ModelRollout records. What it began with stays: a policy or Model that was edited since is not
    what it goes by. But for the same content, who answers for it may be found out later.

    `rendered`, `served`: data of the ControllerRevisions of the candidate and of what serves.
    """
    before = {entry.kind: entry for entry in known}
    found = {}
    for change in changes:
        entry = before.get(change.kind)
        if entry is not None and change.kind in ("Model", "RolloutPolicy") and entry.content != change.content:
            found[change.kind] = entry
        elif change.kind in RUNTIME_KINDS and rendered is not None:
            made = _runtime_authors(change, rendered, served)
            found[made.kind] = made
        else:
            found[change.kind] = AuthorsStatus(
                **change.model_dump(include={"kind", "name", "content", "by", "unknown"})
            )
    return tuple(found[kind] for kind in sorted(found))


def _runtime_authors(now: ChangeStatus, rendered: Mapping[str, Any], served: Mapping[str, Any] | None) -> AuthorsStatus:
    """Of the runtime, as the candidate was rendered by it: it may have been edited since."""
    runtime, generation = rendered.get("runtime", {}), rendered.get("inputs", {}).get("runtimeGeneration")
    kind, name, content = str(runtime.get("kind")), str(runtime.get("name")), runtime.get("content")
    hashed = content or f"generation {generation}"
    if is_same_runtime(served, kind, name, generation, content):
        return AuthorsStatus(kind=kind, name=name, content=hashed)
    signed = runtime.get("changedBy")
    if (kind, name, content) == (now.kind, now.name, now.content):
        return AuthorsStatus(kind=kind, name=name, content=hashed, by=now.by, unknown=now.unknown)
    earlier = now.by if (kind, name) == (now.kind, now.name) else ()
    everybody = tuple(dict.fromkeys((*earlier, *([str(signed)] if signed else []))))
    return AuthorsStatus(kind=kind, name=name, content=hashed, by=everybody[:MAX_AUTHORS], unknown=not signed)


def collect_authors(entries: Iterable[AuthorsStatus], *, service_accounts: bool = False) -> Authors:
    """Who may not approve, and what has to be known before anybody may. `service_accounts`: whether they count as
    people."""
    everybody: list[str] = []
    unknown: list[str] = []
    nameless = False
    for entry in entries:
        everybody += [name for name in entry.by if name != RETRAINING_AUTHOR]
        what = f"{entry.kind} {entry.name}"
        if entry.unknown or RETRAINING_AUTHOR in entry.by:
            unknown.append(_explain_unknown_author(entry, what))
            nameless = nameless or (entry.kind == VERSION_KIND and not entry.by)
        accounts = [] if service_accounts else [name for name in entry.by if is_service_account(name)]
        unknown += [_explain_service_account(what, name) for name in accounts]
    return Authors(tuple(dict.fromkeys(everybody)), tuple(unknown), nameless)


def _explain_unknown_author(entry: AuthorsStatus, what: str) -> str:
    if entry.kind == VERSION_KIND and not entry.by:
        return f"{what} has no spec.author, so nobody can be a second person: make the version anew, with its author"
    if entry.kind == VERSION_KIND:
        return (
            f"{what} was trained by a RetrainingPolicy for which nobody answers: have somebody write their name into "
            "spec.changedBy of the policy, and train again"
        )
    if len(entry.by) >= MAX_AUTHORS:
        return f"{what} was changed by more than {MAX_AUTHORS} people: put it back as it was, and change it once"
    return (
        f"{what} was changed and nobody says by whom: have somebody who answers for it as it is write their name into "
        "its spec.changedBy"
    )


def _explain_service_account(what: str, name: str) -> str:
    return (
        f"{what} names {name}, and more than one person may use a ServiceAccount: name the person instead, or let "
        "approval.serviceAccounts of the RolloutPolicy say that ServiceAccounts count"
    )


def training_authors(policy: RetrainingPolicySpec, by: str | None) -> tuple[str, ...]:
    """The authors of what a run trains: who answers for its policy, and who has asked for the run."""
    made = (policy.changed_by or RETRAINING_AUTHOR, *([by] if by is not None else []))
    return tuple(dict.fromkeys(made))
