"""How what a Model's pods find in a shared cache is proven."""

from typing import Any

from modelwright.api.v1alpha1.version import Artifact, ModelVersion
from modelwright.core import versions
from modelwright.serving.fetching import Proof
from modelwright.serving.images import Images

Object = dict[str, Any]


def needs_tree(model: Object, artifact: Artifact, digest: str | None, images: Images) -> bool:
    """Whether the digest of the unpacked files has to be found out: the Model's cache is verified in full, and the
    artifact's own digest doesn't tell its files."""
    spec = model.get("spec") or {}
    cached = bool((spec.get("serving") or {}).get("cache"))
    return cached and _verify(model, images) == "full" and versions.is_packed(artifact, digest)


def proof(model: Object, version: ModelVersion, digest: str, images: Images) -> Proof:
    """What the pods of a version of this Model are given."""
    known = version.status.artifact
    tree = known.tree if known is not None and known.digest == digest else None
    verify = _verify(model, images)
    return Proof(verify, tree if needs_tree(model, version.spec.artifact, digest, images) else None)


def _verify(model: Object, images: Images) -> str:
    return images.verify_cache(signed=bool((model.get("spec") or {}).get("signatures")))
