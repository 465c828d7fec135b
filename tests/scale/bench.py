"""One operator on a control plane of its own, and the phases it is measured in."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devcluster import ControlPlane
from modelwright.kube import kinds
from tests.lib.api import Api
from tests.scale import processes
from tests.scale.answers import Answer, Answers, Edit, Report, paced, percentile, together
from tests.scale.audit import WRITES, AuditLog, Counts, Request
from tests.scale.figures import Figures
from tests.scale.objects import NAMESPACE
from tests.scale.operator_process import OperatorProcess
from tests.scale.quiet import quiet_since
from tests.scale.subjects import AT_ONCE, Subject
from tests.scale.waiting import control_plane_rests, quiet

EACH = "a Model"
"""The bare operator's object stands for one, so that the same figures have the same names."""
EDITS_A_SECOND, EDITS = 20, 600
EDITED = "20 edits a second: p99 seconds to the first status write"
BEGUN = "20 edits a second: most seconds until the work of an edit begins"
TAKEN_OVER = "leader killed: seconds until an edit was answered"
SAMPLE_SECONDS = 0.05


@dataclass
class Bench:
    """An operator at work, and its figures so far. `operator` is the one that leads."""

    subject: Subject
    names: list[str]
    figures: Figures
    plane: ControlPlane
    api: Api
    audit: AuditLog
    answers: Answers
    start: Callable[[str], OperatorProcess]
    report: Report
    operator: OperatorProcess = field(init=False)

    @property
    def patience(self) -> float:
        """Seconds that anything may take, by the number of objects."""
        return 180 + len(self.names)

    async def create(self) -> None:
        """Make all objects."""
        await self._change_all("create", self._create)

    async def change(self) -> None:
        """Bring all of them to version 2."""
        await self._change_all("change", lambda name: self._patch(name, self.subject.changed(name)))

    async def edit(self) -> None:
        """People ask for a second pod, each for another object, as fast as the pace says."""
        chosen = self.names[:EDITS]
        self.report(f"{len(chosen)} edits, {EDITS_A_SECOND} a second")
        self.audit.take()
        self.operator.forget_peak()
        cpu = self.operator.cpu_seconds()
        scaled = self.subject.scaled(2)
        edits = await paced((lambda name=name: self._patch(name, scaled) for name in chosen), EDITS_A_SECOND)
        await self._all_given(edits, Answer.READY)
        counts = await quiet(self.audit)
        known = self.answers.waits(edits, Answer.KNOWN)
        begun = sorted(self._begun(edit, counts.requests) for edit in edits)
        values = self.figures.values
        values[EDITED] = percentile(known, 0.99)
        values["20 edits a second: median seconds to the first status write"] = percentile(known, 0.5)
        values[BEGUN] = begun[-1]
        values["20 edits a second: p99 seconds until the work of an edit begins"] = percentile(begun, 0.99)
        values["20 edits a second: CPU ms an edit"] = 1000 * (self.operator.cpu_seconds() - cpu) / len(edits)
        self._note_peak("20 edits a second")
        self.figures.count("20 edits a second", counts, "an edit", len(edits))

    async def idle(self, seconds: float) -> None:
        """Leave it alone."""
        self.report(f"idle for {seconds:g} s")
        values = self.figures.values
        values["memory MiB"] = self.operator.resident_mib()
        self.audit.take()
        cpu = self.operator.cpu_seconds()
        await asyncio.sleep(seconds)
        counts = self.audit.take()
        values["idle: CPU seconds a minute"] = (self.operator.cpu_seconds() - cpu) * 60 / seconds
        values["idle: writes"] = counts.total_writes + counts.events
        values["idle: Lease writes a minute"] = counts.leases * 60 / seconds

    async def restart(self) -> None:
        """Tell it to stop, and start another. The Lease was given back, so nothing waits for it; its requests don't
        count."""
        self.report("restart")
        values = self.figures.values
        begin = time.monotonic()
        await asyncio.to_thread(self.operator.stop)
        values["stop: seconds"] = time.monotonic() - begin
        await control_plane_rests(self.plane)
        self.audit.take()
        started = time.time()
        self.operator = self.start("second")
        at, counts = await self._rest(started)
        values["restart: seconds to quiet"] = at - started
        values["restart: seconds to the last request"] = max(
            (request.at - started for request in counts.requests if request.at <= at), default=0.0
        )
        values["restart: CPU seconds"] = self.operator.cpu_seconds()
        self._note_peak("restart")
        self.figures.count("restart", counts)

    async def kill(self) -> None:
        """The leader is gone without a word, its Lease stays; then somebody edits an object."""
        self.report("the leader is killed")
        standby = self.start("third")
        await asyncio.to_thread(standby.wait_ready, self.patience)
        begin = time.monotonic()
        await asyncio.to_thread(self.operator.kill)
        self.operator = standby
        edit = await self._patch(self.names[0], self.subject.scaled(3))
        await self._all_given([edit], Answer.KNOWN)
        self.figures.values[TAKEN_OVER] = time.monotonic() - begin

    async def begin(self) -> None:
        """Start the first one, let it serve one object that doesn't count, and wait until all is at rest."""
        self.operator = self.start("first")
        await asyncio.to_thread(self.operator.wait_ready, self.patience)
        await self._all_given([await self._create("warm")], Answer.READY)
        await quiet(self.audit)
        await control_plane_rests(self.plane)

    async def _change_all(self, phase: str, edit: Callable[[str], Awaitable[Edit]]) -> None:
        self.report(phase)
        count, values = len(self.names), self.figures.values
        self.audit.take()
        self.operator.forget_peak()
        cpu, server, begin = self.operator.cpu_seconds(), self._server_cpu(), time.time()
        edits = await together((lambda name=name: edit(name) for name in self.names), AT_ONCE)
        values[f"{phase}: seconds to apply"] = time.time() - begin
        ready = await self._all_given(edits, Answer.READY)
        values[f"{phase}: seconds"] = ready - begin
        counts = await quiet(self.audit)
        values[f"{phase}: CPU ms {EACH}"] = 1000 * (self.operator.cpu_seconds() - cpu) / count
        values[f"{phase}: CPU ms of the API server {EACH}"] = 1000 * (self._server_cpu() - server) / count
        self._note_peak(phase)
        self.figures.count(phase, counts, EACH, count)
        await self._check_children()

    async def _check_children(self) -> None:
        """By others' word: each object has one Deployment, whose pod is available."""
        available = [
            owner["name"]
            for deployment in await self.api.list(kinds.DEPLOYMENT, NAMESPACE)
            for owner in deployment["metadata"].get("ownerReferences", ())
            if deployment.get("status", {}).get("availableReplicas")
        ]
        if sorted(available) != sorted([*self.names, "warm"]):
            wrong = len(available) - len(self.names) - 1
            raise RuntimeError(f"all objects say that they are ready, with {wrong:+d} available Deployments")

    async def _rest(self, started: float) -> tuple[float, Counts]:
        """When the operator came to rest after its start, and what it asked for until now."""
        patience = 120 + len(self.names) / 10
        samples: list[tuple[float, float]] = []
        counts = Counts()
        while time.time() < started + patience:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.operator.check()
            samples.append((time.time(), self.operator.cpu_seconds()))
            if len(samples) % 10:
                continue
            counts.add(self.audit.take())
            at = quiet_since(samples, [request.at for request in counts.requests])
            if at is not None:
                if await asyncio.to_thread(self.subject.has_seen_all, self.operator, len(self.names), counts):
                    return at, counts
                # It was a pause, and to ask has cost it CPU time.
                samples.clear()
        raise RuntimeError(f"{patience:.0f} s after its start the operator is not at rest, or has not seen to all")

    async def _all_given(self, edits: Sequence[Edit], answer: Answer) -> float:
        check, report = self.operator.check, self.report
        return await self.answers.all_given(edits, answer, self.patience, check=check, report=report)

    async def _create(self, name: str) -> Edit:
        obj = self.subject.new(name)
        return await self.answers.edit(name, self.api.call("POST", self.subject.kind.path(NAMESPACE), obj))

    async def _patch(self, name: str, patch: object) -> Edit:
        return await self.answers.edit(name, self.api.patch(self.subject.kind, NAMESPACE, name, patch))

    def _begun(self, edit: Edit, requests: list[Request]) -> float:
        """Seconds until the first write of a child, or until a status that says more than that the edit was seen."""
        own = (self.subject.kind.plural, kinds.MODEL_VERSION.plural, "events")
        child = min(
            (
                each.at
                for each in requests
                if each.at >= edit.at and each.verb in WRITES and each.name.startswith(edit.name)
                if each.resource.partition("/")[0] not in own
            ),
            default=math.inf,
        )
        return min(child, self.answers.when(edit, Answer.WORKED_ON)) - edit.at

    def _server_cpu(self) -> float:
        return processes.cpu_seconds(self.plane.state.daemons["kube-apiserver"].pid)

    def _note_peak(self, phase: str) -> None:
        self.figures.values[f"{phase}: peak memory MiB"] = self.operator.resident_mib(peak=True)


@contextlib.asynccontextmanager
async def at_work(subject: Subject, figures: Figures, folder: Path, report: Report) -> AsyncIterator[Bench]:
    """A control plane with a name for each of the Models of `figures`, and the operator started and warm. Everything
    ends with the block."""
    count = figures.models
    async with contextlib.AsyncExitStack() as stack:
        plane = stack.enter_context(ControlPlane(kwok_nodes=max(3, count // 100), audit=True))
        assert plane.audit_log is not None
        api = await stack.enter_async_context(Api(plane.kubeconfig, agent="scale-harness"))

        def start(instance: str) -> OperatorProcess:
            log = folder / f"{subject.name}-{count}-{instance}.log"
            return stack.enter_context(subject.process(plane.kubeconfig, log, instance))

        names = [f"m{number:05d}" for number in range(count)]
        await subject.prepare(api, ["warm", *names])
        answers = await stack.enter_async_context(Answers(api, subject.kind, subject.read).watching())
        bench = Bench(
            subject,
            names,
            figures,
            plane,
            api,
            AuditLog(plane.audit_log, subject.agents),
            answers,
            start,
            lambda text: report(f"{subject.name}, {count}: {text}"),
        )
        await control_plane_rests(plane)
        await bench.begin()
        yield bench
