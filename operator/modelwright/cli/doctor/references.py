"""Which objects of others are named by Models, versions, policies and the operator, and by whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.cli.doctor.facts import Facts, Json, place

_TEMPLATES = ("template", "manifest", "podTemplate", "samples")
"""Members in which others have the say: what is wrong in there shows in pods."""


@dataclass(frozen=True, slots=True)
class Use:
    """`by` names one object of the kind `plural`; `uri`: the store that a Secret is for."""

    plural: str
    namespace: str
    name: str
    by: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """All of them, each with who names it."""

    uses: tuple[Use, ...]

    @property
    def by_kind(self) -> Mapping[str, Mapping[str, set[str]]]:
        """Names by plural and namespace."""
        found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for use in self.uses:
            found[use.plural][use.namespace].add(use.name)
        return found

    def of(self, plural: str, namespace: str) -> list[Use]:
        """Those of one kind in one namespace."""
        return [use for use in self.uses if (use.plural, use.namespace) == (plural, namespace)]


def references(facts: Facts) -> References:
    """What is named in the facts. Of versions, those that Models use, and those that are not pinned yet."""
    found: list[Use] = []
    used = in_use(facts)
    for obj in facts.objects.get("modelversions", ()):
        if _at(obj) in used or not (obj.get("status") or {}).get("artifact"):
            found += _stores(obj, obj["metadata"]["namespace"], obj["spec"])
    for obj in facts.objects.get("retrainingpolicies", ()):
        found += _stores(obj, obj["metadata"]["namespace"], obj["spec"])
    for obj in facts.objects.get("models", ()):
        found += _of_model(obj)
    for obj in facts.objects.get("operator-deployments", ()):
        found += _of_operator(obj)
    return References(tuple(dict.fromkeys(found)))


def in_use(facts: Facts) -> set[tuple[str, str]]:
    """Namespace and name of the versions that Models want, or send requests to."""
    found = set()
    for obj in facts.objects.get("models", ()):
        status, namespace = obj.get("status") or {}, obj["metadata"]["namespace"]
        reported = [
            obj["spec"].get("version"),
            status.get("serving"),
            status.get("target"),
            *(status.get("traffic") or ()),
        ]
        found |= {(namespace, str(entry.get("version") or entry.get("name"))) for entry in reported if entry}
    return found


def _at(obj: Json) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _stores(obj: Json, namespace: str, node: Any) -> Iterator[Use]:
    """Wherever an address is: the Secret and the ServiceAccount beside it, and the claim in it."""
    if isinstance(node, list):
        for entry in node:
            yield from _stores(obj, namespace, entry)
    if not isinstance(node, dict):
        return
    by, uri = place(obj), str(node.get("uri", ""))
    secret = (node.get("credentialsSecretRef") or {}).get("name")
    if secret:
        yield Use("secrets", namespace, secret, by, uri)
    if node.get("serviceAccountName"):
        yield Use("serviceaccounts", namespace, node["serviceAccountName"], by)
    if uri.startswith("pvc://"):
        yield Use("persistentvolumeclaims", namespace, uri.removeprefix("pvc://").split("/", 1)[0], by)
    for key, value in node.items():
        if key not in _TEMPLATES:
            yield from _stores(obj, namespace, value)


def _of_model(obj: Json) -> Iterator[Use]:
    namespace, by, spec = obj["metadata"]["namespace"], place(obj), obj["spec"]
    yield from _stores(obj, namespace, (spec.get("version") or {}).get("template", {}).get("artifact"))
    serving = spec.get("serving") or {}
    if serving.get("serviceAccountName"):
        yield Use("serviceaccounts", namespace, serving["serviceAccountName"], by)
    claim = (serving.get("cache") or {}).get("persistentVolumeClaim")
    if claim:
        yield Use("persistentvolumeclaims", namespace, claim, by)
    for ref in (spec.get("endpoint") or {}).get("parentRefs") or ():
        yield Use("gateways", ref.get("namespace") or namespace, ref["name"], by)


def _of_operator(obj: Json) -> Iterator[Use]:
    namespace, by = obj["metadata"]["namespace"], place(obj)
    pod = obj["spec"]["template"]["spec"]
    for volume in pod.get("volumes") or ():
        if "secret" in volume:
            yield Use("secrets", namespace, volume["secret"]["secretName"], by)
        if "configMap" in volume:
            yield Use("configmaps", namespace, volume["configMap"]["name"], by)
    for entry in pod.get("imagePullSecrets") or ():
        yield Use("secrets", namespace, entry["name"], by)
