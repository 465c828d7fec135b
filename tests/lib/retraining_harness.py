"""The reconcilers of retraining on a simulated cluster, with Jobs that end as the test says."""

import copy
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from modelwright.api import names
from modelwright.kube import kinds
from modelwright.obs.clock import FakeClock
from tests.lib import objects
from tests.lib.simulated import SimulatedApi
from tests.lib.stepped import Operator

Object = dict[str, Any]


NS = "vision"


DIGEST = "sha256:" + "d" * 64


MODEL_DIGEST = "sha256:" + "e" * 64


HOURLY = {"name": "hourly", "schedule": {"cron": "0 * * * *", "catchUp": "All"}}


TEMPLATE = {"template": {"spec": {"containers": [{"name": "work", "image": "example.com/trainer:1"}]}}}


RUN: Object = {
    "dataset": {"uri": "s3://data/digits"},
    "parameters": {"C": "10"},
    "dataCheck": {"job": TEMPLATE},
    "train": {"job": TEMPLATE},
    "evaluate": {"job": TEMPLATE, "gates": [{"name": "accuracy", "min": "0.9", "minDelta": "-0.01"}]},
    "output": {"uri": "s3://models/digits", "format": {"name": "plain"}},
}


CHECKED: Object = {"checks": [{"name": "rows", "outcome": "Pass"}], "profile": {"rows": 100}}


TRAINED: Object = {"metrics": {"accuracy": 0.98}, "parameters": {"C": 3.0}}


SCORED: Object = {
    "metrics": [{"name": "accuracy", "candidate": 0.97, "serving": 0.95, "n": 500, "better": 15, "worse": 5}]
}


class RetrainingHarness:
    """A cluster with a Model on v1, a RetrainingPolicy, whose Jobs end with what they are to say."""

    def __init__(
        self,
        *triggers: Object,
        guard: Object | None = None,
        follow: bool = False,
        rollout: Object | None = None,
        **run: Any,
    ) -> None:
        self.clock = FakeClock()
        self.api = SimulatedApi(self.clock)
        self.reports: dict[str, Any] = {"dataCheck": CHECKED, "train": TRAINED, "evaluate": SCORED}
        self.digest = DIGEST
        self.hold: set[str] = set()
        """Stages whose Jobs don't end."""
        self.made: list[str] = []
        self.broken = False
        """Whether pods of trained versions never become ready."""
        self.api.user_create(objects.runtime())
        self.api.user_create(objects.version(NS, "v1"))
        source = {"follow": {}} if follow else {"name": "v1"}
        model = objects.model(NS, version=None, serving={"replicas": 1})
        model["spec"]["version"] = source
        if rollout is not None:
            metadata = {"name": "steps", "namespace": NS}
            body = {"apiVersion": objects.API_VERSION, "kind": "RolloutPolicy", "metadata": metadata, "spec": rollout}
            self.api.user_create(body)
            model["spec"]["rolloutPolicyRef"] = {"name": "steps"}
        self.api.user_create(model)
        template = {key: value for key, value in {**copy.deepcopy(RUN), **run}.items() if value is not None}
        spec = {
            "modelRef": {"name": "digits"},
            "triggers": list(triggers),
            "guard": {"cooldown": "0s", "concurrency": "Queue", **(guard or {})},
            "run": template,
        }
        self.operator = Operator(self.api, self.clock)
        self.go(lambda: self.model.get("status", {}).get("serving"), seconds=5)
        self.api.user_create(
            {
                "apiVersion": objects.API_VERSION,
                "kind": "RetrainingPolicy",
                "metadata": {"name": "digits", "namespace": NS},
                "spec": spec,
            }
        )
        self.look()

    @property
    def model(self) -> Object:
        return self.api.objects[kinds.MODEL, NS, "digits"]

    @property
    def policy(self) -> Object:
        return self.api.objects[kinds.RETRAINING_POLICY, NS, "digits"]

    @property
    def runs(self) -> list[Object]:
        found = [o for (kind, _, _), o in self.api.objects.items() if kind == kinds.TRAINING_RUN]
        return sorted(found, key=lambda o: int(o["metadata"]["uid"].removeprefix("uid-")))

    @property
    def states(self) -> list[str]:
        return [run.get("status", {}).get("state", "") for run in self.runs]

    def jobs(self) -> list[Object]:
        found = [o for (kind, _, _), o in self.api.objects.items() if kind == kinds.JOB]
        return [o for o in found if _role(o) == names.ROLE_TRAINING]

    def stage(self, job: Object) -> str:
        env = job["spec"]["template"]["spec"]["containers"][0]["env"]
        return next(str(entry["value"]) for entry in env if entry["name"] == "STAGE")

    def report(self, job: Object) -> Any:
        said = self.reports[self.stage(job)]
        if self.stage(job) == "train" and isinstance(said, Mapping) and "artifact" not in said:
            env = {e["name"]: e.get("value") for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
            return {**said, "artifact": {"uri": env["OUTPUT_URI"], "digest": MODEL_DIGEST}}
        return said

    def play(self) -> None:
        """The cluster does its part: pods of Deployments are ready, pods tell digests, Jobs end."""
        for (kind, _, _), o in list(self.api.objects.items()):
            if kind == kinds.DEPLOYMENT:
                pods = o["spec"].get("replicas", 1)
                old = o["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] == "v1"
                ready = pods if old or not self.broken else 0
                self.api.set_status(
                    o,
                    {
                        "observedGeneration": o["metadata"]["generation"],
                        "replicas": pods,
                        "readyReplicas": ready,
                        "availableReplicas": ready,
                        "updatedReplicas": pods,
                    },
                )
            elif kind == kinds.POD and o["metadata"]["labels"].get(names.LABEL_ROLE) == names.ROLE_RESOLVE:
                self.api.set_status(o, done({"digest": self.digest, "sizeBytes": 100}, "fetch"))
            elif kind == kinds.JOB and _role(o) == names.ROLE_TRAINING:
                self.end(o)

    def end(self, job: Object) -> None:
        stage, name = self.stage(job), job["metadata"]["name"]
        if stage in self.hold:
            return
        if (kinds.POD, NS, f"{name}-x") not in self.api.objects:
            self.made.append(stage)
            self.pod(job)
            return
        self.api.set_status(job, {"conditions": [{"type": "Complete", "status": "True"}]})

    def pod(self, job: Object) -> None:
        pod = self.api.user_create(objects.pod_of(job, f"{job['metadata']['name']}-x"))
        self.api.set_status(pod, done(self.report(job)))

    def look(self, seconds: float = 5) -> None:
        self.play()
        self.clock.advance(seconds)
        self.operator.hear(len(self.api.told))
        self.operator.look_again()
        self.operator.work()
        self.operator.work()

    def go(self, until: Any, looks: int = 60, seconds: float = 5) -> None:
        for _ in range(looks):
            if until():
                return
            self.look(seconds)
        statuses = [run.get("status") for run in self.runs]
        raise AssertionError(f"it did not come to that: {self.policy.get('status')} {statuses}")

    def to_the_hour(self, hours: int = 1) -> None:
        now = self.clock.now()
        passed = timedelta(minutes=now.minute, seconds=now.second, microseconds=now.microsecond)
        self.clock.advance((timedelta(hours=hours) - passed).total_seconds() + 1)
        self.look(1)

    def ask(self, name: str = "by-hand", **manual: Any) -> None:
        spec = {"policyRef": {"name": "digits"}, "manual": {"by": "alice", "reason": "labels are in", **manual}}
        self.api.user_create(
            {
                "apiVersion": objects.API_VERSION,
                "kind": "TrainingRun",
                "metadata": {"name": name, "namespace": NS},
                "spec": spec,
            }
        )

    def suppressed(self) -> dict[str, int]:
        return {entry["reason"]: entry["count"] for entry in self.policy["status"].get("suppressed", [])}


def done(report: Any, container: str = "work") -> Object:
    text = report if isinstance(report, str) else json.dumps(report)
    state = {"terminated": {"exitCode": 0, "message": text}}
    return {
        "phase": "Succeeded",
        "containerStatuses": [
            {
                "name": container,
                "image": "example.com/trainer:1",
                "imageID": "example.com/trainer@sha256:" + "f" * 64,
                "state": state,
            }
        ],
    }


def _role(obj: Object) -> str | None:
    return (obj["metadata"].get("labels") or {}).get(names.LABEL_ROLE)


DATA = {"name": "new", "data": {"uri": "s3://data/digits", "every": "1m"}}


def look_job(world: RetrainingHarness, cron_job: Object, number: int) -> Object:
    """A Job of this CronJob, as the CronJob controller makes it."""
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": cron_job["metadata"]["name"],
        "uid": cron_job["metadata"]["uid"],
        "controller": True,
    }
    template = cron_job["spec"]["jobTemplate"]
    metadata = {
        "name": f"look-{number}",
        "namespace": NS,
        "labels": template["metadata"]["labels"],
        "ownerReferences": [owner],
    }
    return world.api.user_create(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
    )


def look_at_data(world: RetrainingHarness, fingerprint: str, number: int) -> None:
    """The CronJob's Job has looked."""
    cron_job = next(o for (kind, _, _), o in world.api.objects.items() if kind == kinds.CRON_JOB)
    world.clock.advance(60)
    pod = world.api.user_create(objects.pod_of(look_job(world, cron_job, number), f"look-{number}"))
    world.api.set_status(pod, done({"fingerprint": fingerprint, "objects": 1, "bytes": 1}, "fetch"))
    world.look()
