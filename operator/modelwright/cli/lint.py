"""Manifests judged before they are applied: by the API's own types, by what a policy can decide, and by the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from modelwright.api.common import InvalidObject
from modelwright.api.crd.definition import KINDS
from modelwright.api.names import API_VERSION, GROUP
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.core.rollout import lint as rollouts

Json = Mapping[str, Any]

_BY_KIND = {kind.__name__: kind for kind in KINDS}
NOT_CHECKED = (
    "not checked without a server: names that other objects must have (versions, runtimes, policies, Gateways, "
    "Secrets), what the gateway can do, pod templates, what you may write"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said of one object. `wrong`: it would be refused, or could not be followed."""

    place: str
    text: str
    wrong: bool


def lint(files: Iterable[tuple[str, str]], dry_run: Callable[[Json], str | None] | None) -> list[Finding]:
    """Findings about the documents of files, given as (name, text). `dry_run` asks a server why it would refuse an
    object; None: there is none. Objects of other kinds are passed over."""
    return [finding for name, text in files for finding in _file(name, text, dry_run)]


def _file(name: str, text: str, dry_run: Callable[[Json], str | None] | None) -> Iterator[Finding]:
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        yield Finding(name, f"is no YAML: {error}", True)
        return
    for number, document in enumerate(documents, start=1):
        if not isinstance(document, Mapping) or not str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
            continue
        metadata = document.get("metadata")
        called = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
        place = f"{name}: {document.get('kind')} {called or f'(document {number})'}"
        yield from (Finding(place, said, wrong) for said, wrong in _document(document, dry_run))


def _with_a_name(document: Json) -> Json:
    """As the API server would name it."""
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("name") or not metadata.get("generateName"):
        return document
    return {**document, "metadata": {**metadata, "name": f"{metadata['generateName']}x"}}


def _document(document: Json, dry_run: Callable[[Json], str | None] | None) -> Iterator[tuple[str, bool]]:
    kind = _BY_KIND.get(str(document.get("kind")))
    if document["apiVersion"] != API_VERSION or kind is None:
        yield (
            f"{document['apiVersion']} has no kind {document.get('kind')}; {API_VERSION} has {', '.join(_BY_KIND)}",
            True,
        )
        return
    try:
        parsed = kind.parse(_with_a_name(document))
    except InvalidObject as error:
        yield from ((f"{path}: {text}" if path else text, True) for path, text in error.problems)
        return
    if isinstance(parsed, RolloutPolicy):
        wrong = rollouts.problems(parsed.spec)
        yield from ((text, True) for text in wrong)
        if not wrong:
            found = rollouts.decidability(parsed.spec)
            yield found.message, found.rate is None and not found.decidable
    refusal = dry_run(document) if dry_run is not None else None
    if refusal is not None:
        yield f"the API server refuses it: {refusal}", True
