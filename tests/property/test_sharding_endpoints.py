"""Conflicts over places on a gateway are decided alike by one operator and by shards with their own Models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.v1alpha1.model import Model
from modelwright.core.sharding import NamespaceOwnership, NamespaceState
from modelwright.kube import kinds
from modelwright.kube.sharded import ShardStore
from modelwright.kube.store import Store
from modelwright.reconcile import watches
from modelwright.reconcile.model import observed_routing
from tests.lib import objects

Object = dict[str, Any]
SHARDS = ("default", "red", "blue")
HOSTS = (["a.example.com"], ["b.example.com"], ["a.example.com", "b.example.com"], ["*.example.com"], [])


@st.composite
def models(draw: st.DrawFn) -> list[Object]:
    """Models of six namespaces, two of each shard, with ages that are often equal."""
    found = []
    for number in range(draw(st.integers(1, 8))):
        namespace = f"ns{draw(st.integers(0, 5))}"
        ref = {"name": "models", "namespace": "gateways"} | draw(st.sampled_from([{}, {"sectionName": "http"}]))
        endpoint = {
            "parentRefs": [ref],
            "hostnames": draw(st.sampled_from(HOSTS)),
            "pathPrefix": draw(st.sampled_from(["/", "/x", "/x/y"])),
        }
        asked: Object = draw(st.sampled_from([{"endpoint": endpoint}, {"endpoint": endpoint}, {}]))
        model = objects.model(namespace, f"m{number}", **asked)
        model["metadata"] |= {
            "uid": f"uid-{number}",
            "generation": 1,
            "resourceVersion": str(number + 1),
            "creationTimestamp": f"2026-01-01T00:00:0{draw(st.integers(0, 2))}Z",
        }
        if draw(st.integers(0, 5)) == 0:
            model["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
        if draw(st.integers(0, 5)) == 0:
            # One that its own operator can't follow, and so takes no place.
            model["spec"]["version"] = {"name": "v1", "unheardOf": 1}
        found.append(model)
    return found


def verdicts(store: Store) -> dict[tuple[str, str], str | None]:
    """Return the conflict of each Model in a store, or None."""
    context: Any = SimpleNamespace(store=store, hostnames=())
    found = {}
    for raw in store.list(kinds.MODEL):
        if "endpoint" in raw["spec"] and "unheardOf" not in raw["spec"]["version"]:
            problem = observed_routing.find_hostname_conflict(context, raw, Model.parse(raw).spec.endpoint)
            found[raw["metadata"]["namespace"], raw["metadata"]["name"]] = problem.message if problem else None
    return found


@given(models(), st.randoms(use_true_random=False))
def test_every_shard_decides_as_one_operator_with_all_models(made: list[Object], rng: Any) -> None:
    whole = Store(watches.INDEXERS)
    for model in made:
        whole.apply(kinds.MODEL, None, model)
    states = {f"ns{number}": NamespaceState(SHARDS[number % 3], 1) for number in range(6)}
    answers: dict[tuple[str, str], str | None] = {}
    for shard in SHARDS:
        own = NamespaceOwnership(shard)
        own.apply_list(states, 10)
        store = ShardStore(own, watches.INDEXERS)
        for model in rng.sample(made, len(made)):
            store.apply(kinds.MODEL, "ADDED", model)
        answers |= verdicts(store)
    assert answers == verdicts(whole)


@given(models(), st.integers(0, 5), st.integers(0, 2))
def test_a_namespace_that_moves_changes_no_answer(made: list[Object], moved: int, to: int) -> None:
    states = {f"ns{number}": NamespaceState(SHARDS[number % 3], 1) for number in range(6)}
    shards = {}
    for shard in SHARDS:
        own = NamespaceOwnership(shard)
        own.apply_list(states, 10)
        shards[own] = ShardStore(own, watches.INDEXERS)
        for model in made:
            shards[own].apply(kinds.MODEL, "ADDED", model)
    before = {key: text for store in shards.values() for key, text in verdicts(store).items()}
    name = f"ns{moved}"
    for own, store in shards.items():
        change = own.apply_change(name, NamespaceState(SHARDS[to], 20))
        if change.left:
            store.drop_namespace(name)
        if change.came:
            for model in made:
                store.apply(kinds.MODEL, "ADDED", model)
            store.drop_stale_endpoints(name)
    assert {key: text for store in shards.values() for key, text in verdicts(store).items()} == before
