"""The observer comes and goes with what serves, gets copies only while it is ready, rests while the comparer works, and
never stands in the way of serving."""

import copy
from datetime import UTC, datetime

import pytest

from modelwright.api import names
from modelwright.api.v1alpha1.model import DriftStatus
from modelwright.core.drift.feature_drift import Aspect, FeatureDrift
from modelwright.core.drift.worst_features import WindowDrift
from modelwright.core.status import drift_status
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.measurement.drift_poller import DriftPoller
from modelwright.traffic.gateway_api import MARK_FEATURE, MIRROR_FEATURE
from tests.lib.monitoring_harness import OBSERVER, MonitoringHarness, Object
from tests.lib.rollout_harness import CANARY, NS, policy
from tests.lib.stepped import Operator

MIRRORED = policy({"mirror": {"percent": 50, "hold": "20s"}}, {"weight": 10, "hold": "20s"}, {"weight": 100})


WAYS = [{"controller": "example.com/any"}, {"controller": "traefik.io/gateway-controller", "features": (MARK_FEATURE,)}]


@pytest.mark.parametrize("way", WAYS, ids=["any gateway", "Traefik"])
def test_monitor_starts_gets_copies_and_serving_stays_ready(way: Object) -> None:
    world = MonitoringHarness(**way)
    world.go(lambda: world.child(kinds.DEPLOYMENT) is not None)
    assert world.copies == 0
    while not world.copies:
        world.look()
        assert world.condition("Ready") == ("True", "Serving")
    assert (world.copies, world.observed_version, world.route.mirror_percent) == (20, "v1", 0)
    world.go(lambda: world.condition("Monitored") == ("True", "Observed"))
    assert world.quiet()


@pytest.mark.parametrize("way", WAYS, ids=["any gateway", "Traefik"])
def test_it_goes_when_monitoring_is_no_longer_asked_for(way: Object) -> None:
    world = MonitoringHarness(**way)
    world.go(lambda: world.copies == 20)
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"monitoring": None}})
    world.go(lambda: world.child(kinds.DEPLOYMENT) is None)
    assert (world.copies, world.child(kinds.SERVICE), world.condition("Monitored")) == (0, None, None)
    assert not any(kind == kinds.TRAEFIK_SERVICE for kind, _, _ in world.api.objects)
    assert world.quiet()


def test_monitor_follows_the_serving_version_and_its_reference() -> None:
    world = MonitoringHarness()
    world.go(lambda: world.copies == 20)
    world.want("v2")
    world.go(lambda: world.observed_version == "v2")
    assert world.copies == 0
    world.go(lambda: world.copies == 20)
    world.want("v3")
    world.go(lambda: world.serving == "v3" and world.child(kinds.DEPLOYMENT) is None)
    assert world.copies == 0
    assert world.condition("Monitored") == ("False", "NoReference")
    world.go(lambda: world.condition("Ready") == ("True", "Serving"))


def test_failing_monitor_loses_only_its_copies() -> None:
    world = MonitoringHarness()
    world.go(lambda: world.copies == 20)
    world.broken.add(None)  # type: ignore[arg-type]
    world.go(lambda: world.copies == 0)
    world.look()
    assert world.condition("Monitored") == ("False", "WaitingForObserver")
    assert world.condition("Ready") == ("True", "Serving")
    world.broken.clear()
    world.go(lambda: world.copies == 20)


def test_it_rests_in_a_mirror_step_and_is_back_with_the_weights() -> None:
    world = MonitoringHarness(MIRRORED)
    world.go(lambda: world.copies == 20)
    world.want("v2")
    world.go(lambda: world.route.mirror_percent == 50)
    assert world.copies == 0
    assert world.observed_version == "v1"
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    assert (world.copies, world.route.mirror_percent) == (20, 0)
    world.go_to("Succeeded")
    world.go(lambda: world.observed_version == "v2" and world.copies == 20)
    assert world.child(kinds.DEPLOYMENT, "digits-comparer") is None


def test_by_traefik_it_rests_while_requests_are_divided() -> None:
    world = MonitoringHarness(CANARY, **WAYS[1])
    world.go(lambda: world.copies == 20)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    assert (world.copies, world.route.through) == (0, None)
    world.go_to("Succeeded")
    world.go(lambda: world.observed_version == "v2" and world.copies == 20)


def test_rollback_does_not_depend_on_the_monitor() -> None:
    world = MonitoringHarness(CANARY)
    world.go(lambda: world.copies == 20)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    world.command("abort")
    world.go_to("Aborted")
    world.go(lambda: world.weights == {"v1": 100} and world.copies == 20)
    assert world.observed_version == "v1"


@pytest.mark.parametrize("features", [(MARK_FEATURE,), (MARK_FEATURE, MIRROR_FEATURE)], ids=["no copies", "no part"])
def test_unsupported_copies_are_reported_and_serving_continues(features: tuple[str, ...]) -> None:
    world = MonitoringHarness(features=features)
    world.go(lambda: world.condition("Monitored") == ("False", "MonitoringNotSupported"))
    assert (world.child(kinds.DEPLOYMENT), world.copies) == (None, 0)
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Stalled") == ("False", "UpToDate")
    world.want("v2")
    world.go(lambda: world.serving == "v2")


def test_a_name_that_is_taken_is_left_alone_and_said() -> None:
    world = MonitoringHarness()
    taken = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": OBSERVER, "namespace": NS}}
    spec = {"replicas": 1, "template": {"metadata": {}}}
    world.api.user_create({**taken, "spec": spec})
    world.go(lambda: world.condition("Monitored") == ("False", "NameTaken"))
    found = world.child(kinds.DEPLOYMENT)
    assert found is not None
    assert found["spec"] == spec
    assert world.condition("Ready") == ("True", "Serving")


def test_a_suspended_model_keeps_its_observer_as_it_is() -> None:
    world = MonitoringHarness()
    world.go(lambda: world.copies == 20)
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"suspend": True, "monitoring": {"window": "1h"}}})
    before = len([write for write in world.api.writes if write[0] != "status"])
    for _ in range(5):
        world.look()
    assert len([write for write in world.api.writes if write[0] != "status"]) == before
    assert world.copies == 20


def test_changed_settings_start_another_pod_without_copies() -> None:
    world = MonitoringHarness()
    world.go(lambda: world.copies == 20)
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"monitoring": {"window": "1h"}}})
    seen = set()
    for _ in range(6):
        world.look()
        seen.add(world.copies)
    assert seen == {0, 20}
    assert world.copies == 20


class Found(DriftPoller):
    """Observers that have found what the test says."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.excess: float | None = None
        self.rows = 0
        self.forgotten = False

    def sync_model(self, model: Key, version: str, told: DriftStatus | None) -> DriftStatus | None:
        self.forgotten = False
        self.rows += 1
        figure = FeatureDrift("age", Aspect.MISSING, 0.1 * (self.excess or 0), 0.1, 0.01)
        found = [WindowDrift("10m", "input", self.rows, figure)] if self.excess is not None else []
        return drift_status.summarize_drift(told, version, found, datetime(2026, 11, 30, tzinfo=UTC))

    def forget_model(self, model: Key) -> None:
        self.forgotten = True


def test_drift_is_written_on_drift_or_beside_another_write() -> None:
    world = MonitoringHarness()
    found = Found()
    world.operator = Operator(world.api, world.clock, measurements=world.scheduler, observers=found)
    world.go(lambda: world.condition("Monitored") == ("True", "Observed"))
    assert world.quiet()
    assert "drift" not in world.model["status"]
    for excess, drifted in ((0.1, False), (2.0, True), (0.1, False)):
        found.excess = excess
        world.go(lambda drifted=drifted: world.model["status"].get("drift", {}).get("drifted") is drifted)
        rows = world.model["status"]["drift"]["worst"][0]["rows"]
        assert world.quiet()
        assert found.rows > rows
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"owner": {"team": "vision"}}})
    world.go(lambda: world.model["status"]["observedGeneration"] == world.model["metadata"]["generation"])
    assert world.model["status"]["drift"]["worst"][0]["rows"] > rows
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"monitoring": None}})
    world.go(lambda: "drift" not in world.model["status"])
    assert found.forgotten


COMPARER = "digits-comparer"


def token(world: MonitoringHarness, name: str) -> str:
    """What the pod of this Deployment asks for."""
    found = world.child(kinds.DEPLOYMENT, name)
    assert found is not None
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return str({entry["name"]: entry["value"] for entry in container["env"]}["COPY_TOKEN"])


def mirroring(world: MonitoringHarness) -> bool:
    record = world.record
    return record.get("state") == "Progressing" and "confirmedAt" in (record.get("steps") or [{}])[0]


@pytest.mark.parametrize("way", WAYS, ids=["any gateway", "Traefik"])
def test_route_sets_the_tokens_of_monitor_and_comparer(way: Object) -> None:
    world = MonitoringHarness(MIRRORED, **way)
    world.go(lambda: world.copies > 0)
    first = token(world, OBSERVER)
    assert len(first) == 52
    assert world.route.copy_token == first
    world.want("v2")
    world.go(lambda: mirroring(world))
    assert world.route.copy_token == token(world, COMPARER) != first
    world.go(lambda: world.weights.get("v2") == 10)
    assert world.route.copy_token in ("", first)
    world.go(lambda: world.serving == "v2" and world.observed_version == "v2" and world.copies > 0)
    assert world.route.copy_token == token(world, OBSERVER) != first


@pytest.mark.parametrize("way", WAYS, ids=["any gateway", "Traefik"])
@pytest.mark.parametrize("was", ["", "another"])
def test_wrong_token_is_replaced_within_the_same_step(way: Object, was: str) -> None:
    """As a former release left it, or somebody who may write routes."""
    world = MonitoringHarness(MIRRORED, **way)
    world.want("v2")
    world.go(lambda: mirroring(world))
    asked, entry = token(world, COMPARER), world.record["steps"][0]
    route = world.api.objects[kinds.HTTP_ROUTE, NS, "digits"]
    rules = copy.deepcopy(route["spec"]["rules"])
    for rule in rules:
        kept = [one for one in rule["filters"] if one["type"] != "RequestHeaderModifier"]
        header = {"set": [{"name": names.COPY_TOKEN_HEADER, "value": was}]}
        rule["filters"] = [*([{"type": "RequestHeaderModifier", "requestHeaderModifier": header}] * bool(was)), *kept]
    world.api.user_patch(kinds.HTTP_ROUTE, NS, "digits", {"spec": {"rules": rules}})
    world.look(1)
    assert world.route.copy_token == asked == token(world, COMPARER)
    assert world.record["steps"][0]["confirmedAt"] == entry["confirmedAt"], "evidence goes on"


def test_tokens_survive_a_restart_and_differ_by_model() -> None:
    world = MonitoringHarness(MIRRORED)
    world.want("v2")
    world.go(lambda: mirroring(world))
    before = token(world, COMPARER), token(world, OBSERVER)
    world.restart()
    for _ in range(3):
        world.look(1)
    assert (token(world, COMPARER), token(world, OBSERVER)) == before
    assert world.route.copy_token == before[0]


def test_callers_rules_have_no_token_where_nothing_is_copied() -> None:
    world = MonitoringHarness(MIRRORED, features=(MARK_FEATURE,))
    for _ in range(5):
        world.look()
    assert world.route.copy_token == ""
