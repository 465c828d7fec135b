"""Versions: which one a Model should serve, by what its content is pinned, and its lifecycle stage."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelwright.api import names
from modelwright.api.common import INT64_MAX
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import ModelStatus, VersionSource
from modelwright.api.v1alpha1.version import Artifact, ArtifactStatus, ModelVersion, Stage
from modelwright.core.problem import Problem

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
"""File name endings of archives that fetch unpacks."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class VersionToCreate:
    """A ModelVersion that must first be created from spec.version.template."""

    name: str
    spec: Mapping[str, Any]


def generated_name(model: str, source: VersionSource) -> str:
    """Return the name of the ModelVersion made from spec.version.template; empty without a template."""
    return names.stamped_version_name(model, source.template.wire()) if source.template else ""


def resolve_target(
    model: str,
    source: VersionSource,
    versions: Iterable[ModelVersion],
    serving: str | None,
    since: datetime | None = None,
) -> ModelVersion | VersionToCreate | Problem:
    """Resolve the version that a Model should serve.

    `versions` are the eligible ones of its namespace. `serving` names the version that serves, since `since`; a
    following Model never goes below it, even when it was deleted.
    """
    by_name = {version.name: version for version in versions}
    if source.template is not None:
        name = generated_name(model, source)
        content = {"modelRef": {"name": model}, **source.template.wire()}
        return _check_owner(model, by_name[name]) if name in by_name else VersionToCreate(name, content)
    if source.name is not None:
        version = by_name.get(source.name)
        if version is None:
            return Problem(Reason.WAITING_FOR_VERSION, f"spec.version.name: there is no ModelVersion {source.name}")
        return _check_owner(model, version)
    return _highest_eligible(model, source, by_name, serving, since)


def _check_owner(model: str, version: ModelVersion) -> ModelVersion | Problem:
    if version.spec.model_ref.name != model:
        text = (
            f"spec.version: ModelVersion {version.name} is a version of Model {version.spec.model_ref.name} "
            f"(its spec.modelRef.name), not of {model}"
        )
        return Problem(Reason.VERSION_OF_ANOTHER_MODEL, text, stalled=True)
    return version


def _highest_eligible(
    model: str, source: VersionSource, by_name: Mapping[str, ModelVersion], serving: str | None, since: datetime | None
) -> ModelVersion | Problem:
    selector = source.follow.selector if source.follow else None
    labels = selector.match_labels if selector else {}
    eligible = [
        version
        for version in by_name.values()
        if version.spec.model_ref.name == model
        and version.metadata.deletion_timestamp is None
        and version.status.stage not in (Stage.QUARANTINED, Stage.REJECTED)
        and all(version.metadata.labels.get(key) == value for key, value in labels.items())
    ]
    current = by_name.get(serving) if serving else None
    if current is not None:
        eligible = [version for version in eligible if _age_order(version) >= _age_order(current)] or [current]
    elif serving is not None and since is not None:
        # Its age is lost with it, but every version younger than the start of its serving is younger than it.
        eligible = [version for version in eligible if (version.metadata.creation_timestamp or since) > since]
        if not eligible:
            text = f"ModelVersion {serving}, which serves, was deleted; it serves on until there is a newer one"
            return Problem(Reason.WAITING_FOR_VERSION, f"spec.version.follow: {text}")
    if not eligible:
        return Problem(Reason.WAITING_FOR_VERSION, f"spec.version.follow: Model {model} has no ModelVersion yet")
    return max(eligible, key=_age_order)


def newest_trained(
    model: str, wanted: Mapping[str, Any], versions: Iterable[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Return the newest ModelVersion that a TrainingRun made for a Model since the one that the Model names (`wanted`).

    It takes objects as the API server gives them: a Model may have many, and most are not worth parsing.
    """

    def age(raw: Mapping[str, Any]) -> tuple[str, str]:
        return raw["metadata"].get("creationTimestamp") or "", raw["metadata"]["name"]

    def is_offered(raw: Mapping[str, Any]) -> bool:
        spec, stage = raw.get("spec") or {}, (raw.get("status") or {}).get("stage")
        lineage = spec.get("lineage")
        return (
            (spec.get("modelRef") or {}).get("name") == model
            # A version that its schema should have rejected must not break its Model.
            and isinstance(lineage, Mapping)
            and bool(lineage.get("trainingRun"))
            and not raw["metadata"].get("deletionTimestamp")
            and stage not in (Stage.QUARANTINED, Stage.REJECTED)
            and age(raw) > age(wanted)
        )

    return max(filter(is_offered, versions), key=age, default=None)


def _age_order(version: ModelVersion) -> tuple[str, str]:
    created = version.metadata.creation_timestamp
    return (created.isoformat() if created else ""), version.name


def pinned_digest(artifact: Artifact, resolved: str | None) -> str | None:
    """Return the digest that is known without fetching; None when a resolve pod must determine it.

    The author's own comes first, then the resolved one, then that of the address: an OCI digest, or a full commit of a
    Hugging Face repository.
    """
    if artifact.digest or resolved:
        return artifact.digest or resolved
    if artifact.uri.startswith("oci://") and "@sha256:" in artifact.uri:
        return "sha256:" + artifact.uri.rsplit("@sha256:", 1)[1]
    if artifact.uri.startswith("hf://") and "@" in artifact.uri:
        revision = artifact.uri.rsplit("@", 1)[1].split("/", 1)[0]
        if len(revision) == 40 and all(c in "0123456789abcdef" for c in revision):
            return f"git:{revision}"
    return None


def parse_artifact_report(report: Mapping[str, Any] | None) -> ArtifactStatus | None:
    """Parse a resolve pod's report on an artifact; None when it is malformed."""
    digest, size = (report or {}).get("digest"), (report or {}).get("sizeBytes")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return None
    known = isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= INT64_MAX
    tree = (report or {}).get("tree")
    tree_digest = tree if isinstance(tree, str) and tree.startswith("sha256:") and _DIGEST.fullmatch(tree) else None
    return ArtifactStatus(digest=digest, size_bytes=size if known else None, tree=tree_digest)


def is_packed(artifact: Artifact, digest: str | None) -> bool:
    """Return whether the digest doesn't cover the files in a pod: an archive's, an OCI manifest's, or a commit's."""
    if digest is not None and digest.startswith("git:"):
        return True
    path = artifact.uri.partition("?")[0] if artifact.uri.startswith("http") else artifact.uri
    return artifact.uri.startswith("oci://") or path.lower().endswith(ARCHIVES)


def lifecycle_stage(version: ModelVersion, model: ModelStatus) -> str:
    """Return a version's stage: Rejected, Quarantined, Serving, Previous, Retired or Candidate.

    Previous is the version that served before the present one.
    The Model's status decides what serves: a version stores only findings about itself.
    """
    if version.name == (model.serving.version if model.serving is not None else None):
        return "Serving"
    if version.status.stage in (Stage.REJECTED, Stage.QUARANTINED):
        return str(version.status.stage)
    served = [entry.version for entry in model.history]
    if version.name not in served:
        return "Candidate"
    return "Previous" if version.name == served[0] else "Retired"
