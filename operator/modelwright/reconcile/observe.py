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
from modelwright.api.conditions import ConditionType, find
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint, Model, wanted_replicas
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import attachment, endpoints, pods, runtimes, signatures, versions
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
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.obs.reading import guarded, noted
from modelwright.reconcile import copies, gates, proofs, rollouts, routing
from modelwright.reconcile.children import controlled_by
from modelwright.reconcile.context import Context
from modelwright.reconcile.picture import Picture, Plan
from modelwright.serving import revision as revisions
from modelwright.serving.fetching import Proof, cache_claim
from modelwright.serving.merge import MergeError
from modelwright.traffic.gateway_api import GatewayTraffic
from modelwright.traffic.port import Evidence, Scene
from modelwright.traffic.port import Traffic as TrafficPort
from modelwright.traffic.providers import choose

Object = dict[str, Any]

READ_OF_VERSIONS = 19
"""So many of the newest versions of a following Model are tried at most in a pass, beside the one that serves."""
PODS_PATIENCE = timedelta(seconds=8)
"""How long a revision lacks pods before they are read: most become ready sooner, and reading costs a request."""


async def observe(context: Context, raw: Object, model: Model, confirmed_before: str | None) -> Picture:
    """The picture of a Model. `confirmed_before`: the route (uid and generation) that a probe has already confirmed."""
    namespace, name = model.namespace, model.name
    store, now = context.store, context.clock.now()
    stored = _by_revision(store.by_model(kinds.CONTROLLER_REVISION, namespace, name), model.uid)
    deployments = _by_revision(store.by_model(kinds.DEPLOYMENT, namespace, name), model.uid)
    serving = _serving(model)
    records = await rollouts.with_policy(context, rollouts.records(context, model), namespace)
    target = _as_approved(records.newest, _target(context, raw, model, stored, deployments), stored)
    plan = target if isinstance(target, Plan) else None
    hand = records.held_to
    held = _held_target(context, raw, model, hand, stored, deployments) if hand is not None else None
    if rollouts.released(hand, model):
        held = None
    goes_to = target if held is None else held
    revision, problem = _revision_of(goes_to)
    views = {key: _seen(key, deployment) for key, deployment in deployments.items()}
    pods_ready = {key: view.ready for key, view in views.items() if view.replicas or view.ready}
    traffic, scene = _traffic(context, raw, model, pods_ready)
    named = traffic.named(scene)
    serving = _promoted(_last_ended(records), serving, named)
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
    try:
        evidence = await _evidence(
            traffic, scene, named, views, serving, confirmed_before, _readiness_path(named, plan, stored)
        )
    except errors.ApiError:
        raise
    except Exception as error:
        text = noted(scene.route or scene.service or raw, error)
        evidence = Evidence(False, Problem(Reason.INTERNAL_ERROR, text))
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
            stale_token=copies.stale(context, raw, stored, records.newest, routed),
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
        choice=of.choice if of is not None else None,
        made=of.stored if of is not None else None,
    )  # fmt: skip
    if rolling is not None and rolling.record is not None:
        results = await gates.results(context, rolling.record, rolling.policy)
        rolling = replace(rolling, gates=results, unproven=gates.unproven(context, model.namespace))
    observed = replace(observed, rolling=rolling)
    observed = replace(observed, serving=confirmed_serving(observed))
    stamp = target if isinstance(target, versions.Stamp) else None
    return Picture(raw, model, plan, stamp, stored, deployments, traffic, scene, observed, records, looked, other)


def _as_approved(
    record: Record | None, target: Plan | Revision | Problem | versions.Stamp, stored: Mapping[str, Object]
) -> Plan | Revision | Problem | versions.Stamp:
    """The target, rendered by what people have approved: a runtime that was edited since is not taken up."""
    if not isinstance(target, Plan):
        return target
    approved = rollouts.approved_runtime(record, target.revision)
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
        if key and controlled_by(obj, uid) and not obj["metadata"].get("deletionTimestamp"):
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


def _last_ended(records: rollouts.Records) -> Record | None:
    """The newest rollout that has ended; one that has begun since says nothing of what serves."""
    newest = records.newest
    if newest is not None and newest.status.finished_at is None and records.ended:
        return records.ended[-1]
    return newest


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
        waiting = find(version.status.conditions, ConditionType.RECONCILING)
        if waiting is not None and waiting.reason == Reason.WAITING_FOR_TURN:
            # Versions that a Model wants have another place in the line, which this one may not know yet.
            context.wake(Key("ModelVersion", model.namespace, version.name))
            return Problem(Reason.WAITING_FOR_TURN, f"ModelVersion {version.name}: {waiting.message}")
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
    proof = proofs.proof(raw, version, digest, context.images)
    outdated = revisions.outdated(kept, choice, context.images, proof) if kept else None
    if kept is None or (outdated and _never_answered(model, revision, deployments.get(revision.hash))):
        if _proof_is_coming(context, raw, version, digest, proof):
            text = f"ModelVersion {version.name}: the digest of its files is being found out"
            return Problem(Reason.WAITING_FOR_DIGEST, text)
        absent = proofs.missing(context, model.spec.serving, version)
        if absent is not None:
            return absent
        # A revision that never worked takes up a mended runtime by itself; nobody is served by it.
        number = 1 + max((obj.get("revision", 0) for obj in stored.values()), default=0)
        try:
            kept = revisions.store(
                raw, model.spec, version.name, version.spec, digest, choice, revision, context.images, number,
                proof,
            )  # fmt: skip
        except MergeError as error:
            return Problem(Reason.INVALID_POD_TEMPLATE, str(error), stalled=True)
        outdated = None
    return Plan(revision, version, digest, choice, kept, outdated)


def _proof_is_coming(context: Context, raw: Object, version: ModelVersion, digest: str, proof: Proof) -> bool:
    """Whether the pods' cache can't be proven yet, and soon will be. Where that fails they bring the artifact again."""
    wanted = proofs.needs_tree(raw, version.spec.artifact, digest, context.images)
    return wanted and proof.tree is None and version.status.failure is None


def _never_answered(model: Model, revision: Revision, deployment: Object | None) -> bool:
    served = model.status.serving is not None and model.status.serving.revision == revision.hash
    available = (deployment or {}).get("status", {}).get("availableReplicas", 0)
    return not served and not available


def _wanted_version(context: Context, model: Model) -> ModelVersion | versions.Stamp | Problem:
    source, namespace = model.spec.version, model.namespace
    serving = model.status.serving
    if source.follow is not None:
        known, unreadable = _offered(context, model)
        if not known and unreadable is not None:
            text = f"spec.version.follow: none of the newest versions can be read; {unreadable}"
            return Problem(Reason.INVALID_SPEC, text, stalled=True)
    else:
        name = source.name or versions.stamped_name(model.name, source)
        found = context.store.get(kinds.MODEL_VERSION, namespace, name)
        try:
            known = [ModelVersion.parse(found)] if found else []
        except InvalidObject as error:
            return Problem(Reason.INVALID_SPEC, str(error), stalled=True)
    if serving is None:
        return versions.wanted(model.name, source, known, None)
    return versions.wanted(model.name, source, known, serving.version, serving.since)


def _offered(context: Context, model: Model) -> tuple[list[ModelVersion], InvalidObject | None]:
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
    for place in routing.offered(context.store, model.namespace, model.name, labels)[:READ_OF_VERSIONS]:
        raw = context.store.get(kinds.MODEL_VERSION, *place)
        try:
            if raw is not None:
                known[place[1]] = ModelVersion.parse(raw)
                break
        except InvalidObject as error:
            unreadable = unreadable or error
    return list(known.values()), unreadable


def _candidates(context: Context, namespace: str) -> list[Candidate]:
    store = context.store
    return runtimes.candidates(store.list(kinds.MODEL_RUNTIME, namespace), store.list(kinds.CLUSTER_MODEL_RUNTIME))


def _seen(key: str, deployment: Object) -> RevisionView:
    """The pods of a revision by its Deployment; that it can't be read is what is wrong with them."""

    def unread(text: str) -> RevisionView:
        return RevisionView(Revision("", key), current=False, failure=pods.Failure(Reason.INTERNAL_ERROR, text))

    return guarded(deployment, functools.partial(_view, deployment), unread)


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
    since = _pods_asked_at(context, deployment)
    if view.failure is not None or well or not view.current or since is None or now - since < PODS_PATIENCE:
        return view
    labels = deployment["spec"]["selector"]["matchLabels"]
    try:
        found = await context.client.list(kinds.POD, namespace, labels=",".join(f"{k}={v}" for k, v in labels.items()))
    except errors.ApiError:
        # What is wrong with the pods is for people to read; no decision waits for it.
        return view
    read = functools.partial(pods.diagnose, found)
    failure = guarded(deployment, read, functools.partial(pods.Failure, Reason.INTERNAL_ERROR))
    if failure is not None and failure.reason == Reason.NOT_CACHED:
        claim = cache_claim(deployment["spec"]["template"])
        if claim is not None and view.revision.version:
            proofs.ask_for(context, namespace, view.revision.version, claim)
    return replace(view, failure=failure)


def _pods_asked_at(context: Context, deployment: Object) -> datetime | None:
    """When pods were last asked of a Deployment; after a restart of the operator, when it was made."""
    metadata = deployment["metadata"]
    return context.pods_asked.at(metadata["uid"]) or _time(metadata.get("creationTimestamp"))


def _needed(model: Model, plan: Plan | None, serving: Serving | None, views: Mapping[str, RevisionView]) -> int:
    """Pods the target needs before it takes over: with autoscaling as many as serve now, so that it isn't overrun. What
    serves itself, scaled by others, needs as many as they ask for, be it none."""
    autoscaling = model.spec.serving.autoscaling
    if autoscaling is None or serving is None or plan is None:
        return wanted_replicas(model.spec.serving)
    current = views.get(serving.revision.hash)
    asked = current.replicas if current is not None else None
    external = model.spec.serving.scaled_by_others
    if serving.revision.hash == plan.revision.hash:
        return asked if external and asked is not None else wanted_replicas(model.spec.serving)
    now = max(asked or 0, autoscaling.min_replicas)
    return now if external else min(now, autoscaling.most)


def _traffic(context: Context, raw: Object, model: Model, pods: Mapping[str, int]) -> tuple[TrafficPort, Scene]:
    endpoint, namespace, name = model.spec.endpoint, model.namespace, model.name
    store = context.store
    service = store.get(kinds.SERVICE, namespace, name)
    if service is not None and not controlled_by(service, model.uid):
        service = None
    own = [o for o in store.by_model(kinds.TRAEFIK_SERVICE, namespace, name) if controlled_by(o, model.uid)]
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
    if route is not None and not controlled_by(route, model.uid):
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


def _conflict(context: Context, raw: Object, model: Model) -> Problem | None:
    assert model.spec.endpoint is not None  # noqa: S101
    refused = endpoints.not_allowed(model.namespace, model.spec.endpoint, context.hostnames)
    if refused is not None:
        return refused
    mine = _claim(raw, model.spec.endpoint)
    rivals: dict[str, tuple[Any, Object]] = {}
    # Models of other shards are kept as ENDPOINT; there are none without shards.
    for kind in (kinds.MODEL, kinds.ENDPOINT) if context.store.count(kinds.ENDPOINT) else (kinds.MODEL,):
        for place in dict.fromkeys(endpoints.rival_places(model.namespace, raw["spec"]["endpoint"], younger=False)):
            for other in context.store.by_index("place", kind, place):
                rivals[other["metadata"]["uid"]] = (kind, other)
    # The oldest first, and only until one is in the way: a wildcard may have thousands below it.
    for kind, other in sorted(rivals.values(), key=lambda rival: _age(rival[1])):
        claim = _rival(other, mine, context.hostnames)
        found = endpoints.conflict(mine, [claim]) if claim is not None else None
        if found is not None and (kind == kinds.ENDPOINT or _is_followed(other)):
            return found
    return None


def _age(raw: Object) -> tuple[str, str, str]:
    metadata = raw["metadata"]
    return str(metadata.get("creationTimestamp", "")), metadata["namespace"], metadata["name"]


def _rival(raw: Object, mine: endpoints.Claim, patterns: Sequence[str]) -> endpoints.Claim | None:
    """The claim of an older Model; None when it is younger, goes away, or may not have its own hostnames."""
    if raw["metadata"].get("deletionTimestamp") or _age(raw) >= endpoints.age(mine):
        return None
    try:
        endpoint = Endpoint.model_validate(raw["spec"]["endpoint"], by_alias=True, by_name=False)
    except ValidationError:
        return None
    claim = _claim(raw, endpoint)
    return claim if endpoints.not_allowed(claim.namespace, endpoint, patterns) is None else None


def _is_followed(raw: Object) -> bool:
    """Whether a Model of ours can be read: one that can't be followed takes no place."""
    try:
        Model.parse(raw)
    except InvalidObject:
        return False
    return True


def _claim(raw: Object, endpoint: Endpoint) -> endpoints.Claim:
    metadata = raw["metadata"]
    return endpoints.Claim(
        metadata["namespace"], metadata["name"], str(metadata.get("creationTimestamp", "")), endpoint
    )


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
        refusal = attachment.route_problem(scene.route) if scene.route is not None else None
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
