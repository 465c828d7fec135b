"""ModelVersion: pins the artifact's digest, has its signature verified, and keeps status and stage."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from modelwright.api import names, reasons
from modelwright.api.common import InvalidObject
from modelwright.api.conditions import ConditionType, find_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Signatures
from modelwright.api.v1alpha1.version import (
    ArtifactStatus,
    ModelVersion,
    ModelVersionStatus,
    SignatureStatus,
    VersionFailure,
)
from modelwright.core import pod_failures, pod_trust, signatures, versions
from modelwright.core.resolve_queue import RANK_OTHER, RANK_STARTING, RANK_WANTED, ResolveTicket
from modelwright.core.status.readiness import ConditionSummary, build_conditions
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.workers import ReconcileResult
from modelwright.obs.read_child import read_child
from modelwright.reconcile import artifact_cache, watches
from modelwright.reconcile.children import BlockedError, ensure, has_other_placement, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import rollout_history
from modelwright.reconcile.status_writer import write_status
from modelwright.render import helper_pod_placement
from modelwright.render.fetch_container import FETCH_CONTAINER, CachedContent, fill_pod, resolve_pod

Object = dict[str, Any]

POLL_POD_SECONDS = 10.0
POLL_TURN_SECONDS = 60.0
"""Seconds between reconciliations of a version with many ahead in the queue; it is enqueued when its turn comes."""
MAX_RESTARTS = 7
"""Failed starts of a container before its pod is removed: some 15 minutes, as the kubelet waits between them."""
REFILL_TRUST_SECONDS = 300.0
"""Seconds that a refilled cache counts as filled, despite pods' reports: the kubelet waits at most that long before it
restarts a container, which then reads the refilled cache."""
CRASH_RETRY_SECONDS = 3600.0
"""Seconds until another resolve pod is created then."""
TOLERATED_LOSSES = 3
"""Resolve pods in a row that may disappear, as nodes do, before an Event reports it and the next one waits."""
MAX_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ResolvedContent:
    """A version's resolved content, with the conditions to report about it."""

    artifact: ArtifactStatus | None
    verdict: ConditionSummary
    signature: SignatureStatus | None = None
    requeue_after: float | None = None
    """Seconds until the next reconciliation, where no watch event would start one."""


@dataclass(slots=True)
class _ResolveAttempts:
    """The history of a version's resolve pods in this process. Times are of the monotonic clock."""

    pod_hash: str
    """Hash of the pod as it is rendered."""
    pod_uid: str = ""
    """uid of the pod that was created last."""
    distrust: str = ""
    """Why that pod is not trusted: admission has changed it."""
    losses: int = 0
    """Pods in a row that disappeared, or were replaced, before they reported anything."""
    has_rested: bool = False
    """Whether one was removed because it kept failing."""
    not_before: float = 0.0


class ModelVersionReconciler:
    """Brings one ModelVersion a step further per reconciliation."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._attempts: dict[Key, _ResolveAttempts] = {}
        """By version, while it has something to resolve."""
        self._filled_claims: dict[Key, tuple[str, float]] = {}
        """The claim whose cache this process filled last with a version, and until when pods that miss it there are not
        trusted."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Reconcile the ModelVersion of this key."""
        raw = self._context.store.get(kinds.MODEL_VERSION, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._attempts.pop(key, None)
            self._filled_claims.pop(key, None)
            self._context.cache_requests.pop(key, None)
            self._context.turns.leave_queue(key.namespace, key.kind, key.name)
            self._enqueue_next(key.namespace, None)
            return ReconcileResult()
        try:
            version = ModelVersion.parse(raw)
        except InvalidObject as error:
            return await self._reject_spec(raw, error)
        required = self._requested_signatures(version)
        content = await self._resolve_content(raw, version, required)
        self._enqueue_next(key.namespace, content)
        old, verdict = version.status, content.verdict
        failure = VersionFailure(reason=verdict.reason, message=verdict.message) if verdict.stalled else None
        status = ModelVersionStatus(
            observed_generation=version.generation,
            artifact=content.artifact,
            signature=content.signature,
            stage=rollout_history.failed_stage(self._context, key.namespace, version.spec.model_ref.name, version.name),
            failure=failure,
            conditions=build_conditions(
                old.conditions,
                verdict,
                None,
                verified=_verified_condition(content.signature) if required is not None else None,
                generation=version.generation,
                now=self._context.clock.now(),
            ),
        )
        if _needs_no_status(raw, version, status):
            return ReconcileResult()
        news = (status.artifact, status.signature, failure) != (old.artifact, old.signature, old.failure)
        if await write_status(self._context, raw, status, old):
            if news:
                self._context.enqueue(Key("Model", key.namespace, version.spec.model_ref.name))
            if version.spec.lineage is not None and version.spec.lineage.training_run and status.stage != old.stage:
                # The run reports the outcome of its version, and its policy counts versions that were rolled back.
                self._context.enqueue(Key("TrainingRun", key.namespace, version.spec.lineage.training_run))
            self._emit_events(raw, old, status)
            if status.artifact is not None and self._live_resolve_pod(version) is not None:
                # The pod's result is stored now: the next reconciliation removes it.
                self._context.enqueue(key)
        return ReconcileResult(content.requeue_after or (POLL_POD_SECONDS if verdict.reconciling else None))

    def _requested_signatures(self, version: ModelVersion) -> Signatures | None:
        """The signatures that the version's Model requires."""
        requested = (self._raw_model(version).get("spec") or {}).get("signatures")
        try:
            return Signatures.model_validate(requested) if requested is not None else None
        except ValidationError:
            # The Model itself is rejected for that, and no version of it is rolled out.
            return None

    def _raw_model(self, version: ModelVersion) -> Object:
        return self._context.store.get(kinds.MODEL, version.namespace, version.spec.model_ref.name) or {}

    def _emit_events(self, raw: Object, old: ModelVersionStatus, new: ModelVersionStatus) -> None:
        before, after = (find_condition(status.conditions, ConditionType.VERIFIED) for status in (old, new))
        old_reason = before.reason if before is not None else None
        if after is not None and after.status == "False" and after.reason != old_reason:
            self._context.events.record(raw, "Warning", after.reason, after.message)

    async def _resolve_content(
        self, raw: Object, version: ModelVersion, required: Signatures | None
    ) -> ResolvedContent:
        """Find the digest in the spec, in the status, or by a resolve pod, which verifies the signature too."""
        known = version.status.artifact
        digest = signatures.known_digest(version.spec.artifact, known.digest if known else None, required)
        pinned = None
        if digest is not None:
            pinned = known if known is not None and known.digest == digest else ArtifactStatus(digest=digest)
        signed = signatures.recall_finding(required, digest, version.status.signature) if required is not None else None
        live = self._live_resolve_pod(version)
        tree = artifact_cache.needs_tree_digest(
            self._raw_model(version), version.spec.artifact, digest, self._context.images
        )
        if pinned is not None and (required is None or signed is not None) and not (tree and pinned.tree is None):
            claim = self._claim_to_fill(version, pinned)
            if claim is not None:
                return await self._fill_cache(raw, version, pinned, signed, required, live, claim)
            if live is not None:
                await remove(self._context, live)
            self._attempts.pop(Key("ModelVersion", version.namespace, version.name), None)
            self._context.turns.leave_queue(version.namespace, kinds.MODEL_VERSION.kind, version.name)
            return _pinned_content(pinned, signed, required)
        keys = {key.name: key.pem for key in required.public_keys} if required is not None and signed is None else {}
        model = version.spec.model_ref.name
        images = helper_pod_placement.with_model_placement(self._context.images, self._raw_model(version))
        wanted = resolve_pod(raw, model, version.spec.artifact, images, digest=digest, keys=keys, tree=tree)
        read = functools.partial(self._read_resolve_pod, pinned=pinned, required=required, known=signed, tree=tree)
        pending = ResolvedContent(pinned, _pending_verdict(version, _waiting_verdict(pinned, required, signed)), signed)
        return await self._resolve_in_pod(raw, version, pending, live, wanted, read)

    def _claim_to_fill(self, version: ModelVersion, pinned: ArtifactStatus) -> str | None:
        """The claim whose cache must be filled with the artifact now; None for none."""
        key = Key("ModelVersion", version.namespace, version.name)
        claim = self._context.cache_requests.get(key)
        filled, until = self._filled_claims.get(key, ("", 0.0))
        if claim is None:
            return None
        if pinned.cached == claim == filled and self._context.clock.monotonic() < until:
            # Pods reported the miss before the cache was filled. A later miss is reported again.
            del self._context.cache_requests[key]
            return None
        return claim

    async def _fill_cache(
        self,
        raw: Object,
        version: ModelVersion,
        pinned: ArtifactStatus,
        signed: SignatureStatus | None,
        required: Signatures | None,
        live: Object | None,
        claim: str,
    ) -> ResolvedContent:
        """Fetch the artifact into the shared cache by a pod."""
        proof = artifact_cache.build_proof(self._raw_model(version), version, pinned.digest, self._context.images)
        artifact, model = version.spec.artifact, version.spec.model_ref.name
        images = helper_pod_placement.with_model_placement(self._context.images, self._raw_model(version))
        wanted = fill_pod(raw, model, artifact, images, pinned.digest, CachedContent(claim, proof))
        waiting = ConditionSummary(
            Reason.WAITING_FOR_CACHE, f"the artifact is being brought into the cache on claim {claim}", reconciling=True
        )
        pending = ResolvedContent(pinned, _pending_verdict(version, waiting), signed)
        read = functools.partial(
            self._read_fill_pod,
            version=version,
            pending=ResolvedContent(pinned, waiting, signed),
            required=required,
            claim=claim,
        )
        return await self._resolve_in_pod(raw, version, pending, live, wanted, read)

    def _read_fill_pod(
        self, pod: Object, *, version: ModelVersion, pending: ResolvedContent, required: Signatures | None, claim: str
    ) -> ResolvedContent:
        """The content as the pod that fills the cache reports it. `pending`: the result while the pod runs."""
        terminated = pod_trust.container_status(pod, FETCH_CONTAINER).get("state", {}).get("terminated", {})
        if terminated.get("exitCode") != 0:
            return _with_pod_failure(pod, pending)
        report = versions.parse_artifact_report(pod_failures.parse_termination_report(terminated.get("message", "")))
        pinned = pending.artifact
        if pinned is None or report is None or report.digest != pinned.digest:
            text = "the pod that fills the cache ended without the digest of what it brought"
            return replace(pending, verdict=ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True))
        key = Key("ModelVersion", version.namespace, version.name)
        is_refill = version.status.artifact is not None and version.status.artifact.cached == claim
        trusted_for = REFILL_TRUST_SECONDS if is_refill else POLL_POD_SECONDS
        self._filled_claims[key] = (claim, self._context.clock.monotonic() + trusted_for)
        return _pinned_content(pinned.model_copy(update={"cached": claim}), pending.signature, required)

    async def _resolve_in_pod(
        self,
        raw: Object,
        version: ModelVersion,
        pending: ResolvedContent,
        live: Object | None,
        wanted: Object,
        read: Callable[[Object], ResolvedContent],
    ) -> ResolvedContent:
        """Create the pod, if need be, and read its result.

        A pod that is not exactly as rendered is replaced, and its report ignored. `pending`: the result until another
        pod is created.
        """
        attempts, now = self._attempts_of(version, wanted), self._context.clock.monotonic()
        mismatch = pod_trust.find_pod_mismatch(live, version.uid, wanted) if live is not None else None
        if live is not None and attempts.distrust and live["metadata"]["uid"] == attempts.pod_uid:
            return replace(
                pending, verdict=ConditionSummary(Reason.RESOLVE_POD_CHANGED, attempts.distrust, stalled=True)
            )
        if live is not None and (mismatch is not None or _has_failed(live) or has_other_placement(wanted, live)):
            await remove(self._context, live)
            self._record_loss(raw, attempts, live, mismatch, now)
            live = None
        elif live is None and attempts.pod_uid:
            self._record_loss(raw, attempts, None, None, now)
        if live is None:
            if now < attempts.not_before:
                return replace(pending, requeue_after=attempts.not_before - now)
            waiting = self._await_turn(raw, version, pending, now)
            if waiting is not None:
                return waiting
            try:
                live, _ = await ensure(self._context, wanted)
            except BlockedError as blocked:
                # No watch event follows when a quota has room again, or a right is granted.
                verdict = ConditionSummary(blocked.problem.reason, blocked.problem.message, stalled=True)
                return replace(pending, verdict=verdict, requeue_after=POLL_TURN_SECONDS)
            finally:
                self._context.turns.finish_making(version.namespace, kinds.MODEL_VERSION.kind, version.name)
            attempts.pod_uid, attempts.distrust = live["metadata"]["uid"], ""
            mismatch = pod_trust.find_pod_mismatch(live, version.uid, wanted)
            if mismatch is not None:
                # Another one would be changed too.
                attempts.distrust = f"the resolve pod is not as it was rendered: {mismatch}"
                return replace(
                    pending, verdict=ConditionSummary(Reason.RESOLVE_POD_CHANGED, attempts.distrust, stalled=True)
                )
        content = read_child(
            live,
            functools.partial(read, live),
            lambda text: replace(pending, verdict=ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True)),
        )
        if attempts.has_rested and content.verdict.reconciling:
            return replace(content, verdict=pending.verdict)
        if pod_failures.read_fetch_failure(pod_trust.container_status(live, FETCH_CONTAINER)) is None:
            return content
        if _restart_count(live) >= (MAX_RESTARTS if not attempts.has_rested else 1):
            # It would stay in CrashLoopBackOff. From now on another pod tries once in a while.
            await remove(self._context, live)
            attempts.pod_uid, attempts.has_rested, attempts.not_before = "", True, now + CRASH_RETRY_SECONDS
            return replace(content, requeue_after=CRASH_RETRY_SECONDS)
        return content

    def _await_turn(
        self, raw: Object, version: ModelVersion, pending: ResolvedContent, now: float
    ) -> ResolvedContent | None:
        """The result while the namespace has as many resolve pods as it may; None when it is this version's turn."""
        turns, namespace = self._context.turns, version.namespace
        created = str(raw["metadata"].get("creationTimestamp", ""))
        ticket = ResolveTicket(self._turn_rank(version), created, kinds.MODEL_VERSION.kind, version.name)
        ahead = turns.request_turn(namespace, ticket, watches.count_resolve_pods(self._context.store, namespace), now)
        if ahead is None:
            return None
        text = (
            f"{turns.max_pods} resolve pods may be under way in a namespace at once, of which some are kept for "
            "versions that a Model wants; it is made when others have ended"
        )
        verdict = pending.verdict
        if verdict.reconciling:
            verdict = ConditionSummary(Reason.WAITING_FOR_TURN, text, reconciling=True)
        return replace(
            pending,
            verdict=verdict,
            requeue_after=POLL_POD_SECONDS if ahead < 2 * turns.max_pods else POLL_TURN_SECONDS,
        )

    def _turn_rank(self, version: ModelVersion) -> int:
        """Rank in the queue: a Model that serves nothing yet comes first, versions that no Model names come last."""
        if Key("ModelVersion", version.namespace, version.name) in self._context.cache_requests:
            return RANK_WANTED
        model = self._raw_model(version)
        status, requested = model.get("status") or {}, (model.get("spec") or {}).get("version") or {}
        if version.name not in (requested.get("name"), (status.get("target") or {}).get("version")):
            return RANK_OTHER
        return RANK_WANTED if status.get("serving") else RANK_STARTING

    def _enqueue_next(self, namespace: str, content: ResolvedContent | None) -> None:
        """Enqueue the next in the queue at once: a resolve pod of the namespace may have ended."""
        turns = self._context.turns
        is_waiting = content is not None and content.verdict.reason == Reason.WAITING_FOR_TURN
        ticket = None if is_waiting else turns.next_ticket(namespace)
        if ticket is not None and watches.count_resolve_pods(self._context.store, namespace) < turns.max_pods:
            self._context.enqueue(Key(ticket.kind, namespace, ticket.name))

    def _attempts_of(self, version: ModelVersion, wanted: Object) -> _ResolveAttempts:
        """The attempts with pods like `wanted`; pods of another rendering, with other keys say, start a new history."""
        key, pod_hash = Key("ModelVersion", version.namespace, version.name), names.content_hash(wanted)
        if key not in self._attempts or self._attempts[key].pod_hash != pod_hash:
            self._attempts[key] = _ResolveAttempts(pod_hash)
        return self._attempts[key]

    def _record_loss(
        self, raw: Object, attempts: _ResolveAttempts, other: Object | None, mismatch: str | None, now: float
    ) -> None:
        """Count a resolve pod that has disappeared, or has another one in its place."""
        replaced = mismatch is not None and other is not None and attempts.pod_uid not in ("", other["metadata"]["uid"])
        attempts.pod_uid, attempts.losses = "", attempts.losses + 1
        if attempts.losses >= TOLERATED_LOSSES:
            attempts.not_before = now + min(2.0 ** min(attempts.losses - TOLERATED_LOSSES, 10), MAX_PAUSE_SECONDS)
        if attempts.losses < TOLERATED_LOSSES and not replaced:
            # Nodes disappear, and an operator of another version has created other pods.
            return
        what = "failed: it was evicted, or its node is lost" if other is not None else "went away"
        what = f"was replaced by a pod that is not believed ({mismatch})" if mismatch is not None else what
        text = (
            f"the resolve pod {what} before it had reported anything; that is {attempts.losses} in a row: see who "
            "deletes or creates pods in this namespace"
        )
        self._context.events.record(raw, "Warning", Reason.RESOLVE_POD_LOST, text)

    def _live_resolve_pod(self, version: ModelVersion) -> Object | None:
        name = names.resolve_pod_name(version.name, version.uid)
        pod = self._context.store.get(kinds.POD, version.namespace, name)
        # A foreign pod of that name is not trusted; creating ours reports that the name is taken.
        return pod if pod is not None and is_controlled_by(pod, version.uid) else None

    def _read_resolve_pod(
        self,
        pod: Object,
        *,
        pinned: ArtifactStatus | None,
        required: Signatures | None,
        known: SignatureStatus | None,
        tree: bool,
    ) -> ResolvedContent:
        """The content as the resolve pod reports it. `known`: an earlier finding on the signature that still holds."""
        status = pod_trust.container_status(pod, FETCH_CONTAINER)
        terminated = status.get("state", {}).get("terminated", {})
        if terminated.get("exitCode") == 0:
            report = pod_failures.parse_termination_report(terminated.get("message", ""))
            artifact = versions.parse_artifact_report(report)
            if artifact is None:
                text = "the resolve pod ended without a digest"
                return ResolvedContent(pinned, ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True), known)
            if tree and artifact.tree is None:
                text = "the resolve pod ended without the digest of the artifact's files"
                return ResolvedContent(pinned, ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True), known)
            signature = (report or {}).get("signature")
            signed = known or (
                signatures.parse_finding(required, artifact.digest, signature) if required is not None else None
            )
            if required is not None and signed is None:
                text = "the resolve pod ended without a finding on the signature"
                return ResolvedContent(pinned, ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True))
            admission = self._context.admission(pod["metadata"]["namespace"])
            if required is not None and not admission.in_force:
                # Others could create a pod with a report of their own.
                if known is not None and pinned is not None:
                    return replace(_pinned_content(pinned, known, required), requeue_after=POLL_POD_SECONDS)
                text = admission.problem or "whether the admission policies are in force is being checked"
                return ResolvedContent(
                    pinned,
                    ConditionSummary(
                        Reason.ADMISSION_POLICY_MISSING,
                        f"the signature does not count: {text}",
                        stalled=admission.in_force is False,
                        reconciling=admission.in_force is None,
                    ),
                    requeue_after=POLL_POD_SECONDS,
                )
            # The reconciliation that follows the status write removes the pod.
            return _pinned_content(artifact, signed, required)
        return _with_pod_failure(pod, ResolvedContent(pinned, _waiting_verdict(pinned, required, known), known))

    async def _reject_spec(self, raw: Object, error: InvalidObject) -> ReconcileResult:
        now: datetime = self._context.clock.now()
        generation = raw["metadata"].get("generation", 0)
        old = ModelVersionStatus.model_validate(raw.get("status") or {})
        verdict = ConditionSummary(Reason.INVALID_SPEC, error.message, stalled=True)
        status = old.model_copy(
            update={
                "observed_generation": generation,
                "failure": VersionFailure(reason=verdict.reason, message=verdict.message),
                "conditions": build_conditions(old.conditions, verdict, None, generation=generation, now=now),
            }
        )
        await write_status(self._context, raw, status, old)
        return ReconcileResult()


def _needs_no_status(raw: Object, version: ModelVersion, status: ModelVersionStatus) -> bool:
    """Whether a status would only repeat the spec, as for a version that its Model has created with a digest.

    What the Model does with the version is in the Model's status.
    """
    owners = raw["metadata"].get("ownerReferences") or ()
    is_generated = any(ref.get("controller") and ref.get("kind") == "Model" for ref in owners)
    pinned = status.artifact is not None and status.artifact == ArtifactStatus(
        digest=version.spec.artifact.digest or ""
    )
    reports = (
        status.failure or status.stage or status.signature or find_condition(status.conditions, ConditionType.VERIFIED)
    )
    is_reported = version.status.observed_generation is not None
    return is_generated and pinned and not reports and not is_reported


def _with_pod_failure(pod: Object, pending: ResolvedContent) -> ResolvedContent:
    """The pending result with the failure of its pod, if that has one."""
    fetch_failure = pod_failures.read_fetch_failure(pod_trust.container_status(pod, FETCH_CONTAINER))
    if fetch_failure is not None:
        # The failure stays until an attempt succeeds: else each new attempt would hide it from users.
        reason, message = fetch_failure
        text = f"spec.artifact.uri: {message}" if reason in reasons.FETCH_REASONS else message
        return replace(pending, verdict=ConditionSummary(reason, text, stalled=True))
    failure = pod_failures.diagnose_pods([pod])
    if failure is not None:
        return replace(pending, verdict=ConditionSummary(failure.reason, failure.message, stalled=True))
    return pending


def _pinned_content(
    artifact: ArtifactStatus, signed: SignatureStatus | None, required: Signatures | None
) -> ResolvedContent:
    if signed is not None and required is not None and required.mode == "Enforce" and not signed.verified:
        text = f"the Model's spec.signatures refuses it: {signed.message}"
        return ResolvedContent(artifact, ConditionSummary(signed.reason, text, stalled=True), signed)
    return ResolvedContent(
        artifact,
        ConditionSummary(Reason.DIGEST_PINNED, f"only content with digest {artifact.digest} will serve"),
        signed,
    )


def _verified_condition(signature: SignatureStatus | None) -> tuple[bool | None, str, str]:
    if signature is None:
        return None, Reason.WAITING_FOR_SIGNATURE, "the signature of the artifact is not verified yet"
    return signature.verified, signature.reason, signature.message


def _has_failed(pod: Object) -> bool:
    """Whether the pod was evicted, or its node is lost: it never recovers from that."""
    return bool(pod.get("status", {}).get("phase") == "Failed")


def _restart_count(pod: Object) -> int:
    """Restarts of the fetch container."""
    return int(pod_trust.container_status(pod, FETCH_CONTAINER).get("restartCount") or 0)


def _pending_verdict(version: ModelVersion, pending: ConditionSummary) -> ConditionSummary:
    """The conditions until another resolve pod reports: the failure of the last one stays."""
    failure = version.status.failure
    return pending if failure is None else ConditionSummary(failure.reason, failure.message, stalled=True)


def _waiting_verdict(
    pinned: ArtifactStatus | None, required: Signatures | None, known: SignatureStatus | None
) -> ConditionSummary:
    """The conditions while the resolve pod runs: what it is needed for."""
    if pinned is None:
        return ConditionSummary(Reason.WAITING_FOR_DIGEST, "the artifact's digest is being resolved", reconciling=True)
    if required is not None and known is None:
        text = "the signature of the artifact is being verified"
        return ConditionSummary(Reason.WAITING_FOR_SIGNATURE, text, reconciling=True)
    text = "the digest of the artifact's files, which proves them in the cache, is being computed"
    return ConditionSummary(Reason.WAITING_FOR_DIGEST, text, reconciling=True)
