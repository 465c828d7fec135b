"""ModelVersion: pins the artifact's digest and keeps status and stage."""

from datetime import datetime
from typing import Any

from modelwright.api import names, reasons
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.version import ArtifactStatus, ModelVersion, ModelVersionStatus, VersionFailure
from modelwright.core import pods, versions
from modelwright.core.status.summarize import Verdict, conditions
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.runner import Result
from modelwright.reconcile import rollouts
from modelwright.reconcile.children import Refused, ensure, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.report import write_status
from modelwright.serving.fetching import resolve_pod

Object = dict[str, Any]

LOOK_AT_POD = 10.0


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
        artifact, verdict = await self._pin(raw, version)
        old = version.status
        failure = VersionFailure(reason=verdict.reason, message=verdict.message) if verdict.stalled else None
        status = ModelVersionStatus(
            observed_generation=version.generation,
            artifact=artifact,
            stage=self._stage(version),
            failure=failure,
            conditions=conditions(
                old.conditions, verdict, None, generation=version.generation, now=self._context.clock.now()
            ),
        )
        news = (artifact, failure) != (old.artifact, old.failure)
        if await write_status(self._context, raw, status, old):
            if news:
                self._context.wake(Key("Model", key.namespace, version.spec.model_ref.name))
            if version.spec.lineage is not None and version.spec.lineage.training_run and status.stage != old.stage:
                # It tells what became of its version, and its policy counts one that was taken back.
                self._context.wake(Key("TrainingRun", key.namespace, version.spec.lineage.training_run))
        return Result(LOOK_AT_POD if verdict.reconciling else None)

    async def _pin(self, raw: Object, version: ModelVersion) -> tuple[ArtifactStatus | None, Verdict]:
        """The digest, from the spec, from status, or from a resolve pod; and what to say about it."""
        known = version.status.artifact
        digest = versions.pinned_digest(version.spec.artifact, known.digest if known else None)
        live = self._resolve_pod(version)
        if digest is not None:
            if live is not None:
                await remove(self._context, live)
            same = known if known is not None and known.digest == digest else ArtifactStatus(digest=digest)
            return same, Verdict(Reason.DIGEST_PINNED, f"only content with digest {digest} will serve")
        if live is not None and live.get("status", {}).get("phase") == "Failed":
            # Evicted, or its node is lost: a pod never comes back from that by itself.
            await remove(self._context, live)
            live = None
        if live is None:
            wanted = resolve_pod(raw, version.spec.model_ref.name, version.spec.artifact, self._context.images)
            try:
                live, _ = await ensure(self._context, wanted)
            except Refused as refused:
                return None, Verdict(refused.problem.reason, refused.problem.message, stalled=True)
        return await self._read(live)

    def _resolve_pod(self, version: ModelVersion) -> Object | None:
        name = names.resolve_pod_name(version.name, version.uid)
        return self._context.store.get(kinds.POD, version.namespace, name)

    async def _read(self, pod: Object) -> tuple[ArtifactStatus | None, Verdict]:
        status: Object = next(iter(pod.get("status", {}).get("containerStatuses", [])), {})
        done = status.get("state", {}).get("terminated", {})
        if done.get("exitCode") == 0:
            report = pods.parse_report(done.get("message", "")) or {}
            if isinstance(report.get("digest"), str):
                await remove(self._context, pod)
                digest, size = report["digest"], report.get("sizeBytes")
                return (
                    ArtifactStatus(digest=digest, size_bytes=size if isinstance(size, int) else None),
                    Verdict(Reason.DIGEST_PINNED, f"only content with digest {digest} will serve"),
                )
            return None, Verdict(Reason.INTERNAL_ERROR, "the resolve pod ended without a digest", stalled=True)
        told = pods.fetch_failure(status)
        if told is not None:
            # It stands until a try succeeds: else each new try would take back what a person has to see.
            reason, message = told
            text = f"spec.artifact.uri: {message}" if reason in reasons.FETCH_REASONS else message
            return None, Verdict(reason, text, stalled=True)
        failure = pods.diagnose([pod])
        if failure is not None:
            return None, Verdict(failure.reason, failure.message, stalled=True)
        return None, Verdict(Reason.WAITING_FOR_DIGEST, "the artifact's digest is being found out", reconciling=True)

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
