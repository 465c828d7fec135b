"""Creates the Jobs of a rollout's gates, and removes them once their results are recorded."""

from dataclasses import replace
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import gate_results, versions
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.record import RolloutRecord
from modelwright.kube import api_errors, kinds
from modelwright.reconcile import artifact_cache
from modelwright.reconcile.children import BlockedError, ensure, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.model.gate_reports import gate_of_job
from modelwright.reconcile.model.rollout_history import RolloutHistory
from modelwright.reconcile.model.snapshot import ModelSnapshot, RevisionPlan
from modelwright.render import gate_jobs as jobs
from modelwright.render import helper_pod_placement
from modelwright.render.fetch_container import CachedContent
from modelwright.render.strategic_merge import MergeError

Object = dict[str, Any]


async def ensure_gate_job(context: Context, snapshot: ModelSnapshot, gate: str) -> bool:
    """Create the Job of a gate ("scan", "evaluation" or "infra") of the active rollout; return whether it is new.

    An existing one is left as it is: a Job's template is immutable, and an upgraded operator does not restart it.
    Raises BlockedError when it can't be created until a user changes something; else ApiError.
    """
    rollout, record, plan = snapshot.observation.rollout, snapshot.observation.active_record, snapshot.goal.plan
    if rollout is None or record is None or plan is None or record.candidate != plan.revision:
        # The version is gone or another one is wanted: the next reconciliation decides what follows.
        return False
    raw = snapshot.history.raw[record.name]
    gates = rollout.policy.gates
    live = context.store.get(kinds.JOB, snapshot.model.namespace, jobs.job_name(raw, gate))
    if gates is None or (live is not None and is_controlled_by(live, record.uid)):
        return False
    images = helper_pod_placement.with_model_placement(context.images, snapshot.raw)
    try:
        if gate == "infra" and gates.infra is not None:
            pods = await _pod_addresses(context, snapshot, plan.revision) if gates.infra.memory is not None else []
            job = jobs.infra_job(
                raw,
                gates.infra,
                jobs.ProbedCandidate(
                    plan.revision,
                    plan.stored,
                    plan.choice.runtime.spec.protocol,
                    snapshot.model.spec.serving.max_request_seconds,
                    service_account=plan.version.spec.artifact.service_account_name,
                    pods=pods,
                ),
                plan.version.spec.samples,
                images,
            )
        elif gate == "scan" and gates.scan is not None:
            job = jobs.scan_job(raw, gates.scan, plan.revision, _evaluated_candidate(plan), images)
        elif gate == "evaluation" and gates.evaluation is not None:
            serving = (
                _serving_content(context, snapshot, record.from_revision) if record.from_revision is not None else None
            )
            candidate = _with_cache(context, snapshot, plan.version, _evaluated_candidate(plan))
            job = jobs.evaluation_job(
                raw,
                gates.evaluation,
                plan.revision,
                candidate,
                serving,
                images,
                service_account=snapshot.model.spec.serving.service_account_name,
            )
        else:
            return False
    except MergeError as error:
        raise BlockedError(
            Problem(Reason.INVALID_POLICY, _policy_message(record, gate, str(error)), stalled=True)
        ) from error
    try:
        _, is_new = await ensure(context, job)
    except BlockedError as blocked:
        if isinstance(blocked.__cause__, api_errors.Invalid):
            text = _policy_message(record, gate, f"the API server refuses its Job: {blocked.__cause__.message}")
            raise BlockedError(Problem(Reason.INVALID_POLICY, text, stalled=True)) from blocked
        raise
    return is_new


async def remove_spent_jobs(context: Context, history: RolloutHistory) -> bool:
    """Delete the Jobs whose results are recorded; return whether one was deleted.

    A gate that did not pass keeps its Job, so that users can read its log, until there is a newer rollout.
    """
    changed = False
    newest = history.newest
    records = [record for record in (newest, *history.superseded, *history.ended) if record is not None]
    by_uid = {record.uid: record for record in records}
    if newest is None:
        return False
    model = newest.spec.model_ref.name
    for job in context.store.by_model(kinds.JOB, history.raw[newest.name]["metadata"]["namespace"], model):
        record = next((by_uid[uid] for uid in by_uid if is_controlled_by(job, uid)), None)
        if record is not None and not job["metadata"].get("deletionTimestamp") and _is_spent(job, record, newest):
            await remove(context, job)
            changed = True
    return changed


def _is_spent(job: Object, record: RolloutRecord, newest: RolloutRecord) -> bool:
    gate = gate_of_job(job, record)
    if gate is None:
        # It is the Job of a metric.
        return False
    recorded = next((entry for entry in record.status.gates if entry.name == gate), None)
    if recorded is not None and recorded.outcome == Outcome.PASS:
        return True
    if recorded is None and record.is_active:
        return record is not newest
    return record is not newest or not gate_results.has_ended(job)


async def _pod_addresses(context: Context, snapshot: ModelSnapshot, revision: Revision) -> list[str]:
    """The IP addresses of a revision's pods."""
    labels = names.revision_selector(snapshot.model.name, revision.hash)
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    pods = await context.client.list(kinds.POD, snapshot.model.namespace, labels=selector)
    running = (pod for pod in pods if not pod["metadata"].get("deletionTimestamp"))
    return [address for pod in running if (address := pod.get("status", {}).get("podIP"))]


def _serving_content(context: Context, snapshot: ModelSnapshot, source: Revision) -> jobs.EvaluatedContent:
    """The artifact of the serving version, for the comparison. Raises BlockedError when its version is gone."""
    raw = context.store.get(kinds.MODEL_VERSION, snapshot.model.namespace, source.version)
    try:
        version = ModelVersion.parse(raw) if raw is not None else None
    except InvalidObject:
        version = None
    digest = None
    if version is not None:
        resolved = version.status.artifact.digest if version.status.artifact is not None else None
        digest = versions.pinned_digest(version.spec.artifact, resolved)
    if version is None or digest is None:
        text = (
            f"the evaluation gate compares with ModelVersion {source.version}, which serves and can't be read any "
            "more: create it again, or promote or abort the rollout"
        )
        raise BlockedError(Problem(Reason.VERSION_NOT_FOUND, text, stalled=True))
    return _with_cache(context, snapshot, version, jobs.EvaluatedContent(version.name, version.spec.artifact, digest))


def _with_cache(
    context: Context, snapshot: ModelSnapshot, version: ModelVersion, content: jobs.EvaluatedContent
) -> jobs.EvaluatedContent:
    """The content as the evaluation reads it: from the cache, where serving pods may not fetch either.

    Raises BlockedError while the cache lacks it.
    """
    serving = snapshot.model.spec.serving
    claim = artifact_cache.prefetch_claim(serving)
    if claim is None:
        return content
    problem = artifact_cache.cache_problem(context, serving, version)
    if problem is not None:
        raise BlockedError(problem)
    return replace(
        content,
        cached=CachedContent(claim, artifact_cache.build_proof(snapshot.raw, version, content.digest, context.images)),
    )


def _evaluated_candidate(plan: RevisionPlan) -> jobs.EvaluatedContent:
    return jobs.EvaluatedContent(plan.version.name, plan.version.spec.artifact, plan.digest)


def _policy_message(record: RolloutRecord, gate: str, text: str) -> str:
    policy = record.status.policy
    return f"gate {gate} of RolloutPolicy {policy.name if policy is not None else ''}: {text}"
