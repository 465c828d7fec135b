"""What happens to Models on a real API server with simulated nodes, told as scenarios that run beside each other.

Each scenario has a namespace of its own. `test_serving.py` runs them all against one operator.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.api import names
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from tests.lib import objects
from tests.lib.api import PATIENCE, Api, eventually
from tests.lib.audit import Audit
from tests.lib.gateway import Player
from tests.lib.kstatus import current, is_ready, stalled, waits
from tests.servers.prometheus_fake import FakePrometheus

Object = dict[str, Any]
CHILDREN = (
    kinds.DEPLOYMENT,
    kinds.SERVICE,
    kinds.CONTROLLER_REVISION,
    kinds.POD_DISRUPTION_BUDGET,
    kinds.HORIZONTAL_POD_AUTOSCALER,
    kinds.HTTP_ROUTE,
)


@dataclass
class Space:
    """A scenario's namespace, and what it needs to play in it."""

    api: Api
    namespace: str
    audit: Audit
    gateway: Player
    metrics: FakePrometheus
    kubectl: tuple[Path, Path]
    """The program and the kubeconfig."""

    async def apply(self, *manifests: Object) -> Object:
        """Server-side apply, in order; gives back the last one as stored."""
        stored: Object = {}
        for manifest in manifests:
            stored = await self.api.apply(manifest, force=True)
        return stored

    def version(self, name: str, **more: Any) -> Object:
        """A ModelVersion of this namespace."""
        return objects.version(self.namespace, name, **more)

    def model(self, name: str = "digits", **more: Any) -> Object:
        """A Model of this namespace."""
        return objects.model(self.namespace, name, **more)

    async def get(self, kind: Kind, name: str) -> Object:
        """An object of this namespace that must be there."""
        found = await self.api.get(kind, self.namespace, name)
        assert found is not None, f"there is no {kind} {name}"
        return found

    async def until(
        self, kind: Kind, name: str, good: Callable[[Object], bool], what: str, patience: float = PATIENCE
    ) -> Object:
        """The object, once `good` holds for it."""
        found: Object = await eventually(
            lambda: self.api.get(kind, self.namespace, name),
            lambda seen: seen is not None and good(seen),
            f"{kind} {self.namespace}/{name}: {what}",
            patience,
        )
        return found

    async def ready(self, name: str = "digits", *, version: str | None = None, replicas: int | None = None) -> Object:
        """The Model, once it is Ready (with this version serving alone, and that many ready pods)."""

        def good(seen: Object) -> bool:
            status = seen.get("status", {})
            return (
                is_ready(seen)
                and (version is None or status["serving"]["version"] == version)
                and (replicas is None or status.get("readyReplicas") == replicas)
            )

        return await self.until(kinds.MODEL, name, good, f"Ready with {version or 'any version'}")

    async def serve(self, *, name: str = "digits", version: str = "v1", **spec: Any) -> Object:
        """Make a version and a Model of it, and wait until it is Ready."""
        await self.apply(self.version(version, model=name), self.model(name, version=version, **spec))
        return await self.ready(name, version=version)

    async def stalls(self, reason: str, name: str = "digits", *, says: str = "") -> Object:
        """The Model, once it is Stalled for this reason with a message that holds `says`."""
        found = await self.until(kinds.MODEL, name, lambda m: stalled(m, reason), f"Stalled for {reason}")
        message = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "Stalled")
        assert says in message, message
        return found

    async def waits(self, reason: str, name: str = "digits") -> Object:
        """The Model, once it is Reconciling for this reason."""
        return await self.until(kinds.MODEL, name, lambda m: waits(m, reason), f"Reconciling for {reason}")

    async def seen(self, name: str = "digits") -> Object:
        """The Model, once its status speaks of its present spec."""
        return await self.until(kinds.MODEL, name, current, "observed")

    async def children(self, kind: Kind, name: str = "digits") -> list[Object]:
        """The Model's children of a kind, those on their way out left aside."""
        found = await self.api.list(kind, self.namespace, f"{names.LABEL_MODEL}={name}")
        return [obj for obj in found if not obj["metadata"].get("deletionTimestamp")]

    async def child(self, kind: Kind, name: str = "digits") -> Object:
        """The Model's only child of a kind."""
        found = await self.children(kind, name)
        assert len(found) == 1, f"{len(found)} children of kind {kind}: {[o['metadata']['name'] for o in found]}"
        return found[0]

    async def only(self, kind: Kind, count: int, name: str = "digits") -> list[Object]:
        """The Model's children of a kind, once they are `count`."""
        found: list[Object] = await eventually(
            lambda: self.children(kind, name), lambda seen: len(seen) == count, f"{count} {kind}s of {name}"
        )
        return found

    async def gone(self, kind: Kind, name: str) -> None:
        """Come back once an object is gone."""
        await eventually(
            lambda: self.api.get(kind, self.namespace, name), lambda seen: seen is None, f"no {kind} {name}"
        )

    async def events(self, name: str = "digits") -> list[tuple[str, str]]:
        """(type, reason) of the Events about a Model, oldest first."""
        found = await self.api.list(kinds.EVENT, self.namespace)
        about = [e for e in found if e.get("regarding", {}).get("kind") == "Model" and e["regarding"]["name"] == name]
        about = [e for e in about if e.get("reportingController", "").startswith("modelwright")]
        return [(e["type"], e["reason"]) for e in sorted(about, key=lambda e: e["eventTime"])]

    async def pass_over(self, name: str = "digits") -> Object:
        """Make the operator look at a Model once more and finish, changing nothing that matters."""
        stamp = str((await self.get(kinds.MODEL, name))["metadata"]["generation"])
        await self.api.patch(
            kinds.MODEL, self.namespace, name, {"spec": {"owner": {"contact": f"after generation {stamp}"}}}
        )
        return await self.seen(name)


Scenario = Callable[[Space], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Register a scenario under its name."""
    name = function.__name__
    assert name not in SCENARIOS, name
    SCENARIOS[name] = function
    return function
