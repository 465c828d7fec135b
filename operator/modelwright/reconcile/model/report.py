"""Reports on a Model: its status, Events and metrics."""

from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import AnnouncedStatus, Model, ModelStatus
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core import endpoint_conflicts, versions
from modelwright.core.problem import Problem
from modelwright.core.rollout.decision import Assessment
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.status import drift_status, readiness
from modelwright.core.status.model_status import ModelStatusInput, build_model_status, summarize_model
from modelwright.core.status.readiness import ConditionSummary
from modelwright.kube import kinds
from modelwright.kube.events import EventRecorder
from modelwright.kube.queue import Key
from modelwright.reconcile import watches
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import drift_monitor, metric_updates
from modelwright.reconcile.model.snapshot import ModelSnapshot
from modelwright.reconcile.status_writer import write_status

Object = dict[str, Any]

PROGRESS_DELAY_SECONDS, BUSY_PROGRESS_DELAY_SECONDS = 3.0, 30.0
"""How long a status that only reports progress waits, so that one write reports what follows too: usually, and while
many objects are being reconciled."""


class ModelReporter:
    """Writes the status of Models, with the Events and metrics that belong to it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deferred_since: dict[str, float] = {}
        """Model uid -> since when a status that only reports progress waits, by the monotonic clock."""

    def forget(self, uid: str) -> None:
        """Forget a Model that is gone."""
        self._deferred_since.pop(uid, None)

    async def report_status(
        self,
        snapshot: ModelSnapshot,
        observation: Observation,
        assessment: Assessment,
        monitoring_problem: Problem | None,
    ) -> float | None:
        """Write the status. Returns the seconds until a deferred status is due, None when it wasn't deferred.

        `observation`: that of the snapshot, with the problem that acting met. `assessment`: the state of its rollout.
        """
        model, old = snapshot.model, snapshot.model.status
        summary = summarize_model(observation, assessment, old)
        drift = drift_monitor.read_drift(self._context, snapshot)
        plan = snapshot.goal.plan
        status_input = ModelStatusInput(
            model=model,
            observation=observation,
            assessment=assessment,
            summary=summary,
            target=plan.revision if plan is not None else None,
            target_version=_target_version(snapshot),
            choice=plan.choice if plan is not None else None,
            outdated=plan.outdated if plan is not None else None,
            url=_model_url(snapshot, observation, old.url),
            announced=_latest_trained(self._context, model),
            drift=drift if drift_status.is_worth_writing(old.drift, drift) else old.drift,
            monitored=drift_monitor.monitored_condition(self._context, snapshot, monitoring_problem),
            endpoint=_endpoint_condition(snapshot),
        )
        status = build_model_status(status_input)
        metric_updates.record_model(
            model.namespace, model.name, status, observation.active_record, snapshot.analysis.verdicts
        )
        if readiness.reports_progress_only(old, status):
            now = self._context.clock.monotonic()
            delay = BUSY_PROGRESS_DELAY_SECONDS if self._context.is_busy() else PROGRESS_DELAY_SECONDS
            due = self._deferred_since.setdefault(model.uid, now) + delay
            if due > now:
                return due - now
        self._deferred_since.pop(model.uid, None)
        if status != old:
            # The status is written anyway, so it takes the latest numbers along.
            status = status.model_copy(update={"drift": drift})
        if await write_status(self._context, snapshot.raw, status, old):
            self._emit_events(snapshot.raw, old, status, summary)
            if status.serving != old.serving:
                self._enqueue_runs(model, old, status)
        return None

    async def reject_spec(self, raw: Object, error: InvalidObject) -> None:
        """Report a spec that this operator can't parse (admission is older or newer than it); touch nothing else."""
        metadata = raw["metadata"]
        old = ModelStatus.model_validate(raw.get("status") or {})
        summary = ConditionSummary(Reason.INVALID_SPEC, error.message, stalled=True)
        generation = metadata.get("generation", 0)
        conditions = readiness.set_readiness(
            old.conditions, summary, generation=generation, now=self._context.clock.now()
        )
        status = old.model_copy(update={"observed_generation": generation, "conditions": conditions})
        metric_updates.record_model(metadata["namespace"], metadata["name"], status, None, ())
        if await write_status(self._context, raw, status, old):
            self._emit_events(raw, old, status, summary)

    async def acknowledge_edit(self, raw: Object, model: Model) -> None:
        """Report that an edit was observed, by one write where a reconciliation takes several.

        Its author gets an answer at once, however many other edits are queued.
        """
        conditions = readiness.acknowledge_edit(
            model.status.conditions, generation=model.generation, now=self._context.clock.now()
        )
        changes = {"observed_generation": model.generation, "conditions": conditions, "failure": None}
        await write_status(self._context, raw, model.status.model_copy(update=changes), model.status)
        self._context.enqueue(Key("Model", model.namespace, model.name))

    def _enqueue_runs(self, model: Model, old: ModelStatus, new: ModelStatus) -> None:
        """Enqueue the TrainingRuns of the versions that serve and served: they report the outcome of their versions."""
        for version in {served.version for served in (old.serving, new.serving) if served is not None}:
            for key in watches.producing_run(self._context.store.get(kinds.MODEL_VERSION, model.namespace, version)):
                self._context.enqueue(key)

    def _emit_events(self, raw: Object, old: ModelStatus, new: ModelStatus, summary: ConditionSummary) -> None:
        """Record transitions: which version serves, and what a user must act on."""
        events = self._context.events
        if new.serving is not None and (old.serving is None or old.serving.revision != new.serving.revision):
            before = f" (before: {old.serving.version})" if old.serving else ""
            events.record(raw, "Normal", Reason.SERVING, f"version {new.serving.version} takes all traffic{before}")
        if new.announced is not None and new.announced != old.announced:
            note = (
                f"ModelVersion {new.announced.version} was made by TrainingRun {new.announced.training_run}; it serves "
                "once spec.version names it"
            )
            events.record(raw, "Normal", Reason.VERSION_ANNOUNCED, note)
        stalled = (entry for entry in old.conditions if entry.type == "Stalled" and entry.status == "True")
        old_reason = next((entry.reason for entry in stalled), None)
        if summary.stalled and summary.reason != old_reason:
            events.record(raw, "Warning", summary.reason, summary.message)


def emit_rollout_event(events: EventRecorder, raw: Object, old: RolloutRecord, new: RolloutRecord) -> None:
    """Record a transition of the Model's rollout. `raw`: the Model."""
    if new.state is old.state and old.status.state is not None:
        return
    is_bad = new.state in (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.ABORTED)
    version = new.candidate.version if new.candidate is not None else new.spec.target.version
    note = f"rollout {new.name} to {version}: {new.state}: {new.status.message}"
    events.record(raw, "Warning" if is_bad else "Normal", new.status.reason or str(new.state), note)


def _latest_trained(context: Context, model: Model) -> AnnouncedStatus | None:
    """The newest version that a TrainingRun has made since the version that spec.version names."""
    source = model.spec.version
    name = source.name or versions.generated_name(model.name, source)
    wanted = context.store.get(kinds.MODEL_VERSION, model.namespace, name) if name else None
    if wanted is None:
        return None
    # The newest one decides: the others are older, and a Model may have many.
    places = watches.eligible_trained_versions(context.store, model.namespace, model.name)[:1]
    newest = [raw for place in places if (raw := context.store.get(kinds.MODEL_VERSION, *place)) is not None]
    trained = versions.newest_trained(model.name, wanted, newest)
    if trained is None:
        return None
    return AnnouncedStatus(version=trained["metadata"]["name"], training_run=trained["spec"]["lineage"]["trainingRun"])


def _target_version(snapshot: ModelSnapshot) -> str | None:
    version = snapshot.goal.version_to_create
    return snapshot.model.spec.version.name or (version.name if version is not None else None)


def _endpoint_condition(snapshot: ModelSnapshot) -> tuple[bool, Reason, str] | None:
    """The condition EndpointApplied; None when the endpoint requires nothing that a gateway may lack."""
    endpoint = snapshot.model.spec.endpoint
    if endpoint is None or (endpoint.request_timeout is None and not endpoint.filters):
        return None
    unsupported = snapshot.routing.router.list_unsupported_settings(snapshot.routing.objects)
    if unsupported:
        return False, Reason.ENDPOINT_NOT_SUPPORTED, "; ".join(unsupported)
    hint = endpoint_conflicts.describe_short_timeout(endpoint, snapshot.model.spec.serving.max_request_seconds)
    return True, Reason.ENDPOINT_APPLIED, hint or "the route has what spec.endpoint asks for"


def _model_url(snapshot: ModelSnapshot, observation: Observation, before: str | None) -> str | None:
    """The URL of the endpoint once it is programmed, else the one inside the cluster; None while nothing serves."""
    if observation.serving is None:
        return None
    endpoint_url = snapshot.routing.router.resolve_url(snapshot.routing.objects)
    if endpoint_url is not None and (observation.traffic.confirmed or endpoint_url == before):
        return endpoint_url
    metadata = snapshot.raw["metadata"]
    return f"http://{metadata['name']}.{metadata['namespace']}.svc"
