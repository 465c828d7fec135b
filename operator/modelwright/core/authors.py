"""Authors of a revision: everyone who changed an object it is made of since the serving revision was made.

Admission proves each name: spec.changedBy is the writer's own name whenever it, or any content that approvals cover,
changes (manifests/policies/author.yaml). It therefore names the person who answers for the present state of an object.
This module remembers the earlier ones; docs/adr/0031-authors-answer-for-what-a-revision-is-made-of.md.
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
"""Stands for the unknown author of a version that was trained by a RetrainingPolicy without spec.changedBy."""
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
VERSION_KIND = "ModelVersion"
RUNTIME_KINDS = ("ModelRuntime", "ClusterModelRuntime")


@dataclass(frozen=True, slots=True)
class AuthoredPart:
    """An object that a revision is made of.

    `content` is the hash of the content that approvals cover. `by` are the authors of its present state; empty when
    none is recorded. `same` says whether the serving revision was made of the same content; None where only the
    remembered changes can tell. `whole` means that `by` wrote all of it, so that no earlier author counts.
    """

    kind: str
    name: str
    content: str
    by: tuple[str, ...]
    same: bool | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Authors:
    """All authors of a revision.

    `unknown` lists per object why an author is missing and how to name one. `nameless` means that the version itself
    has no author, which only another version can mend.
    """

    names: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    nameless: bool = False

    def includes(self, name: str) -> bool:
        """Return whether `name` is one of them, ignoring case."""
        return normalize_name(name) in {normalize_name(author) for author in self.names}


def normalize_name(name: str) -> str:
    """Return a user name in a comparable form: identity providers write one person's name in different cases."""
    return name.strip().casefold()


def is_service_account(name: str) -> bool:
    """Return whether this is a ServiceAccount: anyone who may impersonate it or create its tokens can use the name."""
    return normalize_name(name).startswith(SERVICE_ACCOUNT_PREFIX)


def hash_spec(spec: RuntimeSpec | RolloutPolicySpec) -> str:
    """Hash a spec without its `changedBy`."""
    return names.content_hash(spec.model_dump(mode="json", by_alias=True, exclude={"changed_by"}), 32)


def hash_model_spec(spec: ModelSpec) -> str:
    """Hash the part of a Model's spec that decides about a revision: pod shape, required signatures, rollout policy.

    The version is left out, since it has authors of its own.
    """
    signatures, policy = spec.signatures, spec.rollout_policy_ref
    content = {
        "serving": pod_shape(spec.serving),
        "signatures": signatures.wire() if signatures is not None else None,
        "rolloutPolicyRef": policy.wire() if policy is not None else None,
    }
    return names.content_hash(content, 32)


def build_version_part(name: str, spec: ModelVersionSpec, digest: str | None, serving: str | None) -> AuthoredPart:
    """Build the part for the version, which never changes: its own authors are all. `serving`: the serving version."""
    content = spec.wire()
    for mutable in ("card", "metrics"):
        content.pop(mutable, None)
    content_hash = names.content_hash({"name": name, "content": content, "digest": digest}, 32)
    return AuthoredPart(
        VERSION_KIND, name, content_hash, spec.all_authors, same=None if name == serving else False, whole=True
    )


def build_runtime_part(
    live: RuntimeSpec, kind: str, name: str, generation: int | None, served: Mapping[str, Any] | None
) -> AuthoredPart:
    """Build the part for the runtime's present state. `served`: data of the serving revision's ControllerRevision."""
    content = hash_spec(live)
    same = is_same_runtime(served, kind, name, generation, content)
    return AuthoredPart(kind, name, content, (live.changed_by,) if live.changed_by is not None else (), same)


def is_same_runtime(
    served: Mapping[str, Any] | None, kind: object, name: object, generation: object, content: object
) -> bool:
    """Return whether a stored revision was rendered by this content of this runtime.

    Revisions that an older operator stored know only the runtime's generation.
    """
    if served is None:
        return False
    runtime, was = served.get("runtime", {}), served.get("inputs", {}).get("runtimeGeneration")
    if (runtime.get("kind"), runtime.get("name")) != (kind, name):
        return False
    return (was is not None and was == generation) or (content is not None and runtime.get("content") == content)


def track_changes(
    known: Sequence[ChangeStatus], parts: Iterable[AuthoredPart], served: Mapping[str, str], *, settled: bool
) -> tuple[ChangeStatus, ...]:
    """Update the remembered changes, `known`, by the present `parts`.

    `served` maps a kind to the serving revision's content, as far as its ModelRollout records it. `settled` means that
    the target serves, so that a part seen for the first time is the served one. The authors of a part are forgotten
    only when its content is the served content again.
    """
    before = {change.kind: change for change in known}
    updated = {part.kind: _track_change(before.get(part.kind), part, served, settled and not known) for part in parts}
    now = {**before, **updated}
    if any(kind in updated for kind in RUNTIME_KINDS):
        now = {kind: change for kind, change in now.items() if kind not in RUNTIME_KINDS or kind in updated}
    return tuple(now[kind] for kind in sorted(now))


def _track_change(
    known: ChangeStatus | None, part: AuthoredPart, served: Mapping[str, str], first: bool
) -> ChangeStatus:
    base = served.get(part.kind) or (known.base if known is not None else None) or (part.content if first else None)
    same = base == part.content if part.same is None else part.same
    if same:
        return ChangeStatus(kind=part.kind, name=part.name, content=part.content, base=part.content)
    is_continued = known is not None and known.name == part.name and known.content != base and not part.whole
    earlier = known.by if known is not None and is_continued else ()
    all_authors = tuple(dict.fromkeys((*earlier, *part.by)))
    return ChangeStatus(
        kind=part.kind,
        name=part.name,
        content=part.content,
        base=base,
        by=all_authors[:MAX_AUTHORS],
        unknown=not part.by or RETRAINING_AUTHOR in part.by or len(all_authors) > MAX_AUTHORS,
    )


def record_authors(
    known: Sequence[AuthorsStatus],
    changes: Iterable[ChangeStatus],
    rendered: Mapping[str, Any] | None,
    served: Mapping[str, Any] | None,
) -> tuple[AuthorsStatus, ...]:
    """Return the authors to record in a ModelRollout.

    Recorded content stays: the rollout does not use a policy or Model that was edited later. For unchanged content an
    author may still become known.

    `rendered`, `served`: data of the ControllerRevisions of the candidate and of the serving revision.
    """
    before = {entry.kind: entry for entry in known}
    recorded = {}
    for change in changes:
        entry = before.get(change.kind)
        if entry is not None and change.kind in ("Model", "RolloutPolicy") and entry.content != change.content:
            recorded[change.kind] = entry
        elif change.kind in RUNTIME_KINDS and rendered is not None:
            author_entry = _runtime_authors(change, rendered, served)
            recorded[author_entry.kind] = author_entry
        else:
            recorded[change.kind] = AuthorsStatus(
                **change.model_dump(include={"kind", "name", "content", "by", "unknown"})
            )
    return tuple(recorded[kind] for kind in sorted(recorded))


def _runtime_authors(now: ChangeStatus, rendered: Mapping[str, Any], served: Mapping[str, Any] | None) -> AuthorsStatus:
    """Return the authors of the runtime as it rendered the candidate: it may have been edited since."""
    runtime, generation = rendered.get("runtime", {}), rendered.get("inputs", {}).get("runtimeGeneration")
    kind, name, content = str(runtime.get("kind")), str(runtime.get("name")), runtime.get("content")
    content_hash = content or f"generation {generation}"
    if is_same_runtime(served, kind, name, generation, content):
        return AuthorsStatus(kind=kind, name=name, content=content_hash)
    signed = runtime.get("changedBy")
    if (kind, name, content) == (now.kind, now.name, now.content):
        return AuthorsStatus(kind=kind, name=name, content=content_hash, by=now.by, unknown=now.unknown)
    earlier = now.by if (kind, name) == (now.kind, now.name) else ()
    all_authors = tuple(dict.fromkeys((*earlier, *([str(signed)] if signed else []))))
    return AuthorsStatus(kind=kind, name=name, content=content_hash, by=all_authors[:MAX_AUTHORS], unknown=not signed)


def collect_authors(entries: Iterable[AuthorsStatus], *, service_accounts: bool = False) -> Authors:
    """Collect the authors, who may not approve, and the gaps that block every approval.

    `service_accounts`: whether ServiceAccounts count as persons.
    """
    all_authors: list[str] = []
    unknown: list[str] = []
    nameless = False
    for entry in entries:
        all_authors += [name for name in entry.by if name != RETRAINING_AUTHOR]
        subject = f"{entry.kind} {entry.name}"
        if entry.unknown or RETRAINING_AUTHOR in entry.by:
            unknown.append(_explain_unknown_author(entry, subject))
            nameless = nameless or (entry.kind == VERSION_KIND and not entry.by)
        accounts = [] if service_accounts else [name for name in entry.by if is_service_account(name)]
        unknown += [_explain_service_account(subject, name) for name in accounts]
    return Authors(tuple(dict.fromkeys(all_authors)), tuple(unknown), nameless)


def _explain_unknown_author(entry: AuthorsStatus, subject: str) -> str:
    if entry.kind == VERSION_KIND and not entry.by:
        return (
            f"{subject} has no spec.author, so no approver can be a second person: create the version again, with its "
            "author"
        )
    if entry.kind == VERSION_KIND:
        return (
            f"{subject} was trained by a RetrainingPolicy without spec.changedBy: set it to the name of the person who "
            "answers for the policy, and train again"
        )
    if len(entry.by) >= MAX_AUTHORS:
        return f"{subject} was changed by more than {MAX_AUTHORS} users: restore its former content, and change it once"
    return (
        f"{subject} was changed without spec.changedBy: set it to the name of the person who answers for its "
        "present content"
    )


def _explain_service_account(subject: str, name: str) -> str:
    return (
        f"{subject} names {name}, and more than one person may use a ServiceAccount: name the person instead, or let "
        "approval.serviceAccounts of the RolloutPolicy say that ServiceAccounts count"
    )


def training_authors(policy: RetrainingPolicySpec, by: str | None) -> tuple[str, ...]:
    """Return the authors of a run's version: the policy's spec.changedBy, and the person who requested the run."""
    writers = (policy.changed_by or RETRAINING_AUTHOR, *([by] if by is not None else []))
    return tuple(dict.fromkeys(writers))
