"""A Model, or a policy, with very many objects: a pass reads a few of them."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.training import TrainingRun
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.obs.clock import FakeClock
from modelwright.reconcile import watches
from modelwright.reconcile.model import target
from modelwright.reconcile.training_run import runs
from tests.lib import objects
from tests.lib.simulated import SimulatedApi
from tests.lib.stepped import Operator

NS = "vision"
MANY = 20_000


def stored(obj: dict[str, Any], number: int, **metadata: Any) -> dict[str, Any]:
    moment = f"2026-11-{1 + number // 86_400:02}T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    told = {"uid": f"u{number}", "resourceVersion": str(number + 1), "creationTimestamp": moment, "generation": 1}
    return {**obj, "metadata": {**obj["metadata"], **told, **metadata}}


class Counted:
    """Counts the objects of a type that are parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, type_: Any) -> None:
        self.parsed = 0
        parse = type_.parse.__func__

        def counted(cls: Any, obj: Any) -> Any:
            self.parsed += 1
            return parse(cls, obj)

        monkeypatch.setattr(type_, "parse", classmethod(counted))


@pytest.fixture(scope="module")
def store() -> Store:
    store = Store(watches.INDEXERS)
    for number in range(MANY):
        labels = {"audited": "yes"} if number == 7 else {}
        version = stored(objects.version(NS, f"v{number}"), number, labels=labels)
        if number > MANY - 500:
            version["status"] = {"stage": "Quarantined"}
        store.apply(kinds.MODEL_VERSION, None, version)
    return store


def following(serving: str | None = None, **follow: Any) -> Model:
    raw = stored(objects.model(NS, version=None), 0)
    raw["spec"]["version"] = {"follow": follow}
    if serving:
        raw["status"] = {"serving": {"version": serving, "revision": "abc", "since": "2026-11-01T00:00:00Z"}}
    return Model.parse(raw)


@pytest.mark.parametrize(
    ("what", "model", "wanted"),
    [
        ("the newest that was not taken back", following(), f"v{MANY - 500}"),
        ("with a version that serves", following("v3"), f"v{MANY - 500}"),
        ("by a label that only an old one has", following(selector={"matchLabels": {"audited": "yes"}}), "v7"),
    ],
)
def test_a_pass_parses_at_most_twenty_of_20_000_versions(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str, model: Model, wanted: str
) -> None:
    counted = Counted(monkeypatch, ModelVersion)
    found = target._find_target_version(cast(Any, SimpleNamespace(store=store)), model)
    assert isinstance(found, ModelVersion), what
    assert found.name == wanted
    assert counted.parsed <= 20


def test_following_model_parses_at_most_twenty_of_20_000(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real reconcilers: whatever else a pass reads of its versions counts too.
    api = SimulatedApi()
    api.user_create(objects.runtime())
    model = objects.model(NS, version=None)
    model["spec"]["version"] = {"follow": {}}
    api.user_create(model)
    operator = Operator(api, FakeClock())
    for place in store.list_names(kinds.MODEL_VERSION):
        operator.store.apply(kinds.MODEL_VERSION, None, store.get(kinds.MODEL_VERSION, *place) or {})
    operator.queue.clear()
    counted = Counted(monkeypatch, ModelVersion)
    for _ in range(4):
        counted.parsed = 0
        operator.queue[Key("Model", NS, "digits")] = None
        operator.work()
        assert 0 < counted.parsed <= 20
    wanted = api.objects[kinds.MODEL, NS, "digits"]["status"]["target"]["version"]
    assert wanted == f"v{MANY - 500}"


async def test_an_event_of_the_model_wakes_them_some_at_a_time(store: Store) -> None:
    raw = objects.model(NS) | {"spec": {"version": {"name": "v1"}, "signatures": {"mode": "Enforce"}}}
    woken: list[Key] = []
    keys = list(watches.affected_keys(kinds.MODEL, raw, store))
    assert keys == [Key("Model", NS, "digits"), Key(watches.ALL_VERSIONS_KIND, NS, "digits")]
    versions = watches.VersionEnqueuer(store, woken.append)
    while (await versions.reconcile(keys[1])).requeue_after is not None:
        assert len(woken) % watches.VERSION_BATCH == 0
    assert len(woken) == len(set(woken)) == MANY
    assert woken[0] == Key("ModelVersion", NS, f"v{MANY - 1}")


def test_a_pass_parses_a_bounded_number_of_the_runs_of_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(watches.INDEXERS)
    for number in range(2_000):
        run = {
            "apiVersion": objects.API_VERSION,
            "kind": "TrainingRun",
            "metadata": {"name": f"r{number}", "namespace": NS},
            "spec": {"policyRef": {"name": "nightly"}, "manual": {"by": "alice", "reason": "now"}},
        }
        if number < 1_000:
            run["status"] = {"state": "Failed", "finishedAt": "2026-11-01T00:00:00Z"}
        store.apply(kinds.TRAINING_RUN, None, stored(run, number))
    counted = Counted(monkeypatch, TrainingRun)
    policy = {"metadata": {"name": "nightly", "namespace": NS, "uid": "p", "creationTimestamp": "2026-10-01T00:00:00Z"}}
    found = runs.list_runs(cast(Any, SimpleNamespace(store=store)), policy)
    assert counted.parsed <= runs.MAX_LIVE_RUNS + runs.MAX_ENDED_RUNS
    assert found[-1].name == f"r{1_000 + runs.MAX_LIVE_RUNS - 1}", "of those that go on the oldest"
    assert found[0].name == f"r{1_000 - runs.MAX_ENDED_RUNS}", "of those that have ended the newest"


@pytest.mark.parametrize(("size", "refused"), [(128 << 10, False), ((128 << 10) + 1, True)])
def test_policy_over_128_kib_is_refused_with_both_numbers(size: int, refused: bool) -> None:
    template = {"spec": {"containers": [{"name": "c", "args": [""]}]}}
    gates = {"evaluation": {"template": template, "metrics": [{"name": "accuracy", "min": "0"}]}}
    spec = {"strategy": {"preset": "Canary"}, "gates": gates}
    left = size - len(json.dumps(spec, separators=(",", ":")))
    template["spec"]["containers"][0]["args"] = ["x" * left]
    policy = {"metadata": {"name": "p", "namespace": NS}, "spec": spec}
    if not refused:
        assert RolloutPolicy.parse(policy).name == "p"
        return
    with pytest.raises(InvalidObject, match="spec: it has 131,073 bytes as JSON, and may have 131,072"):
        RolloutPolicy.parse(policy)
