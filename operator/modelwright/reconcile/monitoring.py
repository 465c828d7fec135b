"""The observer of a Model: there while something serves that has a reference, and sent copies only while it is ready.

Nothing here stands in the way of serving: what can't be had is told by the condition Monitored alone.
"""

from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import DriftStatus
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import pods
from modelwright.core.rollout.observed import Problem
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.reconcile import copies
from modelwright.reconcile.children import Refused, controlled_by, ensure, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.picture import Picture
from modelwright.serving import helpers, network, observer
from modelwright.serving.fetching import only_cached
from modelwright.traffic.port import Needs

Object = dict[str, Any]


def percent(context: Context, picture: Picture) -> int:
    """Share of the requests that the observer may get now: none before its pod is ready for what serves."""
    wanted = _wanted(context, picture)
    monitoring = picture.model.spec.monitoring
    if monitoring is None or not isinstance(wanted, dict) or not observer.ready(_live(context, picture), wanted):
        return 0
    return monitoring.mirror_percent


def copy_token(context: Context, picture: Picture) -> str:
    """Of the copies that the observer counts of what serves."""
    serving = picture.observed.serving
    return copies.token(context, picture, names.ROLE_OBSERVER, [serving.revision]) if serving is not None else ""


async def keep(context: Context, picture: Picture) -> tuple[bool, Problem | None]:
    """Make the observer be as it should; whether anything had to be written, and why it can't be had. It is left alone
    while the Model is suspended, and goes once no route names it."""
    if picture.observed.suspended:
        return False, None
    wanted, live = _wanted(context, picture), _live(context, picture)
    if isinstance(wanted, dict):
        changed = False
        if live is not None and not observer.same(live, wanted) and _named(context, picture):
            # In a step of a rollout the route stays as it is; another pod waits for its end.
            return False, None
        try:
            for manifest in (observer.service(picture.raw), wanted):
                _, written = await ensure(context, manifest)
                changed |= written
        except Refused as refused:
            return changed, refused.problem
        return changed, None
    name, changed = names.observer_name(picture.model.name), False
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE):
        found = context.store.get(kind, picture.model.namespace, name)
        if found is not None and controlled_by(found, picture.model.uid) and not _named(context, picture):
            await remove(context, found)
            changed = True
    return changed, None


def told(context: Context, picture: Picture, refused: Problem | None) -> tuple[bool, Reason, str] | None:
    """The condition Monitored; None when monitoring isn't asked for. `refused`: what `keep` met."""
    monitoring = picture.model.spec.monitoring
    if monitoring is None:
        return None
    wanted, name = _wanted(context, picture), names.observer_name(picture.model.name)
    problem = wanted if isinstance(wanted, Problem) else refused
    if problem is not None:
        return False, Reason(problem.reason), problem.message
    live = _live(context, picture)
    if not isinstance(wanted, dict) or not observer.ready(live, wanted):
        failure = pods.forbidden(live, pods.SIZES_OF_HELPERS) if live is not None else None
        if failure is not None:
            return False, Reason(failure.reason), f"Deployment {name}: {failure.message}"
        text = f"the pod of Deployment {name} is not ready; its log and Events say why, if it stays so"
        return False, Reason.WAITING_FOR_OBSERVER, text
    text = f"{monitoring.mirror_percent} % of the requests are copied to Service {name}, except in steps of a rollout "
    return True, Reason.OBSERVED, text + "that need the copies or the weights for themselves"


def drift(context: Context, picture: Picture) -> DriftStatus | None:
    """What the observer has found; None when there is none to ask, or it has found nothing yet. While its pod isn't
    ready, what the status says stays."""
    model, serving, old = picture.model, picture.observed.serving, picture.model.status.drift
    key, wanted = Key("Model", model.namespace, model.name), _wanted(context, picture)
    if serving is None or not isinstance(wanted, dict):
        forget(context, key)
        return None
    version = serving.revision.version
    kept = old if old is not None and old.version == version else None
    if context.observers is None:
        return kept
    if not observer.ready(_live(context, picture), wanted):
        forget(context, key)
        return kept
    return context.observers.watch(key, version, kept)


def forget(context: Context, model: Key) -> None:
    """The observer of this Model is asked no more."""
    if context.observers is not None:
        context.observers.forget(model)


def _wanted(context: Context, picture: Picture) -> Object | Problem | None:
    """The Deployment that there should be; why there can be none; None when it isn't asked for."""
    model, serving = picture.model, picture.observed.serving
    if model.spec.monitoring is None:
        return None
    refusals = picture.traffic.refusals(picture.scene, Needs(observe=model.spec.monitoring.mirror_percent))
    if refusals:
        return Problem(Reason.MONITORING_NOT_SUPPORTED, "; ".join(refusals))
    if serving is None:
        return Problem(Reason.NOTHING_SERVING, "no revision has served yet")
    version = _version(context, picture, serving.revision.version)
    if version is None or version.spec.reference is None:
        text = "has no spec.reference; give one to the next version" if version is not None else "is not there any more"
        return Problem(Reason.NO_REFERENCE, f"ModelVersion {serving.revision.version} {text}")
    stored = picture.template(serving.revision.hash)
    sample = observer.sample(version.spec.reference, version.spec.artifact)
    account = sample.service_account_name
    if stored is not None and not only_cached(stored["data"]["template"]):
        account = stored["data"]["template"]["spec"].get("serviceAccountName")
    return observer.deployment(
        picture.raw,
        serving.revision,
        sample,
        model.spec.monitoring,
        helpers.of_model(context.images, picture.raw),
        token=copy_token(context, picture),
        request_seconds=model.spec.serving.max_request_seconds,
        service_account=account,
    )


def _version(context: Context, picture: Picture, name: str) -> ModelVersion | None:
    raw = context.store.get(kinds.MODEL_VERSION, picture.model.namespace, name)
    try:
        return ModelVersion.parse(raw) if raw is not None else None
    except InvalidObject:
        return None


def _live(context: Context, picture: Picture) -> Object | None:
    return context.store.get(kinds.DEPLOYMENT, picture.model.namespace, names.observer_name(picture.model.name))


def _named(context: Context, picture: Picture) -> bool:
    """Whether the route, as it was written last, copies requests to the observer."""
    name = picture.model.name
    route = context.store.get(kinds.HTTP_ROUTE, picture.model.namespace, name)
    if route is None or not controlled_by(route, picture.model.uid):
        return False
    return network.read_route(route, name).names_observer(name)
