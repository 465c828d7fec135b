"""Users' PromQL: placeholders filled in, plain selectors kept apart from queries, a label demanded of every selector.

The text is bounded here, and read in the sandbox: its parser takes time and memory that grow with the square of what is
nested, and with the cube when it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelwright.analysis.port import Ask, Target
from modelwright.analysis.web import Fault
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import MOST_BRACKETS, MOST_SIGNS, OF_A_REVISION
from modelwright.sandbox.process import SANDBOX, Unknown

PLACEHOLDERS = ("NAMESPACE", "MODEL", "VERSION", "REVISION", "PODS")
_PLACEHOLDER = re.compile(r"\$\(([^()]*)\)")
# The one function that reads series which no selector of the query names.
_READS_MORE = frozenset({"info"})
Sign = Literal["=", "!=", "=~", "!~"]
MOST_CHARACTERS = 16 << 10
"""Of a query whose placeholders are filled in."""
MOST_OPERATORS = 128
"""Operators in a query, since each is nested in the next one."""
# Each alternative for a text reaches its end, or the query's, so that none is tried again from within.
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.?)*+"?|'(?:[^'\\]|\\.?)*+'?|`[^`]*+`?|\#[^\n]*+)
    |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<space>\s++)|(?P<sign>[-+])
    |(?P<operator>[*/%^]|[=!]=|[<>]=?|\b(?:and|or|unless|atan2)\b)|(?P<other>\w++|.)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
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


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector of a query: its matchers, of which one may be for `__name__`, and its text for people."""

    name: str
    matches: tuple[Match, ...]
    text: str
    alternatives: bool = False
    """Whether it has `or` between matchers, which Prometheus doesn't know."""


@dataclass(frozen=True, slots=True)
class Query:
    """What the sandbox says of a query."""

    printed: str | None
    """The query in one line; None when that would be read as another one."""
    selectors: tuple[Selector, ...]
    functions: frozenset[str]
    plain: bool
    """Whether it is a selector alone, without offset and @."""
    always: bool
    """Whether it gives a number when none of its selectors finds a series, as `... or vector(0)` does."""
    data: str
    """A query that gives something exactly when a selector finds a series; empty without any selector."""


async def parse(text: str, what: str, who: str, *, wait: bool = True) -> Query:
    """The parsed query. Raises Fault, permanent, when it is none; `what` names its place in the policy. `who`:
    namespace whose text it is. Without `wait`, as for a pass, raises Busy while the sandbox reads for that namespace.
    """
    found = await _read(text, what, who, wait)
    if isinstance(found, str):
        raise Fault(Reason.QUERY_REFUSED, f"{what} is no PromQL that can be read: {found}", permanent=True)
    return found


async def parsed_here(text: str, what: str, who: str, *, wait: bool = True) -> Query | None:
    """As `parse`, and None for what only the server can read: it may be newer than our parser."""
    found = await _read(text, what, who, wait)
    return None if isinstance(found, str) else found


def check_size(text: str, what: str) -> None:
    """Raises Fault, permanent, for a query that is longer or nested deeper than any that is sent or read. Takes time in
    proportion to its length."""
    if wrong := _too_much(text):
        raise Fault(Reason.QUERY_REFUSED, f"{what} {wrong}", permanent=True)


async def _read(text: str, what: str, who: str, wait: bool) -> Query | str:
    """The query; or why it is none, as the parser says."""
    question = {"query": text}
    known = SANDBOX.known("promql", question)
    if known is None:
        check_size(text, what)
        turn = SANDBOX.in_turn if wait else SANDBOX.in_free_turn
        known = await turn(who, SANDBOX.ask, "promql", question, keep=True)
    if isinstance(known, Unknown):
        raise Fault(Reason.QUERY_REFUSED, f"{what} can't be read: {known.why}; write it shorter")
    if "error" in known:
        return str(known["error"])
    selectors = tuple(_selector(one) for one in known["selectors"])
    return Query(
        known["printed"], selectors, frozenset(known["functions"]), known["plain"], known["always"], known["data"]
    )


def _selector(parsed: Mapping[str, Any]) -> Selector:
    matches = tuple(Match(label, value, sign) for label, value, sign in parsed["matches"])
    return Selector(parsed["name"], matches, parsed["text"], parsed["alternatives"])


def _too_much(text: str) -> str:
    """What of a query is more than the bounds; empty when nothing is."""
    if len(text) > MOST_CHARACTERS:
        return f"has {len(text)} characters with its placeholders filled in, and may have {MOST_CHARACTERS}"
    depth = signs = operators = 0
    braces = False
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind == "space" or (kind == "text" and text[found.start()] == "#"):
            continue
        signs = signs + 1 if kind == "sign" else 0
        operators += (kind == "sign" or kind == "operator") and not braces
        if kind in ("open", "close"):
            braces = found[0] == "{"
            depth += 1 if kind == "open" else -1
        if depth > MOST_BRACKETS:
            return f"has more than {MOST_BRACKETS} brackets in each other"
        if signs > MOST_SIGNS:
            return f"has more than {MOST_SIGNS} signs in a row"
    return f"has {operators} operators, and may have {MOST_OPERATORS}" if operators > MOST_OPERATORS else ""


async def plain(text: str, what: str, who: str, more: Iterable[Match] = (), *, wait: bool = True) -> str:
    """`text`, which must be a plain selector, with the matchers `more`. Raises Fault, permanent, when it is anything
    else than a selector."""
    found = await parse(text, what, who, wait=wait)
    if not found.plain:
        message = f"{what} must be a plain selector of counters, without functions, range, offset or @, and is {text}"
        raise Fault(Reason.QUERY_REFUSED, message, permanent=True)
    (selector,) = found.selectors
    return select(selector.name, [*_matches(selector, what), *more])


def select(name: str, matches: Sequence[Match]) -> str:
    """The selector of the metric `name` (may be empty: then a matcher names it) with these matchers."""
    return f"{name}{{{','.join(map(str, matches))}}}"


async def named(text: str, what: str, who: str) -> tuple[tuple[Match, ...], tuple[Match, ...]]:
    """The matchers of a plain selector: those of the metric's name, and the others."""
    (selector,) = (await parse(text, what, who)).selectors
    others = _matches(selector, what)
    names = [Match("__name__", selector.name)] if selector.name else []
    names += [match for match in others if match.label == "__name__"]
    return tuple(names), tuple(match for match in others if match.label != "__name__")


def literal(text: str) -> str:
    """`text` as an RE2 pattern of itself."""
    # RE2 knows no escaped letters of other scripts, and needs none.
    return "".join(char if char.isalnum() or char in "_-:" or not char.isascii() else f"\\{char}" for char in text)


async def enforced(text: str, label: str, value: str, what: str) -> str:
    """`text` when every selector in it has `label="value"`, else Fault, permanent. `value` is the namespace.

    It is printed again from what was parsed, so that the server reads what was checked.
    """
    found = await parse(text, what, value)
    for function in sorted(found.functions & _READS_MORE):
        raise Fault(Reason.QUERY_REFUSED, f"{what} must not use {function}() on this connection", permanent=True)
    for selector in found.selectors:
        if Match(label, value) not in _matches(selector, what):
            message = f'{what}: on this connection every selector needs {label}="{value}", and {selector.text} does not'
            raise Fault(Reason.QUERY_REFUSED, f'{message} have it; write {label}="$(NAMESPACE)"', permanent=True)
    if found.printed is None:
        raise Fault(
            Reason.QUERY_REFUSED, f"{what} can't be printed again as it was read: write it more plainly", permanent=True
        )
    return found.printed


def _matches(selector: Selector, what: str) -> tuple[Match, ...]:
    if selector.alternatives:
        raise Fault(Reason.QUERY_REFUSED, f"{what}: `or` between matchers is not PromQL of Prometheus", permanent=True)
    return selector.matches


def _escaped(text: str) -> str:
    """`text` as it stands between double quotes."""
    return "".join(
        f"\\{char}" if char in '\\"' else char if char.isprintable() else f"\\U{ord(char):08x}" for char in text
    )
