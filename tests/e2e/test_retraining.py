"""Retraining with real Jobs, a real store and real looks at data: the loop without a human, and what stops it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from demo.kubectl import Json
from devcluster.cluster import Cluster
from tests.e2e.lib.retrain import EVALUATE, LEARN, POLICIES, READ, RUNS, WAIT_FOR_GO, Team
from tests.e2e.lib.space import Space, eventually


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


def test_an_alert_from_several_replicas_starts_one_run(team: Team) -> None:
    team.policy(name="alerted", triggers=[{"name": "alert", "webhook": {"source": "Alertmanager"}}])
    wait = team.space.kubectl.wait
    wait(POLICIES, "alerted", team.space.name, lambda obj: bool(obj.get("status")), "it is looked at", timeout=60)
    doors = [f"http://{pod['status']['podIP']}:8090/triggers/{team.space.name}" for pod in team.space.world.operators()]
    assert len(doors) == 2, "the leader's, and the standby's, which passes on to it"
    alerts = team.token("alerts", "trigger")
    firing = {
        "status": "firing",
        "labels": {"alertname": "Drift"},
        "startsAt": "2026-11-26T08:00:00Z",
        "fingerprint": "b7c4a2d1",
    }

    def send(alert: Json, token: str = alerts, path: str = "alerted/alert", door: int = 1) -> int:
        body = {"version": "4", "status": alert["status"], "alerts": [alert]}
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{doors[door]}/{path}", json=body, headers=headers, timeout=40).status_code

    assert send(firing, "forged") == 401
    assert send(firing, team.token("nobody", "get")) == 403
    assert send(firing, path="alerted/other") == 404
    assert send({**firing, "status": "resolved"}) == 202
    with ThreadPoolExecutor(6) as senders:
        assert list(senders.map(lambda number: send(firing, door=number % 2), range(6))) == [202] * 6
    runs = [run for run in team.space.items(RUNS) if run["spec"]["policyRef"]["name"] == "alerted"]
    assert len(runs) == 1
    assert runs[0]["spec"]["trigger"]["name"] == "alert"


@pytest.mark.alone
def test_a_training_whose_node_is_lost_goes_on_on_another(team: Team, cluster: Cluster) -> None:
    if cluster.backend != "embedded":
        pytest.skip("nodes are taken away in the embedded cluster only")
    leader = team.space.world.operators()[0]
    lost = next(name for name in cluster.node_names if name != leader["spec"]["nodeName"])
    work = team.work(WAIT_FOR_GO + READ + LEARN)
    work["job"]["backoffLimit"] = 1
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [lost]}
    work["job"]["template"]["spec"] |= {
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "preference": {"matchExpressions": [here]}}
                ]
            }
        },
        "tolerations": [
            {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}
            for taint in ("not-ready", "unreachable")
        ],
    }
    team.policy(train=work, triggers=[{"name": "alert", "webhook": {"source": "Alertmanager"}}])
    team.data([11, 12, 13])
    team.ask("on-a-lost-node")

    def runs_on() -> set[str]:
        labels = "modelwright.dev/run=on-a-lost-node,modelwright.dev/role=training"
        pods = team.space.items("pods", labels)
        return {
            pod["spec"]["nodeName"]
            for pod in pods
            if pod["metadata"]["name"].startswith("train-") and pod["status"]["phase"] == "Running"
        }

    eventually(lambda: runs_on() == {lost}, "it trains on the node that will be lost", timeout=120)
    child = team.stage("on-a-lost-node", "train")["uid"]
    with cluster.without_node(lost):
        eventually(lambda: runs_on() - {lost}, "it trains on another node", timeout=180)
        team.go("on-a-lost-node")
        status = team.until("on-a-lost-node", "Succeeded", "Failed")["status"]
    assert status["state"] == "Succeeded", status["message"]
    assert team.stage("on-a-lost-node", "train")["uid"] == child, "by the very Job that had begun"
    ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    eventually(lambda: team.space.kubectl.run("get", "node", lost, "-o", ready) == "True", "the node is back")
    eventually(lambda: team.serving() == "on-a-lost-node", "what it trained serves", timeout=180)
