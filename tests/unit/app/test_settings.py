"""Settings come from MODELWRIGHT_* and every wrong one is named."""

import dataclasses
import json
import re

import pytest

from modelwright.agents.fetcher import settings as fetch
from modelwright.api.v1alpha1.helper_pods import FETCH_VARIABLES
from modelwright.app.settings import InvalidSettings, Settings
from modelwright.kube.kinds import Kind


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = Settings.from_environment({})
    assert settings.namespace == "modelwright-system"
    assert (settings.qps, settings.burst, settings.workers) == (200, 400, 16)
    assert settings.lease_name == "modelwright-operator"
    assert (settings.lease_seconds, settings.lease_renew_seconds, settings.lease_retry_seconds) == (15, 10, 2)
    assert settings.settle_seconds == 5
    assert settings.watch_namespaces == ()


def test_values_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {"MODELWRIGHT_WATCH_NAMESPACES": "a, b,,", "MODELWRIGHT_QPS": "7.5", "MODELWRIGHT_GATEWAY_PROBE": "Off"}
    )
    assert settings.watch_namespaces == ("a", "b")
    assert settings.qps == 7.5
    assert settings.gateway_probe == "Off"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODELWRIGHT_QPS", "0"),
        ("MODELWRIGHT_QPS", "many"),
        ("MODELWRIGHT_WORKERS", "0"),
        ("MODELWRIGHT_GATEWAY_PROBE", "Maybe"),
        ("MODELWRIGHT_HTTP_PORT", "70000"),
        ("MODELWRIGHT_LOG_LEVEL", "LOUD"),
        ("MODELWRIGHT_NAMESPACE", ""),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=name):
        Settings.from_environment({name: value})


def test_nobody_acts_as_the_node_unless_an_administrator_says_so() -> None:
    assert Settings.from_environment({}).fetch_env == {"MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS": "false"}
    for text in ("", " ", "{}", '{"MODELWRIGHT_FETCH_MAX_BYTES": "7"}'):
        found = Settings.from_environment({"MODELWRIGHT_FETCH_ENV": text}).fetch_env
        assert found["MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS"] == "false"
    given = {"MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS": "true", "HTTPS_PROXY": "http://proxy:3128"}
    assert Settings.from_environment({"MODELWRIGHT_FETCH_ENV": json.dumps(given)}).fetch_env == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must be a JSON object of texts"),
        ('{"MODELWRIGHT_FETCH_MAX_BYTES": 7}', "must be a JSON object of texts"),
        ('{"MODELWRIGHT_FETCH_MAX_BYTE": "7"}', "MODELWRIGHT_FETCH_MAX_BYTE is none of fetch's settings"),
        ('{"MODELWRIGHT_CREDENTIALS": "/"}', "none of fetch's settings"),
        ('{"HOME": "/"}', "none of fetch's settings"),
        ('{"A B": "x"}', "no name of an environment variable"),
    ],
)
def test_an_environment_for_fetch_that_would_not_hold_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match="MODELWRIGHT_FETCH_ENV") as error:
        Settings.from_environment({"MODELWRIGHT_FETCH_ENV": text})
    assert message in str(error.value)


def test_helper_pods_are_a_json_object() -> None:
    assert not Settings.from_environment({"MODELWRIGHT_HELPER_PODS": " "}).helper_pods.to_pod_members()
    given = {
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "resources": {"limits": {"cpu": 1}},
        "env": {"NO_PROXY": "a"},
        "roles": {"scan": {"nodeSelector": {"pool": "scan"}}},
    }
    found = Settings.from_environment({"MODELWRIGHT_HELPER_PODS": json.dumps(given)}).helper_pods
    assert found.for_role("scan").node_selector == {"pool": "scan"}
    assert found.for_role("look").node_selector is None
    assert found.for_role("scan").to_pod_members()["tolerations"] == given["tolerations"]


WRONG_HELPERS = [
    ("{", "is no JSON"),
    ("[]", "valid dictionary"),
    ('{"toleration": []}', "toleration: "),
    ('{"roles": {"scans": {}}}', "roles.scans: "),
    ('{"imagePullSecrets": ["registry"]}', "imagePullSecrets[0]: "),
    ('{"labels": {"modelwright.dev/role": "serving"}}', "none of modelwright.dev/"),
    ('{"resources": {"limits": {"cpu": 0.5}}}', "must be a quantity"),
    ('{"env": {"HOME": "/"}}', "env: HOME is none of fetch's settings"),
    ('{"roles": {"look": {"env": {"MODELWRIGHT_CREDENTIALS": "/"}}}}', "roles.look.env: MODELWRIGHT_CREDENTIALS"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_HELPERS)
def test_helper_pods_that_can_not_be_had_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match="MODELWRIGHT_HELPER_PODS") as error:
        Settings.from_environment({"MODELWRIGHT_HELPER_PODS": text})
    assert message in str(error.value)


def test_what_an_administrator_may_set_is_what_fetch_reads() -> None:
    fields = {f"MODELWRIGHT_FETCH_{field.name.upper()}" for field in dataclasses.fields(fetch.FetchSettings)}
    assert fields | {"MODELWRIGHT_FETCH_LOG"} == FETCH_VARIABLES


JOBSET = {"group": "jobset.x-k8s.io", "version": "v1alpha2", "kind": "JobSet", "plural": "jobsets"}


def test_kinds_of_training_are_a_json_list() -> None:
    assert Settings.from_environment({}).training_kinds == ()
    assert Settings.from_environment({"MODELWRIGHT_TRAINING_KINDS": " "}).training_kinds == ()
    (kind,) = Settings.from_environment({"MODELWRIGHT_TRAINING_KINDS": json.dumps([JOBSET])}).training_kinds
    assert kind == Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", optional=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        (json.dumps(JOBSET), "must be a JSON list"),
        ('["jobsets"]', "entry 1: needs group, version, kind and plural"),
        (json.dumps([{"group": "jobset.x-k8s.io"}]), "entry 1: needs group, version, kind and plural"),
        (json.dumps([JOBSET, JOBSET]), "entry 2: JobSet of jobset.x-k8s.io is listed twice"),
        (json.dumps([JOBSET | {"group": ["a"]}]), "entry 1: group ['a'] is none"),
        (json.dumps([JOBSET | {"group": "*"}]), "entry 1: group '*' is none"),
        (json.dumps([JOBSET | {"version": "1"}]), "entry 1: version '1' is none"),
        (json.dumps([JOBSET | {"kind": "jobset"}]), "entry 1: kind 'jobset' is none"),
        (json.dumps([JOBSET | {"plural": "jobsets/status"}]), "entry 1: plural 'jobsets/status' is none"),
        (json.dumps([JOBSET | {"group": "", "kind": "Secret"}]), "Secret of the core group is never created"),
        (json.dumps([JOBSET | {"group": "modelwright.dev"}]), "is never created"),
        (json.dumps([JOBSET | {"group": "rbac.authorization.k8s.io"}]), "is never created"),
        (json.dumps([JOBSET | {"group": "admissionregistration.k8s.io"}]), "is never created"),
        (json.dumps([JOBSET | {"group": "apiextensions.k8s.io"}]), "is never created"),
    ],
    ids=lambda value: value[:60],
)
def test_wrong_kinds_of_training_are_told_by_entry(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match=r"MODELWRIGHT_TRAINING_KINDS: .*" + re.escape(message)):
        Settings.from_environment({"MODELWRIGHT_TRAINING_KINDS": text})


def test_lease_times_must_fit_together() -> None:
    with pytest.raises(InvalidSettings, match="MODELWRIGHT_LEASE_RENEW_SECONDS"):
        Settings.from_environment({"MODELWRIGHT_LEASE_RENEW_SECONDS": "20"})


def test_variables_of_a_service_of_our_name_are_ignored() -> None:
    Settings.from_environment({"MODELWRIGHT_SERVICE_HOST": "10.0.0.1", "MODELWRIGHT_PORT": "tcp://10.0.0.1:80"})


@pytest.mark.parametrize(
    ("environment", "lease"),
    [
        ({}, "modelwright-operator"),
        ({"MODELWRIGHT_SHARD": ""}, "modelwright-operator"),
        ({"MODELWRIGHT_SHARD": "default"}, "modelwright-operator"),
        ({"MODELWRIGHT_SHARD": "red"}, "modelwright-operator-red"),
        ({"MODELWRIGHT_SHARD": "red", "MODELWRIGHT_LEASE_NAME": "mine"}, "mine"),
    ],
)
def test_each_shard_has_a_lease_and_default_the_unsharded_one(environment: dict[str, str], lease: str) -> None:
    assert Settings.from_environment(environment).lease_name == lease


@pytest.mark.parametrize("more", [{"MODELWRIGHT_SHARD": "Red_1"}, {"MODELWRIGHT_SHARD": "-red"}])
def test_a_shards_name_can_be_the_end_of_a_name(more: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match=r"MODELWRIGHT_SHARD: .* lower-case letters"):
        Settings.from_environment(more)


def test_a_shard_has_no_list_of_namespaces() -> None:
    with pytest.raises(InvalidSettings, match="can't be set both"):
        Settings.from_environment({"MODELWRIGHT_SHARD": "red", "MODELWRIGHT_WATCH_NAMESPACES": "vision"})
