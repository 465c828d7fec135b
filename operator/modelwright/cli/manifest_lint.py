"""Checks manifests before they are applied: by the API's types, by what a policy can decide, and by the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelwright.api.common import InvalidObject
from modelwright.api.crd.definition import KINDS
from modelwright.api.names import API_VERSION, GROUP
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.retraining import RetrainingPolicy
from modelwright.api.v1alpha1.runtime import AnyRuntime
from modelwright.cli import validation_text, yaml_source
from modelwright.core import endpoint_conflicts, margin_lint
from modelwright.core.rollout import policy_lint as rollouts
from modelwright.core.rollout.steps import compile_steps

Json = Mapping[str, Any]
Level = Literal["error", "warning", "note"]

_KINDS_BY_NAME = {kind.__name__: kind for kind in KINDS}
OFFLINE_NOTE = (
    "not checked without a server: names of other objects (versions, runtimes, policies, Gateways, "
    "Secrets), what the gateway can do, pod templates, what you may write"
)


@dataclass(frozen=True, slots=True)
class LintFinding:
    """A finding about one object. Level `error`: the object would be refused, or could not be followed."""

    place: str
    text: str
    level: Level
    file: str = ""
    line: int = 0
    """Counts from 1; 0 when unknown."""

    @property
    def is_error(self) -> bool:
        """Whether the object must not be applied."""
        return self.level == "error"

    @property
    def subject(self) -> str:
        """The object without the file: `Model iris`; empty for a whole file."""
        return self.place.removeprefix(self.file).removeprefix(": ")

    @property
    def location(self) -> str:
        """File, line and object: `iris.yaml:5: Model iris`."""
        parts = (f"{self.file}:{self.line}" if self.line else self.file, self.subject)
        return ": ".join(part for part in parts if part)


def lint_files(files: Iterable[tuple[str, str]], dry_run: Callable[[Json], str | None] | None) -> list[LintFinding]:
    """Check the documents of files, given as (name, text). `dry_run` returns why a server would refuse an object;
    None: no server. Objects of other kinds are skipped."""
    findings: list[LintFinding] = []
    objects: list[_PlacedObject] = []
    for name, text in files:
        findings += _lint_file(name, text, dry_run, objects)
    return [*findings, *_unknown_names(objects)]


def check_object(obj: Json) -> list[tuple[str, Level]]:
    """Check one object of ours, without a server."""
    return list(_check_document(obj, None))


@dataclass(frozen=True, slots=True)
class _PlacedObject:
    """One of our objects, with its place in the files."""

    file: str
    number: int
    document: yaml_source.YamlDocument

    @property
    def content(self) -> Json:
        content: Json = self.document.content
        return content

    @property
    def name(self) -> str:
        return str(_metadata_of(self.content).get("name") or "")

    @property
    def key(self) -> tuple[str, str]:
        """Kind and namespace."""
        return str(self.content.get("kind")), str(_metadata_of(self.content).get("namespace") or "")

    def build_finding(self, text: str, level: Level, line: int | None = None) -> LintFinding:
        place = f"{self.file}: {self.content.get('kind')} {self.name or f'(document {self.number})'}"
        at = self.document.line_of(yaml_source.parse_path(text)) if line is None else line
        return LintFinding(place, text, level, self.file, at)


def _metadata_of(content: Json) -> Json:
    metadata = content.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _lint_file(
    name: str, text: str, dry_run: Callable[[Json], str | None] | None, objects: list[_PlacedObject]
) -> Iterator[LintFinding]:
    try:
        documents = list(yaml_source.read_documents(text))
    except yaml_source.InvalidYaml as error:
        yield LintFinding(name, f"is not YAML: {error}", "error", name, error.line)
        return
    for number, whole in enumerate(documents, start=1):
        for document in whole.list_items():
            content = document.content
            if not isinstance(content, Mapping) or not str(content.get("apiVersion", "")).startswith(f"{GROUP}/"):
                continue
            placed = _PlacedObject(name, number, document)
            objects.append(placed)
            for path, line in document.repeated_fields():
                yield placed.build_finding(
                    f"{_format_path(path)}: occurs twice, and only the last one counts", "error", line
                )
            yield from (placed.build_finding(text, level) for text, level in _check_document(content, dry_run))


def _format_path(path: yaml_source.FieldPath) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


_DIGITS = re.compile(r"\d+")
_REFERENCES = {
    "Model": (
        (("spec", "version", "name"), "ModelVersion"),
        (("spec", "rolloutPolicyRef", "name"), "RolloutPolicy"),
    ),
    "ModelVersion": ((("spec", "modelRef", "name"), "Model"),),
    "RetrainingPolicy": ((("spec", "modelRef", "name"), "Model"),),
    "TrainingRun": ((("spec", "policyRef", "name"), "RetrainingPolicy"),),
}
"""Fields that name another object in the same namespace, with its kind."""


def _unknown_names(objects: list[_PlacedObject]) -> Iterator[LintFinding]:
    """Yield references to a missing name that closely resembles an existing one."""
    names: dict[tuple[str, str], set[str]] = {}
    for placed in objects:
        names.setdefault(placed.key, set()).add(placed.name)
    for placed in objects:
        kind, namespace = placed.key
        for path, wanted in _REFERENCES.get(kind, ()):
            known, name = names.get((wanted, namespace), set()), _value_at(placed.content, path)
            if not isinstance(name, str) or name in known:
                continue
            near = validation_text.closest_name(name, known)
            # Names of versions differ by a number, and the cluster may have the other one.
            if near is not None and _DIGITS.sub("", near) != _DIGITS.sub("", name):
                text = f"{_format_path(path)}: no {wanted} {name} is in these files; did you mean {near}?"
                yield placed.build_finding(text, "warning", placed.document.line_of(path))


def _value_at(content: Any, path: yaml_source.FieldPath) -> Any:
    for step in path:
        content = content.get(step) if isinstance(content, Mapping) else None
    return content


def _with_generated_name(document: Json) -> Json:
    """Return the document with a name in place of generateName."""
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("name") or not metadata.get("generateName"):
        return document
    return {**document, "metadata": {**metadata, "name": f"{metadata['generateName']}x"}}


def _check_document(document: Json, dry_run: Callable[[Json], str | None] | None) -> Iterator[tuple[str, Level]]:
    kind = _KINDS_BY_NAME.get(str(document.get("kind")))
    if document["apiVersion"] != API_VERSION or kind is None:
        yield (
            f"{document['apiVersion']} has no kind {document.get('kind')}{_suggest_kind(document)}; "
            f"{API_VERSION} has {', '.join(_KINDS_BY_NAME)}",
            "error",
        )
        return
    try:
        parsed = kind.parse(_with_generated_name(document))
    except InvalidObject as error:
        yield from (
            (f"{path}: {text}" if path else text, "error")
            for path, text in validation_text.explain_problems(kind, error)
        )
        return
    if isinstance(parsed, RolloutPolicy):
        wrong = rollouts.find_problems(parsed.spec)
        yield from ((text, "error") for text in wrong)
        if not wrong:
            decidability = rollouts.assess_decidability(parsed.spec)
            yield decidability.message, "error" if decidability.rate is None and not decidability.decidable else "note"
            needs_evidence, _, warning = rollouts.evidence_condition(parsed.spec, compile_steps(parsed.spec.strategy))
            if not needs_evidence:
                yield warning, "warning"
            yield from ((text, "warning") for text in rollouts.find_warnings(parsed.spec))
        gate = parsed.spec.gates.evaluation if parsed.spec.gates is not None else None
        if gate is not None:
            yield from (
                (text, "warning") for text in margin_lint.lint_margins(gate.metrics, "spec.gates.evaluation.metrics")
            )
    if isinstance(parsed, Model) and parsed.spec.endpoint is not None:
        cut = endpoint_conflicts.describe_short_timeout(parsed.spec.endpoint, parsed.spec.serving.max_request_seconds)
        yield from ((text, "warning") for text in (cut,) if text)
    if isinstance(parsed, AnyRuntime):
        yield from ((text, "note") for text in _undeclared_code(parsed))
    if isinstance(parsed, RetrainingPolicy) and parsed.spec.run.evaluate is not None:
        gates = parsed.spec.run.evaluate.gates
        yield from ((text, "warning") for text in margin_lint.lint_margins(gates, "spec.run.evaluate.gates"))
    refusal = dry_run(document) if dry_run is not None else None
    if refusal is not None:
        yield f"the API server refuses it: {refusal}", "error"


def _suggest_kind(document: Json) -> str:
    name = validation_text.closest_name(str(document.get("kind")), _KINDS_BY_NAME)
    return f": did you mean {name}?" if name is not None and name != document.get("kind") else ""


def _undeclared_code(runtime: AnyRuntime) -> Iterator[str]:
    for index, entry in enumerate(runtime.spec.formats):
        if entry.code is None:
            yield f"spec.formats[{index}].code: does not say whether {entry.name} is code, so it is treated as code"
