"""Reads users' PromQL: fills placeholders, tells plain selectors from queries, enforces a label on every selector.

This module bounds the text; the sandbox parses it, because time and memory of the parser grow with the square of the
nesting depth, and with the cube when it prints.
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
# info() is the one function that reads series which no selector of the query names.
_FORBIDDEN_FUNCTIONS = frozenset({"info"})
MatchSign = Literal["=", "!=", "=~", "!~"]
MAX_CHARACTERS = 16 << 10
"""Characters in a query whose placeholders are filled in."""
MAX_OPERATORS = 128
"""Operators in a query; each is nested in the next one."""
# Each alternative for a string reaches its end, or that of the query, so that none is tried again from its middle.
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


def build_placeholders(request: MeasurementRequest, target: RevisionTarget) -> dict[str, str]:
    """Build the values of the placeholders by name."""
    values = (request.namespace, request.model, target.version, target.revision, target.pod_pattern)
    return dict(zip(PLACEHOLDERS, values, strict=True))


def fill_placeholders(text: str, values: Mapping[str, str]) -> str:
    """Fill the placeholders of `text`. Raises MeasurementError, permanent, for an unknown one."""

    def fill_one(match: re.Match[str]) -> str:
        if match[1] not in values:
            listed = ", ".join(f"$({name})" for name in values)
            raise MeasurementError(
                Reason.QUERY_REFUSED, f"$({match[1]}) is no placeholder; known are {listed}", permanent=True
            )
        return _escape_string(values[match[1]])

    return _PLACEHOLDER.sub(fill_one, text)


def distinguishes_revisions(text: str) -> bool:
    """Whether `text` has a placeholder whose value differs from revision to revision."""
    return any(name in REVISION_PLACEHOLDERS for name in _PLACEHOLDER.findall(text))


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector of a query: its matchers, of which one may be for `__name__`, and its text for messages."""

    name: str
    matchers: tuple[LabelMatcher, ...]
    text: str
    alternatives: bool = False
    """Whether it has `or` between matchers, which Prometheus doesn't support."""


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query as the sandbox has parsed it."""

    printed: str | None
    """The query in one line; None when that text would parse to another query."""
    selectors: tuple[Selector, ...]
    functions: frozenset[str]
    is_selector: bool
    """Whether it is a selector alone, without offset and @."""
    always_gives_number: bool
    """Whether it gives a number when none of its selectors finds a series, as `... or vector(0)` does."""
    presence_query: str
    """A query with a result exactly when a selector finds a series; empty without any selector."""


async def parse_query(text: str, field: str, namespace: str, *, wait: bool = True) -> ParsedQuery:
    """Parse a query. Raises MeasurementError, permanent, when it is none.

    `field`: its place in the policy, for messages. `namespace`: whose text it is. Without `wait`, as in a
    reconciliation, raises SandboxBusy while the sandbox reads for that namespace.
    """
    parsed = await _read_query(text, field, namespace, wait)
    if isinstance(parsed, str):
        raise MeasurementError(Reason.QUERY_REFUSED, f"{field} is no PromQL that can be read: {parsed}", permanent=True)
    return parsed


async def try_parse_query(text: str, field: str, namespace: str, *, wait: bool = True) -> ParsedQuery | None:
    """As `parse_query`, and None for a query that only the server can read: it may be newer than our parser."""
    parsed = await _read_query(text, field, namespace, wait)
    return None if isinstance(parsed, str) else parsed


def check_size(text: str, field: str) -> None:
    """Raise MeasurementError, permanent, for a query beyond the bounds of length and nesting. Takes time in proportion
    to its length."""
    if excess := _describe_excess(text):
        raise MeasurementError(Reason.QUERY_REFUSED, f"{field} {excess}", permanent=True)


async def _read_query(text: str, field: str, namespace: str, wait: bool) -> ParsedQuery | str:
    """Parse a query in the sandbox, or return the parser's reason why it is none."""
    question = {"query": text}
    answer = SANDBOX.get_cached("promql", question)
    if answer is None:
        check_size(text, field)
        turn = SANDBOX.run_in_turn if wait else SANDBOX.run_if_free
        answer = await turn(namespace, SANDBOX.send_question, "promql", question, keep=True)
    if isinstance(answer, NoAnswer):
        raise MeasurementError(Reason.QUERY_REFUSED, f"{field} can't be read: {answer.why}; write it shorter")
    if "error" in answer:
        return str(answer["error"])
    selectors = tuple(_parse_selector(one) for one in answer["selectors"])
    return ParsedQuery(
        answer["printed"], selectors, frozenset(answer["functions"]), answer["plain"], answer["always"], answer["data"]
    )


def _parse_selector(parsed: Mapping[str, Any]) -> Selector:
    matchers = tuple(LabelMatcher(label, value, sign) for label, value, sign in parsed["matches"])
    return Selector(parsed["name"], matchers, parsed["text"], parsed["alternatives"])


def _describe_excess(text: str) -> str:
    """Describe which bound a query exceeds; empty when none."""
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text)} characters with its placeholders filled in, and may have {MAX_CHARACTERS}"
    depth = signs = operators = 0
    braces = False
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "space" or (kind == "text" and text[token.start()] == "#"):
            continue
        signs = signs + 1 if kind == "sign" else 0
        operators += (kind == "sign" or kind == "operator") and not braces
        if kind in ("open", "close"):
            braces = token[0] == "{"
            depth += 1 if kind == "open" else -1
        if depth > MAX_BRACKETS:
            return f"has more than {MAX_BRACKETS} brackets in each other"
        if signs > MAX_SIGNS:
            return f"has more than {MAX_SIGNS} signs in a row"
    return f"has {operators} operators, and may have {MAX_OPERATORS}" if operators > MAX_OPERATORS else ""


async def extend_selector(
    text: str, field: str, namespace: str, more: Iterable[LabelMatcher] = (), *, wait: bool = True
) -> str:
    """Add the matchers `more` to `text`, which must be a plain selector.

    Raises MeasurementError, permanent, when it is anything else. Other parameters as of `parse_query`.
    """
    parsed = await parse_query(text, field, namespace, wait=wait)
    if not parsed.is_selector:
        message = f"{field} must be a plain selector of counters, without functions, range, offset or @, and is {text}"
        raise MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)
    (selector,) = parsed.selectors
    return build_selector(selector.name, [*_require_plain_matchers(selector, field), *more])


def build_selector(name: str, matchers: Sequence[LabelMatcher]) -> str:
    """Build the selector of the metric `name` (may be empty: then a matcher names it) with these matchers."""
    return f"{name}{{{','.join(map(str, matchers))}}}"


async def split_matchers(
    text: str, field: str, namespace: str
) -> tuple[tuple[LabelMatcher, ...], tuple[LabelMatcher, ...]]:
    """Split the matchers of a plain selector into those of the metric's name, and the others."""
    (selector,) = (await parse_query(text, field, namespace)).selectors
    others = _require_plain_matchers(selector, field)
    names = [LabelMatcher("__name__", selector.name)] if selector.name else []
    names += [matcher for matcher in others if matcher.label == "__name__"]
    return tuple(names), tuple(matcher for matcher in others if matcher.label != "__name__")


def escape_pattern(text: str) -> str:
    """Escape `text` as an RE2 pattern that matches it alone."""
    # RE2 refuses escaped letters of other scripts, and needs none.
    return "".join(char if char.isalnum() or char in "_-:" or not char.isascii() else f"\\{char}" for char in text)


async def enforce_label(text: str, label: str, namespace: str, field: str) -> str:
    """Require `label="namespace"` of every selector in `text`; else raise MeasurementError, permanent.

    Returns the query as printed from the parsed one, so that the server reads the query that was checked.
    """
    parsed = await parse_query(text, field, namespace)
    for function in sorted(parsed.functions & _FORBIDDEN_FUNCTIONS):
        raise MeasurementError(
            Reason.QUERY_REFUSED, f"{field} must not use {function}() on this connection", permanent=True
        )
    for selector in parsed.selectors:
        if LabelMatcher(label, namespace) not in _require_plain_matchers(selector, field):
            message = (
                f'{field}: on this connection every selector needs {label}="{namespace}", and {selector.text} does not'
            )
            raise MeasurementError(
                Reason.QUERY_REFUSED, f'{message} have it; write {label}="$(NAMESPACE)"', permanent=True
            )
    if parsed.printed is None:
        raise MeasurementError(
            Reason.QUERY_REFUSED,
            f"{field} can't be printed again as it was read: write it more plainly",
            permanent=True,
        )
    return parsed.printed


def _require_plain_matchers(selector: Selector, field: str) -> tuple[LabelMatcher, ...]:
    if selector.alternatives:
        raise MeasurementError(
            Reason.QUERY_REFUSED, f"{field}: `or` between matchers is not PromQL of Prometheus", permanent=True
        )
    return selector.matchers


def _escape_string(text: str) -> str:
    """Escape `text` as it stands between double quotes."""
    return "".join(
        f"\\{char}" if char in '\\"' else char if char.isprintable() else f"\\U{ord(char):08x}" for char in text
    )
