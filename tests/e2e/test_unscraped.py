"""How many pods enter a step before their first scrape, at scrape intervals of 15, 30 and 60 s: a measurement.

What such a pod has counted until then is not known, unless its process started in the step. Run it with
MODELWRIGHT_FIGURES=1; a second Prometheus beside the cluster's own scrapes the same pods three times.
"""

from __future__ import annotations

import asyncio
import copy
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from demo import figures
from demo.kubectl import Json
from devcluster import addons, parts, ports
from tests.e2e.lib.rollouts import ENDED, ERRORS, Story, seconds
from tests.e2e.lib.space import Space, eventually
from tests.lib.prometheus import answers, process

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("MODELWRIGHT_FIGURES"), reason="measures; asserts nothing of its own"),
]

INTERVALS = (15, 30, 60)
MODELS, ROLLOUTS, REPLICAS = 2, 6, 4
STEPS = [{"weight": 10, "hold": "30s"}, {"weight": 50, "hold": "30s"}, {"weight": 100}]
COMMAND = "MODELWRIGHT_FIGURES=1 python -m pytest tests/e2e/test_unscraped.py"


@pytest.fixture
def scraper(space: Space, tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus with a job for each interval."""
    if space.world.cluster.backend != "embedded":
        pytest.skip("its Prometheus runs on this machine, which reaches pods of the embedded cluster only")
    config = yaml.safe_load(addons.prometheus_config("127.0.0.1:9", space.world.cluster.kubeconfig))
    pods = next(job for job in config["scrape_configs"] if job["job_name"] == "pods")
    config["scrape_configs"] = [
        copy.deepcopy(pods) | {"job_name": str(interval), "scrape_interval": f"{interval}s"} for interval in INTERVALS
    ]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    parts.build(["prometheus"])
    listen = f"127.0.0.1:{ports.free_ports(1)[0]}"
    command = [str(parts.binary_path("prometheus")), *addons.prometheus_flags(listen, file, tmp_path / "data")]
    with process(command, tmp_path / "prometheus.log"):
        asyncio.run(answers(f"http://{listen}/-/ready"))
        yield f"http://{listen}"


def entered(record: Json, pods: list[Json]) -> dict[str, float]:
    """When each pod entered its first step, unix seconds: the first one that was confirmed after it was ready."""
    begun = sorted(seconds(step["confirmedAt"]) for step in record["status"]["steps"] if "confirmedAt" in step)
    found = {}
    for pod in pods:
        ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "True")
        later = [moment for moment in begun if moment >= seconds(ready["lastTransitionTime"])]
        if later:
            found[pod["metadata"]["name"]] = later[0]
    return found


def first_scrape(scraper: str, interval: int, pod: str) -> float:
    """When the first scrape of a pod that went well began, unix seconds, to a second."""
    query = f'min_over_time(timestamp(up{{job="{interval}",pod="{pod}"}} == 1)[1h:1s])'

    def asked() -> list[Json]:
        answer = httpx.post(f"{scraper}/api/v1/query", data={"query": query}, timeout=30)
        found: list[Json] = answer.json()["data"]["result"]
        return found

    result = eventually(asked, f"{pod} is scraped each {interval} s", timeout=2 * interval)
    return float(result[0]["value"][1])


def play(story: Story) -> dict[str, float]:
    """Rollouts one after another, under load."""
    behaviours: list[Json] = [{} for _ in range(ROLLOUTS)]
    story.prepare({"steps": STEPS}, *behaviours, metrics=[ERRORS], serving={"replicas": REPLICAS}, deadline="10m")
    found: dict[str, float] = {}
    with story.load(20):
        for number in range(2, ROLLOUTS + 2):
            story.wants(number)
            record = story.until(number, *ENDED, timeout=600)
            assert record["status"]["state"] == "Succeeded", record["status"]
            found |= entered(record, story.space.pods(story.name, story.version(number)))
            story.ready(number)
    return found


def test_pods_that_enter_a_step_before_their_first_scrape(space: Space, scraper: str) -> None:
    stories = [Story(space, f"scraped-{number}") for number in range(MODELS)]
    with ThreadPoolExecutor(MODELS) as pool:
        pods = {pod: at for one in pool.map(play, stories) for pod, at in one.items()}
    assert pods
    measured = []
    for interval in INTERVALS:
        late = sorted(first_scrape(scraper, interval, pod) - at for pod, at in pods.items())
        waited = [value for value in late if value > 0]
        what = f"scraped each {interval} s"
        measured += [
            figures.build_figure(
                f"{what}: pods that entered a step before their first scrape, of {len(late)}",
                round(len(waited) / len(late), 3),
                "share",
            ),
            figures.build_figure(
                f"{what}: from the step's begin to their first scrape, median",
                round(statistics.median(waited), 1) if waited else 0.0,
                "s",
            ),
            figures.build_figure(f"{what}: ... longest", round(max(waited, default=0.0), 1), "s"),
        ]
    figures.write(figures.ROOT / "docs" / "figures" / "unscraped.json", COMMAND, measured)
    for one in measured:
        print(f"{one['name']}: {one['value']:g} {one['unit']}")
