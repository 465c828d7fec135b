"""Carries out the actions of a rollout decision."""

from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import wanted_replicas
from modelwright.core.rollout.actions import Action, Remove, Run, SendTraffic
from modelwright.core.rollout.observed import Revision
from modelwright.kube import kinds
from modelwright.reconcile.children import controlled_by, ensure, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.observe import Picture
from modelwright.serving import workload

Object = dict[str, Any]

KEPT_TEMPLATES = 3
"""Stored revisions kept beside those that have pods, so that going back takes up the very same pods."""


async def carry_out(context: Context, picture: Picture, actions: tuple[Action, ...]) -> None:
    """Do `actions` in order. Stops at the first that can't be done: Refused, or what the API server said."""
    for action in actions:
        if isinstance(action, Run):
            await _run(context, picture, action.revision)
        elif isinstance(action, SendTraffic):
            await _send_traffic(context, picture, action.revision)
        elif isinstance(action, Remove):
            await _remove(context, picture, action.revision)


async def _run(context: Context, picture: Picture, revision: Revision) -> None:
    stored = picture.template(revision.hash)
    if stored is None:
        # Its template is lost and its version no longer wanted: what runs is left as it is.
        return
    model, raw = picture.model, picture.raw
    replicas, scaled = _replicas(picture, revision)
    await ensure(context, workload.deployment(raw, revision, stored["data"]["template"], replicas))
    await _keep_template(context, picture, stored)
    for manifest in picture.traffic.per_revision(raw, revision, stored["data"]["ports"]):
        await ensure(context, manifest)
    child = names.revision_name(model.name, revision.hash)
    most = model.spec.serving.autoscaling.min_replicas if model.spec.serving.autoscaling else (replicas or 0)
    if most > 1:
        await ensure(context, workload.disruption_budget(raw, revision))
    else:
        await _drop(context, picture, kinds.POD_DISRUPTION_BUDGET, child)
    if scaled and model.spec.serving.autoscaling is not None:
        await ensure(context, workload.autoscaler(raw, revision, model.spec.serving.autoscaling))
    else:
        await _drop(context, picture, kinds.HORIZONTAL_POD_AUTOSCALER, child)


def _replicas(picture: Picture, revision: Revision) -> tuple[int | None, bool]:
    """How many pods a revision is given, None to leave it to its autoscaler; and whether it has one.

    A revision gets its autoscaler when it serves: before, one would scale the idle pods down.
    """
    serving, observed = picture.model.spec.serving, picture.observed
    if serving.autoscaling is None:
        return wanted_replicas(serving), False
    takes_traffic = observed.serving is not None and observed.serving.revision.hash == revision.hash
    if takes_traffic and revision.hash in picture.deployments:
        return None, True
    return observed.replicas, False


async def _keep_template(context: Context, picture: Picture, stored: Object) -> None:
    if "uid" in stored["metadata"]:
        return
    name = stored["metadata"]["name"]
    before = context.store.get(kinds.CONTROLLER_REVISION, picture.model.namespace, name)
    if before is not None and controlled_by(before, picture.model.uid):
        # A revision that never worked was rendered anew; a ControllerRevision can't be changed.
        await remove(context, before)
    await ensure(context, stored)


async def _send_traffic(context: Context, picture: Picture, revision: Revision) -> None:
    stored = picture.template(revision.hash)
    if stored is None:
        return
    for manifest in picture.traffic.manifests(picture.scene, revision, stored["data"]["ports"]):
        await ensure(context, manifest, guarded=True)
    wanted = picture.model.spec.endpoint.protocol if picture.model.spec.endpoint else None
    for protocol, kind in (("HTTP", kinds.HTTP_ROUTE), ("GRPC", kinds.GRPC_ROUTE)):
        if protocol != wanted:
            await _drop(context, picture, kind, picture.model.name)


async def _remove(context: Context, picture: Picture, revision: Revision) -> None:
    name = names.revision_name(picture.model.name, revision.hash)
    for kind in (kinds.HORIZONTAL_POD_AUTOSCALER, kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET, kinds.DEPLOYMENT):
        await _drop(context, picture, kind, name)
    idle = [obj for key, obj in picture.stored.items() if key not in picture.deployments or key == revision.hash]
    idle.sort(key=lambda obj: int(obj.get("revision", 0)), reverse=True)
    for obj in idle[KEPT_TEMPLATES:]:
        await remove(context, obj)


async def _drop(context: Context, picture: Picture, kind: kinds.Kind, name: str) -> None:
    live = context.store.get(kind, picture.model.namespace, name)
    if live is not None and controlled_by(live, picture.model.uid):
        await remove(context, live)
