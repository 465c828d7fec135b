"""Gates with real Jobs: no caller meets what does not load, answers wrongly, or scores worse on data held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from demo.kubectl import Json
from tests.e2e.lib.space import ANSWER, API, BODY, MODELS, Space, eventually

ROLLOUTS = "modelrollouts.modelwright.dev"
GATE_PODS = "modelwright.dev/role=gate"

# As docs/how-to/gates.md has it: figures of both, as JSON, in the termination message. What only one of the two gets
# right is what they differ in.
SCRIPT = """
import json, os, pathlib
def score(directory):
    return json.loads(pathlib.Path(directory, "score.json").read_text())
new = score(os.environ["CANDIDATE_DIR"])
n = new["examples"]
row = {"name": "accuracy", "candidate": new["accuracy"], "n": n}
if "SERVING_DIR" in os.environ:
    old = score(os.environ["SERVING_DIR"])["accuracy"]
    gain = round(n * (new["accuracy"] - old))
    row |= {"serving": old, "better": max(gain, 0), "worse": max(-gain, 0)}
pathlib.Path("/dev/termination-log").write_text(json.dumps({"metrics": [row]}))
"""
TOO_MUCH = """
import json, pathlib
pathlib.Path("/dev/termination-log").write_text(json.dumps({"metrics": [{"name": "x" * 9999}]}))
"""
NO_IMAGE = "/modelwright/none:1"
ACCURACY = {"name": "accuracy", "min": "0.5", "minDelta": "-0.01"}


@dataclass
class Team:
    """A namespace with a policy and a Model on v1, whose later versions have to pass the gates."""

    space: Space

    @property
    def registry(self) -> str:
        return self.space.world.images["v2-test"].partition("/")[0]

    def policy(self, *, script: str = SCRIPT, image: str | None = None, infra: Json | None = None, **job: Any) -> None:
        scorer = {
            "name": "score",
            "image": image or self.space.world.images["v2-test"],
            "command": ["python3", "-c", script],
            **job,
        }
        evaluation = {"template": {"spec": {"containers": [scorer]}}, "metrics": [ACCURACY], "backoffLimit": 0}
        spec = {
            "strategy": {"steps": [{"weight": 50, "hold": "3s"}]},
            "gates": {"evaluation": evaluation, "infra": infra or {}},
            "deadline": "10m",
            "rollbackWindow": 0,
        }
        metadata = {"name": "gated", "namespace": self.space.name}
        self.space.apply({"apiVersion": API, "kind": "RolloutPolicy", "metadata": metadata, "spec": spec})

    def version(
        self, name: str, accuracy: float, behaviour: Json | None = None, answer: float = ANSWER, examples: int = 2000
    ) -> None:
        score = {"accuracy": accuracy, "examples": examples}
        self.space.upload(f"{name}/score.json", json.dumps(score).encode())
        version = self.space.version(name, behaviour=behaviour)
        expect = {"outputs": [{"data": [answer]}]}
        version["spec"]["samples"] = [{"request": json.loads(BODY), "expect": expect}]
        self.space.apply(version)

    def want(self, version: str) -> None:
        self.space.set_version(version)

    def rollout(self, version: str) -> Json:
        """The status of the newest rollout to this version; empty before there is one."""
        found = [o for o in self.space.items(ROLLOUTS) if o["spec"]["target"]["version"] == version]
        found.sort(key=lambda o: int(o["spec"]["number"]))
        return found[-1].get("status", {}) if found else {}

    def until(self, version: str, state: str, timeout: float = 180) -> Json:
        """The status of the rollout to this version once it is in this state."""

        def there() -> Json:
            status = self.rollout(version)
            told = {key: status.get(key) for key in ("state", "reason", "message", "gates")}
            assert status.get("state") == state, f"it is {told}"
            return status

        found: Json = eventually(there, f"the rollout to {version} is {state}", timeout=timeout)
        return found

    def jobs(self) -> list[str]:
        return [job["metadata"]["name"] for job in self.space.items("jobs.batch")]


def gates(status: Json) -> dict[str, tuple[str, str]]:
    return {gate["name"]: (gate["outcome"], gate["reason"]) for gate in status.get("gates", [])}


@pytest.fixture(scope="module")
def team(shared_space: Space) -> Team:
    """v1 serves, having passed the gates itself as a first revision."""
    found = Team(shared_space)
    found.policy(infra={"repeats": 5, "latency": {"max": "5s"}, "memory": "1Gi"})
    found.version("v1", 0.90)
    model = shared_space.model("v1")
    model["spec"]["rolloutPolicyRef"] = {"name": "gated"}
    shared_space.apply(model)
    status = found.until("v1", "Succeeded")
    assert gates(status) == {"evaluation": ("Pass", "GatePassed"), "infra": ("Pass", "GatePassed")}
    assert "limits versus the serving version were skipped" in status["gates"][0]["message"]
    shared_space.asks("v1")
    return found


def test_a_good_version_passes_with_its_figures_and_leaves_no_job(team: Team) -> None:
    team.policy(infra={"repeats": 5, "latency": {"max": "5s"}, "memory": "1Gi"})
    team.version("v2", 0.905)
    team.want("v2")
    status = team.until("v2", "Succeeded")
    messages = {gate["name"]: gate["message"] for gate in status["gates"]}
    assert gates(status) == {"evaluation": ("Pass", "GatePassed"), "infra": ("Pass", "GatePassed")}
    assert "accuracy 0.905 (serving 0.9)" in messages["evaluation"]
    assert "5 requests answered as expected" in messages["infra"]
    assert "MiB of memory" in messages["infra"]
    eventually(lambda: not team.jobs() and not team.space.items("pods", GATE_PODS), "no Job is left")
    team.space.asks("v2")
    team.want("v1")
    team.space.wait_ready("v1", timeout=180)


@dataclass(frozen=True)
class Case:
    """A version or a policy that a gate stops: the gate's outcome, reason, and what its message must hold."""

    gate: str
    outcome: str
    reason: str
    mentions: tuple[str, ...]
    version: Json
    policy: Callable[[Team], None] = Team.policy
    timeout: float = 180
    keeps_job: bool = True


CASES = {
    "scores-worse": Case(
        "evaluation", "Fail", "MetricOutOfLimits", ("accuracy is 0.85", "below minDelta -0.01"), {"accuracy": 0.85}
    ),
    "scores-on-too-few": Case(
        "evaluation",
        "Inconclusive",
        "TooFewExamples",
        ("100 examples do not distinguish it from minDelta -0.01",),
        {"accuracy": 0.9, "examples": 100},
    ),
    "report-is-cut-off": Case(
        "evaluation",
        "Error",
        "ReportTooLarge",
        ("larger than the", "accuracy is the first figure that did not fit"),
        {"accuracy": 0.95},
        lambda team: team.policy(script=TOO_MUCH),
    ),
    "answers-wrong": Case(
        "infra",
        "Fail",
        "UnexpectedAnswer",
        ("samples[0]", "outputs[0].data[0]"),
        {"accuracy": 0.95, "behaviour": {"shift": 5}},
    ),
    "answers-500": Case(
        "infra", "Fail", "SampleFailed", ("status 500",), {"accuracy": 0.95, "behaviour": {"errorShare": 1}}
    ),
    "too-big": Case(
        "infra",
        "Fail",
        "MemoryOverBudget",
        ("over the budget of 1 MiB",),
        {"accuracy": 0.95},
        lambda team: team.policy(infra={"memory": "1Mi"}),
    ),
    "script-fails": Case(
        "evaluation",
        "Error",
        "JobFailed",
        ("KeyError: 'holdout'",),
        {"accuracy": 0.95},
        lambda team: team.policy(script="raise KeyError('holdout')"),
    ),
    "script-says-nothing": Case(
        "evaluation",
        "Error",
        "ReportMissing",
        ("no container left a report",),
        {"accuracy": 0.95},
        lambda team: team.policy(script="print('accuracy 1')"),
    ),
    "script-needs-memory": Case(
        "evaluation",
        "Error",
        "ContainerOOMKilled",
        ("resources.limits.memory",),
        {"accuracy": 0.95},
        lambda team: team.policy(script="x = b'x' * (1 << 30)", resources={"limits": {"memory": "64Mi"}}),
    ),
    "no-image": Case(
        "evaluation",
        "Error",
        "ImagePullFailed",
        (NO_IMAGE,),
        {"accuracy": 0.95},
        lambda team: team.policy(image=team.registry + NO_IMAGE),
        timeout=300,
        keeps_job=False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_gate_stops_never_reaches_a_caller(team: Team, name: str) -> None:
    case = CASES[name]
    case.policy(team)
    team.version(name, **case.version)
    team.want(name)
    status = team.until(name, "RolledBack" if case.outcome == "Fail" else "Holding", case.timeout)
    assert gates(status)[case.gate] == (case.outcome, case.reason), status["gates"]
    message = next(gate["message"] for gate in status["gates"] if gate["name"] == case.gate)
    assert all(mention in message for mention in case.mentions), message
    expected = "its Job stays, for its log, and no other" if case.keeps_job else "a Job that never ran is taken away"
    eventually(lambda: len(team.jobs()) == int(case.keeps_job), expected)
    model = team.space.get(MODELS, "digits")
    assert model is not None
    assert [(share["version"], share["weight"]) for share in model["status"]["traffic"]] == [("v1", 100)]
    assert team.space.ask() == ("v1", [ANSWER])
    team.want("v1")
    eventually(lambda: team.space.pods(version=name) == [], "the candidate's pods are gone")
