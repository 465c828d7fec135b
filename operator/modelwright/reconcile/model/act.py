"""Carries out the actions of a rollout decision."""

from collections.abc import Mapping
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
from modelwright.reconcile.children import ensure, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import drift_monitor, gate_jobs, mirror_tokens, rollout_history
from modelwright.reconcile.model.snapshot import ModelSnapshot
from modelwright.render import comparer_pod, helper_pod_placement, services, workload
from modelwright.render.mirror_target import MirrorSettings

Object = dict[str, Any]

SPARE_TEMPLATES = 3
"""Stored revisions kept beside those with pods, so that a rollback runs the very same pod template."""


async def execute_actions(context: Context, snapshot: ModelSnapshot, actions: tuple[Action, ...]) -> bool:
    """Carry out the actions in order; return whether anything was written.

    Stops at the first one that can't be carried out: raises BlockedError or ApiError.
    """
    changed = False
    for action in actions:
        if isinstance(action, EnsureRevision):
            changed |= await _ensure_revision(context, snapshot, action.revision, action.replicas)
        elif isinstance(action, SetTraffic):
            changed |= await _shift_traffic(context, snapshot, action.split)
        elif isinstance(action, RemoveRevision):
            changed |= await _remove_revision(context, snapshot, action)
        elif isinstance(action, EnsureComparer):
            changed |= await _ensure_comparer(context, snapshot, action)
        elif isinstance(action, RunGate):
            changed |= await gate_jobs.ensure_gate_job(context, snapshot, action.gate)
        elif isinstance(action, StartRollout) and snapshot.observation.target is not None:
            target = snapshot.observation.target
            changed |= await rollout_history.create_record(context, snapshot.model, target, action.number)
    if not any(isinstance(action, EnsureComparer) for action in actions) and not snapshot.observation.traffic.mirror:
        for kind in (kinds.SERVICE, kinds.DEPLOYMENT):
            await _remove_child(context, snapshot, kind, names.comparer_name(snapshot.model.name))
    return changed


async def _ensure_comparer(context: Context, snapshot: ModelSnapshot, action: EnsureComparer) -> bool:
    serving = snapshot.model.spec.serving
    template = snapshot.stored_template(action.candidate.hash)
    account = template["data"]["template"]["spec"].get("serviceAccountName") if template is not None else None
    deployment = comparer_pod.comparer_deployment(
        snapshot.raw,
        action.serving,
        action.candidate,
        helper_pod_placement.with_model_placement(context.images, snapshot.raw),
        MirrorSettings(
            token=mirror_tokens.mirror_token(
                context, snapshot, names.ROLE_COMPARER, (action.serving, action.candidate)
            ),
            request_seconds=serving.drain_seconds + serving.max_request_seconds,
            service_account=account,
        ),
    )
    return await _ensure_all(context, [comparer_pod.comparer_service(snapshot.raw), deployment])


async def _ensure_revision(context: Context, snapshot: ModelSnapshot, revision: Revision, pods: int | None) -> bool:
    stored = snapshot.stored_template(revision.hash)
    if stored is None:
        # Its template is lost and its version is not wanted any more: its pods are left as they are.
        return False
    replicas, has_autoscaler = _replicas_to_apply(snapshot, revision, pods)
    if "uid" not in stored["metadata"] and revision.hash in snapshot.children.stored:
        # It never worked and was rendered again: fields of the former template must not stay in the Deployment. The
        # guard keeps one that has become ready meanwhile.
        former = snapshot.children.deployments.get(revision.hash)
        if former is not None:
            await remove(context, former, guarded=True)
    deployment = workload.revision_deployment(snapshot.raw, revision, stored["data"]["template"], replicas)
    # Guarded, since a write that arrives late must not remove pods again.
    live, written = await ensure(context, deployment, guarded=True)
    if written:
        context.pods_requested.record_request(live["metadata"]["uid"], snapshot.observation.now)
    changed = await _store_template(context, snapshot, stored, written)
    optional = {
        kinds.POD_DISRUPTION_BUDGET: _render_disruption_budget(snapshot, revision, replicas),
        kinds.HORIZONTAL_POD_AUTOSCALER: _render_autoscaler(snapshot, revision, pods) if has_autoscaler else None,
    }
    services = _render_revision_services(snapshot, revision, stored["data"]["ports"])
    changed |= await _ensure_all(context, [*services, *(obj for obj in optional.values() if obj is not None)])
    for kind, obj in optional.items():
        if obj is None:
            name = names.revision_name(snapshot.model.name, revision.hash)
            changed |= await _remove_child(context, snapshot, kind, name)
    return changed


def _render_revision_services(snapshot: ModelSnapshot, revision: Revision, ports: Mapping[str, int]) -> list[Object]:
    """The objects by which requests reach this revision alone."""
    objects = snapshot.routing.router.render_revision_objects(snapshot.raw, revision, ports)
    if not objects and _needs_own_service(snapshot, revision):
        return [services.revision_service(snapshot.raw, revision, ports)]
    return objects


def _render_disruption_budget(snapshot: ModelSnapshot, revision: Revision, replicas: int | None) -> Object | None:
    """The PodDisruptionBudget of two pods and more; None for fewer. `replicas`: as written, None if left to others."""
    serving = snapshot.model.spec.serving
    if serving.autoscaling is not None and not serving.scaled_externally:
        min_replicas = serving.autoscaling.min_replicas
    else:
        view = snapshot.observation.revisions.get(revision.hash)
        requested = view.replicas if view is not None else None
        min_replicas = (requested if replicas is None else replicas) or 0
    return workload.revision_disruption_budget(snapshot.raw, revision) if min_replicas > 1 else None


def _render_autoscaler(snapshot: ModelSnapshot, revision: Revision, pods: int | None) -> Object | None:
    """The revision's autoscaler. `pods`: the least that it may choose, if the rollout limits it."""
    autoscaling = snapshot.model.spec.serving.autoscaling
    if autoscaling is None:
        return None
    floor = pods if pods is not None else _autoscaler_floor(snapshot)
    return workload.revision_autoscaler(snapshot.raw, revision, autoscaling, floor)


async def _ensure_all(context: Context, manifests: list[Object], *, guarded: bool = False) -> bool:
    changed = False
    for manifest in manifests:
        _, written = await ensure(context, manifest, guarded=guarded)
        changed |= written
    return changed


def _needs_own_service(snapshot: ModelSnapshot, revision: Revision) -> bool:
    """Whether gates, the comparer and users reach this revision apart from the Model's requests: the candidate."""
    record = snapshot.observation.active_record
    return record is not None and record.candidate == revision and record.state is not RolloutState.PROMOTING


def _autoscaler_floor(snapshot: ModelSnapshot) -> int:
    """The serving revision is not scaled down while a rollout takes requests from it: they may return at once."""
    return snapshot.observation.replicas if snapshot.observation.active_record is not None else 0


def _replicas_to_apply(snapshot: ModelSnapshot, revision: Revision, pods: int | None) -> tuple[int | None, bool]:
    """The replicas to write, None to leave them to an autoscaler; and whether the revision has one of ours.

    A revision gets its autoscaler when it takes requests: before that, it would scale the idle pods down. `pods`: what
    the rollout requires, which is then the least that the autoscaler may choose.
    """
    serving, observation = snapshot.model.spec.serving, snapshot.observation
    if serving.autoscaling is None or pods == 0:
        return (initial_replicas(serving) if pods is None else pods), False
    serves = observation.serving is not None and observation.serving.revision.hash == revision.hash
    view = observation.revisions.get(revision.hash)
    requested = view.replicas if view is not None else None
    if serving.scaled_externally:
        required = observation.replicas if pods is None else pods
        if requested is None:
            return required, False
        # The external autoscaler alone scales the serving revision, unless the rollout itself has stopped it.
        is_theirs = requested >= required or (serves and not (requested == 0 and _is_recreate_rollout(snapshot)))
        return (None if is_theirs else required), False
    has_weight = observation.active_record is not None and observation.traffic.weights.get(revision.hash, 0) > 0
    takes_requests = serves or has_weight
    if takes_requests and revision.hash in snapshot.children.deployments:
        return None, True
    return (observation.replicas if pods is None else pods), False


def _is_recreate_rollout(snapshot: ModelSnapshot) -> bool:
    """Whether the active rollout stops the serving revision before the candidate starts."""
    rollout, record = snapshot.observation.rollout, snapshot.observation.active_record
    return record is not None and rollout is not None and rollout.policy.strategy.recreate is not None


async def _store_template(context: Context, snapshot: ModelSnapshot, stored: Object, changed: bool) -> bool:
    """Store the template after its Deployment: one that the API server refuses must not be stored."""
    if "uid" in stored["metadata"]:
        return changed
    former = context.store.get(kinds.CONTROLLER_REVISION, snapshot.model.namespace, stored["metadata"]["name"])
    if former is not None and is_controlled_by(former, snapshot.model.uid):
        # A revision that never worked was rendered again; a ControllerRevision is immutable.
        await remove(context, former)
    await ensure(context, stored)
    return True


async def _shift_traffic(context: Context, snapshot: ModelSnapshot, split: TrafficSplit) -> bool:
    templates = {key: snapshot.stored_template(key) for key in sorted(split.revision_hashes)}
    ports = {key: stored["data"]["ports"] for key, stored in templates.items() if stored is not None}
    if len(ports) < len(templates):
        return False
    router, objects = snapshot.routing.router, snapshot.routing.objects
    with_copies = replace(
        split,
        observe_percent=drift_monitor.mirror_percent(context, snapshot),
        copy_token=_mirror_token(context, snapshot, split),
    )
    changed = await _ensure_all(context, router.render_manifests(objects, with_copies, ports), guarded=True)
    for kind, name in router.list_obsolete(objects, with_copies):
        changed |= await _remove_child(context, snapshot, kind, name)
    target = snapshot.observation.target
    if target is None or split != TrafficSplit.all_to(target):
        return changed
    endpoint = snapshot.model.spec.endpoint
    for protocol, kind in (("HTTP", kinds.HTTP_ROUTE), ("GRPC", kinds.GRPC_ROUTE)):
        if endpoint is None or protocol != endpoint.protocol:
            changed |= await _remove_child(context, snapshot, kind, snapshot.model.name)
    if endpoint is None:
        changed |= await _remove_child(
            context, snapshot, kinds.SERVICE, names.revision_name(snapshot.model.name, target.hash)
        )
    return changed


def _mirror_token(context: Context, snapshot: ModelSnapshot, split: TrafficSplit) -> str:
    """The token of the copies that the route makes with this split: for the comparer, else for the drift monitor."""
    record = snapshot.observation.active_record
    if split.mirror_percent and record is not None:
        source, candidate = record.from_revision, record.candidate
        if source is not None and candidate is not None:
            return mirror_tokens.mirror_token(context, snapshot, names.ROLE_COMPARER, (source, candidate))
    return drift_monitor.observer_token(context, snapshot)


async def _remove_revision(context: Context, snapshot: ModelSnapshot, action: RemoveRevision) -> bool:
    revision = action.revision
    name = names.revision_name(snapshot.model.name, revision.hash)
    changed = False
    for kind in (kinds.HORIZONTAL_POD_AUTOSCALER, kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET):
        changed |= await _remove_child(context, snapshot, kind, name)
    if action.pods_only:
        return await _scale_to_zero(context, snapshot, name) or changed
    await _remove_child(context, snapshot, kinds.DEPLOYMENT, name)
    idle = [
        obj
        for key, obj in snapshot.children.stored.items()
        if key not in snapshot.children.deployments or key == revision.hash
    ]
    idle.sort(key=lambda obj: int(obj.get("revision", 0)), reverse=True)
    rollout = snapshot.observation.rollout
    window = rollout.policy.rollback_window if rollout is not None else 0
    for obj in idle[max(SPARE_TEMPLATES, window) :]:
        await remove(context, obj)
    return True


async def _scale_to_zero(context: Context, snapshot: ModelSnapshot, name: str) -> bool:
    live = context.store.get(kinds.DEPLOYMENT, snapshot.model.namespace, name)
    if live is None or not is_controlled_by(live, snapshot.model.uid) or live["spec"].get("replicas") == 0:
        return False
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "uid")}
    patch = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata, "spec": {"replicas": 0}}
    context.store.put(await context.client.patch(patch), quiet=True)
    return True


async def _remove_child(context: Context, snapshot: ModelSnapshot, kind: kinds.Kind, name: str) -> bool:
    live = context.store.get(kind, snapshot.model.namespace, name)
    if live is None or not is_controlled_by(live, snapshot.model.uid):
        return False
    await remove(context, live)
    return True
