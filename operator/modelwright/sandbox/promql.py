"""Describes a PromQL query as plain data. Runs in the sandbox's process.

A question is {"query": "..."}; an answer {"error": "..."}, or the fields of `measurement.queries.ParsedQuery`.
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

# Functions that give a number without any series; scalar() gives NaN, which a comparison turns into a number.
_CONSTANT_FUNCTIONS = frozenset({"absent", "absent_over_time", "scalar", "vector"})
_SIGNS = ((MatchOp.Equal, "="), (MatchOp.NotEqual, "!="), (MatchOp.Re, "=~"), (MatchOp.NotRe, "!~"))
_LINE_END = re.compile(r"\s*\n\s*")


def answer_question(question: Mapping[str, Any]) -> Json:
    """Answer one question."""
    try:
        return _describe_query(promql_parser.parse(question["query"]))
    except ValueError as error:
        return {"error": str(error).partition("\n")[0][:300]}
    except RecursionError:
        return {"error": "it is nested too deep"}


def _describe_query(query: Expr) -> Json:
    selectors: list[Json] = []
    functions: set[str] = set()
    counts: list[str] = []
    nodes = [(query, False)]
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
        nodes += [(child, isinstance(node, MatrixSelector)) for child in reversed(_list_children(node))]
    plain = isinstance(query, VectorSelector) and query.offset is None and query.at is None
    return {
        "printed": _print_faithfully(query),
        "selectors": selectors,
        "functions": sorted(functions),
        "plain": plain,
        "always": _always_gives_number(query),
        "data": " or ".join(dict.fromkeys(counts)),
    }


def _list_children(node: Expr) -> list[Expr]:
    """List the expressions that `node` consists of. Raises ValueError for an unknown kind of node.

    The library's own walk copies the subtree of every node again: minutes where this takes milliseconds.
    """
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
    """Print `node` in one line.

    Uses the library's pretty print, because its compact one (`str`) doesn't escape strings, and may print another
    query. The pretty print escapes line ends in strings.
    """
    return _LINE_END.sub(" ", node.prettify()).strip()


def _print_faithfully(query: Expr) -> str | None:
    """Print the query; None when that text would parse to another query."""
    text = _print_node(query)
    try:
        return text if promql_parser.parse(text).prettify() == query.prettify() else None
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
    """Whether `node` gives a number when none of its selectors finds a series, as `... or vector(0)` does."""
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
