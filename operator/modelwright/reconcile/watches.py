"""Which watch events are relevant, and which of our objects they affect."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.version import Stage
from modelwright.core import endpoint_conflicts, pod_trust
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.store import Indexer, Listener, Store
from modelwright.kube.workers import ReconcileResult
from modelwright.render.fetch_container import FETCH_CONTAINER

log = logging.getLogger(__name__)

Object = dict[str, Any]

RECONCILED_KINDS = (kinds.MODEL, kinds.MODEL_VERSION, kinds.ROLLOUT_POLICY, kinds.RETRAINING_POLICY, kinds.TRAINING_RUN)
"""Kinds whose objects are reconciled."""
ALL_VERSIONS_KIND = "Versions"
"""Kind of the key that stands for all versions of a Model."""
VERSION_BATCH, VERSION_BATCH_SECONDS = 100, 1.0
"""Versions of a Model that one event enqueues at once, and seconds between such batches where it has more."""
_STATUS_KINDS = frozenset(
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
_URGENT_KINDS = frozenset({kinds.MODEL, kinds.MODEL_ROLLOUT})
_DEPLOYMENT_STATUS_FIELDS = ("observedGeneration", "replicas", "readyReplicas", "availableReplicas", "updatedReplicas")


def is_relevant_change(kind: Kind, old: Object | None, new: Object | None) -> bool:
    """Whether the change from `old` to `new` can change a decision. Most of a Deployment's events can't."""
    if old is None or new is None:
        return True
    if _relevant_fields(kind, old) != _relevant_fields(kind, new):
        return True
    if kind == kinds.DEPLOYMENT:
        return _deployment_fields(old) != _deployment_fields(new)
    if kind == kinds.JOB:
        return _job_conditions(old) != _job_conditions(new)
    return kind in _STATUS_KINDS and old.get("status") != new.get("status")


def is_spec_edit(kind: Kind, old: Object | None, new: Object | None) -> bool:
    """Whether a user has edited a Model or its rollout, and waits for the first affected key to be reconciled."""
    return (
        kind in _URGENT_KINDS
        and old is not None
        and new is not None
        and old["metadata"].get("generation") != new["metadata"].get("generation")
    )


def _relevant_fields(kind: Kind, obj: Object) -> tuple[Any, ...]:
    metadata = obj["metadata"]
    content = tuple(value for key, value in sorted(obj.items()) if key not in ("metadata", "status"))
    metadata_fields = (metadata.get("labels"), metadata.get("ownerReferences")) if kind not in kinds.OWN_KINDS else ()
    labels = (metadata.get("labels"),) if kind == kinds.MODEL_VERSION else ()
    return metadata.get("uid"), metadata.get("deletionTimestamp"), content, metadata_fields, labels


def _deployment_fields(obj: Object) -> tuple[Any, ...]:
    status = obj.get("status", {})
    failing = [c.get("message") for c in status.get("conditions", []) if c.get("type") == "ReplicaFailure"]
    return *(status.get(field) for field in _DEPLOYMENT_STATUS_FIELDS), failing


def _job_conditions(obj: Object) -> set[tuple[Any, Any]]:
    """Its conditions, which tell its end; what its pods do meanwhile decides nothing."""
    conditions = obj.get("status", {}).get("conditions", [])
    return {(entry.get("type"), entry.get("status")) for entry in conditions}


def build_router(store: Store, queue: WorkQueue) -> Listener:
    """Build a store listener that enqueues the keys affected by a change, and drops irrelevant changes at once."""

    def route(kind: Kind, old: Object | None, new: Object | None) -> None:
        if not is_relevant_change(kind, old, new):
            return
        if new is not None and is_spec_edit(kind, old, new):
            for key in tuple(affected_keys(kind, new, store))[:1]:
                queue.add(key, high_priority=True)
        # Both: objects that are no longer referred to are affected as well.
        for obj in (new, old):
            if obj is not None:
                for key in affected_keys(kind, obj, store):
                    queue.add(key)

    return route


def affected_keys(kind: Kind, obj: Object, store: Store) -> Iterable[Key]:
    """The objects to reconcile because `obj` changed.

    A malformed object, which its schema should have rejected, affects itself alone, so that its status reports that.
    """
    try:
        return tuple(_list_keys(kind, obj, store))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        key = Key(kind.kind, obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
        log.warning(
            "the objects affected by a malformed object are unknown", extra={"object": str(key), "error": str(error)}
        )
        return (key,) if kind in RECONCILED_KINDS else ()


def _list_keys(kind: Kind, obj: Object, store: Store) -> Iterable[Key]:
    metadata = obj["metadata"]
    namespace, name = metadata.get("namespace") or "", metadata["name"]
    if kind == kinds.MODEL:
        policies = _retraining_policies(namespace, name, store)
        # Versions depend on their Model in three ways: whether signatures are verified, whether a shared cache must be
        # proven, and where their resolve pods run.
        spec = obj.get("spec") or {}
        affects_versions = spec.get("signatures") or (spec.get("serving") or {}).get("cache") or spec.get("helperPods")
        versions = _version_keys(namespace, name, store) if affects_versions else ()
        return [Key("Model", namespace, name), *versions, *_younger_rivals(obj, store), *policies]
    if kind == kinds.ENDPOINT:
        return _younger_rivals(obj, store)
    if kind == kinds.MODEL_VERSION:
        owner = ((obj.get("spec") or {}).get("modelRef") or {}).get("name")
        models = _models_by_index(store, "version", f"{namespace}/{name}")
        if owner:
            models.append(Key("Model", namespace, owner))
        return [Key("ModelVersion", namespace, name), *dict.fromkeys(models), *producing_run(obj)]
    if kind == kinds.ROLLOUT_POLICY:
        return [Key("RolloutPolicy", namespace, name), *_models_by_index(store, "policy", f"{namespace}/{name}")]
    if kind in (kinds.MODEL_ROLLOUT, kinds.APPROVAL):
        spec = obj.get("spec") or {}
        owner = (spec.get("modelRef") or {}).get("name")
        version = store.get(kinds.MODEL_VERSION, namespace, str((spec.get("target") or {}).get("version")))
        return [Key("Model", namespace, str(owner)), *producing_run(version)] if owner else []
    if kind == kinds.RETRAINING_POLICY:
        return [Key("RetrainingPolicy", namespace, name), *_live_runs(namespace, name, store)]
    if kind == kinds.TRAINING_RUN:
        # Runs of one policy wait for each other.
        policy = str(((obj.get("spec") or {}).get("policyRef") or {}).get("name"))
        runs = {Key("TrainingRun", namespace, name), *_live_runs(namespace, policy, store)}
        return [*sorted(runs), Key("RetrainingPolicy", namespace, policy)]
    if kind in (kinds.MODEL_RUNTIME, kinds.CLUSTER_MODEL_RUNTIME):
        return [
            Key("Model", ns, n)
            for ns, n in store.list_names(kinds.MODEL)
            if kind == kinds.CLUSTER_MODEL_RUNTIME or ns == namespace
        ]
    if kind == kinds.GATEWAY:
        return _models_by_index(store, "gateway", f"{namespace}/{name}")
    if kind == kinds.GATEWAY_CLASS:
        return [Key("Model", *place) for place in store.list_names(kinds.MODEL)]
    keys = _pod_keys(namespace, metadata, store) if kind == kinds.POD else []
    return keys or _owner_keys(namespace, metadata)


def producing_run(version: Object | None) -> list[Key]:
    """The run that made a version: it reports the version's outcome, and its policy counts versions rolled back."""
    lineage = ((version or {}).get("spec") or {}).get("lineage") or {}
    if version is None or not lineage.get("trainingRun"):
        return []
    return [Key("TrainingRun", version["metadata"].get("namespace") or "", str(lineage["trainingRun"]))]


def _retraining_policies(namespace: str, model: str, store: Store) -> Iterator[Key]:
    for place in store.list_places("trains", kinds.RETRAINING_POLICY, f"{namespace}/{model}"):
        yield Key("RetrainingPolicy", *place)


def _live_runs(namespace: str, policy: str, store: Store) -> Iterator[Key]:
    for place in store.list_places("retraining", kinds.TRAINING_RUN, f"{namespace}/{policy} live"):
        yield Key("TrainingRun", *place)


def _younger_rivals(obj: Object, store: Store) -> Iterator[Key]:
    """The younger Models that claim a hostname and path which this one has, or had; older ones don't depend on it."""
    metadata, endpoint = obj["metadata"], (obj.get("spec") or {}).get("endpoint")
    if not endpoint:
        return
    own_order = _creation_order(metadata)
    for place in dict.fromkeys(endpoint_conflicts.list_rival_places(metadata["namespace"], endpoint, younger=True)):
        for other in store.by_index("place", kinds.MODEL, place):
            if _creation_order(other["metadata"]) > own_order:
                yield Key("Model", other["metadata"]["namespace"], other["metadata"]["name"])


def _creation_order(metadata: Object) -> tuple[str, str, str]:
    return str(metadata.get("creationTimestamp", "")), metadata["namespace"], metadata["name"]


def _version_keys(namespace: str, model: str, store: Store) -> Iterator[Key]:
    """The versions of a Model; for a Model with many one key, by which VersionEnqueuer enqueues them in batches."""
    places = store.list_places("model", kinds.MODEL_VERSION, model, namespace)
    if len(places) > VERSION_BATCH:
        yield Key(ALL_VERSIONS_KIND, namespace, model)
        return
    for place in places:
        yield Key("ModelVersion", *place)


class VersionEnqueuer:
    """Enqueues the versions of a Model that has many, in batches, the youngest first."""

    def __init__(self, store: Store, wake: Callable[[Key], None]) -> None:
        self._store = store
        self._enqueue = wake
        self._remaining: dict[Key, list[tuple[str, str]]] = {}

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Enqueue the next batch of this Model's versions. A request in between starts over after the last batch."""
        if key not in self._remaining:
            places = self._store.list_places("model", kinds.MODEL_VERSION, key.name, key.namespace)
            self._remaining[key] = self._store.sort_newest_first(kinds.MODEL_VERSION, places)
        batch, remaining = self._remaining[key][:VERSION_BATCH], self._remaining[key][VERSION_BATCH:]
        for place in batch:
            self._enqueue(Key("ModelVersion", *place))
        if remaining:
            self._remaining[key] = remaining
            return ReconcileResult(VERSION_BATCH_SECONDS)
        del self._remaining[key]
        return ReconcileResult()


def _owner_keys(namespace: str, metadata: Object) -> list[Key]:
    for owner in metadata.get("ownerReferences") or ():
        is_own_kind = owner.get("controller") and str(owner.get("apiVersion", "")).startswith(names.GROUP + "/")
        # A ModelRollout's child affects the Model, which the child's label names.
        if is_own_kind and owner.get("kind") != "ModelRollout":
            return [Key(str(owner["kind"]), namespace, str(owner["name"]))]
    model = (metadata.get("labels") or {}).get(names.LABEL_MODEL)
    return [Key("Model", namespace, str(model))] if model else []


def _pod_keys(namespace: str, metadata: Object, store: Store) -> list[Key]:
    """The object that reads the report of a pod which a Job, not the operator, has created."""
    labels = metadata.get("labels") or {}
    if labels.get(names.LABEL_ROLE) == names.ROLE_TRAINING:
        return [Key("TrainingRun", namespace, str(labels.get(names.LABEL_RUN)))]
    cron_job = store.get(kinds.CRON_JOB, namespace, str(labels.get(names.LABEL_DATA_POLL)))
    return _owner_keys(namespace, cron_job["metadata"]) if cron_job is not None else []


def _models_by_index(store: Store, index: str, value: str) -> list[Key]:
    return [Key("Model", *place) for place in store.list_places(index, kinds.MODEL, value)]


def _model_spec(kind: Kind, obj: Object) -> Mapping[str, Any]:
    return (obj.get("spec") or {}) if kind == kinds.MODEL else {}


def _by_version(kind: Kind, obj: Object) -> Iterator[str]:
    name = (_model_spec(kind, obj).get("version") or {}).get("name")
    if name:
        yield f"{obj['metadata']['namespace']}/{name}"


def _by_gateway(kind: Kind, obj: Object) -> Iterator[str]:
    for ref in (_model_spec(kind, obj).get("endpoint") or {}).get("parentRefs", []):
        yield f"{ref.get('namespace') or obj['metadata']['namespace']}/{ref.get('name')}"


def _by_place(kind: Kind, obj: Object) -> Iterator[str]:
    endpoint = obj["spec"]["endpoint"] if kind == kinds.ENDPOINT else _model_spec(kind, obj).get("endpoint")
    if endpoint:
        yield from dict.fromkeys(endpoint_conflicts.list_index_places(obj["metadata"]["namespace"], endpoint))


def _by_policy(kind: Kind, obj: Object) -> Iterator[str]:
    name = (_model_spec(kind, obj).get("rolloutPolicyRef") or {}).get("name")
    if name:
        yield f"{obj['metadata']['namespace']}/{name}"


def _by_retraining(kind: Kind, obj: Object) -> Iterator[str]:
    name = ((obj.get("spec") or {}).get("policyRef") or {}).get("name") if kind == kinds.TRAINING_RUN else None
    if name:
        ended = (obj.get("status") or {}).get("finishedAt")
        yield f"{obj['metadata']['namespace']}/{name} {'ended' if ended else 'live'}"


def _by_trained_model(kind: Kind, obj: Object) -> Iterator[str]:
    name = ((obj.get("spec") or {}).get("modelRef") or {}).get("name") if kind == kinds.RETRAINING_POLICY else None
    if name:
        yield f"{obj['metadata']['namespace']}/{name}"


def _by_offer(kind: Kind, obj: Object) -> Iterator[str]:
    """The Model that may use the version, alone and with each of its labels; "trained" when a run made the version."""
    if kind != kinds.MODEL_VERSION:
        return
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    model = (spec.get("modelRef") or {}).get("name")
    if not model or metadata.get("deletionTimestamp") or status.get("stage") in (Stage.QUARANTINED, Stage.REJECTED):
        return
    place = f"{metadata['namespace']}/{model}"
    yield place
    if (spec.get("lineage") or {}).get("trainingRun"):
        yield f"{place} trained"
    for key, value in (metadata.get("labels") or {}).items():
        yield f"{place} {key}={value}"


def _by_resolving(kind: Kind, obj: Object) -> Iterator[str]:
    """The namespace of a resolve pod whose own container has not ended."""
    metadata, phase = obj["metadata"], (obj.get("status") or {}).get("phase")
    role = (metadata.get("labels") or {}).get(names.LABEL_ROLE)
    if kind == kinds.POD and role == names.ROLE_RESOLVE and phase not in ("Succeeded", "Failed"):
        ended = (pod_trust.container_status(obj, FETCH_CONTAINER).get("state") or {}).get("terminated") or {}
        if ended.get("exitCode") != 0:
            yield str(metadata["namespace"])


def count_resolve_pods(store: Store, namespace: str) -> int:
    """Number of resolve pods that run in a namespace."""
    return len(store.list_places("resolving", kinds.POD, namespace))


def _by_snapshot(kind: Kind, obj: Object) -> Iterator[str]:
    """A stored policy (under ""), and the records that name it."""
    if kind == kinds.CONTROLLER_REVISION:
        if (obj["metadata"].get("labels") or {}).get(names.LABEL_ROLE) == names.ROLE_POLICY:
            yield ""
    elif kind in (kinds.MODEL_ROLLOUT, kinds.TRAINING_RUN):
        name = ((obj.get("status") or {}).get("policy") or {}).get("storedIn")
        if name:
            yield f"{obj['metadata']['namespace']}/{name}"


def eligible_versions(store: Store, namespace: str, model: str, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """(namespace, name) of the versions with these labels that a Model may use, the youngest first. Parses none."""
    place = f"{namespace}/{model}"
    places = set(store.list_places("offer", kinds.MODEL_VERSION, place))
    for key, value in labels.items():
        places &= set(store.list_places("offer", kinds.MODEL_VERSION, f"{place} {key}={value}"))
    return store.sort_newest_first(kinds.MODEL_VERSION, places)


def eligible_trained_versions(store: Store, namespace: str, model: str) -> list[tuple[str, str]]:
    """The same, of the versions that TrainingRuns have made."""
    places = store.list_places("offer", kinds.MODEL_VERSION, f"{namespace}/{model} trained")
    return store.sort_newest_first(kinds.MODEL_VERSION, places)


INDEXERS: Mapping[str, Indexer] = {
    "version": _by_version,
    "policy": _by_policy,
    "gateway": _by_gateway,
    "place": _by_place,
    "retraining": _by_retraining,
    "trains": _by_trained_model,
    "offer": _by_offer,
    "resolving": _by_resolving,
    "snapshot": _by_snapshot,
}
"""Indexes that the store keeps for the lookups above."""
