"""Gathers the one picture of a Model that its decision is made from; reads the store, and the API server only for pods
that don't become ready."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.conditions import ConditionType, find_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint, Model, initial_replicas
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import attachment, endpoint_conflicts, pod_failures, runtime_choice, signatures, versions
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.observation import (
    Observation,
    RevisionView,
    ServingRevision,
    TrafficView,
    confirm_serving,
    infer_serving,
)
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.runtime_choice import RuntimeCandidate, RuntimeChoice
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.obs.read_child import read_child, record_bug
from modelwright.reconcile import artifact_cache, gates, mirror_tokens, rollout_records, watches
from modelwright.reconcile.children import is_controlled_by
from modelwright.reconcile.context import Context
from modelwright.reconcile.snapshot import ModelSnapshot, RevisionPlan
from modelwright.render import stored_revision as revisions
from modelwright.render.fetch_container import CacheProof, cache_claim
from modelwright.render.revision_input import RevisionInput
from modelwright.render.strategic_merge import MergeError
from modelwright.traffic.gateway_api import GatewayRouter
from modelwright.traffic.port import RouteStatus, RoutingObjects
from modelwright.traffic.port import TrafficRouter as TrafficPort
from modelwright.traffic.providers import choose_router

Object = dict[str, Any]

MAX_VERSIONS_READ = 19
"""So many of the newest versions of a following Model are tried at most in a pass, beside the one that serves."""
POD_READ_DELAY = timedelta(seconds=8)
"""How long a revision lacks pods before they are read: most become ready sooner, and reading costs a request."""


async def observe_model(context: Context, raw: Object, model: Model, confirmed_before: str | None) -> ModelSnapshot:
    """The picture of a Model. `confirmed_before`: the route (uid and generation) that a probe has already confirmed."""
    namespace, name = model.namespace, model.name
    store, now = context.store, context.clock.now()
    stored = _index_by_revision(store.by_model(kinds.CONTROLLER_REVISION, namespace, name), model.uid)
    deployments = _index_by_revision(store.by_model(kinds.DEPLOYMENT, namespace, name), model.uid)
    serving = _serving_from_status(model)
    records = await rollout_records.restore_policy(context, rollout_records.load_history(context, model), namespace)
    target = _with_approved_runtime(records.newest, _resolve_target(context, raw, model, stored, deployments), stored)
    plan = target if isinstance(target, RevisionPlan) else None
    hand = records.manual_rollback
    held = _manual_rollback_target(context, raw, model, hand, stored, deployments) if hand is not None else None
    if rollout_records.is_released_by_spec(hand, model):
        held = None
    goes_to = target if held is None else held
    revision, problem = _split_target(goes_to)
    views = {key: _view_or_failure(key, deployment) for key, deployment in deployments.items()}
    pods_ready = {key: view.ready for key, view in views.items() if view.replicas or view.ready}
    traffic, scene = _observe_routing(context, raw, model, pods_ready)
    named = traffic.observe_split(scene).targets
    serving = _serving_after_promotion(_last_finished(records), serving, named)
    kept = named | ({serving.revision.hash} if serving else set())
    if records.newest is not None and records.newest.is_active:
        kept |= {r.hash for r in (records.newest.candidate, records.newest.from_revision) if r is not None}
    for key in stored.keys() - views.keys():
        if key not in kept and not _has_other_children(store, namespace, names.revision_name(name, key)):
            continue
        # Its Deployment is gone, its template isn't: what takes requests can be had again without version or runtime.
        views[key] = RevisionView(_revision_of_child(stored[key]))
    for key in sorted({*named, *([revision.hash] if revision else [])}):
        if key in deployments:
            views[key] = await _diagnose_pods(context, namespace, deployments[key], views[key], now)
    try:
        evidence = await _confirm_traffic(
            traffic, scene, named, views, serving, confirmed_before, _readiness_path(named, plan, stored)
        )
    except api_errors.ApiError:
        raise
    except Exception as error:
        text = record_bug(scene.route or scene.service or raw, error)
        evidence = RouteStatus(False, Problem(Reason.INTERNAL_ERROR, text))
    routed = traffic.observe_split(scene)
    observed = Observation(
        now=now,
        target=revision,
        problem=problem,
        replicas=_required_pods(model, plan, serving, views),
        revisions=views,
        traffic=TrafficView(
            named,
            evidence.confirmed,
            evidence.problem,
            weights=routed.weights,
            matched=routed.matched,
            mirror=routed.mirror_percent,
            sticky=routed.sticky,
            stale_token=mirror_tokens.has_stale_token(context, raw, stored, records.newest, routed),
        ),
        serving=serving,
        suspended=model.spec.suspend,
        settle_time=context.settle_time,
        start_timeout=timedelta(seconds=model.spec.serving.start_timeout_seconds),
    )
    observed = replace(observed, serving=serving or _presume_serving(model, observed, records.newest))
    other = held if isinstance(held, RevisionPlan) else None
    of = other or plan
    rolling, looked = rollout_records.build_input(
        context,
        model,
        records,
        observed,
        digest=of.digest if of is not None else None,
        version=of.version if of is not None else None,
        traffic=traffic,
        scene=scene,
        stored=stored,
        choice=of.choice if of is not None else None,
        made=of.stored if of is not None else None,
    )
    if rolling is not None and rolling.record is not None:
        results = await gates.read_results(context, rolling.record, rolling.policy)
        rolling = replace(rolling, gates=results, report_problem=gates.untrusted_problem(context, model.namespace))
    observed = replace(observed, rollout=rolling)
    observed = replace(observed, serving=confirm_serving(observed))
    stamp = target if isinstance(target, versions.VersionToCreate) else None
    return ModelSnapshot(raw, model, plan, stamp, stored, deployments, traffic, scene, observed, records, looked, other)


def _with_approved_runtime(
    record: RolloutRecord | None,
    target: RevisionPlan | Revision | Problem | versions.VersionToCreate,
    stored: Mapping[str, Object],
) -> RevisionPlan | Revision | Problem | versions.VersionToCreate:
    """The target, rendered by what people have approved: a runtime that was edited since is not taken up."""
    if not isinstance(target, RevisionPlan):
        return target
    approved = rollout_records.approved_runtime(record, target.revision)
    if approved in (None, target.stored["data"].get("runtime", {}).get("content")):
        return target
    kept = stored.get(target.revision.hash)
    if kept is not None:
        return replace(target, stored=kept)
    runtime = target.choice.runtime
    text = (
        f"{runtime.kind} {runtime.name} was edited after people had approved; put it back, or set "
        "spec.serving.restartedAt of the Model, so that they are asked about what it is now"
    )
    return Problem(Reason.AWAITING_APPROVAL, text, stalled=True)


def _split_target(
    goes_to: RevisionPlan | Revision | Problem | versions.VersionToCreate,
) -> tuple[Revision | None, Problem | None]:
    if isinstance(goes_to, RevisionPlan):
        return goes_to.revision, None
    if isinstance(goes_to, Revision):
        return goes_to, None
    return None, goes_to if isinstance(goes_to, Problem) else None


def _manual_rollback_target(
    context: Context,
    raw: Object,
    model: Model,
    hand: RolloutRecord,
    stored: Mapping[str, Object],
    deployments: Mapping[str, Object],
) -> RevisionPlan | Revision | Problem:
    """Where a person's rollback goes: the revision that the version was last served by, as it was stored; else one made
    from the version."""
    if hand.candidate is not None and hand.candidate.hash in stored:
        return hand.candidate
    wanted = hand.spec.target
    of_version = [obj for obj in stored.values() if _revision_of_child(obj).version == wanted.version]
    if of_version and wanted.revision is None and hand.candidate is None:
        return _revision_of_child(max(of_version, key=lambda obj: int(obj.get("revision", 0))))
    found = context.store.get(kinds.MODEL_VERSION, model.namespace, wanted.version)
    if found is None:
        text = f"ModelRollout {hand.name}: spec.target.version: there is no ModelVersion {wanted.version}"
        return Problem(Reason.WAITING_FOR_VERSION, text)
    try:
        version = ModelVersion.parse(found)
    except InvalidObject as error:
        return Problem(Reason.INVALID_SPEC, str(error), stalled=True)
    if version.spec.model_ref.name != model.name:
        text = f"ModelRollout {hand.name}: ModelVersion {wanted.version} is not a version of this Model"
        return Problem(Reason.VERSION_OF_ANOTHER_MODEL, text, stalled=True)
    plan = _plan_version(context, raw, model, version, stored, deployments)
    if isinstance(plan, RevisionPlan) and wanted.revision not in (None, plan.revision.hash):
        text = (
            f"ModelRollout {hand.name}: spec.target.revision: {wanted.revision} is not kept any more; leave it out to "
            f"have version {wanted.version} served as the Model's spec is now"
        )
        return Problem(Reason.INVALID_SPEC, text, stalled=True)
    return plan


def _has_other_children(store: Store, namespace: str, child: str) -> bool:
    """Whether a revision without a Deployment still has other children that are to leave."""
    parts = (kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET, kinds.HORIZONTAL_POD_AUTOSCALER)
    return any(store.get(kind, namespace, child) is not None for kind in parts)


def _index_by_revision(objects: list[Object], uid: str) -> dict[str, Object]:
    """Children of this very Model, by the revision they belong to; those that are being deleted count as gone."""
    found = {}
    for obj in objects:
        key = obj["metadata"].get("labels", {}).get(names.LABEL_REVISION)
        if key and is_controlled_by(obj, uid) and not obj["metadata"].get("deletionTimestamp"):
            found[key] = obj
    return found


def _serving_from_status(model: Model) -> ServingRevision | None:
    told = model.status.serving
    if told is None:
        return None
    since = told.since or model.metadata.creation_timestamp
    return ServingRevision(Revision(told.version, told.revision), since) if since else None


def _presume_serving(model: Model, observed: Observation, newest: RolloutRecord | None) -> ServingRevision | None:
    candidate = newest.spec.target.revision if newest is not None else None
    found, since = infer_serving(observed, candidate), model.metadata.creation_timestamp
    return ServingRevision(found, since) if found is not None and since is not None else None


def _last_finished(records: rollout_records.RolloutHistory) -> RolloutRecord | None:
    """The newest rollout that has ended; one that has begun since says nothing of what serves."""
    newest = records.newest
    if newest is not None and newest.status.finished_at is None and records.ended:
        return records.ended[-1]
    return newest


def _serving_after_promotion(
    record: RolloutRecord | None, serving: ServingRevision | None, named: frozenset[str]
) -> ServingRevision | None:
    """Who serves: a rollout that has succeeded says so, also where the Model's status could not be written after it."""
    ended = record.status.finished_at if record is not None else None
    if record is None or record.candidate is None or ended is None or record.state is not RolloutState.SUCCEEDED:
        return serving
    if named != {record.candidate.hash} or (
        serving is not None and (serving.revision == record.candidate or serving.since >= ended)
    ):
        return serving
    return ServingRevision(record.candidate, ended)


def _resolve_target(
    context: Context, raw: Object, model: Model, stored: Mapping[str, Object], deployments: Mapping[str, Object]
) -> RevisionPlan | Problem | versions.VersionToCreate:
    version = _find_target_version(context, model)
    if not isinstance(version, ModelVersion):
        return version
    return _plan_version(context, raw, model, version, stored, deployments)


def _plan_version(
    context: Context,
    raw: Object,
    model: Model,
    version: ModelVersion,
    stored: Mapping[str, Object],
    deployments: Mapping[str, Object],
) -> RevisionPlan | Problem:
    asked, pinned = model.spec.signatures, version.status.artifact
    digest = signatures.known_digest(version.spec.artifact, pinned.digest if pinned is not None else None, asked)
    if digest is None:
        failure = version.status.failure
        if failure is not None:
            return Problem(failure.reason, f"ModelVersion {version.name}: {failure.message}", stalled=True)
        waiting = find_condition(version.status.conditions, ConditionType.RECONCILING)
        if waiting is not None and waiting.reason == Reason.WAITING_FOR_TURN:
            # Versions that a Model wants have another place in the line, which this one may not know yet.
            context.enqueue(Key("ModelVersion", model.namespace, version.name))
            return Problem(Reason.WAITING_FOR_TURN, f"ModelVersion {version.name}: {waiting.message}")
        return Problem(Reason.WAITING_FOR_DIGEST, f"ModelVersion {version.name}: its digest is being found out")
    served = model.status.serving
    refused = signatures.signature_problem(asked, version, digest, served.version if served is not None else None)
    if refused is not None:
        return refused
    choice = runtime_choice.choose_runtime(
        version.spec.artifact.format, model.spec.serving.runtime_ref, _list_runtimes(context, model.namespace)
    )
    if isinstance(choice, Problem):
        return choice
    endpoint = model.spec.endpoint
    if endpoint is not None and endpoint.protocol == "GRPC" and choice.runtime.spec.ports.grpc is None:
        who = f"{choice.runtime.kind} {choice.runtime.name}"
        text = f"spec.endpoint.protocol: {who} has no gRPC port (its spec.ports.grpc)"
        return Problem(Reason.PROTOCOL_NOT_SUPPORTED, text, stalled=True)
    return _plan_revision(context, raw, model, version, digest, choice, stored, deployments)


def _plan_revision(
    context: Context,
    raw: Object,
    model: Model,
    version: ModelVersion,
    digest: str,
    choice: RuntimeChoice,
    stored: Mapping[str, Object],
    deployments: Mapping[str, Object],
) -> RevisionPlan | Problem:
    revision = revisions.identify_revision(version.name, version.spec, digest, choice, model.spec.serving)
    kept = stored.get(revision.hash)
    proof = artifact_cache.build_proof(raw, version, digest, context.images)
    outdated = revisions.outdated_reason(kept, choice, context.images, proof) if kept else None
    if kept is None or (outdated and _was_never_available(model, revision, deployments.get(revision.hash))):
        if _awaits_cache_proof(context, raw, version, digest, proof):
            text = f"ModelVersion {version.name}: the digest of its files is being found out"
            return Problem(Reason.WAITING_FOR_DIGEST, text)
        absent = artifact_cache.cache_problem(context, model.spec.serving, version)
        if absent is not None:
            return absent
        # A revision that never worked takes up a mended runtime by itself; nobody is served by it.
        number = 1 + max((obj.get("revision", 0) for obj in stored.values()), default=0)
        try:
            inputs = RevisionInput(revision, version.spec, digest, choice, model.spec.serving, proof)
            kept = revisions.render_stored_revision(raw, inputs, context.images, number)
        except MergeError as error:
            return Problem(Reason.INVALID_POD_TEMPLATE, str(error), stalled=True)
        outdated = None
    return RevisionPlan(revision, version, digest, choice, kept, outdated)


def _awaits_cache_proof(context: Context, raw: Object, version: ModelVersion, digest: str, proof: CacheProof) -> bool:
    """Whether the pods' cache can't be proven yet, and soon will be. Where that fails they bring the artifact again."""
    wanted = artifact_cache.needs_tree_digest(raw, version.spec.artifact, digest, context.images)
    return wanted and proof.tree is None and version.status.failure is None


def _was_never_available(model: Model, revision: Revision, deployment: Object | None) -> bool:
    served = model.status.serving is not None and model.status.serving.revision == revision.hash
    available = (deployment or {}).get("status", {}).get("availableReplicas", 0)
    return not served and not available


def _find_target_version(context: Context, model: Model) -> ModelVersion | versions.VersionToCreate | Problem:
    source, namespace = model.spec.version, model.namespace
    serving = model.status.serving
    if source.follow is not None:
        known, unreadable = _read_eligible_versions(context, model)
        if not known and unreadable is not None:
            text = f"spec.version.follow: none of the newest versions can be read; {unreadable}"
            return Problem(Reason.INVALID_SPEC, text, stalled=True)
    else:
        name = source.name or versions.generated_name(model.name, source)
        found = context.store.get(kinds.MODEL_VERSION, namespace, name)
        try:
            known = [ModelVersion.parse(found)] if found else []
        except InvalidObject as error:
            return Problem(Reason.INVALID_SPEC, str(error), stalled=True)
    if serving is None:
        return versions.resolve_target(model.name, source, known, None)
    return versions.resolve_target(model.name, source, known, serving.version, serving.since)


def _read_eligible_versions(context: Context, model: Model) -> tuple[list[ModelVersion], InvalidObject | None]:
    """The newest version that a following Model may take, and the one that serves; and why newer ones can't be read.
    A Model may have very many: the store knows which may be taken, and in which order."""
    selector = model.spec.version.follow.selector if model.spec.version.follow is not None else None
    labels = selector.match_labels if selector is not None else {}
    serving = model.status.serving
    known: dict[str, ModelVersion] = {}
    unreadable = None
    current = context.store.get(kinds.MODEL_VERSION, model.namespace, serving.version) if serving is not None else None
    if current is not None:
        with contextlib.suppress(InvalidObject):
            known[serving.version if serving else ""] = ModelVersion.parse(current)
    for place in watches.eligible_versions(context.store, model.namespace, model.name, labels)[:MAX_VERSIONS_READ]:
        raw = context.store.get(kinds.MODEL_VERSION, *place)
        try:
            if raw is not None:
                known[place[1]] = ModelVersion.parse(raw)
                break
        except InvalidObject as error:
            unreadable = unreadable or error
    return list(known.values()), unreadable


def _list_runtimes(context: Context, namespace: str) -> list[RuntimeCandidate]:
    store = context.store
    return runtime_choice.parse_candidates(
        store.list(kinds.MODEL_RUNTIME, namespace), store.list(kinds.CLUSTER_MODEL_RUNTIME)
    )


def _view_or_failure(key: str, deployment: Object) -> RevisionView:
    """The pods of a revision by its Deployment; that it can't be read is what is wrong with them."""

    def unread(text: str) -> RevisionView:
        return RevisionView(
            Revision("", key), current=False, failure=pod_failures.PodFailure(Reason.INTERNAL_ERROR, text)
        )

    return read_child(deployment, functools.partial(_build_view, deployment), unread)


def _build_view(deployment: Object) -> RevisionView:
    metadata, status = deployment["metadata"], deployment.get("status", {})
    return RevisionView(
        revision=_revision_of_child(deployment),
        replicas=deployment["spec"].get("replicas", 1),
        pods=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        current=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
        started=_parse_time(metadata.get("creationTimestamp")),
        failure=pod_failures.find_creation_refusal(deployment),
    )


def _revision_of_child(child: Object) -> Revision:
    metadata = child["metadata"]
    version = (metadata.get("annotations") or {}).get(names.ANNOTATION_VERSION_NAME, "")
    return Revision(version, metadata["labels"][names.LABEL_REVISION])


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


async def _diagnose_pods(
    context: Context, namespace: str, deployment: Object, view: RevisionView, now: datetime
) -> RevisionView:
    well = view.replicas is not None and view.available >= view.replicas
    since = _pods_requested_at(context, deployment)
    if view.failure is not None or well or not view.current or since is None or now - since < POD_READ_DELAY:
        return view
    labels = deployment["spec"]["selector"]["matchLabels"]
    try:
        found = await context.client.list(kinds.POD, namespace, labels=",".join(f"{k}={v}" for k, v in labels.items()))
    except api_errors.ApiError:
        # What is wrong with the pods is for people to read; no decision waits for it.
        return view
    read = functools.partial(pod_failures.diagnose_pods, found)
    failure = read_child(deployment, read, functools.partial(pod_failures.PodFailure, Reason.INTERNAL_ERROR))
    if failure is not None and failure.reason == Reason.NOT_CACHED:
        claim = cache_claim(deployment["spec"]["template"])
        if claim is not None and view.revision.version:
            artifact_cache.request_caching(context, namespace, view.revision.version, claim)
    return replace(view, failure=failure)


def _pods_requested_at(context: Context, deployment: Object) -> datetime | None:
    """When pods were last asked of a Deployment; after a restart of the operator, when it was made."""
    metadata = deployment["metadata"]
    return context.pods_requested.last_request(metadata["uid"]) or _parse_time(metadata.get("creationTimestamp"))


def _required_pods(
    model: Model, plan: RevisionPlan | None, serving: ServingRevision | None, views: Mapping[str, RevisionView]
) -> int:
    """Pods the target needs before it takes over: with autoscaling as many as serve now, so that it isn't overrun. What
    serves itself, scaled by others, needs as many as they ask for, be it none."""
    autoscaling = model.spec.serving.autoscaling
    if autoscaling is None or serving is None or plan is None:
        return initial_replicas(model.spec.serving)
    current = views.get(serving.revision.hash)
    asked = current.replicas if current is not None else None
    external = model.spec.serving.scaled_externally
    if serving.revision.hash == plan.revision.hash:
        return asked if external and asked is not None else initial_replicas(model.spec.serving)
    now = max(asked or 0, autoscaling.min_replicas)
    return now if external else min(now, autoscaling.replica_limit)


def _observe_routing(
    context: Context, raw: Object, model: Model, pods: Mapping[str, int]
) -> tuple[TrafficPort, RoutingObjects]:
    endpoint, namespace, name = model.spec.endpoint, model.namespace, model.name
    store = context.store
    service = store.get(kinds.SERVICE, namespace, name)
    if service is not None and not is_controlled_by(service, model.uid):
        service = None
    own = [o for o in store.by_model(kinds.TRAEFIK_SERVICE, namespace, name) if is_controlled_by(o, model.uid)]
    traefik = {obj["metadata"]["name"]: obj for obj in own}
    if endpoint is None:
        traffic = choose_router(None, (), context.served_kinds, context.probe)
        return traffic, RoutingObjects(raw, None, service, None, {}, traefik=traefik, ready_pods=pods)
    kind = kinds.GRPC_ROUTE if endpoint.protocol == "GRPC" else kinds.HTTP_ROUTE
    if kind not in context.served_kinds:
        text = f"spec.endpoint needs the Gateway API ({kind}), which this cluster does not have"
        problem = Problem(Reason.GATEWAY_API_MISSING, text, stalled=True)
        return GatewayRouter(None, frozenset()), RoutingObjects(
            raw, endpoint, service, None, {}, problem, ready_pods=pods
        )
    route = store.get(kind, namespace, name)
    if route is not None and not is_controlled_by(route, model.uid):
        route = None
    gateways, classes = {}, []
    for ref in endpoint.parent_refs:
        place = (ref.namespace or namespace, ref.name)
        gateway = store.get(kinds.GATEWAY, *place)
        if gateway is not None:
            gateways[place] = gateway
            classes.append(store.get(kinds.GATEWAY_CLASS, None, gateway["spec"].get("gatewayClassName", "")))
    scene = RoutingObjects(
        raw, endpoint, service, route, gateways, _hostname_conflict(context, raw, model), traefik, pods
    )
    return choose_router(endpoint, classes, context.served_kinds, context.probe), scene


def _hostname_conflict(context: Context, raw: Object, model: Model) -> Problem | None:
    assert model.spec.endpoint is not None  # noqa: S101
    refused = endpoint_conflicts.hostname_problem(model.namespace, model.spec.endpoint, context.hostnames)
    if refused is not None:
        return refused
    mine = _build_claim(raw, model.spec.endpoint)
    rivals: dict[str, tuple[Any, Object]] = {}
    # Models of other shards are kept as ENDPOINT; there are none without shards.
    for kind in (kinds.MODEL, kinds.ENDPOINT) if context.store.count(kinds.ENDPOINT) else (kinds.MODEL,):
        for place in dict.fromkeys(
            endpoint_conflicts.list_rival_places(model.namespace, raw["spec"]["endpoint"], younger=False)
        ):
            for other in context.store.by_index("place", kind, place):
                rivals[other["metadata"]["uid"]] = (kind, other)
    # The oldest first, and only until one is in the way: a wildcard may have thousands below it.
    for kind, other in sorted(rivals.values(), key=lambda rival: _creation_order(rival[1])):
        claim = _older_claim(other, mine, context.hostnames)
        found = endpoint_conflicts.find_conflict(mine, [claim]) if claim is not None else None
        if found is not None and (kind == kinds.ENDPOINT or _is_readable(other)):
            return found
    return None


def _creation_order(raw: Object) -> tuple[str, str, str]:
    metadata = raw["metadata"]
    return str(metadata.get("creationTimestamp", "")), metadata["namespace"], metadata["name"]


def _older_claim(
    raw: Object, mine: endpoint_conflicts.EndpointClaim, patterns: Sequence[str]
) -> endpoint_conflicts.EndpointClaim | None:
    """The claim of an older Model; None when it is younger, goes away, or may not have its own hostnames."""
    if raw["metadata"].get("deletionTimestamp") or _creation_order(raw) >= endpoint_conflicts.age_key(mine):
        return None
    try:
        endpoint = Endpoint.model_validate(raw["spec"]["endpoint"], by_alias=True, by_name=False)
    except ValidationError:
        return None
    claim = _build_claim(raw, endpoint)
    return claim if endpoint_conflicts.hostname_problem(claim.namespace, endpoint, patterns) is None else None


def _is_readable(raw: Object) -> bool:
    """Whether a Model of ours can be read: one that can't be followed takes no place."""
    try:
        Model.parse(raw)
    except InvalidObject:
        return False
    return True


def _build_claim(raw: Object, endpoint: Endpoint) -> endpoint_conflicts.EndpointClaim:
    metadata = raw["metadata"]
    return endpoint_conflicts.EndpointClaim(
        metadata["namespace"], metadata["name"], str(metadata.get("creationTimestamp", "")), endpoint
    )


def _readiness_path(named: frozenset[str], plan: RevisionPlan | None, stored: Mapping[str, Object]) -> str | None:
    for key in sorted(named):
        kept = plan.stored if plan is not None and plan.revision.hash == key else stored.get(key)
        if kept is not None:
            path = kept["data"].get("readinessPath")
            return path if isinstance(path, str) else None
    return None


def _any_unready(named: frozenset[str], views: Mapping[str, RevisionView]) -> bool:
    return any(key not in views or (views[key].available < 1 and not _is_scaled_to_zero(views[key])) for key in named)


def _is_scaled_to_zero(view: RevisionView) -> bool:
    """No pods are asked for, so none will answer."""
    return view.replicas == 0 and view.current


async def _confirm_traffic(
    traffic: TrafficPort,
    scene: RoutingObjects,
    named: frozenset[str],
    views: Mapping[str, RevisionView],
    serving: ServingRevision | None,
    confirmed_before: str | None,
    readiness_path: str | None,
) -> RouteStatus:
    """Whether traffic goes where it should: known for what serves already, else asked once something could answer."""
    if scene.problem is not None:
        return RouteStatus(False, scene.problem)
    known = scene.endpoint is None or (scene.route is not None and confirmed_before == route_state(scene.route))
    if known and serving is not None and named == {serving.revision.hash}:
        refusal = attachment.route_problem(scene.route) if scene.route is not None else None
        return RouteStatus(False, refusal) if refusal is not None and refusal.stalled else RouteStatus(True)
    if not named or _any_unready(named, views):
        return RouteStatus(False)
    if scene.endpoint is not None and all(_is_scaled_to_zero(views[key]) for key in named):
        # There is nobody to ask; the gateway's word on the route is all there is.
        traffic = GatewayRouter(None, frozenset())
    return await traffic.check_routing(scene, readiness_path)


def route_state(route: Object) -> str:
    """Names one state of one route."""
    return f"{route['metadata']['uid']}/{route['metadata'].get('generation', 0)}"
