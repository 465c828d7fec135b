"""The Jobs of gates: what they hand over, what they leave to the policy's author; nothing else selects them."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.agents.prober.settings import read_prober_settings
from modelwright.api import names
from modelwright.api.v1alpha1.policy import EvaluationGate, InfraGate, ScanGate
from modelwright.api.v1alpha1.version import Sample
from modelwright.core.revision import Revision
from modelwright.render import fetch_container, gate_jobs, services, workload
from modelwright.render.strategic_merge import MergeError
from tests.unit.render.builders import DIGEST, IMAGES, choice, raw_model, rollout, stored, version

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy host is no finding."""

Json = dict[str, Any]
CANDIDATE = Revision("digits-v2", "bbbbbbbbbb")
SCORER: Json = {"name": "score", "image": "example.com/score:1"}
METRICS = [{"name": "accuracy", "min": "0.9"}]


def infra(
    samples: tuple[Json, ...] = (), gate: Json | None = None, runtime: Json | None = None, pods: tuple[str, ...] = ()
) -> Json:
    return gate_jobs.infra_job(
        rollout(),
        InfraGate.model_validate(gate or {}),
        gate_jobs.ProbedCandidate(CANDIDATE, stored(raw_model(), choice(**(runtime or {}))), "V2", 30, pods=pods),
        tuple(map(Sample.model_validate, samples)),
        IMAGES,
    )


def evaluation(spec: Any = None, serving: bool = True, metadata: Any = None, **artifact: Any) -> Json:
    template = {"spec": {"containers": [SCORER]} if spec is None else spec, "metadata": metadata}
    gate = EvaluationGate.model_validate({"template": template, "metrics": METRICS})
    wanted = gate_jobs.EvaluatedContent("digits-v2", version(**artifact).spec.artifact, DIGEST)
    source = gate_jobs.EvaluatedContent("digits-v1", version(uri="pvc://claim/digits/1").spec.artifact, DIGEST)
    return gate_jobs.evaluation_job(rollout(), gate, CANDIDATE, wanted, source if serving else None, IMAGES)


def scan(allow: Json | None = None) -> Json:
    gate = ScanGate.model_validate({"allow": allow or {}})
    return gate_jobs.scan_job(
        rollout(), gate, CANDIDATE, gate_jobs.EvaluatedContent("digits-v2", version().spec.artifact, DIGEST), IMAGES
    )


def pod(job: Json) -> Json:
    found: Json = job["spec"]["template"]["spec"]
    return found


def environment(container: Json) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_names_fit_a_label_and_differ_by_rollout_and_gate() -> None:
    long = rollout("m" * 50 + "-1000000000")
    others = (long, rollout("m" * 50 + "-1000000001"), rollout(), rollout(uid="another"))
    found = [gate_jobs.job_name(of, gate) for of in others for gate in ("evaluation", "infra")]
    assert len(set(found)) == 8
    assert all(len(name) <= 63 for name in found)
    assert found == [gate_jobs.job_name(of, gate) for of in others for gate in ("evaluation", "infra")]


@pytest.mark.parametrize("job", [scan(), infra(), evaluation()], ids=["scan", "infra", "evaluation"])
def test_a_job_belongs_to_the_rollout_and_no_selector_matches_it(job: Json) -> None:
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("ModelRollout", "rollout-uid", True)
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels[names.LABEL_MODEL] == job["metadata"]["labels"][names.LABEL_MODEL] == "digits"
    assert "app.kubernetes.io/instance" not in labels
    selectors = [
        services.revision_service(raw_model(), CANDIDATE, {"http": 8080})["spec"]["selector"],
        workload.revision_deployment(raw_model(), CANDIDATE, {}, 1)["spec"]["selector"]["matchLabels"],
        workload.revision_disruption_budget(raw_model(), CANDIDATE)["spec"]["selector"]["matchLabels"],
        {names.LABEL_MODEL: "digits", names.LABEL_ROLE: names.ROLE_SERVING},
    ]
    assert not any(selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize("job", [scan(), infra(), evaluation()], ids=["scan", "infra", "evaluation"])
def test_pods_meet_the_restricted_standard(job: Json) -> None:
    spec = pod(job)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_prober_understands_what_it_is_told() -> None:
    gate = {"repeats": 5, "latency": {"percentile": "0.99", "max": "250ms"}, "memory": "1.5Gi", "timeout": "90s"}
    samples = ({"request": {"inputs": []}, "expect": {"outputs": [{"data": [3]}]}}, {"request": {}})
    runtime = {"ports": {"http": 8080, "metrics": 8082}}
    job = infra(samples, gate, runtime, ("10.0.0.1", "fd00::1"))
    settings = read_prober_settings(environment(pod(job)["containers"][0]))
    assert settings.url == "http://digits-bbbbbbbbbb.vision.svc"
    assert (settings.model, settings.protocol, settings.readiness_path) == ("digits", "V2", "/v2/models/digits/ready")
    assert (settings.repeats, settings.timeout_seconds, settings.request_seconds) == (5, 90, 30)
    assert (settings.percentile, settings.latency_seconds, settings.memory_bytes) == (0.99, 0.25, 1536 << 20)
    assert settings.metrics_urls == ("http://10.0.0.1:8082/metrics", "http://[fd00::1]:8082/metrics")
    assert [(sample.request, sample.expect) for sample in settings.samples] == [
        ({"inputs": []}, {"outputs": [{"data": [3]}]}),
        ({}, None),
    ]
    assert job["spec"]["activeDeadlineSeconds"] > 90


def test_budgets_that_are_not_asked_for_are_not_told() -> None:
    settings = read_prober_settings(environment(pod(infra())["containers"][0]))
    assert (settings.percentile, settings.latency_seconds, settings.memory_bytes) == (None, None, None)
    assert (settings.metrics_urls, settings.samples, settings.repeats) == ((), (), 3)


@pytest.mark.parametrize(
    ("runtime", "path"),
    [
        ({}, "/v2/models/digits/ready"),
        ({"readiness": {"httpGet": {"path": "/up"}}}, "/up"),
        # The candidate's Service has no such port.
        ({"ports": {"http": 8080, "metrics": 9}, "readiness": {"httpGet": {"path": "/up", "port": "metrics"}}}, None),
        ({"container": {"readinessProbe": {"exec": {"command": ["true"]}}}}, None),
        ({"container": {"readinessProbe": {"httpGet": {"path": "/up", "port": 8080}}}}, "/up"),
    ],
)
def test_readiness_is_asked_where_the_service_leads_to(runtime: Json, path: str | None) -> None:
    assert environment(pod(infra(runtime=runtime))["containers"][0]).get("READINESS_PATH") == path


@UNTIMED
@given(st.lists(st.text(alphabet=st.sampled_from('$(){}"\\aö€😀\n'), max_size=30), max_size=16))
def test_samples_come_through_the_environment_as_they_are(texts: list[str]) -> None:
    requests = tuple({"request": {"text": text * 2000}} for text in texts)
    found = environment(pod(infra(requests))["containers"][0])
    parts = {key: value for key, value in found.items() if key.startswith("SAMPLES_")}
    # The kubelet expands $(NAME) and makes one dollar of two; Linux takes no longer string.
    assert not any("$" in part for part in parts.values())
    assert all(len(f"{key}={value}".encode()) < 128 << 10 for key, value in parts.items())
    assert [{"request": sample.request} for sample in read_prober_settings(found).samples] == list(requests)


def test_samples_that_are_too_large_are_refused_by_name() -> None:
    with pytest.raises(MergeError, match=r"spec\.samples: they take 1[0-9]{6} bytes"):
        infra(({"request": {"text": "x" * (1 << 20)}},))


def test_the_evaluation_gets_both_artifacts_and_their_versions() -> None:
    spec = pod(evaluation())
    (scorer,) = spec["containers"]
    assert environment(scorer) == {
        "MODEL_NAME": "digits",
        "CANDIDATE_DIR": "/mnt/modelwright/candidate",
        "CANDIDATE_VERSION": "digits-v2",
        "CANDIDATE_FORMAT": "plain",
        "SERVING_DIR": "/mnt/modelwright/serving",
        "SERVING_VERSION": "digits-v1",
        "SERVING_FORMAT": "plain",
        "GATED_FIGURES": '[{"name":"accuracy"}]',
    }
    fetches = {c["name"]: c for c in spec["initContainers"]}
    assert set(fetches) == {"fetch-candidate", "fetch-serving"}
    for mount in scorer["volumeMounts"]:
        which = mount["mountPath"].rpartition("/")[2]
        (filled,) = (m for m in fetches[f"fetch-{which}"]["volumeMounts"] if m["mountPath"] == "/mnt/artifact")
        assert (filled["name"], mount["readOnly"]) == (mount["name"], True)
    assert DIGEST in fetches["fetch-candidate"]["args"]


def test_of_a_first_revision_there_is_only_the_candidate() -> None:
    spec = pod(evaluation(serving=False))
    assert [c["name"] for c in spec["initContainers"]] == ["fetch-candidate"]
    assert not any(name.startswith("SERVING") for name in environment(spec["containers"][0]))
    assert [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]] == ["/mnt/modelwright/candidate"]


def test_every_volume_exists_once_for_every_mount() -> None:
    own = {
        "containers": [{**SCORER, "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    spec = pod(evaluation(own, credentialsSecretRef={"name": "store"}))
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(volumes) == len(set(volumes))
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))


def test_what_the_author_says_wins_over_our_defaults() -> None:
    own = {
        "restartPolicy": "OnFailure",
        "serviceAccountName": "scorer",
        "automountServiceAccountToken": True,
        "securityContext": {"runAsUser": 1000},
        "nodeSelector": {"gpu": "yes"},
        "initContainers": [{"name": "data", "image": "example.com/data:1"}],
        "containers": [
            {
                **SCORER,
                "env": [{"name": "HOLDOUT", "value": "s3://x"}, {"name": "CANDIDATE_DIR", "value": "/elsewhere"}],
                "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}, "readOnlyRootFilesystem": True},
                "terminationMessagePolicy": "File",
            }
        ],
    }
    job = evaluation(
        own,
        metadata={"labels": {"team": "vision", names.LABEL_REVISION: "bbbbbbbbbb"}, "annotations": {"a": "b"}},
        serviceAccountName="reader",
    )
    spec, metadata = pod(job), job["spec"]["template"]["metadata"]
    assert (spec["restartPolicy"], spec["serviceAccountName"], spec["nodeSelector"]) == (
        "OnFailure",
        "scorer",
        {"gpu": "yes"},
    )
    assert spec["automountServiceAccountToken"] is True
    assert spec["securityContext"] | {"runAsUser": 1000, "runAsNonRoot": True} == spec["securityContext"]
    (scorer,) = spec["containers"]
    assert scorer["terminationMessagePolicy"] == "File"
    assert scorer["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE"]}
    assert environment(scorer)["HOLDOUT"] == "s3://x"
    assert environment(scorer)["CANDIDATE_DIR"] == "/mnt/modelwright/candidate"
    assert [entry["name"] for entry in scorer["env"]].count("CANDIDATE_DIR") == 1
    assert [c["name"] for c in spec["initContainers"]] == ["fetch-candidate", "fetch-serving", "data"]
    assert (metadata["labels"]["team"], metadata["annotations"]) == ("vision", {"a": "b"})
    assert names.LABEL_REVISION not in metadata["labels"]


def test_the_service_account_defaults_to_the_candidates() -> None:
    assert pod(evaluation(serviceAccountName="reader"))["serviceAccountName"] == "reader"
    assert "serviceAccountName" not in pod(evaluation())


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({}, "spec.gates.evaluation.template.spec.containers: at least one"),
        ("x", "spec.gates.evaluation.template.spec: must be an object"),
        ({"containers": {}}, "spec.gates.evaluation.template.spec.containers"),
        ({"containers": ["score"]}, r"template.spec.containers\[0\]"),
        ({"containers": [{"image": "x"}]}, r"template.spec.containers\[0\]: an entry needs its key name"),
        ({"containers": [{**SCORER, "env": {}}]}, r"containers\[0\].env: must be a list"),
        ({"containers": [SCORER], "volumes": {}}, "template.spec.volumes: must be a list"),
    ],
)
def test_a_template_that_makes_no_pod_is_refused_by_the_field(spec: Any, named: str) -> None:
    with pytest.raises(MergeError, match=named):
        evaluation(spec)


def test_times_and_tries_are_the_policys() -> None:
    gate = EvaluationGate.model_validate(
        {"template": {"spec": {"containers": [SCORER]}}, "metrics": METRICS, "timeout": "1h30m", "backoffLimit": 4}
    )
    wanted = gate_jobs.EvaluatedContent("digits-v2", version().spec.artifact, DIGEST)
    spec = gate_jobs.evaluation_job(rollout(), gate, CANDIDATE, wanted, None, IMAGES)["spec"]
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"]) == (5400, 4)
    assert json.dumps(spec)


def test_the_scan_gets_the_pinned_artifact_and_the_policys_lists() -> None:
    job = scan({"globals": ["sklearn.*"], "files": ["$(HOME)*"]})
    (fetch,), (container,) = pod(job)["initContainers"], pod(job)["containers"]
    assert fetch["args"][:5] == ["get", "--uri", version().spec.artifact.uri, "--digest", DIGEST]
    assert environment(container) == {
        "CANDIDATE_DIR": gate_jobs.CANDIDATE_DIR,
        "ALLOWED_GLOBALS": '["sklearn.*"]',
        "ALLOWED_FILES": '["\\u0024(HOME)*"]',
    }
    assert container["volumeMounts"] == [
        {"name": "modelwright-candidate", "mountPath": gate_jobs.CANDIDATE_DIR, "readOnly": True}
    ]


def test_a_cached_and_a_fetched_version_have_separate_volumes() -> None:
    template = {"spec": {"containers": [SCORER]}}
    gate = EvaluationGate.model_validate({"template": template, "metrics": METRICS})
    kept = fetch_container.CachedContent("models", fetch_container.CacheProof("full"))
    wanted = gate_jobs.EvaluatedContent("digits-v2", version().spec.artifact, DIGEST)
    source = gate_jobs.EvaluatedContent("digits-v1", version(uri="pvc://claim/c").spec.artifact, DIGEST, kept)
    spec = pod(
        gate_jobs.evaluation_job(rollout(), gate, CANDIDATE, wanted, source, IMAGES, service_account="digits-server")
    )
    assert spec["serviceAccountName"] == "digits-server"
    brought, verified = spec["initContainers"]
    assert "--only-cached" not in brought["args"]
    assert verified["args"][-1] == "--only-cached"
    assert environment(verified)["MODELWRIGHT_FETCH_VERIFY_CACHE"] == "full"
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == ["models"], "the claim of a source that isn't read is not mounted"
    mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts[gate_jobs.SERVING_DIR] == {
        "name": "modelwright-serving-cache",
        "mountPath": gate_jobs.SERVING_DIR,
        "readOnly": True,
        "subPath": DIGEST.replace(":", "-"),
    }
    assert "subPath" not in mounts[gate_jobs.CANDIDATE_DIR]
