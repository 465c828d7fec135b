"""Manifests judged before they are applied: by the API's own types, by what a policy can decide, and by the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from modelwright.api.common import InvalidObject
from modelwright.api.crd.definition import KINDS
from modelwright.api.names import API_VERSION, GROUP
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.retraining import RetrainingPolicy
from modelwright.api.v1alpha1.runtime import AnyRuntime
from modelwright.core import margins
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

    @property
    def wrong(self) -> bool:
        """Whether the object must not be applied."""
        return self.level == "error"


def lint(files: Iterable[tuple[str, str]], dry_run: Callable[[Json], str | None] | None) -> list[Finding]:
    """Findings about the documents of files, given as (name, text). `dry_run` asks a server why it would refuse an
    object; None: there is none. Objects of other kinds are passed over."""
    return [finding for name, text in files for finding in _file(name, text, dry_run)]


def check(obj: Json) -> list[tuple[str, Level]]:
    """What is to be said of one object of ours, without a server."""
    return list(_document(obj, None))


def _file(name: str, text: str, dry_run: Callable[[Json], str | None] | None) -> Iterator[Finding]:
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        yield Finding(name, f"is no YAML: {error}", "error")
        return
    for number, document in enumerate(documents, start=1):
        if not isinstance(document, Mapping) or not str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
            continue
        metadata = document.get("metadata")
        called = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
        place = f"{name}: {document.get('kind')} {called or f'(document {number})'}"
        yield from (Finding(place, said, level) for said, level in _document(document, dry_run))


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
            f"{document['apiVersion']} has no kind {document.get('kind')}; {API_VERSION} has {', '.join(_BY_KIND)}",
            "error",
        )
        return
    try:
        parsed = kind.parse(_with_a_name(document))
    except InvalidObject as error:
        yield from ((f"{path}: {text}" if path else text, "error") for path, text in error.problems)
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
        gate = parsed.spec.gates.evaluation if parsed.spec.gates is not None else None
        if gate is not None:
            yield from ((text, "warning") for text in margins.warnings(gate.metrics, "spec.gates.evaluation.metrics"))
    if isinstance(parsed, AnyRuntime):
        yield from ((text, "note") for text in _unsaid(parsed))
    if isinstance(parsed, RetrainingPolicy) and parsed.spec.run.evaluate is not None:
        gates = parsed.spec.run.evaluate.gates
        yield from ((text, "warning") for text in margins.warnings(gates, "spec.run.evaluate.gates"))
    refusal = dry_run(document) if dry_run is not None else None
    if refusal is not None:
        yield f"the API server refuses it: {refusal}", "error"


def _unsaid(runtime: AnyRuntime) -> Iterator[str]:
    for index, entry in enumerate(runtime.spec.formats):
        if entry.code is None:
            yield f"spec.formats[{index}].code: does not say whether {entry.name} is code, so it counts as code"
