"""Carries out the actions of a rollout decision."""

from dataclasses import replace
from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import wanted_replicas
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.revision import Revision
from modelwright.core.rollout.actions import Action, Begin, Compare, Remove, Run, RunGate, SendTraffic
from modelwright.core.rollout.routing import Routing
from modelwright.kube import kinds
from modelwright.reconcile import copies, gates, monitoring, rollouts
from modelwright.reconcile.children import controlled_by, ensure, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.picture import Picture
from modelwright.serving import comparer, helpers, network, workload

Object = dict[str, Any]

KEPT_TEMPLATES = 3
"""Stored revisions kept beside those that have pods, so that going back takes up the very same pods."""


async def carry_out(context: Context, picture: Picture, actions: tuple[Action, ...]) -> bool:
    """Do `actions` in order; whether anything had to be written. Stops at the first that can't be done: Refused, or
    what the API server said."""
    changed = False
    for action in actions:
        if isinstance(action, Run):
            changed |= await _run(context, picture, action.revision, action.pods)
        elif isinstance(action, SendTraffic):
            changed |= await _send_traffic(context, picture, action.routing)
        elif isinstance(action, Remove):
            changed |= await _remove(context, picture, action)
        elif isinstance(action, Compare):
            changed |= await _compare(context, picture, action)
        elif isinstance(action, RunGate):
            changed |= await gates.run(context, picture, action.gate)
        elif isinstance(action, Begin) and picture.observed.target is not None:
            target = picture.observed.target
            changed |= await rollouts.begin(context, picture.model, target, action.number)
    if not any(isinstance(action, Compare) for action in actions) and not picture.observed.traffic.mirror:
        for kind in (kinds.SERVICE, kinds.DEPLOYMENT):
            await _drop(context, picture, kind, names.comparer_name(picture.model.name))
    return changed


async def _compare(context: Context, picture: Picture, action: Compare) -> bool:
    serving = picture.model.spec.serving
    stored = picture.template(action.candidate.hash)
    account = stored["data"]["template"]["spec"].get("serviceAccountName") if stored is not None else None
    deployment = comparer.deployment(
        picture.raw,
        action.serving,
        action.candidate,
        helpers.of_model(context.images, picture.raw),
        token=copies.token(context, picture, names.ROLE_COMPARER, (action.serving, action.candidate)),
        request_seconds=serving.drain_seconds + serving.max_request_seconds,
        service_account=account,
    )
    return await _all(context, [comparer.service(picture.raw), deployment])


async def _run(context: Context, picture: Picture, revision: Revision, pods: int | None) -> bool:
    stored = picture.template(revision.hash)
    if stored is None:
        # Its template is lost and its version no longer wanted: what runs is left as it is.
        return False
    model, raw = picture.model, picture.raw
    autoscaling = model.spec.serving.autoscaling
    replicas, scaled = _replicas(picture, revision, pods)
    view = picture.observed.revisions.get(revision.hash)
    asked = view.replicas if view is not None else None
    wanted = [workload.deployment(raw, revision, stored["data"]["template"], replicas)]
    unwanted = []
    own = picture.traffic.per_revision(raw, revision, stored["data"]["ports"])
    if not own and _is_looked_at(picture, revision):
        own = [network.revision_service(raw, revision, stored["data"]["ports"])]
    wanted += own
    if autoscaling is not None and not model.spec.serving.scaled_by_others:
        fewest = autoscaling.min_replicas
    else:
        fewest = (asked if replicas is None else replicas) or 0
    if fewest > 1:
        wanted.append(workload.disruption_budget(raw, revision))
    else:
        unwanted.append(kinds.POD_DISRUPTION_BUDGET)
    if scaled and autoscaling is not None:
        floor = pods if pods is not None else _rollout_floor(picture)
        wanted.append(workload.autoscaler(raw, revision, autoscaling, floor))
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
        context.pods_asked.note(live["metadata"]["uid"], picture.observed.now)
    changed = await _keep_template(context, picture, stored, written)
    changed |= await _all(context, wanted[1:])
    for kind in unwanted:
        changed |= await _drop(context, picture, kind, names.revision_name(model.name, revision.hash))
    return changed


async def _all(context: Context, manifests: list[Object], *, guarded: bool = False) -> bool:
    changed = False
    for manifest in manifests:
        _, written = await ensure(context, manifest, guarded=guarded)
        changed |= written
    return changed


def _is_looked_at(picture: Picture, revision: Revision) -> bool:
    """A candidate is reached apart from callers: by gates, by the comparer, by people."""
    live = picture.observed.live
    return live is not None and live.to == revision and live.state is not RolloutState.PROMOTING


def _rollout_floor(picture: Picture) -> int:
    """What serves is not scaled down while a rollout takes requests from it: they may come back at once."""
    live = picture.observed.live
    return picture.observed.replicas if live is not None else 0


def _replicas(picture: Picture, revision: Revision, pods: int | None) -> tuple[int | None, bool]:
    """How many pods a revision is given, None to leave it to its autoscaler; and whether it has one.

    A revision gets its autoscaler when it takes requests: before, one would scale the idle pods down. `pods`: what the
    rollout asks for, which is then the least that the autoscaler may choose.
    """
    serving, observed = picture.model.spec.serving, picture.observed
    if serving.autoscaling is None or pods == 0:
        return (wanted_replicas(serving) if pods is None else pods), False
    serves = observed.serving is not None and observed.serving.revision.hash == revision.hash
    view = observed.revisions.get(revision.hash)
    asked = view.replicas if view is not None else None
    if serving.scaled_by_others:
        least = observed.replicas if pods is None else pods
        if asked is None:
            return least, False
        # What serves is theirs alone, unless the rollout itself has stopped it.
        theirs = asked >= least or (serves and not (asked == 0 and _recreates(picture)))
        return (None if theirs else least), False
    in_a_step = observed.live is not None and observed.traffic.weights.get(revision.hash, 0) > 0
    takes_requests = serves or in_a_step
    if takes_requests and revision.hash in picture.deployments:
        return None, True
    return (observed.replicas if pods is None else pods), False


def _recreates(picture: Picture) -> bool:
    """Whether a rollout goes on that stops what serves before the candidate begins."""
    rolling, live = picture.observed.rolling, picture.observed.live
    return live is not None and rolling is not None and rolling.policy.strategy.recreate is not None


async def _keep_template(context: Context, picture: Picture, stored: Object, changed: bool) -> bool:
    """Store the template, after its Deployment: one that the API server refuses must not be kept."""
    if "uid" in stored["metadata"]:
        return changed
    before = context.store.get(kinds.CONTROLLER_REVISION, picture.model.namespace, stored["metadata"]["name"])
    if before is not None and controlled_by(before, picture.model.uid):
        # A revision that never worked was rendered anew; a ControllerRevision can't be changed.
        await remove(context, before)
    await ensure(context, stored)
    return True


async def _send_traffic(context: Context, picture: Picture, routing: Routing) -> bool:
    templates = {key: picture.template(key) for key in sorted(routing.hashes)}
    ports = {key: stored["data"]["ports"] for key, stored in templates.items() if stored is not None}
    if len(ports) < len(templates):
        return False
    wanted = picture.model.spec.endpoint.protocol if picture.model.spec.endpoint else None
    sent = replace(
        routing,
        observe_percent=monitoring.percent(context, picture),
        copy_token=_copy_token(context, picture, routing),
    )
    changed = await _all(context, picture.traffic.manifests(picture.scene, sent, ports), guarded=True)
    for kind, name in picture.traffic.unwanted(picture.scene, sent):
        changed |= await _drop(context, picture, kind, name)
    target = picture.observed.target
    if target is None or routing != Routing.to(target):
        return changed
    for protocol, kind in (("HTTP", kinds.HTTP_ROUTE), ("GRPC", kinds.GRPC_ROUTE)):
        if protocol != wanted:
            changed |= await _drop(context, picture, kind, picture.model.name)
    if wanted is None:
        changed |= await _drop(context, picture, kinds.SERVICE, names.revision_name(picture.model.name, target.hash))
    return changed


def _copy_token(context: Context, picture: Picture, routing: Routing) -> str:
    """Of the copies that this routing has made."""
    live = picture.observed.live
    if routing.mirror_percent and live is not None and live.source is not None and live.to is not None:
        return copies.token(context, picture, names.ROLE_COMPARER, (live.source, live.to))
    return monitoring.copy_token(context, picture)


async def _remove(context: Context, picture: Picture, action: Remove) -> bool:
    revision = action.revision
    name = names.revision_name(picture.model.name, revision.hash)
    changed = False
    for kind in (kinds.HORIZONTAL_POD_AUTOSCALER, kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET):
        changed |= await _drop(context, picture, kind, name)
    if action.pods_only:
        return await _stop(context, picture, name) or changed
    await _drop(context, picture, kinds.DEPLOYMENT, name)
    idle = [obj for key, obj in picture.stored.items() if key not in picture.deployments or key == revision.hash]
    idle.sort(key=lambda obj: int(obj.get("revision", 0)), reverse=True)
    rolling = picture.observed.rolling
    window = rolling.policy.rollback_window if rolling is not None else 0
    for obj in idle[max(KEPT_TEMPLATES, window) :]:
        await remove(context, obj)
    return True


async def _stop(context: Context, picture: Picture, name: str) -> bool:
    live = context.store.get(kinds.DEPLOYMENT, picture.model.namespace, name)
    if live is None or not controlled_by(live, picture.model.uid) or live["spec"].get("replicas") == 0:
        return False
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "uid")}
    wanted = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata, "spec": {"replicas": 0}}
    context.store.put(await context.client.patch(wanted), quiet=True)
    return True


async def _drop(context: Context, picture: Picture, kind: kinds.Kind, name: str) -> bool:
    live = context.store.get(kind, picture.model.namespace, name)
    if live is None or not controlled_by(live, picture.model.uid):
        return False
    await remove(context, live)
    return True
