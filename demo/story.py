"""The steps of the demo, one function each. Every step may be repeated, and finds what it did before."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import yaml
from rich.table import Table
from rich.text import Text

from demo import digits as real
from demo import platform
from demo.console import DemoError, Story, draw_gallery
from demo.kubectl import Json, Kubectl, TimedOut, conditions, is_ready, is_stalled
from demo.rollouts import RolloutView, failed_verdicts, find_rollout
from demo.tally import AnswerCounts, Phase, count_answers
from devcluster.cluster import Cluster
from devcluster.load import BackgroundLoad, Report, Target
from devcluster.load.client import v2_body
from devcluster.progress import LiveProgress

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "manifests" / "samples"
EXAMPLE = ROOT / "examples" / "digits"
NAMESPACE, MODEL = "vision", "digits"
MODELS, VERSIONS = "models.modelwright.dev", "modelversions.modelwright.dev"
ROLLOUTS = "modelrollouts.modelwright.dev"
RETRAINING, RUNS = "retrainingpolicies.modelwright.dev", "trainingruns.modelwright.dev"
ROLLOUT_SECONDS = 280
SETTLED_SECONDS = 4
IMAGES = ("operator", "fetch", "mlserver", "trainer", "datacheck")


@dataclass(frozen=True)
class Chapter:
    """The rollout of one version: how it is requested, and the expected outcome."""

    number: int
    policy: str
    outcome: str
    metric: str = ""
    """The metric that must decide against the version."""
    slow: float | None = None
    """Seconds from which a response counts as slow in the policy."""

    @property
    def version(self) -> str:
        return f"digits-v{self.number}"

    @property
    def mirrored(self) -> bool:
        """Whether it starts as a shadow, so that a bad version never reaches a caller."""
        return self.policy.startswith("shadow")

    @property
    def file(self) -> Path:
        folder = SAMPLES if self.number <= 2 else EXAMPLE
        return folder / f"version-{self.number}.yaml"


BETTER = Chapter(2, "shadow-then-canary", "Succeeded")
FAILING = Chapter(3, "canary", "RolledBack", "errors")
SLOW = Chapter(4, "canary", "RolledBack", "slow-answers", slow=0.1)
WRONG = Chapter(5, "shadow-then-canary", "RolledBack", "same-answer")


@dataclass
class ChapterOutcome:
    """The outcome of a chapter. ``decided`` is the load's second in which the decision was first observed."""

    chapter: Chapter
    phase: Phase
    rollout: Json
    tally: AnswerCounts
    decided: float | None = None

    @property
    def seconds(self) -> float:
        return self.phase.end - self.phase.begin

    @property
    def switch_seconds(self) -> float | None:
        """Seconds from the decision to the candidate's last response; None when no decision was observed."""
        if self.decided is None or self.tally.last is None:
            return None
        return max(0.0, self.tally.last - self.decided)


@dataclass
class DemoFacts:
    """Measurements of the demo, for its summary and for docs/figures/demo.json."""

    accuracy: dict[str, float] = field(default_factory=dict)
    outcomes: list[ChapterOutcome] = field(default_factory=list)
    report: Report | None = None


@dataclass
class Demo:
    """One run of the demo. ``rate`` is requests per second during the rollouts."""

    STEPS: ClassVar[int] = 11

    story: Story
    rate: float
    facts: DemoFacts = field(default_factory=DemoFacts)
    cluster: Cluster = field(init=False)
    kubectl: Kubectl = field(init=False)
    images: dict[str, str] = field(init=False)
    hard: list[int] = field(default_factory=list)
    """Indices of images that the first version got wrong; shown each time."""

    def run(self) -> None:
        """Run the rollouts of the five versions. Raises DemoError at the first failure."""
        with self.story.step(
            "cluster",
            "A Kubernetes cluster",
            "Real API server, kubelets, gateway, image registry, S3 store, Prometheus: no simulation.",
        ):
            with LiveProgress("cluster") as progress:
                self.cluster = platform.bring_up(progress, IMAGES)
            self.kubectl = Kubectl(self.cluster.kubectl, self.cluster.kubeconfig)
            if not self.cluster.prometheus_url:
                raise DemoError("this cluster has no Prometheus to measure rollouts by: set MODELWRIGHT_PROMETHEUS")
            nodes = [node["metadata"]["name"] for node in self.kubectl.items("nodes")]
            self.story.say(f"nodes: {', '.join(nodes)}; kubeconfig: {self.cluster.kubeconfig}")
        with self.story.step("images", "Container images", "Built from this checkout; unchanged ones are reused."):
            with LiveProgress("images") as progress:
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
            "train",
            "Five versions are trained",
            "Jobs train on handwritten digits and write to the S3 store. Three models are bad, for real reasons.",
        ):
            self.remove_earlier_run()
            platform.prepare(self.cluster, self.kubectl, SAMPLES, NAMESPACE)
            trained = self.train(1, 2, 3, 4, 5)
        with self.story.step(
            "serve-1",
            "Version 1 is served",
            "You declare the desired state; the operator reconciles it, and reports what it is waiting for.",
        ):
            self.serve_first(trained[1])
        with self.story.step(
            "ask",
            "Predictions for real digits, through the gateway",
            "Images that no version was trained on, by the Open Inference Protocol V2.",
        ):
            self.show_answers()
        with self.load() as load:
            with self.story.step(
                "rollout-2",
                "Version 2 is better: a shadow first, then 10, 50 and 100 % of the callers",
                f"{self.rate:g} requests a second come in from now on; each answer is counted by version.",
            ):
                self.roll_out(load, BETTER)
                self._same_digest("digits-v2", trained[2])
            with self.story.step(
                "rollout-3",
                "Version 3 raises an error for some images",
                "Otherwise it is right. It starts with 10 % of the callers, and is rolled back automatically.",
            ):
                self.roll_out(load, FAILING)
            with self.story.step(
                "rollout-4",
                "Version 4 is slow",
                "600 classifiers vote on each image: no error, good responses, too late.",
            ):
                self.roll_out(load, SLOW)
            with self.story.step(
                "rollout-5",
                "Version 5 is fast, well-formed and always wrong",
                "Its accuracy is 99 %, and no counter shows a problem. As a shadow, its responses are compared.",
            ):
                self.roll_out(load, WRONG)
        with self.story.step("ask-again", "The same digits again", "Same address, same request, better predictions."):
            self.request_serving_version()
            self.show_answers()

    def remove_earlier_run(self) -> None:
        """Remove the Model, rollouts and runs of an earlier demo: a version that was judged once is not judged
        again, and an automatically trained one would be followed at once."""
        if self.kubectl.get("crd", MODELS) is None or self.kubectl.get(MODELS, MODEL, NAMESPACE) is None:
            return
        self.story.say("the Model of an earlier demo is removed, so that the demo starts from the beginning")
        self.kubectl.delete(RETRAINING, MODEL, NAMESPACE, wait=True)
        self.kubectl.delete(MODELS, MODEL, NAMESPACE, wait=True)
        self.kubectl.run("delete", f"{ROLLOUTS},{RUNS}", "-n", NAMESPACE, "--all")
        for version in self.kubectl.items(VERSIONS, NAMESPACE):
            if version["spec"].get("lineage", {}).get("trainingRun"):
                self.kubectl.delete(VERSIONS, version["metadata"]["name"], NAMESPACE)

    def train(self, *numbers: int) -> dict[int, Json]:
        """Run the training Jobs of these versions in parallel, unless they have run; return the result of each."""
        results: dict[int, Json] = {}
        for number in numbers:
            name, job = self._training_job(number)
            result = self._training_result(name)
            if result is None:
                # Remains of an earlier attempt must not affect this one.
                self.kubectl.delete("jobs.batch", name, NAMESPACE, wait=True)
                self.story.command(f"kubectl apply -f examples/digits/train-{number}.yaml")
                self.kubectl.apply(job)
            else:
                results[number] = result
        if results:
            self.story.say("Jobs that have run in this cluster before are not run again; their results are still there")
        for number in numbers:
            name, _ = self._training_job(number)
            if number not in results:
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
                results[number] = result
            artifact, metrics = results[number]["artifact"], results[number]["metrics"]
            scores = ", ".join(f"{metric['name']} {metric['value']}" for metric in metrics)
            where = f"{artifact['uri']}, {artifact['digest'][:19]}…"
            self.story.say(f"version {number}, on held-out images: [bold]{scores}[/]; {where}")
        return results

    def _training_job(self, number: int) -> tuple[str, Json]:
        job: Json = yaml.safe_load((EXAMPLE / f"train-{number}.yaml").read_text())
        job["spec"]["template"]["spec"]["containers"][0]["image"] = self.images["trainer"]
        return job["metadata"]["name"], job

    def _training_result(self, job: str) -> Json | None:
        for pod in self.kubectl.items("pods", NAMESPACE, labels=f"batch.kubernetes.io/job-name={job}"):
            for container in pod.get("status", {}).get("containerStatuses", []):
                ended = container["state"].get("terminated", {})
                if ended.get("exitCode") == 0 and ended.get("message"):
                    result: Json = json.loads(ended["message"])
                    return result
        return None

    def serve_first(self, trained: Json) -> None:
        self.story.command(
            "kubectl apply -f examples/digits/policies.yaml"
            " -f manifests/samples/version-1.yaml -f manifests/samples/model.yaml"
        )
        self.kubectl.apply(EXAMPLE / "policies.yaml", SAMPLES / "version-1.yaml", SAMPLES / "model.yaml")
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
        """Wait until the Model is Ready with this version, passing the current condition to ``tell``."""
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
        self.story.say(f"the trained artifact is served: digest {pinned[:19]}… is pinned in {version}")

    def client(self) -> real.V2Client:
        model = self.kubectl.get(MODELS, MODEL, NAMESPACE)
        if model is None or "url" not in model.get("status", {}):
            raise TimedOut(f"Model {MODEL} has no address yet")
        return real.V2Client(MODEL, model["status"]["url"], platform.gateway(self.cluster))

    def show_answers(self) -> None:
        """Draw eight digits beside the model's predictions, then request predictions for all held-out images."""
        digits, client = real.load_holdout(), self.client()
        all_answers = client.predict(digits.pictures)
        wrong = [i for i, (a, b) in enumerate(zip(all_answers.predictions, digits.labels, strict=True)) if a != b]
        # The first version missed half of the images, so the versions differ in them.
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
        self.story.show(draw_gallery([digits.pictures[i] for i in shown], captions, colour=self.story.live))
        version = answers.version or "(unknown version)"
        share = real.accuracy(all_answers.predictions, digits.labels)
        self.facts.accuracy[version] = share
        right_count = len(digits.labels) - len(wrong)
        self.story.say(
            f"{version} got {right_count} of all {len(digits.labels)}held-out images right ([bold]{share:.2%}[/])"
        )

    @contextmanager
    def load(self) -> Iterator[BackgroundLoad]:
        """Run a constant load of real digits. At its end everything is counted again, including the requests that
        were in flight."""
        client, pictures = self.client(), real.load_holdout().pictures
        bodies = [v2_body([picture], name="predict") for picture in pictures]
        target = Target(client.infer_url, bodies[0], client.address)
        load = BackgroundLoad(target, rate=self.rate, fresh_share=0.2, bodies=bodies)
        try:
            with load:
                self.facts.report = load.report
                yield load
        except DemoError:
            for line in load.report.lines():
                self.story.say(line)
            raise
        for outcome in self.facts.outcomes:
            outcome.tally = count_answers(load.report, outcome.phase)
            self._check_losses(outcome)

    def roll_out(self, load: BackgroundLoad, chapter: Chapter) -> None:
        """Request a version and watch its rollout to the end. Raises DemoError unless it ends as expected."""
        where = str(chapter.file.relative_to(ROOT))
        change = {"spec": {"version": {"name": chapter.version}, "rolloutPolicyRef": {"name": chapter.policy}}}
        self.story.command(f"kubectl apply -f {where}")
        self.story.command(f"kubectl -n {NAMESPACE} patch model {MODEL} --type merge -p '{json.dumps(change)}'")
        before = frozenset(each["metadata"]["name"] for each in self.kubectl.items(ROLLOUTS, NAMESPACE))
        begin, decided = load.elapsed(), None
        self.kubectl.apply(chapter.file)
        self.kubectl.patch(MODELS, MODEL, NAMESPACE, change)
        with self.story.watching() as watch:

            def show(view: RolloutView | None) -> None:
                counts = count_answers(load.report, Phase(chapter.version, begin, math.inf, chapter.slow))
                bad = f"errors by the model: {len(counts.errors)}, lost: {len(counts.lost)}"
                watch.update(load.elapsed(), view, counts.versions, load.recent(), bad)

            def show_for(seconds: float, view: RolloutView | None) -> None:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    show(view)
                    time.sleep(0.25)

            while True:
                rollout = find_rollout(self.kubectl.items(ROLLOUTS, NAMESPACE), MODEL, chapter.version, before)
                view = RolloutView.of(rollout) if rollout else None
                if view and view.state in ("RollingBack", "RolledBack") and decided is None:
                    decided = load.elapsed()
                if rollout and view and view.ended:
                    break
                if load.elapsed() - begin > ROLLOUT_SECONDS:
                    raise TimedOut(
                        f"the rollout of {chapter.version} did not end in time\n{self._explain_rollout(rollout)}"
                    )
                show_for(0.75, view)
            # Responses shortly after the end belong to the rollout too.
            show_for(SETTLED_SECONDS, view)
            phase = Phase(chapter.version, begin, load.elapsed(), chapter.slow)
        outcome = ChapterOutcome(chapter, phase, rollout, count_answers(load.report, phase), decided)
        self.facts.outcomes.append(outcome)
        failed = {verdict.metric for verdict in failed_verdicts(rollout)}
        if view.state != chapter.outcome or (chapter.metric and chapter.metric not in failed):
            wanted = f"{chapter.outcome}{f' by {chapter.metric}' if chapter.metric else ''}"
            raise DemoError(
                f"{chapter.version} should be {wanted}, but is {view.state}\n{self._explain_rollout(rollout)}"
            )
        self._print_outcome(outcome)

    def _explain_rollout(self, rollout: Json | None) -> str:
        """Explain a rollout: its message and verdicts, and the Model's conditions, pods and events."""
        lines = []
        if rollout:
            view = RolloutView.of(rollout)
            lines = [f"{view.headline()}: {view.message}"]
            lines += [f"  {each.metric}: {each.outcome}: {each.message}" for each in view.verdicts]
        model = self.kubectl.get(MODELS, MODEL, NAMESPACE)
        return "\n".join([*lines, self.kubectl.explain(model) if model else "There is no Model."])

    def _print_outcome(self, outcome: ChapterOutcome) -> None:
        counts, version = outcome.tally, outcome.chapter.version
        for verdict in failed_verdicts(outcome.rollout)[:2]:
            self.story.say(f"[bold]{verdict.metric}[/]: {verdict.message}")
        if outcome.chapter.outcome == "Succeeded":
            self.story.say(f"[bold green]{version} serves all callers[/], on evidence")
        else:
            self.story.say(
                f"[bold green]{version} was rolled back automatically[/]: {RolloutView.of(outcome.rollout).reason}"
            )
        answered = ", ".join(f"{name} {count}" for name, count in sorted(counts.versions.items()))
        self.story.say(f"answers: {answered}; errors by the model: {len(counts.errors)}; lost: {len(counts.lost)}")
        if outcome.chapter.outcome == "RolledBack" and (seconds := counts.rollback_seconds) is not None:
            switched = f", {outcome.switch_seconds:.1f} s of it after the decision" if outcome.switch_seconds else ""
            self.story.say(f"from the first bad answer to 0 % of the callers: [bold]{seconds:.1f} s[/]{switched}")
        if outcome.chapter is WRONG:
            self.story.say(f"responses of {version} to callers: [bold]{counts.versions[version]}[/]")
        self._check_losses(outcome)

    def _check_losses(self, outcome: ChapterOutcome) -> None:
        """Raise DemoError when callers received a response that they must not receive."""
        counts, chapter = outcome.tally, outcome.chapter
        if counts.lost:
            lines = "\n".join(f"  {lost}" for lost in counts.lost[:10])
            problem = (
                f"{len(counts.lost)} of {counts.requests} requests were lost while {chapter.version} was rolled out"
            )
            raise DemoError(f"{problem}; none may be\n{lines}")
        if chapter.outcome == "RolledBack" and counts.last and counts.last > outcome.phase.end - SETTLED_SECONDS / 2:
            raise DemoError(f"{chapter.version} still answers callers after it was rolled back")
        if chapter is not FAILING and counts.errors:
            raise DemoError(f"{len(counts.errors)} errors while {chapter.version} was rolled out: {counts.errors[0]}")
        if chapter is WRONG and counts.versions[chapter.version]:
            raise DemoError(f"{counts.versions[chapter.version]} callers received responses of {chapter.version}")
        if chapter is not WRONG and not counts.last:
            raise DemoError(f"{chapter.version} served no request, though it had a share of the callers")

    def request_serving_version(self) -> None:
        """Withdraw the request for a refused version: target the serving one again."""
        change = {"spec": {"version": {"name": "digits-v2"}}}
        self.story.command(f"kubectl -n {NAMESPACE} patch model {MODEL} --type merge -p '{json.dumps(change)}'")
        self.kubectl.patch(MODELS, MODEL, NAMESPACE, change)
        self.wait_ready("digits-v2", tell=lambda _: None)

    def print_summary(self) -> None:
        kubectl = f"{self.cluster.kubectl} --kubeconfig {self.cluster.kubeconfig}"
        client = self.client()
        host, port = client.address
        self.story.show("")
        self.story.show("[bold]Outcome of the versions[/]")
        self.story.show(summary_table(self.facts.outcomes))
        self.story.command(f"kubectl -n {NAMESPACE} get modelrollouts")
        for line in self.kubectl.run("get", ROLLOUTS, "-n", NAMESPACE).splitlines():
            self.story.show(Text(f"    {line}"))
        self.story.show("")
        self.story.show("[bold]What is running now[/]")
        self.story.say(
            "the cluster, the operator in namespace modelwright-system, and Model digits (2 pods) in namespace vision"
        )
        self.story.show("[bold]Inspect it[/]")
        self.story.command(f"export KUBECONFIG={self.cluster.kubeconfig}")
        self.story.command("kubectl -n vision get models,modelversions,modelrollouts,trainingruns,pods,httproutes")
        self.story.command("kubectl -n vision describe modelrollouts   # every step, with the evidence that decided it")
        self.story.command("kubectl -n modelwright-system logs deploy/modelwright")
        self.story.command(f"curl -H 'Host: {client.url.split('//')[1]}' http://{host}:{port}/v2/models/digits")
        self.story.say(f"[dim](kubectl, if you have none: {kubectl.split()[0]})[/]")
        self.story.show("[bold]Take it down[/]")
        ours = self.cluster.name == "dev"
        self.story.command("make cluster-down" if ours else f"python -m devcluster down --name {self.cluster.name}")


def summary_table(outcomes: Sequence[ChapterOutcome]) -> Table:
    """Build the summary table: outcome of each version, and its cost for the callers. The last column is the time
    from the first bad response to 0 % of the callers."""
    table = Table(box=None, padding=(0, 1, 0, 2))
    for column in ("version", "ended as", "after", "answered", "errors", "lost", "bad to 0 %"):
        table.add_column(column, justify="left" if column in ("version", "ended as") else "right", no_wrap=True)
    for outcome in outcomes:
        counts = outcome.tally
        seconds = counts.rollback_seconds if outcome.chapter.outcome == "RolledBack" else None
        table.add_row(
            outcome.chapter.version,
            outcome.chapter.outcome,
            f"{outcome.seconds:.0f} s",
            str(counts.versions[outcome.chapter.version]),
            str(len(counts.errors)),
            str(len(counts.lost)),
            f"{seconds:.1f} s" if seconds is not None else "–",
        )
    return table
