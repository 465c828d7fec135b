"""Users' PromQL: placeholders filled in, plain selectors kept apart from queries, a label demanded of every selector.

The text is bounded here, and read in the sandbox: its parser takes time and memory that grow with the square of what is
nested, and with the cube when it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import MAX_BRACKETS, MAX_SIGNS, REVISION_PLACEHOLDERS
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.request import MeasurementRequest, RevisionTarget
from modelwright.sandbox.process import SANDBOX, NoAnswer

PLACEHOLDERS = ("NAMESPACE", "MODEL", "VERSION", "REVISION", "PODS")
_PLACEHOLDER = re.compile(r"\$\(([^()]*)\)")
# The one function that reads series which no selector of the query names.
_FORBIDDEN_FUNCTIONS = frozenset({"info"})
MatchSign = Literal["=", "!=", "=~", "!~"]
MAX_CHARACTERS = 16 << 10
"""Of a query whose placeholders are filled in."""
MAX_OPERATORS = 128
"""Operators in a query, since each is nested in the next one."""
# Each alternative for a text reaches its end, or the query's, so that none is tried again from within.
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.?)*+"?|'(?:[^'\\]|\\.?)*+'?|`[^`]*+`?|\#[^\n]*+)
    |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<space>\s++)|(?P<sign>[-+])
    |(?P<operator>[*/%^]|[=!]=|[<>]=?|\b(?:and|or|unless|atan2)\b)|(?P<other>\w++|.)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class LabelMatcher:
    """A matcher: label="value", or label=~"pattern" of whole values."""

    label: str
    value: str
    sign: MatchSign = "="

    def __str__(self) -> str:
        return f'{self.label}{self.sign}"{_escape_string(self.value)}"'


def build_placeholders(ask: MeasurementRequest, target: RevisionTarget) -> dict[str, str]:
    """What the placeholders stand for."""
    values = (ask.namespace, ask.model, target.version, target.revision, target.pod_pattern)
    return dict(zip(PLACEHOLDERS, values, strict=True))


def fill_placeholders(text: str, known: Mapping[str, str]) -> str:
    """`text` with its placeholders filled in. Raises Fault, permanent, for one that is not known."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in known:
            listed = ", ".join(f"$({name})" for name in known)
            raise MeasurementError(
                Reason.QUERY_REFUSED, f"$({found[1]}) is no placeholder; known are {listed}", permanent=True
            )
        return _escape_string(known[found[1]])

    return _PLACEHOLDER.sub(value, text)


def distinguishes_revisions(text: str) -> bool:
    """Whether `text` has a placeholder whose value differs from revision to revision."""
    return any(found in REVISION_PLACEHOLDERS for found in _PLACEHOLDER.findall(text))


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector of a query: its matchers, of which one may be for `__name__`, and its text for people."""

    name: str
    matchers: tuple[LabelMatcher, ...]
    text: str
    alternatives: bool = False
    """Whether it has `or` between matchers, which Prometheus doesn't know."""


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """What the sandbox says of a query."""

    printed: str | None
    """The query in one line; None when that would be read as another one."""
    selectors: tuple[Selector, ...]
    functions: frozenset[str]
    is_selector: bool
    """Whether it is a selector alone, without offset and @."""
    always_gives_number: bool
    """Whether it gives a number when none of its selectors finds a series, as `... or vector(0)` does."""
    presence_query: str
    """A query that gives something exactly when a selector finds a series; empty without any selector."""


async def parse_query(text: str, what: str, who: str, *, wait: bool = True) -> ParsedQuery:
    """The parsed query. Raises Fault, permanent, when it is none; `what` names its place in the policy. `who`:
    namespace whose text it is. Without `wait`, as for a pass, raises Busy while the sandbox reads for that namespace.
    """
    found = await _read_query(text, what, who, wait)
    if isinstance(found, str):
        raise MeasurementError(Reason.QUERY_REFUSED, f"{what} is no PromQL that can be read: {found}", permanent=True)
    return found


async def try_parse_query(text: str, what: str, who: str, *, wait: bool = True) -> ParsedQuery | None:
    """As `parse`, and None for what only the server can read: it may be newer than our parser."""
    found = await _read_query(text, what, who, wait)
    return None if isinstance(found, str) else found


def check_size(text: str, what: str) -> None:
    """Raises Fault, permanent, for a query that is longer or nested deeper than any that is sent or read. Takes time in
    proportion to its length."""
    if wrong := _describe_excess(text):
        raise MeasurementError(Reason.QUERY_REFUSED, f"{what} {wrong}", permanent=True)


async def _read_query(text: str, what: str, who: str, wait: bool) -> ParsedQuery | str:
    """The query; or why it is none, as the parser says."""
    question = {"query": text}
    known = SANDBOX.get_cached("promql", question)
    if known is None:
        check_size(text, what)
        turn = SANDBOX.run_in_turn if wait else SANDBOX.run_if_free
        known = await turn(who, SANDBOX.send_question, "promql", question, keep=True)
    if isinstance(known, NoAnswer):
        raise MeasurementError(Reason.QUERY_REFUSED, f"{what} can't be read: {known.why}; write it shorter")
    if "error" in known:
        return str(known["error"])
    selectors = tuple(_parse_selector(one) for one in known["selectors"])
    return ParsedQuery(
        known["printed"], selectors, frozenset(known["functions"]), known["plain"], known["always"], known["data"]
    )


def _parse_selector(parsed: Mapping[str, Any]) -> Selector:
    matches = tuple(LabelMatcher(label, value, sign) for label, value, sign in parsed["matches"])
    return Selector(parsed["name"], matches, parsed["text"], parsed["alternatives"])


def _describe_excess(text: str) -> str:
    """What of a query is more than the bounds; empty when nothing is."""
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text)} characters with its placeholders filled in, and may have {MAX_CHARACTERS}"
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
        if depth > MAX_BRACKETS:
            return f"has more than {MAX_BRACKETS} brackets in each other"
        if signs > MAX_SIGNS:
            return f"has more than {MAX_SIGNS} signs in a row"
    return f"has {operators} operators, and may have {MAX_OPERATORS}" if operators > MAX_OPERATORS else ""


async def extend_selector(
    text: str, what: str, who: str, more: Iterable[LabelMatcher] = (), *, wait: bool = True
) -> str:
    """`text`, which must be a plain selector, with the matchers `more`. Raises Fault, permanent, when it is anything
    else than a selector."""
    found = await parse_query(text, what, who, wait=wait)
    if not found.is_selector:
        message = f"{what} must be a plain selector of counters, without functions, range, offset or @, and is {text}"
        raise MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)
    (selector,) = found.selectors
    return build_selector(selector.name, [*_require_plain_matchers(selector, what), *more])


def build_selector(name: str, matches: Sequence[LabelMatcher]) -> str:
    """The selector of the metric `name` (may be empty: then a matcher names it) with these matchers."""
    return f"{name}{{{','.join(map(str, matches))}}}"


async def split_matchers(text: str, what: str, who: str) -> tuple[tuple[LabelMatcher, ...], tuple[LabelMatcher, ...]]:
    """The matchers of a plain selector: those of the metric's name, and the others."""
    (selector,) = (await parse_query(text, what, who)).selectors
    others = _require_plain_matchers(selector, what)
    names = [LabelMatcher("__name__", selector.name)] if selector.name else []
    names += [match for match in others if match.label == "__name__"]
    return tuple(names), tuple(match for match in others if match.label != "__name__")


def escape_pattern(text: str) -> str:
    """`text` as an RE2 pattern of itself."""
    # RE2 knows no escaped letters of other scripts, and needs none.
    return "".join(char if char.isalnum() or char in "_-:" or not char.isascii() else f"\\{char}" for char in text)


async def enforce_label(text: str, label: str, value: str, what: str) -> str:
    """`text` when every selector in it has `label="value"`, else Fault, permanent. `value` is the namespace.

    It is printed again from what was parsed, so that the server reads what was checked.
    """
    found = await parse_query(text, what, value)
    for function in sorted(found.functions & _FORBIDDEN_FUNCTIONS):
        raise MeasurementError(
            Reason.QUERY_REFUSED, f"{what} must not use {function}() on this connection", permanent=True
        )
    for selector in found.selectors:
        if LabelMatcher(label, value) not in _require_plain_matchers(selector, what):
            message = f'{what}: on this connection every selector needs {label}="{value}", and {selector.text} does not'
            raise MeasurementError(
                Reason.QUERY_REFUSED, f'{message} have it; write {label}="$(NAMESPACE)"', permanent=True
            )
    if found.printed is None:
        raise MeasurementError(
            Reason.QUERY_REFUSED, f"{what} can't be printed again as it was read: write it more plainly", permanent=True
        )
    return found.printed


def _require_plain_matchers(selector: Selector, what: str) -> tuple[LabelMatcher, ...]:
    if selector.alternatives:
        raise MeasurementError(
            Reason.QUERY_REFUSED, f"{what}: `or` between matchers is not PromQL of Prometheus", permanent=True
        )
    return selector.matchers


def _escape_string(text: str) -> str:
    """`text` as it stands between double quotes."""
    return "".join(
        f"\\{char}" if char in '\\"' else char if char.isprintable() else f"\\U{ord(char):08x}" for char in text
    )
