"""Retraining with real Jobs, a real store and real looks at data: the loop without a human, and what stops it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from demo.kubectl import Json
from demo.platform import SECRET
from tests.e2e.lib.space import API, MODELS, Space, eventually

RUNS = "trainingruns.modelwright.dev"
POLICIES = "retrainingpolicies.modelwright.dev"

CHECK = """
import json, os, pathlib
rows = json.loads(pathlib.Path(os.environ["DATASET_DIR"], "data.json").read_text())
missing = sum(value is None for value in rows)
check = {"name": "nulls", "outcome": "Fail" if missing else "Pass", "message": f"{missing} of {len(rows)}"}
pathlib.Path("/dev/termination-log").write_text(json.dumps({"checks": [check], "profile": {"rows": len(rows)}}))
"""
TRAIN = """
import hashlib, json, os, pathlib
from obstore.store import from_url
rows = json.loads(pathlib.Path(os.environ["DATASET_DIR"], "data.json").read_text())
inputs = json.loads(pathlib.Path(os.environ["INPUTS_FILE"]).read_text())
content = json.dumps({"version": os.environ["RUN_NAME"], "behaviour": {}, "mean": sum(rows) / len(rows)}).encode()
store = from_url(os.environ["OUTPUT_URI"], client_options={"allow_http": True})
store.put("model.json", content)
line = f"model.json\\0{len(content)}\\0{hashlib.sha256(content).hexdigest()}\\n"
digest = "sha256:" + hashlib.sha256(line.encode()).hexdigest()
pathlib.Path("/dev/termination-log").write_text(json.dumps({
    "artifact": {"uri": os.environ["OUTPUT_URI"], "digest": digest}, "parameters": inputs["parameters"],
}))
"""
EVALUATE = """
import json, os, pathlib
rows = json.loads(pathlib.Path(os.environ["DATASET_DIR"], "data.json").read_text())
def score(directory):
    model = json.loads(pathlib.Path(directory, "model.json").read_text())
    return 1 - abs(model.get("mean", 0) - sum(rows) / len(rows)) / 10
figure = {"name": "accuracy", "candidate": score(os.environ["CANDIDATE_DIR"]), "n": len(rows)}
if "SERVING_DIR" in os.environ:
    figure["serving"] = score(os.environ["SERVING_DIR"])
pathlib.Path("/dev/termination-log").write_text(json.dumps({"metrics": [figure]}))
"""


class Team:
    """A namespace whose Model follows, and whose policy trains on a list of numbers."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.data([1, 2, 3])
        model = space.model("v1")
        model["spec"]["version"] = {"follow": {}}
        space.apply(space.version("v1"), model)
        space.wait_ready("v1")
        space.asks("v1")
        self.policy()

    def data(self, rows: list[int | None]) -> None:
        self.space.upload("data/data.json", json.dumps(rows).encode())

    def work(self, script: str) -> Json:
        container = {
            "name": "work",
            "image": self.space.world.images["trainer"],
            "command": ["python3", "-c", script],
            "envFrom": [{"secretRef": {"name": SECRET}}],
        }
        return {"job": {"template": {"spec": {"containers": [container]}}, "backoffLimit": 0}}

    def policy(self, *, evaluate: str = EVALUATE, name: str = "digits", triggers: list[Json] | None = None) -> None:
        secret = {"credentialsSecretRef": {"name": SECRET}}
        uri = f"s3://models/{self.space.name}"
        spec = {
            "modelRef": {"name": "digits"},
            "triggers": triggers or [{"name": "new-data", "data": {"uri": f"{uri}/data", "every": "1m", **secret}}],
            "guard": {"cooldown": "0s", "backoff": {"initial": "1h"}},
            "run": {
                "dataset": {"uri": f"{uri}/data", **secret},
                "parameters": {"C": "10"},
                "dataCheck": self.work(CHECK),
                "train": self.work(TRAIN),
                "evaluate": {**self.work(evaluate), "gates": [{"name": "accuracy", "min": "0.5", "minDelta": "0"}]},
                "output": {"uri": f"{uri}/trained", "format": {"name": "v2-test"}, **secret},
            },
        }
        metadata = {"name": name, "namespace": self.space.name}
        self.space.apply({"apiVersion": API, "kind": "RetrainingPolicy", "metadata": metadata, "spec": spec})

    def ask(self, name: str) -> None:
        by = self.space.kubectl.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").strip()
        spec = {"policyRef": {"name": "digits"}, "manual": {"by": by, "reason": "to see what becomes of it"}}
        metadata = {"name": name, "namespace": self.space.name}
        self.space.apply({"apiVersion": API, "kind": "TrainingRun", "metadata": metadata, "spec": spec})

    def until(self, name: str | None, *states: str, timeout: float = 240) -> Json:
        """The run of this name, or the only one, once it is in one of these states."""

        def there() -> Json | None:
            found = [run for run in self.space.items(RUNS) if name in (None, run["metadata"]["name"])]
            return found[0] if found and found[0].get("status", {}).get("state") in states else None

        found: Json = eventually(there, f"the run {name or ''} is {' or '.join(states)}", timeout=timeout)
        return found

    def serving(self) -> Any:
        model = self.space.get(MODELS, "digits") or {}
        return model.get("status", {}).get("serving", {}).get("version")

    def token(self, account: str, *verbs: str) -> str:
        """A token of a new ServiceAccount that has these verbs on the policy `alerted`."""
        rbac, name = "rbac.authorization.k8s.io", {"name": account, "namespace": self.space.name}
        rule = {"apiGroups": ["modelwright.dev"], "resources": ["retrainingpolicies"], "resourceNames": ["alerted"]}
        subject = {"kind": "ServiceAccount", **name}
        self.space.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": name, "rules": [{**rule, "verbs": list(verbs)}]},
            {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": name, "subjects": [subject],
             "roleRef": {"apiGroup": rbac, "kind": "Role", "name": account}},
        )  # fmt: skip
        return self.space.kubectl.run("create", "token", account, "-n", self.space.name).strip()


@pytest.fixture(scope="module")
def team(shared_space: Space) -> Team:
    return Team(shared_space)


def test_data_that_changes_becomes_a_version_that_serves(team: Team) -> None:
    def looked() -> Any:
        policy = team.space.get(POLICIES, "digits") or {}
        return policy.get("status", {}).get("triggers")

    eventually(looked, "the state of the data is known", timeout=180)
    assert team.space.items(RUNS) == [], "the first look is what later ones are compared with"
    team.data([4, 5, 6])
    run = team.until(None, "Succeeded", "Failed")
    name, status = run["metadata"]["name"], run["status"]
    assert (status["state"], status["reason"]) == ("Succeeded", "VersionRegistered"), status["message"]
    assert [stage["name"] for stage in status["stages"]] == ["dataCheck", "train", "evaluate"]
    assert status["figures"][0]["candidate"] == "1.0"
    eventually(lambda: team.serving() == name, f"{name} serves", timeout=180)
    eventually(lambda: team.until(name, "Succeeded")["status"].get("outcome") == "Serving", "the run says so")
    team.space.asks(name)
    version = team.space.get("modelversions.modelwright.dev", name) or {}
    lineage = version["spec"]["lineage"]
    assert lineage["dataset"]["digest"].startswith("sha256:")
    assert lineage["image"].startswith(team.space.world.images["trainer"].partition("@")[0])
    assert (lineage["trainingRun"], lineage["parent"]) == (name, "v1")


def test_damaged_data_is_stopped_before_a_training_pod_starts(team: Team) -> None:
    before = team.serving()
    team.data([4, None, 6])
    team.ask("damaged")
    status = team.until("damaged", "Failed", "Succeeded")["status"]
    assert (status["state"], status["reason"]) == ("Failed", "DataRejected")
    assert status["checks"] == [{"name": "nulls", "outcome": "Fail", "message": "1 of 3"}]
    assert [stage["name"] for stage in status["stages"]] == ["dataCheck"]
    assert team.serving() == before


def test_a_model_that_is_no_better_is_refused_and_serving_goes_on(team: Team) -> None:
    before = team.serving()
    team.data([7, 8, 9])
    worse = EVALUATE.replace('score(os.environ["CANDIDATE_DIR"])', "0.6").replace(
        'score(os.environ["SERVING_DIR"])', "0.9"
    )
    team.policy(evaluate=worse)
    team.ask("worse")
    status = team.until("worse", "Failed", "Succeeded")["status"]
    assert (status["state"], status["reason"]) == ("Failed", "GateFailed")
    assert "accuracy" in status["message"]
    assert team.space.get("modelversions.modelwright.dev", "worse") is None
    policy = team.space.get(POLICIES, "digits") or {}
    assert policy["status"]["failures"] >= 1
    assert team.serving() == before
    assert team.space.ask()[0] == before


def test_an_alert_from_several_replicas_is_one_run_and_strangers_get_none(team: Team) -> None:
    team.policy(name="alerted", triggers=[{"name": "alert", "webhook": {"source": "Alertmanager"}}])
    wait = team.space.kubectl.wait
    wait(POLICIES, "alerted", team.space.name, lambda obj: bool(obj.get("status")), "it is looked at", timeout=60)
    (pod,) = team.space.kubectl.items("pods", "modelwright-system", "app.kubernetes.io/name=modelwright")
    address = f"http://{pod['status']['podIP']}:8080/triggers/{team.space.name}"
    alerts = team.token("alerts", "trigger")
    firing = {"status": "firing", "labels": {"alertname": "Drift"}, "startsAt": "2026-11-26T08:00:00Z",
              "fingerprint": "b7c4a2d1"}  # fmt: skip

    def send(alert: Json, token: str = alerts, path: str = "alerted/alert") -> int:
        body = {"version": "4", "status": alert["status"], "alerts": [alert]}
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{address}/{path}", json=body, headers=headers, timeout=40).status_code

    assert send(firing, "forged") == 401
    assert send(firing, team.token("nobody", "get")) == 403
    assert send(firing, path="alerted/other") == 404
    assert send({**firing, "status": "resolved"}) == 202
    with ThreadPoolExecutor(6) as senders:
        assert list(senders.map(send, [firing] * 6)) == [202] * 6
    runs = [run for run in team.space.items(RUNS) if run["spec"]["policyRef"]["name"] == "alerted"]
    assert len(runs) == 1
    assert runs[0]["spec"]["trigger"]["name"] == "alert"
