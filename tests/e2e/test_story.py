"""The story of the demo, as a test: trained in the cluster, served by MLServer, rolled out and stopped under load."""

import http.client
import io
import time

import pytest
from rich.console import Console

from demo import platform
from demo.console import Story
from demo.kubectl import conditions
from demo.loop import Loop
from demo.story import BETTER, MODEL, MODELS, NAMESPACE, SAMPLES, WRONG, Demo
from tests.e2e.lib.space import ModelwrightCluster


@pytest.fixture
def demo(world: ModelwrightCluster):
    out = io.StringIO()
    demo = Demo(Story(Demo.STEPS, Console(file=out, width=120)), rate=30)
    demo.cluster, demo.kubectl, demo.images = world.cluster, world.kubectl, world.images
    platform.prepare(demo.cluster, demo.kubectl, SAMPLES, NAMESPACE)
    yield demo
    print(out.getvalue())


def ask_twice_on_one_connection(demo: Demo, seconds: float) -> None:
    """To a pod itself, with a pause of so many seconds between."""
    if demo.cluster.backend != "embedded":
        return
    pod = demo.kubectl.items("pods", NAMESPACE, f"modelwright.dev/model={MODEL}")[0]
    connection = http.client.HTTPConnection(pod["status"]["podIP"], 8080, timeout=10)
    for pause in (seconds, 0.0):
        connection.request("GET", f"/v2/models/{MODEL}/ready")
        assert connection.getresponse().read() is not None
        time.sleep(pause)
    connection.close()


@pytest.mark.timeout(600)
def test_the_demo_tells_the_truth(demo: Demo):
    demo.remove_earlier_run()
    results = demo.train(1, 2, 5)
    demo.serve_first(results[1])
    demo.show_answers()
    # A server that closes it meanwhile, as Uvicorn by itself does after 5 s, loses requests behind a gateway.
    ask_twice_on_one_connection(demo, 6)
    with demo.load() as load:
        demo.roll_out(load, BETTER)
        demo.roll_out(load, WRONG)
    demo.request_serving_version()
    demo.show_answers()

    def accuracy(result: dict) -> float:
        return float(next(metric["value"] for metric in result["metrics"] if metric["name"] == "accuracy"))

    # What the served model gets right through the gateway is what its training measured, to the picture.
    assert demo.facts.accuracy == pytest.approx(
        {"digits-v1": accuracy(results[1]), "digits-v2": accuracy(results[2])}, abs=0.00005
    )
    assert demo.facts.report is not None
    assert demo.facts.report.lost == []
    assert set(demo.facts.report.versions) == {"digits-v1", "digits-v2"}
    assert [outcome.rollout["status"]["state"] for outcome in demo.facts.outcomes] == ["Succeeded", "RolledBack"]

    model = demo.kubectl.get(MODELS, MODEL, NAMESPACE)
    assert model is not None
    status = model["status"]
    assert status["serving"]["version"] == status["target"]["version"] == "digits-v2"
    assert [(entry["version"], entry["weight"]) for entry in status["traffic"]] == [("digits-v2", 100)]
    assert {name: found["status"] for name, found in conditions(model).items()} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Available": "True",
        "EvidenceAsked": "True",
    }
    assert "mlserver" in status["runtime"]["reason"]


@pytest.mark.timeout(900)
def test_drift_leads_to_a_better_model_and_damaged_data_to_none(demo: Demo):
    """Goes on where the story above has ended: version 2 serves."""
    loop = Loop(demo)
    loop.run()
    facts = loop.facts
    assert facts.lost == 0
    assert facts.quiet is not None
    assert facts.quiet < 1, "what callers always sent is no drift"
    assert facts.before is not None
    assert facts.after is not None
    assert facts.after > facts.before + 0.1
    assert facts.stages == ("dataCheck",), "nothing was trained on damaged data"


def test_applying_the_samples_again_changes_nothing(demo: Demo):
    demo.remove_earlier_run()
    demo.serve_first(demo.train(1)[1])
    before = demo.kubectl.get(MODELS, MODEL, NAMESPACE)
    for _ in range(3):
        demo.kubectl.apply(SAMPLES / "version-1.yaml", SAMPLES / "model.yaml")
    after = demo.kubectl.get(MODELS, MODEL, NAMESPACE)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
