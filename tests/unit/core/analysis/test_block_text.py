"""Blocks in the record: they can be judged again, and never take more than their room."""

import pytest

from modelwright.core.analysis.block_text import MAX_BLOCKS, format_blocks, parse_blocks
from modelwright.core.analysis.blocks import evidence_within, pair_blocks
from modelwright.core.analysis.evidence import Block


def blocks(number: int, trials: int = 60, events: int = 1) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    ends = [1796045130.0 + 15 * at for at in range(number)]
    return (
        tuple(Block(end, trials, events) for end in ends),
        tuple(Block(end, 9 * trials, 9 * events) for end in ends),
    )


def test_few_blocks_are_kept_as_they_are() -> None:
    assert format_blocks(blocks(2), 4096) == "1796045130 1/60 9/540,1796045145 1/60 9/540"
    assert parse_blocks(format_blocks(blocks(MAX_BLOCKS), 4096)) == blocks(MAX_BLOCKS)
    assert parse_blocks(format_blocks(((), ()), 4096)) == ((), ())


@pytest.mark.parametrize("number", [65, 130, 1000])
def test_many_are_merged_without_losing_a_request(number: int) -> None:
    kept = parse_blocks(format_blocks(blocks(number), 4096))
    assert len(kept[0]) == len(kept[1]) <= MAX_BLOCKS
    for arm, whole in zip(kept, blocks(number), strict=True):
        assert sum(block.trials for block in arm) == sum(block.trials for block in whole)
        assert sum(block.events for block in arm) == sum(block.events for block in whole)
        assert arm[-1].end == whole[-1].end


@pytest.mark.parametrize("room", [0, 47, 48, 500, 1000, 4096])
def test_it_never_takes_more_than_its_room(room: int) -> None:
    text = format_blocks(blocks(64, 10**6, 10**5), room)
    assert len(text) <= room
    assert bool(text) == (room >= 48)


def test_kept_blocks_are_judged_as_before() -> None:
    found = blocks(60, 100)
    assert evidence_within(pair_blocks(*parse_blocks(format_blocks(found, 4096))), 0.02) == evidence_within(
        pair_blocks(*found), 0.02
    )


@pytest.mark.parametrize("text", ["x", "1 2/3", "1 2/3 4/5 6/7", "1 a/3 4/5", "1 3/2 4/5"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_blocks(text)
