"""The reconcilers of rollouts on a simulated cluster: policies, evidence and what callers get."""

import copy
from typing import Any

from modelwright.api import names
from modelwright.core.analysis.evidence import Arm, Measurement, RequestShares, ValuePairs
from modelwright.kube import kinds
from modelwright.obs.clock import FakeClock
from tests.lib import objects
from tests.lib.simulated import SimulatedApi
from tests.lib.stepped import Operator

Object = dict[str, Any]


NS = "vision"


GATEWAY = {"parentRefs": [{"name": "models", "namespace": "gateways"}]}


ERRORS = {"name": "errors", "builtin": "error-rate", "margin": "0.02", "minSamples": 100}


class StubScheduler:
    """Says what the test wants it to say."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.at: Any = None
        self.points: ValuePairs | None = None
        self.ends: list[Any] = []
        self.asked: list[Any] = []

    def get_measurements(self, ask: Any) -> tuple[Measurement, ...] | None:
        self.asked.append(ask)
        found = [
            Measurement(metric.name, self.at(), self.results[metric.name])
            for metric in ask.metrics
            if metric.name in self.results
        ]
        return tuple(found) or None

    def get_observed_weight(self, ask: Any) -> int | None:
        return None

    def get_range_points(self, ask: Any, metric: Any, end: Any) -> ValuePairs | None:
        self.ends.append(end)
        return self.points


class RolloutHarness:
    """A cluster with one Model behind a gateway, its operator, and the time."""

    def __init__(
        self,
        policy: Object | None,
        *,
        endpoint: bool = True,
        replicas: int = 4,
        versions: tuple[str, ...] = ("v1", "v2", "v3"),
        **model: Any,
    ) -> None:
        self.api, self.clock, self.scheduler = SimulatedApi(), FakeClock(), StubScheduler()
        self.scheduler.at = self.clock.now
        self.broken: set[str] = set()
        self.short: set[str] = set()
        """Versions that get no more ready pods than they have."""
        self._had: dict[str, int] = {}
        self.lingering: set[str] = set()
        """Versions whose pods have not been told to go yet, whatever their Deployment says."""
        self.known = ""
        self.lags = False
        """Whether the gateway says nothing of the route."""
        self.crowd = False
        """Whether other people's edits wait."""
        self.busy = False
        """Whether many objects are worked on."""
        self.api.user_create(objects.runtime())
        for kind, name, spec in (
            (kinds.GATEWAY_CLASS, "any", {"controllerName": "example.com/any"}),
            (kinds.GATEWAY, "models", {"gatewayClassName": "any", "listeners": []}),
        ):
            metadata = {"name": name, **({"namespace": "gateways"} if kind.namespaced else {})}
            self.api.user_create(
                {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
            )
        for name in versions:
            self.api.user_create(objects.version(NS, name))
        if policy is not None:
            self.set_policy(policy)
            model["rolloutPolicyRef"] = {"name": "steps"}
        if endpoint:
            model["endpoint"] = GATEWAY
        source = model.pop("version", {"name": "v1"})
        model["serving"] = {"maxRequestSeconds": 5} | model.get("serving", {"replicas": replicas})
        whole = objects.model(NS, version=None, **model)
        whole["spec"]["version"] = source
        self.api.user_create(whole)
        self.operator = self.restart()
        self.go(until=lambda: self.serving == "v1" and self.model["status"]["rollout"]["state"] == "Succeeded")

    def set_policy(self, spec: Object) -> None:
        body = {
            "apiVersion": objects.API_VERSION,
            "kind": "RolloutPolicy",
            "metadata": {"name": "steps", "namespace": NS},
        }
        if self.api.user_patch(kinds.ROLLOUT_POLICY, NS, "steps", {"spec": spec}) is None:
            self.api.user_create({**body, "spec": spec})

    def restart(self) -> Operator:
        self.operator = Operator(
            self.api,
            self.clock,
            measurements=self.scheduler,
            has_waiting_edits=lambda: self.crowd,
            is_busy=lambda: self.busy,
        )
        return self.operator

    @property
    def model(self) -> Object:
        return self.api.objects[kinds.MODEL, NS, "digits"]

    @property
    def serving(self) -> str | None:
        found = self.model.get("status", {}).get("serving", {}).get("version")
        return str(found) if found else None

    @property
    def records(self) -> list[Object]:
        found = [copy.deepcopy(o) for (kind, _, _), o in self.api.objects.items() if kind == kinds.MODEL_ROLLOUT]
        return sorted(found, key=lambda o: int(o["metadata"]["uid"].removeprefix("uid-")))

    @property
    def record(self) -> Object:
        """The status of the newest record, if it is newer than the last wish."""
        newest = self.records[-1]
        return {} if newest["metadata"]["name"] == self.known else newest.get("status", {})

    @property
    def weights(self) -> dict[str, int]:
        """By version, as the route says."""
        route = self.api.objects[kinds.HTTP_ROUTE, NS, "digits"]
        by_child = {
            o["metadata"]["name"]: o["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME]
            for (kind, _, _), o in self.api.objects.items()
            if kind == kinds.CONTROLLER_REVISION and names.LABEL_MODEL in o["metadata"]["labels"]
        }
        return {by_child[ref["name"]]: ref["weight"] for ref in route["spec"]["rules"][-1]["backendRefs"]}

    def pods(self, version: str) -> int | None:
        for (kind, _, _), o in self.api.objects.items():
            if kind == kinds.DEPLOYMENT and o["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] == version:
                return int(o["spec"]["replicas"])
        return None

    def least(self, version: str) -> int | None:
        """minReplicas of a version's autoscaler."""
        for (kind, _, _), o in self.api.objects.items():
            told = o["metadata"].get("annotations", {}).get(names.ANNOTATION_VERSION_NAME)
            if kind == kinds.HORIZONTAL_POD_AUTOSCALER and told == version:
                return int(o["spec"]["minReplicas"])
        return None

    def scale(self, version: str, pods: int) -> None:
        """An autoscaler's word."""
        for (kind, namespace, name), o in list(self.api.objects.items()):
            if kind == kinds.DEPLOYMENT and o["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] == version:
                self.api.user_patch(kind, namespace, name, {"spec": {"replicas": pods}})

    def stage(self, version: str) -> str:
        return str(self.api.objects[kinds.MODEL_VERSION, NS, version]["status"].get("stage"))

    def want(self, version: str) -> None:
        self.known = self.records[-1]["metadata"]["name"] if self.records else ""
        self.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"version": {"name": version}}})

    def command(self, name: str, token: str = "1") -> None:
        spec = {"command": {"name": name, "token": token, "by": "alice", "reason": "because"}}
        self.api.user_patch(kinds.MODEL_ROLLOUT, NS, self.records[-1]["metadata"]["name"], {"spec": spec})

    def look(self, seconds: float = 5) -> None:
        """The cluster does its part, time passes, and the operator takes one look."""
        for version in ("v1", "v2", "v3"):
            least, pods = self.least(version), self.pods(version)
            if least is not None and pods is not None and pods < least:
                self.scale(version, least)
        for (kind, _, _), o in list(self.api.objects.items()):
            if kind == kinds.DEPLOYMENT:
                version = o["metadata"].get("annotations", {}).get(names.ANNOTATION_VERSION_NAME)
                pods = o["spec"].get("replicas", 1)
                ready = 0 if version in self.broken else pods
                if version in self.short:
                    ready = min(ready, self._had.get(version, 0))
                self._had[version] = ready
                self.api.set_status(
                    o,
                    {
                        "observedGeneration": o["metadata"]["generation"],
                        "replicas": max(pods, 1) if version in self.lingering else pods,
                        "readyReplicas": ready,
                        "availableReplicas": ready,
                        "updatedReplicas": pods,
                    },
                )
            elif kind == kinds.HTTP_ROUTE and self.lags:
                self.api.set_status(o, {"parents": []})
            elif kind == kinds.HTTP_ROUTE:
                told = [
                    {"type": t, "status": "True", "observedGeneration": o["metadata"]["generation"]}
                    for t in ("Accepted", "ResolvedRefs")
                ]
                parents = [{"parentRef": ref, "conditions": told} for ref in o["spec"]["parentRefs"]]
                self.api.set_status(o, {"parents": parents})
        self.clock.advance(seconds)
        self.operator.hear(len(self.api.told))
        self.operator.look_again()
        self.operator.work()

    def go(self, until: Any, looks: int = 60, seconds: float = 5) -> None:
        for _ in range(looks):
            if until():
                return
            self.look(seconds)
        raise AssertionError(f"it did not come to that: {self.model.get('status')} {self.records[-1:]}")

    def go_to(self, state: str, reason: str | None = None) -> None:
        self.go(lambda: self.record.get("state") == state and reason in (None, self.record.get("reason")))


def policy(*steps: Object, **more: Any) -> Object:
    return {"strategy": {"steps": list(steps)}, **more}


CANARY = policy({"weight": 10, "hold": "20s"}, {"weight": 50, "hold": "20s"}, {"weight": 100}, keepPrevious="30s")


JUDGED = CANARY | {"analysis": {"interval": "5s", "metrics": [ERRORS]}, "deadline": "5m"}


def good(candidate: int = 2000, serving: int = 2000) -> RequestShares:
    return RequestShares(Arm(candidate, candidate // 100), Arm(serving, serving // 100))


def bad() -> RequestShares:
    return RequestShares(Arm(500, 100), Arm(2000, 20))


def by_hand(world: RolloutHarness, version: str = "v1") -> None:
    world.known = world.records[-1]["metadata"]["name"] if world.records else ""
    world.api.user_create(
        {
            "apiVersion": objects.API_VERSION,
            "kind": "ModelRollout",
            "metadata": {"name": "back", "namespace": NS},
            "spec": {
                "modelRef": {"name": "digits"},
                "target": {"version": version},
                "rollback": {"by": "alice", "reason": "it smells"},
            },
        }
    )
