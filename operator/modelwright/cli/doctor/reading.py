"""Reads what the checks of `doctor` need, by kubectl alone and with its user's rights. Nothing is written."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from modelwright.api import names
from modelwright.api.names import GROUP, VERSION
from modelwright.cli.cluster import Cluster, ClusterError, Forbidden, NoSuchResource
from modelwright.cli.doctor import pods
from modelwright.cli.doctor.facts import Facts, Json
from modelwright.cli.doctor.references import References, references
from modelwright.cli.doctor.roles import reviews
from modelwright.cli.picture import model_of

AT_ONCE = 8
"""kubectl processes that run at the same time."""
DRY_RUNS = 50
"""Pods that are tried as a dry run, at most."""
OPERATOR_SELECTOR = "app.kubernetes.io/name=modelwright,app.kubernetes.io/component=operator"
OWN = (
    "models",
    "modelversions",
    "rolloutpolicies",
    "modelrollouts",
    "retrainingpolicies",
    "trainingruns",
    "modelruntimes",
)
_DOCUMENTS = {
    "group": f"/apis/{GROUP}",
    "resources": f"/apis/{GROUP}/{VERSION}",
    "schema": f"/openapi/v3/apis/{GROUP}/{VERSION}",
    "gateway-group": "/apis/gateway.networking.k8s.io",
    "gateway-resources": "/apis/gateway.networking.k8s.io/v1",
    "traefik-resources": "/apis/traefik.io/v1alpha1",
}
"""What every user may read of an API server, where the cluster has not taken that away."""
_KEYS = (
    '{{define "one"}}{{.metadata.name}}{{range $key, $value := .data}}{{"\\t"}}{{$key}}{{end}}{{"\\n"}}{{end}}'
    '{{if .items}}{{range .items}}{{template "one" .}}{{end}}{{else}}{{if .metadata.name}}{{template "one" .}}{{end}}'
    "{{end}}"
)
"""Prints a Secret's name and the names of its keys, and none of its values."""

Reading = Callable[[], Sequence[Json]]


def read(cluster: Cluster, namespace: str | None, model: str | None) -> Facts:
    """The facts of a namespace, or of all; with `model`, of one Model, or of what belongs to it, in the namespace (that
    of the context when None). Raises ClusterError when there is no cluster, and NotThere."""
    reader = _Reader(cluster)
    server = json.loads(cluster.run("get", "--raw", "/version"))
    place = namespace or (reader.namespace() if model else None)
    reader.read(_first(reader, place))
    if place is None and "models" in reader.unseen:
        place = reader.namespace()
        reader.read(_first(reader, place))
    reader.objects["server"] = [server]
    if model is not None:
        _narrow(reader.objects, model)
    facts = reader.facts(place)
    reader.read(_second(reader, facts, references(facts)))
    return reader.facts(place)


def _first(reader: _Reader, place: str | None) -> dict[str, Reading]:
    scope = ["-n", place] if place else ["--all-namespaces"]
    listed = {plural: [f"{plural}.{GROUP}", *scope] for plural in OWN}
    listed |= {
        "clustermodelruntimes": [f"clustermodelruntimes.{GROUP}"],
        "validatingadmissionpolicies": ["validatingadmissionpolicies"],
        "validatingadmissionpolicybindings": ["validatingadmissionpolicybindings"],
        "gatewayclasses": ["gatewayclasses.gateway.networking.k8s.io"],
        "leases": ["leases", "-n", "kube-system"],
        "deployments": ["deployments", "-l", names.LABEL_MODEL, *scope],
        "pods": ["pods", "-l", names.LABEL_ROLE, *scope],
        "events": ["events", "--field-selector", "type=Warning,reason=FailedCreate", *scope],
        "resourcequotas": ["resourcequotas", *scope],
        "limitranges": ["limitranges", *scope],
    }
    readings: dict[str, Reading] = {name: _bind(reader.listed, arguments) for name, arguments in listed.items()}
    readings |= {name: _bind(reader.document, path) for name, path in _DOCUMENTS.items()}
    for kind in ("deployments", "pods"):
        readings[f"operator-{kind}"] = _bind(reader.operators, kind)
    readings["reviews"] = lambda: reader.created(reviews(place))
    return readings


def _second(reader: _Reader, facts: Facts, wanted: References) -> dict[str, Reading]:
    """What is read by name, once it is known who names it."""
    readings: dict[str, Reading] = {}
    for plural, by_namespace in wanted.by_kind.items():
        read_one = reader.keys if plural == "secrets" else lambda n, p, some: reader.named(p, n, some)
        for namespace, some in by_namespace.items():
            readings[f"{plural}/{namespace}"] = _bind(read_one, namespace, plural, sorted(some))
    spaces = facts.namespaces
    if spaces:
        readings["namespaces"] = lambda: reader.named("namespaces", None, spaces)
    homes = {obj["metadata"]["namespace"] for obj in facts.objects.get("operator-deployments", ())}
    for home in sorted(homes):
        readings[f"leases/{home}"] = _bind(reader.listed, ["leases", "-n", home])
    tried = pods.trials(facts)[:DRY_RUNS]
    readings |= {f"dry-run/{namespace}": _bind(reader.tried, bodies) for namespace, bodies in _grouped(tried)}
    return readings


def _grouped(bodies: Iterable[Json]) -> Iterable[tuple[str, list[Json]]]:
    found: dict[str, list[Json]] = defaultdict(list)
    for body in bodies:
        found[body["metadata"]["namespace"]].append(body)
    return found.items()


def _bind(function: Callable[..., Sequence[Json]], *arguments: Any) -> Reading:
    return lambda: function(*arguments)


class _Reader:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.objects: dict[str, Sequence[Json]] = {}
        self.unseen: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def facts(self, namespace: str | None) -> Facts:
        return Facts(datetime.now(UTC), _client(), namespace, self.objects, self.unseen, self._failed)

    def read(self, readings: Mapping[str, Reading]) -> None:
        """Several at once. What a user may not see is remembered as such."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = {name: pool.submit(reading) for name, reading in readings.items()}
        for name, done in running.items():
            self.unseen.pop(name, None)
            try:
                self.objects[name] = done.result()
            except Forbidden as error:
                self.unseen[name] = str(error).splitlines()[0]
            except NoSuchResource:
                continue
            except ClusterError as error:
                self._failed[name] = str(error).splitlines()[0]

    def namespace(self) -> str:
        """That of the context."""
        given = self._cluster.run("config", "view", "--minify", "-o", "jsonpath={..namespace}").strip()
        flags = [flag.partition("=")[2] for flag in self._cluster.flags if flag.startswith("--namespace=")]
        return next(iter([*flags, given]), "") or "default"

    def listed(self, arguments: Sequence[str]) -> Sequence[Json]:
        found: list[Json] = json.loads(self._cluster.run("get", *arguments, "-o", "json"))["items"]
        return found

    def named(self, plural: str, namespace: str | None, some: Sequence[str]) -> Sequence[Json]:
        """Those of these objects that are there."""
        scope = ["-n", namespace] if namespace else []
        text = self._cluster.run("get", plural, *scope, *some, "--ignore-not-found", "-o", "json")
        reported = json.loads(text) if text.strip() else {"items": []}
        return list(reported["items"]) if "items" in reported else [reported]

    def keys(self, namespace: str, plural: str, some: Sequence[str]) -> Sequence[Json]:
        """Secrets without their values: kubectl prints the names of keys only."""
        template = f"go-template={_KEYS}"
        text = self._cluster.run("get", plural, "-n", namespace, *some, "--ignore-not-found", "-o", template)
        lines = (line.split("\t") for line in text.splitlines() if line)
        return [
            {"kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "keys": keys}
            for name, *keys in lines
        ]

    def document(self, path: str) -> Sequence[Json]:
        """One of the API server's own documents; none where it has none there."""
        try:
            return [json.loads(self._cluster.run("get", "--raw", path))]
        except Forbidden:
            raise
        except ClusterError as error:
            if "NotFound" in str(error) or "could not find" in str(error):
                return []
            raise

    def operators(self, plural: str) -> Sequence[Json]:
        """The operator's objects wherever they are; else in the namespace where it usually is."""
        try:
            return self.listed([plural, "--all-namespaces", "-l", OPERATOR_SELECTOR])
        except Forbidden:
            return self.listed([plural, "-n", names.OPERATOR_NAMESPACE, "-l", OPERATOR_SELECTOR])

    def created(self, bodies: Sequence[Json]) -> Sequence[Json]:
        """Reviews, which are answered and not stored."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(bodies)})
        template = (
            'jsonpath={.spec.resourceAttributes.group}{"\\t"}{.spec.resourceAttributes.resource}{"\\t"}'
            '{.spec.resourceAttributes.verb}{"\\t"}{.status.allowed}{"\\n"}'
        )
        reported = self._cluster.run("create", "-f", "-", "-o", template, stdin=text)
        members = ("group", "resource", "verb", "allowed")
        return [dict(zip(members, line.split("\t"), strict=True)) for line in reported.splitlines() if line.strip()]

    def tried(self, bodies: Sequence[Json]) -> Sequence[Json]:
        """Pods as admission would let them pass, by a dry run; or `refused`, in its words."""
        found = []
        for body in bodies:
            try:
                text = self._cluster.run("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=json.dumps(body))
                found.append({**json.loads(text), "given": body})
            except ClusterError as error:
                said = str(error)
                if " cannot create resource " in said:
                    raise
                found.append({**body, "given": body, "refused": said})
        return found


def _narrow(objects: dict[str, Sequence[Json]], wanted: str) -> None:
    """Leaves what belongs to one Model. Raises NotThere."""
    kinds = ("models", "modelversions", "modelrollouts", "retrainingpolicies", "trainingruns", "pods")
    name = model_of(wanted, [obj for kind in kinds for obj in objects.get(kind, ())])
    label = names.label_value(name)

    def of_spec(obj: Json) -> bool:
        return bool((obj["spec"].get("modelRef") or {}).get("name") == name)

    def labelled(obj: Json) -> bool:
        return bool((obj["metadata"].get("labels") or {}).get(names.LABEL_MODEL) == label)

    models = [obj for obj in objects.get("models", ()) if obj["metadata"]["name"] == name]
    policies = {(obj["spec"].get("rolloutPolicyRef") or {}).get("name") for obj in models}
    trained_by = {obj["metadata"]["name"] for obj in objects.get("retrainingpolicies", ()) if of_spec(obj)}
    kept: dict[str, Callable[[Json], bool]] = {
        "models": lambda obj: obj in models,
        **dict.fromkeys(("modelversions", "modelrollouts", "retrainingpolicies"), of_spec),
        **dict.fromkeys(("deployments", "pods"), labelled),
        "rolloutpolicies": lambda obj: obj["metadata"]["name"] in policies,
        "trainingruns": lambda obj: obj["spec"]["policyRef"]["name"] in trained_by,
        "events": lambda obj: str(obj["involvedObject"].get("name", "")).startswith(f"{name}-"),
    }
    for kind, keeps in kept.items():
        objects[kind] = [obj for obj in objects.get(kind, ()) if keeps(obj)]


def _client() -> str:
    try:
        return metadata.version("modelwright")
    except metadata.PackageNotFoundError:
        return ""
