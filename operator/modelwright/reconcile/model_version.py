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
"""Seconds until a version looks again that has many before it; it is called when its turn comes."""
MAX_RESTARTS = 7
"""Starts of a container that go wrong before its pod is removed: some 15 minutes, as the kubelet waits between them."""
REFILL_TRUST_SECONDS = 300.0
"""Seconds that a cache which was filled again counts as filled, whatever pods say: that long the kubelet waits at most
before it starts a container again, which then sees what is there now."""
CRASH_RETRY_SECONDS = 3600.0
"""Seconds until another resolve pod is tried then."""
TOLERATED_LOSSES = 3
"""Resolve pods in a row that may go away, as nodes do, before an Event reports it and the next one waits."""
MAX_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ResolvedContent:
    """What is known of a version's content, and what to say about it."""

    artifact: ArtifactStatus | None
    verdict: ConditionSummary
    signature: SignatureStatus | None = None
    requeue_after: float | None = None
    """Seconds until the next pass, where no Event would wake one."""


@dataclass(slots=True)
class _ResolveAttempts:
    """What became of the resolve pods of a version, as this process has seen it. Moments are of the monotonic clock."""

    pod_hash: str
    """Hash of the pod as it is rendered."""
    pod_uid: str = ""
    """uid of the pod that was made last."""
    distrust: str = ""
    """Why the pod that was made is not believed: admission has changed it."""
    losses: int = 0
    """Pods in a row that went away, or were replaced, before they said anything."""
    has_rested: bool = False
    """Whether one was taken away because it went wrong for long."""
    not_before: float = 0.0


class ModelVersionReconciler:
    """Brings one ModelVersion a step further per pass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._attempts: dict[Key, _ResolveAttempts] = {}
        """Of versions that have something resolved."""
        self._filled_claims: dict[Key, tuple[str, float]] = {}
        """The claim that a version was brought into last, as this process has seen it, and until when pods that don't
        find it there are not believed."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """One pass over the ModelVersion of this key."""
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
        asked = self._requested_signatures(version)
        found = await self._resolve_content(raw, version, asked)
        self._enqueue_next(key.namespace, found)
        old, verdict = version.status, found.verdict
        failure = VersionFailure(reason=verdict.reason, message=verdict.message) if verdict.stalled else None
        status = ModelVersionStatus(
            observed_generation=version.generation,
            artifact=found.artifact,
            signature=found.signature,
            stage=rollout_history.failed_stage(self._context, key.namespace, version.spec.model_ref.name, version.name),
            failure=failure,
            conditions=build_conditions(
                old.conditions,
                verdict,
                None,
                verified=_verified_condition(found.signature) if asked is not None else None,
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
                # It tells what became of its version, and its policy counts one that was taken back.
                self._context.enqueue(Key("TrainingRun", key.namespace, version.spec.lineage.training_run))
            self._emit_events(raw, old, status)
            if status.artifact is not None and self._live_resolve_pod(version) is not None:
                # What it found out is stored now: the next pass removes it.
                self._context.enqueue(key)
        return ReconcileResult(found.requeue_after or (POLL_POD_SECONDS if verdict.reconciling else None))

    def _requested_signatures(self, version: ModelVersion) -> Signatures | None:
        """Whose signature the version's Model asks for."""
        asked = (self._raw_model(version).get("spec") or {}).get("signatures")
        try:
            return Signatures.model_validate(asked) if asked is not None else None
        except ValidationError:
            # The Model is refused for that, so that nothing of it moves.
            return None

    def _raw_model(self, version: ModelVersion) -> Object:
        return self._context.store.get(kinds.MODEL, version.namespace, version.spec.model_ref.name) or {}

    def _emit_events(self, raw: Object, old: ModelVersionStatus, new: ModelVersionStatus) -> None:
        before, now = (find_condition(status.conditions, ConditionType.VERIFIED) for status in (old, new))
        was = before.reason if before is not None else None
        if now is not None and now.status == "False" and now.reason != was:
            self._context.events.record(raw, "Warning", now.reason, now.message)

    async def _resolve_content(self, raw: Object, version: ModelVersion, asked: Signatures | None) -> ResolvedContent:
        """The digest, from the spec, from status, or from a resolve pod, which verifies the signature too."""
        known = version.status.artifact
        digest = signatures.known_digest(version.spec.artifact, known.digest if known else None, asked)
        pinned = None
        if digest is not None:
            pinned = known if known is not None and known.digest == digest else ArtifactStatus(digest=digest)
        signed = signatures.recall_finding(asked, digest, version.status.signature) if asked is not None else None
        live = self._live_resolve_pod(version)
        tree = artifact_cache.needs_tree_digest(
            self._raw_model(version), version.spec.artifact, digest, self._context.images
        )
        if pinned is not None and (asked is None or signed is not None) and not (tree and pinned.tree is None):
            claim = self._claim_to_fill(version, pinned)
            if claim is not None:
                return await self._fill_cache(raw, version, pinned, signed, asked, live, claim)
            if live is not None:
                await remove(self._context, live)
            self._attempts.pop(Key("ModelVersion", version.namespace, version.name), None)
            self._context.turns.leave_queue(version.namespace, kinds.MODEL_VERSION.kind, version.name)
            return _pinned_content(pinned, signed, asked)
        keys = {key.name: key.pem for key in asked.public_keys} if asked is not None and signed is None else {}
        model, images = (
            version.spec.model_ref.name,
            helper_pod_placement.with_model_placement(self._context.images, self._raw_model(version)),
        )
        wanted = resolve_pod(raw, model, version.spec.artifact, images, digest=digest, keys=keys, tree=tree)
        read = functools.partial(self._read_resolve_pod, pinned=pinned, asked=asked, known=signed, tree=tree)
        so_far = ResolvedContent(pinned, _pending_verdict(version, _waiting_verdict(pinned, asked, signed)), signed)
        return await self._resolve_in_pod(raw, version, so_far, live, wanted, read)

    def _claim_to_fill(self, version: ModelVersion, pinned: ArtifactStatus) -> str | None:
        """The claim that the artifact is to be brought into now; None for none."""
        key = Key("ModelVersion", version.namespace, version.name)
        claim = self._context.cache_requests.get(key)
        filled, until = self._filled_claims.get(key, ("", 0.0))
        if claim is None:
            return None
        if pinned.cached == claim == filled and self._context.clock.monotonic() < until:
            # What pods say is from before. One that doesn't find it later says so again.
            del self._context.cache_requests[key]
            return None
        return claim

    async def _fill_cache(
        self,
        raw: Object,
        version: ModelVersion,
        pinned: ArtifactStatus,
        signed: SignatureStatus | None,
        asked: Signatures | None,
        live: Object | None,
        claim: str,
    ) -> ResolvedContent:
        """What the pod says that brings the artifact into the shared cache."""
        proof = artifact_cache.build_proof(self._raw_model(version), version, pinned.digest, self._context.images)
        artifact, model = version.spec.artifact, version.spec.model_ref.name
        images = helper_pod_placement.with_model_placement(self._context.images, self._raw_model(version))
        wanted = fill_pod(raw, model, artifact, images, pinned.digest, CachedContent(claim, proof))
        waiting = ConditionSummary(
            Reason.WAITING_FOR_CACHE, f"the artifact is being brought into the cache on claim {claim}", reconciling=True
        )
        so_far = ResolvedContent(pinned, _pending_verdict(version, waiting), signed)
        read = functools.partial(
            self._read_fill_pod,
            version=version,
            so_far=ResolvedContent(pinned, waiting, signed),
            asked=asked,
            claim=claim,
        )
        return await self._resolve_in_pod(raw, version, so_far, live, wanted, read)

    def _read_fill_pod(
        self, pod: Object, *, version: ModelVersion, so_far: ResolvedContent, asked: Signatures | None, claim: str
    ) -> ResolvedContent:
        """What became of the pod that fills the cache. `so_far`: what to say while it works."""
        done = pod_trust.container_status(pod, FETCH_CONTAINER).get("state", {}).get("terminated", {})
        if done.get("exitCode") != 0:
            return _with_pod_failure(pod, so_far)
        report, pinned = (
            versions.parse_artifact_report(pod_failures.parse_termination_report(done.get("message", ""))),
            so_far.artifact,
        )
        if pinned is None or report is None or report.digest != pinned.digest:
            text = "the pod that fills the cache ended without the digest of what it brought"
            return replace(so_far, verdict=ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True))
        key = Key("ModelVersion", version.namespace, version.name)
        again = version.status.artifact is not None and version.status.artifact.cached == claim
        self._filled_claims[key] = (
            claim,
            self._context.clock.monotonic() + (REFILL_TRUST_SECONDS if again else POLL_POD_SECONDS),
        )
        return _pinned_content(pinned.model_copy(update={"cached": claim}), so_far.signature, asked)

    async def _resolve_in_pod(
        self,
        raw: Object,
        version: ModelVersion,
        so_far: ResolvedContent,
        live: Object | None,
        wanted: Object,
        read: Callable[[Object], ResolvedContent],
    ) -> ResolvedContent:
        """What the resolve pod says. One that is not the very pod that was rendered is replaced, and says nothing.
        `so_far`: what to say until another pod is made."""
        tries, now = self._attempts_of(version, wanted), self._context.clock.monotonic()
        why = pod_trust.find_pod_mismatch(live, version.uid, wanted) if live is not None else None
        if live is not None and tries.distrust and live["metadata"]["uid"] == tries.pod_uid:
            return replace(so_far, verdict=ConditionSummary(Reason.RESOLVE_POD_CHANGED, tries.distrust, stalled=True))
        if live is not None and (why is not None or _has_failed(live) or has_other_placement(wanted, live)):
            await remove(self._context, live)
            self._record_loss(raw, tries, live, why, now)
            live = None
        elif live is None and tries.pod_uid:
            self._record_loss(raw, tries, None, None, now)
        if live is None:
            if now < tries.not_before:
                return replace(so_far, requeue_after=tries.not_before - now)
            waiting = self._await_turn(raw, version, so_far, now)
            if waiting is not None:
                return waiting
            try:
                live, _ = await ensure(self._context, wanted)
            except BlockedError as refused:
                # Nothing wakes it when there is room in a quota, or a right is given.
                verdict = ConditionSummary(refused.problem.reason, refused.problem.message, stalled=True)
                return replace(so_far, verdict=verdict, requeue_after=POLL_TURN_SECONDS)
            finally:
                self._context.turns.finish_making(version.namespace, kinds.MODEL_VERSION.kind, version.name)
            tries.pod_uid, tries.distrust = live["metadata"]["uid"], ""
            why = pod_trust.find_pod_mismatch(live, version.uid, wanted)
            if why is not None:
                # Another one would become so too.
                tries.distrust = f"the resolve pod is not as it was rendered: {why}"
                return replace(
                    so_far, verdict=ConditionSummary(Reason.RESOLVE_POD_CHANGED, tries.distrust, stalled=True)
                )
        found = read_child(
            live,
            functools.partial(read, live),
            lambda text: replace(so_far, verdict=ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True)),
        )
        if tries.has_rested and found.verdict.reconciling:
            return replace(found, verdict=so_far.verdict)
        if pod_failures.read_fetch_failure(pod_trust.container_status(live, FETCH_CONTAINER)) is None:
            return found
        if _restart_count(live) >= (MAX_RESTARTS if not tries.has_rested else 1):
            # It would stay in CrashLoopBackOff for good. Another one tries, now and then.
            await remove(self._context, live)
            tries.pod_uid, tries.has_rested, tries.not_before = "", True, now + CRASH_RETRY_SECONDS
            return replace(found, requeue_after=CRASH_RETRY_SECONDS)
        return found

    def _await_turn(
        self, raw: Object, version: ModelVersion, so_far: ResolvedContent, now: float
    ) -> ResolvedContent | None:
        """What to say while the namespace has as many resolve pods as it may; None when it is this version's turn."""
        turns, namespace = self._context.turns, version.namespace
        created = str(raw["metadata"].get("creationTimestamp", ""))
        claim = ResolveTicket(self._turn_rank(version), created, kinds.MODEL_VERSION.kind, version.name)
        before = turns.request_turn(namespace, claim, watches.count_resolve_pods(self._context.store, namespace), now)
        if before is None:
            return None
        text = (
            f"{turns.max_pods} resolve pods may be under way in a namespace at once, of which some are kept for "
            "versions that a Model wants; it is made when others have ended"
        )
        verdict = so_far.verdict
        if verdict.reconciling:
            verdict = ConditionSummary(Reason.WAITING_FOR_TURN, text, reconciling=True)
        return replace(
            so_far,
            verdict=verdict,
            requeue_after=POLL_POD_SECONDS if before < 2 * turns.max_pods else POLL_TURN_SECONDS,
        )

    def _turn_rank(self, version: ModelVersion) -> int:
        """Who wants it: a Model that serves nothing yet goes first, and versions that no Model names go last."""
        if Key("ModelVersion", version.namespace, version.name) in self._context.cache_requests:
            return RANK_WANTED
        model = self._raw_model(version)
        status, asked = model.get("status") or {}, (model.get("spec") or {}).get("version") or {}
        if version.name not in (asked.get("name"), (status.get("target") or {}).get("version")):
            return RANK_OTHER
        return RANK_WANTED if status.get("serving") else RANK_STARTING

    def _enqueue_next(self, namespace: str, now: ResolvedContent | None) -> None:
        """A pod of the namespace may have ended: whose turn is next looks at once."""
        turns, waits = self._context.turns, now is not None and now.verdict.reason == Reason.WAITING_FOR_TURN
        first = None if waits else turns.next_ticket(namespace)
        if first is not None and watches.count_resolve_pods(self._context.store, namespace) < turns.max_pods:
            self._context.enqueue(Key(first.kind, namespace, first.name))

    def _attempts_of(self, version: ModelVersion, wanted: Object) -> _ResolveAttempts:
        """What is known of resolve pods like `wanted`; others, by other keys say, are another matter."""
        key, of = Key("ModelVersion", version.namespace, version.name), names.content_hash(wanted)
        if key not in self._attempts or self._attempts[key].pod_hash != of:
            self._attempts[key] = _ResolveAttempts(of)
        return self._attempts[key]

    def _record_loss(
        self, raw: Object, tries: _ResolveAttempts, other: Object | None, why: str | None, now: float
    ) -> None:
        """The resolve pod has gone away, or another one is in its place."""
        replaced = why is not None and other is not None and tries.pod_uid not in ("", other["metadata"]["uid"])
        tries.pod_uid, tries.losses = "", tries.losses + 1
        if tries.losses >= TOLERATED_LOSSES:
            tries.not_before = now + min(2.0 ** min(tries.losses - TOLERATED_LOSSES, 10), MAX_PAUSE_SECONDS)
        if tries.losses < TOLERATED_LOSSES and not replaced:
            # Nodes go away, and an operator of another version has made other pods.
            return
        what = "failed: it was evicted, or its node is lost" if other is not None else "went away"
        what = f"was replaced by a pod that is not believed ({why})" if why is not None else what
        text = (
            f"the resolve pod {what} before it had said anything; that is {tries.losses} in a row: see who deletes or "
            "creates pods in this namespace"
        )
        self._context.events.record(raw, "Warning", Reason.RESOLVE_POD_LOST, text)

    def _live_resolve_pod(self, version: ModelVersion) -> Object | None:
        name = names.resolve_pod_name(version.name, version.uid)
        found = self._context.store.get(kinds.POD, version.namespace, name)
        # Another's pod of that name is not believed; making ours says that the name is taken.
        return found if found is not None and is_controlled_by(found, version.uid) else None

    def _read_resolve_pod(
        self,
        pod: Object,
        *,
        pinned: ArtifactStatus | None,
        asked: Signatures | None,
        known: SignatureStatus | None,
        tree: bool,
    ) -> ResolvedContent:
        """What the pod has found out. `known` is what stands of an earlier finding on the signature."""
        status = pod_trust.container_status(pod, FETCH_CONTAINER)
        done = status.get("state", {}).get("terminated", {})
        if done.get("exitCode") == 0:
            report = pod_failures.parse_termination_report(done.get("message", ""))
            found = versions.parse_artifact_report(report)
            if found is None:
                text = "the resolve pod ended without a digest"
                return ResolvedContent(pinned, ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True), known)
            if tree and found.tree is None:
                text = "the resolve pod ended without the digest of the artifact's files"
                return ResolvedContent(pinned, ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True), known)
            signature = (report or {}).get("signature")
            signed = known or (signatures.parse_finding(asked, found.digest, signature) if asked is not None else None)
            if asked is not None and signed is None:
                text = "the resolve pod ended without a word on the signature"
                return ResolvedContent(pinned, ConditionSummary(Reason.INTERNAL_ERROR, text, stalled=True))
            admission = self._context.admission(pod["metadata"]["namespace"])
            if asked is not None and not admission.in_force:
                # Others may be able to make a pod that says what they like.
                if known is not None and pinned is not None:
                    return replace(_pinned_content(pinned, known, asked), requeue_after=POLL_POD_SECONDS)
                text = admission.problem or "whether the admission policies are in force is being found out"
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
            # The pod goes when status has what it said, by the pass that the write wakes.
            return _pinned_content(found, signed, asked)
        return _with_pod_failure(pod, ResolvedContent(pinned, _waiting_verdict(pinned, asked, known), known))

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
    """Whether all there is to report stands in the spec already: so it does for a version that its Model has stamped
    with a digest. What the Model does with it is in the Model's status."""
    owners = raw["metadata"].get("ownerReferences") or ()
    stamped = any(ref.get("controller") and ref.get("kind") == "Model" for ref in owners)
    pinned = status.artifact is not None and status.artifact == ArtifactStatus(
        digest=version.spec.artifact.digest or ""
    )
    reports = (
        status.failure or status.stage or status.signature or find_condition(status.conditions, ConditionType.VERIFIED)
    )
    reported = version.status.observed_generation is not None
    return stamped and pinned and not reports and not reported


def _with_pod_failure(pod: Object, so_far: ResolvedContent) -> ResolvedContent:
    """What is wrong with a pod that has not ended well; `so_far` while nothing is."""
    told = pod_failures.read_fetch_failure(pod_trust.container_status(pod, FETCH_CONTAINER))
    if told is not None:
        # It stands until a try succeeds: else each new try would take back what a person has to see.
        reason, message = told
        text = f"spec.artifact.uri: {message}" if reason in reasons.FETCH_REASONS else message
        return replace(so_far, verdict=ConditionSummary(reason, text, stalled=True))
    failure = pod_failures.diagnose_pods([pod])
    if failure is not None:
        return replace(so_far, verdict=ConditionSummary(failure.reason, failure.message, stalled=True))
    return so_far


def _pinned_content(
    artifact: ArtifactStatus, signed: SignatureStatus | None, asked: Signatures | None
) -> ResolvedContent:
    if signed is not None and asked is not None and asked.mode == "Enforce" and not signed.verified:
        text = f"the Model's spec.signatures refuses it: {signed.message}"
        return ResolvedContent(artifact, ConditionSummary(signed.reason, text, stalled=True), signed)
    return ResolvedContent(
        artifact,
        ConditionSummary(Reason.DIGEST_PINNED, f"only content with digest {artifact.digest} will serve"),
        signed,
    )


def _verified_condition(signed: SignatureStatus | None) -> tuple[bool | None, str, str]:
    if signed is None:
        return None, Reason.WAITING_FOR_SIGNATURE, "the signature of the artifact is not verified yet"
    return signed.verified, signed.reason, signed.message


def _has_failed(pod: Object) -> bool:
    """Evicted, or its node is lost: a pod never comes back from that by itself."""
    return bool(pod.get("status", {}).get("phase") == "Failed")


def _restart_count(pod: Object) -> int:
    """How often the fetch container was started again."""
    return int(pod_trust.container_status(pod, FETCH_CONTAINER).get("restartCount") or 0)


def _pending_verdict(version: ModelVersion, so_far: ConditionSummary) -> ConditionSummary:
    """What to say until another resolve pod is made: what the last one has said stands."""
    failure = version.status.failure
    return so_far if failure is None else ConditionSummary(failure.reason, failure.message, stalled=True)


def _waiting_verdict(
    pinned: ArtifactStatus | None, asked: Signatures | None, known: SignatureStatus | None
) -> ConditionSummary:
    """What the resolve pod is asked for."""
    if pinned is None:
        return ConditionSummary(Reason.WAITING_FOR_DIGEST, "the artifact's digest is being found out", reconciling=True)
    if asked is not None and known is None:
        text = "the signature of the artifact is being verified"
        return ConditionSummary(Reason.WAITING_FOR_SIGNATURE, text, reconciling=True)
    text = "the digest of the artifact's files, which proves them in the cache, is being found out"
    return ConditionSummary(Reason.WAITING_FOR_DIGEST, text, reconciling=True)
