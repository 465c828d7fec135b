"""ModelVersion: pins the artifact's digest, has its signature verified, and keeps status and stage."""

from dataclasses import dataclass
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
from modelwright.core import pods, signatures, versions
from modelwright.core.status.summarize import Verdict, conditions
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.runner import Result
from modelwright.reconcile import rollouts
from modelwright.reconcile.children import Refused, controlled_by, ensure, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.report import write_status
from modelwright.serving.fetching import resolve_pod

Object = dict[str, Any]

LOOK_AT_POD = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a version's content, and what to say about it."""

    artifact: ArtifactStatus | None
    verdict: Verdict
    signature: SignatureStatus | None = None


class ModelVersionReconciler:
    """Brings one ModelVersion a step further per pass."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> Result:
        """One pass over the ModelVersion of this key."""
        raw = self._context.store.get(kinds.MODEL_VERSION, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            return Result()
        try:
            version = ModelVersion.parse(raw)
        except InvalidObject as error:
            return await self._refuse(raw, error)
        asked = self._asked(version)
        found = await self._pin(raw, version, asked)
        old, verdict = version.status, found.verdict
        failure = VersionFailure(reason=verdict.reason, message=verdict.message) if verdict.stalled else None
        status = ModelVersionStatus(
            observed_generation=version.generation,
            artifact=found.artifact,
            signature=found.signature,
            stage=self._stage(version),
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
        news = (status.artifact, status.signature, failure) != (old.artifact, old.signature, old.failure)
        if await write_status(self._context, raw, status, old):
            if news:
                self._context.wake(Key("Model", key.namespace, version.spec.model_ref.name))
            if version.spec.lineage is not None and version.spec.lineage.training_run and status.stage != old.stage:
                # It tells what became of its version, and its policy counts one that was taken back.
                self._context.wake(Key("TrainingRun", key.namespace, version.spec.lineage.training_run))
            self._tell(raw, old, status)
        return Result(LOOK_AT_POD if verdict.reconciling else None)

    def _asked(self, version: ModelVersion) -> Signatures | None:
        """Whose signature the version's Model asks for."""
        owner = self._context.store.get(kinds.MODEL, version.namespace, version.spec.model_ref.name) or {}
        asked = (owner.get("spec") or {}).get("signatures")
        try:
            return Signatures.model_validate(asked) if asked is not None else None
        except ValidationError:
            # The Model is refused for that, so that nothing of it moves.
            return None

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
        if pinned is not None and (asked is None or signed is not None):
            if live is not None:
                await remove(self._context, live)
            return _found(pinned, signed, asked)
        keys = {key.name: key.pem for key in asked.public_keys} if asked is not None else {}
        model, images = version.spec.model_ref.name, self._context.images
        wanted = resolve_pod(raw, model, version.spec.artifact, images, digest=digest, keys=keys)
        if live is not None and (_failed(live) or _arguments(live) != _arguments(wanted)):
            await remove(self._context, live)
            live = None
        if live is None:
            try:
                live, _ = await ensure(self._context, wanted)
            except Refused as refused:
                return Found(pinned, Verdict(refused.problem.reason, refused.problem.message, stalled=True))
        return await self._read(live, pinned, asked)

    def _resolve_pod(self, version: ModelVersion) -> Object | None:
        name = names.resolve_pod_name(version.name, version.uid)
        found = self._context.store.get(kinds.POD, version.namespace, name)
        # Another's pod of that name is not believed; making ours says that the name is taken.
        return found if found is not None and controlled_by(found, version.uid) else None

    async def _read(self, pod: Object, pinned: ArtifactStatus | None, asked: Signatures | None) -> Found:
        status: Object = next(iter(pod.get("status", {}).get("containerStatuses", [])), {})
        done = status.get("state", {}).get("terminated", {})
        if done.get("exitCode") == 0:
            report = pods.parse_report(done.get("message", ""))
            found = versions.told(report)
            if found is None:
                return Found(
                    pinned, Verdict(Reason.INTERNAL_ERROR, "the resolve pod ended without a digest", stalled=True)
                )
            signature = (report or {}).get("signature")
            signed = signatures.told(asked, found.digest, signature) if asked is not None else None
            if asked is not None and signed is None:
                text = "the resolve pod ended without a word on the signature"
                return Found(pinned, Verdict(Reason.INTERNAL_ERROR, text, stalled=True))
            # The pod goes when status has what it said, by the pass that the write wakes.
            return _found(found, signed, asked)
        told = pods.fetch_failure(status)
        if told is not None:
            # It stands until a try succeeds: else each new try would take back what a person has to see.
            reason, message = told
            text = f"spec.artifact.uri: {message}" if reason in reasons.FETCH_REASONS else message
            return Found(pinned, Verdict(reason, text, stalled=True))
        failure = pods.diagnose([pod])
        if failure is not None:
            return Found(pinned, Verdict(failure.reason, failure.message, stalled=True))
        if pinned is not None:
            text = "the signature of the artifact is being verified"
            return Found(pinned, Verdict(Reason.WAITING_FOR_SIGNATURE, text, reconciling=True))
        return Found(
            None, Verdict(Reason.WAITING_FOR_DIGEST, "the artifact's digest is being found out", reconciling=True)
        )

    def _stage(self, version: ModelVersion) -> str:
        store, model = self._context.store, version.spec.model_ref.name
        owner = store.get(kinds.MODEL, version.namespace, model) or {}
        serving = ((owner.get("status") or {}).get("serving") or {}).get("version")
        stored = [
            str((obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_VERSION_NAME))
            for obj in store.by_model(kinds.CONTROLLER_REVISION, version.namespace, model)
        ]
        taken_back = rollouts.taken_back(self._context, version.namespace, model, version.name)
        return versions.stage(version.name, version.status.stage, serving, stored, taken_back)

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


def _arguments(pod: Object) -> list[str]:
    return list(pod["spec"]["containers"][0].get("args", []))
