"""Rollouts with gates, whose Jobs report what the test says, on a simulated cluster."""

import json
from typing import Any

from modelwright.kube import kinds
from tests.lib import objects
from tests.lib.rollout_harness import CANARY, RolloutHarness

Object = dict[str, Any]


SCORER = {"name": "score", "image": "example.com/score:1"}


EVALUATION = {"template": {"spec": {"containers": [SCORER]}}, "metrics": [{"name": "accuracy", "minDelta": "-0.01"}]}


BOTH = CANARY | {"gates": {"evaluation": EVALUATION, "infra": {"memory": "1Gi"}}, "deadline": "4m"}


GOOD = {"metrics": [{"name": "accuracy", "candidate": 0.93, "serving": 0.92, "n": 2000, "better": 40, "worse": 20}]}


PROBED = {"outcome": "Pass", "reason": "GatePassed", "message": "3 requests answered"}


class GateHarness(RolloutHarness):
    """A Model on v1, whose next version has to pass the gates."""

    def __init__(self, policy: Object = BOTH) -> None:
        super().__init__(CANARY)
        self.set_policy(policy)

    @property
    def jobs(self) -> dict[str, Object]:
        """By gate."""
        found = [o for (kind, _, _), o in self.api.objects.items() if kind == kinds.JOB]
        return {job["metadata"]["name"].split("-")[2]: job for job in found}

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        return {gate["name"]: (gate["outcome"], gate["reason"]) for gate in self.record.get("gates", [])}

    @property
    def stalled(self) -> tuple[str, str]:
        found = next(c for c in self.model["status"]["conditions"] if c["type"] == "Stalled")
        return found["status"], found["reason"]

    def job(self, gate: str) -> Object:
        """The Job of this gate, once there is one."""
        self.go(lambda: gate in self.jobs)
        return self.jobs[gate]

    def pod(self, gate: str, phase: str, state: Object) -> None:
        job = self.jobs[gate]
        pod = self.api.user_create(objects.pod_of(job, f"{gate}-pod"))
        name = job["spec"]["template"]["spec"]["containers"][0]["name"]
        self.api.set_status(pod, {"phase": phase, "containerStatuses": [{"name": name, "image": "i", "state": state}]})

    def end(self, gate: str, report: Any = None, *, condition: str = "Complete", reason: str = "") -> None:
        """The Job ends, with a pod that reports or without any."""
        job = self.job(gate)
        for where in [where for where in self.api.objects if where[0] == kinds.POD]:
            self.api.user_delete(*where)
        if report is not None:
            self.pod(gate, "Succeeded", {"terminated": {"exitCode": 0, "message": json.dumps(report)}})
        told = [{"type": condition, "status": "True", "reason": reason}]
        self.api.set_status(job, {"conditions": told})
