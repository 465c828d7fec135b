"""Gathers the one picture of a Model that its decision is made from; reads the store, and the API server only for pods
that don't become ready."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model, wanted_replicas
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime, ModelRuntime
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import endpoints, pods, runtimes, signatures, versions
from modelwright.core.revision import Revision
from modelwright.core.rollout.observed import (
    Observed,
    Problem,
    RevisionView,
    Serving,
    Traffic,
    confirmed_serving,
    presumed_serving,
)
from modelwright.core.rollout.record import Record
from modelwright.core.runtimes import Candidate, Choice
from modelwright.kube import errors, kinds
from modelwright.kube.store import Store
from modelwright.reconcile import gates, rollouts, routing
from modelwright.reconcile.context import Context
from modelwright.reconcile.picture import Picture, Plan
from modelwright.serving import revision as revisions
from modelwright.serving.merge import MergeError
from modelwright.traffic.gateway_api import GatewayTraffic
from modelwright.traffic.port import Evidence, Scene
from modelwright.traffic.port import Traffic as TrafficPort
from modelwright.traffic.providers import choose

Object = dict[str, Any]

PODS_PATIENCE = timedelta(seconds=8)
"""How long a revision lacks pods before they are read: most become ready sooner, and reading costs a request."""


async def observe(context: Context, raw: Object, model: Model, confirmed_before: str | None) -> Picture:
    """The picture of a Model. `confirmed_before`: the route (uid and generation) that a probe has already confirmed."""
    namespace, name = model.namespace, model.name
    store, now = context.store, context.clock.now()
    stored = _by_revision(store.by_model(kinds.CONTROLLER_REVISION, namespace, name), model.uid)
    deployments = _by_revision(store.by_model(kinds.DEPLOYMENT, namespace, name), model.uid)
    serving = _serving(model)
    records = rollouts.records(context, model)
    target = _target(context, raw, model, stored, deployments)
    plan = target if isinstance(target, Plan) else None
    hand = records.held_to
    held = _held_target(context, raw, model, hand, stored, deployments) if hand is not None else None
    if rollouts.released(hand, model):
        held = None
    goes_to = target if held is None else held
    revision, problem = _revision_of(goes_to)
    views = {key: _view(deployment) for key, deployment in deployments.items()}
    pods_ready = {key: view.ready for key, view in views.items() if view.replicas or view.ready}
    traffic, scene = _traffic(context, raw, model, pods_ready)
    named = traffic.named(scene)
    serving = _promoted(records.newest, serving, named)
    kept = named | ({serving.revision.hash} if serving else set())
    if records.newest is not None and records.newest.live:
        kept |= {r.hash for r in (records.newest.to, records.newest.source) if r is not None}
    for key in stored.keys() - views.keys():
        if key not in kept and not _has_remains(store, namespace, names.revision_name(name, key)):
            continue
        # Its Deployment is gone, its template isn't: what takes requests can be had again without version or runtime.
        views[key] = RevisionView(_revision(stored[key]))
    for key in sorted({*named, *([revision.hash] if revision else [])}):
        if key in deployments:
            views[key] = await _diagnosed(context, namespace, deployments[key], views[key], now)
    evidence = await _evidence(
        traffic, scene, named, views, serving, confirmed_before, _readiness_path(named, plan, stored)
    )
    routed = traffic.routed(scene)
    observed = Observed(
        now=now,
        target=revision,
        problem=problem,
        replicas=_needed(model, plan, serving, views),
        revisions=views,
        traffic=Traffic(
            named,
            evidence.confirmed,
            evidence.problem,
            weights=routed.weights,
            matched=routed.matched,
            mirror=routed.mirror_percent,
            sticky=routed.sticky,
        ),
        serving=serving,
        suspended=model.spec.suspend,
        settle=context.settle,
        start_timeout=timedelta(seconds=model.spec.serving.start_timeout_seconds),
    )
    observed = replace(observed, serving=serving or _presumed(model, observed, records.newest))
    other = held if isinstance(held, Plan) else None
    of = other or plan
    rolling, looked = rollouts.rolling(
        context, model, records, observed,
        digest=of.digest if of is not None else None,
        version=of.version if of is not None else None,
        traffic=traffic, scene=scene, stored=stored,
    )  # fmt: skip
    if rolling is not None and rolling.record is not None:
        rolling = replace(rolling, gates=await gates.results(context, rolling.record, rolling.policy))
    observed = replace(observed, rolling=rolling)
    observed = replace(observed, serving=confirmed_serving(observed))
    stamp = target if isinstance(target, versions.Stamp) else None
    return Picture(raw, model, plan, stamp, stored, deployments, traffic, scene, observed, records, looked, other)


def _revision_of(
    goes_to: Plan | Revision | Problem | versions.Stamp,
) -> tuple[Revision | None, Problem | None]:
    if isinstance(goes_to, Plan):
        return goes_to.revision, None
    if isinstance(goes_to, Revision):
        return goes_to, None
    return None, goes_to if isinstance(goes_to, Problem) else None


def _held_target(
    context: Context, raw: Object, model: Model, hand: Record, stored: Mapping[str, Object],
    deployments: Mapping[str, Object],
) -> Plan | Revision | Problem:  # fmt: skip
    """Where a person's rollback goes: the revision that the version was last served by, as it was stored; else one made
    from the version."""
    if hand.to is not None and hand.to.hash in stored:
        return hand.to
    wanted = hand.spec.target
    of_version = [obj for obj in stored.values() if _revision(obj).version == wanted.version]
    if of_version and wanted.revision is None and hand.to is None:
        return _revision(max(of_version, key=lambda obj: int(obj.get("revision", 0))))
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
    plan = _version_plan(context, raw, model, version, stored, deployments)
    if isinstance(plan, Plan) and wanted.revision not in (None, plan.revision.hash):
        text = (
            f"ModelRollout {hand.name}: spec.target.revision: {wanted.revision} is not kept any more; leave it out to "
            f"have version {wanted.version} served as the Model's spec is now"
        )
        return Problem(Reason.INVALID_SPEC, text, stalled=True)
    return plan


def _has_remains(store: Store, namespace: str, child: str) -> bool:
    """Whether a revision without a Deployment still has other children that are to leave."""
    parts = (kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET, kinds.HORIZONTAL_POD_AUTOSCALER)
    return any(store.get(kind, namespace, child) is not None for kind in parts)


def _by_revision(objects: list[Object], uid: str) -> dict[str, Object]:
    """Children of this very Model, by the revision they belong to; those that are being deleted count as gone."""
    found = {}
    for obj in objects:
        key = obj["metadata"].get("labels", {}).get(names.LABEL_REVISION)
        mine = any(ref.get("uid") == uid for ref in obj["metadata"].get("ownerReferences") or ())
        if key and mine and not obj["metadata"].get("deletionTimestamp"):
            found[key] = obj
    return found


def _serving(model: Model) -> Serving | None:
    told = model.status.serving
    if told is None:
        return None
    since = told.since or model.metadata.creation_timestamp
    return Serving(Revision(told.version, told.revision), since) if since else None


def _presumed(model: Model, observed: Observed, newest: Record | None) -> Serving | None:
    candidate = newest.spec.target.revision if newest is not None else None
    found, since = presumed_serving(observed, candidate), model.metadata.creation_timestamp
    return Serving(found, since) if found is not None and since is not None else None


def _promoted(record: Record | None, serving: Serving | None, named: frozenset[str]) -> Serving | None:
    """Who serves: a rollout that has succeeded says so, also where the Model's status could not be written after it."""
    ended = record.status.finished_at if record is not None else None
    if record is None or record.to is None or ended is None or record.state is not RolloutState.SUCCEEDED:
        return serving
    if named != {record.to.hash} or (serving is not None and (serving.revision == record.to or serving.since >= ended)):
        return serving
    return Serving(record.to, ended)


def _target(
    context: Context, raw: Object, model: Model, stored: Mapping[str, Object], deployments: Mapping[str, Object]
) -> Plan | Problem | versions.Stamp:
    version = _wanted_version(context, model)
    if not isinstance(version, ModelVersion):
        return version
    return _version_plan(context, raw, model, version, stored, deployments)


def _version_plan(
    context: Context, raw: Object, model: Model, version: ModelVersion, stored: Mapping[str, Object],
    deployments: Mapping[str, Object],
) -> Plan | Problem:  # fmt: skip
    asked, pinned = model.spec.signatures, version.status.artifact
    digest = signatures.known_digest(version.spec.artifact, pinned.digest if pinned is not None else None, asked)
    if digest is None:
        failure = version.status.failure
        if failure is not None:
            return Problem(failure.reason, f"ModelVersion {version.name}: {failure.message}", stalled=True)
        return Problem(Reason.WAITING_FOR_DIGEST, f"ModelVersion {version.name}: its digest is being found out")
    served = model.status.serving
    refused = signatures.refusal(asked, version, digest, served.version if served is not None else None)
    if refused is not None:
        return refused
    choice = runtimes.choose(
        version.spec.artifact.format, model.spec.serving.runtime_ref, _candidates(context, model.namespace)
    )
    if isinstance(choice, Problem):
        return choice
    endpoint = model.spec.endpoint
    if endpoint is not None and endpoint.protocol == "GRPC" and choice.runtime.spec.ports.grpc is None:
        who = f"{choice.runtime.kind} {choice.runtime.name}"
        text = f"spec.endpoint.protocol: {who} has no gRPC port (its spec.ports.grpc)"
        return Problem(Reason.PROTOCOL_NOT_SUPPORTED, text, stalled=True)
    return _plan(context, raw, model, version, digest, choice, stored, deployments)


def _plan(
    context: Context, raw: Object, model: Model, version: ModelVersion, digest: str, choice: Choice,
    stored: Mapping[str, Object], deployments: Mapping[str, Object],
) -> Plan | Problem:  # fmt: skip
    revision = revisions.identify(version.name, version.spec, digest, choice, model.spec.serving)
    kept = stored.get(revision.hash)
    outdated = revisions.outdated(kept, choice, context.images) if kept else None
    if kept is None or (outdated and _never_answered(model, revision, deployments.get(revision.hash))):
        # A revision that never worked takes up a mended runtime by itself; nobody is served by it.
        number = 1 + max((obj.get("revision", 0) for obj in stored.values()), default=0)
        try:
            kept = revisions.store(
                raw, model.spec, version.name, version.spec, digest, choice, revision, context.images, number
            )
        except MergeError as error:
            return Problem(Reason.INVALID_POD_TEMPLATE, str(error), stalled=True)
        outdated = None
    return Plan(revision, version, digest, choice, kept, outdated)


def _never_answered(model: Model, revision: Revision, deployment: Object | None) -> bool:
    served = model.status.serving is not None and model.status.serving.revision == revision.hash
    available = (deployment or {}).get("status", {}).get("availableReplicas", 0)
    return not served and not available


def _wanted_version(context: Context, model: Model) -> ModelVersion | versions.Stamp | Problem:
    source, namespace = model.spec.version, model.namespace
    if source.follow is not None:
        raws = context.store.by_model(kinds.MODEL_VERSION, namespace, model.name)
    else:
        name = source.name or versions.stamped_name(model.name, source)
        found = context.store.get(kinds.MODEL_VERSION, namespace, name)
        raws = [found] if found else []
    known = []
    for raw in raws:
        try:
            known.append(ModelVersion.parse(raw))
        except InvalidObject as error:
            if source.follow is None:
                return Problem(Reason.INVALID_SPEC, str(error), stalled=True)
    serving = model.status.serving
    if serving is None:
        return versions.wanted(model.name, source, known, None)
    return versions.wanted(model.name, source, known, serving.version, serving.since)


def _candidates(context: Context, namespace: str) -> list[Candidate]:
    namespaced = ((raw, ModelRuntime) for raw in context.store.list(kinds.MODEL_RUNTIME, namespace))
    shared = ((raw, ClusterModelRuntime) for raw in context.store.list(kinds.CLUSTER_MODEL_RUNTIME))
    known: Iterable[tuple[Object, type[ModelRuntime] | type[ClusterModelRuntime]]] = itertools.chain(namespaced, shared)
    candidates = []
    for raw, type_ in known:
        try:
            runtime = type_.parse(raw)
        except InvalidObject:
            # One that is newer than this operator offers nothing to it.
            continue
        candidates.append(Candidate(runtime.kind, runtime.name, runtime.spec, runtime.generation))
    return candidates


def _view(deployment: Object) -> RevisionView:
    metadata, status = deployment["metadata"], deployment.get("status", {})
    return RevisionView(
        revision=_revision(deployment),
        replicas=deployment["spec"].get("replicas", 1),
        pods=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        current=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
        started=_time(metadata.get("creationTimestamp")),
        failure=pods.forbidden(deployment),
    )


def _revision(child: Object) -> Revision:
    metadata = child["metadata"]
    version = (metadata.get("annotations") or {}).get(names.ANNOTATION_VERSION_NAME, "")
    return Revision(version, metadata["labels"][names.LABEL_REVISION])


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


async def _diagnosed(
    context: Context, namespace: str, deployment: Object, view: RevisionView, now: datetime
) -> RevisionView:
    well = view.replicas is not None and view.available >= view.replicas
    since = _time(pods.last_progress(deployment))
    if view.failure is not None or well or not view.current or since is None or now - since < PODS_PATIENCE:
        return view
    labels = deployment["spec"]["selector"]["matchLabels"]
    try:
        found = await context.client.list(kinds.POD, namespace, labels=",".join(f"{k}={v}" for k, v in labels.items()))
    except errors.ApiError:
        # What is wrong with the pods is for people to read; no decision waits for it.
        return view
    return replace(view, failure=pods.diagnose(found))


def _needed(model: Model, plan: Plan | None, serving: Serving | None, views: Mapping[str, RevisionView]) -> int:
    """Pods the target needs before it takes over: with autoscaling as many as serve now, so that it isn't overrun."""
    autoscaling = model.spec.serving.autoscaling
    if autoscaling is None or serving is None or plan is None or serving.revision.hash == plan.revision.hash:
        return wanted_replicas(model.spec.serving)
    current = views.get(serving.revision.hash)
    now = current.replicas if current is not None and current.replicas else autoscaling.min_replicas
    return max(autoscaling.min_replicas, min(now, autoscaling.max_replicas))


def _traffic(context: Context, raw: Object, model: Model, pods: Mapping[str, int]) -> tuple[TrafficPort, Scene]:
    endpoint, namespace, name = model.spec.endpoint, model.namespace, model.name
    store = context.store
    service = store.get(kinds.SERVICE, namespace, name)
    if service is not None and not _mine(service, model.uid):
        service = None
    own = [o for o in store.by_model(kinds.TRAEFIK_SERVICE, namespace, name) if _mine(o, model.uid)]
    traefik = {obj["metadata"]["name"]: obj for obj in own}
    if endpoint is None:
        traffic = choose(None, (), context.served_kinds, context.probe)
        return traffic, Scene(raw, None, service, None, {}, traefik=traefik, pods=pods)
    kind = kinds.GRPC_ROUTE if endpoint.protocol == "GRPC" else kinds.HTTP_ROUTE
    if kind not in context.served_kinds:
        text = f"spec.endpoint needs the Gateway API ({kind}), which this cluster does not have"
        problem = Problem(Reason.GATEWAY_API_MISSING, text, stalled=True)
        return GatewayTraffic(None, frozenset()), Scene(raw, endpoint, service, None, {}, problem, pods=pods)
    route = store.get(kind, namespace, name)
    if route is not None and not _mine(route, model.uid):
        route = None
    gateways, classes = {}, []
    for ref in endpoint.parent_refs:
        place = (ref.namespace or namespace, ref.name)
        gateway = store.get(kinds.GATEWAY, *place)
        if gateway is not None:
            gateways[place] = gateway
            classes.append(store.get(kinds.GATEWAY_CLASS, None, gateway["spec"].get("gatewayClassName", "")))
    scene = Scene(raw, endpoint, service, route, gateways, _conflict(context, raw, model), traefik, pods)
    return choose(endpoint, classes, context.served_kinds, context.probe), scene


def _mine(obj: Object, uid: str) -> bool:
    return any(ref.get("uid") == uid for ref in obj["metadata"].get("ownerReferences") or ())


def _conflict(context: Context, raw: Object, model: Model) -> Problem | None:
    assert model.spec.endpoint is not None  # noqa: S101
    rivals = {}
    for place in routing.places(model.namespace, raw["spec"]["endpoint"]):
        for other in context.store.by_index("place", kinds.MODEL, place):
            rivals[other["metadata"]["uid"]] = other
    rivals.pop(model.uid, None)
    claims = []
    for other in rivals.values():
        try:
            parsed = Model.parse(other)
        except InvalidObject:
            continue
        if parsed.spec.endpoint is not None and parsed.metadata.deletion_timestamp is None:
            claims.append(_claim(other, parsed))
    return endpoints.conflict(_claim(raw, model), claims) if claims else None


def _claim(raw: Object, model: Model) -> endpoints.Claim:
    assert model.spec.endpoint is not None  # noqa: S101
    created = raw["metadata"].get("creationTimestamp", "")
    return endpoints.Claim(model.namespace, model.name, created, model.spec.endpoint)


def _readiness_path(named: frozenset[str], plan: Plan | None, stored: Mapping[str, Object]) -> str | None:
    for key in sorted(named):
        kept = plan.stored if plan is not None and plan.revision.hash == key else stored.get(key)
        if kept is not None:
            path = kept["data"].get("readinessPath")
            return path if isinstance(path, str) else None
    return None


def _unready(named: frozenset[str], views: Mapping[str, RevisionView]) -> bool:
    return any(key not in views or (views[key].available < 1 and not _idle(views[key])) for key in named)


def _idle(view: RevisionView) -> bool:
    """No pods are asked for, so none will answer."""
    return view.replicas == 0 and view.current


async def _evidence(
    traffic: TrafficPort, scene: Scene, named: frozenset[str], views: Mapping[str, RevisionView],
    serving: Serving | None, confirmed_before: str | None, readiness_path: str | None,
) -> Evidence:  # fmt: skip
    """Whether traffic goes where it should: known for what serves already, else asked once something could answer."""
    if scene.problem is not None:
        return Evidence(False, scene.problem)
    known = scene.endpoint is None or (scene.route is not None and confirmed_before == route_state(scene.route))
    if known and serving is not None and named == {serving.revision.hash}:
        refusal = endpoints.route_problem(scene.route) if scene.route is not None else None
        return Evidence(False, refusal) if refusal is not None and refusal.stalled else Evidence(True)
    if not named or _unready(named, views):
        return Evidence(False)
    if scene.endpoint is not None and all(_idle(views[key]) for key in named):
        # There is nobody to ask; the gateway's word on the route is all there is.
        traffic = GatewayTraffic(None, frozenset())
    return await traffic.evidence(scene, readiness_path)


def route_state(route: Object) -> str:
    """Names one state of one route."""
    return f"{route['metadata']['uid']}/{route['metadata'].get('generation', 0)}"
