"""Users' PromQL: placeholders filled in, plain selectors told from queries, a label demanded of every selector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import promql_parser
from promql_parser import Call, Expr, Matchers, MatchOp, VectorSelector

from modelwright.analysis.port import Ask, Target
from modelwright.analysis.web import Fault
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import OF_A_REVISION

PLACEHOLDERS = ("NAMESPACE", "MODEL", "VERSION", "REVISION", "PODS")
_PLACEHOLDER = re.compile(r"\$\(([^()]*)\)")
# The one function that reads series which no selector of the query names.
_READS_MORE = frozenset({"info"})
Sign = Literal["=", "!=", "=~", "!~"]
_SIGNS: tuple[tuple[MatchOp, Sign], ...] = (
    (MatchOp.Equal, "="),
    (MatchOp.NotEqual, "!="),
    (MatchOp.Re, "=~"),
    (MatchOp.NotRe, "!~"),
)


@dataclass(frozen=True, slots=True)
class Match:
    """A matcher: label="value", or label=~"pattern" of whole values."""

    label: str
    value: str
    sign: Sign = "="

    def __str__(self) -> str:
        return f'{self.label}{self.sign}"{_escaped(self.value)}"'


def placeholders(ask: Ask, target: Target) -> dict[str, str]:
    """What the placeholders stand for."""
    values = (ask.namespace, ask.model, target.version, target.revision, target.pods)
    return dict(zip(PLACEHOLDERS, values, strict=True))


def fill(text: str, known: Mapping[str, str]) -> str:
    """`text` with its placeholders filled in. Raises Fault, permanent, for one that is not known."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in known:
            listed = ", ".join(f"$({name})" for name in known)
            raise Fault(Reason.QUERY_REFUSED, f"$({found[1]}) is no placeholder; known are {listed}", permanent=True)
        return _escaped(known[found[1]])

    return _PLACEHOLDER.sub(value, text)


def tells_revisions_apart(text: str) -> bool:
    """Whether `text` has a placeholder whose value differs from revision to revision."""
    return any(found in OF_A_REVISION for found in _PLACEHOLDER.findall(text))


def parse(text: str, what: str) -> Expr:
    """The parsed query. Raises Fault, permanent, when it is none; `what` names its place in the policy."""
    try:
        return promql_parser.parse(text)
    except ValueError as error:
        raise Fault(Reason.QUERY_REFUSED, f"{what} is no PromQL that can be read: {error}", permanent=True) from None


def plain(text: str, what: str, more: Iterable[Match] = ()) -> str:
    """`text`, which must be a plain selector, with the matchers `more`. Raises Fault, permanent, when it is anything
    else than a selector."""
    found = parse(text, what)
    if not isinstance(found, VectorSelector) or found.offset is not None or found.at is not None:
        message = f"{what} must be a plain selector of counters, without functions, range, offset or @, and is {text}"
        raise Fault(Reason.QUERY_REFUSED, message, permanent=True)
    return select(found.name or "", [*_matches(found.matchers, what), *more])


def select(name: str, matches: Sequence[Match]) -> str:
    """The selector of the metric `name` (may be empty: then a matcher names it) with these matchers."""
    return f"{name}{{{','.join(map(str, matches))}}}"


def literal(text: str) -> str:
    """`text` as an RE2 pattern of itself."""
    # RE2 knows no escaped letters of other scripts, and needs none.
    return "".join(char if char.isalnum() or char in "_-:" or not char.isascii() else f"\\{char}" for char in text)


def enforced(text: str, label: str, value: str, what: str) -> str:
    """`text` when every selector in it has `label="value"`, else Fault, permanent.

    It is printed again from what was parsed, so that the server reads what was checked.
    """
    found = parse(text, what)
    missing: list[str] = []

    def look(node: Expr) -> None:
        if isinstance(node, VectorSelector) and Match(label, value) not in _matches(node.matchers, what):
            missing.append(node.prettify().strip())
        if isinstance(node, Call) and node.func.name in _READS_MORE:
            raise Fault(
                Reason.QUERY_REFUSED, f"{what} must not use {node.func.name}() on this connection", permanent=True
            )

    promql_parser.walk(found, pre_visit=look)
    if missing:
        message = (
            f'{what}: on this connection every selector needs {label}="{value}", and {missing[0]} does not have it'
        )
        raise Fault(Reason.QUERY_REFUSED, f'{message}; write {label}="$(NAMESPACE)"', permanent=True)
    text = found.prettify()
    if parse(text, what).prettify() != text:
        raise Fault(
            Reason.QUERY_REFUSED, f"{what} can't be printed again as it was read: write it more plainly", permanent=True
        )
    return text


def _matches(matchers: Matchers, what: str) -> list[Match]:
    if matchers.or_matchers:
        raise Fault(Reason.QUERY_REFUSED, f"{what}: `or` between matchers is not PromQL of Prometheus", permanent=True)
    return [Match(one.name, one.value, _sign(one.op)) for one in matchers.matchers]


def _sign(op: MatchOp) -> Sign:
    return next(sign for known, sign in _SIGNS if known == op)


def _escaped(text: str) -> str:
    """`text` as it stands between double quotes."""
    return "".join(
        f"\\{char}" if char in '\\"' else char if char.isprintable() else f"\\U{ord(char):08x}" for char in text
    )
