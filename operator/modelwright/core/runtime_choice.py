"""Choice of the runtime that serves a model format, with its reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import RuntimeRef
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime, ModelRuntime, RuntimeSpec, SupportedFormat
from modelwright.api.v1alpha1.version import ModelFormat
from modelwright.core.problem import Problem

NAMESPACED_KIND = "ModelRuntime"
CLUSTER_KIND = "ClusterModelRuntime"


@dataclass(frozen=True, slots=True)
class RuntimeCandidate:
    """An existing runtime: its kind, name, spec and generation."""

    kind: str
    name: str
    spec: RuntimeSpec
    generation: int = 0


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """The chosen runtime, the format entry that matched, and the reason as a sentence."""

    runtime: RuntimeCandidate
    format: SupportedFormat
    reason: str


def parse_candidates(
    namespaced: Iterable[Mapping[str, Any]], shared: Iterable[Mapping[str, Any]]
) -> list[RuntimeCandidate]:
    """Parse the ModelRuntimes of a namespace and the cluster's; one too new for this program is left out."""
    parsed = []
    for kind, objects in ((ModelRuntime, namespaced), (ClusterModelRuntime, shared)):
        for obj in objects:
            try:
                runtime = kind.parse(obj)
            except InvalidObject:
                continue
            parsed.append(RuntimeCandidate(kind.__name__, runtime.name, runtime.spec, runtime.generation))
    return parsed


def choose_runtime(
    wanted: ModelFormat, ref: RuntimeRef | None, candidates: Iterable[RuntimeCandidate]
) -> RuntimeChoice | Problem:
    """Choose the runtime for a format: the one that `ref` names, else the best of those with automatic selection.

    They rank by scope (a namespace's own before the cluster's), then by priority, then by name, so that two equal ones
    always give the same answer.
    """
    known = list(candidates)
    return _choose_named(wanted, ref, known) if ref is not None else _choose_best(wanted, known)


def _choose_named(wanted: ModelFormat, ref: RuntimeRef, known: list[RuntimeCandidate]) -> RuntimeChoice | Problem:
    name = f"{ref.kind} {ref.name}"
    runtime = next((c for c in known if c.kind == ref.kind and c.name == ref.name), None)
    if runtime is None:
        return Problem(Reason.WAITING_FOR_RUNTIME, f"spec.serving.runtimeRef: there is no {name}")
    if runtime.spec.disabled:
        return Problem(
            Reason.RUNTIME_DISABLED, f"spec.serving.runtimeRef: {name} is disabled (its spec.disabled)", True
        )
    entry = _find_format(runtime.spec, wanted)
    if entry is None:
        listed = ", ".join(_format_name_versions(f.name, f.versions) for f in runtime.spec.formats)
        text = f"spec.serving.runtimeRef: {name} does not serve format {_format_wanted(wanted)}; it serves {listed}"
        return Problem(Reason.RUNTIME_DOES_NOT_SUPPORT_FORMAT, text, True)
    return RuntimeChoice(runtime, entry, f"{name}: named by spec.serving.runtimeRef")


def _choose_best(wanted: ModelFormat, known: list[RuntimeCandidate]) -> RuntimeChoice | Problem:
    offers = []
    for candidate in known:
        entry = None if candidate.spec.disabled else _find_format(candidate.spec, wanted, automatic=True)
        if entry is not None:
            offers.append(((candidate.kind != NAMESPACED_KIND, -entry.priority, candidate.name), candidate, entry))
    if not offers:
        formats = sorted({f.name for c in known if not c.spec.disabled for f in c.spec.formats})
        text = f"no runtime serves format {_format_wanted(wanted)} of spec.artifact.format; formats on offer: " + (
            ", ".join(formats) or "none, because no ModelRuntime or ClusterModelRuntime exists"
        )
        return Problem(Reason.NO_SUPPORTING_RUNTIME, text, stalled=True)
    offers.sort(key=lambda offer: offer[0])
    _, best, entry = offers[0]
    reason = f"{best.kind} {best.name}: format {wanted.name}, priority {entry.priority}"
    others = [f"{c.name} (priority {e.priority})" for _, c, e in offers[1:4]]
    if others:
        reason += f"; also matched: {', '.join(others)}" + (", ..." if len(offers) > 4 else "")
        runner_up = offers[1]
        if runner_up[0][:2] == offers[0][0][:2]:
            reason += "; equal in priority, so the name decided"
    return RuntimeChoice(best, entry, reason)


def _find_format(spec: RuntimeSpec, wanted: ModelFormat, *, automatic: bool = False) -> SupportedFormat | None:
    for entry in spec.formats:
        if entry.name != wanted.name or (automatic and not entry.auto_select):
            continue
        if not entry.versions or wanted.version is None or wanted.version in entry.versions:
            return entry
    return None


def _format_wanted(wanted: ModelFormat) -> str:
    return _format_name_versions(wanted.name, [wanted.version] if wanted.version else None)


def _format_name_versions(name: str, versions: Iterable[str] | None) -> str:
    listed = "/".join(versions or ())
    return f"{name} {listed}" if listed else name
