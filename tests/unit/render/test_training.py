"""Objects of a run: the inputs of its stages, the parts left to the policy's author, and polls of data."""

import json
from dataclasses import replace
from re import fullmatch
from typing import Any

import pytest

from modelwright.api import names
from modelwright.api.v1alpha1.retraining import DatasetSource, RunTemplate, Trigger, Work
from modelwright.api.v1alpha1.training import DatasetStatus, StageName
from modelwright.render import gate_jobs, training_stages
from modelwright.render.strategic_merge import MergeError
from tests.unit.render.builders import DIGEST, IMAGES, version

Json = dict[str, Any]
TRAINER: Json = {"name": "train", "image": "example.com/train:1"}
JOB: Json = {"template": {"spec": {"containers": [TRAINER]}}}
DATA = "sha256:" + "a" * 64
HELD_OUT = "sha256:" + "b" * 64
STAGES: tuple[StageName, ...] = ("dataCheck", "train", "evaluate")


def run(name: str = "digits-weekly-1", uid: str = "run-uid") -> Json:
    """A TrainingRun as the API server gives it."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": "vision", "uid": uid, "labels": {"app.kubernetes.io/instance": "shop"}},
        "spec": {"policyRef": {"name": "digits"}},
    }


def template(**members: Any) -> RunTemplate:
    return RunTemplate.model_validate(
        {
            "dataset": {"uri": "s3://data/digits/", "credentialsSecretRef": {"name": "store"}},
            "dataCheck": {"job": JOB, "schema": {"rows": {"min": 10}}},
            "train": {"job": JOB},
            "evaluate": {"job": JOB, "gates": [{"name": "accuracy", "min": "0.9"}]},
            "output": {"uri": "s3://models/digits/", "format": {"name": "sklearn"}},
            "seed": 7,
            **members,
        }
    )


def inputs(of: RunTemplate | None = None, **members: Any) -> training_stages.StageInputs:
    return training_stages.StageInputs(
        **{
            "model": "digits",
            "template": of or template(holdout={"uri": "pvc://data/holdout"}),
            "parameters": {"C": "10"},
            "dataset": DatasetStatus(uri="s3://data/digits/", digest=DATA),
            "holdout": DatasetStatus(uri="pvc://data/holdout", digest=HELD_OUT),
            "serving": gate_jobs.EvaluatedContent("digits-v1", version().spec.artifact, DIGEST),
            "candidate": gate_jobs.EvaluatedContent(
                "digits-weekly-1", version(uri="s3://models/digits/x").spec.artifact, DIGEST
            ),
            "previous_profile": {"rows": 1797},
            "images": IMAGES,
            **members,
        }
    )


def work(stage: StageName, of: RunTemplate | None = None) -> Work:
    found = of or template()
    chosen = {"dataCheck": found.data_check, "train": found.train, "evaluate": found.evaluate}[stage]
    assert chosen is not None
    return chosen


def job(stage: StageName = "train", of: RunTemplate | None = None, **members: Any) -> Json:
    return training_stages.stage_job(run(), stage, work(stage, of), inputs(of, **members))


def pod(found: Json) -> Json:
    spec: Json = found["spec"]["template"]["spec"]
    return spec


def environment(found: Json) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod(found)["containers"][0]["env"]}


def document(found: Json) -> Json:
    content: Json = json.loads(found["spec"]["template"]["metadata"]["annotations"]["modelwright.dev/inputs"])
    return content


def trigger(**data: Any) -> Trigger:
    return Trigger.model_validate({"name": "new-data", "data": {"uri": "s3://data/digits/", **data}})


def policy(name: str = "digits", uid: str = "policy-uid") -> Json:
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "RetrainingPolicy",
        "metadata": {"name": name, "namespace": "vision", "uid": uid},
        "spec": {"modelRef": {"name": "digits"}},
    }


def test_names_fit_every_kind_and_differ_by_run_and_stage() -> None:
    runs = [run("r" * 52), run("r" * 51 + "s"), run(), run(uid="another"), run("3d-model")]
    found = [training_stages.stage_name(of, stage) for of in runs for stage in STAGES]
    assert len(set(found)) == len(runs) * len(STAGES)
    assert all(len(name) <= 40 and name[0].isalpha() and name == name.lower() for name in found)
    assert found == [training_stages.stage_name(of, stage) for of in runs for stage in STAGES]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_told_of_the_run_and_its_dataset(stage: StageName) -> None:
    found = job(stage)
    variables = {
        "MODEL_NAME": "digits",
        "RUN_NAME": "digits-weekly-1",
        "STAGE": stage,
        "SEED": "7",
        "DATASET_URI": "s3://data/digits/",
        "DATASET_DIGEST": DATA,
        "DATASET_DIR": "/mnt/modelwright/dataset",
        "INPUTS_FILE": "/mnt/modelwright/inputs/inputs.json",
    }
    assert variables.items() <= environment(found).items()
    assert environment(found).get("OUTPUT_URI") == (
        None if stage == "dataCheck" else "s3://models/digits/digits-weekly-1"
    )
    wanted = {"model": "digits", "run": "digits-weekly-1", "stage": stage, "seed": 7, "parameters": {"C": "10"}}
    assert wanted.items() <= document(found).items()
    assert document(found)["dataset"] == {"uri": "s3://data/digits/", "digest": DATA, "dir": "/mnt/modelwright/dataset"}
    assert document(found)["output"] == {"uri": "s3://models/digits/digits-weekly-1"}
    assert document(found)["serving"]["version"] == "digits-v1"


def test_the_evaluation_gets_both_versions_and_what_is_held_out() -> None:
    found = job("evaluate")
    assert {key: value for key, value in environment(found).items() if key.startswith(("CAND", "SERV", "HOLD"))} == {
        "CANDIDATE_DIR": "/mnt/modelwright/candidate",
        "CANDIDATE_VERSION": "digits-weekly-1",
        "CANDIDATE_FORMAT": "plain",
        "SERVING_DIR": "/mnt/modelwright/serving",
        "SERVING_VERSION": "digits-v1",
        "SERVING_FORMAT": "plain",
        "HOLDOUT_URI": "pvc://data/holdout",
        "HOLDOUT_DIGEST": HELD_OUT,
        "HOLDOUT_DIR": "/mnt/modelwright/holdout",
    }
    assert document(found)["holdout"]["dir"] == "/mnt/modelwright/holdout"
    assert document(found)["candidate"] == {
        "version": "digits-weekly-1",
        "uri": "s3://models/digits/x",
        "digest": DIGEST,
        "format": "plain",
    }
    digests = {c["name"]: c["args"][c["args"].index("--digest") + 1] for c in pod(found)["initContainers"]}
    assert digests == {
        "fetch-dataset": DATA,
        "fetch-holdout": HELD_OUT,
        "fetch-candidate": DIGEST,
        "fetch-serving": DIGEST,
    }


def test_without_serving_version_and_holdout_neither_is_given() -> None:
    found = job("evaluate", template(), serving=None, holdout=None)
    assert not any(name.startswith(("SERVING", "HOLDOUT")) for name in environment(found))
    assert {"serving", "holdout"}.isdisjoint(document(found))
    assert [c["name"] for c in pod(found)["initContainers"]] == ["fetch-dataset", "fetch-candidate"]


@pytest.mark.parametrize("stage", ["dataCheck", "train"])
def test_who_trains_is_told_nothing_of_what_is_held_out(stage: StageName) -> None:
    text = json.dumps(job(stage))
    assert HELD_OUT not in text
    assert "holdout" not in text


def test_the_data_check_gets_its_schema_and_the_profile_before() -> None:
    found = document(job("dataCheck"))
    assert (found["schema"], found["previousProfile"]) == ({"rows": {"min": 10}}, {"rows": 1797})
    assert {"schema", "previousProfile"}.isdisjoint(document(job("train")))
    assert "previousProfile" not in document(job("dataCheck", previous_profile=None))


@pytest.mark.parametrize("stage", STAGES)
def test_every_mount_has_its_volume_exactly_once(stage: StageName) -> None:
    spec = pod(job(stage))
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert len(volumes) == len(spec["volumes"])
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    (item,) = volumes["modelwright-inputs"]["downwardAPI"]["items"]
    assert (item["path"], item["fieldRef"]["fieldPath"]) == (
        "inputs.json",
        "metadata.annotations['modelwright.dev/inputs']",
    )


@pytest.mark.parametrize("stage", STAGES)
def test_pods_meet_the_restricted_standard(stage: StageName) -> None:
    spec = pod(job(stage))
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_clock_and_the_suspension_are_nobody_elses() -> None:
    spec = job()["spec"]
    assert {"activeDeadlineSeconds", "ttlSecondsAfterFinished", "suspend"}.isdisjoint(spec)
    assert spec["backoffLimit"] == 1


def test_labels_and_owner_say_whose_it_is() -> None:
    queue = {"kueue.x-k8s.io/queue-name": "gpus", "team": "vision"}
    found = job(of=template(train={"job": {**JOB, "labels": queue}}))
    labels = found["metadata"]["labels"]
    assert queue.items() <= labels.items()
    assert (labels[names.LABEL_ROLE], labels[names.LABEL_RUN]) == ("training", "digits-weekly-1")
    assert labels[names.LABEL_MODEL] == "digits"
    assert labels.items() <= found["spec"]["template"]["metadata"]["labels"].items()
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("TrainingRun", "run-uid", True)


def test_what_the_author_says_is_kept() -> None:
    policy: Json = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    own = {
        "metadata": {
            "labels": {"a": "b", names.LABEL_ROLE: "serving"},
            "annotations": {"c": "d", names.ANNOTATION_INPUTS: "x"},
        },
        "spec": {
            "serviceAccountName": "trainer",
            "nodeSelector": {"gpu": "yes"},
            "containers": [{**TRAINER, "env": [{"name": "SEED", "value": "1"}, {"name": "OWN", "value": "$(SEED)"}]}],
        },
    }
    found = job(of=template(train={"job": {"template": own, "backoffLimit": 3, "podFailurePolicy": policy}}))
    assert (found["spec"]["backoffLimit"], found["spec"]["podFailurePolicy"]) == (3, policy)
    assert (pod(found)["serviceAccountName"], pod(found)["nodeSelector"]) == ("trainer", {"gpu": "yes"})
    assert (environment(found)["SEED"], environment(found)["OWN"]) == ("7", "$(SEED)")
    metadata = found["spec"]["template"]["metadata"]
    assert (metadata["labels"]["a"], metadata["labels"][names.LABEL_ROLE]) == ("b", "training")
    assert metadata["annotations"]["c"] == "d"
    assert document(found)["stage"] == "train"


@pytest.mark.parametrize(
    ("dataset", "output", "account"),
    [
        ({}, {}, None),
        ({"serviceAccountName": "reader"}, {}, "reader"),
        ({}, {"serviceAccountName": "writer"}, "writer"),
    ],
)
def test_the_service_account_defaults_to_that_of_the_data(dataset: Json, output: Json, account: str | None) -> None:
    of = template(
        dataset={"uri": "s3://data/d", **dataset},
        output={"uri": "s3://models/d", "format": {"name": "sklearn"}, **output},
    )
    assert pod(job(of=of)).get("serviceAccountName") == account


def test_dollars_come_through_as_they_are() -> None:
    odd = inputs(parameters={"p": "$(HOME) $$"}, dataset=DatasetStatus(uri="s3://data/$(SEED)/$$x", digest=DATA))
    found = training_stages.stage_job(run(), "train", work("train"), odd)
    # The kubelet makes one dollar of two.
    assert environment(found)["DATASET_URI"] == "s3://data/$$(SEED)/$$$$x"
    assert document(found)["parameters"] == {"p": "$(HOME) $$"}
    assert "$" not in found["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_INPUTS]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, r"spec\.run\.train\.job\.template\.spec\.containers: at least one"),
        ({"spec": {"containers": [{"image": "x"}]}}, r"spec\.run\.train\.job\.template\.spec\.containers\[0\]"),
        (
            {"spec": JOB["template"]["spec"], "metadata": {"labels": "x"}},
            r"template\.metadata\.labels: must be an object",
        ),
        (
            {"spec": JOB["template"]["spec"], "metadata": {"annotations": []}},
            r"template\.metadata\.annotations: must be",
        ),
    ],
)
def test_a_template_that_makes_no_pod_is_refused_by_the_field(given: Json, named: str) -> None:
    with pytest.raises(MergeError, match=named):
        job(of=template(train={"job": {"template": given}}))


def test_inputs_that_are_too_large_are_refused_by_name() -> None:
    with pytest.raises(MergeError, match=r"spec\.run: the inputs of train take 2\d{5} bytes"):
        job(parameters={str(number): "x" * 1024 for number in range(200)})


MANIFEST: Json = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "metadata": {"labels": {"team": "vision", names.LABEL_MODEL: "other"}, "annotations": {"run": "$(RUN)"}},
    "spec": {
        "arguments": [
            {"name": "in", "value": "$(INPUTS)"},
            {"name": "at", "value": "$(DATASET_URI)@$(DATASET_DIGEST)"},
        ],
        "env": ["$(MODEL) $(SEED) $(OUTPUT_URI)", "$(HOME)", "$(run)"],
        "n": 3,
    },
}


def resource(stage: StageName = "train", inputs_: training_stages.StageInputs | None = None, **members: Any) -> Json:
    manifest = {key: value for key, value in {**MANIFEST, **members}.items() if value is not None}
    of = Work.model_validate({"resource": {"manifest": manifest, "profile": "Workflow"}})
    return training_stages.stage_resource(run(), stage, of, inputs_ or inputs())


def test_a_resource_is_the_authors_with_our_name_and_labels() -> None:
    found = resource()
    metadata = found["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (training_stages.stage_name(run(), "train"), "vision")
    assert (metadata["labels"]["team"], metadata["labels"][names.LABEL_MODEL]) == ("vision", "digits")
    assert metadata["annotations"] == {"run": "digits-weekly-1"}
    assert metadata["ownerReferences"][0]["uid"] == "run-uid"
    assert resource(metadata={"namespace": "vision"})["metadata"]["namespace"] == "vision"


def test_references_are_filled_in_in_every_text_and_others_stay() -> None:
    spec = resource()["spec"]
    assert spec["arguments"][1]["value"] == f"s3://data/digits/@{DATA}"
    assert spec["env"] == ["digits 7 s3://models/digits/digits-weekly-1", "$(HOME)", "$(run)"]
    assert spec["n"] == 3
    inputs_given = json.loads(spec["arguments"][0]["value"])
    assert (inputs_given["stage"], inputs_given["parameters"]) == ("train", {"C": "10"})
    # Nothing is fetched for it.
    assert inputs_given["dataset"] == {"uri": "s3://data/digits/", "digest": DATA}


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    odd = replace(inputs(), dataset=DatasetStatus(uri="s3://data/$(SEED)/", digest=DATA))
    assert resource(inputs_=odd)["spec"]["arguments"][1]["value"] == f"s3://data/$(SEED)/@{DATA}"


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"metadata": {"namespace": "other"}}, "manifest.metadata.namespace: must be vision"),
        ({"metadata": {"generateName": "x-"}}, "manifest.metadata.generateName: is set by the operator"),
        ({"metadata": {"name": "mine"}}, "manifest.metadata.name: is set by the operator"),
        ({"metadata": {"ownerReferences": [{}]}}, "manifest.metadata.ownerReferences: is set by the operator"),
        ({"metadata": []}, "manifest.metadata: must be an object"),
        ({"status": {"phase": "Succeeded"}}, "manifest.status: is written by"),
        ({"apiVersion": None}, "manifest.apiVersion: must be given"),
        ({"kind": None}, "manifest.kind: must be given"),
        ({"kind": 3}, "manifest.kind: must be given, as a text"),
        ({"spec": {"many": ["$(INPUTS)"] * 6000}}, r"manifest: it takes \d+ bytes once it is filled in"),
    ],
)
def test_a_manifest_that_we_may_not_create_is_refused_by_field(members: Json, named: str) -> None:
    with pytest.raises(MergeError, match=rf"spec\.run\.train\.resource\.{named}"):
        resource(**members)


@pytest.mark.parametrize("which", ["dataset", "holdout"])
def test_a_resolve_pod_looks_at_the_data_as_the_policy_says(which: Any) -> None:
    source = DatasetSource.model_validate(
        {"uri": "pvc://data/d", "serviceAccountName": "reader", "credentialsSecretRef": {"name": "store"}}
    )
    found = training_stages.dataset_resolve_pod(run(), which, source, "digits", IMAGES)
    assert found["spec"]["containers"][0]["args"] == ["resolve", "--uri", "pvc://data/d"]
    assert found["spec"]["serviceAccountName"] == "reader"
    assert found["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_RESOLVE
    assert found["metadata"]["labels"][names.LABEL_RUN] == "digits-weekly-1"
    assert found["metadata"]["ownerReferences"][0]["kind"] == "TrainingRun"
    others = [
        training_stages.dataset_resolve_pod(of, w, source, "digits", IMAGES)
        for of in (run(), run(uid="b"), run("r" * 52))
        for w in ("dataset", "holdout")
    ]
    assert len({other["metadata"]["name"] for other in others}) == 6
    assert all(len(other["metadata"]["name"]) <= 63 for other in others)


@pytest.mark.parametrize(
    ("every", "pattern"),
    [
        ("1m", r"\* \* \* \* \*"),
        ("10m", r"\d-59/10 \* \* \* \*"),
        ("30m", r"[12]?\d-59/30 \* \* \* \*"),
        ("1h", r"[1-5]?\d \* \* \* \*"),
        ("60m", r"[1-5]?\d \* \* \* \*"),
        ("6h", r"[1-5]?\d [0-5]-23/6 \* \* \*"),
        ("24h", r"[1-5]?\d (1?\d|2[0-3]) \* \* \*"),
    ],
)
def test_a_look_comes_as_often_as_is_asked_for(every: str, pattern: str) -> None:
    for number in range(50):
        found = training_stages.data_poll_cron_job(policy(uid=f"uid-{number}"), trigger(every=every), IMAGES)["spec"][
            "schedule"
        ]
        assert fullmatch(pattern, found), found


@pytest.mark.parametrize(("every", "places"), [("10m", 10), ("1h", 60), ("24h", 1440)])
def test_a_thousand_policies_look_at_all_times(every: str, places: int) -> None:
    polls = [
        training_stages.data_poll_cron_job(policy(uid=f"uid-{number}"), trigger(every=every), IMAGES)
        for number in range(1000)
    ]
    counts: dict[str, int] = {}
    for poll in polls:
        counts[poll["spec"]["schedule"]] = counts.get(poll["spec"]["schedule"], 0) + 1
    assert len(counts) >= min(places, 1000) * 0.45
    assert max(counts.values()) <= 1000 / places + 5 * (1000 / places) ** 0.5 + 3


def test_a_look_is_one_at_a_time_under_the_policys_own_account() -> None:
    found = training_stages.data_poll_cron_job(
        policy(), trigger(changed="Digest", serviceAccountName="reader", credentialsSecretRef={"name": "store"}), IMAGES
    )
    spec = found["spec"]
    assert (spec["concurrencyPolicy"], spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (
        "Forbid",
        1,
        1,
    )
    template = spec["jobTemplate"]["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == "reader"
    assert template["spec"]["containers"][0]["args"] == ["look", "--uri", "s3://data/digits/", "--changed", "Digest"]
    assert template["spec"]["automountServiceAccountToken"] is False
    assert template["metadata"]["labels"] == found["metadata"]["labels"]
    labels = found["metadata"]["labels"]
    assert (labels[names.LABEL_ROLE], labels[names.LABEL_TRIGGER]) == ("look", "new-data")
    assert labels[names.LABEL_DATA_POLL] == found["metadata"]["name"]
    assert found["metadata"]["ownerReferences"][0]["kind"] == "RetrainingPolicy"


def test_looks_of_other_triggers_and_policies_have_other_names() -> None:
    long = [policy("p" * 40), policy("p" * 40, "b"), policy()]
    triggers = [trigger(), Trigger.model_validate({**trigger().wire(), "name": "t" * 63})]
    found = [training_stages.data_poll_cron_job(of, t, IMAGES)["metadata"]["name"] for of in long for t in triggers]
    assert len(set(found)) == 6
    assert all(len(name) <= 52 for name in found)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"every": "7m"}, r"data\.every: a CronJob polls at even intervals only if it is one of 1m, 2m"),
        ({"every": "90m"}, r"data\.every"),
        ({"every": "90s"}, r"data\.every"),
        ({"every": "5h"}, r"data\.every"),
        ({"uri": "https://example.com/d.csv", "changed": "Count"}, r"data\.changed: https has no number of objects"),
        ({"uri": "hf://team/data", "changed": "Count"}, r"data\.changed: hf has no number"),
    ],
)
def test_what_can_not_be_looked_at_is_refused_by_the_field(data: Json, named: str) -> None:
    with pytest.raises(MergeError, match=rf"spec\.triggers\[new-data\]\.{named}"):
        training_stages.data_poll_cron_job(policy(), trigger(**data), IMAGES)
