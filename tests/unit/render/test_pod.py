"""The pod template of a revision: what is in it by default, and what each wish changes."""

from dataclasses import replace
from typing import Any

import pytest

from modelwright.agents.fetcher import selection
from modelwright.agents.fetcher.digest import cache_folder_name
from modelwright.api.common import InvalidObject
from modelwright.render import fetch_container
from modelwright.render.fetch_container import cache_directory, resolve_pod
from modelwright.render.strategic_merge import MergeError
from tests.lib import objects
from tests.unit.render.builders import (
    DIGEST,
    IMAGES,
    choice,
    container,
    identify,
    parsed,
    raw_model,
    template,
    version,
)


def env(found: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in found["env"]}


def test_the_restricted_pod_security_standard_is_met() -> None:
    spec = template(raw_model())["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in (*spec["initContainers"], *spec["containers"]):
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False


def test_our_variables_precede_those_of_the_container() -> None:
    chosen = choice(
        ports={"http": 8080, "grpc": 9000, "metrics": 8082},
        formats=[{"name": "plain", "env": [{"name": "FORMAT", "value": "$(MODEL_DIR)/x"}]}],
        container={"env": [{"name": "OWN", "value": "$(MODEL_NAME)"}, {"name": "FORMAT", "value": "mine"}]},
    )
    found = container(raw_model(), chosen)
    values = env(found)
    assert values | {"MODEL_REVISION": "x"} == {
        "MODEL_NAME": "digits",
        "MODEL_NAMESPACE": "vision",
        "MODEL_VERSION": "digits-v1",
        "MODEL_REVISION": "x",
        "MODEL_FORMAT": "plain",
        "MODEL_DIR": "/mnt/models",
        "MODEL_HTTP_PORT": "8080",
        "MODEL_GRPC_PORT": "9000",
        "MODEL_METRICS_PORT": "8082",
        "FORMAT": "$(MODEL_DIR)/x",
        "OWN": "$(MODEL_NAME)",
    }
    assert [e["name"] for e in found["env"]].index("OWN") > [e["name"] for e in found["env"]].index("MODEL_NAME")


def test_the_models_name_is_in_the_model_path_and_the_probe() -> None:
    chosen = choice(modelPath="/models/$(MODEL_NAME)/1")
    found = container(raw_model(), chosen)
    assert env(found)["MODEL_DIR"] == "/models/digits/1"
    assert found["volumeMounts"][0]["mountPath"] == "/models/digits/1"
    assert found["readinessProbe"]["httpGet"] == {"path": "/v2/models/digits/ready", "port": "http"}


def test_a_probe_of_the_runtimes_own_is_left_as_it_is() -> None:
    own = {"tcpSocket": {"port": 8080}}
    found = container(raw_model(), choice(protocol="Custom", container={"readinessProbe": own}))
    assert found["readinessProbe"] == own


def test_the_runtimes_container_takes_precedence_over_ours() -> None:
    found = container(
        raw_model(), choice(container={"args": ["--x"], "securityContext": {"readOnlyRootFilesystem": False}})
    )
    assert found["args"] == ["--x"]
    assert found["securityContext"]["readOnlyRootFilesystem"] is False
    assert found["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_resources_of_the_model_are_merged_over_the_runtimes() -> None:
    chosen = choice(container={"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}})
    found = container(raw_model(serving={"resources": {"requests": {"cpu": "500m"}}}), chosen)
    assert found["resources"] == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}


def test_a_stopping_pod_has_time_to_drain_and_for_one_request() -> None:
    found = template(raw_model(serving={"drainSeconds": 5, "maxRequestSeconds": 100}))
    assert found["spec"]["terminationGracePeriodSeconds"] == 105
    assert found["spec"]["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "lifecycle" not in template(raw_model(serving={"drainSeconds": 0}))["spec"]["containers"][0]


def test_without_draining_a_hook_of_the_runtimes_own_stays() -> None:
    own = {"preStop": {"exec": {"command": ["/stop"]}}}
    found = container(raw_model(serving={"drainSeconds": 0}), choice(container={"lifecycle": own}))
    assert found["lifecycle"] == own


def test_the_artifact_is_verified_at_each_start_then_read_only() -> None:
    spec = template(raw_model())["spec"]
    (fetch,) = spec["initContainers"]
    assert fetch["image"] == IMAGES.fetch
    assert fetch["args"][:5] == ["get", "--uri", "s3://models/digits/1", "--digest", DIGEST]
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount == {"name": "modelwright-model", "mountPath": "/mnt/models", "readOnly": True}


def test_with_a_cache_pods_mount_the_digests_folder_of_the_claim() -> None:
    spec = template(raw_model(serving={"cache": {"persistentVolumeClaim": "models"}}))["spec"]
    (fetch,) = spec["initContainers"]
    assert fetch["args"][-2:] == ["--cache", "/var/cache/modelwright"]
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount["subPath"] == DIGEST.replace(":", "-")
    assert {"name": "modelwright-cache", "persistentVolumeClaim": {"claimName": "models"}} in spec["volumes"]


PART = {"path": "-my $(model)", "include": ["*.json", "*.onnx"], "exclude": ["*.bin"]}


def test_a_part_of_the_artifact_has_its_own_cache_folder() -> None:
    cached = raw_model(serving={"cache": {"persistentVolumeClaim": "models"}})
    spec = template(cached, wanted=version(**PART))["spec"]
    (fetch,) = spec["initContainers"]
    asked = ["--path=-my $$(model)", "--include=*.json", "--include=*.onnx", "--exclude=*.bin"]
    assert fetch["args"][3:7] == asked
    key = selection.parse_selection(PART["path"], PART["include"], PART["exclude"]).key
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount["subPath"] == cache_folder_name(DIGEST, key) == f"{DIGEST.replace(':', '-')}.{key}"


@pytest.mark.parametrize("part", [{"path": "größe"}, {"include": ["é*"]}, {"exclude": ["a"]}, {"include": []}, {}])
def test_operator_and_fetch_name_a_part_in_the_cache_alike(part: dict[str, Any]) -> None:
    key = selection.parse_selection(part.get("path", ""), part.get("include", ()), part.get("exclude", ())).key
    assert cache_directory(DIGEST, version(**part).spec.artifact) == cache_folder_name(DIGEST, key)


def test_another_part_of_the_artifact_is_another_revision() -> None:
    parts = [{}, {"path": "a"}, {"path": "b"}, {"include": ["a"]}, {"exclude": ["a"]}]
    assert len({identify(raw_model(), wanted=version(**part)).hash for part in parts}) == len(parts)


def test_the_administrators_environment_wins_over_the_authors() -> None:
    given = {"MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS": "false", "MODELWRIGHT_FETCH_MAX_BYTES": "$(7)"}
    own = [{"name": name, "value": "true"} for name in ("MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS", "MINE")]
    own.append({"name": "MODELWRIGHT_FETCH_MAX_BYTES", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    patch = {"spec": {"initContainers": [{"name": "fetch", "env": own}]}}
    images = replace(IMAGES, fetch_env=given)
    (fetch,) = template(raw_model(serving={"podTemplate": patch}), images=images)["spec"]["initContainers"]
    found = {entry["name"]: entry for entry in fetch["env"]}
    assert len(found) == len(fetch["env"]), "the API server wants each name once"
    assert found["MINE"]["value"] == "true"
    assert found["MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS"]["value"] == "false"
    assert found["MODELWRIGHT_FETCH_MAX_BYTES"] == {"name": "MODELWRIGHT_FETCH_MAX_BYTES", "value": "$$(7)"}


def test_all_that_fetches_has_the_administrators_environment() -> None:
    images = replace(IMAGES, fetch_env={"MODELWRIGHT_FETCH_MAX_BYTES": "7"})
    artifact = version().spec.artifact
    raw = {"metadata": {"name": "v", "namespace": "vision", "uid": "u"}, "apiVersion": "a", "kind": "ModelVersion"}
    containers = [
        resolve_pod(raw, "digits", artifact, images)["spec"]["containers"][0],
        fetch_container.pod_spec(artifact, ["look"], images, "look")["containers"][0],
        *fetch_container.fetch_contents({"data": (artifact, None, "/data")}, images, "training").containers,
    ]
    for each in containers:
        assert {"name": "MODELWRIGHT_FETCH_MAX_BYTES", "value": "7"} in each["env"]


def test_credentials_reach_the_fetch_container_only() -> None:
    wanted = version(credentialsSecretRef={"name": "store"}, serviceAccountName="reader")
    spec = template(raw_model(), wanted=wanted)["spec"]
    assert spec["serviceAccountName"] == "reader"
    assert {"name": "modelwright-credentials", "secret": {"secretName": "store", "optional": True}} in spec["volumes"]
    mounted = [m["name"] for m in spec["initContainers"][0]["volumeMounts"]]
    assert "modelwright-credentials" in mounted
    assert "modelwright-credentials" not in [m["name"] for m in spec["containers"][0]["volumeMounts"]]


FETCH_PATCHES: list[tuple[str, dict[str, Any], str]] = [
    (
        "an endpoint of the store",
        {"env": [{"name": "HF_ENDPOINT", "value": "https://evil.example"}]},
        "env[HF_ENDPOINT]",
    ),
    ("an authority", {"env": [{"name": "ca.crt", "value": "PEM"}]}, "env[ca.crt]"),
    ("modules of Python", {"env": [{"name": "PYTHONPATH", "value": "/mine"}]}, "env[PYTHONPATH]"),
    ("a proxy that sees plain HTTP", {"env": [{"name": "http_proxy", "value": "http://evil"}]}, "env[http_proxy]"),
    ("another place of the credentials", {"env": [{"name": "MODELWRIGHT_CREDENTIALS", "value": "/x"}]}, "env[MODEL"),
    ("variables of a ConfigMap", {"envFrom": [{"configMapRef": {"name": "mine"}}]}, "envFrom"),
    ("a file over the program", {"volumeMounts": [{"name": "mine", "mountPath": "/app/x.py"}]}, "volumeMounts"),
    ("a folder to start in", {"workingDir": "/mnt/artifact"}, "workingDir"),
    ("to stay beside the model", {"restartPolicy": "Always"}, "restartPolicy"),
]


@pytest.mark.parametrize(
    ("patch", "says"), [case[1:] for case in FETCH_PATCHES], ids=[case[0] for case in FETCH_PATCHES]
)
def test_no_author_changes_what_the_fetch_container_reads_beside_credentials(patch: dict[str, Any], says: str) -> None:
    """The version's writer had the right to the Secret; the Model's writer may have none."""
    model = raw_model(serving={"podTemplate": {"spec": {"initContainers": [{"name": "fetch", **patch}]}}})
    with pytest.raises(MergeError) as refused:
        template(model, wanted=version(credentialsSecretRef={"name": "store"}))
    assert f"initContainers[fetch].{says}" in str(refused.value)
    template(model)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (
            {
                "containers": [
                    {"name": "model", "volumeMounts": [{"name": "modelwright-credentials", "mountPath": "/x"}]}
                ]
            },
            "containers[model].volumeMounts",
        ),
        ({"volumes": [{"name": "tmp", "configMap": {"name": "mine"}}]}, "volumes[tmp]"),
        ({"volumes": [{"name": "modelwright-credentials", "emptyDir": {}}]}, "volumes[modelwright-credentials]"),
    ],
)
def test_credentials_are_mounted_nowhere_else(patch: dict[str, Any], says: str) -> None:
    with pytest.raises(MergeError) as refused:
        template(
            raw_model(serving={"podTemplate": {"spec": patch}}), wanted=version(credentialsSecretRef={"name": "store"})
        )
    assert says in str(refused.value)


def test_beside_credentials_an_author_sizes_what_fetches() -> None:
    own = {"resources": {"limits": {"cpu": "1"}}, "env": [{"name": "MODELWRIGHT_FETCH_PARALLEL", "value": "2"}]}
    patch = {
        "initContainers": [{"name": "fetch", **own}],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    model = raw_model(serving={"podTemplate": {"spec": patch}})
    (fetch,) = template(model, wanted=version(credentialsSecretRef={"name": "store"}))["spec"]["initContainers"]
    assert fetch["resources"]["limits"]["cpu"] == "1"
    assert env({"env": [e for e in fetch["env"] if "value" in e]})["MODELWRIGHT_FETCH_PARALLEL"] == "2"


def test_an_artifact_on_a_volume_is_mounted_read_only() -> None:
    spec = template(raw_model(), wanted=version(uri="pvc://claim/a/b"))["spec"]
    assert {"name": "modelwright-source", "mountPath": "/mnt/source/claim", "readOnly": True} in spec["initContainers"][
        0
    ]["volumeMounts"]
    source = next(v for v in spec["volumes"] if v["name"] == "modelwright-source")
    assert source["persistentVolumeClaim"] == {"claimName": "claim", "readOnly": True}


def test_metrics_are_announced_when_there_is_a_port_for_them() -> None:
    metadata = template(raw_model(), choice(ports={"http": 8080, "metrics": 8082}))["metadata"]
    assert metadata["annotations"]["prometheus.io/port"] == "8082"
    assert not [key for key in template(raw_model())["metadata"]["annotations"] if key.startswith("prometheus")]


OVERRIDES = [
    ("a label is added", {"metadata": {"labels": {"team": "a"}}}, "a"),
    ("our labels stay what they are", {"metadata": {"labels": {"modelwright.dev/model": "x", "team": "a"}}}, "a"),
    ("deleting all labels leaves ours", {"metadata": {"labels": None}}, None),
]


@pytest.mark.parametrize(("patch", "team"), [c[1:] for c in OVERRIDES], ids=[c[0] for c in OVERRIDES])
def test_labels_of_a_pod_template(patch: dict[str, Any], team: str | None) -> None:
    labels = template(raw_model(serving={"podTemplate": patch}))["metadata"]["labels"]
    assert labels["modelwright.dev/model"] == "digits"
    assert labels.get("team") == team


def test_nulls_and_entries_of_a_pod_template_are_merged() -> None:
    patch = {
        "spec": {
            "topologySpreadConstraints": None,
            "containers": [{"name": "model", "lifecycle": None}, {"name": "sidecar", "image": "s"}],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        }
    }
    spec = template(raw_model(serving={"podTemplate": patch}))["spec"]
    assert "topologySpreadConstraints" not in spec
    assert [c["name"] for c in spec["containers"]] == ["model", "sidecar"]
    assert "lifecycle" not in spec["containers"][0]
    assert spec["volumes"][0] == {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}


def test_a_models_own_labels_and_annotations_are_not_copied() -> None:
    text = str(template(raw_model()))
    assert "shop" not in text
    assert "argocd" not in text


def test_the_pod_that_finds_out_a_digest() -> None:
    raw = objects.version("vision", "digits-v1")
    raw["metadata"]["uid"] = "version-uid"
    artifact = version(credentialsSecretRef={"name": "store"}, serviceAccountName="reader").spec.artifact
    pod = resolve_pod(raw, "digits", artifact, IMAGES)
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "version-uid"
    assert pod["metadata"]["labels"]["modelwright.dev/role"] == "resolve"
    assert "modelwright.dev/revision" not in pod["metadata"]["labels"]
    assert pod["spec"]["serviceAccountName"] == "reader"
    assert pod["spec"]["containers"][0]["args"] == ["resolve", "--uri", "s3://models/digits/1"]
    assert len(pod["metadata"]["name"]) <= 57


AZURE = {"uri": "az://store/models/digits", "serviceAccountName": "reader"}


@pytest.mark.parametrize(
    ("artifact", "labelled"),
    [
        (AZURE, True),
        ({**AZURE, "credentialsSecretRef": {"name": "store"}}, False),
        ({"uri": "az://store/models/digits"}, False),
        ({"uri": "s3://models/digits/1", "serviceAccountName": "reader"}, False),
    ],
    ids=["az:// by a ServiceAccount", "az:// by a Secret", "az:// without a ServiceAccount", "another store"],
)
def test_azures_webhook_is_asked_for_an_identity_by_a_label(artifact: dict[str, Any], labelled: bool) -> None:
    raw = objects.version("vision", "digits-v1")
    raw["metadata"]["uid"] = "version-uid"
    pod = resolve_pod(raw, "digits", version(**artifact).spec.artifact, IMAGES)
    assert (pod["metadata"]["labels"].get("azure.workload.identity/use") == "true") is labelled


def test_metrics_on_the_http_port_are_scraped_on_one_port() -> None:
    chosen = choice(ports={"http": 8000, "metrics": 8000})
    assert container(raw_model(), chosen)["ports"] == [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]
    assert template(raw_model(), chosen)["metadata"]["annotations"]["prometheus.io/port"] == "8000"


def test_the_container_cannot_change_what_it_is_told() -> None:
    chosen = choice(container={"env": [{"name": "MODEL_NAME", "value": "another"}]})
    assert env(container(raw_model(), chosen))["MODEL_NAME"] == "digits"


def test_authors_containers_get_changeable_restricted_defaults() -> None:
    sidecars = [
        {"name": "plain", "image": "example.com/s:1"},
        {"name": "own", "image": "example.com/s:1", "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}},
    ]
    patch = {"spec": {"containers": sidecars, "initContainers": [{"name": "first", "image": "example.com/s:1"}]}}
    spec = template(raw_model(serving={"podTemplate": patch}))["spec"]
    found = {entry["name"]: entry["securityContext"] for key in ("initContainers", "containers") for entry in spec[key]}
    assert found["plain"] == found["first"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert found["own"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    assert found["model"]["readOnlyRootFilesystem"] is True


def test_a_dollar_in_an_address_is_not_expanded_by_kubernetes() -> None:
    found = template(raw_model(), wanted=version(uri="s3://models/$(HOME)/m"))["spec"]["initContainers"][0]
    assert found["args"][found["args"].index("--uri") + 1] == "s3://models/$$(HOME)/m"


APART: dict[str, Any] = {"cache": {"persistentVolumeClaim": "models"}, "serviceAccountName": "digits-server"}


@pytest.mark.parametrize(
    "artifact",
    [
        {"uri": "s3://models/digits/1", "credentialsSecretRef": {"name": "store"}},
        {"uri": "pvc://source/digits/1"},
        {"uri": "https://models.example.com/digits.onnx?X-Amz-Signature=secret"},
        {"uri": "az://account/models/digits"},
    ],
    ids=lambda artifact: str(artifact["uri"]).partition(":")[0],
)
def test_pods_that_serve_as_another_account_have_no_way_to_the_store(artifact: dict[str, Any]) -> None:
    spec = template(raw_model(serving=APART), wanted=version(serviceAccountName="models-reader", **artifact))["spec"]
    assert spec["serviceAccountName"] == "digits-server"
    (fetch,) = spec["initContainers"]
    assert fetch["args"][-1] == "--only-cached"
    assert [volume["name"] for volume in spec["volumes"]] == ["tmp", "modelwright-cache"]
    assert spec["volumes"][1] == {"name": "modelwright-cache", "persistentVolumeClaim": {"claimName": "models"}}
    mounts = [m for c in (fetch, *spec["containers"]) for m in c["volumeMounts"] if m["name"] == "modelwright-cache"]
    assert len(mounts) == 2
    assert all(mount["readOnly"] for mount in mounts), "they can't write it either"
    text = str(spec)
    assert "models-reader" not in text
    assert "secret" not in text.replace("secretRef", "")


def test_the_pod_that_fills_the_cache_runs_nothing_but_fetch_and_has_what_it_needs() -> None:
    wanted = version(uri="az://account/models/digits", serviceAccountName="models-reader", digest=DIGEST)
    raw = {**objects.version("vision", "digits-v1"), "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelVersion"}
    raw["metadata"] |= {"uid": "version-uid"}
    kept = fetch_container.CachedContent("models", fetch_container.CacheProof("full", "sha256:" + "e" * 64))
    pod = fetch_container.fill_pod(raw, "digits", wanted.spec.artifact, IMAGES, DIGEST, kept)
    spec = pod["spec"]
    assert spec["serviceAccountName"] == "models-reader"
    assert spec["automountServiceAccountToken"] is False
    assert pod["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert "initContainers" not in spec
    (container,) = spec["containers"]
    assert container["image"] == IMAGES.fetch
    assert container["args"] == [
        "get",
        "--uri",
        "az://account/models/digits",
        "--digest",
        DIGEST,
        "--cache",
        fetch_container.CACHE_PATH,
        "--tree",
        "sha256:" + "e" * 64,
    ]
    assert {"name": "modelwright-cache", "mountPath": fetch_container.CACHE_PATH} in container["volumeMounts"]


@pytest.mark.parametrize("key", ["serviceAccountName", "serviceAccount"])
def test_two_accounts_for_one_pod_are_refused_with_both_fields(key: str) -> None:
    raw = raw_model(serving={**APART, "podTemplate": {"spec": {key: "models-reader"}}})
    with pytest.raises(MergeError, match=rf"podTemplate.spec.{key}: spec.serving.serviceAccountName names"):
        template(raw)


def test_an_account_of_its_own_needs_the_cache() -> None:
    with pytest.raises(InvalidObject, match=r"serviceAccountName needs spec.serving.cache"):
        parsed(raw_model(serving={"serviceAccountName": "digits-server"}))


def test_another_account_is_another_revision() -> None:
    plain = raw_model(serving={"cache": APART["cache"]})
    assert identify(plain).hash != identify(raw_model(serving=APART)).hash
