"""A namespace has only so many resolve pods at once: what Models want goes first, then the oldest."""

from modelwright.core.resolve_queue import (
    FORGET_AFTER_SECONDS,
    RANK_OTHER,
    RANK_STARTING,
    RANK_WANTED,
    ResolveQueue,
    ResolveTicket,
)

NS = "vision"


def claim(number: int, rank: int = RANK_OTHER) -> ResolveTicket:
    return ResolveTicket(rank, f"2026-12-01T00:{number // 60:02}:{number % 60:02}Z", "ModelVersion", f"v{number}")


def gets_a_pod(turns: ResolveQueue, it: ResolveTicket, under_way: int) -> bool:
    taken = turns.request_turn(NS, it, under_way, 0.0) is None
    turns.finish_making(NS, it.kind, it.name)
    return taken


def test_pods_are_limited_and_a_fifth_is_reserved() -> None:
    turns = ResolveQueue(10)
    taken = 0
    for number in range(90):
        taken += gets_a_pod(turns, claim(number), taken)
    assert taken == 8
    assert gets_a_pod(turns, claim(100, RANK_WANTED), taken)
    assert gets_a_pod(turns, claim(101, RANK_STARTING), taken + 1)
    assert turns.request_turn(NS, claim(102, RANK_STARTING), taken + 2, 0.0) == 0


def test_pods_that_are_being_made_count_before_anybody_sees_them() -> None:
    turns = ResolveQueue(10)
    assert sum(turns.request_turn(NS, claim(number), 0, 0.0) is None for number in range(20)) == 8
    turns.finish_making(NS, "ModelVersion", "v0")
    assert turns.request_turn(NS, claim(8), 1, 0.0) == 0, "the pod that was made is there now"
    turns.finish_making(NS, "ModelVersion", "v1")
    assert gets_a_pod(turns, claim(8), 1), "the second one could not be made"
    for number in range(2, 8):
        turns.finish_making(NS, "ModelVersion", f"v{number}")
    assert not turns._making


def test_another_namespace_has_a_line_of_its_own() -> None:
    turns = ResolveQueue(2)
    assert turns.request_turn(NS, claim(1), 1, 0.0) == 0
    assert turns.request_turn("other", claim(2), 0, 0.0) is None


def test_the_oldest_is_next_in_any_order_of_requests() -> None:
    turns = ResolveQueue(2)
    for number in (3, 1, 2):
        turns.request_turn(NS, claim(number), 1, 0.0)
    assert turns.next_ticket(NS) == claim(1)
    assert turns.request_turn(NS, claim(2), 0, 0.0) == 1, "the place that is free is the oldest's"
    assert turns.request_turn(NS, claim(1), 0, 0.0) is None
    assert turns.next_ticket(NS) == claim(2)


def test_a_changed_rank_changes_the_place() -> None:
    turns = ResolveQueue(2)
    for number in range(5):
        turns.request_turn(NS, claim(number), 1, 0.0)
    assert turns.request_turn(NS, claim(4, RANK_STARTING), 2, 0.0) == 0
    assert turns.next_ticket(NS) == claim(4, RANK_STARTING)
    assert turns.request_turn(NS, claim(4, RANK_STARTING), 1, 0.0) is None


def test_a_gone_or_silent_ticket_blocks_no_other() -> None:
    turns = ResolveQueue(2)
    turns.request_turn(NS, claim(1), 1, 0.0)
    turns.request_turn(NS, claim(2), 1, 100.0)
    turns.leave_queue(NS, "ModelVersion", "v9")
    assert turns.request_turn(NS, claim(3), 0, 100.0) == 2
    assert turns.request_turn(NS, claim(3), 0, FORGET_AFTER_SECONDS + 1) == 1, "v1 has not asked again"
    turns.leave_queue(NS, "ModelVersion", "v2")
    assert turns.request_turn(NS, claim(3), 0, FORGET_AFTER_SECONDS + 1) is None
    assert turns.next_ticket(NS) is None
    assert not turns._queues
    assert not turns._requested
