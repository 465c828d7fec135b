"""Carries out the actions of a rollout decision."""

from dataclasses import replace
from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import initial_replicas
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.revision import Revision
from modelwright.core.rollout.actions import (
    Action,
    EnsureComparer,
    EnsureRevision,
    RemoveRevision,
    RunGate,
    SetTraffic,
    StartRollout,
)
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.kube import kinds
from modelwright.reconcile import drift_monitor, gates, mirror_tokens, rollout_records
from modelwright.reconcile.children import ensure, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.snapshot import ModelSnapshot
from modelwright.render import comparer_pod, helper_pod_placement, services, workload
from modelwright.render.mirror_target import MirrorSettings

Object = dict[str, Any]

SPARE_TEMPLATES = 3
"""Stored revisions kept beside those that have pods, so that going back takes up the very same pods."""


async def execute_actions(context: Context, picture: ModelSnapshot, actions: tuple[Action, ...]) -> bool:
    """Do `actions` in order; whether anything had to be written. Stops at the first that can't be done: Refused, or
    what the API server said."""
    changed = False
    for action in actions:
        if isinstance(action, EnsureRevision):
            changed |= await _ensure_revision(context, picture, action.revision, action.replicas)
        elif isinstance(action, SetTraffic):
            changed |= await _shift_traffic(context, picture, action.split)
        elif isinstance(action, RemoveRevision):
            changed |= await _remove_revision(context, picture, action)
        elif isinstance(action, EnsureComparer):
            changed |= await _ensure_comparer(context, picture, action)
        elif isinstance(action, RunGate):
            changed |= await gates.ensure_gate_job(context, picture, action.gate)
        elif isinstance(action, StartRollout) and picture.observation.target is not None:
            target = picture.observation.target
            changed |= await rollout_records.create_record(context, picture.model, target, action.number)
    if not any(isinstance(action, EnsureComparer) for action in actions) and not picture.observation.traffic.mirror:
        for kind in (kinds.SERVICE, kinds.DEPLOYMENT):
            await _remove_child(context, picture, kind, names.comparer_name(picture.model.name))
    return changed


async def _ensure_comparer(context: Context, picture: ModelSnapshot, action: EnsureComparer) -> bool:
    serving = picture.model.spec.serving
    stored = picture.stored_template(action.candidate.hash)
    account = stored["data"]["template"]["spec"].get("serviceAccountName") if stored is not None else None
    deployment = comparer_pod.comparer_deployment(
        picture.raw,
        action.serving,
        action.candidate,
        helper_pod_placement.with_model_placement(context.images, picture.raw),
        MirrorSettings(
            token=mirror_tokens.mirror_token(context, picture, names.ROLE_COMPARER, (action.serving, action.candidate)),
            request_seconds=serving.drain_seconds + serving.max_request_seconds,
            service_account=account,
        ),
    )
    return await _ensure_all(context, [comparer_pod.comparer_service(picture.raw), deployment])


async def _ensure_revision(context: Context, picture: ModelSnapshot, revision: Revision, pods: int | None) -> bool:
    stored = picture.stored_template(revision.hash)
    if stored is None:
        # Its template is lost and its version no longer wanted: what runs is left as it is.
        return False
    model, raw = picture.model, picture.raw
    autoscaling = model.spec.serving.autoscaling
    replicas, scaled = _replicas_to_apply(picture, revision, pods)
    view = picture.observation.revisions.get(revision.hash)
    asked = view.replicas if view is not None else None
    wanted = [workload.revision_deployment(raw, revision, stored["data"]["template"], replicas)]
    unwanted = []
    own = picture.traffic.render_revision_objects(raw, revision, stored["data"]["ports"])
    if not own and _needs_own_service(picture, revision):
        own = [services.revision_service(raw, revision, stored["data"]["ports"])]
    wanted += own
    if autoscaling is not None and not model.spec.serving.scaled_externally:
        fewest = autoscaling.min_replicas
    else:
        fewest = (asked if replicas is None else replicas) or 0
    if fewest > 1:
        wanted.append(workload.revision_disruption_budget(raw, revision))
    else:
        unwanted.append(kinds.POD_DISRUPTION_BUDGET)
    if scaled and autoscaling is not None:
        floor = pods if pods is not None else _autoscaler_floor(picture)
        wanted.append(workload.revision_autoscaler(raw, revision, autoscaling, floor))
    else:
        unwanted.append(kinds.HORIZONTAL_POD_AUTOSCALER)
    if "uid" not in stored["metadata"] and revision.hash in picture.stored:
        # It never worked and is rendered anew: what the old template said must not linger in the Deployment. Unless it
        # has just begun to work.
        old = picture.deployments.get(revision.hash)
        if old is not None:
            await remove(context, old, guarded=True)
    # Guarded, since a write that arrives late must not take pods away again.
    live, written = await ensure(context, wanted[0], guarded=True)
    if written:
        context.pods_requested.record_request(live["metadata"]["uid"], picture.observation.now)
    changed = await _store_template(context, picture, stored, written)
    changed |= await _ensure_all(context, wanted[1:])
    for kind in unwanted:
        changed |= await _remove_child(context, picture, kind, names.revision_name(model.name, revision.hash))
    return changed


async def _ensure_all(context: Context, manifests: list[Object], *, guarded: bool = False) -> bool:
    changed = False
    for manifest in manifests:
        _, written = await ensure(context, manifest, guarded=guarded)
        changed |= written
    return changed


def _needs_own_service(picture: ModelSnapshot, revision: Revision) -> bool:
    """A candidate is reached apart from callers: by gates, by the comparer, by people."""
    live = picture.observation.active_record
    return live is not None and live.candidate == revision and live.state is not RolloutState.PROMOTING


def _autoscaler_floor(picture: ModelSnapshot) -> int:
    """What serves is not scaled down while a rollout takes requests from it: they may come back at once."""
    live = picture.observation.active_record
    return picture.observation.replicas if live is not None else 0


def _replicas_to_apply(picture: ModelSnapshot, revision: Revision, pods: int | None) -> tuple[int | None, bool]:
    """How many pods a revision is given, None to leave it to its autoscaler; and whether it has one.

    A revision gets its autoscaler when it takes requests: before, one would scale the idle pods down. `pods`: what the
    rollout asks for, which is then the least that the autoscaler may choose.
    """
    serving, observed = picture.model.spec.serving, picture.observation
    if serving.autoscaling is None or pods == 0:
        return (initial_replicas(serving) if pods is None else pods), False
    serves = observed.serving is not None and observed.serving.revision.hash == revision.hash
    view = observed.revisions.get(revision.hash)
    asked = view.replicas if view is not None else None
    if serving.scaled_externally:
        least = observed.replicas if pods is None else pods
        if asked is None:
            return least, False
        # What serves is theirs alone, unless the rollout itself has stopped it.
        theirs = asked >= least or (serves and not (asked == 0 and _is_recreate_rollout(picture)))
        return (None if theirs else least), False
    in_a_step = observed.active_record is not None and observed.traffic.weights.get(revision.hash, 0) > 0
    takes_requests = serves or in_a_step
    if takes_requests and revision.hash in picture.deployments:
        return None, True
    return (observed.replicas if pods is None else pods), False


def _is_recreate_rollout(picture: ModelSnapshot) -> bool:
    """Whether a rollout goes on that stops what serves before the candidate begins."""
    rolling, live = picture.observation.rollout, picture.observation.active_record
    return live is not None and rolling is not None and rolling.policy.strategy.recreate is not None


async def _store_template(context: Context, picture: ModelSnapshot, stored: Object, changed: bool) -> bool:
    """Store the template, after its Deployment: one that the API server refuses must not be kept."""
    if "uid" in stored["metadata"]:
        return changed
    before = context.store.get(kinds.CONTROLLER_REVISION, picture.model.namespace, stored["metadata"]["name"])
    if before is not None and is_controlled_by(before, picture.model.uid):
        # A revision that never worked was rendered anew; a ControllerRevision can't be changed.
        await remove(context, before)
    await ensure(context, stored)
    return True


async def _shift_traffic(context: Context, picture: ModelSnapshot, routing: TrafficSplit) -> bool:
    templates = {key: picture.stored_template(key) for key in sorted(routing.revision_hashes)}
    ports = {key: stored["data"]["ports"] for key, stored in templates.items() if stored is not None}
    if len(ports) < len(templates):
        return False
    wanted = picture.model.spec.endpoint.protocol if picture.model.spec.endpoint else None
    sent = replace(
        routing,
        observe_percent=drift_monitor.mirror_percent(context, picture),
        copy_token=_mirror_token(context, picture, routing),
    )
    changed = await _ensure_all(context, picture.traffic.render_manifests(picture.routing, sent, ports), guarded=True)
    for kind, name in picture.traffic.list_obsolete(picture.routing, sent):
        changed |= await _remove_child(context, picture, kind, name)
    target = picture.observation.target
    if target is None or routing != TrafficSplit.all_to(target):
        return changed
    for protocol, kind in (("HTTP", kinds.HTTP_ROUTE), ("GRPC", kinds.GRPC_ROUTE)):
        if protocol != wanted:
            changed |= await _remove_child(context, picture, kind, picture.model.name)
    if wanted is None:
        changed |= await _remove_child(
            context, picture, kinds.SERVICE, names.revision_name(picture.model.name, target.hash)
        )
    return changed


def _mirror_token(context: Context, picture: ModelSnapshot, routing: TrafficSplit) -> str:
    """Of the copies that this routing has made."""
    live = picture.observation.active_record
    if routing.mirror_percent and live is not None and live.from_revision is not None and live.candidate is not None:
        return mirror_tokens.mirror_token(context, picture, names.ROLE_COMPARER, (live.from_revision, live.candidate))
    return drift_monitor.observer_token(context, picture)


async def _remove_revision(context: Context, picture: ModelSnapshot, action: RemoveRevision) -> bool:
    revision = action.revision
    name = names.revision_name(picture.model.name, revision.hash)
    changed = False
    for kind in (kinds.HORIZONTAL_POD_AUTOSCALER, kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET):
        changed |= await _remove_child(context, picture, kind, name)
    if action.pods_only:
        return await _scale_to_zero(context, picture, name) or changed
    await _remove_child(context, picture, kinds.DEPLOYMENT, name)
    idle = [obj for key, obj in picture.stored.items() if key not in picture.deployments or key == revision.hash]
    idle.sort(key=lambda obj: int(obj.get("revision", 0)), reverse=True)
    rolling = picture.observation.rollout
    window = rolling.policy.rollback_window if rolling is not None else 0
    for obj in idle[max(SPARE_TEMPLATES, window) :]:
        await remove(context, obj)
    return True


async def _scale_to_zero(context: Context, picture: ModelSnapshot, name: str) -> bool:
    live = context.store.get(kinds.DEPLOYMENT, picture.model.namespace, name)
    if live is None or not is_controlled_by(live, picture.model.uid) or live["spec"].get("replicas") == 0:
        return False
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "uid")}
    wanted = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata, "spec": {"replicas": 0}}
    context.store.put(await context.client.patch(wanted), quiet=True)
    return True


async def _remove_child(context: Context, picture: ModelSnapshot, kind: kinds.Kind, name: str) -> bool:
    live = context.store.get(kind, picture.model.namespace, name)
    if live is None or not is_controlled_by(live, picture.model.uid):
        return False
    await remove(context, live)
    return True
