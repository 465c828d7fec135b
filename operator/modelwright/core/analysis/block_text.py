"""Text form of the deciding blocks, which a record keeps to show a rollout and to judge it again.

Each block is "end candidate serving", its end in unix seconds, each revision's requests as bad/all; blocks are
separated by commas: "1796045130 1/60 5/540,1796045145 0/58 4/551".
"""

from __future__ import annotations

import math

from modelwright.core.analysis.evidence import Block

MAX_BLOCKS = 64
"""Most blocks that are kept for one metric in one step."""
MAX_CHARACTERS = 16 * 1024
"""Most characters for all metrics and steps of a rollout."""
_BLOCK_CHARACTERS = 48
"""Characters of a block with ten million requests, including its comma."""

BlocksOfBoth = tuple[tuple[Block, ...], tuple[Block, ...]]


def format_blocks(blocks: BlocksOfBoth, room: int) -> str:
    """Format the blocks of candidate and serving revision as text of at most `room` characters.

    Neighbours are merged until they fit; the text is empty when not even one does.
    """
    most = min(MAX_BLOCKS, room // _BLOCK_CHARACTERS)
    if most < 1:
        return ""
    size = max(1, math.ceil(len(blocks[0]) / most))
    merged = [[_merge_blocks(arm[at : at + size]) for at in range(0, len(arm), size)] for arm in blocks]
    return ",".join(
        f"{one.end:.0f} {one.events}/{one.trials} {zero.events}/{zero.trials}"
        for one, zero in zip(*merged, strict=True)
    )


def parse_blocks(text: str) -> BlocksOfBoth:
    """Parse the text of `format_blocks`. Raises ValueError for anything else."""
    ones: list[Block] = []
    zeros: list[Block] = []
    for part in text.split(",") if text else ():
        end, *arms = part.split(" ")
        for blocks, arm in zip((ones, zeros), arms, strict=True):
            events, _, trials = arm.partition("/")
            blocks.append(Block(float(end), int(trials), int(events)))
    return tuple(ones), tuple(zeros)


def _merge_blocks(blocks: tuple[Block, ...]) -> Block:
    return Block(blocks[-1].end, sum(block.trials for block in blocks), sum(block.events for block in blocks))
