"""Resolves the revision that a Model goes to: version, digest, runtime, and the stored pod template."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.conditions import ConditionType, find_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import runtime_choice, signatures, versions
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.candidate_authors import approved_runtime
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.record_lifecycle import is_released_by_spec
from modelwright.core.runtime_choice import RuntimeCandidate, RuntimeChoice
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.reconcile import artifact_cache, watches
from modelwright.reconcile.context import Context
from modelwright.reconcile.model.rollout_history import RolloutHistory
from modelwright.reconcile.model.snapshot import ModelChildren, ModelGoal, RevisionPlan
from modelwright.render import stored_revision as revisions
from modelwright.render.fetch_container import CacheProof
from modelwright.render.revision_input import RevisionInput
from modelwright.render.strategic_merge import MergeError

Object = dict[str, Any]
Target = RevisionPlan | Revision | Problem | versions.VersionToCreate

MAX_VERSIONS_READ = 19
"""Newest versions of a following Model that one reconciliation reads at most, beside the serving one."""


def resolve_goal(
    context: Context, raw: Object, model: Model, children: ModelChildren, history: RolloutHistory
) -> ModelGoal:
    """Decide where the Model goes; a manual rollback in force takes precedence over spec.version."""
    target = _with_approved_runtime(history.newest, _resolve_target(context, raw, model, children), children.stored)
    rollback = history.manual_rollback
    held: Target | None = None
    if rollback is not None:
        held = _resolve_rollback(context, raw, model, children, rollback)
        if is_released_by_spec(rollback, model):
            held = None
    goes_to = target if held is None else held
    return ModelGoal(
        revision=_revision_of(goes_to),
        problem=goes_to if isinstance(goes_to, Problem) else None,
        plan=target if isinstance(target, RevisionPlan) else None,
        manual_plan=held if isinstance(held, RevisionPlan) else None,
        version_to_create=target if isinstance(target, versions.VersionToCreate) else None,
    )


def revision_of_child(child: Object) -> Revision:
    """The revision that a child's label and annotation name."""
    metadata = child["metadata"]
    version = (metadata.get("annotations") or {}).get(names.ANNOTATION_VERSION_NAME, "")
    return Revision(version, metadata["labels"][names.LABEL_REVISION])


def _revision_of(target: Target) -> Revision | None:
    if isinstance(target, RevisionPlan):
        return target.revision
    return target if isinstance(target, Revision) else None


def _resolve_target(
    context: Context, raw: Object, model: Model, children: ModelChildren
) -> RevisionPlan | Problem | versions.VersionToCreate:
    version = _find_target_version(context, model)
    if not isinstance(version, ModelVersion):
        return version
    return _plan_version(context, raw, model, children, version)


def _resolve_rollback(
    context: Context, raw: Object, model: Model, children: ModelChildren, rollback: RolloutRecord
) -> RevisionPlan | Revision | Problem:
    """Where a manual rollback goes: to the stored revision that last served the version, else to a new one of it."""
    stored = children.stored
    if rollback.candidate is not None and rollback.candidate.hash in stored:
        return rollback.candidate
    wanted = rollback.spec.target
    of_version = [obj for obj in stored.values() if revision_of_child(obj).version == wanted.version]
    if of_version and wanted.revision is None and rollback.candidate is None:
        return revision_of_child(max(of_version, key=lambda obj: int(obj.get("revision", 0))))
    raw_version = context.store.get(kinds.MODEL_VERSION, model.namespace, wanted.version)
    if raw_version is None:
        text = f"ModelRollout {rollback.name}: spec.target.version: there is no ModelVersion {wanted.version}"
        return Problem(Reason.WAITING_FOR_VERSION, text)
    try:
        version = ModelVersion.parse(raw_version)
    except InvalidObject as error:
        return Problem(Reason.INVALID_SPEC, str(error), stalled=True)
    if version.spec.model_ref.name != model.name:
        text = f"ModelRollout {rollback.name}: ModelVersion {wanted.version} is not a version of this Model"
        return Problem(Reason.VERSION_OF_ANOTHER_MODEL, text, stalled=True)
    plan = _plan_version(context, raw, model, children, version)
    if isinstance(plan, RevisionPlan) and wanted.revision not in (None, plan.revision.hash):
        text = (
            f"ModelRollout {rollback.name}: spec.target.revision: {wanted.revision} is not kept any more; leave it out "
            f"to have version {wanted.version} served as the Model's spec is now"
        )
        return Problem(Reason.INVALID_SPEC, text, stalled=True)
    return plan


def _with_approved_runtime(
    record: RolloutRecord | None,
    target: RevisionPlan | Problem | versions.VersionToCreate,
    stored: Mapping[str, Object],
) -> RevisionPlan | Problem | versions.VersionToCreate:
    """The target as it was approved: a runtime that was edited since then is not used."""
    if not isinstance(target, RevisionPlan):
        return target
    approved = approved_runtime(record, target.revision)
    if approved in (None, target.stored["data"].get("runtime", {}).get("content")):
        return target
    approved_template = stored.get(target.revision.hash)
    if approved_template is not None:
        return replace(target, stored=approved_template)
    runtime = target.choice.runtime
    text = (
        f"{runtime.kind} {runtime.name} was edited after its approval; restore it, or set "
        "spec.serving.restartedAt of the Model, so that its present content is approved"
    )
    return Problem(Reason.AWAITING_APPROVAL, text, stalled=True)


def _find_target_version(context: Context, model: Model) -> ModelVersion | versions.VersionToCreate | Problem:
    source, namespace = model.spec.version, model.namespace
    serving = model.status.serving
    if source.follow is not None:
        known, unreadable = _read_eligible_versions(context, model)
        if not known and unreadable is not None:
            text = f"spec.version.follow: none of the newest versions can be read; {unreadable}"
            return Problem(Reason.INVALID_SPEC, text, stalled=True)
    else:
        name = source.name or versions.generated_name(model.name, source)
        raw = context.store.get(kinds.MODEL_VERSION, namespace, name)
        try:
            known = [ModelVersion.parse(raw)] if raw else []
        except InvalidObject as error:
            return Problem(Reason.INVALID_SPEC, str(error), stalled=True)
    if serving is None:
        return versions.resolve_target(model.name, source, known, None)
    return versions.resolve_target(model.name, source, known, serving.version, serving.since)


def _read_eligible_versions(context: Context, model: Model) -> tuple[list[ModelVersion], InvalidObject | None]:
    """The newest version that a following Model may take, and the serving one; and why newer ones can't be read.

    A Model may have many versions: the store knows which are eligible, and in which order, without parsing them.
    """
    selector = model.spec.version.follow.selector if model.spec.version.follow is not None else None
    labels = selector.match_labels if selector is not None else {}
    serving = model.status.serving
    known: dict[str, ModelVersion] = {}
    unreadable = None
    current = context.store.get(kinds.MODEL_VERSION, model.namespace, serving.version) if serving is not None else None
    if current is not None:
        with contextlib.suppress(InvalidObject):
            known[serving.version if serving else ""] = ModelVersion.parse(current)
    for place in watches.eligible_versions(context.store, model.namespace, model.name, labels)[:MAX_VERSIONS_READ]:
        raw = context.store.get(kinds.MODEL_VERSION, *place)
        try:
            if raw is not None:
                known[place[1]] = ModelVersion.parse(raw)
                break
        except InvalidObject as error:
            unreadable = unreadable or error
    return list(known.values()), unreadable


def _plan_version(
    context: Context, raw: Object, model: Model, children: ModelChildren, version: ModelVersion
) -> RevisionPlan | Problem:
    """The revision that runs this version, or what is missing for it."""
    signers, resolved = model.spec.signatures, version.status.artifact
    digest = signatures.known_digest(version.spec.artifact, resolved.digest if resolved is not None else None, signers)
    if digest is None:
        return _missing_digest(context, model, version)
    served = model.status.serving
    problem = signatures.signature_problem(signers, version, digest, served.version if served is not None else None)
    if problem is not None:
        return problem
    choice = runtime_choice.choose_runtime(
        version.spec.artifact.format, model.spec.serving.runtime_ref, _list_runtimes(context, model.namespace)
    )
    if isinstance(choice, Problem):
        return choice
    endpoint = model.spec.endpoint
    if endpoint is not None and endpoint.protocol == "GRPC" and choice.runtime.spec.ports.grpc is None:
        runtime = f"{choice.runtime.kind} {choice.runtime.name}"
        text = f"spec.endpoint.protocol: {runtime} has no gRPC port (its spec.ports.grpc)"
        return Problem(Reason.PROTOCOL_NOT_SUPPORTED, text, stalled=True)
    return _plan_revision(context, raw, model, children, version, digest, choice)


def _missing_digest(context: Context, model: Model, version: ModelVersion) -> Problem:
    failure = version.status.failure
    if failure is not None:
        return Problem(failure.reason, f"ModelVersion {version.name}: {failure.message}", stalled=True)
    waiting = find_condition(version.status.conditions, ConditionType.RECONCILING)
    if waiting is not None and waiting.reason == Reason.WAITING_FOR_TURN:
        # Versions that a Model wants rank higher in the queue of resolve pods; this one may not know yet that it does.
        context.enqueue(Key("ModelVersion", model.namespace, version.name))
        return Problem(Reason.WAITING_FOR_TURN, f"ModelVersion {version.name}: {waiting.message}")
    return Problem(Reason.WAITING_FOR_DIGEST, f"ModelVersion {version.name}: its digest is being resolved")


def _plan_revision(
    context: Context,
    raw: Object,
    model: Model,
    children: ModelChildren,
    version: ModelVersion,
    digest: str,
    choice: RuntimeChoice,
) -> RevisionPlan | Problem:
    """The revision with its stored template; renders one where none is stored, or where the stored one never worked."""
    revision = revisions.identify_revision(version.name, version.spec, digest, choice, model.spec.serving)
    stored = children.stored.get(revision.hash)
    proof = artifact_cache.build_proof(raw, version, digest, context.images)
    outdated = revisions.outdated_reason(stored, choice, context.images, proof) if stored else None
    never_available = _was_never_available(model, revision, children.deployments.get(revision.hash))
    if stored is not None and not (outdated and never_available):
        return RevisionPlan(revision, version, digest, choice, stored, outdated)
    if _awaits_cache_proof(context, raw, version, digest, proof):
        text = f"ModelVersion {version.name}: the digest of its files is being computed"
        return Problem(Reason.WAITING_FOR_DIGEST, text)
    missing = artifact_cache.cache_problem(context, model.spec.serving, version)
    if missing is not None:
        return missing
    # A revision that never worked takes a repaired runtime at once: it serves no requests.
    number = 1 + max((obj.get("revision", 0) for obj in children.stored.values()), default=0)
    try:
        inputs = RevisionInput(revision, version.spec, digest, choice, model.spec.serving, proof)
        rendered = revisions.render_stored_revision(raw, inputs, context.images, number)
    except MergeError as error:
        return Problem(Reason.INVALID_POD_TEMPLATE, str(error), stalled=True)
    return RevisionPlan(revision, version, digest, choice, rendered, None)


def _list_runtimes(context: Context, namespace: str) -> list[RuntimeCandidate]:
    store = context.store
    return runtime_choice.parse_candidates(
        store.list(kinds.MODEL_RUNTIME, namespace), store.list(kinds.CLUSTER_MODEL_RUNTIME)
    )


def _awaits_cache_proof(context: Context, raw: Object, version: ModelVersion, digest: str, proof: CacheProof) -> bool:
    """Whether the proof of the pods' cache is still being computed. Where that fails, pods fetch the artifact again."""
    wanted = artifact_cache.needs_tree_digest(raw, version.spec.artifact, digest, context.images)
    return wanted and proof.tree is None and version.status.failure is None


def _was_never_available(model: Model, revision: Revision, deployment: Object | None) -> bool:
    served = model.status.serving is not None and model.status.serving.revision == revision.hash
    available = (deployment or {}).get("status", {}).get("availableReplicas", 0)
    return not served and not available
