"""Users' PromQL: what is filled in, what is a plain selector, and that a demanded label can't be got round."""

from __future__ import annotations

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.analysis import promql
from modelwright.analysis.promql import Match
from modelwright.analysis.web import Fault
from tests.unit.measuring.conftest import CANDIDATE, ask


def test_placeholders_are_filled_in() -> None:
    text = 'a{n="$(NAMESPACE)",m="$(MODEL)",v="$(VERSION)",r="$(REVISION)",p=~"$(PODS)"}'
    filled = promql.fill(text, promql.placeholders(ask(), CANDIDATE))
    assert filled == (
        'a{n="vision",m="digits",v="digits-v2",r="bbbbbbbbbb",p=~"digits-bbbbbbbbbb-[a-z0-9-]+"}'
    )  # fmt: skip


def test_an_unknown_placeholder_is_refused_for_good() -> None:
    with pytest.raises(Fault, match=r"\$\(POD\) is no placeholder; known are \$\(NAMESPACE\)") as refused:
        promql.fill('a{pod="$(POD)"}', promql.placeholders(ask(), CANDIDATE))
    assert refused.value.failure.permanent


@given(st.text())
def test_any_value_is_read_back_from_between_the_quotes(value: str) -> None:
    value = value.encode(errors="ignore").decode()
    (found,) = promql_parser.parse(promql.select("a", [Match("l", value)])).matchers.matchers
    assert found.value == value


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("a_total", "a_total{}"),
        ('a_total{code=~"5.."}', 'a_total{code=~"5.."}'),
        ("a{b!='c',d!~`e`}", 'a{b!="c",d!~"e"}'),
        ('{__name__="a"}', '{__name__="a"}'),
    ],
)
def test_a_plain_selector(text: str, selector: str) -> None:
    assert sorted(promql.plain(text, "it")) == sorted(selector)


def test_matchers_are_added_to_a_plain_selector() -> None:
    more = [Match("namespace", "vision"), Match("pod", "digits-x-.*", "=~")]
    assert promql.plain('a{code="500"}', "it", more) == 'a{code="500",namespace="vision",pod=~"digits-x-.*"}'
    # Whatever a runtime says, it is narrowed and never widened.
    assert promql.plain('a{namespace="other"}', "it", more[:1]) == 'a{namespace="other",namespace="vision"}'


@pytest.mark.parametrize(
    "text",
    ["rate(a[5m])", "sum(a)", "a[5m]", "a offset 5m", "a @ end()", "a + b", "1", '"a"', "(a)", "a{", "a{} b", "-a"],
)
def test_what_is_more_than_a_selector_is_refused_for_good(text: str) -> None:
    with pytest.raises(Fault, match=r"^prometheus\.bad ") as refused:
        promql.plain(text, "prometheus.bad")
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
def test_a_query_whose_selectors_all_have_the_label(text: str) -> None:
    assert promql_parser.parse(promql.enforced(text, "namespace", "vision", "q")).prettify()


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
def test_a_query_that_would_read_more_is_refused_for_good(text: str) -> None:
    with pytest.raises(Fault, match=r"^q") as refused:
        promql.enforced(text, "namespace", "vision", "q")
    assert refused.value.failure.permanent


@pytest.mark.parametrize(
    "text",
    [
        'a{namespace="vision",x=\'"} or b{y="\'}',
        'a{namespace="vision",x="\\"} or b{y=\\""}',
        'a{namespace="vision",x="\\x22} or b{y=\\x22"}',
    ],
)
def test_what_is_sent_reads_as_what_was_checked(text: str) -> None:
    sent = promql.enforced(text, "namespace", "vision", "q")
    assert sent == 'a{namespace="vision",x="\\"} or b{y=\\""}'
