"""ModelVersion: pins the artifact's digest, has its signature verified, and keeps status and stage."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from modelwright.api import names, reasons
from modelwright.api.common import InvalidObject
from modelwright.api.conditions import ConditionType, find
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Signatures
from modelwright.api.v1alpha1.version import (
    ArtifactStatus,
    ModelVersion,
    ModelVersionStatus,
    SignatureStatus,
    VersionFailure,
)
from modelwright.core import pods, signatures, speakers, versions
from modelwright.core.status.summarize import Verdict, conditions
from modelwright.core.turns import OTHERS, STARTS, WANTED, Claim
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.runner import Result
from modelwright.obs.reading import guarded
from modelwright.reconcile import proofs, rollouts, routing
from modelwright.reconcile.children import Refused, controlled_by, ensure, is_placed_otherwise, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.report import write_status
from modelwright.serving import helpers
from modelwright.serving.fetching import FETCH_CONTAINER, Kept, fill_pod, resolve_pod

Object = dict[str, Any]

LOOK_AT_POD = 10.0
LOOK_IN_LINE = 60.0
"""Seconds until a version looks again that has many before it; it is called when its turn comes."""
MOST_RESTARTS = 7
"""Starts of a container that go wrong before its pod is removed: some 15 minutes, as the kubelet waits between them."""
REFILLED = 300.0
"""Seconds that a cache which was filled again counts as filled, whatever pods say: that long the kubelet waits at most
before it starts a container again, which then sees what is there now."""
REST = 3600.0
"""Seconds until another resolve pod is tried then."""
FEW_LOST = 3
"""Resolve pods in a row that may go away, as nodes do, before an Event reports it and the next one waits."""
MOST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a version's content, and what to say about it."""

    artifact: ArtifactStatus | None
    verdict: Verdict
    signature: SignatureStatus | None = None
    look: float | None = None
    """Seconds until the next pass, where no Event would wake one."""


@dataclass(slots=True)
class _Tries:
    """What became of the resolve pods of a version, as this process has seen it. Moments are of the monotonic clock."""

    of: str
    """Hash of the pod as it is rendered."""
    made: str = ""
    """uid of the pod that was made last."""
    refused: str = ""
    """Why the pod that was made is not believed: admission has changed it."""
    lost: int = 0
    """Pods in a row that went away, or were replaced, before they said anything."""
    rested: bool = False
    """Whether one was taken away because it went wrong for long."""
    not_before: float = 0.0


class ModelVersionReconciler:
    """Brings one ModelVersion a step further per pass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tries: dict[Key, _Tries] = {}
        """Of versions that have something resolved."""
        self._filled: dict[Key, tuple[str, float]] = {}
        """The claim that a version was brought into last, as this process has seen it, and until when pods that don't
        find it there are not believed."""

    async def reconcile(self, key: Key) -> Result:
        """One pass over the ModelVersion of this key."""
        raw = self._context.store.get(kinds.MODEL_VERSION, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._tries.pop(key, None)
            self._filled.pop(key, None)
            self._context.to_cache.pop(key, None)
            self._context.turns.leave(key.namespace, key.kind, key.name)
            self._call_next(key.namespace, None)
            return Result()
        try:
            version = ModelVersion.parse(raw)
        except InvalidObject as error:
            return await self._refuse(raw, error)
        asked = self._asked(version)
        found = await self._pin(raw, version, asked)
        self._call_next(key.namespace, found)
        old, verdict = version.status, found.verdict
        failure = VersionFailure(reason=verdict.reason, message=verdict.message) if verdict.stalled else None
        status = ModelVersionStatus(
            observed_generation=version.generation,
            artifact=found.artifact,
            signature=found.signature,
            stage=rollouts.taken_back(self._context, key.namespace, version.spec.model_ref.name, version.name),
            failure=failure,
            conditions=conditions(
                old.conditions,
                verdict,
                None,
                verified=_verified(found.signature) if asked is not None else None,
                generation=version.generation,
                now=self._context.clock.now(),
            ),
        )
        if _needs_no_status(raw, version, status):
            return Result()
        news = (status.artifact, status.signature, failure) != (old.artifact, old.signature, old.failure)
        if await write_status(self._context, raw, status, old):
            if news:
                self._context.wake(Key("Model", key.namespace, version.spec.model_ref.name))
            if version.spec.lineage is not None and version.spec.lineage.training_run and status.stage != old.stage:
                # It tells what became of its version, and its policy counts one that was taken back.
                self._context.wake(Key("TrainingRun", key.namespace, version.spec.lineage.training_run))
            self._tell(raw, old, status)
            if status.artifact is not None and self._resolve_pod(version) is not None:
                # What it found out is stored now: the next pass removes it.
                self._context.wake(key)
        return Result(found.look or (LOOK_AT_POD if verdict.reconciling else None))

    def _asked(self, version: ModelVersion) -> Signatures | None:
        """Whose signature the version's Model asks for."""
        asked = (self._model(version).get("spec") or {}).get("signatures")
        try:
            return Signatures.model_validate(asked) if asked is not None else None
        except ValidationError:
            # The Model is refused for that, so that nothing of it moves.
            return None

    def _model(self, version: ModelVersion) -> Object:
        return self._context.store.get(kinds.MODEL, version.namespace, version.spec.model_ref.name) or {}

    def _tell(self, raw: Object, old: ModelVersionStatus, new: ModelVersionStatus) -> None:
        before, now = (find(status.conditions, ConditionType.VERIFIED) for status in (old, new))
        was = before.reason if before is not None else None
        if now is not None and now.status == "False" and now.reason != was:
            self._context.events.record(raw, "Warning", now.reason, now.message)

    async def _pin(self, raw: Object, version: ModelVersion, asked: Signatures | None) -> Found:
        """The digest, from the spec, from status, or from a resolve pod, which verifies the signature too."""
        known = version.status.artifact
        digest = signatures.known_digest(version.spec.artifact, known.digest if known else None, asked)
        pinned = None
        if digest is not None:
            pinned = known if known is not None and known.digest == digest else ArtifactStatus(digest=digest)
        signed = signatures.settled(asked, digest, version.status.signature) if asked is not None else None
        live = self._resolve_pod(version)
        tree = proofs.needs_tree(self._model(version), version.spec.artifact, digest, self._context.images)
        if pinned is not None and (asked is None or signed is not None) and not (tree and pinned.tree is None):
            claim = self._to_fill(version, pinned)
            if claim is not None:
                return await self._fill(raw, version, pinned, signed, asked, live, claim)
            if live is not None:
                await remove(self._context, live)
            self._tries.pop(Key("ModelVersion", version.namespace, version.name), None)
            self._context.turns.leave(version.namespace, kinds.MODEL_VERSION.kind, version.name)
            return _found(pinned, signed, asked)
        keys = {key.name: key.pem for key in asked.public_keys} if asked is not None and signed is None else {}
        model, images = version.spec.model_ref.name, helpers.of_model(self._context.images, self._model(version))
        wanted = resolve_pod(raw, model, version.spec.artifact, images, digest=digest, keys=keys, tree=tree)
        read = functools.partial(self._read, pinned=pinned, asked=asked, known=signed, tree=tree)
        so_far = Found(pinned, _between(version, _waiting(pinned, asked, signed)), signed)
        return await self._ask_pod(raw, version, so_far, live, wanted, read)

    def _to_fill(self, version: ModelVersion, pinned: ArtifactStatus) -> str | None:
        """The claim that the artifact is to be brought into now; None for none."""
        key = Key("ModelVersion", version.namespace, version.name)
        claim = self._context.to_cache.get(key)
        filled, until = self._filled.get(key, ("", 0.0))
        if claim is None:
            return None
        if pinned.cached == claim == filled and self._context.clock.monotonic() < until:
            # What pods say is from before. One that doesn't find it later says so again.
            del self._context.to_cache[key]
            return None
        return claim

    async def _fill(
        self, raw: Object, version: ModelVersion, pinned: ArtifactStatus, signed: SignatureStatus | None,
        asked: Signatures | None, live: Object | None, claim: str,
    ) -> Found:  # fmt: skip
        """What the pod says that brings the artifact into the shared cache."""
        proof = proofs.proof(self._model(version), version, pinned.digest, self._context.images)
        artifact, model = version.spec.artifact, version.spec.model_ref.name
        images = helpers.of_model(self._context.images, self._model(version))
        wanted = fill_pod(raw, model, artifact, images, pinned.digest, Kept(claim, proof))
        waiting = Verdict(
            Reason.WAITING_FOR_CACHE, f"the artifact is being brought into the cache on claim {claim}", reconciling=True
        )
        so_far = Found(pinned, _between(version, waiting), signed)
        read = functools.partial(
            self._read_fill, version=version, so_far=Found(pinned, waiting, signed), asked=asked, claim=claim
        )
        return await self._ask_pod(raw, version, so_far, live, wanted, read)

    def _read_fill(
        self, pod: Object, *, version: ModelVersion, so_far: Found, asked: Signatures | None, claim: str
    ) -> Found:
        """What became of the pod that fills the cache. `so_far`: what to say while it works."""
        done = speakers.status_of(pod, FETCH_CONTAINER).get("state", {}).get("terminated", {})
        if done.get("exitCode") != 0:
            return _trouble(pod, so_far)
        report, pinned = versions.told(pods.parse_report(done.get("message", ""))), so_far.artifact
        if pinned is None or report is None or report.digest != pinned.digest:
            text = "the pod that fills the cache ended without the digest of what it brought"
            return replace(so_far, verdict=Verdict(Reason.INTERNAL_ERROR, text, stalled=True))
        key = Key("ModelVersion", version.namespace, version.name)
        again = version.status.artifact is not None and version.status.artifact.cached == claim
        self._filled[key] = claim, self._context.clock.monotonic() + (REFILLED if again else LOOK_AT_POD)
        return _found(pinned.model_copy(update={"cached": claim}), so_far.signature, asked)

    async def _ask_pod(
        self, raw: Object, version: ModelVersion, so_far: Found, live: Object | None, wanted: Object,
        read: Callable[[Object], Found],
    ) -> Found:  # fmt: skip
        """What the resolve pod says. One that is not the very pod that was rendered is replaced, and says nothing.
        `so_far`: what to say until another pod is made."""
        tries, now = self._tries_of(version, wanted), self._context.clock.monotonic()
        why = speakers.disbelief(live, version.uid, wanted) if live is not None else None
        if live is not None and tries.refused and live["metadata"]["uid"] == tries.made:
            return replace(so_far, verdict=Verdict(Reason.RESOLVE_POD_CHANGED, tries.refused, stalled=True))
        if live is not None and (why is not None or _failed(live) or is_placed_otherwise(wanted, live)):
            await remove(self._context, live)
            self._lose(raw, tries, live, why, now)
            live = None
        elif live is None and tries.made:
            self._lose(raw, tries, None, None, now)
        if live is None:
            if now < tries.not_before:
                return replace(so_far, look=tries.not_before - now)
            waiting = self._in_line(raw, version, so_far, now)
            if waiting is not None:
                return waiting
            try:
                live, _ = await ensure(self._context, wanted)
            except Refused as refused:
                # Nothing wakes it when there is room in a quota, or a right is given.
                verdict = Verdict(refused.problem.reason, refused.problem.message, stalled=True)
                return replace(so_far, verdict=verdict, look=LOOK_IN_LINE)
            finally:
                self._context.turns.made(version.namespace, kinds.MODEL_VERSION.kind, version.name)
            tries.made, tries.refused = live["metadata"]["uid"], ""
            why = speakers.disbelief(live, version.uid, wanted)
            if why is not None:
                # Another one would become so too.
                tries.refused = f"the resolve pod is not as it was rendered: {why}"
                return replace(so_far, verdict=Verdict(Reason.RESOLVE_POD_CHANGED, tries.refused, stalled=True))
        found = guarded(
            live,
            functools.partial(read, live),
            lambda text: replace(so_far, verdict=Verdict(Reason.INTERNAL_ERROR, text, stalled=True)),
        )
        if tries.rested and found.verdict.reconciling:
            return replace(found, verdict=so_far.verdict)
        if pods.fetch_failure(speakers.status_of(live, FETCH_CONTAINER)) is None:
            return found
        if _restarts(live) >= (MOST_RESTARTS if not tries.rested else 1):
            # It would stay in CrashLoopBackOff for good. Another one tries, now and then.
            await remove(self._context, live)
            tries.made, tries.rested, tries.not_before = "", True, now + REST
            return replace(found, look=REST)
        return found

    def _in_line(self, raw: Object, version: ModelVersion, so_far: Found, now: float) -> Found | None:
        """What to say while the namespace has as many resolve pods as it may; None when it is this version's turn."""
        turns, namespace = self._context.turns, version.namespace
        created = str(raw["metadata"].get("creationTimestamp", ""))
        claim = Claim(self._rank(version), created, kinds.MODEL_VERSION.kind, version.name)
        before = turns.take(namespace, claim, routing.resolving(self._context.store, namespace), now)
        if before is None:
            return None
        text = (
            f"{turns.most} resolve pods may be under way in a namespace at once, of which some are kept for versions "
            "that a Model wants; it is made when others have ended"
        )
        verdict = so_far.verdict
        if verdict.reconciling:
            verdict = Verdict(Reason.WAITING_FOR_TURN, text, reconciling=True)
        return replace(so_far, verdict=verdict, look=LOOK_AT_POD if before < 2 * turns.most else LOOK_IN_LINE)

    def _rank(self, version: ModelVersion) -> int:
        """Who wants it: a Model that serves nothing yet goes first, and versions that no Model names go last."""
        if Key("ModelVersion", version.namespace, version.name) in self._context.to_cache:
            return WANTED
        model = self._model(version)
        status, asked = model.get("status") or {}, (model.get("spec") or {}).get("version") or {}
        if version.name not in (asked.get("name"), (status.get("target") or {}).get("version")):
            return OTHERS
        return WANTED if status.get("serving") else STARTS

    def _call_next(self, namespace: str, now: Found | None) -> None:
        """A pod of the namespace may have ended: whose turn is next looks at once."""
        turns, waits = self._context.turns, now is not None and now.verdict.reason == Reason.WAITING_FOR_TURN
        first = None if waits else turns.first(namespace)
        if first is not None and routing.resolving(self._context.store, namespace) < turns.most:
            self._context.wake(Key(first.kind, namespace, first.name))

    def _tries_of(self, version: ModelVersion, wanted: Object) -> _Tries:
        """What is known of resolve pods like `wanted`; others, by other keys say, are another matter."""
        key, of = Key("ModelVersion", version.namespace, version.name), names.content_hash(wanted)
        if key not in self._tries or self._tries[key].of != of:
            self._tries[key] = _Tries(of)
        return self._tries[key]

    def _lose(self, raw: Object, tries: _Tries, other: Object | None, why: str | None, now: float) -> None:
        """The resolve pod has gone away, or another one is in its place."""
        replaced = why is not None and other is not None and tries.made not in ("", other["metadata"]["uid"])
        tries.made, tries.lost = "", tries.lost + 1
        if tries.lost >= FEW_LOST:
            tries.not_before = now + min(2.0 ** min(tries.lost - FEW_LOST, 10), MOST_PAUSE)
        if tries.lost < FEW_LOST and not replaced:
            # Nodes go away, and an operator of another version has made other pods.
            return
        what = "failed: it was evicted, or its node is lost" if other is not None else "went away"
        what = f"was replaced by a pod that is not believed ({why})" if why is not None else what
        text = (
            f"the resolve pod {what} before it had said anything; that is {tries.lost} in a row: see who deletes or "
            "creates pods in this namespace"
        )
        self._context.events.record(raw, "Warning", Reason.RESOLVE_POD_LOST, text)

    def _resolve_pod(self, version: ModelVersion) -> Object | None:
        name = names.resolve_pod_name(version.name, version.uid)
        found = self._context.store.get(kinds.POD, version.namespace, name)
        # Another's pod of that name is not believed; making ours says that the name is taken.
        return found if found is not None and controlled_by(found, version.uid) else None

    def _read(
        self, pod: Object, *, pinned: ArtifactStatus | None, asked: Signatures | None, known: SignatureStatus | None,
        tree: bool,
    ) -> Found:  # fmt: skip
        """What the pod has found out. `known` is what stands of an earlier finding on the signature."""
        status = speakers.status_of(pod, FETCH_CONTAINER)
        done = status.get("state", {}).get("terminated", {})
        if done.get("exitCode") == 0:
            report = pods.parse_report(done.get("message", ""))
            found = versions.told(report)
            if found is None:
                text = "the resolve pod ended without a digest"
                return Found(pinned, Verdict(Reason.INTERNAL_ERROR, text, stalled=True), known)
            if tree and found.tree is None:
                text = "the resolve pod ended without the digest of the artifact's files"
                return Found(pinned, Verdict(Reason.INTERNAL_ERROR, text, stalled=True), known)
            signature = (report or {}).get("signature")
            signed = known or (signatures.told(asked, found.digest, signature) if asked is not None else None)
            if asked is not None and signed is None:
                text = "the resolve pod ended without a word on the signature"
                return Found(pinned, Verdict(Reason.INTERNAL_ERROR, text, stalled=True))
            admission = self._context.admission(pod["metadata"]["namespace"])
            if asked is not None and not admission.in_force:
                # Others may be able to make a pod that says what they like.
                if known is not None and pinned is not None:
                    return replace(_found(pinned, known, asked), look=LOOK_AT_POD)
                text = admission.problem or "whether the admission policies are in force is being found out"
                return Found(
                    pinned,
                    Verdict(
                        Reason.ADMISSION_POLICY_MISSING, f"the signature does not count: {text}",
                        stalled=admission.in_force is False, reconciling=admission.in_force is None,
                    ),
                    look=LOOK_AT_POD,
                )  # fmt: skip
            # The pod goes when status has what it said, by the pass that the write wakes.
            return _found(found, signed, asked)
        return _trouble(pod, Found(pinned, _waiting(pinned, asked, known), known))

    async def _refuse(self, raw: Object, error: InvalidObject) -> Result:
        now: datetime = self._context.clock.now()
        generation = raw["metadata"].get("generation", 0)
        old = ModelVersionStatus.model_validate(raw.get("status") or {})
        verdict = Verdict(Reason.INVALID_SPEC, error.message, stalled=True)
        status = old.model_copy(
            update={
                "observed_generation": generation,
                "failure": VersionFailure(reason=verdict.reason, message=verdict.message),
                "conditions": conditions(old.conditions, verdict, None, generation=generation, now=now),
            }
        )
        await write_status(self._context, raw, status, old)
        return Result()


def _needs_no_status(raw: Object, version: ModelVersion, status: ModelVersionStatus) -> bool:
    """Whether all there is to report stands in the spec already: so it does for a version that its Model has stamped
    with a digest. What the Model does with it is in the Model's status."""
    owners = raw["metadata"].get("ownerReferences") or ()
    stamped = any(ref.get("controller") and ref.get("kind") == "Model" for ref in owners)
    pinned = status.artifact is not None and status.artifact == ArtifactStatus(
        digest=version.spec.artifact.digest or ""
    )
    reports = status.failure or status.stage or status.signature or find(status.conditions, ConditionType.VERIFIED)
    reported = version.status.observed_generation is not None
    return stamped and pinned and not reports and not reported


def _trouble(pod: Object, so_far: Found) -> Found:
    """What is wrong with a pod that has not ended well; `so_far` while nothing is."""
    told = pods.fetch_failure(speakers.status_of(pod, FETCH_CONTAINER))
    if told is not None:
        # It stands until a try succeeds: else each new try would take back what a person has to see.
        reason, message = told
        text = f"spec.artifact.uri: {message}" if reason in reasons.FETCH_REASONS else message
        return replace(so_far, verdict=Verdict(reason, text, stalled=True))
    failure = pods.diagnose([pod])
    if failure is not None:
        return replace(so_far, verdict=Verdict(failure.reason, failure.message, stalled=True))
    return so_far


def _found(artifact: ArtifactStatus, signed: SignatureStatus | None, asked: Signatures | None) -> Found:
    if signed is not None and asked is not None and asked.mode == "Enforce" and not signed.verified:
        text = f"the Model's spec.signatures refuses it: {signed.message}"
        return Found(artifact, Verdict(signed.reason, text, stalled=True), signed)
    return Found(
        artifact, Verdict(Reason.DIGEST_PINNED, f"only content with digest {artifact.digest} will serve"), signed
    )


def _verified(signed: SignatureStatus | None) -> tuple[bool | None, str, str]:
    if signed is None:
        return None, Reason.WAITING_FOR_SIGNATURE, "the signature of the artifact is not verified yet"
    return signed.verified, signed.reason, signed.message


def _failed(pod: Object) -> bool:
    """Evicted, or its node is lost: a pod never comes back from that by itself."""
    return bool(pod.get("status", {}).get("phase") == "Failed")


def _restarts(pod: Object) -> int:
    """How often the fetch container was started again."""
    return int(speakers.status_of(pod, FETCH_CONTAINER).get("restartCount") or 0)


def _between(version: ModelVersion, so_far: Verdict) -> Verdict:
    """What to say until another resolve pod is made: what the last one has said stands."""
    failure = version.status.failure
    return so_far if failure is None else Verdict(failure.reason, failure.message, stalled=True)


def _waiting(pinned: ArtifactStatus | None, asked: Signatures | None, known: SignatureStatus | None) -> Verdict:
    """What the resolve pod is asked for."""
    if pinned is None:
        return Verdict(Reason.WAITING_FOR_DIGEST, "the artifact's digest is being found out", reconciling=True)
    if asked is not None and known is None:
        text = "the signature of the artifact is being verified"
        return Verdict(Reason.WAITING_FOR_SIGNATURE, text, reconciling=True)
    text = "the digest of the artifact's files, which proves them in the cache, is being found out"
    return Verdict(Reason.WAITING_FOR_DIGEST, text, reconciling=True)
