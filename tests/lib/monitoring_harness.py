"""A served Model whose requests are monitored, on a simulated cluster."""

from typing import Any

from modelwright.api import names
from modelwright.kube import kinds
from modelwright.render import routes
from modelwright.traffic.gateway_api import MARK_FEATURE, MIRROR_FEATURE, MIRROR_PERCENT_FEATURE
from tests.lib.rollout_harness import NS, RolloutHarness

Object = dict[str, Any]


OBSERVER = "digits-observer"


REFERENCE = {"uri": "s3://models/digits/reference.json"}


FEATURES = (MARK_FEATURE, MIRROR_FEATURE, MIRROR_PERCENT_FEATURE)


class MonitoringHarness(RolloutHarness):
    """A Model that is monitored, of which v1 and v2 have a reference and v3 has none."""

    def __init__(
        self,
        wanted: Object | None = None,
        *,
        features: tuple[str, ...] = FEATURES,
        controller: str = "example.com/any",
        **model: Any,
    ) -> None:
        super().__init__(wanted, monitoring={"mirrorPercent": 20}, **model)
        for version in ("v1", "v2"):
            self.api.user_patch(kinds.MODEL_VERSION, NS, version, {"spec": {"reference": REFERENCE}})
        # The simulated watches tell of what has our label.
        seen = {"metadata": {"labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}}}
        self.api.user_patch(kinds.GATEWAY, "gateways", "models", seen)
        self.api.user_patch(kinds.GATEWAY_CLASS, "", "any", {**seen, "spec": {"controllerName": controller}})
        self.api.set_status(
            self.api.objects[kinds.GATEWAY_CLASS, "", "any"], {"supportedFeatures": [{"name": f} for f in features]}
        )

    def pods(self, version: str) -> int | None:
        """Of the serving pods."""
        for (kind, _, _), o in self.api.objects.items():
            told = o["metadata"].get("annotations", {}).get(names.ANNOTATION_VERSION_NAME)
            if kind == kinds.DEPLOYMENT and told == version:
                return int(o["spec"]["replicas"])
        return None

    def child(self, kind: kinds.Kind, name: str = OBSERVER) -> Object | None:
        return self.api.objects.get((kind, NS, name))

    @property
    def observed_version(self) -> str | None:
        found = self.child(kinds.DEPLOYMENT)
        if found is None:
            return None
        (container,) = found["spec"]["template"]["spec"]["containers"]
        return str(next(entry["value"] for entry in container["env"] if entry["name"] == "MODEL_VERSION"))

    @property
    def route(self) -> routes.RouteView:
        return routes.read_route(self.api.objects[kinds.HTTP_ROUTE, NS, "digits"], "digits")

    @property
    def copies(self) -> int:
        """Percent of the requests that go to the observer."""
        if self.route.through is None:
            return self.route.observe_percent
        traefik = {name: o for (kind, _, name), o in self.api.objects.items() if kind == kinds.TRAEFIK_SERVICE}
        view = routes.read_traefik(traefik, self.route.through, "digits")
        return view.observe_percent if view is not None else 0

    def condition(self, type_: str) -> tuple[str, str] | None:
        found = {c["type"]: (c["status"], c["reason"]) for c in self.model["status"]["conditions"]}
        return found.get(type_)

    def look(self, seconds: float = 5) -> None:
        """As always; and no route ever names an observer that isn't ready."""
        super().look(seconds)
        found = self.child(kinds.DEPLOYMENT)
        ready = (
            found is not None and found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
        )
        assert ready or (kinds.HTTP_ROUTE, NS, "digits") not in self.api.objects or not self.copies

    def quiet(self) -> bool:
        before = len(self.api.writes)
        for _ in range(3):
            self.look()
        return len(self.api.writes) == before
