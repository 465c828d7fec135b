"""References from Models, versions, policies and the operator to other objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.cli.doctor.facts import Facts, Json, describe_object

_FREE_FORM_FIELDS = ("template", "manifest", "podTemplate", "samples")
"""Fields with user-defined content: mistakes in them show in pods."""


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """A reference to one object of the kind `plural`. `by`: the referring object. `uri`: the store that a Secret is
    for."""

    plural: str
    namespace: str
    name: str
    by: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """All references, with their referring objects."""

    references: tuple[ObjectReference, ...]

    @property
    def by_kind(self) -> Mapping[str, Mapping[str, set[str]]]:
        """Names by plural and namespace."""
        names: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for use in self.references:
            names[use.plural][use.namespace].add(use.name)
        return names

    def in_namespace(self, plural: str, namespace: str) -> list[ObjectReference]:
        """Return the references to one kind in one namespace."""
        return [use for use in self.references if (use.plural, use.namespace) == (plural, namespace)]


def collect_references(facts: Facts) -> References:
    """Collect the references in the facts. Of versions only those in use, and those that are not pinned yet."""
    references: list[ObjectReference] = []
    used = versions_in_use(facts)
    for obj in facts.objects.get("modelversions", ()):
        if _object_key(obj) in used or not (obj.get("status") or {}).get("artifact"):
            references += _store_references(obj, obj["metadata"]["namespace"], obj["spec"])
    for obj in facts.objects.get("retrainingpolicies", ()):
        references += _store_references(obj, obj["metadata"]["namespace"], obj["spec"])
    for obj in facts.objects.get("models", ()):
        references += _model_references(obj)
    for obj in facts.objects.get("operator-deployments", ()):
        references += _operator_references(obj)
    return References(tuple(dict.fromkeys(references)))


def versions_in_use(facts: Facts) -> set[tuple[str, str]]:
    """Return namespace and name of the versions that Models target or serve."""
    versions = set()
    for obj in facts.objects.get("models", ()):
        status, namespace = obj.get("status") or {}, obj["metadata"]["namespace"]
        reported = [
            obj["spec"].get("version"),
            status.get("serving"),
            status.get("target"),
            *(status.get("traffic") or ()),
        ]
        versions |= {(namespace, str(entry.get("version") or entry.get("name"))) for entry in reported if entry}
    return versions


def _object_key(obj: Json) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _store_references(obj: Json, namespace: str, node: Any) -> Iterator[ObjectReference]:
    """Yield the Secret and ServiceAccount beside each address, and the claim in it."""
    if isinstance(node, list):
        for entry in node:
            yield from _store_references(obj, namespace, entry)
    if not isinstance(node, dict):
        return
    by, uri = describe_object(obj), str(node.get("uri", ""))
    secret = (node.get("credentialsSecretRef") or {}).get("name")
    if secret:
        yield ObjectReference("secrets", namespace, secret, by, uri)
    if node.get("serviceAccountName"):
        yield ObjectReference("serviceaccounts", namespace, node["serviceAccountName"], by)
    if uri.startswith("pvc://"):
        yield ObjectReference("persistentvolumeclaims", namespace, uri.removeprefix("pvc://").split("/", 1)[0], by)
    for key, value in node.items():
        if key not in _FREE_FORM_FIELDS:
            yield from _store_references(obj, namespace, value)


def _model_references(obj: Json) -> Iterator[ObjectReference]:
    namespace, by, spec = obj["metadata"]["namespace"], describe_object(obj), obj["spec"]
    yield from _store_references(obj, namespace, (spec.get("version") or {}).get("template", {}).get("artifact"))
    serving = spec.get("serving") or {}
    if serving.get("serviceAccountName"):
        yield ObjectReference("serviceaccounts", namespace, serving["serviceAccountName"], by)
    claim = (serving.get("cache") or {}).get("persistentVolumeClaim")
    if claim:
        yield ObjectReference("persistentvolumeclaims", namespace, claim, by)
    for ref in (spec.get("endpoint") or {}).get("parentRefs") or ():
        yield ObjectReference("gateways", ref.get("namespace") or namespace, ref["name"], by)


def _operator_references(obj: Json) -> Iterator[ObjectReference]:
    namespace, by = obj["metadata"]["namespace"], describe_object(obj)
    pod = obj["spec"]["template"]["spec"]
    for volume in pod.get("volumes") or ():
        if "secret" in volume:
            yield ObjectReference("secrets", namespace, volume["secret"]["secretName"], by)
        if "configMap" in volume:
            yield ObjectReference("configmaps", namespace, volume["configMap"]["name"], by)
    for entry in pod.get("imagePullSecrets") or ():
        yield ObjectReference("secrets", namespace, entry["name"], by)
