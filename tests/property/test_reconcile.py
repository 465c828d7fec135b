"""Users, crashes, lost events and a refusing API server, in any order.

The Model comes to its end, what serves is never taken away, and what isn't ours is never touched: the real reconcilers
against a simulated cluster.
"""

import copy
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelwright.api import names
from modelwright.kube import api_errors, kinds
from modelwright.obs.clock import FakeClock
from tests.lib import objects
from tests.lib.kstatus import faults, is_ready
from tests.lib.simulated import Died, SimulatedApi, place
from tests.lib.stepped import Operator

Object = dict[str, Any]
NS = "vision"
VERSIONS = st.sampled_from(["one", "two", "three"])
CHILDREN = (
    kinds.DEPLOYMENT,
    kinds.SERVICE,
    kinds.CONTROLLER_REVISION,
    kinds.POD_DISRUPTION_BUDGET,
    kinds.HORIZONTAL_POD_AUTOSCALER,
    kinds.HTTP_ROUTE,
)


class Clusters(RuleBasedStateMachine):
    """People, time and bad luck."""

    def __init__(self) -> None:
        super().__init__()
        self.api, self.clock = SimulatedApi(), FakeClock()
        self.broken: set[str] = set()
        self.writes_left: int | None = None
        self.crowd = False
        self.lie: api_errors.ApiError | None = None
        self.api.before_write = self._before_write
        self.api.after_write = self._after_write

    @initialize(version=VERSIONS, at_rest=st.booleans(), crowd=st.booleans())
    def begin(self, version: str, at_rest: bool, crowd: bool) -> None:
        self.api.user_create(objects.runtime())
        for name in ("one", "two", "three"):
            self.api.user_create(objects.version(NS, name))
        self.api.user_create(objects.model(NS, version=version))
        self.foreign = self.api.user_create(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs", "namespace": NS}, "spec": {"x": 1}}
        )
        self.operator = self._start()
        if at_rest:
            for _ in range(8):
                self._a_while()
        self.crowd = crowd

    def _start(self) -> Operator:
        return Operator(self.api, self.clock, has_waiting_edits=lambda: self.crowd)

    # People

    @rule(crowd=st.booleans())
    def others_edit(self, crowd: bool) -> None:
        self.crowd = crowd

    @rule(version=VERSIONS)
    def ask_for_a_version(self, version: str) -> None:
        self._edit({"version": {"name": version}})

    @rule(replicas=st.integers(0, 3))
    def scale(self, replicas: int) -> None:
        self._edit({"serving": {"replicas": replicas, "autoscaling": None}})

    @rule(most=st.integers(2, 4))
    def autoscale(self, most: int) -> None:
        self._edit({"serving": {"replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": most}}})

    @rule(there=st.booleans(), path=st.sampled_from(["/", "/a"]))
    def edit_the_endpoint(self, there: bool, path: str) -> None:
        self._edit({"endpoint": {"parentRefs": [{"name": "g"}], "pathPrefix": path} if there else None})

    @rule(version=VERSIONS)
    def delete_a_version(self, version: str) -> None:
        self.api.user_delete(kinds.MODEL_VERSION, NS, version)

    @rule()
    def delete_and_make_the_model_again(self) -> None:
        old = self.api.user_delete(kinds.MODEL, NS, "digits")
        assert old is not None
        self.api.user_create({**objects.model(NS), "spec": old["spec"]})

    @rule(image=st.sampled_from(["example.com/server:1", "example.com/server:2"]))
    def edit_the_runtime(self, image: str) -> None:
        self.api.user_patch(kinds.CLUSTER_MODEL_RUNTIME, "", "plain", {"spec": {"container": {"image": image}}})

    @rule(data=st.data(), kind=st.sampled_from(CHILDREN))
    def delete_a_child(self, data: st.DataObject, kind: kinds.Kind) -> None:
        found = self._children(kind)
        if found:
            self.api.user_delete(*place(data.draw(st.sampled_from(found))))

    @rule(data=st.data(), kind=st.sampled_from([kinds.DEPLOYMENT, kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET]))
    def take_the_labels_from_a_child(self, data: st.DataObject, kind: kinds.Kind) -> None:
        """Those of a revision that is wanted get them back; others are no longer known as ours."""
        model = self.api.objects[kinds.MODEL, NS, "digits"]
        status, wanted = model.get("status", {}), model["spec"]["version"]["name"]
        target = status.get("target", {})
        revision = target.get("revision") if target.get("version") == wanted else None
        found = [o for o in self._children(kind) if o["metadata"]["name"] in ("digits", f"digits-{revision}")]
        if found and status.get("serving", {}).get("revision") == revision:
            name = data.draw(st.sampled_from(found))["metadata"]["name"]
            self.api.user_patch(kind, NS, name, {"metadata": {"labels": None}})
            self.operator.hear(len(self.api.told))
            self.operator.work()

    @rule(data=st.data())
    def edit_a_deployment(self, data: st.DataObject) -> None:
        found = self._children(kinds.DEPLOYMENT)
        if found:
            name = data.draw(st.sampled_from(found))["metadata"]["name"]
            patch = {"metadata": {"labels": {"theirs": "1"}}, "spec": {"replicas": data.draw(st.integers(0, 3))}}
            self.api.user_patch(kinds.DEPLOYMENT, NS, name, patch)

    @rule()
    def edit_the_service(self) -> None:
        self.api.user_patch(kinds.SERVICE, NS, "digits", {"spec": {"selector": {names.LABEL_REVISION: "edited"}}})

    # The cluster

    @rule(version=VERSIONS, broken=st.booleans())
    def break_or_mend(self, version: str, broken: bool) -> None:
        self.broken = self.broken | {version} if broken else self.broken - {version}

    @rule()
    def pods_start(self) -> None:
        for deployment in self._all(kinds.DEPLOYMENT):
            version = deployment["metadata"].get("annotations", {}).get(names.ANNOTATION_VERSION_NAME)
            ready = 0 if version in self.broken else deployment["spec"].get("replicas", 1)
            generation = deployment["metadata"]["generation"]
            status = {"observedGeneration": generation, "readyReplicas": ready, "availableReplicas": ready}
            self.api.set_status(deployment, status)

    @rule()
    def the_gateway_accepts(self) -> None:
        for route in self._all(kinds.HTTP_ROUTE):
            told = [
                {"type": t, "status": "True", "observedGeneration": route["metadata"]["generation"]}
                for t in ("Accepted", "ResolvedRefs")
            ]
            parents = [{"parentRef": ref, "conditions": told} for ref in route["spec"]["parentRefs"]]
            self.api.set_status(route, {"parents": parents})

    @rule()
    def garbage_is_collected(self) -> None:
        self.api.collect()

    @rule(seconds=st.integers(1, 400))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.operator.look_again()

    # The operator

    @rule(count=st.integers(1, 30))
    def events_arrive(self, count: int) -> None:
        self.operator.hear(count)

    @precondition(lambda self: self.api.told)
    @rule(data=st.data())
    def an_event_is_lost(self, data: st.DataObject) -> None:
        self.api.told.pop(data.draw(st.integers(0, len(self.api.told) - 1)))

    @rule()
    def it_works(self) -> None:
        self.operator.work()

    @rule(writes=st.integers(0, 5), after=st.booleans())
    def it_is_killed_at_a_write_and_started_again(self, writes: int, after: bool) -> None:
        self.writes_left, self.after = writes, after
        try:
            self.operator.work()
        except Died:
            self.operator = self._start()
        self.writes_left = None

    @rule(error=st.sampled_from([api_errors.Transient, api_errors.Conflict, api_errors.Throttled]), after=st.booleans())
    def the_api_server_fails_once(self, error: type[api_errors.ApiError], after: bool) -> None:
        """Before the write, or in its answer: then it was done, and the operator doesn't know."""
        self.lie, self.after = error(500, "Fault", "a fault"), after
        self.operator.work()
        self.lie = None

    @rule()
    def it_sweeps(self) -> None:
        self.api.fill(self.operator.store)
        self.operator.look_again()

    # What must hold

    @invariant()
    def what_is_not_ours_is_never_touched(self) -> None:
        if hasattr(self, "foreign"):
            assert self.api.objects[place(self.foreign)] == self.foreign

    @invariant()
    def every_status_is_sound(self) -> None:
        for kind in (kinds.MODEL, kinds.MODEL_VERSION):
            for obj in self._all(kind):
                # Times may move when an answer was lost: what was written before is then not known.
                assert faults(obj) == []

    def teardown(self) -> None:
        """When nobody interferes any more, the wanted version serves in a few passes, and then nothing is written."""
        if not hasattr(self, "operator"):
            return
        self.broken = set()
        self.api.collect()
        model = self.api.objects[kinds.MODEL, NS, "digits"]
        wanted = model["spec"]["version"]["name"]
        if (kinds.MODEL_VERSION, NS, wanted) not in self.api.objects:
            self.api.user_create(objects.version(NS, wanted))
        self.it_sweeps()
        for _ in range(12):
            self._a_while()
        model = self.api.objects[kinds.MODEL, NS, "digits"]
        assert is_ready(model), model["status"]
        assert model["status"]["serving"]["version"] == wanted
        self._only_what_is_wanted(model)
        writes = len(self.api.writes)
        self._a_while()
        self.operator = self._start()
        self._a_while()
        assert self.api.writes[writes:] == []

    def _a_while(self) -> None:
        self.operator.hear(len(self.api.told))
        self.operator.look_again()
        self.operator.work()
        self.pods_start()
        self.the_gateway_accepts()
        self.api.collect()
        self.clock.advance(6)

    def _only_what_is_wanted(self, model: Object) -> None:
        serving, uid = model["spec"].get("serving", {}), model["metadata"]["uid"]
        revision = model["status"]["serving"]["revision"]
        child = f"digits-{revision}"
        most = serving.get("autoscaling", {}).get("minReplicas", serving.get("replicas", 1))
        expected = {(kinds.DEPLOYMENT, child), (kinds.SERVICE, "digits")}
        if "autoscaling" in serving:
            expected.add((kinds.HORIZONTAL_POD_AUTOSCALER, child))
        if most > 1:
            expected.add((kinds.POD_DISRUPTION_BUDGET, child))
        if "endpoint" in model["spec"]:
            expected |= {(kinds.HTTP_ROUTE, "digits"), (kinds.SERVICE, child)}
        # What lost its labels while it was on its way out can't be seen any more; it goes with its Model.
        ours = [
            obj
            for obj in self.api.objects.values()
            if any(ref["uid"] == uid for ref in obj["metadata"].get("ownerReferences", []))
            and names.LABEL_MODEL in obj["metadata"].get("labels", {})
        ]
        kept = {
            (kinds.kind_of(o), o["metadata"]["name"]) for o in ours if kinds.kind_of(o) != kinds.CONTROLLER_REVISION
        }
        assert kept == expected
        stored = [o["metadata"]["name"] for o in ours if kinds.kind_of(o) == kinds.CONTROLLER_REVISION]
        assert child in stored
        assert len(stored) <= 4
        service = self.api.objects[kinds.SERVICE, NS, "digits"]
        assert service["spec"]["selector"] == names.revision_selector("digits", revision)
        assert service["metadata"]["labels"].items() >= names.model_labels("digits").items()
        deployment = self.api.objects[kinds.DEPLOYMENT, NS, child]
        if "autoscaling" not in serving:
            assert deployment["spec"]["replicas"] == serving.get("replicas", 1)

    def _before_write(self, verb: str, obj: Object) -> None:
        if self.writes_left is not None and not self.after:
            self._count_down()
        self._never_takes_away_what_serves(verb, obj)
        if self.lie is not None and not self.after:
            lie, self.lie = self.lie, None
            raise lie

    def _after_write(self, verb: str, obj: Object) -> None:
        if self.writes_left is not None and self.after:
            self._count_down()
        if self.lie is not None and self.after:
            self.lie = None
            raise api_errors.error_without_response(ConnectionResetError("the answer is lost"))

    def _count_down(self) -> None:
        assert self.writes_left is not None
        if self.writes_left == 0:
            raise Died
        self.writes_left -= 1

    def _never_takes_away_what_serves(self, verb: str, obj: Object) -> None:
        """A Deployment that the operator deletes is not one that the Service of the operator's Model names."""
        if verb != "delete" or kinds.kind_of(obj) != kinds.DEPLOYMENT:
            return
        known = self.operator.store.get(kinds.SERVICE, NS, "digits")
        available = obj.get("status", {}).get("availableReplicas", 0)
        revision = obj["metadata"].get("labels", {}).get(names.LABEL_REVISION)
        if known is not None and known["spec"]["selector"].get(names.LABEL_REVISION) == revision:
            assert not available, "pods that answer were taken away while traffic named them"

    def _edit(self, spec: Object) -> None:
        self.api.user_patch(kinds.MODEL, NS, "digits", {"spec": spec})

    def _all(self, kind: kinds.Kind) -> list[Object]:
        return [copy.deepcopy(o) for (k, _, _), o in self.api.objects.items() if k == kind]

    def _children(self, kind: kinds.Kind) -> list[Object]:
        return [o for o in self._all(kind) if o["metadata"].get("ownerReferences")]


Clusters.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestClusters = Clusters.TestCase
