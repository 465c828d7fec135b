"""The observer of a Model: there while something serves that has a reference, and sent copies only while it is ready.

Nothing here stands in the way of serving: what can't be had is told by the condition Monitored alone.
"""

from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import DriftStatus
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import pod_failures
from modelwright.core.problem import Problem
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.reconcile import mirror_tokens
from modelwright.reconcile.children import BlockedError, ensure, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.snapshot import ModelSnapshot
from modelwright.render import drift_monitor_pod, helper_pod_placement, routes
from modelwright.render.fetch_container import is_only_cached
from modelwright.render.mirror_target import MirrorSettings
from modelwright.traffic.port import TrafficRequirements

Object = dict[str, Any]


def mirror_percent(context: Context, picture: ModelSnapshot) -> int:
    """Share of the requests that the observer may get now: none before its pod is ready for what serves."""
    wanted = _wanted_deployment(context, picture)
    monitoring = picture.model.spec.monitoring
    if (
        monitoring is None
        or not isinstance(wanted, dict)
        or not drift_monitor_pod.is_monitor_ready(_live_deployment(context, picture), wanted)
    ):
        return 0
    return monitoring.mirror_percent


def observer_token(context: Context, picture: ModelSnapshot) -> str:
    """Of the copies that the observer counts of what serves."""
    serving = picture.observation.serving
    return (
        mirror_tokens.mirror_token(context, picture, names.ROLE_OBSERVER, [serving.revision])
        if serving is not None
        else ""
    )


async def ensure_observer(context: Context, picture: ModelSnapshot) -> tuple[bool, Problem | None]:
    """Make the observer be as it should; whether anything had to be written, and why it can't be had. It is left alone
    while the Model is suspended, and goes once no route names it."""
    if picture.observation.suspended:
        return False, None
    wanted, live = _wanted_deployment(context, picture), _live_deployment(context, picture)
    if isinstance(wanted, dict):
        changed = False
        if live is not None and not drift_monitor_pod.is_same_monitor(live, wanted) and _is_routed(context, picture):
            # In a step of a rollout the route stays as it is; another pod waits for its end.
            return False, None
        try:
            for manifest in (drift_monitor_pod.monitor_service(picture.raw), wanted):
                _, written = await ensure(context, manifest)
                changed |= written
        except BlockedError as refused:
            return changed, refused.problem
        return changed, None
    name, changed = names.observer_name(picture.model.name), False
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE):
        found = context.store.get(kind, picture.model.namespace, name)
        if found is not None and is_controlled_by(found, picture.model.uid) and not _is_routed(context, picture):
            await remove(context, found)
            changed = True
    return changed, None


def monitored_condition(
    context: Context, picture: ModelSnapshot, refused: Problem | None
) -> tuple[bool, Reason, str] | None:
    """The condition Monitored; None when monitoring isn't asked for. `refused`: what `keep` met."""
    monitoring = picture.model.spec.monitoring
    if monitoring is None:
        return None
    wanted, name = _wanted_deployment(context, picture), names.observer_name(picture.model.name)
    problem = wanted if isinstance(wanted, Problem) else refused
    if problem is not None:
        return False, Reason(problem.reason), problem.message
    live = _live_deployment(context, picture)
    if not isinstance(wanted, dict) or not drift_monitor_pod.is_monitor_ready(live, wanted):
        failure = (
            pod_failures.find_creation_refusal(live, pod_failures.HELPER_RESOURCES_HINT) if live is not None else None
        )
        if failure is not None:
            return False, Reason(failure.reason), f"Deployment {name}: {failure.message}"
        text = f"the pod of Deployment {name} is not ready; its log and Events say why, if it stays so"
        return False, Reason.WAITING_FOR_OBSERVER, text
    text = f"{monitoring.mirror_percent} % of the requests are copied to Service {name}, except in steps of a rollout "
    return True, Reason.OBSERVED, text + "that need the copies or the weights for themselves"


def read_drift(context: Context, picture: ModelSnapshot) -> DriftStatus | None:
    """What the observer has found; None when there is none to ask, or it has found nothing yet. While its pod isn't
    ready, what the status says stays."""
    model, serving, old = picture.model, picture.observation.serving, picture.model.status.drift
    key, wanted = Key("Model", model.namespace, model.name), _wanted_deployment(context, picture)
    if serving is None or not isinstance(wanted, dict):
        forget_observer(context, key)
        return None
    version = serving.revision.version
    kept = old if old is not None and old.version == version else None
    if context.observers is None:
        return kept
    if not drift_monitor_pod.is_monitor_ready(_live_deployment(context, picture), wanted):
        forget_observer(context, key)
        return kept
    return context.observers.sync_model(key, version, kept)


def forget_observer(context: Context, model: Key) -> None:
    """The observer of this Model is asked no more."""
    if context.observers is not None:
        context.observers.forget_model(model)


def _wanted_deployment(context: Context, picture: ModelSnapshot) -> Object | Problem | None:
    """The Deployment that there should be; why there can be none; None when it isn't asked for."""
    model, serving = picture.model, picture.observation.serving
    if model.spec.monitoring is None:
        return None
    refusals = picture.traffic.list_unsupported_needs(
        picture.routing, TrafficRequirements(observe_percent=model.spec.monitoring.mirror_percent)
    )
    if refusals:
        return Problem(Reason.MONITORING_NOT_SUPPORTED, "; ".join(refusals))
    if serving is None:
        return Problem(Reason.NOTHING_SERVING, "no revision has served yet")
    version = _read_version(context, picture, serving.revision.version)
    if version is None or version.spec.reference is None:
        text = "has no spec.reference; give one to the next version" if version is not None else "is not there any more"
        return Problem(Reason.NO_REFERENCE, f"ModelVersion {serving.revision.version} {text}")
    stored = picture.stored_template(serving.revision.hash)
    sample = drift_monitor_pod.reference_source(version.spec.reference, version.spec.artifact)
    account = sample.service_account_name
    if stored is not None and not is_only_cached(stored["data"]["template"]):
        account = stored["data"]["template"]["spec"].get("serviceAccountName")
    return drift_monitor_pod.monitor_deployment(
        picture.raw,
        serving.revision,
        sample,
        model.spec.monitoring,
        helper_pod_placement.with_model_placement(context.images, picture.raw),
        MirrorSettings(
            token=observer_token(context, picture),
            request_seconds=model.spec.serving.max_request_seconds,
            service_account=account,
        ),
    )


def _read_version(context: Context, picture: ModelSnapshot, name: str) -> ModelVersion | None:
    raw = context.store.get(kinds.MODEL_VERSION, picture.model.namespace, name)
    try:
        return ModelVersion.parse(raw) if raw is not None else None
    except InvalidObject:
        return None


def _live_deployment(context: Context, picture: ModelSnapshot) -> Object | None:
    return context.store.get(kinds.DEPLOYMENT, picture.model.namespace, names.observer_name(picture.model.name))


def _is_routed(context: Context, picture: ModelSnapshot) -> bool:
    """Whether the route, as it was written last, copies requests to the observer."""
    name = picture.model.name
    route = context.store.get(kinds.HTTP_ROUTE, picture.model.namespace, name)
    if route is None or not is_controlled_by(route, picture.model.uid):
        return False
    return routes.read_route(route, name).names_observer(name)
