"""The drift monitor of a Model, which runs while the serving version has a reference sample.

It gets copies of requests only while its pod is ready. Nothing here delays serving: problems are reported by the
condition Monitored alone.
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
from modelwright.reconcile.children import BlockedError, ensure, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import mirror_tokens
from modelwright.reconcile.model.snapshot import ModelSnapshot
from modelwright.render import drift_monitor_pod, helper_pod_placement, routes
from modelwright.render.fetch_container import is_only_cached
from modelwright.render.mirror_target import MirrorSettings
from modelwright.traffic.port import TrafficRequirements

Object = dict[str, Any]


def mirror_percent(context: Context, snapshot: ModelSnapshot) -> int:
    """Percent of the requests to copy now: none before the drift monitor's pod is ready for the serving revision."""
    wanted = _wanted_deployment(context, snapshot)
    monitoring = snapshot.model.spec.monitoring
    if (
        monitoring is None
        or not isinstance(wanted, dict)
        or not drift_monitor_pod.is_monitor_ready(_live_deployment(context, snapshot), wanted)
    ):
        return 0
    return monitoring.mirror_percent


def observer_token(context: Context, snapshot: ModelSnapshot) -> str:
    """The token of the copies of the serving revision's requests; empty while nothing serves."""
    serving = snapshot.observation.serving
    return (
        mirror_tokens.mirror_token(context, snapshot, names.ROLE_OBSERVER, [serving.revision])
        if serving is not None
        else ""
    )


async def ensure_observer(context: Context, snapshot: ModelSnapshot) -> tuple[bool, Problem | None]:
    """Create, repair or remove the drift monitor; return whether anything was written, and why it can't be had.

    It is left alone while the Model is suspended, and is removed only once no route names it.
    """
    if snapshot.observation.suspended:
        return False, None
    wanted, live = _wanted_deployment(context, snapshot), _live_deployment(context, snapshot)
    if isinstance(wanted, dict):
        changed = False
        if live is not None and not drift_monitor_pod.is_same_monitor(live, wanted) and _is_routed(context, snapshot):
            # During a step of a rollout the route stays as it is: the other pod waits for its end.
            return False, None
        try:
            for manifest in (drift_monitor_pod.monitor_service(snapshot.raw), wanted):
                _, written = await ensure(context, manifest)
                changed |= written
        except BlockedError as blocked:
            return changed, blocked.problem
        return changed, None
    name, changed = names.observer_name(snapshot.model.name), False
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE):
        child = context.store.get(kind, snapshot.model.namespace, name)
        if child is not None and is_controlled_by(child, snapshot.model.uid) and not _is_routed(context, snapshot):
            await remove(context, child)
            changed = True
    return changed, None


def monitored_condition(
    context: Context, snapshot: ModelSnapshot, ensure_problem: Problem | None
) -> tuple[bool, Reason, str] | None:
    """The condition Monitored; None without monitoring. `ensure_problem`: returned by `ensure_observer`."""
    monitoring = snapshot.model.spec.monitoring
    if monitoring is None:
        return None
    wanted, name = _wanted_deployment(context, snapshot), names.observer_name(snapshot.model.name)
    problem = wanted if isinstance(wanted, Problem) else ensure_problem
    if problem is not None:
        return False, Reason(problem.reason), problem.message
    live = _live_deployment(context, snapshot)
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


def read_drift(context: Context, snapshot: ModelSnapshot) -> DriftStatus | None:
    """The drift that the monitor reports; None without a monitor, or before its first report.

    While its pod isn't ready, the status keeps the last report on the serving version.
    """
    model, serving, old = snapshot.model, snapshot.observation.serving, snapshot.model.status.drift
    key, wanted = Key("Model", model.namespace, model.name), _wanted_deployment(context, snapshot)
    if serving is None or not isinstance(wanted, dict):
        forget_observer(context, key)
        return None
    version = serving.revision.version
    last = old if old is not None and old.version == version else None
    if context.observers is None:
        return last
    if not drift_monitor_pod.is_monitor_ready(_live_deployment(context, snapshot), wanted):
        forget_observer(context, key)
        return last
    return context.observers.sync_model(key, version, last)


def forget_observer(context: Context, model: Key) -> None:
    """Stop polling the drift monitor of this Model."""
    if context.observers is not None:
        context.observers.forget_model(model)


def _wanted_deployment(context: Context, snapshot: ModelSnapshot) -> Object | Problem | None:
    """The monitor's Deployment as it should be, or why there can be none; None without monitoring."""
    model, serving = snapshot.model, snapshot.observation.serving
    if model.spec.monitoring is None:
        return None
    unsupported = snapshot.routing.router.list_unsupported_needs(
        snapshot.routing.objects, TrafficRequirements(observe_percent=model.spec.monitoring.mirror_percent)
    )
    if unsupported:
        return Problem(Reason.MONITORING_NOT_SUPPORTED, "; ".join(unsupported))
    if serving is None:
        return Problem(Reason.NOTHING_SERVING, "no revision has served yet")
    version = _read_version(context, snapshot, serving.revision.version)
    if version is None or version.spec.reference is None:
        text = "has no spec.reference; give one to the next version" if version is not None else "is not there any more"
        return Problem(Reason.NO_REFERENCE, f"ModelVersion {serving.revision.version} {text}")
    stored = snapshot.stored_template(serving.revision.hash)
    sample = drift_monitor_pod.reference_source(version.spec.reference, version.spec.artifact)
    account = sample.service_account_name
    if stored is not None and not is_only_cached(stored["data"]["template"]):
        account = stored["data"]["template"]["spec"].get("serviceAccountName")
    return drift_monitor_pod.monitor_deployment(
        snapshot.raw,
        serving.revision,
        sample,
        model.spec.monitoring,
        helper_pod_placement.with_model_placement(context.images, snapshot.raw),
        MirrorSettings(
            token=observer_token(context, snapshot),
            request_seconds=model.spec.serving.max_request_seconds,
            service_account=account,
        ),
    )


def _read_version(context: Context, snapshot: ModelSnapshot, name: str) -> ModelVersion | None:
    raw = context.store.get(kinds.MODEL_VERSION, snapshot.model.namespace, name)
    try:
        return ModelVersion.parse(raw) if raw is not None else None
    except InvalidObject:
        return None


def _live_deployment(context: Context, snapshot: ModelSnapshot) -> Object | None:
    return context.store.get(kinds.DEPLOYMENT, snapshot.model.namespace, names.observer_name(snapshot.model.name))


def _is_routed(context: Context, snapshot: ModelSnapshot) -> bool:
    """Whether the live route copies requests to the drift monitor."""
    name = snapshot.model.name
    route = context.store.get(kinds.HTTP_ROUTE, snapshot.model.namespace, name)
    if route is None or not is_controlled_by(route, snapshot.model.uid):
        return False
    return routes.read_route(route, name).names_observer(name)
