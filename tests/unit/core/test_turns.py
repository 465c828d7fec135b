"""A namespace has only so many resolve pods at once: what Models want goes first, then the oldest."""

from modelwright.core.turns import FORGOTTEN, OTHERS, STARTS, WANTED, Claim, Turns

NS = "vision"


def claim(number: int, rank: int = OTHERS) -> Claim:
    return Claim(rank, f"2026-12-01T00:{number // 60:02}:{number % 60:02}Z", "ModelVersion", f"v{number}")


def gets_a_pod(turns: Turns, it: Claim, under_way: int) -> bool:
    taken = turns.take(NS, it, under_way, 0.0) is None
    turns.made(NS, it.kind, it.name)
    return taken


def test_as_many_as_may_be_get_a_pod_and_a_fifth_is_kept_for_what_is_wanted() -> None:
    turns = Turns(10)
    taken = 0
    for number in range(90):
        taken += gets_a_pod(turns, claim(number), taken)
    assert taken == 8
    assert gets_a_pod(turns, claim(100, WANTED), taken)
    assert gets_a_pod(turns, claim(101, STARTS), taken + 1)
    assert turns.take(NS, claim(102, STARTS), taken + 2, 0.0) == 0


def test_pods_that_are_being_made_count_before_anybody_sees_them() -> None:
    turns = Turns(10)
    assert sum(turns.take(NS, claim(number), 0, 0.0) is None for number in range(20)) == 8
    turns.made(NS, "ModelVersion", "v0")
    assert turns.take(NS, claim(8), 1, 0.0) == 0, "the pod that was made is there now"
    turns.made(NS, "ModelVersion", "v1")
    assert gets_a_pod(turns, claim(8), 1), "the second one could not be made"
    for number in range(2, 8):
        turns.made(NS, "ModelVersion", f"v{number}")
    assert not turns._making


def test_another_namespace_has_a_line_of_its_own() -> None:
    turns = Turns(2)
    assert turns.take(NS, claim(1), 1, 0.0) == 0
    assert turns.take("other", claim(2), 0, 0.0) is None


def test_the_oldest_is_next_whoever_asks_first() -> None:
    turns = Turns(2)
    for number in (3, 1, 2):
        turns.take(NS, claim(number), 1, 0.0)
    assert turns.first(NS) == claim(1)
    assert turns.take(NS, claim(2), 0, 0.0) == 1, "the place that is free is the oldest's"
    assert turns.take(NS, claim(1), 0, 0.0) is None
    assert turns.first(NS) == claim(2)


def test_what_becomes_wanted_changes_its_place() -> None:
    turns = Turns(2)
    for number in range(5):
        turns.take(NS, claim(number), 1, 0.0)
    assert turns.take(NS, claim(4, STARTS), 2, 0.0) == 0
    assert turns.first(NS) == claim(4, STARTS)
    assert turns.take(NS, claim(4, STARTS), 1, 0.0) is None


def test_who_has_gone_or_asks_no_more_holds_nobody_up() -> None:
    turns = Turns(2)
    turns.take(NS, claim(1), 1, 0.0)
    turns.take(NS, claim(2), 1, 100.0)
    turns.leave(NS, "ModelVersion", "v9")
    assert turns.take(NS, claim(3), 0, 100.0) == 2
    assert turns.take(NS, claim(3), 0, FORGOTTEN + 1) == 1, "v1 has not asked again"
    turns.leave(NS, "ModelVersion", "v2")
    assert turns.take(NS, claim(3), 0, FORGOTTEN + 1) is None
    assert turns.first(NS) is None
    assert not turns._lines
    assert not turns._asked
