"""JSON of every shape, and nearly valid documents, as untrusted input."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 2**31, 2**53 + 1, 2**64, 10**400])
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["", "\0", "\ud800", "NaN", "1e999", "9" * 400, "²", "$(HOME)", "../..", "a" * 5000, "2026-11-26T03:00:00Z"]
    )
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=12), anything, max_size=6)

DEEP = "[" * 4000
"""Short enough for a termination message; too deep for a parser that recurses."""


@st.composite
def mangled(draw: st.DrawFn, *documents: Any) -> Any:
    """One of the documents with up to three of its members replaced, removed or doubled; or anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(anything)
    result = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(result))
        if not places:
            return result
        holder, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "replace":
            holder[key] = draw(anything)
        elif what == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[draw(st.text(max_size=8))] = draw(anything)
    return result


def _places(node: Any) -> list[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [place for key in keys for place in _places(node[key])]


@st.composite
def bodies(draw: st.DrawFn, *documents: Any) -> bytes:
    """The bytes of such a document, whole or cut; or any bytes."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return draw(st.sampled_from([DEEP, '{"a":' * 4000, "1" * 5000, "\ufeff{}", "-", '"\\ud800"'])).encode()
    body = json.dumps(draw(mangled(*documents))).encode()
    return body[: draw(st.integers(0, len(body)))] if kind == 2 else body
