"""RolloutPolicy: reports, once for each edit, whether a policy can be followed and decided in time."""

from __future__ import annotations

import asyncio
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.conditions import ConditionType, with_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import RolloutPolicy, RolloutPolicySpec, RolloutPolicyStatus
from modelwright.core.rollout import policy_lint
from modelwright.core.rollout.policy_lint import Decidability
from modelwright.core.rollout.steps import compile_steps
from modelwright.core.status.readiness import ConditionSummary, build_conditions, set_readiness
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.workers import ReconcileResult
from modelwright.measurement import queries
from modelwright.measurement.json_client import MeasurementError
from modelwright.reconcile.context import Context
from modelwright.reconcile.status_writer import write_status
from modelwright.sandbox.limits import BUSY_RETRY_SECONDS
from modelwright.sandbox.process import SandboxBusy

Object = dict[str, Any]

THREAD_THRESHOLD = 16
"""Metrics times steps from which on decidability is assessed in a thread: each takes some hundredths of a second."""


class RolloutPolicyReconciler:
    """Brings the status of one RolloutPolicy up to date."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._decidability_cache: dict[Key, tuple[tuple[str, int], Decidability]] = {}
        """Policy key -> its uid and generation, and the assessment of that edit."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Reconcile the RolloutPolicy of this key."""
        raw = self._context.store.get(kinds.ROLLOUT_POLICY, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._decidability_cache.pop(key, None)
            return ReconcileResult()
        try:
            policy = RolloutPolicy.parse(raw)
        except InvalidObject as error:
            await self._reject_spec(raw, error)
            return ReconcileResult()
        problems = policy_lint.find_problems(policy.spec)
        try:
            problems = (*problems, *await self._rejected_queries(policy))
        except SandboxBusy:
            return ReconcileResult(BUSY_RETRY_SECONDS)
        summary = (
            ConditionSummary(Reason.INVALID_POLICY, "; ".join(problems), stalled=True)
            if problems
            else ConditionSummary(Reason.POLICY_ACCEPTED, "nothing in it stands against following it")
        )
        decidability = await self._decidability(key, policy)
        now, old = self._context.clock.now(), policy.status
        evidence = policy_lint.evidence_condition(policy.spec, compile_steps(policy.spec.strategy))
        conditions = build_conditions(
            old.conditions, summary, None, evidence=evidence, generation=policy.generation, now=now
        )
        status = RolloutPolicyStatus(
            observed_generation=policy.generation,
            requests_per_second=policy_lint.format_rate(decidability.rate) if decidability.rate is not None else None,
            conditions=with_condition(
                conditions,
                ConditionType.DECIDABLE,
                decidability.decidable,
                decidability.reason,
                decidability.message,
                generation=policy.generation,
                now=now,
            ),
        )
        await write_status(self._context, raw, status, old)
        return ReconcileResult()

    async def _rejected_queries(self, policy: RolloutPolicy) -> list[str]:
        """Why queries will never be sent, each message naming its field. Raises SandboxBusy."""
        rejected, namespace = [], policy.namespace
        for metric in policy.spec.analysis.metrics if policy.spec.analysis is not None else ():
            query = metric.prometheus
            for field in ("query", "bad", "total") if query is not None else ():
                text = getattr(query, field)
                if text is None:
                    continue
                path = f"spec.analysis.metrics[{metric.name}].prometheus.{field}"
                try:
                    text = queries.fill_placeholders(text, dict.fromkeys(queries.PLACEHOLDERS, "x"))
                    if field == "query":
                        await queries.try_parse_query(text, path, namespace, wait=False)
                    else:
                        await queries.extend_selector(text, path, namespace, wait=False)
                except MeasurementError as error:
                    message = error.failure.message
                    rejected.append(message if message.startswith(path) else f"{path}: {message}")
        return rejected

    async def _decidability(self, key: Key, policy: RolloutPolicy) -> Decidability:
        edit = (policy.uid, policy.generation)
        cached_edit, decidability = self._decidability_cache.get(key, (None, None))
        if decidability is None or cached_edit != edit:
            if _plan_size(policy.spec) > THREAD_THRESHOLD:
                decidability = await asyncio.to_thread(policy_lint.assess_decidability, policy.spec)
            else:
                decidability = policy_lint.assess_decidability(policy.spec)
            self._decidability_cache[key] = (edit, decidability)
        return decidability

    async def _reject_spec(self, raw: Object, error: InvalidObject) -> None:
        """Report a spec that this operator can't parse (admission is older or newer than it)."""
        generation = raw["metadata"].get("generation", 0)
        old = RolloutPolicyStatus.model_validate(raw.get("status") or {})
        summary = ConditionSummary(Reason.INVALID_POLICY, error.message, stalled=True)
        conditions = set_readiness(old.conditions, summary, generation=generation, now=self._context.clock.now())
        await write_status(
            self._context,
            raw,
            old.model_copy(update={"observed_generation": generation, "conditions": conditions}),
            old,
        )


def _plan_size(policy: RolloutPolicySpec) -> int:
    return len(policy.analysis.metrics) * len(compile_steps(policy.strategy)) if policy.analysis is not None else 0
