"""Pods beside the serving ones are placed and sized as the administrator says; what a template says itself wins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cel_expr_python import cel
from pydantic import ValidationError

from modelwright.api import names
from modelwright.api.v1alpha1.helper_pods import HelperPods, HelperRoles, ModelHelperPods
from modelwright.render import fetch_container, helper_pod_placement, stored_revision
from modelwright.render.images import Images
from tests.lib import golden_cases
from tests.lib.restricted_pods import pods, violations
from tests.unit.render import builders, test_restricted, test_training

Json = dict[str, Any]

PLACE: Json = {
    "nodeSelector": {"pool": "helpers"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "low",
}
SAID: Json = {
    **PLACE,
    "labels": {"sidecar.istio.io/inject": "false"},
    "annotations": {"linkerd.io/inject": "disabled"},
    "imagePullSecrets": [{"name": "registry"}],
    "resources": {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"cpu": "1"}},
    "env": {"HTTPS_PROXY": "http://proxy:3128"},
}
CASES = (*golden_cases.CASES, test_restricted.comparer_of_a_model, test_restricted.job_of_a_metric)


Rendered = Callable[..., list[tuple[str, Json, Json]]]


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Rendered:
    """(role, metadata, spec) of all pods that are rendered with these images."""

    def render(**changes: Any) -> list[tuple[str, Json, Json]]:
        images = replace(builders.IMAGES, **changes)
        for module in (builders, golden_cases, test_restricted, test_training):
            monkeypatch.setattr(sys.modules[module.__name__], "IMAGES", images)
        monkeypatch.setattr(builders.stored, "__defaults__", (None, None, images))
        return [
            (metadata["labels"][names.LABEL_ROLE], metadata, spec)
            for case in CASES
            for manifest in case()
            if manifest["kind"] != "Workflow"
            for _, metadata, spec in pods(manifest, "")
        ]

    return render


def said(**members: Any) -> HelperPods:
    return HelperPods.model_validate(members)


def with_said(**members: Any) -> Images:
    return replace(builders.IMAGES, helper_pods=said(**members))


def ours(spec: Json) -> Iterator[Json]:
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        if container["image"] in (builders.IMAGES.fetch, builders.IMAGES.operator):
            yield container


def test_pods_of_every_role_but_serving_are_placed_and_sized(
    rendered: Rendered,
) -> None:
    plain = rendered()
    seen = set()
    for (role, metadata, spec), (_, _, before) in zip(rendered(helper_pods=said(**SAID)), plain, strict=True):
        if role == names.ROLE_SERVING:
            assert spec == before
            continue
        seen.add(role)
        assert {key: spec[key] for key in PLACE} == PLACE, role
        assert spec["imagePullSecrets"] == SAID["imagePullSecrets"]
        assert SAID["labels"].items() <= metadata["labels"].items()
        assert SAID["annotations"].items() <= metadata["annotations"].items()
        for container in ours(spec):
            assert container["resources"]["limits"]["cpu"] == "1", (role, container["name"])
            assert container["resources"]["requests"]["ephemeral-storage"] == "1Gi"
            assert container["resources"]["limits"]["memory"], "what is not named stays"
    assert seen == {role for role, _, _ in plain} - {names.ROLE_SERVING}


def test_fetch_containers_get_the_environment_by_precedence(
    rendered: Rendered,
) -> None:
    given = said(env={"HTTPS_PROXY": "http://proxy:3128", "MODELWRIGHT_FETCH_MAX_ENTRIES": "200000"})
    found = rendered(helper_pods=given, fetch_env={"MODELWRIGHT_FETCH_MAX_ENTRIES": "7"})
    fetching = [(role, c) for role, _, spec in found for c in ours(spec) if c["image"] == builders.IMAGES.fetch]
    assert {role for role, _ in fetching} >= {"resolve", "look", "gate", "training", "observer", "serving"}
    for role, container in fetching:
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert environment["MODELWRIGHT_FETCH_MAX_ENTRIES"] == "7"
        assert environment.get("HTTPS_PROXY") == (None if role == names.ROLE_SERVING else "http://proxy:3128")


def test_nothing_said_changes_nothing(rendered: Rendered) -> None:
    assert (
        rendered(
            helper_pods=said(),
        )
        == rendered()
    )
    assert helper_pod_placement.placement_annotation(builders.IMAGES, "look") == {}


ONE_ROLE: list[tuple[str, Json, Json, Json]] = [
    ("a role's member wins", {"nodeSelector": {"a": "1"}}, {"nodeSelector": {"b": "2"}}, {"nodeSelector": {"b": "2"}}),
    ("a role can take a place away", {"tolerations": [{"operator": "Exists"}]}, {"tolerations": []}, {}),
    ("labels are merged by key", {"labels": {"a": "1", "b": "1"}}, {"labels": {"b": "2"}}, {"a": "1", "b": "2"}),
]


@pytest.mark.parametrize(("everybody", "role", "expected"), [c[1:] for c in ONE_ROLE], ids=[c[0] for c in ONE_ROLE])
def test_a_role_may_have_its_own(everybody: Json, role: Json, expected: Json) -> None:
    images = with_said(**everybody, roles={"scan": role})
    found = helper_pod_placement.place_template({}, {"containers": []}, images, "scan")
    place = {key: value for key, value in found["spec"].items() if key != "containers"}
    assert (found["metadata"].get("labels") or place) == expected
    other = helper_pod_placement.place_template({}, {"containers": []}, images, "infra")
    assert other["metadata"] | {k: v for k, v in other["spec"].items() if k != "containers"} == everybody


def test_resources_of_a_role_are_merged_by_name() -> None:
    default = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    images = with_said(
        resources={"limits": {"cpu": 1}}, roles={"resolve": {"resources": {"limits": {"memory": "2Gi"}}}}
    )
    assert helper_pod_placement.container_resources(default, images, "resolve")["limits"] == {"cpu": 1, "memory": "2Gi"}
    assert helper_pod_placement.container_resources(default, images, "look")["limits"] == {"cpu": 1, "memory": "1Gi"}


def test_a_default_request_is_never_above_the_limit_that_is_set() -> None:
    default = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    images = with_said(resources={"limits": {"cpu": "50m", "memory": "64Mi"}})
    assert helper_pod_placement.container_resources(default, images, "look") == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"cpu": "50m", "memory": "64Mi"},
    }


WRITTEN: list[tuple[str, Json]] = [
    ("a node of the author's own", {"nodeSelector": {"gpu": "a100"}}),
    ("no place at all", {"nodeSelector": None, "tolerations": None, "affinity": None, "priorityClassName": None}),
]


@pytest.mark.parametrize("given", [case[1] for case in WRITTEN], ids=[case[0] for case in WRITTEN])
def test_what_a_templates_author_has_written_wins(given: Json) -> None:
    spec = {"containers": [], **{key: value for key, value in given.items() if value is not None}}
    found = helper_pod_placement.place_template(
        {"labels": {"a": "own"}}, spec, with_said(**SAID | {"labels": {"a": "b"}}), "training", given
    )
    assert {key: found["spec"].get(key) for key in given} == given
    assert found["metadata"]["labels"] == {"a": "own"}


def test_pull_secrets_are_added_to_the_authors_once() -> None:
    spec = {"containers": [], "imagePullSecrets": [{"name": "own"}, {"name": "registry"}]}
    found = helper_pod_placement.place_template(
        {}, spec, with_said(imagePullSecrets=[{"name": "registry"}, {"name": "other"}]), "metric"
    )
    assert [entry["name"] for entry in found["spec"]["imagePullSecrets"]] == ["own", "registry", "other"]


def test_the_mark_changes_with_settings_of_its_role_only() -> None:
    marks = [
        helper_pod_placement.placement_annotation(with_said(**given), "look")
        for given in (SAID, SAID | {"priorityClassName": "high"}, SAID)
    ]
    assert marks[0] == marks[2] != marks[1]
    assert helper_pod_placement.placement_annotation(with_said(roles={"scan": SAID}), "look") == {}


def test_a_models_author_overrides_the_administrator() -> None:
    images = with_said(**SAID, roles={"scan": {"nodeSelector": {"pool": "scan"}}})
    model = {"spec": {"helperPods": {"nodeSelector": {"pool": "own"}, "resources": {"limits": {"cpu": "2"}}}}}
    for role in HelperRoles.model_fields:
        found = helper_pod_placement.with_model_placement(images, model).helper_pods.for_role(role).to_pod_members()
        resources = {**SAID["resources"], "limits": {"cpu": "2"}}
        assert found == {**SAID, "nodeSelector": {"pool": "own"}, "resources": resources}, role
    for nothing in (None, {}, {"spec": {"helperPods": None}}, {"spec": {"helperPods": {"roles": 1}}}):
        assert helper_pod_placement.with_model_placement(images, nothing) is images


WRONG: list[Json] = [
    {"env": {"PYTHONPATH": "/mnt/source/claim"}},
    {"env": {"MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS": "true"}},
    {"env": {"SSL_CERT_FILE": "/tmp/ca"}},
    {"imagePullSecrets": [{"name": "registry"}]},
    {"roles": {}},
    {"labels": {"modelwright.dev/role": "serving"}},
    {"tolerations": [{}] * 33},
]


@pytest.mark.parametrize("said", WRONG, ids=str)
def test_a_models_author_may_not_say_what_is_the_administrators(said: Json) -> None:
    with pytest.raises(ValidationError):
        ModelHelperPods.model_validate(said, by_alias=True, by_name=False)


def test_a_models_author_may_set_proxies_and_limits_of_fetch() -> None:
    said = {"env": {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": ".svc", "MODELWRIGHT_FETCH_MAX_ENTRIES": "200000"}}
    assert ModelHelperPods.model_validate(said).env == said["env"]


PROXIES = {"HTTP_PROXY": "http://mine", "all_proxy": "http://mine", "HTTPS_PROXY": "http://mine"}


@pytest.mark.parametrize(
    ("digest", "secret", "clear"),
    [(builders.DIGEST, None, "http://mine"), (None, None, "http://ours"), (builders.DIGEST, "store", "http://ours")],
    ids=["a known digest", "a digest to be found out", "credentials"],
)
def test_an_authors_proxy_sees_plain_http_only_where_it_can_forge_and_read_nothing(
    digest: str | None, secret: str | None, clear: str
) -> None:
    """The author of the proxy would choose the pinned digest of another author's version."""
    images = replace(builders.IMAGES, helper_pods=HelperPods.model_validate({"env": {"HTTP_PROXY": "http://ours"}}))
    images = helper_pod_placement.with_model_placement(images, {"spec": {"helperPods": {"env": PROXIES}}})
    ref = {"credentialsSecretRef": {"name": secret}} if secret else {}
    artifact = builders.version(**ref).spec.artifact
    found = fetch_container.fetch_contents({"candidate": (artifact, digest, "/x")}, images, "scan").containers[0]
    environment = {entry["name"]: entry.get("value") for entry in found["env"]}
    assert environment["HTTP_PROXY"] == clear
    assert environment.get("all_proxy") == ("http://mine" if clear == "http://mine" else None)
    assert environment["HTTPS_PROXY"] == "http://mine"


def test_there_is_a_member_for_each_kind_of_pod() -> None:
    assert set(HelperRoles.model_fields) == {
        "resolve",
        "look",
        "scan",
        "evaluation",
        "infra",
        "metric",
        "training",
        "comparer",
        "observer",
    }


OPENSHIFT = Path(__file__).parents[2] / "lib" / "like_restricted_v2.yaml"


def refusals(spec: Json) -> list[str]:
    """What a platform with users of its own says of a pod, by the rules in OPENSHIFT."""
    policy = next(yaml.safe_load_all(OPENSHIFT.read_text()))
    environment = cel.NewEnv(variables={"object": cel.Type.DYN})
    return [
        rule["message"]
        for rule in policy["spec"]["validations"]
        if environment.compile(rule["expression"]).eval(data={"object": {"spec": spec}}).plain_value() is not True
    ]


def test_pods_name_no_user_where_the_platform_assigns_them(rendered: Rendered) -> None:
    found = rendered(platform_ids=True)
    assert names.ROLE_SERVING in {role for role, _, _ in found}
    for role, _, spec in found:
        assert refusals(spec) == [], role
        assert not list(violations(spec)), role


def test_elsewhere_pods_name_users_such_a_platform_refuses(rendered: Rendered) -> None:
    for role, _, spec in rendered():
        assert len(refusals(spec)) == 2, role


def test_a_change_of_pod_security_outdates_and_replaces_objects() -> None:
    platform = replace(builders.IMAGES, platform_ids=True)
    kept, chosen = builders.stored(builders.raw_model()), builders.choice()
    assert stored_revision.outdated_reason(kept, chosen, builders.IMAGES) is None
    assert "users and groups" in (stored_revision.outdated_reason(kept, chosen, platform) or "")
    again = builders.stored(builders.raw_model(), images=platform)
    assert stored_revision.outdated_reason(again, chosen, platform) is None
    assert "users and groups" in (stored_revision.outdated_reason(again, chosen, builders.IMAGES) or "")
    assert helper_pod_placement.placement_annotation(platform, "look") != helper_pod_placement.placement_annotation(
        builders.IMAGES, "look"
    )
