"""What a query in PromQL reads and gives, as plain data. Runs in the sandbox's process.

A question is {"query": "..."}; an answer {"error": "..."}, or what `analysis.promql.Query` has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import promql_parser
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    Matchers,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

Json = dict[str, Any]

# What gives a number for no series; scalar() gives NaN, which a comparison makes a number.
_CONSTANT_FUNCTIONS = frozenset({"absent", "absent_over_time", "scalar", "vector"})
_SIGNS = ((MatchOp.Equal, "="), (MatchOp.NotEqual, "!="), (MatchOp.Re, "=~"), (MatchOp.NotRe, "!~"))
_LINE_END = re.compile(r"\s*\n\s*")


def answer(question: Mapping[str, Any]) -> Json:
    """The answer to one question."""
    try:
        return _describe_query(promql_parser.parse(question["query"]))
    except ValueError as error:
        return {"error": str(error).partition("\n")[0][:300]}
    except RecursionError:
        return {"error": "it is nested too deep"}


def _describe_query(found: Expr) -> Json:
    selectors: list[Json] = []
    functions: set[str] = set()
    counts: list[str] = []
    nodes = [(found, False)]
    while nodes:
        node, in_range = nodes.pop()
        if isinstance(node, Call):
            functions.add(node.func.name)
        elif isinstance(node, MatrixSelector):
            counts.append(f"count(last_over_time({_print_node(node)}))")
        elif isinstance(node, VectorSelector):
            selectors.append(_describe_selector(node))
            if not in_range:
                counts.append(f"count({selectors[-1]['text']})")
        nodes += [(below, isinstance(node, MatrixSelector)) for below in reversed(_list_children(node))]
    plain = isinstance(found, VectorSelector) and found.offset is None and found.at is None
    return {
        "printed": _print_faithfully(found),
        "selectors": selectors,
        "functions": sorted(functions),
        "plain": plain,
        "always": _always_gives_number(found),
        "data": " or ".join(dict.fromkeys(counts)),
    }


def _list_children(node: Expr) -> list[Expr]:
    """The expressions that `node` is made of. The library's own walk copies what is below each node again, which takes
    minutes where this takes milliseconds. ValueError for a node that is not known here."""
    if isinstance(node, Call):
        return list(node.args)
    if isinstance(node, BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, AggregateExpr):
        return [node.expr] if node.param is None else [node.param, node.expr]
    if isinstance(node, MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, ParenExpr | SubqueryExpr | UnaryExpr):
        return [node.expr]
    if isinstance(node, VectorSelector | NumberLiteral | StringLiteral):
        return []
    raise ValueError(f"a {type(node).__name__} is not known here")


def _print_node(node: Expr) -> str:
    """`node` in one line. The library's pretty print, because its compact one (`str`) doesn't escape what stands
    between quotes, so that it may read as another query. Strings have no line's end: it is escaped."""
    return _LINE_END.sub(" ", node.prettify()).strip()


def _print_faithfully(found: Expr) -> str | None:
    """The query as it is printed, None when that would be read as another one."""
    text = _print_node(found)
    try:
        return text if promql_parser.parse(text).prettify() == found.prettify() else None
    except ValueError:
        return None


def _describe_selector(node: VectorSelector) -> Json:
    matchers: Matchers = node.matchers
    return {
        "name": node.name or "",
        "text": _print_node(node),
        "matches": [[one.name, one.value, _match_sign(one.op)] for one in matchers.matchers],
        "alternatives": bool(matchers.or_matchers),
    }


def _match_sign(op: MatchOp) -> str:
    return next(sign for known, sign in _SIGNS if known == op)


def _always_gives_number(node: Expr) -> bool:
    """Whether it gives a number when none of its selectors finds a series, as `... or vector(0)` does."""
    if isinstance(node, VectorSelector | MatrixSelector):
        return False
    if isinstance(node, Call):
        return node.func.name in _CONSTANT_FUNCTIONS or all(_always_gives_number(one) for one in node.args)
    if isinstance(node, BinaryExpr):
        left, right = _always_gives_number(node.lhs), _always_gives_number(node.rhs)
        sign = str(node.op)
        return left or right if sign == "or" else left if sign == "unless" else left and right
    if isinstance(node, AggregateExpr | ParenExpr | SubqueryExpr | UnaryExpr):
        return _always_gives_number(node.expr)
    return True  # a number or a text
