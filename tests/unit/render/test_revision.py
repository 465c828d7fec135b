"""What makes another revision, what is stored for one, and when a stored one is outdated."""

from dataclasses import replace
from typing import Any

import pytest

from modelwright.render import stored_revision
from modelwright.render.images import Images
from tests.unit.render.builders import DIGEST, IMAGES, choice, identify, raw_model, stored, version

CHANGES = [
    ("replicas are not part of a revision", {"replicas": 3}, True),
    ("an autoscaler is not part of a revision", {"autoscaling": {"maxReplicas": 3}}, True),
    ("the time to start is not part of a revision", {"startTimeout": "1m"}, True),
    ("a default written out is the default", {"drainSeconds": 15, "maxRequestSeconds": 60}, True),
    ("naming the runtime that is taken anyway makes no other revision", {"runtimeRef": {"name": "plain"}}, True),
    ("an empty podTemplate is none", {"podTemplate": {}}, True),
    ("resources shape pods", {"resources": {"limits": {"memory": "1Gi"}}}, False),
    ("a podTemplate shapes pods", {"podTemplate": {"spec": {"hostname": "x"}}}, False),
    ("a null in a podTemplate shapes pods", {"podTemplate": {"spec": {"containers": None}}}, False),
    ("a cache shapes pods", {"cache": {"persistentVolumeClaim": "models"}}, False),
    ("draining shapes pods", {"drainSeconds": 0}, False),
    ("a wish to restart makes another revision", {"restartedAt": "2026-11-21T03:00:00Z"}, False),
]


@pytest.mark.parametrize(("serving", "same"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_makes_another_revision(serving: dict[str, Any], same: bool) -> None:
    assert (identify(raw_model(serving=serving)) == identify(raw_model())) is same


def test_endpoint_owner_and_suspend_make_no_other_revision() -> None:
    more = {"endpoint": {"parentRefs": [{"name": "g"}]}, "owner": {"team": "x"}, "suspend": True}
    assert identify(raw_model(**more)) == identify(raw_model())


def test_another_runtime_artifact_or_digest_is_another_revision() -> None:
    base = identify(raw_model())
    serving = stored(raw_model())
    assert identify(raw_model(), choice(name="other")) != base
    assert identify(raw_model(), wanted=version(uri="s3://models/digits/2")) != base
    assert identify(raw_model(), choice(container={"image": "example.com/server:2"})) == base
    assert serving["data"]["digest"] == DIGEST


def test_a_hash_is_a_part_of_a_dns_label() -> None:
    assert len(identify(raw_model()).hash) == 10
    assert identify(raw_model()).hash.isalnum()


def test_the_same_specs_give_the_same_revision_and_manifests() -> None:
    a, b = {"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}, {"podTemplate": {"spec": {"hostname": "b"}}}
    reordered = {"resources": {"limits": {"memory": "1Gi", "cpu": 1}}}
    first = stored(raw_model(serving=a))
    stored(raw_model(serving=b))
    assert stored(raw_model(serving=a)) == first
    assert stored(raw_model(serving=reordered)) == first


EDITED = choice(container={"image": "example.com/server:2"}).runtime
OUTDATED = [
    ("the same runtime and image: up to date", {}, IMAGES, None),
    (
        "the runtime was edited",
        {"generation": 2, "spec": EDITED.spec},
        IMAGES,
        "ClusterModelRuntime plain was edited since",
    ),
    ("only who answers for the runtime was edited", {"generation": 2}, IMAGES, None),
    ("the operator brings another fetch image", {}, Images("example.com/fetch:2"), "another fetch image since"),
    (
        "both",
        {"generation": 2, "spec": EDITED.spec},
        Images("example.com/fetch:2"),
        "was edited and the operator brings",
    ),
]


@pytest.mark.parametrize(("edit", "images", "says"), [c[1:] for c in OUTDATED], ids=[c[0] for c in OUTDATED])
def test_when_a_stored_revision_is_outdated(edit: dict[str, Any], images: Images, says: str | None) -> None:
    chosen = choice()
    later = replace(chosen, runtime=replace(chosen.runtime, **edit))
    found = stored_revision.outdated_reason(stored(raw_model(), chosen), later, images)
    assert found is None if says is None else found is not None and says in found
    if found:
        assert "spec.serving.restartedAt" in found


def test_a_stored_revision_keeps_all_to_run_and_probe_it_again() -> None:
    data = stored(raw_model())["data"]
    assert data["version"] == "digits-v1"
    assert data["ports"] == {"http": 8080}
    assert data["readinessPath"] == "/v2/models/digits/ready"
    assert data["runtime"]["reason"].startswith("ClusterModelRuntime plain")


def test_a_probe_of_another_kind_gives_no_path_to_ask() -> None:
    chosen = choice(protocol="Custom", container={"readinessProbe": {"tcpSocket": {"port": 8080}}})
    assert stored(raw_model(), chosen)["data"]["readinessPath"] is None
