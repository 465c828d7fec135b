"""The story the demo tells, one function a step; every step may be run again and finds what it did before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import yaml
from rich.text import Text

from demo import digits as real
from demo import platform
from demo.console import DemoError, Story, gallery
from demo.kubectl import Json, Kubectl, NotReady, conditions, is_ready, is_stalled
from devcluster.cluster import Cluster
from devcluster.progress import Shown
from tests.load import BackgroundLoad, Report, Target
from tests.load.client import v2_body

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "manifests" / "samples"
EXAMPLE = ROOT / "examples" / "digits"
NAMESPACE, MODEL = "vision", "digits"
MODELS, VERSIONS = "models.modelwright.dev", "modelversions.modelwright.dev"
IMAGES = ("operator", "fetch", "mlserver", "trainer")


@dataclass
class Facts:
    """What the demo measured, for its last words and for docs/figures/demo.json."""

    accuracy: dict[str, float] = field(default_factory=dict)
    report: Report | None = None
    change_seconds: float = 0.0


@dataclass
class Demo:
    """One telling. ``rate`` is requests a second during the change of version."""

    STEPS: ClassVar[int] = 9

    story: Story
    rate: float
    facts: Facts = field(default_factory=Facts)
    cluster: Cluster = field(init=False)
    kubectl: Kubectl = field(init=False)
    images: dict[str, str] = field(init=False)
    hard: list[int] = field(default_factory=list)
    """Indices of pictures that the first version asked got wrong; shown each time."""

    def run(self) -> None:
        """The whole story. Raises DemoError at the first thing that isn't as it should be."""
        with self.story.step(
            "cluster",
            "A Kubernetes cluster",
            "Real API server, kubelets, gateway, image registry and S3 store; nothing here is simulated.",
        ):
            with Shown("cluster") as progress:
                self.cluster = platform.bring_up(progress)
            self.kubectl = Kubectl(self.cluster.kubectl, self.cluster.kubeconfig)
            nodes = [node["metadata"]["name"] for node in self.kubectl.items("nodes")]
            self.story.say(f"nodes: {', '.join(nodes)}; kubeconfig: {self.cluster.kubeconfig}")
        with self.story.step(
            "images", "Container images", "Built from this checkout; one whose files did not change is not built again."
        ):
            with Shown("images") as progress:
                self.images = platform.images(self.cluster, IMAGES, progress)
            for name, reference in self.images.items():
                self.story.say(f"{name}: {reference.partition('@')[2][:19]}…")
        with self.story.step(
            "install",
            "Modelwright, installed with Helm",
            "The operator runs in the cluster, with few rights and no webhook.",
        ):
            for command in platform.install(self.cluster, self.images):
                self.story.command(command)
        with self.story.step(
            "train-1",
            "Version 1 is trained",
            "A Job trains on 60 handwritten digits and writes the model to the S3 store.",
        ):
            platform.prepare(self.cluster, self.kubectl, SAMPLES, NAMESPACE)
            trained = self.train(1)
        with self.story.step(
            "serve-1",
            "Version 1 is served",
            "You say what you want; the operator works until it is true, and says what it waits for.",
        ):
            self.serve_first(trained)
        with self.story.step(
            "ask",
            "Real digits, asked through the gateway",
            "Pictures that no version was trained on, by the Open Inference Protocol V2.",
        ):
            self.show_answers()
        with self.story.step(
            "train-2", "Version 2 is trained", "Same code, another method, all 1,257 training pictures."
        ):
            better = self.train(2)
        with self.story.step(
            "serve-2",
            f"Version 2 takes over while {self.rate:g} requests a second come in",
            "Old pods answer until the new ones do. Any error, reset or time-out counts as lost.",
        ):
            self.change_version(better)
        with self.story.step(
            "ask-again", "The same digits again", "Same address, same request: only the answers got better."
        ):
            self.show_answers()
        self.last_words()

    def train(self, number: int) -> Json:
        """Runs the training Job of a version unless it has run; returns its result."""
        job = yaml.safe_load((EXAMPLE / f"train-{number}.yaml").read_text())
        container = job["spec"]["template"]["spec"]["containers"][0]
        container["image"] = self.images["trainer"]
        name = job["metadata"]["name"]
        result = self._training_result(name)
        if result is None:
            # What is left of an earlier try says nothing about this one.
            self.kubectl.delete("jobs.batch", name, NAMESPACE, wait=True)
            self.story.command(f"kubectl apply -f examples/digits/train-{number}.yaml")
            self.kubectl.apply(job)
            self.kubectl.wait(
                "jobs.batch",
                name,
                NAMESPACE,
                lambda obj: "Complete" in conditions(obj),
                "completion",
                timeout=300,
                failed=lambda obj: "Failed" in conditions(obj),
            )
            result = self._training_result(name)
            if result is None:
                raise DemoError(f"Job {name} ended, but its pod's termination message holds no result")
        else:
            self.story.say("this Job has run in this cluster before; its result is still there")
        metrics = ", ".join(f"{metric['name']} {metric['value']}" for metric in result["metrics"])
        self.story.say(f"on pictures held out from training: [bold]{metrics}[/]")
        self.story.say(f"written to {result['artifact']['uri']}, {result['artifact']['digest'][:19]}…")
        return result

    def _training_result(self, job: str) -> Json | None:
        for pod in self.kubectl.items("pods", NAMESPACE, labels=f"batch.kubernetes.io/job-name={job}"):
            for container in pod.get("status", {}).get("containerStatuses", []):
                ended = container["state"].get("terminated", {})
                if ended.get("exitCode") == 0 and ended.get("message"):
                    result: Json = json.loads(ended["message"])
                    return result
        return None

    def serve_first(self, trained: Json) -> None:
        self.story.command("kubectl apply -f manifests/samples/version-1.yaml -f manifests/samples/model.yaml")
        self.kubectl.apply(SAMPLES / "version-1.yaml", SAMPLES / "model.yaml")
        self.story.command(f"kubectl -n {NAMESPACE} wait --for=condition=Ready model/{MODEL}")
        model = self.wait_ready("digits-v1", tell=lambda text: self.story.say(f"[dim]{text}[/]"))
        self._same_digest("digits-v1", trained)
        status = model["status"]
        runtime = status.get("runtime", {})
        self.story.say(f"runtime: {runtime.get('reason', runtime.get('name'))}")
        self.story.say(f"address: [bold]{status['url']}[/]")

    def wait_ready(
        self, version: str, tell: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None
    ) -> Json:
        """Waits until the Model is Ready with this version, telling what it waits for."""
        return self.kubectl.wait(
            MODELS,
            MODEL,
            NAMESPACE,
            lambda obj: is_ready(obj) and obj["status"].get("serving", {}).get("version") == version,
            f"Ready with {version}",
            timeout=300,
            tell=tell,
            failed=is_stalled,
            meanwhile=meanwhile,
        )

    def _same_digest(self, version: str, trained: Json) -> None:
        obj = self.kubectl.get(VERSIONS, version, NAMESPACE) or {}
        pinned = obj.get("status", {}).get("artifact", {}).get("digest")
        if pinned != trained["artifact"]["digest"]:
            raise DemoError(
                f"ModelVersion {version} pinned {pinned}, but the training Job wrote {trained['artifact']['digest']}"
            )
        self.story.say(f"what is served is what was trained: digest {pinned[:19]}… is pinned in {version}")

    def client(self) -> real.V2Client:
        model = self.kubectl.get(MODELS, MODEL, NAMESPACE)
        if model is None or "url" not in model.get("status", {}):
            raise NotReady(f"Model {MODEL} has no address yet")
        return real.V2Client(MODEL, model["status"]["url"], platform.gateway(self.cluster))

    def show_answers(self) -> None:
        """Draws eight digits beside what the model says, then asks about all that were held out."""
        digits, client = real.holdout(), self.client()
        all_answers = client.predict(digits.pictures)
        wrong = [i for i, (a, b) in enumerate(zip(all_answers.predictions, digits.labels, strict=True)) if a != b]
        # Half of the pictures are some that the first version missed: in them the versions differ.
        easy = digits.first_of_each(4)
        self.hard = self.hard or [index for index in wrong if index not in easy][:4]
        shown = sorted([*easy, *self.hard])
        captions = []
        answers = client.predict([digits.pictures[i] for i in shown])
        for index, prediction in zip(shown, answers.predictions, strict=True):
            right = prediction == digits.labels[index]
            text = f"says {prediction}" if right else f"says {prediction}, is {digits.labels[index]}"
            captions.append(Text(text, style="bold green" if right else "bold red"))
        self.story.say(f"[magenta]POST {client.infer_url}[/]")
        self.story.show(gallery([digits.pictures[i] for i in shown], captions, colour=self.story.live))
        version = answers.version or "(unknown version)"
        share = real.accuracy(all_answers.predictions, digits.labels)
        self.facts.accuracy[version] = share
        right_count = len(digits.labels) - len(wrong)
        self.story.say(
            f"{version} got {right_count} of all {len(digits.labels)} pictures held out right ([bold]{share:.2%}[/])"
        )

    def change_version(self, trained: Json) -> None:
        client = self.client()
        target = Target(client.infer_url, v2_body([real.holdout().pictures[0]], name="predict"), client.address)
        change = {"spec": {"version": {"name": "digits-v2"}}}
        self.story.command("kubectl apply -f manifests/samples/version-2.yaml")
        self.story.command(f"kubectl -n {NAMESPACE} patch model {MODEL} --type merge -p '{json.dumps(change)}'")
        with self.story.counting() as counts, BackgroundLoad(target, rate=self.rate, fresh_share=0.2) as load:
            said = ["version 1 serves"]

            def show() -> None:
                report = load.report
                counts.update(load.elapsed(), dict(report.versions), load.recent(), len(report.lost), said[-1])

            def show_for(seconds: float) -> None:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    show()
                    time.sleep(0.25)

            show_for(3)
            begin = time.monotonic()
            self.kubectl.apply(SAMPLES / "version-2.yaml")
            self.kubectl.patch(MODELS, MODEL, NAMESPACE, change)
            self.wait_ready("digits-v2", tell=said.append, meanwhile=show)
            self.facts.change_seconds = time.monotonic() - begin
            show_for(5)
        self._same_digest("digits-v2", trained)
        report = self.facts.report = load.report
        for line in report.lines():
            self.story.say(line)
        if report.lost:
            lost = f"{len(report.lost)} of {report.total} requests"
            raise DemoError(f"{lost} were lost in the change of version; none may be")
        if not report.versions["digits-v2"]:
            raise DemoError("no request was answered by digits-v2, though the Model says it serves")

    def last_words(self) -> None:
        kubectl = f"{self.cluster.kubectl} --kubeconfig {self.cluster.kubeconfig}"
        client = self.client()
        host, port = client.address
        self.story.show("")
        self.story.show("[bold]What is running now[/]")
        self.story.say(
            "the cluster, the operator in namespace modelwright-system, and Model digits (2 pods) in namespace vision"
        )
        self.story.show("[bold]Look at it[/]")
        self.story.command(f"export KUBECONFIG={self.cluster.kubeconfig}")
        self.story.command("kubectl -n vision get models,modelversions,pods,httproutes")
        self.story.command("kubectl -n vision describe model digits")
        self.story.command("kubectl -n modelwright-system logs deploy/modelwright")
        self.story.command(f"curl -H 'Host: {client.url.split('//')[1]}' http://{host}:{port}/v2/models/digits")
        self.story.say(f"[dim](kubectl, if you have none: {kubectl.split()[0]})[/]")
        self.story.show("[bold]Take it down[/]")
        ours = self.cluster.name == "dev"
        self.story.command("make cluster-down" if ours else f"python -m devcluster down --name {self.cluster.name}")
