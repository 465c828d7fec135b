"""Ownership of namespaces, step by step; every order of steps is in tests/property/test_sharding.py."""

from __future__ import annotations

import pytest

from modelwright.api.names import LABEL_SHARD
from modelwright.core.sharding import Change, NotOurs, Ownership, Peer, State, WentBack, shard_of

QUIET = Peer("blue", "blue", 1000)


def begun(shard: str = "red", namespace: str = "vision", version: int = 10) -> Ownership:
    """A shard that works on one namespace."""
    own = Ownership(shard)
    own.listed({namespace: State(shard, version)}, version)
    assert own.begin(own.waiting(), [QUIET]) == (namespace,)
    return own


@pytest.mark.parametrize(
    ("labels", "shard"),
    [(None, "default"), ({}, "default"), ({LABEL_SHARD: ""}, "default"), ({LABEL_SHARD: "red"}, "red")],
)
def test_a_namespace_without_the_label_is_the_default_shards(labels: dict[str, str] | None, shard: str) -> None:
    assert shard_of(labels) == shard


def test_nothing_is_followed_and_nothing_written_before_the_first_list() -> None:
    own = Ownership("red")
    assert own.changed("vision", State("red", 5)) == Change()
    assert own.followed is None
    assert not own.may_write("vision")


def test_it_waits_until_every_other_leader_has_followed_to_the_change() -> None:
    own = Ownership("red")
    own.listed({"vision": State("blue", 5)}, 9)
    assert own.changed("vision", State("red", 12)) == Change(came=("vision",))
    waiting = own.waiting()
    assert waiting == (("vision", 12),)
    for followed in (None, 11):
        assert own.begin(waiting, [Peer("blue", "blue", followed), Peer("green", "green", 50)]) == ()
        assert not own.may_write("vision")
    assert own.begin(waiting, [Peer("blue", "blue", 12), Peer("green", "green", 50)]) == ("vision",)
    assert own.may_write("vision")
    assert own.waiting() == ()


def test_a_lease_that_nobody_holds_is_not_waited_for() -> None:
    own = Ownership("red")
    own.listed({"vision": State("red", 5)}, 9)
    assert own.begin(own.waiting(), [Peer("blue", "blue", None, led=False)]) == ("vision",)


def test_a_second_lease_of_the_same_shard_and_an_unsharded_operator_are_never_passed() -> None:
    own = Ownership("red")
    own.listed({"vision": State("red", 5)}, 9)
    assert own.begin(own.waiting(), [Peer("another", "red", 99)]) == ()
    assert own.begin(own.waiting(), [Peer("modelwright-operator", "", None)]) == ()


def test_a_verdict_about_an_earlier_claim_begins_nothing() -> None:
    own = Ownership("red")
    own.listed({"vision": State("red", 5)}, 9)
    before = own.waiting()
    own.changed("vision", State("blue", 10))
    own.changed("vision", State("red", 11))
    assert own.begin(before, [QUIET]) == ()
    assert own.begin(own.waiting(), [Peer("blue", "blue", 10)]) == ()


def test_another_edit_of_the_namespace_interrupts_nothing() -> None:
    own = begun()
    assert own.changed("vision", State("red", 20)) == Change()
    assert own.may_write("vision")
    assert own.followed == 20


def test_what_has_changed_unseen_is_given_up_and_comes_again() -> None:
    own = begun()
    assert own.listed({"vision": State("red", 30)}, 40) == Change(came=("vision",), left=("vision",))
    assert not own.may_write("vision")
    assert own.waiting() == (("vision", 30),)
    assert own.listed({"vision": State("red", 30)}, 50) == Change()


def test_a_namespace_that_leaves_is_not_written_in_and_said_only_when_writes_have_ended() -> None:
    own = begun()
    with own.writing("vision"):
        assert own.changed("vision", State("blue", 20)) == Change(left=("vision",))
        own.passed(30)
        assert own.followed == 10
        with pytest.raises(NotOurs, match="shard red does not work on namespace vision"), own.writing("vision"):
            pass
    assert own.followed == 30


def test_a_write_whose_end_is_not_known_holds_the_namespace_back() -> None:
    own = begun()
    with own.writing("vision") as claim:
        own.hold(claim)
    own.changed("vision", State("blue", 20))
    assert own.followed == 10
    own.let_go(claim)
    assert own.followed == 20


def test_writes_of_a_later_claim_hold_nothing_back() -> None:
    own = begun()
    with own.writing("vision"):
        own.changed("vision", State("blue", 20))
        own.changed("vision", State("red", 30))
        assert own.begin(own.waiting(), [QUIET]) == ("vision",)
        late = own.writing("vision")
        late.__enter__()
        assert own.followed == 10
    assert own.followed == 30


def test_events_that_a_list_has_covered_change_nothing() -> None:
    own = begun(version=10)
    own.listed({"vision": State("red", 10)}, 50)
    assert own.changed("vision", State("blue", 9)) == Change()
    assert own.deleted("vision", 8) == Change()
    own.passed(7)
    assert own.may_write("vision")
    assert own.followed == 50


def test_a_deleted_namespace_leaves_and_one_of_its_name_is_another() -> None:
    own = begun()
    assert own.deleted("vision", 20) == Change(left=("vision",))
    assert not own.mine("vision")
    assert own.changed("vision", State("red", 30)) == Change(came=("vision",))
    assert not own.may_write("vision")
    assert own.listed({}, 40) == Change(left=("vision",))


def test_a_list_from_before_what_was_seen_is_a_restored_backup() -> None:
    own = begun()
    with pytest.raises(WentBack, match="as of 9, after 10"):
        own.listed({}, 9)


def test_what_belongs_to_no_namespace_is_the_default_shards() -> None:
    assert Ownership("default").may_write("")
    assert not Ownership("red").may_write("")
    with pytest.raises(NotOurs, match="what belongs to no namespace"), Ownership("red").writing(""):
        pass


def test_sizes_count_the_namespaces_of_each_shard() -> None:
    own = Ownership("red")
    own.listed({"a": State("red", 1), "b": State("blue", 2), "c": State("red", 3)}, 3)
    assert own.sizes() == {"red": 2, "blue": 1}
    assert own.namespaces() == ("a", "c")
