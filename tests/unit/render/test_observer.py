"""The observer's Deployment and Service: for one revision and its reference, selected by nothing else, and ready only
as it should be."""

from typing import Any

import pytest

from modelwright.agents.drift_monitor.settings import DriftMonitorSettings, build_comparison, read_monitor_settings
from modelwright.api import names
from modelwright.api.v1alpha1.model import Monitoring, NumbersComparison
from modelwright.api.v1alpha1.version import ReferenceSample
from modelwright.core.drift.distances import DistanceMethod
from modelwright.core.drift.feature_drift import Correction, DriftMethods
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficShare, TrafficSplit
from modelwright.render import comparer_pod, drift_monitor_pod, services
from modelwright.render.mirror_target import MirrorSettings
from tests.unit.render.builders import DIGEST, IMAGES, raw_model, version

OLD, NEW = Revision("digits-v1", "aaa"), Revision("digits-v2", "bbb")
URI = "s3://models/digits/1/reference.json"


def rendered(
    serving: Revision = OLD, digest: str | None = DIGEST, monitoring: Monitoring | None = None, **options: Any
) -> dict[str, Any]:
    artifact = version(credentialsSecretRef={"name": "store"}).spec.artifact
    sample = drift_monitor_pod.reference_source(ReferenceSample(uri=URI, digest=digest), artifact)
    return drift_monitor_pod.monitor_deployment(
        raw_model(), serving, sample, monitoring or Monitoring(), IMAGES, MirrorSettings(**options)
    )


def pod(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = rendered(**options)["spec"]["template"]["spec"]
    return found


def test_its_environment_is_what_the_program_understands() -> None:
    monitoring = Monitoring(
        window="90s",
        long_window="90m",
        min_samples=50,
        rows_per_request=3,
        correction="BenjaminiHochberg",
        numbers=NumbersComparison(method="Wasserstein", floor="0.2"),
        share_floor="0.02",
    )
    (container,) = pod(request_seconds=45, monitoring=monitoring)["containers"]
    settings = read_monitor_settings({entry["name"]: entry["value"] for entry in container["env"]})
    assert settings.serving_url == "http://digits-aaa.vision.svc"
    assert (settings.model_namespace, settings.model_name, settings.model_version) == ("vision", "digits", "digits-v1")
    assert (settings.window, settings.long_window, settings.rows_per_request) == ("90s", "1h30m", 3)
    assert (settings.min_samples, settings.request_timeout_seconds) == (50, 45)
    assert build_comparison(settings) == DriftMethods(
        numbers=DistanceMethod.WASSERSTEIN,
        numbers_floor=0.2,
        share_floor=0.02,
        correction=Correction.BENJAMINI_HOCHBERG,
    )
    assert (settings.reference, settings.reference_bytes) == (container["volumeMounts"][0]["mountPath"], 16 << 20)
    assert settings.port == container["ports"][0]["containerPort"]
    assert (container["image"], container["command"][-1]) == (
        "example.com/operator:1",
        "modelwright.agents.drift_monitor",
    )


@pytest.mark.parametrize(
    ("window", "long_window", "expected"),
    [
        ("10m", "24h", ("10m", "24h")),
        ("24h", "24h", ("24h", "0s")),
        ("1h", "0s", ("1h", "0s")),
        ("61s", "3661s", ("61s", "1h1m1s")),
        ("10s500ms", "2m", ("10s", "2m")),
    ],
)
def test_windows_have_one_spelling_and_a_long_one_is_longer(
    window: str, long_window: str, expected: tuple[str, str]
) -> None:
    (container,) = pod(monitoring=Monitoring(window=window, long_window=long_window))["containers"]
    settings = read_monitor_settings({entry["name"]: entry["value"] for entry in container["env"]})
    assert (settings.window, settings.long_window) == expected


def test_the_defaults_of_the_api_are_those_of_the_observer() -> None:
    (container,) = pod()["containers"]
    settings = read_monitor_settings({entry["name"]: entry["value"] for entry in container["env"]})
    assert build_comparison(settings) == DriftMethods()
    assert (settings.window, settings.long_window, settings.rows_per_request) == (
        DriftMonitorSettings.window,
        DriftMonitorSettings.long_window,
        DriftMonitorSettings.rows_per_request,
    )


@pytest.mark.parametrize("digest", [DIGEST, None])
def test_its_reference_is_fetched_like_the_artifact_and_bounded(digest: str | None) -> None:
    found = pod(digest=digest)
    (fetch,) = found["initContainers"]
    wanted = ["--digest", digest] if digest else []
    assert fetch["args"] == ["get", "--uri", URI, *wanted, "--dest", "/mnt/artifact"]
    assert {"name": "MODELWRIGHT_FETCH_MAX_BYTES", "value": str(16 << 20)} in fetch["env"]
    volumes = {volume["name"]: volume for volume in found["volumes"]}
    assert any(volume.get("secret", {}).get("secretName") == "store" for volume in volumes.values())
    target = next(mount["name"] for mount in fetch["volumeMounts"] if mount["mountPath"] == "/mnt/artifact")
    (container,) = found["containers"]
    assert container["volumeMounts"] == [
        {"name": target, "mountPath": drift_monitor_pod.REFERENCE_DIR, "readOnly": True}
    ]
    assert {mount["name"] for mount in fetch["volumeMounts"]} <= volumes.keys()


def test_no_service_of_model_revision_or_comparer_selects_it() -> None:
    labels = rendered()["spec"]["template"]["metadata"]["labels"]
    ports = {"aaa": {"http": 8080}, "bbb": {"http": 8080}}
    one, both = (
        TrafficSplit((TrafficShare(OLD, 100),), service_revision=OLD),
        TrafficSplit((TrafficShare(OLD, 50), TrafficShare(NEW, 50))),
    )
    rendered_services = [services.model_service(raw_model(), routing, ports, None) for routing in (one, both)]
    rendered_services += [services.revision_service(raw_model(), revision, ports["aaa"]) for revision in (OLD, NEW)]
    rendered_services.append(comparer_pod.comparer_service(raw_model()))
    assert not any(service["spec"]["selector"].items() <= labels.items() for service in rendered_services)
    own = drift_monitor_pod.monitor_service(raw_model())
    assert own["spec"]["selector"].items() <= labels.items()
    assert own["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    assert rendered()["metadata"]["name"] == own["metadata"]["name"] == names.observer_name("digits")


OTHERS = [
    ("another revision", {"serving": NEW}),
    ("another reference", {"digest": None}),
    ("another window", {"monitoring": Monitoring(window="1h")}),
    ("another account", {"service_account": "reader"}),
]


@pytest.mark.parametrize("changed", [case[1] for case in OTHERS], ids=[case[0] for case in OTHERS])
def test_what_is_observed_otherwise_is_observed_by_another_pod(changed: dict[str, Any]) -> None:
    assert not drift_monitor_pod.is_same_monitor(rendered(), rendered(**changed))
    assert rendered()["spec"]["selector"] == rendered(**changed)["spec"]["selector"]
    assert rendered()["spec"]["strategy"] == {"type": "Recreate"}


def test_another_share_of_copies_is_the_same_pod() -> None:
    assert drift_monitor_pod.is_same_monitor(rendered(), rendered(monitoring=Monitoring(mirror_percent=50)))


def live(**changes: Any) -> dict[str, Any]:
    found = rendered()
    found["metadata"]["generation"] = 2
    found["status"] = {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1} | changes
    return found


def going() -> dict[str, Any]:
    found = live()
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return found


@pytest.mark.parametrize(
    ("found", "serving", "wanted"),
    [
        (live(), OLD, True),
        (live(), NEW, False),
        (live(observedGeneration=1), OLD, False),
        (live(availableReplicas=0), OLD, False),
        (live(updatedReplicas=0), OLD, False),
        (None, OLD, False),
        (rendered(), OLD, False),
        (going(), OLD, False),
    ],
)
def test_it_is_ready_when_a_pod_observes_this_very_revision(found: Any, serving: Revision, wanted: bool) -> None:
    assert drift_monitor_pod.is_monitor_ready(found, rendered(serving)) is wanted
