"""The operators that are measured, by the same phases: Modelwright with either kind of Model, and the bare operator."""

import abc
import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from devcluster import parts
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from tests.lib.api import Api, install
from tests.scale import spike
from tests.scale.answers import Answer, Reader, read_model
from tests.scale.audit import OPERATOR_AGENTS, Counts
from tests.scale.objects import NAMESPACE, Object, artifact, model, runtime, version
from tests.scale.operator_process import ROOT, OperatorProcess
from tests.scale.spike.handlers import AGENT

AT_ONCE = 20


class Subject(abc.ABC):
    """An operator, the objects it serves, and how one sees what it has done."""

    name: str
    kind: Kind
    agents: tuple[str, ...]
    read: Reader

    @abc.abstractmethod
    async def prepare(self, api: Api, names: Sequence[str]) -> None:
        """Install its CRDs, and what must be there before the objects of these names."""

    @abc.abstractmethod
    def new(self, name: str) -> Object:
        """An object with version 1."""

    @abc.abstractmethod
    def changed(self, name: str) -> Object:
        """The merge patch that asks for version 2."""

    @abc.abstractmethod
    def scaled(self, replicas: int) -> Object:
        """The merge patch that asks for so many pods."""

    @abc.abstractmethod
    def process(self, kubeconfig: Path, log: Path, instance: str) -> OperatorProcess:
        """The operator, not started yet."""

    @abc.abstractmethod
    def has_seen_all(self, process: OperatorProcess, count: int, requests: Counts) -> bool:
        """Whether an operator that was just started has seen to every object; `requests` are all it has made."""


class Modelwright(Subject):
    """`named`: the ModelVersions exist beforehand, and a Model names one. `default`: the version is inline, and one
    object is POSTed."""

    kind = kinds.MODEL
    agents = OPERATOR_AGENTS
    read = staticmethod(read_model)

    def __init__(self, profile: str) -> None:
        self.name = profile

    async def prepare(self, api: Api, names: Sequence[str]) -> None:
        await install(api, ROOT / "crds")
        await api.apply(runtime())
        if self.name == "named":
            await create_all(api, (version(name, number) for name in names for number in (1, 2)))

    def new(self, name: str) -> Object:
        return {**model(name, 1), "spec": {"version": self._version(name, 1)}}

    def changed(self, name: str) -> Object:
        return {"spec": {"version": self._version(name, 2)}}

    def scaled(self, replicas: int) -> Object:
        return {"spec": {"serving": {"replicas": replicas}}}

    def process(self, kubeconfig: Path, log: Path, instance: str) -> OperatorProcess:
        # A warm standby, as the chart has it; the client's limits must not set the pace of a measurement.
        settings = {"qps": 1000, "burst": 2000, "instance": instance, "warm_standby": True}
        return OperatorProcess(kubeconfig, log, **settings)

    def has_seen_all(self, process: OperatorProcess, count: int, requests: Counts) -> bool:
        # Of thousands of Models' series, those that are not needed are left out before they are parsed.
        names = ("modelwright_leader", "modelwright_queue_depth", "modelwright_reconcile_total")
        lines = [line for line in process.metrics().splitlines() if line.startswith(names)]
        samples = [s for family in text_string_to_metric_families("\n".join(lines) + "\n") for s in family.samples]

        def values(name: str, **labels: str) -> list[float]:
            return [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]

        waiting = any(values("modelwright_queue_depth"))
        passes = sum(values("modelwright_reconcile_total", kind=kinds.MODEL.kind))
        return values("modelwright_leader") == [1.0] and passes >= count and not waiting

    def _version(self, name: str, number: int) -> Object:
        if self.name == "named":
            return {"name": f"{name}-v{number}"}
        return {"template": {"artifact": artifact(name, number)}}


class Spike(Subject):
    """The bare operator; its children are a Deployment, a Service and an HTTPRoute."""

    name = "spike"
    kind = spike.KIND
    agents = (AGENT, "kopf")

    async def prepare(self, api: Api, names: Sequence[str]) -> None:
        await install(api, spike.CRDS)
        await install(api, parts.gateway_api_crds())

    def new(self, name: str) -> Object:
        metadata = {"name": name, "namespace": NAMESPACE}
        return {
            "apiVersion": spike.KIND.api_version,
            "kind": spike.KIND.kind,
            "metadata": metadata,
            "spec": {"image": "example.com/scale:1"},
        }

    def changed(self, name: str) -> Object:
        return {"spec": {"image": "example.com/scale:2"}}

    def scaled(self, replicas: int) -> Object:
        return {"spec": {"replicas": replicas}}

    def process(self, kubeconfig: Path, log: Path, instance: str) -> OperatorProcess:
        return OperatorProcess(kubeconfig, log, program=("-m", "tests.scale.spike"))

    def has_seen_all(self, process: OperatorProcess, count: int, requests: Counts) -> bool:
        return {("list", spike.KIND.plural), ("list", kinds.DEPLOYMENT.plural)} <= set(requests.reads)

    @staticmethod
    def read(obj: Object) -> Iterable[Answer]:
        yield Answer.KNOWN
        yield Answer.WORKED_ON
        if obj["status"]["phase"] == "Ready":
            yield Answer.READY


SPIKE: Subject = Spike()
PROFILES: dict[str, Subject] = {name: Modelwright(name) for name in ("named", "default")}


async def create_all(api: Api, objects: Iterable[Object]) -> None:
    """POST all objects, some at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(obj: Object) -> None:
        async with gate:
            await api.create(obj)

    await asyncio.gather(*map(one, objects))
