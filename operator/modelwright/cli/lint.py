"""Manifests judged before they are applied: by the API's own types, by what a policy can decide, and by the server."""

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
from modelwright.cli import source, wording
from modelwright.core import endpoints, margins
from modelwright.core.rollout import lint as rollouts
from modelwright.core.rollout.steps import compiled

Json = Mapping[str, Any]
Level = Literal["error", "warning", "note"]

_BY_KIND = {kind.__name__: kind for kind in KINDS}
NOT_CHECKED = (
    "not checked without a server: names that other objects must have (versions, runtimes, policies, Gateways, "
    "Secrets), what the gateway can do, pod templates, what you may write"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said of one object. `level`: error when it would be refused, or could not be followed."""

    place: str
    text: str
    level: Level
    file: str = ""
    line: int = 0
    """Counts from 1; 0 when it is not known."""

    @property
    def wrong(self) -> bool:
        """Whether the object must not be applied."""
        return self.level == "error"

    @property
    def subject(self) -> str:
        """What it is about, without the file: `Model iris`; empty for a whole file."""
        return self.place.removeprefix(self.file).removeprefix(": ")

    @property
    def where(self) -> str:
        """File, line and object: `iris.yaml:5: Model iris`."""
        parts = (f"{self.file}:{self.line}" if self.line else self.file, self.subject)
        return ": ".join(part for part in parts if part)


def lint(files: Iterable[tuple[str, str]], dry_run: Callable[[Json], str | None] | None) -> list[Finding]:
    """Findings about the documents of files, given as (name, text). `dry_run` asks a server why it would refuse an
    object; None: there is none. Objects of other kinds are passed over."""
    found: list[Finding] = []
    objects: list[_Placed] = []
    for name, text in files:
        found += _file(name, text, dry_run, objects)
    return [*found, *_unknown_names(objects)]


def check(obj: Json) -> list[tuple[str, Level]]:
    """What is to be said of one object of ours, without a server."""
    return list(_document(obj, None))


@dataclass(frozen=True, slots=True)
class _Placed:
    """An object of ours, and where it stands."""

    file: str
    number: int
    document: source.Document

    @property
    def content(self) -> Json:
        content: Json = self.document.content
        return content

    @property
    def name(self) -> str:
        return str(_metadata(self.content).get("name") or "")

    @property
    def key(self) -> tuple[str, str]:
        """Kind and namespace."""
        return str(self.content.get("kind")), str(_metadata(self.content).get("namespace") or "")

    def finding(self, text: str, level: Level, line: int | None = None) -> Finding:
        place = f"{self.file}: {self.content.get('kind')} {self.name or f'(document {self.number})'}"
        at = self.document.line(source.parse_path(text)) if line is None else line
        return Finding(place, text, level, self.file, at)


def _metadata(content: Json) -> Json:
    metadata = content.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _file(
    name: str, text: str, dry_run: Callable[[Json], str | None] | None, objects: list[_Placed]
) -> Iterator[Finding]:
    try:
        documents = list(source.documents(text))
    except source.NotYaml as error:
        yield Finding(name, f"is no YAML: {error}", "error", name, error.line)
        return
    for number, whole in enumerate(documents, start=1):
        for document in whole.items():
            content = document.content
            if not isinstance(content, Mapping) or not str(content.get("apiVersion", "")).startswith(f"{GROUP}/"):
                continue
            placed = _Placed(name, number, document)
            objects.append(placed)
            for path, line in document.repeated():
                yield placed.finding(f"{_written(path)}: is there twice, and only the last one counts", "error", line)
            yield from (placed.finding(said, level) for said, level in _document(content, dry_run))


def _written(path: source.Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


_NUMBER = re.compile(r"\d+")
_REFERENCES = {
    "Model": (
        (("spec", "version", "name"), "ModelVersion"),
        (("spec", "rolloutPolicyRef", "name"), "RolloutPolicy"),
    ),
    "ModelVersion": ((("spec", "modelRef", "name"), "Model"),),
    "RetrainingPolicy": ((("spec", "modelRef", "name"), "Model"),),
    "TrainingRun": ((("spec", "policyRef", "name"), "RetrainingPolicy"),),
}
"""Fields that name another object of the same namespace, and its kind."""


def _unknown_names(objects: list[_Placed]) -> Iterator[Finding]:
    """References to a name that no object given has, where one given has nearly that name."""
    names: dict[tuple[str, str], set[str]] = {}
    for placed in objects:
        names.setdefault(placed.key, set()).add(placed.name)
    for placed in objects:
        kind, namespace = placed.key
        for path, wanted in _REFERENCES.get(kind, ()):
            known, name = names.get((wanted, namespace), set()), _value(placed.content, path)
            if not isinstance(name, str) or name in known:
                continue
            near = wording.near(name, known)
            # Versions differ by a number, and the cluster may have the other one.
            if near is not None and _NUMBER.sub("", near) != _NUMBER.sub("", name):
                text = f"{_written(path)}: no {wanted} {name} is in these files; did you mean {near}?"
                yield placed.finding(text, "warning", placed.document.line(path))


def _value(content: Any, path: source.Path) -> Any:
    for step in path:
        content = content.get(step) if isinstance(content, Mapping) else None
    return content


def _with_a_name(document: Json) -> Json:
    """As the API server would name it."""
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("name") or not metadata.get("generateName"):
        return document
    return {**document, "metadata": {**metadata, "name": f"{metadata['generateName']}x"}}


def _document(document: Json, dry_run: Callable[[Json], str | None] | None) -> Iterator[tuple[str, Level]]:
    kind = _BY_KIND.get(str(document.get("kind")))
    if document["apiVersion"] != API_VERSION or kind is None:
        yield (
            f"{document['apiVersion']} has no kind {document.get('kind')}{_meant(document)}; "
            f"{API_VERSION} has {', '.join(_BY_KIND)}",
            "error",
        )
        return
    try:
        parsed = kind.parse(_with_a_name(document))
    except InvalidObject as error:
        yield from ((f"{path}: {text}" if path else text, "error") for path, text in wording.explain(kind, error))
        return
    if isinstance(parsed, RolloutPolicy):
        wrong = rollouts.problems(parsed.spec)
        yield from ((text, "error") for text in wrong)
        if not wrong:
            found = rollouts.decidability(parsed.spec)
            yield found.message, "error" if found.rate is None and not found.decidable else "note"
            asked, _, said = rollouts.evidence_asked(parsed.spec, compiled(parsed.spec.strategy))
            if not asked:
                yield said, "warning"
            yield from ((text, "warning") for text in rollouts.warnings(parsed.spec))
        gate = parsed.spec.gates.evaluation if parsed.spec.gates is not None else None
        if gate is not None:
            yield from ((text, "warning") for text in margins.warnings(gate.metrics, "spec.gates.evaluation.metrics"))
    if isinstance(parsed, Model) and parsed.spec.endpoint is not None:
        cut = endpoints.cut_requests(parsed.spec.endpoint, parsed.spec.serving.max_request_seconds)
        yield from ((text, "warning") for text in (cut,) if text)
    if isinstance(parsed, AnyRuntime):
        yield from ((text, "note") for text in _unsaid(parsed))
    if isinstance(parsed, RetrainingPolicy) and parsed.spec.run.evaluate is not None:
        gates = parsed.spec.run.evaluate.gates
        yield from ((text, "warning") for text in margins.warnings(gates, "spec.run.evaluate.gates"))
    refusal = dry_run(document) if dry_run is not None else None
    if refusal is not None:
        yield f"the API server refuses it: {refusal}", "error"


def _meant(document: Json) -> str:
    name = wording.near(str(document.get("kind")), _BY_KIND)
    return f": did you mean {name}?" if name is not None and name != document.get("kind") else ""


def _unsaid(runtime: AnyRuntime) -> Iterator[str]:
    for index, entry in enumerate(runtime.spec.formats):
        if entry.code is None:
            yield f"spec.formats[{index}].code: does not say whether {entry.name} is code, so it counts as code"
