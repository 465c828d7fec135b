"""What is counted of an audit log."""

import json
from pathlib import Path
from typing import Any

from tests.scale.audit import AuditLog, Request

AT = "2026-11-30T05:00:00.250000Z"


def line(verb: str, resource: str, name: str = "", agent: str = "modelwright", **more: Any) -> str:
    entry = {
        "verb": verb,
        "requestURI": "/apis",
        "userAgent": agent,
        "objectRef": {"resource": resource, "name": name},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": AT,
    }
    return json.dumps({**entry, **more}, separators=(",", ":")) + "\n"


def log_of(folder: Path, *lines: str) -> Path:
    path = folder / "audit.log"
    path.write_text("".join(lines))
    return path


def test_writes_and_reads_by_verb_and_kind_with_leases_and_events_apart(tmp_path: Path):
    path = log_of(
        tmp_path,
        line("patch", "models", objectRef={"resource": "models", "subresource": "status", "name": "m1"}),
        line("create", "deployments", "m1-x"),
        line("create", "deployments", "m2-x"),
        line("update", "leases", "modelwright"),
        line("create", "events"),
        line("list", "pods"),
        line("watch", "pods"),
    )
    counts = AuditLog(path).take()
    assert counts.writes == {("patch", "models/status"): 1, ("create", "deployments"): 2}
    assert (counts.total_writes, counts.total_reads, counts.events, counts.leases) == (3, 1, 1, 1)
    assert [request.resource for request in counts.requests] == [
        "models/status",
        "deployments",
        "deployments",
        "events",
        "pods",
        "pods",
    ]
    assert counts.requests[1] == Request(1796014800.25, "create", "deployments", "m1-x")


def test_only_the_operator_that_is_asked_for(tmp_path: Path):
    path = log_of(
        tmp_path,
        line("create", "services", agent="kube-controller-manager/v1.34 modelwright"),
        line("create", "services", agent="Modelwright/1"),
        line("create", "services", agent="kopf/1.45"),
        line("create", "services", agent="spike"),
    )
    assert AuditLog(path).take().total_writes == 2
    assert AuditLog(path, ("spike",)).take().total_writes == 1


def test_dry_runs_write_nothing_and_refused_requests_are_told_too(tmp_path: Path):
    path = log_of(
        tmp_path,
        line("create", "approvals", requestURI="/apis?dryRun=All", responseStatus={"code": 422}),
        line("patch", "models", responseStatus={"code": 409}),
    )
    counts = AuditLog(path).take()
    assert counts.writes == {("patch", "models"): 1}
    assert counts.refused == {("create", "approvals", 422): 1, ("patch", "models", 409): 1}


def test_each_take_counts_what_came_since_the_last_one_and_no_half_line(tmp_path: Path):
    first, second = line("create", "services"), line("create", "deployments")
    path = log_of(tmp_path, first, second[:20])
    log = AuditLog(path)
    counts = log.take()
    assert counts.writes == {("create", "services"): 1}
    with path.open("a") as file:
        file.write(second[20:])
    counts.add(log.take())
    assert counts.writes == {("create", "services"): 1, ("create", "deployments"): 1}
    assert len(counts.requests) == 2
