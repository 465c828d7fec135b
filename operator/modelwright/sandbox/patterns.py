"""Matches regular expressions. Runs in the sandbox's process: a pattern may never end on a text of 30 characters.

A question is {"pattern": "...", "texts": [...]}; an answer a list of true and false, whether the pattern matches the
whole of each text, or null for a pattern that Python can't read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def answer_question(question: Mapping[str, Any]) -> list[bool] | None:
    """Answer one question."""
    try:
        pattern = re.compile(question["pattern"])
    except (re.error, OverflowError, RecursionError):
        return None
    return [pattern.fullmatch(text) is not None for text in question["texts"]]
