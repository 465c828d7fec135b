"""Which events wake whom, and which changes of an object can change a decision."""

import copy
from typing import Any

import pytest

from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.reconcile import watches
from tests.lib import objects

Object = dict[str, Any]
NS = "vision"


def stamped(obj: Object, uid: str = "u", version: int = 1, **metadata: Any) -> Object:
    obj = copy.deepcopy(obj)
    obj["metadata"] |= {"uid": uid, "resourceVersion": str(version), "generation": 1, **metadata}
    return obj


def child(kind: Kind, name: str = "digits-x", owner: str | None = "digits", **metadata: Any) -> Object:
    refs = [{"apiVersion": "modelwright.dev/v1alpha1", "kind": "Model", "name": owner, "uid": "u", "controller": True}]
    obj = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": NS, **({"ownerReferences": refs} if owner else {}), **metadata},
        "spec": {},
    }
    return stamped(obj)


@pytest.fixture
def store() -> Store:
    found = Store(watches.INDEXERS)
    endpoint = {"parentRefs": [{"name": "g", "namespace": "gw"}], "hostnames": ["a.x", "b.x"]}
    models = [
        objects.model(NS, "digits", version="v1", endpoint=endpoint),
        objects.model(NS, "faces", version="v1", endpoint={"parentRefs": [{"name": "local"}]}),
        objects.model("other", "digits", version="v1", endpoint=endpoint | {"hostnames": ["b.x"]}),
        objects.model(NS, "follower", version=None) | {"spec": {"version": {"follow": {}}}},
    ]
    models[-1]["spec"]["rolloutPolicyRef"] = {"name": "canary"}
    # Those without a time are taken for the oldest.
    for younger in models[1:3]:
        younger["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    for number, model in enumerate(models):
        found.put(stamped(model, uid=f"m{number}"))
    found.put(stamped(objects.version(NS, "v1", model="digits"), uid="v1"))
    found.put(stamped(objects.version(NS, "v2", model="digits"), uid="v2"))
    found.put(stamped(trained(), uid="nightly-1"))
    return found


def trained() -> Object:
    """A version of a Model of its own, made by a run of the same name."""
    found = objects.version(NS, "nightly-1", model="trained")
    found["spec"]["lineage"] = {"trainingRun": "nightly-1"}
    return found


def model(name: str, namespace: str = NS) -> Key:
    return Key("Model", namespace, name)


def version(name: str) -> Key:
    return Key("ModelVersion", NS, name)


def rollout(of: str, to: str) -> Object:
    spec = {"modelRef": {"name": of}, "target": {"version": to}}
    return {"metadata": {"name": f"{of}-1", "namespace": NS}, "spec": spec}


ALL = {model("digits"), model("faces"), model("digits", "other"), model("follower")}
WAKES = [
    (
        "a Model: itself, and the younger rivals for its place on a gateway",
        kinds.MODEL,
        objects.model(
            NS,
            "digits",
            version="v1",
            endpoint={"parentRefs": [{"name": "g", "namespace": "gw"}], "hostnames": ["b.x"]},
        ),
        {model("digits"), model("digits", "other")},
    ),
    (
        "a Model that has signatures verified: its versions, too",
        kinds.MODEL,
        objects.model(NS, "digits", version="v1", signatures={"mode": "Warn"}),
        {model("digits"), version("v1"), version("v2")},
    ),
    ("a Model without an endpoint: itself", kinds.MODEL, objects.model(NS, "follower"), {model("follower")}),
    (
        "a version: itself, its Model, and whoever names it",
        kinds.MODEL_VERSION,
        objects.version(NS, "v1"),
        {version("v1"), model("digits"), model("faces")},
    ),
    (
        "a version of a following Model: that Model",
        kinds.MODEL_VERSION,
        objects.version(NS, "f1", model="follower"),
        {version("f1"), model("follower")},
    ),
    (
        "a version that was trained: the run that made it, too, which tells what became of it",
        kinds.MODEL_VERSION,
        trained(),
        {version("nightly-1"), model("trained"), Key("TrainingRun", NS, "nightly-1")},
    ),
    ("a rollout: its Model", kinds.MODEL_ROLLOUT, rollout("digits", "v2"), {model("digits")}),
    (
        "a rollout to a version that was trained: the run that made it, too",
        kinds.MODEL_ROLLOUT,
        rollout("trained", "nightly-1"),
        {model("trained"), Key("TrainingRun", NS, "nightly-1")},
    ),
    (
        "a version of a Model that isn't there",
        kinds.MODEL_VERSION,
        objects.version(NS, "n", model="none"),
        {version("n"), model("none")},
    ),
    (
        "a policy: itself, and the Models that follow it",
        kinds.ROLLOUT_POLICY,
        {"metadata": {"name": "canary", "namespace": NS}, "spec": {}},
        {Key("RolloutPolicy", NS, "canary"), model("follower")},
    ),
    (
        "a runtime of a namespace: the Models of that namespace",
        kinds.MODEL_RUNTIME,
        objects.runtime(namespace=NS),
        {model("digits"), model("faces"), model("follower")},
    ),
    ("a runtime of the cluster: all Models", kinds.CLUSTER_MODEL_RUNTIME, objects.runtime(), ALL),
    (
        "a Gateway: the Models that name it",
        kinds.GATEWAY,
        {"metadata": {"name": "g", "namespace": "gw"}},
        {model("digits"), model("digits", "other")},
    ),
    (
        "a Gateway of the Model's own namespace",
        kinds.GATEWAY,
        {"metadata": {"name": "local", "namespace": NS}},
        {model("faces")},
    ),
    ("a GatewayClass: all Models", kinds.GATEWAY_CLASS, {"metadata": {"name": "c"}}, ALL),
    ("a Deployment: its owner", kinds.DEPLOYMENT, child(kinds.DEPLOYMENT), {model("digits")}),
    ("a route: its owner", kinds.HTTP_ROUTE, child(kinds.HTTP_ROUTE), {model("digits")}),
    (
        "a child that has lost its owner: by its label",
        kinds.SERVICE,
        child(kinds.SERVICE, owner=None, labels={"modelwright.dev/model": "faces"}),
        {model("faces")},
    ),
    (
        "the Job of a rollout's gate: the Model",
        kinds.JOB,
        stamped(
            {
                "metadata": {
                    "name": "j",
                    "namespace": NS,
                    "labels": {"modelwright.dev/model": "digits"},
                    "ownerReferences": [
                        {
                            "apiVersion": "modelwright.dev/v1alpha1",
                            "kind": "ModelRollout",
                            "name": "r",
                            "uid": "x",
                            "controller": True,
                        }
                    ],
                }
            }
        ),
        {model("digits")},
    ),
    ("a child that says nothing: nobody", kinds.SERVICE, child(kinds.SERVICE, owner=None), set()),
    ("a stored revision: its owner", kinds.CONTROLLER_REVISION, child(kinds.CONTROLLER_REVISION), {model("digits")}),
    (
        "a resolve pod: its version",
        kinds.POD,
        stamped(
            {
                "metadata": {
                    "name": "p",
                    "namespace": NS,
                    "ownerReferences": [
                        {
                            "apiVersion": "modelwright.dev/v1alpha1",
                            "kind": "ModelVersion",
                            "name": "v1",
                            "uid": "x",
                            "controller": True,
                        }
                    ],
                }
            }
        ),
        {version("v1")},
    ),
]


@pytest.mark.parametrize(("kind", "obj", "expected"), [c[1:] for c in WAKES], ids=[c[0] for c in WAKES])
def test_who_is_woken(store: Store, kind: Kind, obj: Object, expected: set[Key]) -> None:
    assert set(watches.affected_keys(kind, obj, store)) == expected


DEPLOYMENT = child(kinds.DEPLOYMENT, labels={"a": "b"}) | {
    "status": {"observedGeneration": 1, "replicas": 1, "availableReplicas": 1, "conditions": []}
}
MODEL = stamped(objects.model(NS, "digits", version="v1")) | {"status": {"x": 1}}


def changed(obj: Object, path: str, value: Any) -> Object:
    obj = copy.deepcopy(obj)
    *above, last = path.split("/")
    place = obj
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    return obj


REFUSED = {"type": "ReplicaFailure", "status": "True", "message": "forbidden"}
CHANGES = [
    ("nothing", kinds.DEPLOYMENT, DEPLOYMENT, DEPLOYMENT, False),
    ("a Deployment's spec", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "spec/replicas", 3), True),
    ("its labels", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "metadata/labels", {}), True),
    ("its owner", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "metadata/ownerReferences", []), True),
    ("its annotations", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "metadata/annotations", {"x": "y"}), False),
    ("its ready pods", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "status/availableReplicas", 0), True),
    ("what it has seen", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "status/observedGeneration", 2), True),
    ("its pods are refused", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "status/conditions", [REFUSED]), True),
    (
        "its progress",
        kinds.DEPLOYMENT,
        DEPLOYMENT,
        changed(DEPLOYMENT, "status/conditions", [{"type": "Progressing", "status": "True"}]),
        False,
    ),
    ("it is being deleted", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "metadata/deletionTimestamp", "x"), True),
    ("another of that name", kinds.DEPLOYMENT, DEPLOYMENT, changed(DEPLOYMENT, "metadata/uid", "other"), True),
    ("its first state", kinds.DEPLOYMENT, None, DEPLOYMENT, True),
    ("its end", kinds.DEPLOYMENT, DEPLOYMENT, None, True),
    ("a Job's pods", kinds.JOB, DEPLOYMENT, changed(DEPLOYMENT, "status/active", 1), False),
    (
        "a Job's end",
        kinds.JOB,
        DEPLOYMENT,
        changed(DEPLOYMENT, "status/conditions", [{"type": "Complete", "status": "True"}]),
        True,
    ),
    ("an HPA's status", kinds.HORIZONTAL_POD_AUTOSCALER, DEPLOYMENT, changed(DEPLOYMENT, "status/x", 2), False),
    ("a route's status", kinds.HTTP_ROUTE, DEPLOYMENT, changed(DEPLOYMENT, "status/x", 2), True),
    ("a Gateway's status", kinds.GATEWAY, DEPLOYMENT, changed(DEPLOYMENT, "status/x", 2), True),
    ("a resolve pod's status", kinds.POD, DEPLOYMENT, changed(DEPLOYMENT, "status/x", 2), True),
    ("a Model's spec", kinds.MODEL, MODEL, changed(MODEL, "spec/suspend", True), True),
    ("a Model's status", kinds.MODEL, MODEL, changed(MODEL, "status/x", 2), True),
    ("a Model's labels", kinds.MODEL, MODEL, changed(MODEL, "metadata/labels", {"x": "y"}), False),
    (
        "a version's labels, by which it may be followed",
        kinds.MODEL_VERSION,
        MODEL,
        changed(MODEL, "metadata/labels", {"x": "y"}),
        True,
    ),
]


@pytest.mark.parametrize(("kind", "old", "new", "expected"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_is_significant(kind: Kind, old: Object | None, new: Object | None, expected: bool) -> None:
    assert watches.is_relevant_change(kind, old, new) is expected


def test_model_leaving_a_place_enqueues_its_younger_rivals(store: Store) -> None:
    """The state before an edit is asked as well as the one after it."""
    was = objects.model(NS, "third", endpoint={"parentRefs": [{"name": "local"}]})
    assert model("faces") in set(watches.affected_keys(kinds.MODEL, was, store))


@pytest.mark.parametrize("kind", [kinds.APPROVAL, kinds.MODEL_ROLLOUT], ids=str)
def test_what_people_write_wakes_the_model_it_names(store: Store, kind: Kind) -> None:
    obj = child(kind, "given", owner=None)
    obj["spec"] = {"modelRef": {"name": "digits"}}
    assert list(watches.affected_keys(kind, obj, store)) == [model("digits")]
    store.put(obj)
    assert [found["metadata"]["name"] for found in store.by_model(kind, NS, "digits")] == ["given"]
    assert store.by_model(kind, "other", "digits") == []


NEXT = changed(MODEL, "metadata/generation", 2)
EDITS = [
    ("a Model's spec", kinds.MODEL, MODEL, NEXT, True),
    ("a Model's status", kinds.MODEL, MODEL, changed(MODEL, "status/x", 2), False),
    ("a command", kinds.MODEL_ROLLOUT, MODEL, NEXT, True),
    ("a Deployment's spec", kinds.DEPLOYMENT, MODEL, NEXT, False),
    ("a new Model, one of many at a start", kinds.MODEL, None, MODEL, False),
    ("the end of a Model", kinds.MODEL, MODEL, None, False),
]


@pytest.mark.parametrize(("kind", "old", "new", "expected"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_whose_change_somebody_waits_for(kind: Kind, old: Object | None, new: Object | None, expected: bool) -> None:
    assert watches.is_spec_edit(kind, old, new) is expected


def test_a_model_goes_first_when_it_is_edited_itself(store: Store) -> None:
    assert next(iter(watches.affected_keys(kinds.MODEL, MODEL, store))) == model("digits")
