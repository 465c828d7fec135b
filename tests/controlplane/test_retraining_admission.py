"""Who may say what is trained, and who may train now, on a real API server."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelwright.kube.access_review import (
    AccessUndetermined,
    Audience,
    KubeAccessReviewer,
    ObjectAccess,
    PathAccess,
    User,
)
from modelwright.kube.client import KubeClient, load_configuration
from tests.lib.control_plane import ROOT, Server
from tests.lib.objects import API_VERSION
from tests.lib.people_rights import RBAC, Object, tried
from tests.packaging.render import objects as documents

pytestmark = pytest.mark.controlplane

NAMESPACE = "training"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:modelwright"
SENDER = f"system:serviceaccount:{NAMESPACE}:sender"
FORGED = "modelwright:nobody"
IN_FORCE_SECONDS = 30.0

DATASET = {"uri": "s3://data/train"}
JOB = {"job": {"template": {"spec": {"containers": [{"name": "train", "image": "example.com/trainer:1"}]}}}}
JOBSET = {"resource": {"profile": "JobSet", "manifest": {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet"}}}


def role(user: str, *rules: Object) -> list[Object]:
    name = user.rsplit(":", 1)[-1]
    metadata = {"name": name, "namespace": NAMESPACE}
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
        },
    ]


def rule(group: str, resource: str, *verbs: str, names: tuple[str, ...] = ()) -> Object:
    found: Object = {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
    return found | ({"resourceNames": list(names)} if names else {})


WRITES = (
    rule("modelwright.dev", "retrainingpolicies", "create", "get", "update", "patch"),
    rule("modelwright.dev", "modelversions", "create"),
)
JOBS = rule("batch", "jobs", "create")


@pytest.fixture(scope="module", autouse=True)
def users(crd_server: Server) -> None:
    """alice may all that her policies need; the others lack something; tom may trigger fraud; the operator."""
    roles = {o["metadata"]["name"]: o for o in documents((ROOT / "manifests/rbac/user-roles.yaml").read_text())}
    installed = documents((ROOT / "manifests/install/namespaced/rbac.yaml").read_text())
    operator = next(o for o in installed if o["kind"] == "Role")
    crd_server.ok("create", "namespace", NAMESPACE)
    crd_server.ok(
        "apply",
        "-f",
        "-",
        objects=[
            *role(
                "alice",
                *WRITES,
                rule("batch", "jobs", "create"),
                rule("batch", "cronjobs", "create"),
                rule("jobset.x-k8s.io", "jobsets", "create"),
                rule("", "serviceaccounts", "use", names=("trainer", "reader", "a", "b", "c", "d")),
                rule("", "secrets", "create"),
                rule(RBAC, "rolebindings", "create"),
                rule("modelwright.dev", "approvals", "create"),
            ),
            *role("nojobs", *WRITES, rule("jobset.x-k8s.io", "jobsets", "create")),
            *role("nocrons", *WRITES, JOBS),
            *role("noversions", WRITES[0], JOBS),
            *role("stops", WRITES[0]),
            *role("edits", *roles["modelwright-edit"]["rules"], *roles["modelwright-view"]["rules"]),
            *role("views", *roles["modelwright-view"]["rules"]),
            *role(
                "tom",
                rule("modelwright.dev", "retrainingpolicies", "trigger", names=("fraud",)),
                rule("modelwright.dev", "trainingruns", "create", "patch", "get"),
            ),
            *role("writer", rule("modelwright.dev", "trainingruns", "create")),
            *role(SENDER, rule("modelwright.dev", "retrainingpolicies", "trigger", names=("fraud",))),
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "sender", "namespace": NAMESPACE},
            },
            *role(OPERATOR, *operator["rules"]),
        ],
    )
    # Policies come into force a moment after they are written.
    for obj, refusal in (
        (policy(train=resource("v1", "Secret")), "never created"),
        (run(**by(FORGED)), "a training is possible only in your own name"),
    ):
        end = time.monotonic() + IN_FORCE_SECONDS
        while refusal not in (said := tried(crd_server, obj, None)):
            assert time.monotonic() < end, said or "accepted"


def policy(**run: Any) -> Object:
    """A RetrainingPolicy with these members of spec.run; `triggers` and `name` are the policy's own."""
    triggers, name = run.pop("triggers", []), run.pop("name", "fraud")
    output = {"uri": "s3://models/fraud", "format": {"name": "sklearn"}}
    return {
        "apiVersion": API_VERSION,
        "kind": "RetrainingPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "modelRef": {"name": "fraud"},
            "triggers": triggers,
            "run": {"dataset": DATASET, "train": JOB, "output": output, **run},
        },
    }


def job(**pod: Any) -> Object:
    return {"job": {"template": {"spec": {**JOB["job"]["template"]["spec"], **pod}}}}


def resource(api_version: Any, kind: Any, **manifest: Any) -> Object:
    given = {"apiVersion": api_version, "kind": kind, **manifest}
    made = {name: value for name, value in given.items() if value is not None}
    return {"resource": {"manifest": made, "success": "true", "failure": "false"}}


def look(name: str, account: str | None = None) -> Object:
    data = {"uri": "s3://data/train"} | ({"serviceAccountName": account} if account else {})
    return {"name": name, "data": data}


def evaluated(work: Object) -> Object:
    return {**work, "gates": [{"name": "f1", "min": "0.9"}]}


ACCOUNTS = [look(name, name) for name in ("trainer", "reader", "a", "b", "c", "d")]


@pytest.mark.parametrize(
    ("user", "obj"),
    [
        ("alice", policy()),
        ("alice", policy(train=JOBSET)),
        ("alice", policy(train=job(serviceAccountName="default"))),
        ("alice", policy(dataCheck=JOB, train=job(serviceAccountName="trainer"), evaluate=evaluated(JOBSET))),
        ("alice", policy(dataCheck=JOBSET, train=JOBSET, evaluate=evaluated(JOBSET))),
        ("alice", policy(dataset={**DATASET, "serviceAccountName": "reader"}, triggers=[look("new"), look("old")])),
        ("alice", policy(triggers=ACCOUNTS, dataset={**DATASET, "serviceAccountName": "trainer"})),
        ("alice", policy(triggers=[look(f"t{n}", "reader") for n in range(16)])),
        ("nocrons", policy(triggers=[{"name": "nightly", "schedule": {"cron": "0 3 * * *"}}])),
        ("nojobs", policy(train=JOBSET)),
        (
            None,
            policy(train=job(serviceAccountName="anything"), dataCheck=resource("argoproj.io/v1alpha1", "Workflow")),
        ),
    ],
)
def test_who_may_make_all_of_it_may_write_a_policy(crd_server: Server, user: str | None, obj: Object) -> None:
    assert tried(crd_server, obj, user) == ""


@pytest.mark.parametrize(
    ("user", "obj", "refusal"),
    [
        (
            "nojobs",
            policy(dataCheck=JOB),
            'spec.run.dataCheck.job, spec.run.train.job: to create Jobs, you ("nojobs") need the verb "create" on '
            "jobs.batch",
        ),
        (
            "nojobs",
            policy(train=JOBSET, triggers=[look("new")]),
            "spec.triggers[new].data: to create Jobs",
        ),
        (
            "nocrons",
            policy(triggers=[look("new")]),
            'spec.triggers[new].data: a CronJob polls data: you ("nocrons") need the verb "create" on cronjobs.batch',
        ),
        (
            "nocrons",
            policy(train=JOBSET),
            'spec.run.train.resource.manifest: to create a JobSet, you ("nocrons") need the verb "create" on '
            "jobsets.jobset.x-k8s.io",
        ),
        (
            "alice",
            policy(dataCheck=JOBSET, train=JOBSET, evaluate=evaluated(resource("argoproj.io/v1alpha1", "Workflow"))),
            "spec.run.evaluate.resource.manifest: to create a Workflow",
        ),
        (
            "noversions",
            policy(),
            'spec.modelRef: a run registers a ModelVersion of the Model "fraud": you ("noversions") need the verb '
            '"create" on modelversions.modelwright.dev',
        ),
        (
            "alice",
            policy(train=job(serviceAccountName="root"), dataset={**DATASET, "serviceAccountName": "root"}),
            "spec.run.dataset.serviceAccountName, spec.run.train.job.template.spec.serviceAccountName: to have pods "
            'run as the ServiceAccount "root", you ("alice") need the verb "use" on it',
        ),
        ("alice", policy(train=job(serviceAccount="root")), "spec.run.train.job.template.spec.serviceAccount: "),
        (
            "alice",
            policy(train=resource("jobset.x-k8s.io/v1alpha2", "JobSet", spec={"serviceAccountName": "root"})),
            'spec.run.train.resource.manifest.spec.serviceAccountName: to have pods run as the ServiceAccount "root"',
        ),
        (
            "alice",
            policy(evaluate=evaluated(job(serviceAccountName="root"))),
            "spec.run.evaluate.job.template.spec.serviceAccountName: ",
        ),
        (
            "alice",
            policy(dataCheck=job(serviceAccountName="root"), train=job(serviceAccountName="trainer")),
            "spec.run.dataCheck.job.template.spec.serviceAccountName: ",
        ),
        (
            "alice",
            policy(holdout={**DATASET, "serviceAccountName": "root"}),
            "spec.run.holdout.serviceAccountName: ",
        ),
        (
            "alice",
            policy(output={"uri": "s3://models/f", "format": {"name": "onnx"}, "serviceAccountName": "root"}),
            "spec.run.output.serviceAccountName: ",
        ),
        (
            "alice",
            policy(triggers=[look("new"), *ACCOUNTS[:5], look("late", "root")]),
            'spec.triggers[late].data.serviceAccountName: to have pods run as the ServiceAccount "root"',
        ),
        (
            "alice",
            policy(triggers=[*ACCOUNTS, look("late", "root")]),
            "without the right to use all serviceaccounts of the namespace, an object may name at most 6 different "
            "ones",
        ),
        ("alice", policy(train=resource("v1", "Secret")), "spec.run.train.resource.manifest: Secret of v1 is never"),
        (None, policy(train=resource("v1", "Secret")), "Secret of v1 is never created"),
        (None, policy(dataCheck=resource(f"{RBAC}/v1", "RoleBinding")), "RoleBinding of"),
        (None, policy(train=resource(API_VERSION, "Approval")), "Approval of modelwright.dev/v1alpha1 is never"),
        (
            None,
            policy(train=resource("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding")),
            "is never created",
        ),
        (None, policy(train=resource("apiextensions.k8s.io/v1", "CustomResourceDefinition")), "is never created"),
        (None, policy(train=resource(None, "JobSet")), "spec.run.train.resource.manifest: apiVersion and kind are"),
        (None, policy(train=resource("batch/v1", None)), "spec.run.train.resource.manifest: apiVersion and kind are"),
        ("edits", policy(), "need the verb"),
        ("views", policy(), 'cannot create resource "retrainingpolicies"'),
    ],
)
def test_a_policy_has_nothing_made_that_its_writer_may_not_make(
    crd_server: Server, user: str | None, obj: Object, refusal: str
) -> None:
    assert refusal in tried(crd_server, obj, user)


def test_an_edit_of_what_is_created_needs_its_writers_rights(crd_server: Server) -> None:
    crd_server.ok("create", "-f", "-", objects=policy(name="edited"), user="alice")

    def said(spec: Object, user: str, **metadata: Any) -> str:
        patch = json.dumps({"spec": spec, "metadata": metadata})
        line = ["patch", "rtp", "edited", "-n", NAMESPACE, "--type=merge", "--dry-run=server", "-p", patch]
        answer = crd_server.run(*line, user=user)
        return "" if answer.returncode == 0 else answer.stderr

    try:
        for spec in ({"suspend": True}, {"guard": {"cooldown": "1h"}}, {"historyLimit": 3}, {}):
            assert said(spec, "stops", labels={"seen": "yes"}) == ""
        assert '"create" on modelversions' in said({"run": {"seed": 7}}, "stops")
        assert '"create" on modelversions' in said({"modelRef": {"name": "digits"}}, "stops")
        assert "need the verb" in said({"triggers": [look("new")]}, "nocrons")
        assert said({"run": {"seed": 7}}, "alice") == ""
        root = {"run": {"train": job(serviceAccountName="root")}}
        assert '"use" on it' in said(root, "alice")
    finally:
        crd_server.ok("delete", "rtp", "edited", "-n", NAMESPACE)


def test_a_large_policy_does_not_exceed_what_an_expression_may_cost(crd_server: Server) -> None:
    variables = [{"name": f"VARIABLE_{number}", "value": "x" * 50} for number in range(320)]
    large = job(serviceAccountName="trainer", initContainers=[{"name": "i", "image": "i", "env": variables}])
    obj = policy(name="large", dataCheck=large, train=large, evaluate=evaluated(large), triggers=ACCOUNTS[:5])
    crd_server.ok("create", "-f", "-", objects=obj, user="alice")
    try:
        obj["spec"]["suspend"] = True
        crd_server.ok("replace", "-f", "-", objects=obj, user="stops")
        obj["spec"]["run"]["evaluate"]["job"]["template"]["spec"]["serviceAccountName"] = "root"
        assert '"use" on it' in crd_server.run("replace", "-f", "-", objects=obj, user="alice").stderr
    finally:
        crd_server.ok("delete", "rtp", "large", "-n", NAMESPACE)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        *(
            ({"job": {"template": {"spec": spec}}}, "spec.run.train.job.template.spec: must be the spec of a pod")
            for spec in ("none", 5, ["none"], {"serviceAccountName": {"name": "root"}}, {"serviceAccount": ["root"]})
        ),
        *(
            (
                resource(*given, spec=spec),
                "spec.run.train.resource.manifest: apiVersion, kind and a ServiceAccount must",
            )
            for given, spec in (
                (("jobset.x-k8s.io/v1alpha2", 5), {}),
                ((["v1"], "JobSet"), {}),
                (("jobset.x-k8s.io/v1alpha2", "JobSet"), ["none"]),
                (("jobset.x-k8s.io/v1alpha2", "JobSet"), {"serviceAccountName": 7}),
            )
        ),
    ],
)
def test_what_is_no_template_is_refused_before_it_is_looked_into(crd_server: Server, work: Object, told: str) -> None:
    assert told in tried(crd_server, policy(train=work), "alice")


def run(name: str = "now", *, policy: str = "fraud", **spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"policyRef": {"name": policy}, **spec},
    }


def by(user: str) -> Object:
    return {"manual": {"by": user, "reason": "new labels"}}


TRIGGER = {"trigger": {"name": "nightly", "identity": "2026-11-26T03:00:00Z"}, "policyUid": "u"}


@pytest.mark.parametrize(
    ("user", "obj", "refusal"),
    [
        ("tom", run(**by("tom")), ""),
        ("edits", run(policy="digits", **by("edits")), ""),
        (None, run(**by("admin")), ""),
        (OPERATOR, run(**TRIGGER), ""),
        (
            "tom",
            run(**by("alice")),
            'spec.manual.by is "alice", but you are "tom": a training is possible only in your own name',
        ),
        (None, run(**by("tom")), 'spec.manual.by is "tom", but you are "admin"'),
        (OPERATOR, run(**by(FORGED)), f'spec.manual.by is "{FORGED}", but you are "{OPERATOR}"'),
        (None, run(**by(FORGED)), f'spec.manual.by is "{FORGED}", but you are "admin"'),
        (
            "tom",
            run(policy="digits", **by("tom")),
            'to train by the RetrainingPolicy "digits", you ("tom") need the verb "trigger" on it',
        ),
        ("writer", run(**by("writer")), 'you ("writer") need the verb "trigger" on it'),
        (OPERATOR, run(**by(OPERATOR)), 'need the verb "trigger" on it'),
        ("tom", run(**TRIGGER), "spec.trigger and spec.policyUid are the operator's"),
        ("edits", run(**TRIGGER), "spec.trigger and spec.policyUid are the operator's"),
        ("tom", run(policyUid="u", **by("tom")), "spec.trigger and spec.policyUid are the operator's"),
        ("views", run(**by("views")), 'cannot create resource "trainingruns"'),
    ],
)
def test_a_run_is_asked_for_in_ones_own_name_and_with_the_verb(
    crd_server: Server, user: str | None, obj: Object, refusal: str
) -> None:
    said = tried(crd_server, obj, user)
    assert refusal in said
    assert bool(said) == bool(refusal), said


def test_only_who_may_delete_a_run_may_have_it_collected(crd_server: Server) -> None:
    crd_server.ok("create", "-f", "-", objects=run("kept", **TRIGGER), user=OPERATOR)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}

    def said(metadata: Object, user: str | None) -> str:
        patch = ["--type=merge", "--dry-run=server", "-p", json.dumps({"metadata": metadata})]
        answer = crd_server.run("patch", "trn", "kept", "-n", NAMESPACE, *patch, user=user)
        return "" if answer.returncode == 0 else answer.stderr

    try:
        for metadata in ({"ownerReferences": [owner]}, {"finalizers": ["example.com/never"]}):
            assert "only users who may delete this TrainingRun" in said(metadata, "tom")
            assert said(metadata, None) == ""
        assert said({"labels": {"seen": "yes"}}, "tom") == ""
    finally:
        crd_server.ok("delete", "trn", "kept", "-n", NAMESPACE)


@pytest.mark.parametrize(
    ("verb", "resource", "may"),
    [
        ("trigger", "retrainingpolicies", {"edits"}),
        ("create", "trainingruns", {"edits", "tom", "writer"}),
        ("delete", "trainingruns", {"edits"}),
        ("deletecollection", "trainingruns", set()),
        ("update", "trainingruns", set()),
        ("patch", "trainingruns/status", set()),
        ("patch", "retrainingpolicies/status", set()),
        ("get", "trainingruns", {"edits", "views", "tom"}),
    ],
)
def test_the_roles_give_each_their_own(crd_server: Server, verb: str, resource: str, may: set[str]) -> None:
    kind, _, subresource = resource.partition("/")
    asked = ["auth", "can-i", verb, f"{kind}.modelwright.dev", "-n", NAMESPACE]
    asked += [f"--subresource={subresource}"] if subresource else []
    users = ("edits", "views", "tom", "writer")
    found = {user for user in users if crd_server.run(*asked, user=user).stdout.strip() == "yes"}
    assert found == may


@contextlib.asynccontextmanager
async def access(server: Server, user: str | None = None) -> AsyncIterator[KubeAccessReviewer]:
    client = KubeClient(await load_configuration(str(server.plane.kubeconfig)))
    if user is not None:
        client._api.default_headers["Impersonate-User"] = user
    try:
        yield KubeAccessReviewer(client)
    finally:
        await client.close()


def attempt(name: str = "fraud", verb: str = "trigger", namespace: str = NAMESPACE) -> ObjectAccess:
    return ObjectAccess(verb, "modelwright.dev", "retrainingpolicies", namespace, name)


async def test_a_token_says_who_it_is_and_the_roles_what_they_may(crd_server: Server) -> None:
    token = crd_server.ok("create", "token", "sender", "-n", NAMESPACE).strip()
    other = crd_server.ok("create", "token", "sender", "-n", NAMESPACE, "--audience=elsewhere").strip()
    ours = crd_server.ok("create", "token", "sender", "-n", NAMESPACE, "--audience=modelwright.dev").strip()
    async with access(crd_server) as asked:
        assert await asked.authenticate(token, Audience.OURS) is None
        mine = await asked.authenticate(ours, Audience.OURS)
        user = await asked.authenticate(token, Audience.ANY)
        assert mine is not None
        assert (mine.name, mine.for_our_audience) == (SENDER, True)
        assert not await asked.is_allowed(mine, PathAccess("get", "/metrics"))
        assert user is not None
        assert user.name == SENDER
        assert f"system:serviceaccounts:{NAMESPACE}" in user.groups
        assert await asked.is_allowed(user, attempt())
        for refused in (attempt("digits"), attempt(verb="update"), attempt(namespace="default")):
            assert not await asked.is_allowed(user, refused)
        for bad in ("nobodys", token[:-4] + "AAAA", other):
            assert await asked.authenticate(bad, Audience.ANY) is None


async def test_an_operator_of_one_namespace_says_what_it_lacks(crd_server: Server) -> None:
    async with access(crd_server, OPERATOR) as asked:
        for question in (asked.authenticate("token", Audience.OURS), asked.is_allowed(User("alice"), attempt())):
            with pytest.raises(AccessUndetermined, match="system:auth-delegator"):
                await question
