"""Who may name a ServiceAccount, a Secret, a claim or an image in which object, on a real API server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from modelwright.api.crd import rights_policies
from tests.lib.control_plane import ROOT, Server
from tests.lib.objects import API_VERSION
from tests.lib.people_rights import RBAC, Object, tried
from tests.packaging.render import objects as documents

pytestmark = pytest.mark.controlplane

NAMESPACE = "writers"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:modelwright"
IN_FORCE_SECONDS = 60.0
KINDS = ["models", "modelversions", "rolloutpolicies", "modelruntimes", "clustermodelruntimes"]
WRITES = {"apiGroups": ["modelwright.dev"], "resources": KINDS, "verbs": ["create", "get", "update", "patch"]}
NO_SECRET = 'to hand the Secret "store" to pods, you ("runs") need the verb "get" on it'
NO_ACCOUNT = 'to have pods run as the ServiceAccount "trainer", you ("runs") need the verb "use" on it'
NO_CLAIM = 'to mount the PersistentVolumeClaim "data", you ("runs") need the verb "get" on it'
NO_IMAGE = 'to choose the image or command of Deployments, you ("plain") need the verb "create" on deployments.apps'
NO_JOB = 'to create Jobs, you ("plain") need the verb "create" on jobs.batch'


def rule(group: str, resource: str, verb: str, *names: str) -> Object:
    found: Object = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
    return found | ({"resourceNames": list(names)} if names else {})


def role(user: str, *rules: Object, cluster: bool = False) -> list[Object]:
    name = user.rsplit(":", 1)[-1]
    metadata = {"name": f"writers-{name}"} | ({} if cluster else {"namespace": NAMESPACE})
    kind = "ClusterRole" if cluster else "Role"
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": metadata["name"]},
            "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
        },
    ]


@pytest.fixture(scope="module", autouse=True)
def users(crd_server: Server) -> None:
    """plain may write our kinds and nothing else; runs may have pods made too, and name nothing; maker may all
    that is named here, by name; editor is as the cluster's own role edit; api may do anything to our kinds;
    platform writes for the cluster."""
    installed = documents((ROOT / "manifests/install/namespaced/rbac.yaml").read_text())
    operator = next(o for o in installed if o["kind"] == "Role")
    makes = (rule("apps", "deployments", "create"), rule("batch", "jobs", "create"))
    crd_server.ok("create", "namespace", NAMESPACE)
    crd_server.ok(
        "apply",
        "-f",
        "-",
        objects=[
            *role("plain", WRITES),
            *role("runs", WRITES, *makes),
            *role(
                "maker",
                WRITES,
                *makes,
                rule("", "serviceaccounts", "use", "trainer"),
                rule("", "secrets", "get", "store", *(f"s{n}" for n in range(20))),
                rule("", "persistentvolumeclaims", "get", "data"),
            ),
            *role(
                "editor",
                WRITES,
                *makes,
                rule("", "serviceaccounts", "impersonate"),
                rule("", "secrets", "get"),
                rule("", "persistentvolumeclaims", "get"),
            ),
            *role("api", rule("modelwright.dev", "*", "*")),
            *role(OPERATOR, *operator["rules"]),
            *role("platform", WRITES, *makes, cluster=True),
            *role("catalogue", WRITES, cluster=True),
        ],
    )
    end = time.monotonic() + IN_FORCE_SECONDS
    for obj, refusal in ((version(serviceAccountName="trainer"), "use"), (runtime(), NO_IMAGE)):
        while refusal not in (said := tried(crd_server, obj, "plain")):
            assert time.monotonic() < end, said or "accepted"


def own(kind: str, spec: Object, name: str = "mine") -> Object:
    metadata = {"name": name} | ({} if kind.startswith("Cluster") else {"namespace": NAMESPACE})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def artifact(**more: Any) -> Object:
    return {"uri": "https://store.example.com/m", "format": {"name": "onnx"}, **more}


def version(**more: Any) -> Object:
    return own("ModelVersion", {"modelRef": {"name": "fraud"}, "artifact": artifact(**more)})


def model(pod: Any = None, **serving: Any) -> Object:
    patch = {} if pod is None else {"podTemplate": {"spec": pod}}
    return own("Model", {"version": {"name": "v1"}, "serving": {**patch, **serving}})


def container(**more: Any) -> Object:
    return {"containers": [{"name": "model", **more}]}


def volume(**source: Any) -> Object:
    return {"volumes": [{"name": "v", **source}]}


def stamped(**more: Any) -> Object:
    return own("Model", {"version": {"template": {"artifact": artifact(**more)}}}, "stamped")


def policy(**spec: Any) -> Object:
    return own("RolloutPolicy", {"strategy": {"preset": "Canary"}, **spec})


def job(**pod: Any) -> Object:
    return {"spec": {"containers": [{"name": "c", "image": "example.com/c:1"}], **pod}}


def gate(**pod: Any) -> Object:
    return policy(gates={"evaluation": {"template": job(**pod), "metrics": [{"name": "f1", "min": "0.9"}]}})


def metric(**pod: Any) -> Object:
    value = {"name": "orders", "job": {"template": job(**pod), "value": "orders"}, "max": "1", "versus": "None"}
    return policy(analysis={"metrics": [value]})


def runtime(kind: str = "ModelRuntime", volumes: Any = None, **more: Any) -> Object:
    given = {"volumes": volumes} if volumes else {}
    spec = {"protocol": "V2", "ports": {"http": 8080}, "formats": [{"name": "onnx"}], **given}
    return own(kind, {**spec, "container": {"image": "example.com/m:1", **more}})


SECRET = {"secretKeyRef": {"name": "store", "key": "k"}}
FREE = {
    "nodeSelector": {"gpu": "yes"},
    "tolerations": [{"operator": "Exists"}],
    **container(env=[{"name": "A", "value": "b"}]),
}
NAMED = [
    (
        "a version's ServiceAccount",
        version(serviceAccountName="trainer"),
        "spec.artifact.serviceAccountName: ",
        NO_ACCOUNT,
    ),
    (
        "a version's Secret",
        version(credentialsSecretRef={"name": "store"}),
        "spec.artifact.credentialsSecretRef: ",
        NO_SECRET,
    ),
    ("a version's claim", version(uri="pvc://data/m"), "spec.artifact.uri: ", NO_CLAIM),
    (
        "a reference's claim",
        own("ModelVersion", {"modelRef": {"name": "f"}, "artifact": artifact(), "reference": {"uri": "pvc://data/r"}}),
        "spec.reference.uri: ",
        NO_CLAIM,
    ),
    (
        "a Secret in a Model's version",
        stamped(credentialsSecretRef={"name": "store"}),
        "spec.version.template.artifact.credentialsSecretRef: ",
        NO_SECRET,
    ),
    (
        "a Model's cache",
        model(cache={"persistentVolumeClaim": "data"}),
        "spec.serving.cache.persistentVolumeClaim: ",
        NO_CLAIM,
    ),
    (
        "whom a Model serves as",
        model(cache={"persistentVolumeClaim": "data"}, serviceAccountName="trainer"),
        "spec.serving.serviceAccountName: ",
        NO_ACCOUNT,
    ),
    (
        "a pod's ServiceAccount",
        model({"serviceAccountName": "trainer"}),
        "podTemplate.spec.serviceAccountName: ",
        NO_ACCOUNT,
    ),
    ("by the field's old name", model({"serviceAccount": "trainer"}), "podTemplate.spec.serviceAccount: ", NO_ACCOUNT),
    (
        "a variable's Secret",
        model(container(env=[{"name": "A", "valueFrom": SECRET}])),
        "podTemplate.spec.containers.env: ",
        NO_SECRET,
    ),
    (
        "all variables of a Secret",
        model(container(envFrom=[{"secretRef": {"name": "store"}}])),
        "containers.envFrom: ",
        NO_SECRET,
    ),
    ("a volume's Secret", model(volume(secret={"secretName": "store"})), "podTemplate.spec.volumes: ", NO_SECRET),
    (
        "a projected Secret",
        model(volume(projected={"sources": [{"secret": {"name": "store"}}]})),
        "volumes: ",
        NO_SECRET,
    ),
    (
        "a driver's Secret",
        model(volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "store"}})),
        "volumes: ",
        NO_SECRET,
    ),
    ("a volume's claim", model(volume(persistentVolumeClaim={"claimName": "data"})), "volumes: ", NO_CLAIM),
    ("a Secret for pulling", model({"imagePullSecrets": [{"name": "store"}]}), "imagePullSecrets: ", NO_SECRET),
    ("an image", model(container(image="example.com/evil:1")), "spec.serving.podTemplate.spec: ", NO_IMAGE),
    ("a command", model(container(command=["sh"])), "spec.serving.podTemplate.spec: ", NO_IMAGE),
    ("arguments of an init container", model({"initContainers": [{"name": "fetch", "args": ["x"]}]}), "", NO_IMAGE),
    ("a hook", model(container(lifecycle={"preStop": {"exec": {"command": ["sh"]}}})), "", NO_IMAGE),
    ("a probe that runs something", model(container(livenessProbe={"exec": {"command": ["sh"]}})), "", NO_IMAGE),
    ("a gate's Job", gate(), "spec.gates.evaluation.template.spec: ", NO_JOB),
    ("a gate's ServiceAccount", gate(serviceAccountName="trainer"), "", NO_ACCOUNT),
    ("a metric's Job", metric(), "spec.analysis.metrics[orders].job.template.spec: ", NO_JOB),
    (
        "a metric's Secret",
        metric(**volume(secret={"secretName": "store"})),
        "spec.analysis.metrics[orders].job.template.spec.volumes: ",
        NO_SECRET,
    ),
    ("a runtime's container", runtime(), "spec: ", NO_IMAGE),
    ("a runtime's Secret", runtime(env=[{"name": "A", "valueFrom": SECRET}]), "spec.container.env: ", NO_SECRET),
    (
        "a runtime's volume",
        runtime(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]),
        "spec.volumes: ",
        NO_CLAIM,
    ),
]


@pytest.mark.parametrize(("obj", "field", "refusal"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
def test_nobody_names_what_they_have_no_right_to(crd_server: Server, obj: Object, field: str, refusal: str) -> None:
    user = "plain" if refusal in (NO_IMAGE, NO_JOB) else "runs"
    assert f"{field}{refusal}" in tried(crd_server, obj, user)
    assert tried(crd_server, obj, "maker") == ""


FREELY = [
    ("plain", version()),
    ("plain", version(serviceAccountName="default")),
    ("plain", model()),
    ("plain", model(FREE, replicas=2)),
    ("plain", model({"volumes": None, "containers": [{"name": "model", "env": None, "resources": None}]})),
    ("plain", model(container(livenessProbe={"httpGet": {"path": "/", "port": 80}}))),
    ("plain", policy()),
    # What is no pod can't become one: it is refused where it is rendered.
    ("plain", model({"containers": {"name": "model"}, "volumes": "none", "imagePullSecrets": [7]})),
    ("plain", model({"volumes": [{"secret": "store"}, 5], "serviceAccountName": {"name": "x"}})),
    ("editor", model({**volume(secret={"secretName": "any"}), "serviceAccountName": "any", **container(image="i")})),
    ("editor", model({"volumes": [{"name": f"v{n}", "secret": {"secretName": f"s{n}"}} for n in range(40)]})),
    (OPERATOR, version(serviceAccountName="trainer", credentialsSecretRef={"name": "store"})),
    ("platform", runtime("ClusterModelRuntime")),
]


@pytest.mark.parametrize(("user", "obj"), FREELY, ids=range(len(FREELY)))
def test_who_names_nothing_or_may_have_it_is_asked_nothing_more(crd_server: Server, user: str, obj: Object) -> None:
    assert tried(crd_server, obj, user) == ""


REFUSED = [
    ("api", version(credentialsSecretRef={"name": "store"}), 'need the verb "get" on it'),
    ("catalogue", runtime("ClusterModelRuntime"), 'need the verb "create" on deployments.apps'),
    ("platform", runtime("ClusterModelRuntime", env=[{"name": "A", "valueFrom": SECRET}]), 'need the verb "get" on it'),
    ("maker", version(credentialsSecretRef={"name": "other"}), 'hand the Secret "other"'),
    (
        "maker",
        model({"volumes": [{"name": f"v{n}", "secret": {"secretName": f"s{n}"}} for n in range(8)]}),
        f"an object may name at most {rights_policies.MAX_OTHER_NAMES} ",
    ),
]


@pytest.mark.parametrize(("user", "obj", "refusal"), REFUSED, ids=range(len(REFUSED)))
def test_rights_to_our_kinds_are_no_rights_to_what_they_name(
    crd_server: Server, user: str, obj: Object, refusal: str
) -> None:
    assert refusal in tried(crd_server, obj, user)


def test_an_edit_is_asked_only_for_what_it_changes(crd_server: Server) -> None:
    pod = {
        **volume(secret={"secretName": "store"}),
        **container(image="example.com/m:1"),
        "serviceAccountName": "trainer",
    }
    made = [
        own("Model", {"version": {"name": "v1"}, "serving": {"podTemplate": {"spec": pod}}}, "edited"),
        own(
            "Model", {"version": {"template": {"artifact": artifact(credentialsSecretRef={"name": "store"})}}}, "other"
        ),
    ]
    crd_server.ok("create", "-f", "-", objects=made)

    def said(name: str, patch: Object, user: str = "plain") -> str:
        line = ["patch", "model", name, "-n", NAMESPACE, "--type=merge", "--dry-run=server", "-p", json.dumps(patch)]
        answer = crd_server.run(*line, user=user)
        return "" if answer.returncode == 0 else answer.stderr

    try:
        assert said("edited", {"metadata": {"labels": {"a": "b"}}}) == ""
        assert said("edited", {"spec": {"version": {"name": "v2"}, "serving": {"replicas": 3}}}) == ""
        patched = {**pod, "nodeSelector": {"gpu": "yes"}}
        assert said("edited", {"spec": {"serving": {"podTemplate": {"spec": patched}}}}) == ""
        other = {**pod, **container(image="example.com/evil:1")}
        assert NO_IMAGE in said("edited", {"spec": {"serving": {"podTemplate": {"spec": other}}}})
        assert said("edited", {"spec": {"serving": {"podTemplate": None}}}) == ""
        # The Secret would go to another server.
        evil = {"version": {"template": {"artifact": {"uri": "https://evil.example.com/m"}}}}
        assert NO_SECRET in said("other", {"spec": evil}, "runs")
        assert NO_SECRET in said(
            "other", {"spec": {"version": {"template": {"reference": {"uri": "https://e.x/r"}}}}}, "runs"
        )
        assert said("other", {"spec": {"version": {"template": {"parameters": {"a": "b"}}}}}) == ""
    finally:
        for obj in made:
            crd_server.delete(obj)


def test_a_template_at_the_limit_of_parts_is_checked(crd_server: Server) -> None:
    env = [{"name": f"A{n}", "value": "x" * 200} for n in range(990)]
    obj = model(container(env=env, envFrom=[{"secretRef": {"name": "store"}}]))
    assert len(json.dumps(obj)) > 128 << 10
    assert NO_SECRET in tried(crd_server, obj, "runs")
    assert tried(crd_server, obj, "maker") == ""


VARIABLE: Object = {"name": "A", "value": "x"}
TOO_MANY = [
    ("variables of one container", container(env=[VARIABLE] * 30_000)),
    (
        "variables of many containers",
        {"containers": [{"name": "c", "env": [{**VARIABLE} for _ in range(100)]} for _ in range(300)]},
    ),
    ("containers", {"initContainers": [{}] * 300_000}),
    ("volumes", {"volumes": [{"name": "v"}] * 60_000}),
    ("sources of a volume", {"volumes": [{"name": "v", "projected": {"sources": [{}] * 300_000}}]}),
    ("pull secrets", {"imagePullSecrets": [{"name": "s"}] * 60_000}),
]


@pytest.mark.parametrize(
    ("spec", "user"),
    [(spec, user) for _, spec in TOO_MANY for user in ("plain", "maker")],
    ids=[f"{what}, by {user}" for what, _ in TOO_MANY for user in ("plain", "maker")],
)
def test_a_template_beyond_the_limit_of_parts_is_refused(crd_server: Server, spec: Object, user: str) -> None:
    assert "can be checked: put variables into a ConfigMap" in tried(crd_server, model(spec), user)


def test_a_template_of_names_alone_is_read_whole(crd_server: Server) -> None:
    env = [{"name": f"A{n}", "valueFrom": {"secretKeyRef": {"name": "store", "key": f"k{n}"}}} for n in range(900)]
    obj = model(container(env=[*env, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]))
    assert 'hand the Secret "other"' in tried(crd_server, obj, "maker")
