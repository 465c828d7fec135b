"""Which Models hear of it when another one takes or leaves a place on a gateway."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from modelwright.api.v1alpha1.model import Model
from modelwright.kube import kinds
from modelwright.kube.store import Store
from modelwright.reconcile import watches
from modelwright.reconcile.model import observed_routing
from tests.lib import objects

Object = dict[str, Any]


def rival(namespace: str, second: int, **endpoint: Any) -> Object:
    asked = {"parentRefs": [{"name": "models", "namespace": "gateways"}], **endpoint}
    model: Object = objects.model(namespace, "m", endpoint=asked)
    model["metadata"] |= {
        "uid": namespace,
        "generation": 1,
        "resourceVersion": str(second),
        "creationTimestamp": f"2026-01-01T00:00:{second:02}Z",
    }
    return model


def store(*models: Object) -> Store:
    found = Store(watches.INDEXERS)
    for model in models:
        found.apply(kinds.MODEL, None, model)
    return found


def woken(model: Object, *others: Object) -> set[str]:
    keys = watches.affected_keys(kinds.MODEL, model, store(model, *others))
    return {key.namespace for key in keys if key.kind == "Model"} - {model["metadata"]["namespace"]}


def test_model_affects_younger_rivals_and_no_older_ones() -> None:
    exact = rival("exact", 2, hostnames=["a.x"], pathPrefix="/p")
    assert woken(exact, rival("longer", 3, hostnames=["a.x"], pathPrefix="/p/q")) == {"longer"}
    assert woken(exact, rival("wide", 3, hostnames=["*.x"], pathPrefix="/p")) == {"wide"}
    assert woken(exact, rival("beside", 3, hostnames=["b.x"], pathPrefix="/p")) == set()
    wide = rival("wide", 9, hostnames=["*.x"])
    assert woken(wide, *(rival(f"ns{number}", number, hostnames=[f"h{number}.x"]) for number in range(8))) == set()


def problem(mine: Object, *others: Object, hostnames: tuple[str, ...] = ()) -> str | None:
    context: Any = SimpleNamespace(store=store(mine, *others), hostnames=hostnames)
    found = observed_routing.find_hostname_conflict(context, mine, Model.parse(mine).spec.endpoint)
    return found.reason.value if found is not None else None


def test_model_with_a_refused_hostname_blocks_no_other() -> None:
    patterns = ("{namespace}.example.com",)
    mine = rival("team", 5, hostnames=["team.example.com"])
    taken = rival("thief", 1, hostnames=["team.example.com"])
    assert problem(mine, taken) == "RouteConflict"
    assert problem(mine, taken, hostnames=patterns) is None
    assert problem(taken, mine, hostnames=patterns) == "HostnameNotAllowed"
    assert problem(rival("team", 5), hostnames=patterns) == "HostnameNotAllowed"
