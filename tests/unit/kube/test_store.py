"""The store keeps the newest state for any order of events, and never returns its own objects."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.names import LABEL_MODEL
from modelwright.kube import kinds
from modelwright.kube.store import Identity, Object, Store, is_newer
from tests.unit.kube.fakes import model


def at(version: int | str, uid: str = "u1", **more: Any) -> Object:
    return model(uid=uid, resourceVersion=str(version), **more)


def deployment(name: str, model_name: str | None, owner: str | None = None, version: int = 1) -> Object:
    meta: Object = {"namespace": "vision", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    if model_name:
        meta["labels"] = {LABEL_MODEL: model_name}
    if owner:
        meta["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {}}


def version_in(store: Store) -> str | None:
    found = store.get(kinds.MODEL, "vision", "digits")
    return found["metadata"]["resourceVersion"] if found else None


def test_an_event_is_kept_and_tells_what_was_before() -> None:
    store = Store()
    assert store.apply(kinds.MODEL, None, at(5)) == (None, at(5))
    old, new = store.apply(kinds.MODEL, "MODIFIED", at(6, labels={"a": "b"}))
    assert old == at(5)
    assert new == at(6, labels={"a": "b"})


@pytest.mark.parametrize("version", [4, 5])
def test_a_late_or_repeated_event_changes_nothing(version: int) -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5, labels={"new": "yes"}))
    old, new = store.apply(kinds.MODEL, "MODIFIED", at(version))
    assert old is new
    assert store.get(kinds.MODEL, "vision", "digits") == at(5, labels={"new": "yes"})


def test_versions_are_compared_as_numbers_not_as_text() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(99))
    store.apply(kinds.MODEL, "MODIFIED", at(100, labels={"a": "b"}))
    assert version_in(store) == "100"


def test_non_numeric_versions_are_newer_when_they_differ() -> None:
    assert is_newer("b", "a")
    assert is_newer("a", "b")
    assert not is_newer("a", "a")
    assert is_newer("10", "9")
    assert not is_newer("9", "10")


def test_deleted_removes_and_a_second_deleted_does_nothing() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5))
    old, new = store.apply(kinds.MODEL, "DELETED", at(6))
    assert (old, new) == (at(5), None)
    old, new = store.apply(kinds.MODEL, "DELETED", at(6))
    assert old is new
    assert store.count(kinds.MODEL) == 0


def test_a_late_event_or_response_restores_no_deleted_object() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5))
    store.apply(kinds.MODEL, "DELETED", at(8))
    store.apply(kinds.MODEL, "MODIFIED", at(6))
    store.put(at(7))
    assert store.count(kinds.MODEL) == 0
    assert store.is_deleted("u1")
    assert store.is_deleted("u1", "8")


def test_a_forgotten_object_is_restored_by_no_event() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5))
    store.forget(kinds.MODEL, "vision", "digits", "u1")
    store.apply(kinds.MODEL, "MODIFIED", at(7))
    assert store.count(kinds.MODEL) == 0
    assert store.is_deleted("u1", "9")


def test_an_object_that_lost_its_labels_returns_with_them() -> None:
    """A watch by labels says DELETED of it, with the state in which it left."""
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5))
    store.apply(kinds.MODEL, "DELETED", at(6))
    assert not store.is_deleted("u1", "7")
    store.put(at(7, labels={"a": "b"}))
    assert version_in(store) == "7"
    assert not store.is_deleted("u1")
    store.apply(kinds.MODEL, "DELETED", at(6))
    store.apply(kinds.MODEL, "ADDED", at(7, labels={"a": "b"}))
    assert version_in(store) == "7"


def test_an_object_that_was_made_anew_replaces_the_old_one() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5, uid="u1"))
    store.apply(kinds.MODEL, "ADDED", at(9, uid="u2"))
    store.apply(kinds.MODEL, "DELETED", at(8, uid="u1"))
    store.apply(kinds.MODEL, "MODIFIED", at(7, uid="u1"))
    assert store.list_identities(kinds.MODEL) == {("vision", "digits"): Identity("u2", "9")}


def test_put_supersedes_earlier_events_and_its_echo_is_no_news() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5))
    store.put(at(8, labels={"a": "b"}))
    for late in (at(6), at(8, labels={"a": "b"})):
        old, new = store.apply(kinds.MODEL, "MODIFIED", late)
        assert old is new
    assert version_in(store) == "8"


def test_put_never_replaces_something_newer() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(9))
    store.put(at(8, labels={"a": "b"}))
    assert store.get(kinds.MODEL, "vision", "digits") == at(9)


def test_a_change_of_unkept_fields_only_moves_the_version() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5, managedFields=[{"manager": "x"}]))
    old, new = store.apply(kinds.MODEL, "MODIFIED", at(6, managedFields=[{"manager": "y"}]))
    assert old is new
    assert store.get(kinds.MODEL, "vision", "digits") == at(6)


def test_what_nobody_reads_is_not_kept() -> None:
    store = Store()
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "stays"}
    store.apply(kinds.MODEL, "ADDED", at(5, managedFields=[{}], selfLink="/x", annotations=annotations))
    assert store.get(kinds.MODEL, "vision", "digits") == at(5, annotations={"mine": "stays"})


def test_callers_may_modify_returned_and_stored_objects() -> None:
    store = Store()
    given_in = at(5, labels={"a": "b"})
    _, new = store.apply(kinds.MODEL, "ADDED", given_in)
    assert new is not None
    given_in["spec"].clear()
    new["metadata"]["labels"]["a"] = "changed"
    for obj in (store.get(kinds.MODEL, "vision", "digits"), *store.list(kinds.MODEL)):
        assert obj == at(5, labels={"a": "b"})
        obj["spec"].clear()
    assert store.get(kinds.MODEL, "vision", "digits") == at(5, labels={"a": "b"})


def test_kind_and_version_are_filled_in_for_items_of_lists() -> None:
    store = Store()
    bare = {k: v for k, v in at(5).items() if k not in ("kind", "apiVersion")}
    store.apply(kinds.MODEL, None, bare)
    assert store.get(kinds.MODEL, "vision", "digits") == at(5)


def test_cluster_scoped_objects_have_no_namespace() -> None:
    store = Store()
    runtime = {"metadata": {"name": "mlserver", "uid": "u", "resourceVersion": "1"}, "spec": {}}
    store.apply(kinds.CLUSTER_MODEL_RUNTIME, None, runtime)
    assert store.get(kinds.CLUSTER_MODEL_RUNTIME, None, "mlserver")
    assert store.get(kinds.CLUSTER_MODEL_RUNTIME, "", "mlserver")
    assert store.list_names(kinds.CLUSTER_MODEL_RUNTIME) == (("", "mlserver"),)


def test_objects_are_indexed_by_model_and_owner_until_changed() -> None:
    store = Store()
    store.put(deployment("a", "digits", owner="u1"))
    store.put(deployment("b", "digits"))
    store.put(deployment("c", "other", owner="u1"))

    def names(found: list[Object]) -> set[str]:
        return {o["metadata"]["name"] for o in found}

    assert names(store.by_model(kinds.DEPLOYMENT, "vision", "digits")) == {"a", "b"}
    assert names(store.by_model(kinds.DEPLOYMENT, "elsewhere", "digits")) == set()
    assert names(store.by_owner(kinds.DEPLOYMENT, "u1")) == {"a", "c"}
    store.put(deployment("a", "other", version=2))
    assert names(store.by_model(kinds.DEPLOYMENT, "vision", "digits")) == {"b"}
    assert names(store.by_owner(kinds.DEPLOYMENT, "u1")) == {"c"}
    store.forget(kinds.DEPLOYMENT, "vision", "b", "uid-b")
    assert store.by_model(kinds.DEPLOYMENT, "vision", "digits") == []


def test_a_version_is_found_by_the_model_its_spec_names() -> None:
    store = Store()
    obj = {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"namespace": "vision", "name": "digits-v1", "uid": "u", "resourceVersion": "1"},
        "spec": {"modelRef": {"name": "digits"}},
    }
    store.put(obj)
    assert store.by_model(kinds.MODEL_VERSION, "vision", "digits") == [obj]


def test_indexes_of_the_caller() -> None:
    store = Store({"first-letter": lambda kind, obj: [obj["metadata"]["name"][0]]})
    store.put(deployment("apple", None))
    store.put(deployment("avocado", None))
    assert len(store.by_index("first-letter", kinds.DEPLOYMENT, "a")) == 2
    assert store.by_index("first-letter", kinds.DEPLOYMENT, "b") == []


def test_forget_drops_only_that_very_object() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5, uid="u2"))
    assert store.forget(kinds.MODEL, "vision", "digits", "u1") is None
    assert store.count(kinds.MODEL) == 1
    assert store.forget(kinds.MODEL, "vision", "digits", "u2") == at(5, uid="u2")
    assert store.count(kinds.MODEL) == 0


def test_listeners_hear_of_every_real_change_and_of_nothing_else() -> None:
    store = Store()
    heard: list[tuple[str | None, str | None]] = []

    def version(obj: Object | None) -> str | None:
        return obj["metadata"]["resourceVersion"] if obj else None

    store.subscribe(lambda kind, old, new: heard.append((version(old), version(new))))
    store.apply(kinds.MODEL, "ADDED", at(5))
    store.apply(kinds.MODEL, "MODIFIED", at(5))
    store.apply(kinds.MODEL, "MODIFIED", at(4, labels={"a": "b"}))
    store.put(at(6, labels={"a": "b"}))
    store.forget(kinds.MODEL, "vision", "digits", "u1")
    store.apply(kinds.MODEL, "DELETED", at(7))
    assert heard == [(None, "5"), ("5", "6"), ("6", None)]


HISTORY = [("ADDED", at(1)), ("MODIFIED", at(2, labels={"n": "2"})), ("MODIFIED", at(3, labels={"n": "3"}))]


@given(st.permutations(HISTORY * 2))
def test_any_order_of_repeated_events_ends_in_the_newest_state(events: list[tuple[str, Object]]) -> None:
    store = Store()
    for type_, obj in events:
        store.apply(kinds.MODEL, type_, obj)
    assert store.get(kinds.MODEL, "vision", "digits") == at(3, labels={"n": "3"})


@given(st.permutations([*HISTORY, ("DELETED", at(4)), ("PUT", at(3, labels={"n": "3"}))]))
def test_any_order_with_a_delete_ends_without_the_object(events: list[tuple[str, Object]]) -> None:
    store = Store()
    for type_, obj in events:
        store.put(obj) if type_ == "PUT" else store.apply(kinds.MODEL, type_, obj)
    assert store.count(kinds.MODEL) == 0


def test_the_memory_of_deleted_objects_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwright.kube.store.TOMBSTONES", 10)
    store = Store()
    for n in itertools.count():
        store.apply(kinds.MODEL, "DELETED", at(n + 1, uid=f"u{n}"))
        if n == 50:
            break
    assert not store.is_deleted("u0")
    assert store.is_deleted("u50")


def test_what_a_sweep_dropped_comes_back_in_a_newer_state_only() -> None:
    store = Store()
    store.apply(kinds.MODEL, "ADDED", at(5))
    store.forget(kinds.MODEL, "vision", "digits", "u1", last="5")
    store.put(at(5))
    assert store.count(kinds.MODEL) == 0
    store.apply(kinds.MODEL, "ADDED", at(9))
    assert version_in(store) == "9"


def test_a_quiet_write_and_its_echo_notify_no_listener() -> None:
    store = Store()
    heard: list[Object | None] = []
    store.subscribe(lambda kind, old, new: heard.append(new))
    store.put(at(5), quiet=True)
    store.apply(kinds.MODEL, "ADDED", at(5))
    store.forget(kinds.MODEL, "vision", "digits", "u1", quiet=True)
    assert heard == []
