"""Canaries: unique secrets are planted wherever a secret can be, and looked for wherever people look.

What fetch prints and leaves for the kubelet is tested with each store in tests/fetch/test_contract.py, and by
tests/unit/agents/fetcher/test_output.py.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from aiohttp import web

from modelwright.cli import lineage as lineages
from modelwright.cli import model_card
from modelwright.kube import kinds
from modelwright.kube.access_review import AccessUndetermined, Audience, KubeAccessReviewer
from modelwright.kube.api_errors import Denied, Invalid
from modelwright.obs import logging as json_logging
from tests.lib import stepped
from tests.lib.measurement import Bench, FakeServer, make_request, metric
from tests.lib.retraining_harness import HOURLY, NS, RetrainingHarness, look_at_data
from tests.lib.webhooks import opened
from tests.unit.cli import world as cli_world

Object = dict[str, Any]

SIGNATURE, ENVIRONMENT, HOLDOUT = "canary-signature-7f3a", "canary-environment-91bc", "canary-sas-5d20"
SIGNED = f"https://store.example.com/data.csv?X-Amz-Signature={SIGNATURE}"
HELD_OUT = f"https://account1.blob.example.com/c/holdout.csv?sv=2024&sig={HOLDOUT}"
TOKEN, PASSWORD, HEADER = "canary-token-64aa", "canary-password-d1f7", "canary-header-02ce"
CANARIES = (SIGNATURE, ENVIRONMENT, HOLDOUT, TOKEN, PASSWORD, HEADER)


class Overheard:
    """All that is logged, at every level and by every logger, formatted as in the operator; and all Events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lines: list[str] = []

    def found(self, *more: object) -> list[str]:
        told = "\n".join([*self.events, *self.lines, *map(str, more), prometheus_client.generate_latest().decode()])
        return [canary for canary in CANARIES if canary in told]


@pytest.fixture
def overheard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Overheard]:
    heard = Overheard()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.lines.append(json_logging.JsonFormatter().format(record))

    root, ear = logging.getLogger(), Ear()
    monkeypatch.setattr(root, "level", logging.DEBUG)
    monkeypatch.setattr(
        stepped._Events, "record", lambda _, regarding, *told, **more: heard.events.append(repr((told, more)))
    )
    root.addHandler(ear)
    yield heard
    root.removeHandler(ear)


def statuses(world: RetrainingHarness) -> list[str]:
    """What the operator wrote into statuses, but for the policy's copy in a run: that is the record of what was asked
    for, readable by the same people as the policy."""
    found = []
    for obj in world.api.objects.values():
        if obj["apiVersion"].startswith("modelwright.dev/"):
            status = {key: value for key, value in obj.get("status", {}).items() if key != "policy"}
            found.append(json.dumps([obj["kind"], status]))
    return found


def template() -> Object:
    env = [
        {"name": "API_KEY", "value": ENVIRONMENT},
        {"name": "OTHER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    container = {"name": "work", "image": "example.com/trainer:1", "env": env}
    return {"job": {"template": {"spec": {"containers": [container]}}}}


def world(**run: Any) -> RetrainingHarness:
    gates = [{"name": "accuracy", "min": "0.9"}]
    signed: Object = {
        "dataset": {"uri": SIGNED, "credentialsSecretRef": {"name": "store"}},
        "holdout": {"uri": HELD_OUT},
        "dataCheck": template(),
        "train": template(),
        "evaluate": {**template(), "gates": gates},
    }
    data = {"name": "new", "data": {"uri": SIGNED, "changed": "ETag", "every": "10m"}}
    return RetrainingHarness(HOURLY, data, **{**signed, **run})


def test_a_training_run_tells_no_signature_and_no_environment(overheard: Overheard) -> None:
    here = world()
    written: list[str] = []
    here.api.before_write = lambda _, obj: written.append(json.dumps(obj)) if obj["kind"] == "Job" else None
    here.to_the_hour()
    here.go(lambda: here.states == ["Succeeded"])
    made = here.api.objects[kinds.MODEL_VERSION, NS, here.runs[0]["metadata"]["name"]]
    assert made["spec"]["lineage"]["dataset"]["uri"] == "https://store.example.com/data.csv?..."
    assert not overheard.found(*statuses(here), json.dumps(made))
    assert overheard.events
    # The pods get the whole address: else the canary had never been where it could leak.
    assert any(SIGNED in job and ENVIRONMENT in job for job in written)


@pytest.mark.parametrize(
    "report",
    [
        {"artifact": {"uri": SIGNED, "digest": "sha256:" + "e" * 64}},
        {
            "artifact": {"uri": "s3://models/digits/elsewhere", "digest": "sha256:" + "e" * 64},
            "reference": {"uri": SIGNED, "digest": "sha256:" + "e" * 64},
        },
    ],
    ids=["an artifact elsewhere", "a reference elsewhere"],
)
def test_a_result_that_is_refused_is_told_without_its_signature(overheard: Overheard, report: Object) -> None:
    here = world()
    here.reports["train"] = report
    here.to_the_hour()
    here.go(lambda: here.states == ["Failed"])
    assert not overheard.found(*statuses(here))


def test_data_that_changed_is_told_without_its_signature(overheard: Overheard) -> None:
    here = world()
    for number, fingerprint in enumerate(("one", "two")):
        look_at_data(here, fingerprint, number)
        here.look()
        here.look()
    here.go(lambda: here.runs)
    assert "has changed" in json.dumps(here.runs[0])
    assert not overheard.found(*statuses(here), json.dumps(here.runs[0]["spec"]))


def test_the_plugin_prints_no_signature() -> None:
    artifact = {"uri": SIGNED, "format": {"name": "any"}}
    lineage = {"dataset": {"uri": HELD_OUT, "digest": "sha256:" + "d" * 64}}
    seen = cli_world.seen(cli_world.version("v2", 10, "Serving", artifact=artifact, lineage=lineage))
    shown = [
        lineages.render_lineage(seen, "v2"),
        json.dumps(lineages.lineage_data(seen, "v2")),
        model_card.render_card(seen, "v2"),
    ]
    assert all("https://store.example.com/data.csv?..." in text for text in shown)
    assert not [canary for canary in CANARIES if any(canary in text for text in shown)]


ECHOES = {
    "an HTML page": lambda echoed: FakeServer.text(f"<pre>{echoed}</pre>", 502),
    "no JSON": lambda echoed: FakeServer.text(echoed),
    "an error of Prometheus": lambda echoed: FakeServer.reply({"status": "error", "error": echoed}, 503),
    "a refused query": lambda echoed: FakeServer.reply(
        {"status": "error", "errorType": "bad_data", "error": echoed}, 400
    ),
    "an error that is a success": lambda echoed: FakeServer.reply({"status": "error", "error": echoed}),
    "a result type": lambda echoed: FakeServer.reply(
        {"status": "success", "data": {"resultType": echoed, "result": []}}
    ),
    "a refusal": lambda echoed: FakeServer.text(echoed, 401),
    "a redirect": lambda echoed: FakeServer.reply({}, 302, Location=f"/{base64.b16encode(echoed.encode()).decode()}"),
}


@pytest.mark.parametrize("how", ECHOES)
@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_what_a_metrics_server_echoes_of_a_request_is_not_told(
    overheard: Overheard, tmp_path: Path, how: str, kind: str
) -> None:
    async with FakeServer().serving() as server:
        await _echoed(Bench(server), server, tmp_path, how, kind)
    assert not overheard.found()


async def _echoed(bench: Bench, server: FakeServer, tmp_path: Path, how: str, kind: str) -> None:
    (tmp_path / "secret").write_text(TOKEN if kind == "bearer" else PASSWORD)
    if kind == "bearer":
        bench.options["bearerTokenFile"] = str(tmp_path / "secret")
    else:
        bench.options["basicAuth"] = {"username": "reader", "passwordFile": str(tmp_path / "secret")}
    bench.options["headers"] = {"X-Api-Key": HEADER}
    sent: list[str] = []

    async def echo(request: web.Request) -> web.StreamResponse:
        sent.append(request.headers["Authorization"])
        told = f"you sent {request.headers['Authorization']} {request.headers['X-Api-Key']} reader:{PASSWORD}"
        return await ECHOES[how](told)(request)

    server.handler = echo
    for provider in ({"prometheus": {"query": "sum(a)"}}, {"http": {"provider": "json", "path": "/x", "value": ""}}):
        found = await bench.measure(make_request(metric(**provider)))
        assert sent
        encoded = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        wanted = [PASSWORD, encoded] if kind == "basic" else [TOKEN]
        assert not [secret for secret in (*wanted, HEADER) if secret in repr(found)], found
    await bench.web.close()


async def test_a_webhooks_token_is_told_to_nobody(overheard: Overheard) -> None:
    async with opened() as door:
        answers = [
            await door.post(token=TOKEN),
            await door.post(token=None, Authorization=f"Basic {PASSWORD}"),
            await door.post(body=f'{{"{TOKEN}": '.encode()),
            await door.post(body={"version": "4", "alerts": [{"status": TOKEN}]}),
        ]
        door.access.broken = "the API server does not answer"
        answers.append(await door.post(token=f"{TOKEN}-2"))
    assert [status for status, _, _ in answers] == [401, 401, 400, 400, 503]
    assert not overheard.found(*(repr(answer) for answer in answers[:2]), repr(answers[4]))


@pytest.mark.parametrize("error", [Denied, Invalid])
async def test_a_review_that_is_refused_tells_no_token(overheard: Overheard, error: Any) -> None:
    class Client:
        async def review(self, *_: Any) -> Object:
            raise error(422, "Invalid", f'TokenReview "x" is invalid: spec.token: {TOKEN}')

    with pytest.raises(AccessUndetermined) as told:
        await KubeAccessReviewer(Client()).authenticate(TOKEN, Audience.ANY)  # type: ignore[arg-type]
    assert TOKEN not in str(told.value)
    assert not overheard.found()


def test_libraries_that_log_bodies_are_silent_at_debug() -> None:
    before = {name: logging.getLogger(name).level for name in ("kopf", "aiohttp", "kubernetes", "asyncio")}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        json_logging.configure_logging("DEBUG")
        for name in ("kopf.objects", "kubernetes.client.rest", "kubernetes.aio.client.rest", "aiohttp.client"):
            assert not logging.getLogger(name).isEnabledFor(logging.DEBUG), name
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)
        logging.captureWarnings(False)
