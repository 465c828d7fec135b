"""The second half of the demo: callers' data shifts and retraining closes the loop; then damaged data is stopped.

Each step may be repeated, like those of the first half.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import httpx
import yaml

from demo import digits as real
from demo import platform
from demo.console import DemoError, LiveTable
from demo.graded import GradedLoad, Grades, build_requests
from demo.kubectl import Json, TimedOut
from demo.rollouts import RolloutView, find_rollout
from demo.runs import RunView, failed_checks, newest_run
from demo.story import (
    EXAMPLE,
    MODEL,
    MODELS,
    NAMESPACE,
    RETRAINING,
    ROLLOUTS,
    ROOT,
    RUNS,
    SETTLED_SECONDS,
    VERSIONS,
    Demo,
)
from devcluster.load import Report
from examples.digits import shift

POLICY = "digits"
FILE = EXAMPLE / "retraining-policy.yaml"
ROLLOUT_POLICY = "canary"
# The same images recur, which chance does not explain; drift is a larger change than this causes.
MONITORING = {"mirrorPercent": 50, "window": "1m", "longWindow": "0s", "minSamples": 200, "numbers": {"floor": "0.15"}}
FIGURE_SECONDS = 180
LOOP_SECONDS = 600
REFUSED_SECONDS = 240
AFTER_SECONDS = 15
POLL_SECONDS = 1.0
RIGHT_SECONDS = 5.0


@dataclass
class LoopFacts:
    """Measurements of the loop. Seconds count from the first shifted request; shares of right responses are from 0
    to 1."""

    quiet: float | None = None
    """The drift figure for unshifted requests; the limit is 1."""
    drift_seconds: float | None = None
    run_seconds: float | None = None
    registered_seconds: float | None = None
    served_seconds: float | None = None
    version: str = ""
    usual: float | None = None
    before: float | None = None
    after: float | None = None
    checks: tuple[str, ...] = ()
    """Names of the checks that stopped the damaged data."""
    stages: tuple[str, ...] = ()
    """Stages that the run on damaged data started."""
    reports: list[Report] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(report.total for report in self.reports)

    @property
    def lost(self) -> int:
        return sum(len(report.lost) for report in self.reports)


@dataclass(frozen=True)
class ExistingNames:
    """Names of objects that existed before the drift."""

    runs: frozenset[str]
    rollouts: frozenset[str]


@dataclass
class Screen:
    """The live output during the load: the run or rollout, the drift, and the share of right responses."""

    watch: LiveTable
    load: GradedLoad
    view: RunView | RolloutView | None = None
    figure: float | None = None

    def show_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            drift = "unknown" if self.figure is None else f"{self.figure:.1f}"
            right = _format_share(self.load.grades.share(since=time.monotonic() - RIGHT_SECONDS))
            bad = f"drift: {drift}, limit 1; last {RIGHT_SECONDS:g} s: {right}; lost: {len(self.load.report.lost)}"
            self.watch.update(self.load.elapsed(), self.view, self.load.report.versions, self.load.recent(), bad)
            time.sleep(0.25)


@dataclass
class Loop:
    """Continues with what the first half has set up: digits-v2 serves."""

    STEPS: ClassVar[int] = 3

    demo: Demo
    facts: LoopFacts = field(default_factory=LoopFacts)

    def run(self) -> None:
        """Run all steps. Raises DemoError at the first failure."""
        story = self.demo.story
        with story.step(
            "watch",
            "The requests are monitored",
            "A drift monitor gets copies of the requests, and compares them with a sample of the training data.",
        ):
            self.watch()
        with story.step(
            "drift",
            "The data drifts: digits are dark on light, or blurred",
            "The operator detects the drift, trains on new data, and rolls out the better model.",
        ):
            self.close()
        with story.step(
            "damaged",
            "Damaged data is uploaded, and a run on it is requested",
            "Before training, the data is checked against its schema and the previous dataset.",
        ):
            self.refuse()

    def watch(self) -> None:
        """Apply the policy, turn on following and monitoring, and wait for a first drift figure of unshifted
        requests."""
        version = self._model()["status"]["serving"]["version"]
        if not (self.demo.kubectl.get(VERSIONS, version, NAMESPACE) or {}).get("spec", {}).get("reference"):
            raise DemoError(
                f"ModelVersion {version} has no spec.reference to measure drift against: delete it and start again"
            )
        self.upload("shifted", "labelled digits in three ways")
        self._command(f"kubectl apply -f {FILE.relative_to(ROOT)}")
        self.demo.kubectl.apply(load_policy(self.demo.images))
        change: Json = {"version": {"name": None, "follow": {}}, "monitoring": MONITORING}
        change["rolloutPolicyRef"] = {"name": ROLLOUT_POLICY}
        self._command(f"kubectl -n {NAMESPACE} patch model {MODEL} --type merge -p '{json.dumps({'spec': change})}'")
        self.demo.kubectl.patch(MODELS, MODEL, NAMESPACE, {"spec": change})
        self.demo.wait_ready(version, tell=lambda text: self.demo.story.say(f"[dim]{text}[/]"))
        with self.load(["plain"]) as load:
            end = time.monotonic() + FIGURE_SECONDS
            while (drift_figure := self.drift()) is None:
                if time.monotonic() > end:
                    explanation = self.demo.kubectl.explain(self._model())
                    raise TimedOut(f"no drift figure within {FIGURE_SECONDS} s\n{explanation}")
                time.sleep(POLL_SECONDS)
            self.facts.quiet, self.facts.usual = drift_figure, load.grades.share()
        summary = f"drift [bold]{drift_figure:.2f}[/] (a run starts above 1), {_format_share(self.facts.usual)}"
        self.demo.story.say(f"unshifted digits: {summary}")
        if drift_figure > 1:
            raise DemoError(f"the drift figure of unshifted digits is {drift_figure:.2f}; it must be at most 1")

    def close(self) -> None:
        """Send shifted digits until the retrained model serves, and measure the time."""
        facts, old = self.facts, self._model()["status"]["serving"]["version"]
        existing = ExistingNames(self._names(RUNS), self._names(ROLLOUTS))
        with self.load(list(shift.ORIGINS)) as load, self.demo.story.watching("waiting for the drift") as watch:
            screen = Screen(watch, load)
            while facts.served_seconds is None:
                screen.figure = self.drift()
                screen.view = self.observe_progress(existing, load.elapsed(), screen.figure)
                if load.elapsed() > LOOP_SECONDS:
                    state = screen.view.headline() if screen.view else "no run has started"
                    raise TimedOut(f"the loop did not close within {LOOP_SECONDS} s: {state}\n{self._explain()}")
                screen.show_for(POLL_SECONDS)
            ended = time.monotonic()
            screen.show_for(AFTER_SECONDS)
            facts.before, facts.after = load.grades.share(old), load.grades.share(facts.version, since=ended)
            others = set(load.grades.count(since=ended + SETTLED_SECONDS)) - {facts.version}
        if others:
            raise DemoError(
                f"{facts.version} serves, but callers still received responses of {', '.join(sorted(others))}"
            )
        self._print_times(old)

    def observe_progress(self, known: ExistingNames, now: float, figure: float | None) -> RunView | RolloutView | None:
        """Poll the run and its rollout at ``now`` seconds, and return the current view.

        Records when each event was first observed. Raises DemoError when the run or the rollout fails.
        """
        facts, kubectl = self.facts, self.demo.kubectl
        if facts.drift_seconds is None and figure is not None and figure > 1:
            facts.drift_seconds = now
        run = newest_run(kubectl.items(RUNS, NAMESPACE), POLICY, known.runs)
        if run is None:
            return None
        view = RunView.of(run)
        facts.run_seconds = now if facts.run_seconds is None else facts.run_seconds
        if view.ended and view.state != "Succeeded":
            raise DemoError(f"the run should have succeeded\n{_describe_verdicts(view)}")
        if view.state != "Succeeded" or not view.version:
            return view
        facts.version = view.version
        facts.registered_seconds = now if facts.registered_seconds is None else facts.registered_seconds
        rollout = find_rollout(list(kubectl.items(ROLLOUTS, NAMESPACE)), MODEL, view.version, known.rollouts)
        if rollout is None:
            return view
        moving = RolloutView.of(rollout)
        if moving.ended and moving.state != "Succeeded":
            raise DemoError(f"the rollout of {view.version} should have succeeded\n{_describe_verdicts(moving)}")
        if moving.ended:
            facts.served_seconds = now
        return moving

    def _print_times(self, old: str) -> None:
        facts, say = self.facts, self.demo.story.say
        for event, seconds in (
            ("the drift figure was above 1", facts.drift_seconds),
            ("a run had started automatically", facts.run_seconds),
            (f"{facts.version} was registered", facts.registered_seconds),
            (f"{facts.version} served all callers", facts.served_seconds),
        ):
            if seconds is not None:
                say(f"{seconds:6.1f} s after the first shifted request {event}")
        version = self.demo.kubectl.get(VERSIONS, facts.version, NAMESPACE) or {}
        parameters = ", ".join(f"{key} {value}" for key, value in version.get("spec", {}).get("parameters", {}).items())
        say(f"the best parameters: {parameters}")
        say(
            f"{old} gave callers: {_format_share(facts.before)}; {facts.version}: [bold]{_format_share(facts.after)}[/]"
        )
        say(f"requests: {facts.requests}, lost: {facts.lost}")
        if facts.before is None or facts.after is None or facts.after <= facts.before:
            raise DemoError("the new model is not better for its callers")

    def refuse(self) -> None:
        """Upload the damaged data, request a run, and wait until it is stopped before training."""
        kubectl, serving = self.demo.kubectl, self._model()["status"]["serving"]["version"]
        self.upload("damaged", "the same data with empty, impossible, misnamed and duplicate rows")
        user = json.loads(kubectl.run("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"]
        self._command(f"kubectl create -f - <<< '{json.dumps(manual_run(user))}'")
        run_name = (
            kubectl.run("create", "-f", "-", "-o", "name", stdin=json.dumps(manual_run(user))).strip().partition("/")[2]
        )
        run = kubectl.wait(
            RUNS,
            run_name,
            NAMESPACE,
            lambda obj: RunView.of(obj).ended,
            "an end",
            timeout=REFUSED_SECONDS,
            tell=lambda text: self.demo.story.say(f"[dim]{text}[/]"),
        )
        view, checks = RunView.of(run), failed_checks(run)
        self.facts.checks, self.facts.stages = tuple(check.metric for check in checks), view.stages
        if view.state != "Failed" or not checks or view.stages != ("dataCheck",):
            raise DemoError(f"the data check should have stopped the run\n{_describe_verdicts(view)}")
        self.demo.story.say(f"[bold green]{view.headline()}[/]; no training pod was started")
        for check in checks:
            self.demo.story.say(f"[red]{check.metric}[/]: {check.message}")
        if (now := self._model()["status"]["serving"]["version"]) != serving:
            raise DemoError(f"{now} serves, but {serving} must keep serving")
        self.demo.story.say(f"{serving} keeps serving")
        self.upload("shifted", "the good data is back")

    @contextmanager
    def load(self, origins: Sequence[str]) -> Iterator[GradedLoad]:
        """Run a load of held-out digits, shifted in these ways. Raises DemoError at its end when a request was lost."""
        bodies, truth = build_requests(real.load_holdout(), origins)
        with GradedLoad(self.demo.client(), bodies, Grades(truth), rate=self.demo.rate) as load:
            self.facts.reports.append(load.report)
            yield load
        if load.report.lost:
            lines = "\n".join(f"  {lost}" for lost in load.report.lost[:10])
            raise DemoError(f"{len(load.report.lost)} of {load.report.total} requests were lost; none may be\n{lines}")

    def drift(self) -> float | None:
        """Return the current value of the policy's query; None without a result."""
        try:
            answer = httpx.get(
                f"{self.demo.cluster.prometheus_url.rstrip('/')}/api/v1/query",
                params={"query": drift_query()},
                timeout=10,
            )
            result = answer.json()["data"]["result"]
            value = float(result[0]["value"][1]) if result else math.nan
        except (httpx.HTTPError, ValueError, KeyError, IndexError):
            return None
        return None if math.isnan(value) else value

    def upload(self, name: str, what: str) -> None:
        """Upload a data set of examples/digits/shift.py to the policy's URI, and the holdout beside it."""
        files, run = shift.files(), load_policy({})["spec"]["run"]
        for source, uri in ((name, run["dataset"]["uri"]), ("holdout", run["holdout"]["uri"])):
            platform.upload(self.demo.cluster, f"{uri}/digits.csv", files[f"{source}/digits.csv"])
        rows = len(files[f"{name}/digits.csv"].splitlines()) - 1
        self.demo.story.say(f"uploaded to {run['dataset']['uri']}: {what} ({rows} rows)")

    def _model(self) -> Json:
        model = self.demo.kubectl.get(MODELS, MODEL, NAMESPACE)
        if model is None:
            raise TimedOut(f"there is no Model {MODEL}")
        return model

    def _names(self, kind: str) -> frozenset[str]:
        return frozenset(each["metadata"]["name"] for each in self.demo.kubectl.items(kind, NAMESPACE))

    def _explain(self) -> str:
        policy = self.demo.kubectl.get(RETRAINING, POLICY, NAMESPACE)
        return "\n".join(self.demo.kubectl.explain(each) for each in (policy, self._model()) if each)

    def _command(self, text: str) -> None:
        self.demo.story.command(text)


def load_policy(images: Mapping[str, str]) -> Json:
    """Load the RetrainingPolicy, with its images by digest where they are known."""
    policy: Json = yaml.safe_load(FILE.read_text())
    for stage in ("dataCheck", "train", "evaluate"):
        for container in policy["spec"]["run"][stage]["job"]["template"]["spec"]["containers"]:
            container["image"] = images.get(container["image"].rpartition("/")[2], container["image"])
    return policy


def drift_query() -> str:
    """Return the query of the policy's drift trigger, with its names filled in."""
    (trigger,) = load_policy({})["spec"]["triggers"]
    text: str = trigger["prometheus"]["query"]
    return text.replace("$(NAMESPACE)", NAMESPACE).replace("$(MODEL)", MODEL)


def manual_run(user: str) -> Json:
    """Build a manual TrainingRun."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"generateName": "digits-by-hand-", "namespace": NAMESPACE},
        "spec": {"policyRef": {"name": POLICY}, "manual": {"by": user, "reason": "new labelled digits have come in"}},
    }


def _format_share(share: float | None) -> str:
    return "no answer yet" if share is None else f"{share:.1%} right"


def _describe_verdicts(view: RunView | RolloutView) -> str:
    """Describe the state of a run or rollout, and its verdicts."""
    verdicts = [f"  {each.metric}: {each.outcome}: {each.message}" for each in view.verdicts]
    return "\n".join([f"{view.headline()}: {view.message}", *verdicts])
