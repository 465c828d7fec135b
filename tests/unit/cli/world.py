"""Objects of a namespace in which a rollout is on its way, as the API server gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from modelwright.cli.model_view import ModelView, build_view
from tests.lib import objects

Json = dict[str, Any]
NS = "vision"
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
HASH = "h4sh"
DIGEST = "sha256:" + "d" * 64


def meta(name: str, hour: int, **more: Any) -> Json:
    return {
        "name": name,
        "namespace": NS,
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": f"2026-11-26T{hour:02}:00:00Z",
        **more,
    }


def condition(type_: str, status: str, reason: str, message: str = "") -> Json:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-26T11:00:00Z",
        "observedGeneration": 1,
    }


def version(name: str, hour: int, stage: str, **spec: Any) -> Json:
    found = objects.version(NS, name)
    found["metadata"] = meta(name, hour)
    found["spec"] |= spec
    return found | {"status": {"stage": stage, "artifact": {"digest": DIGEST}}}


def rollout(name: str, hour: int, to: str, state: str, number: int | None = 1, **status: Any) -> Json:
    spec: Json = {"modelRef": {"name": "digits"}, "target": {"version": to}}
    spec |= {"number": number} if number is not None else {"rollback": {"by": "bob", "reason": "wrong answers"}}
    reported = {
        "state": state,
        "startedAt": f"2026-11-26T{hour:02}:00:00Z",
        "since": f"2026-11-26T{hour:02}:00:00Z",
        **status,
    }
    return {
        "apiVersion": objects.API_VERSION,
        "kind": "ModelRollout",
        "metadata": meta(name, hour),
        "spec": spec,
        "status": reported,
    }


def model(ready: Json, *, state: str = "Progressing", name: str = "digits-2", **status: Any) -> Json:
    found = objects.model(NS, "digits", version="v2")
    found["metadata"] = meta("digits", 8)
    return found | {
        "status": {
            "observedGeneration": 1,
            "url": "http://digits.example.com",
            "serving": {"version": "v1", "revision": "r1", "since": "2026-11-26T09:00:00Z"},
            "target": {"version": "v2", "revision": "r2"},
            "rollout": {"name": name, "state": state},
            "traffic": [
                {"version": "v1", "revision": "r1", "weight": 90, "ready": True},
                {"version": "v2", "revision": "r2", "weight": 10, "observedWeight": 9, "ready": True},
            ],
            "history": [{"version": "v0", "revision": "r0"}],
            "conditions": [ready],
            **status,
        }
    }


def pod(name: str, of: str, ready: bool = True) -> Json:
    labels = {"modelwright.dev/model": "digits", "modelwright.dev/version": of, "modelwright.dev/role": "serving"}
    waiting = {} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NS, "labels": labels},
        "spec": {"nodeName": "node-a"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "model", "restartCount": 0 if ready else 3, "state": waiting}],
        },
    }


def retraining(name: str = "digits") -> list[Json]:
    work = {"job": {"template": {"spec": {"containers": [{"name": "t", "image": "example.com/t:1"}]}}}}
    run = {
        "dataset": {"uri": "s3://data/digits", "digest": DIGEST},
        "train": work,
        "output": {"uri": "s3://models/digits", "format": {"name": "plain"}},
    }
    policy = {
        "apiVersion": objects.API_VERSION,
        "kind": "RetrainingPolicy",
        "metadata": meta(name, 8),
        "spec": {"modelRef": {"name": "digits"}, "run": run},
        "status": {"failures": 2},
    }
    trained = {
        "apiVersion": objects.API_VERSION,
        "kind": "TrainingRun",
        "metadata": meta(f"{name}-nightly", 10),
        "spec": {"policyRef": {"name": name}, "manual": {"by": "alice", "reason": "labels are in"}},
        "status": {"state": "Failed", "model": "digits", "reason": "DataRejected", "message": "nulls: 3 of 10"},
    }
    return [policy, trained]


VERDICT = {
    "step": 0,
    "metric": "error-rate",
    "outcome": "Inconclusive",
    "reason": "InsufficientEvidence",
    "message": "12 of 50 requests answered by the candidate",
    "query": "sum(rate(requests[1m]))",
}
ON_ITS_WAY = rollout(
    "digits-2",
    11,
    "v2",
    "Progressing",
    2,
    progress="1/3",
    step=0,
    weight=10,
    contentHash=HASH,
    reason="StepHolding",
    message="waiting for evidence",
    **{"from": {"version": "v1", "revision": "r1"}},
    steps=[{"index": 0, "kind": "weight", "weight": 10, "startedAt": "2026-11-26T11:00:00Z"}],
    gates=[{"name": "infra", "outcome": "Pass", "message": "5 requests answered as expected"}],
    verdicts=[VERDICT],
    policy={"name": "canary", "generation": 4, "spec": {}},
)
LINEAGE = {
    "dataset": {"uri": "s3://data/digits", "digest": DIGEST},
    "code": {"repository": "https://example.com/r", "commit": "abc"},
    "image": "example.com/trainer@sha256:1",
    "trainingRun": "nightly",
    "parent": "v1",
}
METRICS = [{"name": "accuracy", "value": "0.97", "dataset": "holdout"}]


def namespace(*instead: Json, ready: Json | None = None) -> list[Json]:
    """A Model on its way from v1 to v2; `instead` takes the place of objects of the same kind and name."""
    given = [
        model(ready or condition("Ready", "False", "RolloutInProgress", "step 1 of 3")),
        version("v1", 8, "Serving", metrics=[{"name": "accuracy", "value": "0.95", "dataset": "holdout"}]),
        version(
            "v2",
            10,
            "Candidate",
            metrics=METRICS,
            lineage=LINEAGE,
            parameters={"C": "10"},
            card={"summary": "Reads digits.", "license": "Apache-2.0", "limitations": "No letters."},
        ),
        rollout("digits-1", 8, "v1", "Succeeded", reason="Promoted", finishedAt="2026-11-26T08:30:00Z"),
        ON_ITS_WAY,
        pod("digits-r1-a", "v1"),
        pod("digits-r2-a", "v2", ready=False),
        *retraining(),
    ]
    replaced = {(o["kind"], o["metadata"]["name"]) for o in instead}
    return [*(o for o in given if (o["kind"], o["metadata"]["name"]) not in replaced), *instead]


def seen(*instead: Json, ready: Json | None = None) -> ModelView:
    return build_view("digits", namespace(*instead, ready=ready))
