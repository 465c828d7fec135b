"""Converts pods of other projects to spec.serving of a Model."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.cli.imports.fields import Fields, Json

_POD_FIELDS = (
    "affinity",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "preemptionPolicy",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
)
_CONTAINER_FIELDS = ("env", "envFrom", "securityContext", "volumeMounts")
_TOOL_PREFIXES = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "argocd.argoproj.io/",
    "helm.sh/",
    "helm.toolkit.fluxcd.io/",
    "kubectl.kubernetes.io/",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
)
"""Labels and annotations by which tools identify their own objects."""
_RUNTIME_FIELDS = {
    "args": "they are for the server's own image, and would replace all arguments of the runtime here: see "
    "which of them "
    "the runtime needs, and write a ModelRuntime with them",
    "command": "it would replace the runtime's: write a ModelRuntime with it",
    "image": "the runtime has its own: for this one write a ModelRuntime",
}


def convert_pod_template(pod: Fields, container: Fields | None, others: tuple[Fields, ...] = ()) -> Json:
    """Convert a pod to spec.serving.podTemplate.spec. `container`: the model's; `others`: the remaining ones."""
    spec: Json = {key: pod.take(key) for key in _POD_FIELDS if pod.value.get(key)}
    changed = (
        {} if container is None else {key: container.take(key) for key in _CONTAINER_FIELDS if container.value.get(key)}
    )
    containers = ([{"name": "model", **changed}] if changed else []) + [dict(_take_all(other)) for other in others]
    if container is not None:
        for key, text in _RUNTIME_FIELDS.items():
            container.note(key, text)
    return spec | ({"containers": containers} if containers else {})


def _take_all(part: Fields) -> Json:
    return {key: part.take(key) for key in part.member_names()}


def convert_resources(container: Fields) -> Json:
    """Convert the resources of a container to spec.serving.resources."""
    container_resources = container.child("resources")
    resources = {key: container_resources.texts(key) for key in ("requests", "limits") if key in container_resources}
    return {key: value for key, value in resources.items() if value}


def convert_labels(metadata: Fields, key: str) -> dict[str, str]:
    """Return labels or annotations; note and leave out those by which other tools identify their own objects."""
    part, labels = metadata.child(key), {}
    for name in part.member_names():
        if name.startswith(_TOOL_PREFIXES):
            part.note(name, "is of the tool that manages the object, and isn't taken over")
        else:
            labels[name] = part.text(name)
    return labels


def build_serving(resources: Json, spec: Json, metadata: Mapping[str, dict[str, str]] | None = None) -> Json:
    """Build spec.serving."""
    nonempty = {key: value for key, value in (metadata or {}).items() if value}
    template = ({"metadata": nonempty} if nonempty else {}) | ({"spec": spec} if spec else {})
    return ({"resources": resources} if resources else {}) | ({"podTemplate": template} if template else {})


def convert_replicas(place: Fields, key: str, least: int | None, most: int | None, more: Json | None = None) -> Json:
    """Build spec.serving.replicas or autoscaling. `key`: the field of `place` with the minimum."""
    if least == 0:
        place.note(key, "0 is taken as 1: scaling to zero is not supported")
    least = max(1 if least is None else least, 1)
    if most is not None and most > least:
        return {"autoscaling": {"minReplicas": least, "maxReplicas": most, **(more or {})}}
    return {"replicas": least} if least > 1 else {}
