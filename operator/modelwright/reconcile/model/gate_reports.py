"""Reads the results of a rollout's gates from their Jobs and pods."""

import functools
from datetime import datetime, timedelta
from typing import Any

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.core import gate_results, pod_failures, pod_trust
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.problem import Problem
from modelwright.core.rollout.record import RolloutRecord
from modelwright.kube import api_errors, kinds
from modelwright.obs.read_child import read_child
from modelwright.reconcile.children import is_controlled_by
from modelwright.reconcile.context import Context
from modelwright.render import gate_jobs as jobs

Object = dict[str, Any]

POD_READ_DELAY = timedelta(seconds=20)
"""How old a Job without a ready pod is before its pods are read: most start sooner, and reading costs a request."""


async def read_results(context: Context, record: RolloutRecord, policy: RolloutPolicySpec) -> dict[str, GateResult]:
    """Read the results of ended gates that the record does not have yet, by gate.

    Reads no pods while a Job has a ready one. Results that can't be read now are left to the next reconciliation.
    Nothing counts while others could have forged it: see `untrusted_problem`.
    """
    gates, results = policy.gates, dict[str, GateResult]()
    if gates is None or not record.is_active:
        return results
    recorded = {entry.name for entry in record.status.gates}
    now = context.clock.now()
    for job in context.store.by_owner(kinds.JOB, record.uid):
        gate = gate_of_job(job, record)
        if gate is None or gate in recorded or job["metadata"].get("deletionTimestamp"):
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
            results[gate] = GateResult(Outcome.ERROR, Reason.QUOTA_EXCEEDED, text)
            continue
        trusted = pod_trust.trust_job_pods(job, pods)
        result = read_child(
            job,
            functools.partial(
                gate_results.read_gate_result,
                job,
                trusted.pods,
                gate,
                gates,
                first=record.from_revision is None,
                now=now,
                unheard=trusted.refusal_text,
            ),
            lambda text: GateResult(Outcome.ERROR, Reason.INTERNAL_ERROR, text),
        )
        if result is not None:
            results[gate] = result
    return results


def untrusted_problem(context: Context, namespace: str) -> Problem | None:
    """Why no report of a Job counts in a namespace now: others may be able to create pods that pass for the Job's."""
    admission = context.admission(namespace)
    if admission.in_force:
        return None
    text = admission.problem or "whether the admission policies are in force is being checked"
    return Problem(Reason.ADMISSION_POLICY_MISSING, text, stalled=admission.in_force is False)


def gate_of_job(job: Object, record: RolloutRecord) -> str | None:
    """The gate of the record that a Job runs; None for other Jobs."""
    owner = {"metadata": {"name": record.name, "uid": record.uid}}
    return next(
        (gate for gate in gate_results.JOB_GATES if jobs.job_name(owner, gate) == job["metadata"]["name"]), None
    )


def _pod_selector(job: Object) -> str:
    return f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"


def _should_have_pods(job: Object, now: datetime) -> bool:
    """Whether a Job without pods should have had one since START_TIMEOUT."""
    is_inactive = job["spec"].get("suspend") or gate_results.has_ended(job)
    return not is_inactive and gate_results.is_stuck(job, now, gate_results.START_TIMEOUT)


async def _quota_problem(context: Context, job: Object) -> str | None:
    """Why a quota refuses the pod of a Job; None when none does.

    Only Events of the Job controller say so, which the operator may not read: it has the API server check such a pod by
    a dry run instead.
    """
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
        message = error.message.partition(" is forbidden: ")[2] or error.message
        return pod_failures.explain_quota_refusal(message, pod_failures.HELPER_RESOURCES_HINT)
    except api_errors.Invalid:
        return None
    return None
