"""The Jobs of a rollout's gates: made, read once they have ended, and taken away."""

import functools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import gate_results, pod_trust, versions
from modelwright.core import pod_failures as pod_states
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.record import RolloutRecord
from modelwright.kube import api_errors, kinds
from modelwright.obs.read_child import read_child
from modelwright.reconcile import artifact_cache
from modelwright.reconcile.children import BlockedError, ensure, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.rollout_records import RolloutHistory
from modelwright.reconcile.snapshot import ModelSnapshot, RevisionPlan
from modelwright.render import gate_jobs as jobs
from modelwright.render import helper_pod_placement
from modelwright.render.fetch_container import CachedContent
from modelwright.render.strategic_merge import MergeError

Object = dict[str, Any]

POD_READ_DELAY = timedelta(seconds=20)
"""How old a Job without a ready pod is before its pods are read: most start sooner, and reading costs a request."""


async def ensure_gate_job(context: Context, picture: ModelSnapshot, gate: str) -> bool:
    """Have the Job of this gate ("scan", "evaluation" or "infra") of the live rollout; whether it had to be made.

    One that is there is left as it is: a Job's template can't be changed, and a new operator does not start it anew.
    Raises Refused when it can't be made until somebody changes something; else ApiError.
    """
    rolling, record, plan = picture.observation.rollout, picture.observation.active_record, picture.plan
    if rolling is None or record is None or plan is None or record.candidate != plan.revision:
        # The version is gone or another one is wanted: the next pass decides what that means.
        return False
    raw = picture.history.raw[record.name]
    wanted = rolling.policy.gates
    there = context.store.get(kinds.JOB, picture.model.namespace, jobs.job_name(raw, gate))
    if wanted is None or (there is not None and is_controlled_by(there, record.uid)):
        return False
    images = helper_pod_placement.with_model_placement(context.images, picture.raw)
    try:
        if gate == "infra" and wanted.infra is not None:
            pods = await _pod_addresses(context, picture, plan.revision) if wanted.infra.memory is not None else []
            job = jobs.infra_job(
                raw,
                wanted.infra,
                jobs.ProbedCandidate(
                    plan.revision,
                    plan.stored,
                    plan.choice.runtime.spec.protocol,
                    picture.model.spec.serving.max_request_seconds,
                    service_account=plan.version.spec.artifact.service_account_name,
                    pods=pods,
                ),
                plan.version.spec.samples,
                images,
            )
        elif gate == "scan" and wanted.scan is not None:
            job = jobs.scan_job(raw, wanted.scan, plan.revision, _candidate_content(plan), images)
        elif gate == "evaluation" and wanted.evaluation is not None:
            serving = (
                _serving_content(context, picture, record.from_revision) if record.from_revision is not None else None
            )
            candidate = _with_cache(context, picture, plan.version, _candidate_content(plan))
            job = jobs.evaluation_job(
                raw,
                wanted.evaluation,
                plan.revision,
                candidate,
                serving,
                images,
                service_account=picture.model.spec.serving.service_account_name,
            )
        else:
            return False
    except MergeError as error:
        raise BlockedError(
            Problem(Reason.INVALID_POLICY, _policy_message(record, gate, str(error)), stalled=True)
        ) from error
    try:
        _, made = await ensure(context, job)
    except BlockedError as refused:
        if isinstance(refused.__cause__, api_errors.Invalid):
            text = _policy_message(record, gate, f"the API server refuses its Job: {refused.__cause__.message}")
            raise BlockedError(Problem(Reason.INVALID_POLICY, text, stalled=True)) from refused
        raise
    return made


async def read_results(context: Context, record: RolloutRecord, policy: RolloutPolicySpec) -> dict[str, GateResult]:
    """What gates of this record came to that have ended and that it does not tell of yet, by gate.

    Costs nothing while a Job has a ready pod. What can't be read now is left out, and read by the next pass. Nothing
    counts while anybody might have forged it: see `unproven`.
    """
    wanted, found = policy.gates, {}
    if wanted is None or not record.is_active:
        return {}
    known = {entry.name for entry in record.status.gates}
    now = context.clock.now()
    for job in context.store.by_owner(kinds.JOB, record.uid):
        gate = _gate_of_job(job, record)
        if gate is None or gate in known or job["metadata"].get("deletionTimestamp"):
            continue
        if not is_controlled_by(job, record.uid) or not context.admission(job["metadata"]["namespace"]).in_force:
            continue
        if not gate_results.has_ended(job) and not gate_results.is_stuck(job, now, POD_READ_DELAY):
            continue
        try:
            pods = await context.client.list(kinds.POD, job["metadata"]["namespace"], labels=_pod_selector(job))
            problem = await _quota_problem(context, job) if not pods and _should_have_pods(job, now) else None
        except api_errors.ApiError:
            continue
        if problem is not None:
            text = f"Job {job['metadata']['name']} can't have a pod: {problem}"
            found[gate] = GateResult(Outcome.ERROR, Reason.QUOTA_EXCEEDED, text)
            continue
        heard = pod_trust.trust_job_pods(job, pods)
        result = read_child(
            job,
            functools.partial(
                gate_results.read_gate_result,
                job,
                heard.pods,
                gate,
                wanted,
                first=record.from_revision is None,
                now=now,
                unheard=heard.refusal_text,
            ),
            lambda text: GateResult(Outcome.ERROR, Reason.INTERNAL_ERROR, text),
        )
        if result is not None:
            found[gate] = result
    return found


def untrusted_problem(context: Context, namespace: str) -> Problem | None:
    """Why no report of a Job counts there now: others may be able to make pods that pass for the Job's."""
    admission = context.admission(namespace)
    if admission.in_force:
        return None
    text = admission.problem or "whether the admission policies are in force is being found out"
    return Problem(Reason.ADMISSION_POLICY_MISSING, text, stalled=admission.in_force is False)


async def remove_spent_jobs(context: Context, found: RolloutHistory) -> bool:
    """Delete Jobs that nobody needs any more, by what is written down of their records; whether one was deleted.

    A gate that did not pass keeps its Job, for people to read its log, until there is a newer rollout.
    """
    changed = False
    newest = found.newest
    records = [record for record in (newest, *found.superseded, *found.ended) if record is not None]
    by_uid = {record.uid: record for record in records}
    if newest is None:
        return False
    model = newest.spec.model_ref.name
    for job in context.store.by_model(kinds.JOB, found.raw[newest.name]["metadata"]["namespace"], model):
        record = next((by_uid[uid] for uid in by_uid if is_controlled_by(job, uid)), None)
        if record is not None and not job["metadata"].get("deletionTimestamp") and _is_spent(job, record, newest):
            await remove(context, job)
            changed = True
    return changed


def _is_spent(job: Object, record: RolloutRecord, newest: RolloutRecord) -> bool:
    gate = _gate_of_job(job, record)
    if gate is None:
        # A metric's Job.
        return False
    told = next((entry for entry in record.status.gates if entry.name == gate), None)
    if told is not None and told.outcome == Outcome.PASS:
        return True
    if told is None and record.is_active:
        return record is not newest
    return record is not newest or not gate_results.has_ended(job)


def _gate_of_job(job: Object, record: RolloutRecord) -> str | None:
    """Which gate of the record a Job is for."""
    owner = {"metadata": {"name": record.name, "uid": record.uid}}
    return next(
        (gate for gate in gate_results.JOB_GATES if jobs.job_name(owner, gate) == job["metadata"]["name"]), None
    )


def _pod_selector(job: Object) -> str:
    return f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"


def _should_have_pods(job: Object, now: datetime) -> bool:
    """Whether a Job without pods ought to have had one for START_PATIENCE."""
    asleep = job["spec"].get("suspend") or gate_results.has_ended(job)
    return not asleep and gate_results.is_stuck(job, now, gate_results.START_TIMEOUT)


async def _quota_problem(context: Context, job: Object) -> str | None:
    """Why a quota refuses the pod of a Job; None when none does. Only Events of the Job's controller say so, which the
    operator may not read: so it has the API server check such a pod, and store none."""
    template, metadata = job["spec"]["template"], job["metadata"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.cut_with_hash(f"{metadata['name']}-check", names.LABEL_VALUE_MAX, metadata["uid"]),
            "namespace": metadata["namespace"],
            "labels": template["metadata"].get("labels", {}),
        },
        "spec": template["spec"],
    }
    try:
        await context.client.create(pod, dry_run=True)
    except api_errors.Denied as error:
        said = error.message.partition(" is forbidden: ")[2] or error.message
        return pod_states.explain_quota_refusal(said, pod_states.HELPER_RESOURCES_HINT)
    except api_errors.Invalid:
        return None
    return None


async def _pod_addresses(context: Context, picture: ModelSnapshot, revision: Revision) -> list[str]:
    """Addresses of the pods of a revision."""
    labels = names.revision_selector(picture.model.name, revision.hash)
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    pods = await context.client.list(kinds.POD, picture.model.namespace, labels=selector)
    living = (pod for pod in pods if not pod["metadata"].get("deletionTimestamp"))
    return [address for pod in living if (address := pod.get("status", {}).get("podIP"))]


def _serving_content(context: Context, picture: ModelSnapshot, source: Revision) -> jobs.EvaluatedContent:
    """The artifact of what serves, for the comparison. Raises Refused when that can't be had any more."""
    raw = context.store.get(kinds.MODEL_VERSION, picture.model.namespace, source.version)
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
    return _with_cache(context, picture, version, jobs.EvaluatedContent(version.name, version.spec.artifact, digest))


def _with_cache(
    context: Context, picture: ModelSnapshot, version: ModelVersion, content: jobs.EvaluatedContent
) -> jobs.EvaluatedContent:
    """The content as the evaluation gets it: what loads a model doesn't fetch where what serves doesn't. Raises Refused
    while it isn't in the cache."""
    serving = picture.model.spec.serving
    claim = artifact_cache.prefetch_claim(serving)
    if claim is None:
        return content
    absent = artifact_cache.cache_problem(context, serving, version)
    if absent is not None:
        raise BlockedError(absent)
    return replace(
        content,
        cached=CachedContent(claim, artifact_cache.build_proof(picture.raw, version, content.digest, context.images)),
    )


def _candidate_content(plan: RevisionPlan) -> jobs.EvaluatedContent:
    return jobs.EvaluatedContent(plan.version.name, plan.version.spec.artifact, plan.digest)


def _policy_message(record: RolloutRecord, gate: str, text: str) -> str:
    policy = record.status.policy
    return f"gate {gate} of RolloutPolicy {policy.name if policy is not None else ''}: {text}"
