"""Ownership of namespaces, step by step; every order of steps is in tests/property/test_sharding.py."""

from __future__ import annotations

import pytest

from modelwright.api.names import LABEL_SHARD
from modelwright.core.sharding import (
    ClusterRestored,
    NamespaceNotOwned,
    NamespaceOwnership,
    NamespaceState,
    OwnershipChange,
    PeerLease,
    shard_of,
)

QUIET = PeerLease("blue", "blue", 1000)


def begun(shard: str = "red", namespace: str = "vision", version: int = 10) -> NamespaceOwnership:
    """A shard that works on one namespace."""
    own = NamespaceOwnership(shard)
    own.apply_list({namespace: NamespaceState(shard, version)}, version)
    assert own.activate_claims(own.pending_claims(), [QUIET]) == (namespace,)
    return own


@pytest.mark.parametrize(
    ("labels", "shard"),
    [(None, "default"), ({}, "default"), ({LABEL_SHARD: ""}, "default"), ({LABEL_SHARD: "red"}, "red")],
)
def test_a_namespace_without_the_label_is_the_default_shards(labels: dict[str, str] | None, shard: str) -> None:
    assert shard_of(labels) == shard


def test_before_the_first_list_nothing_is_followed_or_written() -> None:
    own = NamespaceOwnership("red")
    assert own.apply_change("vision", NamespaceState("red", 5)) == OwnershipChange()
    assert own.followed_version is None
    assert not own.may_write("vision")


def test_a_claim_waits_for_every_other_leader() -> None:
    own = NamespaceOwnership("red")
    own.apply_list({"vision": NamespaceState("blue", 5)}, 9)
    assert own.apply_change("vision", NamespaceState("red", 12)) == OwnershipChange(came=("vision",))
    waiting = own.pending_claims()
    assert waiting == (("vision", 12),)
    for followed in (None, 11):
        assert (
            own.activate_claims(waiting, [PeerLease("blue", "blue", followed), PeerLease("green", "green", 50)]) == ()
        )
        assert not own.may_write("vision")
    assert own.activate_claims(waiting, [PeerLease("blue", "blue", 12), PeerLease("green", "green", 50)]) == ("vision",)
    assert own.may_write("vision")
    assert own.pending_claims() == ()


def test_a_lease_without_holder_is_not_waited_for() -> None:
    own = NamespaceOwnership("red")
    own.apply_list({"vision": NamespaceState("red", 5)}, 9)
    assert own.activate_claims(own.pending_claims(), [PeerLease("blue", "blue", None, led=False)]) == ("vision",)


def test_a_second_lease_of_the_shard_never_gives_way() -> None:
    own = NamespaceOwnership("red")
    own.apply_list({"vision": NamespaceState("red", 5)}, 9)
    assert own.activate_claims(own.pending_claims(), [PeerLease("another", "red", 99)]) == ()
    assert own.activate_claims(own.pending_claims(), [PeerLease("modelwright-operator", "", None)]) == ()


def test_a_verdict_on_an_earlier_claim_activates_nothing() -> None:
    own = NamespaceOwnership("red")
    own.apply_list({"vision": NamespaceState("red", 5)}, 9)
    before = own.pending_claims()
    own.apply_change("vision", NamespaceState("blue", 10))
    own.apply_change("vision", NamespaceState("red", 11))
    assert own.activate_claims(before, [QUIET]) == ()
    assert own.activate_claims(own.pending_claims(), [PeerLease("blue", "blue", 10)]) == ()


def test_another_edit_of_the_namespace_interrupts_nothing() -> None:
    own = begun()
    assert own.apply_change("vision", NamespaceState("red", 20)) == OwnershipChange()
    assert own.may_write("vision")
    assert own.followed_version == 20


def test_a_namespace_changed_unobserved_leaves_and_returns() -> None:
    own = begun()
    assert own.apply_list({"vision": NamespaceState("red", 30)}, 40) == OwnershipChange(
        came=("vision",), left=("vision",)
    )
    assert not own.may_write("vision")
    assert own.pending_claims() == (("vision", 30),)
    assert own.apply_list({"vision": NamespaceState("red", 30)}, 50) == OwnershipChange()


def test_a_left_namespace_is_followed_when_its_writes_have_ended() -> None:
    own = begun()
    with own.guard_write("vision"):
        assert own.apply_change("vision", NamespaceState("blue", 20)) == OwnershipChange(left=("vision",))
        own.apply_bookmark(30)
        assert own.followed_version == 10
        with (
            pytest.raises(NamespaceNotOwned, match="shard red does not work on namespace vision"),
            own.guard_write("vision"),
        ):
            pass
    assert own.followed_version == 30


def test_a_write_whose_end_is_not_known_holds_the_namespace_back() -> None:
    own = begun()
    with own.guard_write("vision") as claim:
        own.begin_write(claim)
    own.apply_change("vision", NamespaceState("blue", 20))
    assert own.followed_version == 10
    own.end_write(claim)
    assert own.followed_version == 20


def test_writes_of_a_later_claim_hold_nothing_back() -> None:
    own = begun()
    with own.guard_write("vision"):
        own.apply_change("vision", NamespaceState("blue", 20))
        own.apply_change("vision", NamespaceState("red", 30))
        assert own.activate_claims(own.pending_claims(), [QUIET]) == ("vision",)
        late = own.guard_write("vision")
        late.__enter__()
        assert own.followed_version == 10
    assert own.followed_version == 30


def test_events_that_a_list_has_covered_change_nothing() -> None:
    own = begun(version=10)
    own.apply_list({"vision": NamespaceState("red", 10)}, 50)
    assert own.apply_change("vision", NamespaceState("blue", 9)) == OwnershipChange()
    assert own.apply_deletion("vision", 8) == OwnershipChange()
    own.apply_bookmark(7)
    assert own.may_write("vision")
    assert own.followed_version == 50


def test_a_recreated_namespace_is_another_one() -> None:
    own = begun()
    assert own.apply_deletion("vision", 20) == OwnershipChange(left=("vision",))
    assert not own.is_mine("vision")
    assert own.apply_change("vision", NamespaceState("red", 30)) == OwnershipChange(came=("vision",))
    assert not own.may_write("vision")
    assert own.apply_list({}, 40) == OwnershipChange(left=("vision",))


def test_an_older_list_is_a_restored_backup() -> None:
    own = begun()
    with pytest.raises(ClusterRestored, match="as of 9, after 10"):
        own.apply_list({}, 9)


def test_objects_without_namespace_are_the_default_shards() -> None:
    assert NamespaceOwnership("default").may_write("")
    assert not NamespaceOwnership("red").may_write("")
    with (
        pytest.raises(NamespaceNotOwned, match="what belongs to no namespace"),
        NamespaceOwnership("red").guard_write(""),
    ):
        pass


def test_sizes_count_the_namespaces_of_each_shard() -> None:
    own = NamespaceOwnership("red")
    own.apply_list({"a": NamespaceState("red", 1), "b": NamespaceState("blue", 2), "c": NamespaceState("red", 3)}, 3)
    assert own.count_by_shard() == {"red": 2, "blue": 1}
    assert own.list_namespaces() == ("a", "c")
