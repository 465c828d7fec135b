"""The shared cache of a Model's pods: how its contents are proven, and what fills it for pods that may not fetch."""

from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Serving
from modelwright.api.v1alpha1.version import Artifact, ModelVersion
from modelwright.core import versions
from modelwright.core.problem import Problem
from modelwright.kube.queue import Key
from modelwright.reconcile.context import Context
from modelwright.render.fetch_container import CacheProof
from modelwright.render.images import Images

Object = dict[str, Any]


def needs_tree_digest(model: Object, artifact: Artifact, digest: str | None, images: Images) -> bool:
    """Whether the digest of the unpacked files must be computed: the Model's cache is verified in full, and the
    artifact's own digest doesn't cover its files."""
    spec = model.get("spec") or {}
    cached = bool((spec.get("serving") or {}).get("cache"))
    return cached and _verification_level(model, images) == "full" and versions.is_packed(artifact, digest)


def build_proof(model: Object, version: ModelVersion, digest: str, images: Images) -> CacheProof:
    """The proof by which the pods of a version of this Model verify the cache."""
    known = version.status.artifact
    tree = known.tree if known is not None and known.digest == digest else None
    verify = _verification_level(model, images)
    return CacheProof(verify, tree if needs_tree_digest(model, version.spec.artifact, digest, images) else None)


def prefetch_claim(serving: Serving) -> str | None:
    """The claim whose cache separate pods fill; None when the serving pods fetch their artifact."""
    apart = serving.service_account_name is not None and serving.cache is not None
    return serving.cache.persistent_volume_claim if apart and serving.cache is not None else None


def request_caching(context: Context, namespace: str, version: str, claim: str) -> None:
    """Request that the cache on this claim is filled with the version's artifact."""
    key = Key("ModelVersion", namespace, version)
    context.cache_requests[key] = claim
    context.enqueue(key)


def cache_problem(context: Context, serving: Serving, version: ModelVersion) -> Problem | None:
    """Why pods that may not fetch can't run a version yet; None once the cache has its artifact."""
    claim, known = prefetch_claim(serving), version.status.artifact
    if claim is None or (known is not None and known.cached == claim):
        return None
    request_caching(context, version.namespace, version.name, claim)
    failure = version.status.failure
    if failure is not None:
        return Problem(failure.reason, f"ModelVersion {version.name}: {failure.message}", stalled=True)
    text = f"ModelVersion {version.name}: its artifact is being brought into the cache on claim {claim}"
    return Problem(Reason.WAITING_FOR_CACHE, text)


def _verification_level(model: Object, images: Images) -> str:
    return images.verify_cache(signed=bool((model.get("spec") or {}).get("signatures")))
