"""Verbs about pods and records: logs, answers of a model, and what happened in order."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelwright.cli import plugin, timeline
from tests.unit.cli import world
from tests.unit.cli.world import seen

Json = dict[str, Any]
LINES = "[pod/digits-r1-a/model] loaded in 3 s\n[pod/digits-r2-a/model] no \x1b[2J file\n"


def test_logs_are_those_of_the_model_containers(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kubectl / "logs").write_text(LINES)
    assert plugin.main(["logs", "digits", "--version", "v2", "--tail", "5"]) == 0
    assert capsys.readouterr().out == LINES.replace("\x1b", r"\x1b")
    last = (kubectl / "calls").read_text().splitlines()[-1]
    assert last == (
        "logs -l modelwright.dev/model=digits,modelwright.dev/role=serving,modelwright.dev/version=v2 -c model "
        "--prefix --tail=5 --max-log-requests=100"
    )


def test_logs_as_data_name_the_pod_of_each_line(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kubectl / "logs").write_text(LINES)
    assert plugin.main(["logs", "digits", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"pod": "digits-r1-a", "line": "loaded in 3 s"}
    assert plugin.main(["logs", "digits", "-o", "json", "--follow"]) == 0
    assert [json.loads(line)["pod"] for line in capsys.readouterr().out.splitlines()] == ["digits-r1-a", "digits-r2-a"]


def test_logs_of_a_version_without_pods_are_an_error(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.main(["logs", "digits", "--version", "v0"]) == 1
    assert "Model digits has no pods of version v0" in capsys.readouterr().err


class Model(BaseHTTPRequestHandler):
    """Answers with the path and the request, as a model server would."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json"
        self.send_response(400 if request == {"inputs": "wrong"} else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"path": self.path, "request": request}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the output of the test is the plugin's."""


@pytest.fixture
def model(kubectl: Path) -> Iterator[Path]:
    """A model that answers behind the port that kubectl forwards; what serves has a sample."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (kubectl / "port").write_text(str(server.server_port))
    os.mkfifo(kubectl / "never")
    serving = world.version("v1", 8, "Serving", samples=[{"request": {"inputs": [1]}}])
    (kubectl / "objects").write_text(json.dumps({"items": world.namespace(serving)}))
    yield kubectl
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_first_sample_is_sent_to_what_serves(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.main(["predict", "digits"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"path": "/v2/models/digits/infer", "request": {"inputs": [1]}}
    assert "port-forward service/digits-r1 :80 --address=127.0.0.1" in (model / "calls").read_text()


def test_a_request_from_a_file_goes_to_the_named_version(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = model / "request.json"
    file.write_text('{"instances": []}')
    assert plugin.main(["predict", "digits", "-f", str(file), "--version", "v2", "--path", "/v1/x"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "/v1/x", "request": {"instances": []}}
    assert "port-forward service/digits-r2 :80" in (model / "calls").read_text()


WRONG = {
    "an answer that is an error": (
        ["predict", "digits", "-f", "{file}"],
        "version v1 answered POST /v2/",
    ),
    "a version without samples": (["predict", "digits", "--version", "v2"], "ModelVersion v2 has no spec.samples"),
    "a version that isn't running": (["predict", "digits", "--version", "v0"], "version v0 of Model digits isn't runn"),
    "two requests": (["predict", "digits", "--sample", "-f", "{file}"], "--file and --sample exclude each other"),
    "a file without JSON": (["predict", "digits", "-f", "{text}"], "is not JSON"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG)
def test_predict_names(model: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "wrong.json").write_text('{"inputs": "wrong"}')
    (model / "text").write_text("inputs")
    given = [word.format(file=model / "wrong.json", text=model / "text") for word in arguments]
    assert plugin.main(given) == 1
    assert says in capsys.readouterr().err


def event(kind: str, name: str, at: str, **more: Any) -> Json:
    return {
        "regarding": {"kind": kind, "name": name},
        "eventTime": at,
        "type": "Normal",
        "reason": "R",
        "note": "n",
        **more,
    }


def test_a_timeline_is_in_the_order_of_what_happened() -> None:
    approval = {
        "name": "a",
        "approver": "bob",
        "decision": "Approve",
        "reason": "fine",
        "place": "gate",
        "at": "2026-11-26T10:55:00Z",
    }
    command = {"name": "pause", "token": "t", "by": "alice", "reason": "lunch", "at": "2026-11-26T11:20:00Z"}
    verdict = {**world.VERDICT, "at": "2026-11-26T11:10:00Z"}
    status = {**world.ON_ITS_WAY["status"], "approvals": [approval], "commands": [command], "verdicts": [verdict]}
    events = [event("Model", "digits", "2026-11-26T11:15:00.5Z", reason="StepInProgress", note="step 1 of 3")]
    found = timeline.build_timeline(seen({**world.ON_ITS_WAY, "status": status}), events)
    assert [f"{entry.at:%H:%M} {entry.name}: {entry.text}" for entry in found] == [
        "08:00 v1: was registered",
        "08:00 digits-1: started: v1",
        "08:30 digits-1: ended Succeeded (Promoted)",
        "10:00 v2: was registered",
        "10:00 digits-nightly: alice requested it: labels are in",
        "10:55 digits-2: bob said Approve (gate): fine",
        "11:00 digits-2: started: v1 -> v2",
        "11:00 digits-2: step 1 (weight 10 %) started",
        "11:10 digits-2: step 1 (weight 10 %): error-rate: Inconclusive; 12 of 50 requests answered by the candidate",
        "11:15 digits: StepInProgress: step 1 of 3",
        "11:20 digits-2: alice ran pause: lunch",
    ]


THRICE = {"count": 3, "lastObservedTime": "2026-11-26T11:59:00Z"}
EVENTS = {
    "one of another Model is left out": (event("Model", "faces", "2026-11-26T11:15:00Z"), []),
    "one of a pod that is well is left out": (event("Pod", "digits-r1-a", "2026-11-26T11:15:00Z"), []),
    "a warning of a pod is shown": (
        event("Pod", "digits-r1-a", "2026-11-26T11:15:00Z", type="Warning", reason="Unhealthy"),
        ["Unhealthy: n"],
    ),
    "one that repeats is shown once, when it happened last": (
        event("Model", "digits", "2026-11-26T11:15:00Z", series=THRICE),
        ["R: n (3 times)"],
    ),
    "one without a time is left out": (event("Model", "digits", ""), []),
}


@pytest.mark.parametrize(("one", "texts"), EVENTS.values(), ids=EVENTS)
def test_of_events(one: Json, texts: list[str]) -> None:
    records = len(timeline.build_timeline(seen(), []))
    found = timeline.build_timeline(seen(), [one])
    assert len(found) == records + len(texts)
    assert {entry.text for entry in found} >= set(texts)


def test_a_timeline_is_a_table_or_data(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kubectl / "events").write_text(json.dumps({"items": [event("Model", "digits", "2026-11-26T11:15:00Z")]}))
    assert plugin.main(["timeline", "digits"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["TIME", "(UTC)", "OBJECT", "WHAT"]
    assert shown[-1].split() == ["2026-11-26", "11:15:00", "Model", "digits", "R:", "n"]
    assert plugin.main(["timeline", "digits", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1] == {
        "at": "2026-11-26T11:15:00Z",
        "kind": "Model",
        "name": "digits",
        "text": "R: n",
    }
