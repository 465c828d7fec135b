"""The comparer's Deployment and Service: for one pair, selected by nothing else, and ready only for that pair."""

from typing import Any

import pytest

from modelwright.agents.comparer.settings import read_comparer_settings
from modelwright.api import names
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficShare, TrafficSplit
from modelwright.render import comparer_pod, services
from modelwright.render.mirror_target import MirrorSettings
from tests.unit.render.builders import IMAGES, raw_model

OLD, NEW, NEWER = Revision("digits-v1", "aaa"), Revision("digits-v2", "bbb"), Revision("digits-v3", "ccc")


def rendered(candidate: Revision = NEW, **options: Any) -> dict[str, Any]:
    return comparer_pod.comparer_deployment(raw_model(), OLD, candidate, IMAGES, MirrorSettings(**options))


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_its_environment_is_what_the_program_understands() -> None:
    (container,) = rendered(request_seconds=45)["spec"]["template"]["spec"]["containers"]
    settings = read_comparer_settings({entry["name"]: entry["value"] for entry in container["env"]})
    assert settings.serving_url == "http://digits-aaa.vision.svc"
    assert settings.candidate_url == "http://digits-bbb.vision.svc"
    assert (settings.serving_revision, settings.candidate_revision) == ("aaa", "bbb")
    assert (settings.request_timeout_seconds, settings.port) == (45, container["ports"][0]["containerPort"])
    assert (container["image"], container["command"][-1]) == ("example.com/operator:1", "modelwright.agents.comparer")


def test_no_service_of_the_model_or_of_a_revision_selects_it() -> None:
    labels = rendered()["spec"]["template"]["metadata"]["labels"]
    ports = {"aaa": {"http": 8080}, "bbb": {"http": 8080}}
    one = TrafficSplit((TrafficShare(OLD, 100),), service_revision=OLD)
    both = TrafficSplit((TrafficShare(OLD, 50), TrafficShare(NEW, 50)))
    rendered_services = [services.model_service(raw_model(), routing, ports, None) for routing in (one, both)]
    rendered_services += [services.revision_service(raw_model(), revision, ports["aaa"]) for revision in (OLD, NEW)]
    assert not any(selects(service["spec"]["selector"], labels) for service in rendered_services)
    own = comparer_pod.comparer_service(raw_model())["spec"]
    assert selects(own["selector"], labels)
    assert selects(rendered()["spec"]["selector"]["matchLabels"], labels)
    assert own["ports"] == [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]


def test_another_pair_is_another_pod_and_never_two_at_a_time() -> None:
    one, other = rendered()["spec"], rendered(NEWER)["spec"]
    assert one["template"] != other["template"]
    assert one["selector"] == other["selector"]
    assert one["strategy"] == {"type": "Recreate"}


def live(**changes: Any) -> dict[str, Any]:
    found = rendered()
    found["metadata"]["generation"] = 2
    found["status"] = {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1} | changes
    return found


@pytest.mark.parametrize(
    ("found", "candidate", "wanted"),
    [
        (live(), NEW, True),
        (live(), NEWER, False),
        (live(observedGeneration=1), NEW, False),
        (live(availableReplicas=0), NEW, False),
        (live(updatedReplicas=0), NEW, False),
        (None, NEW, False),
        (rendered(), NEW, False),
    ],
)
def test_it_is_ready_when_a_pod_compares_this_very_pair(found: Any, candidate: Revision, wanted: bool) -> None:
    assert comparer_pod.is_comparer_ready(found, OLD, candidate) is wanted


def test_one_on_its_way_out_is_not_ready() -> None:
    found = live()
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not comparer_pod.is_comparer_ready(found, OLD, NEW)


def test_its_name_is_the_one_that_routes_send_copies_to() -> None:
    assert rendered()["metadata"]["name"] == comparer_pod.comparer_service(raw_model())["metadata"]["name"]
    assert comparer_pod.comparer_service(raw_model())["metadata"]["name"] == names.comparer_name("digits")
