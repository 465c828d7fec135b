"""Which watch events matter, and which objects of ours they concern."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from modelwright.api import names
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Indexer, Store

log = logging.getLogger(__name__)

Object = dict[str, Any]

LOOKED_AT = (kinds.MODEL, kinds.MODEL_VERSION, kinds.ROLLOUT_POLICY, kinds.RETRAINING_POLICY, kinds.TRAINING_RUN)
"""Kinds whose objects have passes of their own."""
_STATUS_MATTERS = frozenset(
    {
        kinds.MODEL,
        kinds.MODEL_VERSION,
        kinds.POD,
        kinds.HTTP_ROUTE,
        kinds.GRPC_ROUTE,
        kinds.GATEWAY,
        kinds.GATEWAY_CLASS,
    }
)
_STEERED = frozenset({kinds.MODEL, kinds.MODEL_ROLLOUT})
_DEPLOYMENT_STATUS = ("observedGeneration", "replicas", "readyReplicas", "availableReplicas", "updatedReplicas")


def significant(kind: Kind, old: Object | None, new: Object | None) -> bool:
    """Whether the change from `old` to `new` can change a decision. Most of a Deployment's events can't."""
    if old is None or new is None:
        return True
    if _facts(kind, old) != _facts(kind, new):
        return True
    if kind == kinds.DEPLOYMENT:
        return _deployment_facts(old) != _deployment_facts(new)
    if kind == kinds.JOB:
        return _job_facts(old) != _job_facts(new)
    return kind in _STATUS_MATTERS and old.get("status") != new.get("status")


def edited(kind: Kind, old: Object | None, new: Object | None) -> bool:
    """Whether somebody has changed what a Model is steered by, and waits for an answer of the first of its `keys`."""
    return (
        kind in _STEERED
        and old is not None
        and new is not None
        and old["metadata"].get("generation") != new["metadata"].get("generation")
    )


def _facts(kind: Kind, obj: Object) -> tuple[Any, ...]:
    metadata = obj["metadata"]
    content = tuple(value for key, value in sorted(obj.items()) if key not in ("metadata", "status"))
    own = (metadata.get("labels"), metadata.get("ownerReferences")) if kind not in kinds.OWN_KINDS else ()
    labels = (metadata.get("labels"),) if kind == kinds.MODEL_VERSION else ()
    return metadata.get("uid"), metadata.get("deletionTimestamp"), content, own, labels


def _deployment_facts(obj: Object) -> tuple[Any, ...]:
    status = obj.get("status", {})
    failing = [c.get("message") for c in status.get("conditions", []) if c.get("type") == "ReplicaFailure"]
    return *(status.get(field) for field in _DEPLOYMENT_STATUS), failing


def _job_facts(obj: Object) -> set[tuple[Any, Any]]:
    """Its end, however that came; what its pods do meanwhile decides nothing."""
    told = obj.get("status", {}).get("conditions", [])
    return {(entry.get("type"), entry.get("status")) for entry in told}


def keys(kind: Kind, obj: Object, store: Store) -> Iterable[Key]:
    """The objects to look at again because of `obj`. One that has not the shape of its kind, as its schema would have
    demanded, concerns itself alone, so that it is told what is wrong with it."""
    try:
        return tuple(_keys(kind, obj, store))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        key = Key(kind.kind, obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
        log.warning("it can't be told what an object concerns", extra={"object": str(key), "error": str(error)})
        return (key,) if kind in LOOKED_AT else ()


def _keys(kind: Kind, obj: Object, store: Store) -> Iterable[Key]:
    metadata = obj["metadata"]
    namespace, name = metadata.get("namespace") or "", metadata["name"]
    if kind == kinds.MODEL:
        policies = _policies_of(namespace, name, store)
        return [Key("Model", namespace, name), *_versions_of(namespace, name, store), *_rivals(obj, store), *policies]
    if kind == kinds.MODEL_VERSION:
        owner = ((obj.get("spec") or {}).get("modelRef") or {}).get("name")
        models = _models(store, "version", f"{namespace}/{name}")
        if owner:
            models.append(Key("Model", namespace, owner))
        return [Key("ModelVersion", namespace, name), *dict.fromkeys(models), *_run_of(obj)]
    if kind == kinds.ROLLOUT_POLICY:
        return [Key("RolloutPolicy", namespace, name), *_models(store, "policy", f"{namespace}/{name}")]
    if kind in (kinds.MODEL_ROLLOUT, kinds.APPROVAL):
        spec = obj.get("spec") or {}
        owner = (spec.get("modelRef") or {}).get("name")
        version = store.get(kinds.MODEL_VERSION, namespace, str((spec.get("target") or {}).get("version")))
        return [Key("Model", namespace, str(owner)), *_run_of(version)] if owner else []
    if kind == kinds.RETRAINING_POLICY:
        return [Key("RetrainingPolicy", namespace, name), *_runs(namespace, name, store)]
    if kind == kinds.TRAINING_RUN:
        # Runs of one policy wait for each other.
        policy = str(((obj.get("spec") or {}).get("policyRef") or {}).get("name"))
        runs = {Key("TrainingRun", namespace, name), *_runs(namespace, policy, store)}
        return [*sorted(runs), Key("RetrainingPolicy", namespace, policy)]
    if kind in (kinds.MODEL_RUNTIME, kinds.CLUSTER_MODEL_RUNTIME):
        return [
            Key("Model", ns, n)
            for ns, n in store.names(kinds.MODEL)
            if kind == kinds.CLUSTER_MODEL_RUNTIME or ns == namespace
        ]
    if kind == kinds.GATEWAY:
        return _models(store, "gateway", f"{namespace}/{name}")
    if kind == kinds.GATEWAY_CLASS:
        return [Key("Model", *place) for place in store.names(kinds.MODEL)]
    found = _of_pod(namespace, metadata, store) if kind == kinds.POD else []
    found = found or _of_child(namespace, metadata)
    if kind == kinds.CONTROLLER_REVISION:
        # The stage of a version says whether its revision is kept.
        version = (metadata.get("annotations") or {}).get(names.ANNOTATION_VERSION_NAME)
        found += [Key("ModelVersion", namespace, str(version))] if version else []
    return found


def _run_of(version: Object | None) -> list[Key]:
    """The run that made a version: it tells what became of it, and its policy counts one that was rolled back."""
    lineage = ((version or {}).get("spec") or {}).get("lineage") or {}
    if version is None or not lineage.get("trainingRun"):
        return []
    return [Key("TrainingRun", version["metadata"].get("namespace") or "", str(lineage["trainingRun"]))]


def _policies_of(namespace: str, model: str, store: Store) -> Iterator[Key]:
    for policy in store.by_index("trains", kinds.RETRAINING_POLICY, f"{namespace}/{model}"):
        yield Key("RetrainingPolicy", namespace, policy["metadata"]["name"])


def _runs(namespace: str, policy: str, store: Store) -> Iterator[Key]:
    for run in store.by_index("retraining", kinds.TRAINING_RUN, f"{namespace}/{policy}"):
        if not (run.get("status") or {}).get("finishedAt"):
            yield Key("TrainingRun", namespace, run["metadata"]["name"])


def _rivals(obj: Object, store: Store) -> Iterator[Key]:
    """The Models that want a place on a gateway which this one has, or had."""
    me = Key("Model", obj["metadata"]["namespace"], obj["metadata"]["name"])
    for place in _by_place(kinds.MODEL, obj):
        yield from (key for key in _models(store, "place", place) if key != me)


def _versions_of(namespace: str, model: str, store: Store) -> Iterator[Key]:
    for version in store.by_model(kinds.MODEL_VERSION, namespace, model):
        yield Key("ModelVersion", namespace, version["metadata"]["name"])


def _of_child(namespace: str, metadata: Object) -> list[Key]:
    for owner in metadata.get("ownerReferences") or ():
        ours = owner.get("controller") and str(owner.get("apiVersion", "")).startswith(names.GROUP + "/")
        # A ModelRollout's child concerns the Model, which the child's label names.
        if ours and owner.get("kind") != "ModelRollout":
            return [Key(str(owner["kind"]), namespace, str(owner["name"]))]
    model = (metadata.get("labels") or {}).get(names.LABEL_MODEL)
    return [Key("Model", namespace, str(model))] if model else []


def _of_pod(namespace: str, metadata: Object, store: Store) -> list[Key]:
    """Whom a pod tells its result that a Job has made, and not we."""
    labels = metadata.get("labels") or {}
    if labels.get(names.LABEL_ROLE) == names.ROLE_TRAINING:
        return [Key("TrainingRun", namespace, str(labels.get(names.LABEL_RUN)))]
    cron_job = store.get(kinds.CRON_JOB, namespace, str(labels.get(names.LABEL_LOOK)))
    return _of_child(namespace, cron_job["metadata"]) if cron_job is not None else []


def _models(store: Store, index: str, value: str) -> list[Key]:
    found = store.by_index(index, kinds.MODEL, value)
    return [Key("Model", obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in found]


def _spec(kind: Kind, obj: Object) -> Mapping[str, Any]:
    return (obj.get("spec") or {}) if kind == kinds.MODEL else {}


def _by_version(kind: Kind, obj: Object) -> Iterator[str]:
    name = (_spec(kind, obj).get("version") or {}).get("name")
    if name:
        yield f"{obj['metadata']['namespace']}/{name}"


def _by_gateway(kind: Kind, obj: Object) -> Iterator[str]:
    for ref in (_spec(kind, obj).get("endpoint") or {}).get("parentRefs", []):
        yield f"{ref.get('namespace') or obj['metadata']['namespace']}/{ref.get('name')}"


def places(namespace: str, endpoint: Mapping[str, Any]) -> Iterator[str]:
    """The (gateway, hostname, path) places of an endpoint as on the wire: two Models that share none can't conflict."""
    path = str(endpoint.get("pathPrefix") or "/").rstrip("/")
    for ref in endpoint.get("parentRefs", []):
        for host in endpoint.get("hostnames") or [""]:
            yield f"{ref.get('namespace') or namespace}/{ref.get('name')} {host}{path}"


def _by_place(kind: Kind, obj: Object) -> Iterator[str]:
    endpoint = _spec(kind, obj).get("endpoint")
    if endpoint:
        yield from dict.fromkeys(places(obj["metadata"]["namespace"], endpoint))


def _by_policy(kind: Kind, obj: Object) -> Iterator[str]:
    name = (_spec(kind, obj).get("rolloutPolicyRef") or {}).get("name")
    if name:
        yield f"{obj['metadata']['namespace']}/{name}"


def _by_retraining(kind: Kind, obj: Object) -> Iterator[str]:
    name = ((obj.get("spec") or {}).get("policyRef") or {}).get("name") if kind == kinds.TRAINING_RUN else None
    if name:
        yield f"{obj['metadata']['namespace']}/{name}"


def _by_trained_model(kind: Kind, obj: Object) -> Iterator[str]:
    name = ((obj.get("spec") or {}).get("modelRef") or {}).get("name") if kind == kinds.RETRAINING_POLICY else None
    if name:
        yield f"{obj['metadata']['namespace']}/{name}"


INDEXERS: Mapping[str, Indexer] = {
    "version": _by_version,
    "policy": _by_policy,
    "gateway": _by_gateway,
    "place": _by_place,
    "retraining": _by_retraining,
    "trains": _by_trained_model,
}
"""Indexes that the store keeps for the look-ups above."""
