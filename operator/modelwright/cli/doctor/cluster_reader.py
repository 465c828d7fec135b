"""Reads the input of `doctor`'s checks through kubectl, with the user's rights. Never writes."""

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
from modelwright.cli.doctor import trial_pods
from modelwright.cli.doctor.facts import Facts, Json
from modelwright.cli.doctor.references import References, collect_references
from modelwright.cli.doctor.roles import build_reviews
from modelwright.cli.kubectl import ClusterError, Forbidden, KubectlClient, NoSuchResource
from modelwright.cli.model_view import resolve_model_name

MAX_PARALLEL_READS = 8
"""kubectl processes that run at the same time."""
MAX_DRY_RUNS = 50
"""The most pods created in a dry run."""
OPERATOR_SELECTOR = "app.kubernetes.io/name=modelwright,app.kubernetes.io/component=operator"
OWN_PLURALS = (
    "models",
    "modelversions",
    "rolloutpolicies",
    "modelrollouts",
    "retrainingpolicies",
    "trainingruns",
    "modelruntimes",
)
_API_DOCUMENTS = {
    "group": f"/apis/{GROUP}",
    "resources": f"/apis/{GROUP}/{VERSION}",
    "schema": f"/openapi/v3/apis/{GROUP}/{VERSION}",
    "gateway-group": "/apis/gateway.networking.k8s.io",
    "gateway-resources": "/apis/gateway.networking.k8s.io/v1",
    "traefik-resources": "/apis/traefik.io/v1alpha1",
}
"""Documents that every user may read, unless the cluster restricts them."""
_SECRET_KEYS_TEMPLATE = (
    '{{define "one"}}{{.metadata.name}}{{range $key, $value := .data}}{{"\\t"}}{{$key}}{{end}}{{"\\n"}}{{end}}'  # noqa: S105 - a path
    '{{if .items}}{{range .items}}{{template "one" .}}{{end}}{{else}}{{if .metadata.name}}{{template "one" .}}{{end}}'
    "{{end}}"
)
"""Prints the names of a Secret and its keys, without values."""

ReadObjects = Callable[[], Sequence[Json]]


def read_cluster(kubectl: KubectlClient, namespace: str | None, model: str | None) -> Facts:
    """Read the facts of a namespace, or of all; with `model`, only of one Model in the namespace (default: that of
    the context). Raises ClusterError without a cluster, and ObjectNotFound."""
    reader = _ClusterReader(kubectl)
    server = json.loads(kubectl.run("get", "--raw", "/version"))
    place = namespace or (reader.context_namespace() if model else None)
    reader.read_all(_first_reads(reader, place))
    if place is None and "models" in reader.not_permitted:
        place = reader.context_namespace()
        reader.read_all(_first_reads(reader, place))
    reader.objects["server"] = [server]
    if model is not None:
        _keep_one_model(reader.objects, model)
    facts = reader.build_facts(place)
    reader.read_all(_second_reads(reader, facts, collect_references(facts)))
    return reader.build_facts(place)


def _first_reads(reader: _ClusterReader, place: str | None) -> dict[str, ReadObjects]:
    scope = ["-n", place] if place else ["--all-namespaces"]
    listed = {plural: [f"{plural}.{GROUP}", *scope] for plural in OWN_PLURALS}
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
    readings: dict[str, ReadObjects] = {
        name: _bind_arguments(reader.list_objects, arguments) for name, arguments in listed.items()
    }
    readings |= {name: _bind_arguments(reader.get_document, path) for name, path in _API_DOCUMENTS.items()}
    for kind in ("deployments", "pods"):
        readings[f"operator-{kind}"] = _bind_arguments(reader.list_operators, kind)
    readings["reviews"] = lambda: reader.create_reviews(build_reviews(place))
    return readings


def _second_reads(reader: _ClusterReader, facts: Facts, wanted: References) -> dict[str, ReadObjects]:
    """Return the reads of objects by name, which need the references of the first reads."""
    readings: dict[str, ReadObjects] = {}
    for plural, by_namespace in wanted.by_kind.items():
        read_one = reader.get_secret_keys if plural == "secrets" else lambda n, p, some: reader.get_named(p, n, some)
        for namespace, some in by_namespace.items():
            readings[f"{plural}/{namespace}"] = _bind_arguments(read_one, namespace, plural, sorted(some))
    spaces = facts.namespaces
    if spaces:
        readings["namespaces"] = lambda: reader.get_named("namespaces", None, spaces)
    homes = {obj["metadata"]["namespace"] for obj in facts.objects.get("operator-deployments", ())}
    for home in sorted(homes):
        readings[f"leases/{home}"] = _bind_arguments(reader.list_objects, ["leases", "-n", home])
    tried = trial_pods.build_trial_pods(facts)[:MAX_DRY_RUNS]
    readings |= {
        f"dry-run/{namespace}": _bind_arguments(reader.dry_run_pods, bodies)
        for namespace, bodies in _group_by_namespace(tried)
    }
    return readings


def _group_by_namespace(bodies: Iterable[Json]) -> Iterable[tuple[str, list[Json]]]:
    groups: dict[str, list[Json]] = defaultdict(list)
    for body in bodies:
        groups[body["metadata"]["namespace"]].append(body)
    return groups.items()


def _bind_arguments(function: Callable[..., Sequence[Json]], *arguments: Any) -> ReadObjects:
    return lambda: function(*arguments)


class _ClusterReader:
    def __init__(self, kubectl: KubectlClient) -> None:
        self._kubectl = kubectl
        self.objects: dict[str, Sequence[Json]] = {}
        self.not_permitted: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def build_facts(self, namespace: str | None) -> Facts:
        return Facts(datetime.now(UTC), _client_version(), namespace, self.objects, self.not_permitted, self._failed)

    def read_all(self, readings: Mapping[str, ReadObjects]) -> None:
        """Run the reads in parallel, and remember those that the user may not make."""
        with ThreadPoolExecutor(MAX_PARALLEL_READS) as pool:
            running = {name: pool.submit(reading) for name, reading in readings.items()}
        for name, done in running.items():
            self.not_permitted.pop(name, None)
            try:
                self.objects[name] = done.result()
            except Forbidden as error:
                self.not_permitted[name] = str(error).splitlines()[0]
            except NoSuchResource:
                continue
            except ClusterError as error:
                self._failed[name] = str(error).splitlines()[0]

    def context_namespace(self) -> str:
        """Return the namespace of the context."""
        given = self._kubectl.run("config", "view", "--minify", "-o", "jsonpath={..namespace}").strip()
        flags = [flag.partition("=")[2] for flag in self._kubectl.flags if flag.startswith("--namespace=")]
        return next(iter([*flags, given]), "") or "default"

    def list_objects(self, arguments: Sequence[str]) -> Sequence[Json]:
        items: list[Json] = json.loads(self._kubectl.run("get", *arguments, "-o", "json"))["items"]
        return items

    def get_named(self, plural: str, namespace: str | None, some: Sequence[str]) -> Sequence[Json]:
        """Return the existing objects of these names."""
        scope = ["-n", namespace] if namespace else []
        text = self._kubectl.run("get", plural, *scope, *some, "--ignore-not-found", "-o", "json")
        reported = json.loads(text) if text.strip() else {"items": []}
        return list(reported["items"]) if "items" in reported else [reported]

    def get_secret_keys(self, namespace: str, plural: str, some: Sequence[str]) -> Sequence[Json]:
        """Return Secrets without their values: kubectl prints only the names of keys."""
        template = f"go-template={_SECRET_KEYS_TEMPLATE}"
        text = self._kubectl.run("get", plural, "-n", namespace, *some, "--ignore-not-found", "-o", template)
        lines = (line.split("\t") for line in text.splitlines() if line)
        return [
            {"kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "keys": keys}
            for name, *keys in lines
        ]

    def get_document(self, path: str) -> Sequence[Json]:
        """Read one of the API server's own documents; empty when it does not exist."""
        try:
            return [json.loads(self._kubectl.run("get", "--raw", path))]
        except Forbidden:
            raise
        except ClusterError as error:
            if "NotFound" in str(error) or "could not find" in str(error):
                return []
            raise

    def list_operators(self, plural: str) -> Sequence[Json]:
        """List the operator's objects in all namespaces, else in its default namespace."""
        try:
            return self.list_objects([plural, "--all-namespaces", "-l", OPERATOR_SELECTOR])
        except Forbidden:
            return self.list_objects([plural, "-n", names.OPERATOR_NAMESPACE, "-l", OPERATOR_SELECTOR])

    def create_reviews(self, bodies: Sequence[Json]) -> Sequence[Json]:
        """Create reviews, which the API server answers and does not store."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(bodies)})
        template = (
            'jsonpath={.spec.resourceAttributes.group}{"\\t"}{.spec.resourceAttributes.resource}{"\\t"}'
            '{.spec.resourceAttributes.verb}{"\\t"}{.status.allowed}{"\\n"}'
        )
        reported = self._kubectl.run("create", "-f", "-", "-o", template, stdin=text)
        members = ("group", "resource", "verb", "allowed")
        return [dict(zip(members, line.split("\t"), strict=True)) for line in reported.splitlines() if line.strip()]

    def dry_run_pods(self, bodies: Sequence[Json]) -> Sequence[Json]:
        """Create pods in a dry run; return them as admission changed them, or with its message in `refused`."""
        results = []
        for body in bodies:
            try:
                text = self._kubectl.run("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=json.dumps(body))
                results.append({**json.loads(text), "given": body})
            except ClusterError as error:
                message = str(error)
                if " cannot create resource " in message:
                    raise
                results.append({**body, "given": body, "refused": message})
        return results


def _keep_one_model(objects: dict[str, Sequence[Json]], wanted: str) -> None:
    """Keep only the objects of one Model. Raises ObjectNotFound."""
    kinds = ("models", "modelversions", "modelrollouts", "retrainingpolicies", "trainingruns", "pods")
    name = resolve_model_name(wanted, [obj for kind in kinds for obj in objects.get(kind, ())])
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


def _client_version() -> str:
    try:
        return metadata.version("modelwright")
    except metadata.PackageNotFoundError:
        return ""
