"""Gathers one frozen snapshot of a Model and its children, from which the decision is made.

Reads the store, and the API server only for the pods of revisions and gates that are not ready.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model, initial_replicas
from modelwright.core import pod_failures
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
from modelwright.core.rollout.record_lifecycle import serving_after_promotion
from modelwright.kube import api_errors, kinds
from modelwright.kube.store import Store
from modelwright.obs.read_child import read_child
from modelwright.reconcile import artifact_cache
from modelwright.reconcile.children import is_controlled_by
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import mirror_tokens
from modelwright.reconcile.model.observed_routing import ModelRouting, check_routing, observe_routing
from modelwright.reconcile.model.rollout_history import RolloutHistory, load_history
from modelwright.reconcile.model.rollout_input import observe_rollout
from modelwright.reconcile.model.snapshot import ModelChildren, ModelGoal, ModelSnapshot, RevisionPlan
from modelwright.reconcile.model.target import resolve_goal, revision_of_child
from modelwright.render.fetch_container import cache_claim

Object = dict[str, Any]

POD_READ_DELAY = timedelta(seconds=8)
"""How long a revision lacks pods before they are read: most become ready sooner, and reading costs a request."""


async def observe_model(context: Context, raw: Object, model: Model, confirmed_before: str | None) -> ModelSnapshot:
    """Build the snapshot. `confirmed_before`: the state of the route that was confirmed earlier."""
    now = context.clock.now()
    children = _read_children(context, model)
    history = await load_history(context, model)
    goal = resolve_goal(context, raw, model, children, history)

    views = {key: _view_or_failure(key, deployment) for key, deployment in children.deployments.items()}
    ready_pods = {key: view.ready for key, view in views.items() if view.replicas or view.ready}
    routing = observe_routing(context, raw, model, ready_pods)
    serving = serving_after_promotion(history.last_finished, _serving_from_status(model), routing.targets)
    views |= _view_stored_revisions(context.store, model, children, views, _needed_revisions(routing, serving, history))
    await _diagnose_revisions(context, model.namespace, children, views, now, _reached_revisions(routing, goal))
    status = await check_routing(routing, views, serving, goal.templates(children), confirmed_before)
    split = routing.split

    base = Observation(
        now=now,
        target=goal.revision,
        problem=goal.problem,
        replicas=_required_pods(model, goal.plan, serving, views),
        revisions=views,
        traffic=TrafficView(
            routing.targets,
            status.confirmed,
            status.problem,
            weights=split.weights,
            matched=split.matched,
            mirror=split.mirror_percent,
            sticky=split.sticky,
            stale_token=mirror_tokens.has_stale_token(context, raw, children.stored, history.newest, split),
        ),
        serving=serving or _infer_serving(model, goal, history.newest, routing, views),
        suspended=model.spec.suspend,
        settle_time=context.settle_time,
        start_timeout=timedelta(seconds=model.spec.serving.start_timeout_seconds),
    )
    rollout, analysis = await observe_rollout(context, model, history, base, goal, children, routing)
    record = rollout.record if rollout is not None else None
    observation = replace(base, rollout=rollout, serving=confirm_serving(base, record))
    return ModelSnapshot(raw, model, goal, children, routing, observation, history, analysis)


def _read_children(context: Context, model: Model) -> ModelChildren:
    store, place = context.store, (model.namespace, model.name)
    return ModelChildren(
        stored=_index_by_revision(store.by_model(kinds.CONTROLLER_REVISION, *place), model.uid),
        deployments=_index_by_revision(store.by_model(kinds.DEPLOYMENT, *place), model.uid),
    )


def _index_by_revision(objects: Iterable[Object], uid: str) -> dict[str, Object]:
    """The children of this very Model, by the revision they belong to; those that are being deleted count as gone."""
    by_revision = {}
    for obj in objects:
        key = obj["metadata"].get("labels", {}).get(names.LABEL_REVISION)
        if key and is_controlled_by(obj, uid) and not obj["metadata"].get("deletionTimestamp"):
            by_revision[key] = obj
    return by_revision


def _serving_from_status(model: Model) -> ServingRevision | None:
    serving = model.status.serving
    if serving is None:
        return None
    since = serving.since or model.metadata.creation_timestamp
    return ServingRevision(Revision(serving.version, serving.revision), since) if since else None


def _infer_serving(
    model: Model,
    goal: ModelGoal,
    newest: RolloutRecord | None,
    routing: ModelRouting,
    views: Mapping[str, RevisionView],
) -> ServingRevision | None:
    candidate = newest.spec.target.revision if newest is not None else None
    moving_to = {candidate, goal.revision.hash if goal.revision is not None else None}
    revision, since = infer_serving(views, routing.targets, moving_to), model.metadata.creation_timestamp
    return ServingRevision(revision, since) if revision is not None and since is not None else None


def _needed_revisions(routing: ModelRouting, serving: ServingRevision | None, history: RolloutHistory) -> set[str]:
    """Hashes of the revisions that take requests, or may take them back."""
    needed = set(routing.targets)
    if serving is not None:
        needed.add(serving.revision.hash)
    newest = history.newest
    if newest is not None and newest.is_active:
        needed |= {revision.hash for revision in (newest.candidate, newest.from_revision) if revision is not None}
    return needed


def _reached_revisions(routing: ModelRouting, goal: ModelGoal) -> list[str]:
    """Hashes of the revisions whose pods must answer now or soon, in a fixed order."""
    return sorted({*routing.targets, *([goal.revision.hash] if goal.revision is not None else [])})


def _view_stored_revisions(
    store: Store, model: Model, children: ModelChildren, views: Mapping[str, RevisionView], needed: set[str]
) -> dict[str, RevisionView]:
    """Views of revisions whose Deployment is gone and whose template is not: those can run again without their version
    or runtime. Listed are the `needed` ones, and those with other children that must be removed."""
    return {
        key: RevisionView(revision_of_child(children.stored[key]))
        for key in children.stored.keys() - views.keys()
        if key in needed or _has_other_children(store, model.namespace, names.revision_name(model.name, key))
    }


def _has_other_children(store: Store, namespace: str, child: str) -> bool:
    """Whether a revision without a Deployment still has other children, which must be removed."""
    others = (kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET, kinds.HORIZONTAL_POD_AUTOSCALER)
    return any(store.get(kind, namespace, child) is not None for kind in others)


def _view_or_failure(key: str, deployment: Object) -> RevisionView:
    """A revision's pods as its Deployment reports them; one that can't be read is a failure of these pods."""

    def unreadable(text: str) -> RevisionView:
        failure = pod_failures.PodFailure(Reason.INTERNAL_ERROR, text)
        return RevisionView(Revision("", key), current=False, failure=failure)

    return read_child(deployment, functools.partial(_build_view, deployment), unreadable)


def _build_view(deployment: Object) -> RevisionView:
    metadata, status = deployment["metadata"], deployment.get("status", {})
    return RevisionView(
        revision=revision_of_child(deployment),
        replicas=deployment["spec"].get("replicas", 1),
        pods=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        current=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
        started=_parse_time(metadata.get("creationTimestamp")),
        failure=pod_failures.find_creation_refusal(deployment),
    )


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


async def _diagnose_revisions(
    context: Context,
    namespace: str,
    children: ModelChildren,
    views: dict[str, RevisionView],
    now: datetime,
    keys: Iterable[str],
) -> None:
    """Add to the views of these revisions why their pods don't become ready."""
    for key in keys:
        if key in children.deployments:
            views[key] = await _diagnose_pods(context, namespace, children.deployments[key], views[key], now)


async def _diagnose_pods(
    context: Context, namespace: str, deployment: Object, view: RevisionView, now: datetime
) -> RevisionView:
    is_whole = view.replicas is not None and view.available >= view.replicas
    since = _pods_requested_at(context, deployment)
    if view.failure is not None or is_whole or not view.current or since is None or now - since < POD_READ_DELAY:
        return view
    labels = deployment["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    try:
        pods = await context.client.list(kinds.POD, namespace, labels=selector)
    except api_errors.ApiError:
        # The diagnosis only informs users; no decision waits for it.
        return view
    diagnose = functools.partial(pod_failures.diagnose_pods, pods)
    failure = read_child(deployment, diagnose, functools.partial(pod_failures.PodFailure, Reason.INTERNAL_ERROR))
    if failure is not None and failure.reason == Reason.NOT_CACHED:
        claim = cache_claim(deployment["spec"]["template"])
        if claim is not None and view.revision.version:
            artifact_cache.request_caching(context, namespace, view.revision.version, claim)
    return replace(view, failure=failure)


def _pods_requested_at(context: Context, deployment: Object) -> datetime | None:
    """When this process last changed the Deployment; after a restart of the operator, when it was created."""
    metadata = deployment["metadata"]
    return context.pods_requested.last_request(metadata["uid"]) or _parse_time(metadata.get("creationTimestamp"))


def _required_pods(
    model: Model, plan: RevisionPlan | None, serving: ServingRevision | None, views: Mapping[str, RevisionView]
) -> int:
    """Pods that the target needs before it takes over.

    With autoscaling as many as serve now, so that the target isn't overloaded. A serving revision that others scale
    needs as many as they request, even none.
    """
    autoscaling = model.spec.serving.autoscaling
    if autoscaling is None or serving is None or plan is None:
        return initial_replicas(model.spec.serving)
    current = views.get(serving.revision.hash)
    requested = current.replicas if current is not None else None
    external = model.spec.serving.scaled_externally
    if serving.revision.hash == plan.revision.hash:
        return requested if external and requested is not None else initial_replicas(model.spec.serving)
    replicas = max(requested or 0, autoscaling.min_replicas)
    return replicas if external else min(replicas, autoscaling.replica_limit)
