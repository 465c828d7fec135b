"""Users' PromQL: what is filled in, what is a plain selector, and that a demanded label can't be got round."""

from __future__ import annotations

from typing import NamedTuple

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from promql_parser import VectorSelector

from modelwright.measurement import queries
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.queries import LabelMatcher
from modelwright.sandbox import promql as sandboxed
from tests.lib.measurement import CANDIDATE, make_request


def test_placeholders_are_filled_in() -> None:
    text = 'a{n="$(NAMESPACE)",m="$(MODEL)",v="$(VERSION)",r="$(REVISION)",p=~"$(PODS)"}'
    filled = queries.fill_placeholders(text, queries.build_placeholders(make_request(), CANDIDATE))
    assert filled == ('a{n="vision",m="digits",v="digits-v2",r="bbbbbbbbbb",p=~"digits-bbbbbbbbbb-[a-z0-9-]+"}')


def test_an_unknown_placeholder_is_refused_for_good() -> None:
    with pytest.raises(MeasurementError, match=r"\$\(POD\) is no placeholder; known are \$\(NAMESPACE\)") as refused:
        queries.fill_placeholders('a{pod="$(POD)"}', queries.build_placeholders(make_request(), CANDIDATE))
    assert refused.value.failure.permanent


@given(st.text())
def test_any_value_is_read_back_from_between_the_quotes(value: str) -> None:
    value = value.encode(errors="ignore").decode()
    (actual,) = promql_parser.parse(queries.build_selector("a", [LabelMatcher("l", value)])).matchers.matchers
    assert actual.value == value


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("a_total", "a_total{}"),
        ('a_total{code=~"5.."}', 'a_total{code=~"5.."}'),
        ("a{b!='c',d!~`e`}", 'a{b!="c",d!~"e"}'),
        ('{__name__="a"}', '{__name__="a"}'),
    ],
)
async def test_a_plain_selector(text: str, selector: str) -> None:
    assert sorted(await queries.extend_selector(text, "it", "vision")) == sorted(selector)


async def test_matchers_are_added_to_a_plain_selector() -> None:
    more = [LabelMatcher("namespace", "vision"), LabelMatcher("pod", "digits-x-.*", "=~")]
    assert (
        await queries.extend_selector('a{code="500"}', "it", "vision", more)
        == 'a{code="500",namespace="vision",pod=~"digits-x-.*"}'
    )
    # Whatever a runtime says, it is narrowed and never widened.
    assert (
        await queries.extend_selector('a{namespace="other"}', "it", "vision", more[:1])
        == 'a{namespace="other",namespace="vision"}'
    )


@pytest.mark.parametrize(
    "text",
    ["rate(a[5m])", "sum(a)", "a[5m]", "a offset 5m", "a @ end()", "a + b", "1", '"a"', "(a)", "a{", "a{} b", "-a"],
)
async def test_what_is_more_than_a_selector_is_refused_for_good(text: str) -> None:
    with pytest.raises(MeasurementError, match=r"^prometheus\.bad ") as refused:
        await queries.extend_selector(text, "prometheus.bad", "vision")
    assert refused.value.failure.permanent
    assert refused.value.failure.reason == "QueryRefused"


@pytest.mark.parametrize(
    "text",
    [
        'a{namespace="vision"}',
        'sum(rate(a{namespace="vision"}[5m])) / sum(rate(b{namespace="vision",x=~"y"}[5m] offset 1m))',
        'max_over_time(rate(a{namespace="vision"}[1m])[5m:10s]) > bool 1',
        'topk(scalar(a{namespace="vision"}), b{namespace="vision"})',
        'histogram_quantile(0.9, sum by (le) (rate(a_bucket{namespace="vision"}[5m])))',
        "1 + 1",
    ],
)
async def test_a_query_whose_selectors_all_have_the_label(text: str) -> None:
    assert promql_parser.parse(await queries.enforce_label(text, "namespace", "vision", "q")).prettify()


@pytest.mark.parametrize(
    "text",
    [
        "a",
        'a{namespace="other"}',
        'a{namespace=~"vision"}',
        'a{namespace!="other"}',
        'a{namespace="vision"} + b',
        'sum(rate(a{namespace="vision"}[5m])) / sum(rate(b[5m]))',
        "max_over_time(rate(a[1m])[5m:10s])",
        'topk(scalar(a), b{namespace="vision"})',
        'absent(a{x="namespace=vision"})',
        "label_replace(a, 'namespace', 'vision', '', '')",
        "a{x='namespace=\"vision\"'}",
        '{__name__=~".+"}',
        '{"a"}',
        'info(a{namespace="vision"})',
        'a{namespace="vision" or namespace="other"}',
        'a{namespace="other" or namespace="vision"}',
        '-(a unless on() b{namespace="vision"})',
        'a{namespace="vision"} # b\n + c',
        "count_values('x', a)",
    ],
)
async def test_a_query_that_would_read_more_is_refused_for_good(text: str) -> None:
    with pytest.raises(MeasurementError, match=r"^q") as refused:
        await queries.enforce_label(text, "namespace", "vision", "q")
    assert refused.value.failure.permanent


@pytest.mark.parametrize(
    "text",
    [
        'a{namespace="vision",x=\'"} or b{y="\'}',
        'a{namespace="vision",x="\\"} or b{y=\\""}',
        'a{namespace="vision",x="\\x22} or b{y=\\x22"}',
    ],
)
async def test_what_is_sent_reads_as_what_was_checked(text: str) -> None:
    sent = await queries.enforce_label(text, "namespace", "vision", "q")
    assert sent == 'a{namespace="vision",x="\\"} or b{y=\\""}'


class Nesting(NamedTuple):
    """A query of some thousand characters, in the style of `(((...)))`."""

    what: str
    text: str
    expected: str


VISION = 'up{namespace="vision"}'
NESTED = [
    Nesting("brackets", "(" * 800 + VISION + ")" * 800, "more than 32 brackets in each other"),
    Nesting("brackets with spaces", "( " * 800 + VISION + ")" * 800, "more than 32 brackets in each other"),
    Nesting("functions", "abs(" * 800 + VISION + ")" * 800, "more than 32 brackets in each other"),
    Nesting("a text with brackets between", '(")"+' * 400 + VISION + ")" * 400, "more than 32 brackets in each other"),
    Nesting("a comment with brackets", "( # )\n" * 400 + VISION + ")" * 400, "more than 32 brackets in each other"),
    Nesting("signs", "-" * 4090 + "up", "more than 8 signs in a row"),
    Nesting("signs with comments", "- #\n" * 900 + "up", "more than 8 signs in a row"),
    Nesting("sums", "+".join(["a"] * 2048), "2047 operators, and may have 128"),
    Nesting("powers", "^".join(["1"] * 2048), "2047 operators, and may have 128"),
    Nesting("sets", " unless ".join(["a"] * 450), "449 operators, and may have 128"),
    Nesting("comparisons", "==".join(["a"] * 450), "449 operators, and may have 128"),
    Nesting("quotes that never end", '"\\"' * 1300, "no PromQL that can be read"),
    Nesting("placeholders", 'a{b="' + "x" * (17 << 10) + '"}', "characters with its placeholders filled in"),
]


@pytest.mark.parametrize("row", NESTED, ids=[row.what for row in NESTED])
async def test_a_query_nested_too_deep_is_refused_and_blocks_nothing(row: Nesting, prompt_loop: None) -> None:
    with pytest.raises(MeasurementError) as refused:
        await queries.enforce_label(row.text, "namespace", "vision", "prometheus.query")
    assert refused.value.failure.message.startswith("prometheus.query ")
    assert row.expected in refused.value.failure.message


LARGEST = [
    "(" * 31 + "+".join([VISION] * 129) + ")" * 31,
    "+".join(["-" * 7 + VISION] * 16),
    "up{" + ",".join(['namespace="vision"', *['a!="b"'] * 600]) + "}",
    "sum(" * 30 + f"label_join({VISION}," + ",".join(['"b"'] * 900) + ")" * 31,
    "sum by (" + ",".join(["a"] * 1900) + f") ({VISION})",
]


@pytest.mark.parametrize("text", LARGEST, ids=["nested", "signs", "matchers", "arguments", "labels"])
async def test_the_largest_queries_are_read_and_hold_nothing(text: str, prompt_loop: None) -> None:
    assert await queries.enforce_label(text, "namespace", "vision", "q")
    assert await queries.enforce_label(text, "namespace", "vision", "q"), "what is kept holds nothing either"


EXPRESSIONS = st.recursive(
    st.sampled_from(['a{x="1"}', "b", "1", "c[5m]", '"t"']),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "or", "unless", "> bool", "and on (x)"]), inner).map(" ".join),
        st.tuples(st.sampled_from(["sum", "rate", "topk(2,", "abs", "scalar", "-", "max_over_time"]), inner).map(
            lambda pair: f"{pair[0]}({pair[1]})" + ")" * pair[0].count("(")
        ),
        inner.map("({})[5m:1m]".format),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_every_selector_of_a_query_is_seen(text: str) -> None:
    try:
        actual = promql_parser.parse(text)
    except ValueError:
        return
    every: list[str] = []
    promql_parser.walk(
        actual, pre_visit=lambda node: every.append(node.prettify()) if isinstance(node, VectorSelector) else None
    )
    assert [one["text"] for one in sandboxed.answer_question({"query": text})["selectors"]] == [
        one.strip() for one in every
    ]
